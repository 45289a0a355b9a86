//! The integration tests: one binary, one harness. Each file tests one door of the program.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod bench;
mod cli;
mod dist;
mod doctor;
mod drain;
mod explain;
mod fake;
mod golden;
mod harness;
mod hostile;
mod keys;
mod op;
mod page;
mod pipeline;
mod probes;
mod readme;
mod score;

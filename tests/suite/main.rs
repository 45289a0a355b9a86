//! The integration tests: one binary, one harness. Each file tests one interface of the program.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod audit;
mod avif;
mod bench;
mod bulk;
mod calibrate;
mod cli;
mod collage;
mod combine;
mod conv;
mod declared;
mod dist;
mod doctor;
mod drain;
mod explain;
mod fairness;
mod fake;
mod folders;
mod forms;
mod golden;
mod grpc;
mod harness;
mod heic;
mod hostile;
mod hostile_client;
mod import;
mod keys;
mod load_report;
mod log;
mod metrics;
mod oip;
mod oip_refusals;
mod op;
mod page;
mod probes;
mod providers;
mod readme;
mod request_ids;
mod scheduler;
mod score;
mod several;
mod signals;
mod silence;
mod systemd;
mod trace;

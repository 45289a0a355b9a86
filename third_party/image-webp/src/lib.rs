//! The bitstream decoders of image-webp 0.2.4, changed so that a decode can be stopped: see README.md.

#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![allow(clippy::all, reason = "kept as the original has it")]
// Increase recursion limit for the `quick_error!` macro.
#![recursion_limit = "256"]

pub use self::decoder::{
    check_alpha, decode_lossless, decode_lossy, DecodingError, Stop, MAX_TABLE_BYTES,
};

mod decoder;
mod huffman;
mod loop_filter;
mod lossless;
mod lossless_transform;
mod transform;
mod vp8_arithmetic_decoder;
mod yuv;

pub mod vp8;

//! Limits of a request's elements, in either transport. A valid request has one input of at most four dimensions and at
//! most six outputs; the limits are higher, so that invalid requests get a specific error.

/// Inputs, and requested outputs.
pub const MOST_INPUTS: usize = 16;

/// Parameters of a request, of one of its inputs or of one of its outputs.
pub const MOST_PARAMETERS: usize = 64;

/// Dimensions of an input.
pub const MOST_DIMENSIONS: usize = 16;

/// Strings of an input: more than `--max-batch-images` can allow.
pub const MOST_STRINGS: usize = 8192;

/// Characters of the caller's id, which is returned.
pub const LONGEST_ID: usize = 200;

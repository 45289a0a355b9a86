//! How many elements a request may have, in either transport. A request of ours has one input, of at most four
//! dimensions, and asks for at most six outputs; the limits leave room for an answer that says what is wrong.

/// Inputs, and outputs that are asked for.
pub const MOST_INPUTS: usize = 16;

/// Parameters of a request, of one of its inputs or of one of its outputs.
pub const MOST_PARAMETERS: usize = 64;

/// Dimensions of an input.
pub const MOST_DIMENSIONS: usize = 16;

/// Strings of an input: more than `--max-batch-images` can allow.
pub const MOST_STRINGS: usize = 8192;

/// Characters of the caller's id, which is sent back.
pub const LONGEST_ID: usize = 200;

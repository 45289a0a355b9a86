//! Facts of one image that its judgement, answer and log line need besides the pixels.

use super::Header;

/// Facts of a decoded image.
#[derive(Debug, Clone)]
pub struct ImageFacts {
    /// The header's fields.
    pub header: Header,
    /// Size of the file in bytes.
    pub bytes: usize,
    /// Hash of the file.
    pub sha256: [u8; 32],
    /// Hash of the first region's 256x256 RGB bytes, the network's input, if configured.
    pub rgb256_sha256: Option<[u8; 32]>,
}

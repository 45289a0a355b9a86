//! Facts of one image: what its judgement, its answer and its log line need beside the pixels.

use super::Header;

/// What is known of an image once it is decoded.
#[derive(Debug, Clone)]
pub struct ImageFacts {
    /// The header's fields.
    pub header: Header,
    /// Size of the file in bytes.
    pub bytes: usize,
    /// Hash of the file.
    pub sha256: [u8; 32],
    /// Hash of the first region's 256x256 RGB bytes, which enter the network, where the configuration asks for it.
    pub rgb256_sha256: Option<[u8; 32]>,
}

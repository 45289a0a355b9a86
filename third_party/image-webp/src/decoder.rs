//! What remains of the original `decoder.rs` and `extended.rs`: the container is read elsewhere.

use quick_error::quick_error;

use std::io::{self, Read};

use super::lossless::LosslessDecoder;
use super::vp8::{Frame, Vp8Decoder};

/// Asked between steps of a decode; `true` ends it with [`DecodingError::Stopped`].
pub type Stop<'a> = &'a dyn Fn() -> bool;

/// Bytes of pixels between two questions, where there are no rows.
pub(crate) const STEP_BYTES: usize = 1 << 18;

/// Most bytes of Huffman tables: a file of a megabyte could ask for a gigabyte. Encoders stay below 20 MB.
pub const MAX_TABLE_BYTES: usize = 64 << 20;

pub(crate) fn check(stop: Stop<'_>) -> Result<(), DecodingError> {
    if stop() {
        Err(DecodingError::Stopped)
    } else {
        Ok(())
    }
}

/// A buffer of zeros, or an error where there is no memory.
pub(crate) fn zeros(length: usize, stop: Stop<'_>) -> Result<Vec<u8>, DecodingError> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(length).map_err(|_| DecodingError::OutOfMemory)?;
    while buffer.len() < length {
        check(stop)?;
        buffer.resize(length.min(buffer.len() + STEP_BYTES), 0);
    }
    Ok(buffer)
}

/// Decodes the data of a `VP8 ` chunk.
pub fn decode_lossy(data: &[u8], stop: Stop<'_>) -> Result<Frame, DecodingError> {
    Vp8Decoder::decode_frame(data, stop)
}

/// Decodes the data of a `VP8L` chunk to RGBA.
pub fn decode_lossless(data: &[u8], width: u16, height: u16, stop: Stop<'_>) -> Result<Vec<u8>, DecodingError> {
    let mut rgba = zeros(usize::from(width) * usize::from(height) * 4, stop)?;
    LosslessDecoder::new(data, stop).decode_frame(width.into(), height.into(), false, &mut rgba)?;
    Ok(rgba)
}

/// Decodes the data of an `ALPH` chunk and drops it: only its damage counts.
pub fn check_alpha(mut data: &[u8], width: u16, height: u16, stop: Stop<'_>) -> Result<(), DecodingError> {
    let mut info = [0];
    data.read_exact(&mut info)?;
    if info[0] >> 4 & 3 > 1 {
        return Err(DecodingError::InvalidAlphaPreprocessing);
    }
    let pixels = usize::from(width) * usize::from(height);
    match info[0] & 3 {
        0 if data.len() < pixels => Err(DecodingError::AlphaChunkSizeMismatch),
        0 => Ok(()),
        1 => {
            let mut rgba = zeros(pixels * 4, stop)?;
            LosslessDecoder::new(data, stop).decode_frame(width.into(), height.into(), true, &mut rgba)
        }
        _ => Err(DecodingError::InvalidCompressionMethod),
    }
}

quick_error! {
    /// Errors that can occur when attempting to decode a WebP image
    #[derive(Debug)]
    #[non_exhaustive]
    pub enum DecodingError {
        /// An IO error occurred while reading the file
        IoError(err: io::Error) {
            from()
            display("IO Error: {}", err)
            source(err)
        }

        /// The caller asked for an end
        Stopped {
            display("Stopped")
        }

        /// No memory for the pixels
        OutOfMemory {
            display("Out of memory")
        }

        /// The ALPH chunk preprocessing info flag was invalid
        InvalidAlphaPreprocessing {
            display("Alpha chunk preprocessing flag invalid")
        }

        /// Invalid compression method
        InvalidCompressionMethod {
            display("Invalid compression method")
        }

        /// Alpha chunk doesn't match the frame's size
        AlphaChunkSizeMismatch {
            display("Alpha chunk size mismatch")
        }

        /// Signature of 0x2f not found
        LosslessSignatureInvalid(err: u8) {
            display("Invalid lossless signature: {err:x?}")
        }

        /// Version Number was not zero
        VersionNumberInvalid(err: u8) {
            display("Invalid lossless version number: {err}")
        }

        /// Invalid color cache bits
        InvalidColorCacheBits(err: u8) {
            display("Invalid color cache bits: {err}")
        }

        /// An invalid Huffman code was encountered
        HuffmanError {
            display("Invalid Huffman code")
        }

        /// The bitstream was somehow corrupt
        BitStreamError {
            display("Corrupt bitstream")
        }

        /// The transforms specified were invalid
        TransformError {
            display("Invalid transform")
        }

        /// The start code was not correct
        Vp8MagicInvalid(err: [u8; 3]) {
            display("Invalid VP8 magic: {err:x?}")
        }

        /// The decoder wasn't initialized before use
        NotEnoughInitData {
            display("Not enough VP8 init data")
        }

        /// The color space was invalid
        ColorSpaceInvalid(err: u8) {
            display("Invalid VP8 color space: {err}")
        }

        /// LUMA prediction mode was not recognised
        LumaPredictionModeInvalid(err: i8) {
            display("Invalid VP8 luma prediction mode: {err}")
        }

        /// Intra-prediction mode was not recognised
        IntraPredictionModeInvalid(err: i8) {
            display("Invalid VP8 intra prediction mode: {err}")
        }

        /// Chroma prediction mode was not recognised
        ChromaPredictionModeInvalid(err: i8) {
            display("Invalid VP8 chroma prediction mode: {err}")
        }

        /// Inconsistent image sizes
        InconsistentImageSizes {
            display("Inconsistent image sizes")
        }

        /// The file may be valid, but this crate doesn't support decoding it.
        UnsupportedFeature(err: String) {
            display("Unsupported feature: {err}")
        }

        /// Memory limit exceeded
        MemoryLimitExceeded {
            display("Memory limit exceeded")
        }
    }
}

//! LZW codes as GIF and TIFF use them.

use weezl::LzwStatus;
use weezl::decode::Decoder;

use super::{Cancel, ImageError};

/// Limit of input and output bytes between two checks of the flag.
const STEP_BYTES: usize = 1 << 16;

/// Fills all of `out` from the codes in `data`; further codes are ignored. False if there are too few.
pub(super) fn fill(
    decoder: &mut Decoder,
    mut data: &[u8],
    mut out: &mut [u8],
    cancel: &Cancel,
) -> Result<bool, ImageError> {
    while !out.is_empty() {
        cancel.check()?;
        let (input, output) = (data.len().min(STEP_BYTES), out.len().min(STEP_BYTES));
        let result = decoder.decode_bytes(&data[..input], &mut out[..output]);
        data = &data[result.consumed_in.min(input)..];
        out = &mut out[result.consumed_out.min(output)..];
        match result.status {
            Ok(LzwStatus::Ok) => {}
            // Ended, out of input or damaged: succeeded only if `out` is full.
            _ => break,
        }
    }
    Ok(out.is_empty())
}

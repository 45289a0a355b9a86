//! LZW codes as GIF and TIFF use them.

use weezl::LzwStatus;
use weezl::decode::Decoder;

/// Fills all of `out` from the codes in `data`, or gives nothing. Codes beyond that are ignored.
pub(super) fn fill(decoder: &mut Decoder, mut data: &[u8], mut out: &mut [u8]) -> Option<()> {
    while !out.is_empty() {
        let result = decoder.decode_bytes(data, out);
        data = data.get(result.consumed_in..)?;
        out = out.get_mut(result.consumed_out..)?;
        match result.status {
            Ok(LzwStatus::Ok) => {}
            // Ended, starved or damaged: enough only if nothing is missing.
            _ => break,
        }
    }
    out.is_empty().then_some(())
}

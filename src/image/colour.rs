//! Pillow's conversions to RGB (libImaging Convert.c), one row at a time.

/// Replicates grey to three channels.
pub(super) fn grey_row(grey: &[u8], rgb: &mut [u8]) {
    for (&v, out) in grey.iter().zip(rgb.as_chunks_mut::<3>().0) {
        *out = [v; 3];
    }
}

/// Keeps the first three of `samples` channels: alpha is dropped, not composited.
pub(super) fn first_three_row(pixels: &[u8], samples: usize, rgb: &mut [u8]) {
    for (pixel, out) in pixels.chunks_exact(samples).zip(rgb.as_chunks_mut::<3>().0) {
        if let Some(colour) = pixel.first_chunk() {
            *out = *colour;
        }
    }
}

/// Divides the first three of `samples` channels by the fourth (Unpack.c, `unpackRGBa`).
pub(super) fn unpremultiplied_row(pixels: &[u8], samples: usize, rgb: &mut [u8]) {
    for (pixel, out) in pixels.chunks_exact(samples).zip(rgb.chunks_exact_mut(3)) {
        let &[r, g, b, alpha, ..] = pixel else { continue };
        for (byte, value) in out.iter_mut().zip([r, g, b]) {
            *byte = match alpha {
                0 => 0,
                255 => value,
                alpha => (u32::from(value) * 255 / u32::from(alpha)).min(255) as u8,
            };
        }
    }
}

/// `cmyk2rgb`: `nk - MULDIV255(c, nk)` with nk = 255 - k, from the first four of `samples` channels.
pub(super) fn cmyk_row(pixels: &[u8], samples: usize, rgb: &mut [u8]) {
    for (pixel, out) in pixels.chunks_exact(samples).zip(rgb.chunks_exact_mut(3)) {
        let &[c, m, y, k, ..] = pixel else { continue };
        let nk = 255 - k;
        for (channel, ink) in out.iter_mut().zip([c, m, y]) {
            *channel = nk.saturating_sub(muldiv255(ink, nk));
        }
    }
}

/// `a * b / 255`, rounded, as Pillow's MULDIV255 does.
fn muldiv255(a: u8, b: u8) -> u8 {
    let product = u32::from(a) * u32::from(b) + 128;
    (((product >> 8) + product) >> 8) as u8
}

/// A palette of 256 RGB entries.
pub(super) struct Palette([[u8; 3]; 256]);

impl Palette {
    /// Each index is its own grey level, as in Pillow for an image without a palette.
    pub(super) fn grey() -> Self {
        Self(std::array::from_fn(|i| [i as u8; 3]))
    }

    /// Indices beyond the given colours are black, as in Pillow.
    pub(super) fn new(colours: impl IntoIterator<Item = [u8; 3]>) -> Self {
        let mut entries = [[0; 3]; 256];
        for (entry, colour) in entries.iter_mut().zip(colours) {
            *entry = colour;
        }
        Self(entries)
    }

    /// From consecutive RGB triples.
    pub(super) fn from_rgb(rgb: &[u8]) -> Self {
        Self::new(rgb.chunks_exact(3).filter_map(|c| c.first_chunk().copied()))
    }

    /// Looks up one index per pixel.
    pub(super) fn row(&self, indices: &[u8], rgb: &mut [u8]) {
        for (&index, out) in indices.iter().zip(rgb.as_chunks_mut::<3>().0) {
            *out = self.0[usize::from(index)];
        }
    }
}

/// Unpacks samples of `bits` (1, 2, 4 or 8), most significant first, to one byte per sample.
pub(super) fn unpack_row(packed: &[u8], bits: u8, samples: &mut [u8]) {
    let per_byte = usize::from(8 / bits.clamp(1, 8));
    let mask = (1_u16 << bits).wrapping_sub(1) as u8;
    for (&byte, out) in packed.iter().zip(samples.chunks_mut(per_byte)) {
        let mut shift = 8;
        for sample in out {
            shift -= bits;
            *sample = byte >> shift & mask;
        }
    }
}

//! How samples become RGB in libheif 1.23, which pillow-heif 1.8 brings: it takes integers where it has a short way, else
//! single-precision floats. Kept are the ways that are the same to the last bit here.

use super::Samples;
use crate::image::properties::Cicp;

/// The way to RGB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Method {
    /// Of a grey picture the samples as they are, whatever their range.
    Grey,
    /// Green, blue and red are stored as they are.
    Stored,
    /// 256ths, from samples cut to 8 bits: of blue in red and so on.
    Integers {
        cut: u8,
        factors: Factors<i32>,
    },
    Floats {
        depth: u8,
        black: f32,
        range: [f32; 2],
        factors: Factors<f32>,
    },
}

/// How much of the chroma samples goes into each colour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Factors<T> {
    r_cr: T,
    g_cb: T,
    g_cr: T,
    b_cb: T,
}

impl Method {
    /// Nothing where the pixels would not be the reference's.
    pub(super) fn new(samples: Samples, cicp: Cicp) -> Option<Self> {
        const IDENTITY: u16 = 0;
        let Samples { depth, subsampling } = samples;
        let Some(subsampling) = subsampling else { return (depth == 8).then_some(Self::Grey) };
        if cicp.matrix == IDENTITY {
            return (subsampling == [0, 0] && depth == 8 && cicp.full_range).then_some(Self::Stored);
        }
        let factors = Factors::of(cicp.matrix)?;
        Some(match (subsampling, cicp.full_range) {
            ([1, 1], true) => Self::Integers { cut: depth - 8, factors: factors.whole() },
            (_, true) => Self::Floats { depth, black: 0.0, range: [1.0; 2], factors },
            (_, false) => {
                Self::Floats { depth, black: (16_u32 << (depth - 8)) as f32, range: [1.1689, 1.1429], factors }
            }
        })
    }

    /// A row of pixels from rows of samples that are as wide.
    #[cfg(feature = "server")]
    pub(super) fn row(self, [first, second, third]: &[Vec<u16>; 3], pixels: &mut [[u8; 3]]) {
        let samples = pixels.iter_mut().zip(first).zip(second).zip(third);
        let samples = samples.map(|(((pixel, &first), &second), &third)| (pixel, first, second, third));
        match self {
            Self::Grey => pixels.iter_mut().zip(first).for_each(|(pixel, &y)| *pixel = [y as u8; 3]),
            Self::Stored => samples.for_each(|(pixel, g, b, r)| *pixel = [r, g, b].map(|sample| sample as u8)),
            Self::Integers { cut, factors: Factors { r_cr, g_cb, g_cr, b_cb } } => {
                samples.for_each(|(pixel, y, cb, cr)| {
                    let [y, cb, cr] = [y, cb, cr].map(|sample| i32::from(sample >> cut));
                    let (cb, cr) = (cb - 128, cr - 128);
                    let mix = |chroma: i32| (y + ((chroma + 128) >> 8)).clamp(0, 255) as u8;
                    *pixel = [mix(r_cr * cr), mix(g_cb * cb + g_cr * cr), mix(b_cb * cb)];
                })
            }
            Self::Floats { depth, black, range: [luma, chroma], factors: Factors { r_cr, g_cb, g_cr, b_cb } } => {
                let (most, half) = ((1_u32 << depth) - 1, (1_u32 << (depth - 1)) as f32);
                samples.for_each(|(pixel, y, cb, cr)| {
                    let y = (f32::from(y) - black) * luma;
                    let [cb, cr] = [cb, cr].map(|sample| (f32::from(sample) - half) * chroma);
                    // The deeper sample is rounded, then cut to 8 bits. A negative one becomes 0.
                    let round = |value: f32| (((value + 0.5) as u32).min(most) >> (depth - 8)) as u8;
                    *pixel = [round(y + r_cr * cr), round(y + g_cb * cb + g_cr * cr), round(y + b_cb * cb)];
                });
            }
        }
    }
}

impl Factors<f32> {
    fn of(matrix: u16) -> Option<Self> {
        const UNSPECIFIED: u16 = 2;
        let (red, blue): (f32, f32) = match matrix {
            1 => (0.2126, 0.0722),
            UNSPECIFIED => return Some(Self { r_cr: 1.402, g_cb: -0.344_136, g_cr: -0.714_136, b_cb: 1.772 }),
            4 => (0.30, 0.11),
            5 | 6 => (0.299, 0.114),
            7 => (0.212, 0.087),
            9 => (0.2627, 0.0593),
            _ => return None,
        };
        // In this order: floats.
        let green = blue + red - 1.0;
        Some(Self {
            r_cr: 2.0 * (-red + 1.0),
            g_cb: 2.0 * blue * (-blue + 1.0) / green,
            g_cr: 2.0 * red * (-red + 1.0) / green,
            b_cb: 2.0 * (-blue + 1.0),
        })
    }

    fn whole(self) -> Factors<i32> {
        let whole = |factor: f32| (256.0 * factor).round() as i32;
        let Self { r_cr, g_cb, g_cr, b_cb } = self;
        Factors { r_cr: whole(r_cr), g_cb: whole(g_cb), g_cr: whole(g_cr), b_cb: whole(b_cb) }
    }
}

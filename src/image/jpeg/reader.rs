//! libjpeg-turbo, row by row, through `reader.c`.
#![allow(unsafe_code, reason = "calls into libjpeg-turbo")]

use std::ffi::{c_int, c_long, c_uint, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;

use turbojpeg_sys as _; // links the library, whose functions `reader.c` calls

use crate::image::Cancel;

/// Upper bound of the library's memory besides coefficients: rows of the widest image, and tables.
const MARGIN_BYTES: u64 = 64 << 20;

/// Limit of scans. A scan needs only a few bytes of file but a pass over all coefficients (50 ms for 64 megapixels), so
/// large images may have fewer; encoders write about ten.
pub(super) fn max_scans(pixels: u64) -> u32 {
    const MOST: u64 = 100;
    const FEWEST: u64 = 20;
    const MOST_SCANNED_PIXELS: u64 = 1_280_000_000;
    MOST_SCANNED_PIXELS.checked_div(pixels).unwrap_or(MOST).clamp(FEWEST, MOST) as u32
}

/// Pixel layout of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Grey,
    Rgb,
    Cmyk,
}

impl Layout {
    pub(super) fn bytes_per_pixel(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb => 3,
            Self::Cmyk => 4,
        }
    }

    /// `J_COLOR_SPACE` of jpeglib.h.
    fn raw(self) -> c_int {
        match self {
            Self::Grey => 1,
            Self::Rgb => 6,
            Self::Cmyk => 4,
        }
    }
}

/// Colour model of the stored components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) enum Stored {
    Grey,
    Rgb,
    YCbCr,
    Cmyk,
}

impl Stored {
    /// The layout that needs the least conversion.
    pub(super) fn layout(self) -> Layout {
        match self {
            Self::Grey => Layout::Grey,
            Self::Rgb | Self::YCbCr => Layout::Rgb,
            Self::Cmyk => Layout::Cmyk,
        }
    }

    /// `J_COLOR_SPACE` of jpeglib.h.
    fn raw(self) -> c_int {
        match self {
            Self::Grey => 1,
            Self::Rgb => 2,
            Self::YCbCr => 3,
            Self::Cmyk => 4,
        }
    }
}

/// Outcome of a complete decode. Damaged data that the library, and so the reference, can repair causes only
/// warnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) warned: bool,
    /// The data ended early, and the rest was filled.
    pub(super) truncated: bool,
}

/// The library failed; the pixels are incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) enum Failure {
    Damaged,
    TooManyScans,
    Cancelled,
    OutOfMemory,
}

/// Required properties of the image.
pub(super) struct Expected {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) layout: Layout,
    /// The components, if defined outside the JPEG stream.
    pub(super) stored: Option<Stored>,
    /// Upper bound of the stored coefficients in bytes.
    pub(super) coefficient_bytes: u64,
}

/// One image being decoded.
pub(super) struct Reader<'a> {
    raw: NonNull<RawReader>,
    row_bytes: usize,
    rows_left: u32,
    borrowed: PhantomData<(&'a [u8], &'a Cancel)>,
}

impl<'a> Reader<'a> {
    /// Reads the header and all scans except the last of an image in two pieces. Fails if it is not as `expected`.
    pub(super) fn start(jpeg: [&'a [u8]; 2], expected: &Expected, cancel: &'a Cancel) -> Result<Self, Failure> {
        // SAFETY: `cancel` outlives the reader ('a), and `is_cancelled_raw` casts it back to its own type.
        let raw = unsafe { lfm_jpeg_new(is_cancelled_raw, std::ptr::from_ref(cancel).cast()) };
        let raw = NonNull::new(raw).ok_or(Failure::OutOfMemory)?;
        let row_bytes = expected.width as usize * expected.layout.bytes_per_pixel();
        let reader = Self { raw, row_bytes, rows_left: expected.height, borrowed: PhantomData };
        let mut facts = Facts::default();
        let [head, rest] = jpeg;
        // SAFETY: the reader is live, both pieces are readable for their lengths and outlive it ('a).
        done(unsafe {
            lfm_jpeg_header(raw.as_ptr(), head.as_ptr(), head.len(), rest.as_ptr(), rest.len(), &raw mut facts)
        })?;
        // libtiff subsamples chroma only.
        let stored_as_expected = expected.stored.is_none_or(|stored| {
            let plain = matches!(stored, Stored::Grey | Stored::YCbCr) || facts.full_chroma != 0;
            facts.colour_space == stored.raw() && plain
        });
        if (facts.width, facts.height) != (expected.width, expected.height) || !stored_as_expected {
            return Err(Failure::Damaged);
        }
        let scans = max_scans(u64::from(expected.width) * u64::from(expected.height));
        let memory = c_long::try_from(expected.coefficient_bytes + MARGIN_BYTES).unwrap_or(c_long::MAX);
        // SAFETY: the reader is live and has its header.
        done(unsafe { lfm_jpeg_start(raw.as_ptr(), expected.layout.raw(), scans as c_int, memory) })?;
        Ok(reader)
    }

    /// Decodes the next row, which fills `row`.
    pub(super) fn row(&mut self, row: &mut [u8]) -> Result<(), Failure> {
        if row.len() != self.row_bytes || self.rows_left == 0 {
            return Err(Failure::Damaged);
        }
        self.rows_left -= 1;
        // SAFETY: the reader is live and started, and a row is left. The library writes the image's width in pixels
        // of the layout: `row_bytes`, since `start` compared the width, and scaling and cropping are off.
        done(unsafe { lfm_jpeg_row(self.raw.as_ptr(), row.as_mut_ptr()) })
    }

    /// Skips at most `rows` rows without computing their pixels, and says how many: all but some where that saves time,
    /// else none. The following rows are what they would have been.
    pub(super) fn skip(&mut self, rows: u32) -> Result<u32, Failure> {
        let mut skipped = 0;
        // SAFETY: the reader is live and started.
        done(unsafe { lfm_jpeg_skip(self.raw.as_ptr(), rows, &raw mut skipped) })?;
        self.rows_left = self.rows_left.checked_sub(skipped).ok_or(Failure::Damaged)?;
        Ok(skipped)
    }

    /// Reads up to the end marker, after the last row.
    pub(super) fn finish(self) -> Result<Outcome, Failure> {
        let (mut warned, mut truncated) = (0, 0);
        // SAFETY: the reader is live; the library refuses this if rows are left.
        done(unsafe { lfm_jpeg_finish(self.raw.as_ptr(), &raw mut warned, &raw mut truncated) })?;
        Ok(Outcome { warned: warned != 0, truncated: truncated != 0 })
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        // SAFETY: the reader is live and not used again.
        unsafe { lfm_jpeg_free(self.raw.as_ptr()) };
    }
}

/// `status` of reader.c.
fn done(status: c_int) -> Result<(), Failure> {
    match status {
        0 => Ok(()),
        2 => Err(Failure::TooManyScans),
        3 => Err(Failure::Cancelled),
        4 => Err(Failure::OutOfMemory),
        _ => Err(Failure::Damaged),
    }
}

/// Called by reader.c; never panics, so that no C frame is unwound.
extern "C" fn is_cancelled_raw(cancel: *const c_void) -> c_int {
    // SAFETY: `Reader::start` passed a `Cancel` that lives as long as the reader.
    let cancel = unsafe { &*cancel.cast::<Cancel>() };
    cancel.is_cancelled().into()
}

/// `struct reader` of reader.c.
#[repr(C)]
struct RawReader {
    opaque: [u8; 0],
}

/// `struct facts` of reader.c.
#[derive(Default)]
#[repr(C)]
struct Facts {
    width: c_uint,
    height: c_uint,
    colour_space: c_int,
    full_chroma: c_int,
}

unsafe extern "C" {
    fn lfm_jpeg_new(stop: extern "C" fn(*const c_void) -> c_int, context: *const c_void) -> *mut RawReader;
    fn lfm_jpeg_free(reader: *mut RawReader);
    fn lfm_jpeg_header(
        reader: *mut RawReader,
        bytes: *const u8,
        length: usize,
        more: *const u8,
        more_length: usize,
        facts: *mut Facts,
    ) -> c_int;
    fn lfm_jpeg_start(reader: *mut RawReader, colour_space: c_int, max_scans: c_int, max_memory: c_long) -> c_int;
    fn lfm_jpeg_row(reader: *mut RawReader, row: *mut u8) -> c_int;
    fn lfm_jpeg_skip(reader: *mut RawReader, rows: c_uint, skipped: *mut c_uint) -> c_int;
    fn lfm_jpeg_finish(reader: *mut RawReader, warned: *mut c_int, truncated: *mut c_int) -> c_int;
}

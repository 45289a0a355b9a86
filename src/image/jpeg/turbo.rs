//! libjpeg-turbo's TurboJPEG API. The `turbojpeg` crate's own wrapper turns warnings and errors into
//! the same text and cannot set a memory limit, so its raw bindings are used.
#![allow(unsafe_code, reason = "calls into libjpeg-turbo")]

use std::ffi::{CStr, c_int};
use std::ptr::NonNull;

use turbojpeg::raw;

/// What the library takes besides coefficients, at most: rows of the widest image and tables.
const MARGIN_BYTES: u64 = 64 << 20;

/// Scans allowed. A scan costs a few bytes of file and a pass over all coefficients (50 ms for 64
/// megapixels), so large images may have fewer; encoders write about ten.
fn max_scans(pixels: u64) -> c_int {
    const MOST: u64 = 100;
    const FEWEST: u64 = 20;
    const MOST_SCANNED_PIXELS: u64 = 1_280_000_000;
    MOST_SCANNED_PIXELS.checked_div(pixels).unwrap_or(MOST).clamp(FEWEST, MOST) as c_int
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

    fn raw(self) -> c_int {
        match self {
            Self::Grey => raw::TJPF_TJPF_GRAY,
            Self::Rgb => raw::TJPF_TJPF_RGB,
            Self::Cmyk => raw::TJPF_TJPF_CMYK,
        }
    }
}

/// What the stored components are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) enum Stored {
    Grey,
    Rgb,
    YCbCr,
    Cmyk,
}

impl Stored {
    /// The layout that takes the least conversion.
    pub(super) fn layout(self) -> Layout {
        match self {
            Self::Grey => Layout::Grey,
            Self::Rgb | Self::YCbCr => Layout::Rgb,
            Self::Cmyk => Layout::Cmyk,
        }
    }

    fn raw(self) -> i64 {
        i64::from(match self {
            Self::Grey => raw::TJCS_TJCS_GRAY,
            Self::Rgb => raw::TJCS_TJCS_RGB,
            Self::YCbCr => raw::TJCS_TJCS_YCbCr,
            Self::Cmyk => raw::TJCS_TJCS_CMYK,
        })
    }
}

/// How a complete decode went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Clean,
    /// The data ran out (and the rest was filled).
    PrematureEnd,
    /// Damaged data that the library, and so the reference, makes the best of.
    OtherWarning,
}

/// The library gave up; the pixels are incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Damaged,
    TooManyScans,
}

/// TurboJPEG's own error.
const TOO_MANY_SCANS: &str = "Progressive JPEG image has more than";

const PREMATURE_END: &str = "Premature end of JPEG file";

/// Beginnings of libjpeg's other warnings (jerror.h, JWRN_*). The error code cannot tell an error
/// after a warning from a mere warning, but the text is then the error's.
const OTHER_WARNINGS: [&str; 7] = [
    "Corrupt JPEG data: ",
    "Unknown Adobe color transform code",
    "Inconsistent progression sequence",
    "Warning: unknown JFIF revision number",
    "Invalid SOS parameters for sequential JPEG",
    "Application transferred too many scanlines",
    "Invalid ICC",
];

/// Decodes all of `jpeg` into `out`, which must hold `width * height` pixels of `layout`. Fails if the
/// size is another, the components are not what is `expected`, or the coefficients that have to be
/// kept exceed `coefficient_bytes`.
pub(super) fn decompress(
    jpeg: &[u8],
    width: u32,
    height: u32,
    layout: Layout,
    expected: Option<Stored>,
    coefficient_bytes: u64,
    out: &mut [u8],
) -> Result<Outcome, Failure> {
    let needed = u64::from(width) * u64::from(height) * layout.bytes_per_pixel() as u64;
    let pitch = c_int::try_from(width as usize * layout.bytes_per_pixel()).map_err(|_| Failure::Damaged)?;
    let length = jpeg.len().try_into().map_err(|_| Failure::Damaged)?;
    if out.len() as u64 != needed {
        return Err(Failure::Damaged);
    }
    let handle = Handle::new()?;
    let scans = max_scans(u64::from(width) * u64::from(height));
    handle.set(raw::TJPARAM_TJPARAM_SCANLIMIT, scans)?;
    let megabytes = (coefficient_bytes + MARGIN_BYTES) >> 20;
    handle.set(raw::TJPARAM_TJPARAM_MAXMEMORY, c_int::try_from(megabytes).unwrap_or(c_int::MAX))?;
    // A warning here is met again while decoding; what counts is the size that was found.
    // SAFETY: the handle is live and `jpeg` is readable for `length` bytes; the library keeps no
    // pointer to it past the call that it uses (every call sets its source anew).
    unsafe { raw::tj3DecompressHeader(handle.0.as_ptr(), jpeg.as_ptr(), length) };
    let found = (handle.get(raw::TJPARAM_TJPARAM_JPEGWIDTH), handle.get(raw::TJPARAM_TJPARAM_JPEGHEIGHT));
    if found != (i64::from(width), i64::from(height)) {
        return Err(Failure::Damaged);
    }
    if let Some(expected) = expected {
        let stored = handle.get(raw::TJPARAM_TJPARAM_COLORSPACE);
        let subsampling = handle.get(raw::TJPARAM_TJPARAM_SUBSAMP);
        // libtiff subsamples chroma only.
        let plain =
            matches!(expected, Stored::Grey | Stored::YCbCr) || subsampling == i64::from(raw::TJSAMP_TJSAMP_444);
        if stored != expected.raw() || !plain {
            return Err(Failure::Damaged);
        }
    }
    // SAFETY: the handle is live, `jpeg` is readable for `length` bytes, and `out` is writable for
    // `height` rows of `pitch` bytes, which is what the library writes: the size that it read from
    // these same bytes was compared with `width` and `height` above, and scaling and cropping are off.
    let status =
        unsafe { raw::tj3Decompress8(handle.0.as_ptr(), jpeg.as_ptr(), length, out.as_mut_ptr(), pitch, layout.raw()) };
    if status == 0 {
        return Ok(Outcome::Clean);
    }
    let warned = handle.warned();
    let message = handle.message();
    if message.starts_with(TOO_MANY_SCANS) {
        Err(Failure::TooManyScans)
    } else if !warned {
        Err(Failure::Damaged)
    } else if message.starts_with(PREMATURE_END) {
        Ok(Outcome::PrematureEnd)
    } else if OTHER_WARNINGS.iter().any(|w| message.starts_with(w)) {
        Ok(Outcome::OtherWarning)
    } else {
        Err(Failure::Damaged)
    }
}

/// A decompressor, freed on drop.
struct Handle(NonNull<std::ffi::c_void>);

impl Handle {
    fn new() -> Result<Self, Failure> {
        // SAFETY: no precondition; a null result is refused.
        let handle = unsafe { raw::tj3Init(raw::TJINIT_TJINIT_DECOMPRESS as c_int) };
        NonNull::new(handle).map(Self).ok_or(Failure::Damaged)
    }

    fn set(&self, parameter: raw::TJPARAM, value: c_int) -> Result<(), Failure> {
        // SAFETY: the handle is live; the library checks parameter and value.
        let status = unsafe { raw::tj3Set(self.0.as_ptr(), parameter as c_int, value) };
        if status == 0 { Ok(()) } else { Err(Failure::Damaged) }
    }

    fn get(&self, parameter: raw::TJPARAM) -> i64 {
        // SAFETY: the handle is live.
        unsafe { raw::tj3Get(self.0.as_ptr(), parameter as c_int) }.into()
    }

    /// A warning was raised; an error may have followed it.
    fn warned(&self) -> bool {
        // SAFETY: the handle is live.
        let code = unsafe { raw::tj3GetErrorCode(self.0.as_ptr()) };
        code == raw::TJERR_TJERR_WARNING as c_int
    }

    /// The text of the first warning, or of the error that ended the decode.
    fn message(&self) -> String {
        // SAFETY: the handle is live; the result is a terminated string in the handle or in
        // thread-local memory, copied before any other call.
        unsafe { CStr::from_ptr(raw::tj3GetErrorStr(self.0.as_ptr())) }.to_string_lossy().into_owned()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is live and not used again.
        unsafe { raw::tj3Destroy(self.0.as_ptr()) };
    }
}

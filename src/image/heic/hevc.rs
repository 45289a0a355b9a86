//! libde265, an HEVC decoder with a C API. It is opened at run time, so the program is built and runs without it. It is C++ that
//! reads untrusted data: only the confined process opens it ([`super::child`]).

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    slice,
};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::Samples;
use crate::image::properties::Cicp;

/// The name of every libde265 1.x.
const FILE: &str = "libde265.so.0";

type Decoder = *mut c_void;
type Image = *const c_void;

/// The functions that are called, as `de265.h` declares them.
pub(super) struct Hevc {
    version: unsafe extern "C" fn() -> *const c_char,
    new_decoder: unsafe extern "C" fn() -> Decoder,
    push_nal: unsafe extern "C" fn(Decoder, *const c_void, c_int, i64, *mut c_void) -> c_int,
    flush_data: unsafe extern "C" fn(Decoder) -> c_int,
    decode: unsafe extern "C" fn(Decoder, *mut c_int) -> c_int,
    next_picture: unsafe extern "C" fn(Decoder) -> Image,
    free_decoder: unsafe extern "C" fn(Decoder) -> c_int,
    width: unsafe extern "C" fn(Image, c_int) -> c_int,
    height: unsafe extern "C" fn(Image, c_int) -> c_int,
    chroma_format: unsafe extern "C" fn(Image) -> c_int,
    bits: unsafe extern "C" fn(Image, c_int) -> c_int,
    plane: unsafe extern "C" fn(Image, c_int, *mut c_int) -> *const u8,
    full_range: unsafe extern "C" fn(Image) -> c_int,
    primaries: unsafe extern "C" fn(Image) -> c_int,
    matrix: unsafe extern "C" fn(Image) -> c_int,
}

impl Hevc {
    /// Opens the library, for as long as the process lives.
    #[allow(
        unsafe_code,
        reason = "a C library: its constructors run, and its functions have the types that they are given"
    )]
    pub(super) fn open() -> Option<Self> {
        // SAFETY: libde265's constructors only fill its own tables. The types below are those of `de265.h`, unchanged in all
        // versions with this file name.
        unsafe {
            // All of its symbols at once: none is looked up once the rights are gone.
            let library = Library::open(Some(FILE), RTLD_NOW | RTLD_LOCAL).ok()?;
            macro_rules! function {
                ($name:literal) => {
                    *library.get($name).ok()?
                };
            }
            let functions = Self {
                version: function!(b"de265_get_version\0"),
                new_decoder: function!(b"de265_new_decoder\0"),
                push_nal: function!(b"de265_push_NAL\0"),
                flush_data: function!(b"de265_flush_data\0"),
                decode: function!(b"de265_decode\0"),
                next_picture: function!(b"de265_get_next_picture\0"),
                free_decoder: function!(b"de265_free_decoder\0"),
                width: function!(b"de265_get_image_width\0"),
                height: function!(b"de265_get_image_height\0"),
                chroma_format: function!(b"de265_get_chroma_format\0"),
                bits: function!(b"de265_get_bits_per_pixel\0"),
                plane: function!(b"de265_get_image_plane\0"),
                full_range: function!(b"de265_get_image_full_range_flag\0"),
                primaries: function!(b"de265_get_image_colour_primaries\0"),
                matrix: function!(b"de265_get_image_matrix_coefficients\0"),
            };
            std::mem::forget(library);
            Some(functions)
        }
    }

    #[allow(unsafe_code, reason = "a C function that returns a string")]
    pub(super) fn version(&self) -> String {
        // SAFETY: a constant of the library.
        unsafe { CStr::from_ptr((self.version)()) }.to_string_lossy().into_owned()
    }

    /// Decodes one picture and calls `read` with it. `units` are the stream's units, each behind its length in 4 bytes.
    #[allow(unsafe_code, reason = "a C API: the decoder is a pointer")]
    pub(super) fn picture<T>(&self, mut units: &[u8], read: impl FnOnce(Frame<'_>) -> Option<T>) -> Option<T> {
        // SAFETY: the decoder lives until it is freed below, its picture as long; it copies the units. Without worker threads
        // it decodes in this one.
        unsafe {
            let decoder = (self.new_decoder)();
            if decoder.is_null() {
                return None;
            }
            let mut decoded = || {
                while !units.is_empty() {
                    let (length, rest) = units.split_first_chunk()?;
                    let (unit, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
                    let length = c_int::try_from(unit.len()).ok()?;
                    (self.push_nal)(decoder, unit.as_ptr().cast(), length, 0, std::ptr::null_mut());
                    units = rest;
                }
                (self.flush_data)(decoder);
                loop {
                    let mut more = 0;
                    if (self.decode)(decoder, &raw mut more) != 0 {
                        return None;
                    }
                    let image = (self.next_picture)(decoder);
                    if !image.is_null() {
                        return Some(image);
                    }
                    if more == 0 {
                        return None;
                    }
                }
            };
            let read = decoded().and_then(|image| read(Frame { library: self, image }));
            (self.free_decoder)(decoder);
            read
        }
    }
}

/// A decoded picture.
pub(super) struct Frame<'a> {
    library: &'a Hevc,
    image: Image,
}

impl Frame<'_> {
    /// What the stream says of its colours.
    #[allow(unsafe_code, reason = "C functions that read fields")]
    pub(super) fn cicp(&self) -> Cicp {
        let Hevc { full_range, primaries, matrix, .. } = self.library;
        // SAFETY: the image is valid while this lives.
        let [full_range, primaries, matrix] = [full_range, primaries, matrix].map(|field| unsafe { field(self.image) });
        Cicp { primaries: primaries as u16, matrix: matrix as u16, full_range: full_range != 0 }
    }

    /// Calls `row` with the number of a plane and with each of its rows as bytes, two for a sample of more than 8 bits. Nothing
    /// if the picture is not stored as the container says.
    #[allow(unsafe_code, reason = "pointers to planes")]
    pub(super) fn rows(&self, samples: Samples, size: [u32; 2], mut row: impl FnMut(usize, &[u8])) -> Option<()> {
        let Hevc { width, height, chroma_format, bits, plane, .. } = self.library;
        let format = match samples.subsampling {
            None => 0,
            Some([1, 1]) => 1,
            Some([1, 0]) => 2,
            Some(_) => 3,
        };
        // SAFETY: the image is valid while this lives, and has the planes of its chroma format. A plane has `height` rows of
        // `width` samples, `stride` bytes apart, of one byte each or of two.
        unsafe {
            (chroma_format(self.image) == format).then_some(())?;
            for (number, size) in samples.planes(size).enumerate() {
                let channel = number as c_int;
                let found = [width(self.image, channel), height(self.image, channel), bits(self.image, channel)];
                let expected = [size[0], size[1], samples.depth.into()];
                (found.map(i64::from) == expected.map(i64::from)).then_some(())?;
                let mut stride = 0;
                let start = plane(self.image, channel, &raw mut stride);
                let length = size[0] as usize * samples.bytes();
                if start.is_null() || (stride as usize) < length {
                    return None;
                }
                for y in 0..size[1] as usize {
                    row(number, slice::from_raw_parts(start.add(y * stride as usize), length));
                }
            }
        }
        Some(())
    }
}

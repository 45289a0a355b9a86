//! One AV1 picture, decoded by rav1d: dav1d in Rust, without its assembly. dav1d's C API is the only one that it has. It can
//! abort the process on a damaged stream, so it runs in a process of its own ([`super::child`]).

use std::{mem::MaybeUninit, ptr::NonNull, slice};

use rav1d::{
    include::dav1d::{
        data::Dav1dData,
        dav1d::{Dav1dContext, Dav1dSettings},
        picture::Dav1dPicture,
    },
    src::lib::{dav1d_data_create, dav1d_default_settings, dav1d_get_picture, dav1d_open, dav1d_send_data},
};

use super::stream::Shape;

/// A decoded picture. Its memory and its decoder's are returned when the process ends.
pub(super) struct Picture {
    shape: Shape,
    planes: [Option<Plane>; 3],
}

struct Plane {
    data: NonNull<u8>,
    /// Bytes from a row to the next.
    stride: isize,
    width: usize,
    height: usize,
}

/// The samples of a row: bytes of 8-bit pictures, else words.
pub(super) enum Row<'a> {
    Bytes(&'a [u8]),
    Words(&'a [u16]),
}

impl Picture {
    /// Decodes the first picture of a stream. None larger than `shape` is decoded.
    pub(super) fn decode(stream: &[u8], shape: Shape) -> Option<Self> {
        let raw = picture(stream, shape.width.checked_mul(shape.height)?)?;
        let found = [raw.p.w, raw.p.h, raw.p.bpc].map(u32::try_from);
        let same = found == [Ok(shape.width), Ok(shape.height), Ok(shape.depth.into())];
        if !same || raw.p.layout != shape.layout as u32 {
            return None;
        }
        let plane = |at: usize| {
            let (width, height) = if at == 0 { (shape.width, shape.height) } else { shape.chroma()? };
            Some(Plane {
                data: raw.data[at]?.cast(),
                stride: raw.stride[at.min(1)],
                width: width as usize,
                height: height as usize,
            })
        };
        Some(Self { shape, planes: [plane(0), plane(1), plane(2)] })
    }

    /// A row of a plane, if the picture has it.
    #[allow(unsafe_code, reason = "rav1d has dav1d's API: pointers to planes")]
    pub(super) fn row(&self, plane: usize, y: usize) -> Option<Row<'_>> {
        let plane = self.planes.get(plane)?.as_ref().filter(|plane| y < plane.height)?;
        // SAFETY: dav1d's pictures hold `height` rows of `width` samples, aligned to 64 bytes, `stride` bytes apart;
        // samples of more than 8 bits are words. The picture is never returned, so they live as long as the process.
        unsafe {
            let row = plane.data.offset(plane.stride.checked_mul(isize::try_from(y).ok()?)?);
            Some(match self.shape.depth {
                8 => Row::Bytes(slice::from_raw_parts(row.as_ptr(), plane.width)),
                _ => Row::Words(slice::from_raw_parts(row.cast::<u16>().as_ptr(), plane.width)),
            })
        }
    }
}

/// The first picture of a stream.
#[allow(unsafe_code, reason = "rav1d has dav1d's API: functions that take pointers")]
fn picture(stream: &[u8], most_pixels: u32) -> Option<Dav1dPicture> {
    let mut context: Option<Dav1dContext> = None;
    let mut data = Dav1dData::default();
    let mut picture = Dav1dPicture::default();
    // SAFETY: every pointer is to a local variable of the type that is asked for; `data` holds as many bytes as are
    // copied into it.
    unsafe {
        let mut settings = MaybeUninit::<Dav1dSettings>::uninit();
        dav1d_default_settings(NonNull::from(&mut settings).cast());
        let mut settings = settings.assume_init();
        (settings.n_threads, settings.max_frame_delay) = (1, 1);
        settings.frame_size_limit = most_pixels;
        // As libavif asks for it.
        settings.all_layers = 0;
        dav1d_open(Some(NonNull::from(&mut context)), Some(NonNull::from(&mut settings)));
        let copy = NonNull::new(dav1d_data_create(Some(NonNull::from(&mut data)), stream.len()))?;
        copy.copy_from_nonoverlapping(NonNull::from(stream).cast(), stream.len());
        // An error of either leaves the picture empty.
        dav1d_send_data(context, Some(NonNull::from(&mut data)));
        dav1d_get_picture(context, Some(NonNull::from(&mut picture)));
    }
    Some(picture)
}

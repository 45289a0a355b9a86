//! The formats that are read, and how each is recognised.

/// The formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// JPEG, baseline, extended or progressive.
    Jpeg,
    /// PNG; of an animated one the default image.
    Png,
    /// WebP, lossy or lossless; of an animated one the first frame.
    WebP,
    /// GIF, the first frame.
    Gif,
    /// Windows and OS/2 bitmap.
    Bmp,
    /// TIFF, the first page.
    Tiff,
    /// AVIF, a still picture.
    Avif,
    /// HEIC, a still picture; read where [`Limits::heif`](super::Limits::heif) says so.
    Heic,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 8] =
        [Self::Jpeg, Self::Png, Self::WebP, Self::Gif, Self::Bmp, Self::Tiff, Self::Avif, Self::Heic];

    /// The lower-case name used on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::WebP => "webp",
            Self::Gif => "gif",
            Self::Bmp => "bmp",
            Self::Tiff => "tiff",
            Self::Avif => "avif",
            Self::Heic => "heic",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Bytes of a file's beginning that are looked at.
pub(super) const HEAD_BYTES: usize = 1024;

/// The brands of an ISO base media file (ISO 14496-12 section 4.3): its own, a version, those that it is compatible with.
pub(super) fn brands(bytes: &[u8]) -> Option<&[[u8; 4]]> {
    let size = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    let payload = bytes.get(..size.min(HEAD_BYTES).min(bytes.len()))?.get(4..)?.strip_prefix(b"ftyp")?;
    Some(payload.as_chunks().0)
}

/// The format that the first bytes announce, never a name or a declared type.
pub fn sniff(bytes: &[u8]) -> Option<Format> {
    let magics: [(&[u8], Format); 9] = [
        (b"\xff\xd8\xff", Format::Jpeg),
        (b"\x89PNG\r\n\x1a\n", Format::Png),
        (b"GIF87a", Format::Gif),
        (b"GIF89a", Format::Gif),
        (b"BM", Format::Bmp),
        (b"II*\0", Format::Tiff),
        (b"MM\0*", Format::Tiff),
        (b"II+\0", Format::Tiff),
        (b"MM\0+", Format::Tiff),
    ];
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Some(Format::WebP);
    }
    if let Some(format) = brands(bytes).and_then(of_brands) {
        return Some(format);
    }
    magics.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|&(_, format)| format)
}

/// By the file's own brand first, where that names no code by those that it is compatible with.
fn of_brands(brands: &[[u8; 4]]) -> Option<Format> {
    let of = |brand: &[u8; 4]| match brand {
        b"avif" | b"avis" => Some(Format::Avif),
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"hevm" | b"hevs" => Some(Format::Heic),
        _ => None,
    };
    let (own, others) = brands.split_first()?;
    let open = matches!(own, b"mif1" | b"mif2" | b"msf1" | b"miaf");
    of(own).or_else(|| others.iter().filter(|_| open).find_map(of))
}

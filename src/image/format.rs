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
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 6] = [Self::Jpeg, Self::Png, Self::WebP, Self::Gif, Self::Bmp, Self::Tiff];

    /// The lower-case name used on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::WebP => "webp",
            Self::Gif => "gif",
            Self::Bmp => "bmp",
            Self::Tiff => "tiff",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
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
    magics.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|&(_, format)| format)
}

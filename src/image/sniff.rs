//! Recognises unsupported files from their first bytes.

use std::fmt;

use super::{
    Format,
    format::{HEAD_BYTES, brands, sniff},
};

/// A known kind of file that is not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// HEIC: HEVC in HEIF, as phones store photos. Read where [`Limits::heif`](super::Limits::heif) says so.
    Heic,
    /// HEIF with another codec.
    Heif,
    /// JPEG XL.
    JpegXl,
    /// JPEG 2000.
    Jpeg2000,
    /// Photoshop's native format.
    Psd,
    /// A camera's raw format.
    CameraRaw,
    /// A Windows icon.
    Icon,
    /// MP4, MOV, WebM, Matroska or AVI.
    Video,
    /// PDF.
    Pdf,
    /// SVG.
    Svg,
    /// A web page.
    Html,
    /// ZIP, including office documents.
    Zip,
    /// gzip.
    Gzip,
    /// The placeholder in a Git repository for a file stored elsewhere.
    GitLfsPointer,
    /// A URL.
    Url,
    /// JSON.
    Json,
    /// Any other text.
    Text,
}

impl Foreign {
    /// Whether it is a single raster image, which a caller may expect to be judged.
    pub fn is_still(self) -> bool {
        use Foreign::{CameraRaw, Heic, Heif, Jpeg2000, JpegXl, Psd};
        matches!(self, Heic | Heif | JpegXl | Jpeg2000 | Psd | CameraRaw)
    }
}

/// A sentence for the client: what the file is, and what to send instead.
impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CONVERT: &str = "Convert it to JPEG or PNG";
        const SEND: &str = "Send the image itself";
        let (what, remedy) = match self {
            Self::Heic => ("a HEIC image", "Convert it to JPEG, or start with --heif on"),
            Self::Heif => ("a HEIF image", CONVERT),
            Self::JpegXl => ("a JPEG XL image", CONVERT),
            Self::Jpeg2000 => ("a JPEG 2000 image", CONVERT),
            Self::Psd => ("a Photoshop document", CONVERT),
            Self::CameraRaw => ("a camera's raw image", CONVERT),
            Self::Icon => ("an icon", CONVERT),
            Self::Video => ("a video", "Send one frame of it as JPEG or PNG"),
            Self::Pdf => ("a PDF document", "Send its pictures as JPEG or PNG"),
            Self::Svg => ("an SVG drawing", "Send a JPEG or PNG of it"),
            Self::Html => ("a web page", SEND),
            Self::Zip => ("a zip archive", "Send the images in it one by one"),
            Self::Gzip => ("a gzip archive", "Unpack it first"),
            Self::GitLfsPointer => ("a Git LFS pointer", "Fetch the file that it stands for"),
            Self::Url => ("a URL", "Fetch it and send the image itself"),
            Self::Json => ("JSON", SEND),
            Self::Text => ("text", SEND),
        };
        write!(f, "This is {what}, which is not read. {remedy}.")
    }
}

/// Recognises a file in none of the supported formats.
pub(super) fn foreign(bytes: &[u8]) -> Option<Foreign> {
    const MAGICS: [(&[u8], Foreign); 18] = [
        (b"\xff\x0a", Foreign::JpegXl),
        (b"\0\0\0\x0cJXL \r\n\x87\n", Foreign::JpegXl),
        (b"\0\0\0\x0cjP  \r\n\x87\n", Foreign::Jpeg2000),
        (b"\xff\x4f\xff\x51", Foreign::Jpeg2000),
        (b"8BPS", Foreign::Psd),
        (b"FUJIFILMCCD-RAW", Foreign::CameraRaw),
        (b"IIRO", Foreign::CameraRaw),
        (b"IIU\0", Foreign::CameraRaw),
        (b"\0\0\x01\0", Foreign::Icon),
        (b"\x1a\x45\xdf\xa3", Foreign::Video),
        (b"\0\0\x01\xba", Foreign::Video),
        (b"FLV\x01", Foreign::Video),
        (b"%PDF-", Foreign::Pdf),
        (b"PK\x03\x04", Foreign::Zip),
        (b"PK\x05\x06", Foreign::Zip),
        (b"\x1f\x8b", Foreign::Gzip),
        (b"version https://git-lfs", Foreign::GitLfsPointer),
        (b"oid sha256:", Foreign::GitLfsPointer),
    ];
    if let Some((_, kind)) = MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(*kind);
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"AVI ") {
        return Some(Foreign::Video);
    }
    match bytes.get(4..8) {
        Some(b"ftyp") => Some(brand(bytes)),
        // Early QuickTime, without brands.
        Some(b"moov" | b"mdat" | b"wide" | b"free") => Some(Foreign::Video),
        _ => text(bytes),
    }
}

/// By the file's own brand.
fn brand(bytes: &[u8]) -> Foreign {
    if sniff(bytes) == Some(Format::Heic) {
        return Foreign::Heic;
    }
    match brands(bytes).and_then(<[_]>::first) {
        Some(b"crx ") => Foreign::CameraRaw,
        Some(b"mif1" | b"mif2" | b"msf1" | b"miaf") => Foreign::Heif,
        _ => Foreign::Video,
    }
}

fn text(bytes: &[u8]) -> Option<Foreign> {
    let head = bytes.get(..HEAD_BYTES).unwrap_or(bytes);
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let text = match str::from_utf8(head) {
        Ok(text) => text,
        // The last character is cut off.
        Err(error) if error.error_len().is_none() => str::from_utf8(head.get(..error.valid_up_to())?).ok()?,
        Err(_) => return None,
    };
    let text = text.trim_start();
    if text.is_empty() || text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| lower.starts_with(prefix));
    Some(if starts(&["<?xml", "<svg", "<!--", "<!doctype svg"]) && lower.contains("<svg") {
        Foreign::Svg
    } else if starts(&["<!doctype html", "<html", "<head", "<body", "<!--"]) {
        Foreign::Html
    } else if starts(&["http://", "https://", "ftp://", "file://", "s3://", "gs://", "data:"]) {
        Foreign::Url
    } else if starts(&["{", "["]) {
        Foreign::Json
    } else {
        Foreign::Text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{ImageError, Limits, inspect};

    #[test]
    fn unsupported_files_are_named() {
        let files: [(&[u8], Foreign); 29] = [
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", Foreign::Heic),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", Foreign::Heic),
            (b"\0\0\0\x18ftypheix\0\0\0\0mif1heix", Foreign::Heic),
            (b"\0\0\0\x18ftypmsf1\0\0\0\0msf1hevc", Foreign::Heic),
            (b"\0\0\0\x14ftypmif1\0\0\0\0mif1heic", Foreign::Heif),
            (b"\0\0\0\x14ftypisom\0\0\x02\0isom", Foreign::Video),
            (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", Foreign::Video),
            (b"\0\0\0\x14ftypcrx \0\0\0\x01crx ", Foreign::CameraRaw),
            (b"\0\0\0\x08wide\0\0\0\0mdat", Foreign::Video),
            (b"\x1a\x45\xdf\xa3\x01\0\0\0webm", Foreign::Video),
            (b"RIFF\0\0\0\0AVI LIST", Foreign::Video),
            (b"\xff\x0a\xfa\x1f", Foreign::JpegXl),
            (b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ", Foreign::JpegXl),
            (b"\0\0\0\x0cjP  \r\n\x87\n", Foreign::Jpeg2000),
            (b"8BPS\0\x01", Foreign::Psd),
            (b"%PDF-1.7\n", Foreign::Pdf),
            (b"PK\x03\x04\x14\0word/document.xml", Foreign::Zip),
            (b"\x1f\x8b\x08\0", Foreign::Gzip),
            (b"\0\0\x01\0\x01\0\x10\x10", Foreign::Icon),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", Foreign::GitLfsPointer),
            (b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", Foreign::Svg),
            (b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<!-- a -->\n<svg/>", Foreign::Svg),
            (b"\n<!DOCTYPE html><html>", Foreign::Html),
            (b"<HTML><svg/></HTML>", Foreign::Html),
            (b"https://example.org/a.jpg\n", Foreign::Url),
            (b"data:image/png;base64,iVBORw0KGgo", Foreign::Url),
            (b"{\"error\": \"not found\"}", Foreign::Json),
            (b"404: Not Found", Foreign::Text),
            ("naïve".as_bytes(), Foreign::Text),
        ];
        for (bytes, kind) in files {
            let refusal = inspect(bytes, &Limits::default());
            assert_eq!(refusal, Err(ImageError::Foreign(kind)), "{}", bytes.escape_ascii());
        }
        for bytes in [&b"\0"[..], b"\0\0\0\0", b"\xff\xfe\0a", b"a\0b", b"   ", &[7; 100], &[0xe2, 0x82]] {
            assert_eq!(inspect(bytes, &Limits::default()), Err(ImageError::UnknownFormat), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_refusal_says_what_it_is_and_what_to_do() {
        let said = ImageError::Foreign(Foreign::Heic).to_string();
        assert_eq!(said, "This is a HEIC image, which is not read. Convert it to JPEG, or start with --heif on.");
    }
}

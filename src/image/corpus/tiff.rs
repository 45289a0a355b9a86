//! TIFF 6.0: compressions, depths, planes, orientations.

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};
use turbojpeg::{PixelFormat, Subsamp};
use weezl::{BitOrder, encode::Encoder};

use super::{Coding, Photo, Sample, jpeg};

#[derive(Clone, Copy, PartialEq)]
enum Codec {
    None = 1,
    Lzw = 5,
    Jpeg = 7,
    Deflate = 8,
    PackBits = 32773,
}

struct Kind {
    name: &'static str,
    codec: Codec,
    bits: u16,
    samples: usize,
    planar: bool,
    /// Horizontal differences.
    predictor: bool,
    orientation: u32,
    /// Rows a strip; 0: all.
    strip: usize,
    /// Of JPEG strips.
    progressive: bool,
}

const RGB: Kind = Kind {
    name: "tiff_rgb",
    codec: Codec::None,
    bits: 8,
    samples: 3,
    planar: false,
    predictor: false,
    orientation: 1,
    strip: 64,
    progressive: false,
};

const KINDS: [Kind; 11] = [
    RGB,
    Kind { name: "tiff_lzw", codec: Codec::Lzw, predictor: true, ..RGB },
    Kind { name: "tiff_deflate", codec: Codec::Deflate, ..RGB },
    Kind { name: "tiff_packbits", codec: Codec::PackBits, ..RGB },
    Kind { name: "tiff_jpeg", codec: Codec::Jpeg, ..RGB },
    Kind { name: "tiff_jpeg_progressive", codec: Codec::Jpeg, progressive: true, strip: 0, ..RGB },
    Kind { name: "tiff_rgb16_deflate", codec: Codec::Deflate, bits: 16, predictor: true, ..RGB },
    Kind { name: "tiff_cmyk16_lzw", codec: Codec::Lzw, bits: 16, samples: 4, ..RGB },
    Kind { name: "tiff_planar_deflate", codec: Codec::Deflate, planar: true, ..RGB },
    Kind { name: "tiff_grey", samples: 1, ..RGB },
    Kind { name: "tiff_turned", codec: Codec::Lzw, orientation: 6, ..RGB },
];

pub(super) fn all(photo: &Photo) -> Result<Vec<Sample>, anyhow::Error> {
    KINDS.iter().map(|kind| write(kind, photo)).collect()
}

/// Of one colour.
pub(super) fn bombs(side: usize) -> Result<Vec<Sample>, anyhow::Error> {
    let flat = Photo { width: side, height: side, rgb: vec![0; side * side * 3] };
    let deflate = Kind {
        name: "tiff_bomb_deflate",
        codec: Codec::Deflate,
        bits: 16,
        samples: 4,
        planar: true,
        predictor: true,
        orientation: 6,
        strip: 0,
        ..RGB
    };
    let strips =
        Kind { name: "tiff_bomb_jpeg", codec: Codec::Jpeg, progressive: true, orientation: 6, strip: 0, ..RGB };
    Ok(vec![write(&deflate, &flat)?, write(&strips, &flat)?])
}

fn write(kind: &Kind, photo: &Photo) -> Result<Sample, anyhow::Error> {
    let (width, height) = (photo.width, photo.height);
    let rows = if kind.strip == 0 { height } else { kind.strip };
    let planes = if kind.planar { kind.samples } else { 1 };
    let mut strips = Vec::new();
    for plane in 0..planes {
        for top in (0..height).step_by(rows) {
            let rows = top..(top + rows).min(height);
            strips.push(strip(kind, photo, plane, rows)?);
        }
    }
    let mut bytes = b"II*\0\0\0\0\0".to_vec();
    let mut places = Vec::new();
    for strip in &strips {
        places.push(bytes.len() as u32);
        bytes.extend(strip);
    }
    let photometric = [1, 1, 1, 2, 5][kind.samples];
    let lengths: Vec<u32> = strips.iter().map(|strip| strip.len() as u32).collect();
    let mut tags = vec![
        (256, vec![width as u32]),
        (257, vec![height as u32]),
        (258, vec![u32::from(kind.bits); kind.samples]),
        (259, vec![kind.codec as u32]),
        (262, vec![if kind.codec == Codec::Jpeg { 6 } else { photometric }]),
        (273, places),
        (274, vec![kind.orientation]),
        (277, vec![kind.samples as u32]),
        (278, vec![rows as u32]),
        (279, lengths),
        (284, vec![if kind.planar { 2 } else { 1 }]),
    ];
    if kind.predictor {
        tags.push((317, vec![2]));
    }
    let mut directory = (tags.len() as u16).to_le_bytes().to_vec();
    for (tag, values) in &tags {
        // LONG, inline or here.
        directory.extend([*tag as u16, 4].map(u16::to_le_bytes).concat());
        let value = if values.len() == 1 { values[0] } else { bytes.len() as u32 };
        if values.len() != 1 {
            bytes.extend(values.iter().flat_map(|v: &u32| v.to_le_bytes()));
        }
        directory.extend([values.len() as u32, value].map(u32::to_le_bytes).concat());
    }
    let start = (bytes.len() as u32).to_le_bytes();
    bytes[4..8].copy_from_slice(&start);
    bytes.extend(directory);
    bytes.extend([0; 4]);
    Ok(Sample { name: kind.name.to_owned(), bytes })
}

fn strip(kind: &Kind, photo: &Photo, plane: usize, rows: std::ops::Range<usize>) -> Result<Vec<u8>, anyhow::Error> {
    let width = photo.width;
    let rgb = &photo.rgb[rows.start * width * 3..rows.end * width * 3];
    if kind.codec == Codec::Jpeg {
        let coding = Coding { progressive: kind.progressive, arithmetic: false };
        return jpeg(rgb, (width, rows.len()), PixelFormat::RGB, Subsamp::Sub2x2, 85, coding);
    }
    let mut raw = Vec::new();
    for row in rgb.chunks_exact(width * 3) {
        let channels = if kind.planar { 1 } else { kind.samples };
        let mut left = [0_u8; 4];
        for pixel in row.chunks_exact(3) {
            for channel in 0..channels {
                let value = pixel[if kind.planar { plane % 3 } else { channel % 3 }];
                let stored = if kind.predictor { value.wrapping_sub(left[channel]) } else { value };
                left[channel] = value;
                if kind.bits == 16 {
                    raw.push(0);
                }
                raw.push(stored);
            }
        }
    }
    Ok(match kind.codec {
        Codec::Lzw => Encoder::with_tiff_size_switch(BitOrder::Msb, 8).encode(&raw)?,
        Codec::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(4));
            encoder.write_all(&raw)?;
            encoder.finish()?
        }
        Codec::PackBits => raw.chunks(128).flat_map(|c| [&[(c.len() - 1) as u8], c].concat()).collect(),
        Codec::None | Codec::Jpeg => raw,
    })
}

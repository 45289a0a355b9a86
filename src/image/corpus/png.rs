//! PNG (W3C, second edition), all colour types, interlaced or not.

use std::io::Write;

use flate2::{Compression, Crc, write::ZlibEncoder};

use super::{Photo, Sample};

/// Starts and steps of the seven passes: x, y, step of x, step of y.
const ADAM7: [[usize; 4]; 7] =
    [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

struct Kind {
    name: &'static str,
    colour: u8,
    depth: u8,
    interlaced: bool,
    filter: u8,
}

const KINDS: [Kind; 10] = [
    Kind { name: "png_rgb", colour: 2, depth: 8, interlaced: false, filter: 1 },
    Kind { name: "png_rgb_paeth", colour: 2, depth: 8, interlaced: false, filter: 4 },
    Kind { name: "png_rgba", colour: 6, depth: 8, interlaced: false, filter: 2 },
    Kind { name: "png_rgb16", colour: 2, depth: 16, interlaced: false, filter: 1 },
    Kind { name: "png_rgba16", colour: 6, depth: 16, interlaced: false, filter: 3 },
    Kind { name: "png_grey", colour: 0, depth: 8, interlaced: false, filter: 1 },
    Kind { name: "png_grey1", colour: 0, depth: 1, interlaced: false, filter: 0 },
    Kind { name: "png_palette", colour: 3, depth: 8, interlaced: false, filter: 0 },
    Kind { name: "png_rgb_interlaced", colour: 2, depth: 8, interlaced: true, filter: 1 },
    Kind { name: "png_rgba16_interlaced", colour: 6, depth: 16, interlaced: true, filter: 0 },
];

pub(super) fn all(photo: &Photo) -> impl Iterator<Item = Sample> {
    KINDS.iter().map(|kind| {
        let sample = |x: usize, y: usize, channel: usize| photo.rgb[(y * photo.width + x) * 3 + channel % 3];
        write(kind, photo.width, photo.height, &sample)
    })
}

/// Of one colour: a thousand pixels to a byte.
pub(super) fn bomb(side: usize) -> Sample {
    let kind = Kind { name: "png_bomb", colour: 6, depth: 16, interlaced: true, filter: 0 };
    write(&kind, side, side, &|_, _, _| 0)
}

fn write(kind: &Kind, width: usize, height: usize, sample: &dyn Fn(usize, usize, usize) -> u8) -> Sample {
    let channels = match kind.colour {
        0 | 3 => 1,
        2 => 3,
        _ => 4,
    };
    let passes: &[[usize; 4]] = if kind.interlaced { &ADAM7 } else { &[[0, 0, 1, 1]] };
    let mut data = ZlibEncoder::new(Vec::new(), Compression::new(4));
    let pixel_bytes = (channels * usize::from(kind.depth) / 8).max(1);
    for &[x0, y0, dx, dy] in passes {
        let mut above = Vec::new();
        for y in (y0..height).step_by(dy) {
            let mut row = Vec::new();
            for x in (x0..width).step_by(dx) {
                for channel in 0..channels {
                    let value = sample(x, y, channel);
                    match kind.depth {
                        1 if (x / dx).is_multiple_of(8) => row.push(value & 128),
                        1 => *row.last_mut().unwrap_or(&mut 0) |= (value & 128) >> (x / dx % 8),
                        8 => row.push(value),
                        _ => row.extend([value, value.wrapping_mul(31)]),
                    }
                }
            }
            // Writing to memory cannot fail.
            let _ = data
                .write_all(&[kind.filter])
                .and_then(|()| data.write_all(&filtered(kind, &row, &above, pixel_bytes)));
            above = row;
        }
    }
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let size = [width as u32, height as u32].map(u32::to_be_bytes).concat();
    chunk(&mut bytes, b"IHDR", &[&size[..], &[kind.depth, kind.colour, 0, 0, kind.interlaced.into()]].concat());
    if kind.colour == 3 {
        let palette: Vec<u8> = (0..=255_u8).flat_map(|v| [v, v ^ 85, 255 - v]).collect();
        chunk(&mut bytes, b"PLTE", &palette);
    }
    chunk(&mut bytes, b"IDAT", &data.finish().unwrap_or_default());
    chunk(&mut bytes, b"IEND", &[]);
    Sample { name: kind.name.to_owned(), bytes }
}

/// Filter types of section 9.
fn filtered(kind: &Kind, row: &[u8], above: &[u8], pixel_bytes: usize) -> Vec<u8> {
    let at = |row: &[u8], i: Option<usize>| i.and_then(|i| row.get(i).copied()).unwrap_or(0);
    let predict = |i: usize| {
        let before = i.checked_sub(pixel_bytes);
        let (a, b, c) = (at(row, before), at(above, Some(i)), at(above, before));
        match kind.filter {
            0 => 0,
            1 => a,
            2 => b,
            3 => ((u16::from(a) + u16::from(b)) / 2) as u8,
            _ => {
                let distance = |v: u8| (i16::from(a) + i16::from(b) - i16::from(c) - i16::from(v)).abs();
                [a, b, c].into_iter().min_by_key(|&v| distance(v)).unwrap_or(0)
            }
        }
    };
    row.iter().enumerate().map(|(i, v)| v.wrapping_sub(predict(i))).collect()
}

/// Adds a chunk.
pub(crate) fn chunk(bytes: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(kind);
    bytes.extend(data);
    let mut crc = Crc::new();
    crc.update(kind);
    crc.update(data);
    bytes.extend(crc.sum().to_be_bytes());
}

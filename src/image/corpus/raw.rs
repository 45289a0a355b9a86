//! GIF and BMP.

use weezl::{BitOrder, encode::Encoder};

use super::{Photo, Sample};

pub(super) fn gifs(photo: &Photo) -> [Sample; 2] {
    let grey = photo.grey();
    [false, true].map(|interlaced| gif(photo.width, photo.height, &grey, interlaced))
}

/// Of one colour: hundreds of pixels to a byte.
pub(super) fn gif_bomb(side: usize) -> Sample {
    let sample = gif(side, side, &vec![0; side * side], true);
    Sample { name: "gif_bomb".to_owned(), ..sample }
}

fn gif(width: usize, height: usize, indices: &[u8], interlaced: bool) -> Sample {
    let size = [width as u16, height as u16].map(u16::to_le_bytes).concat();
    let mut bytes = [b"GIF89a".as_slice(), &size, &[0xf7, 0, 0]].concat();
    bytes.extend((0..=255_u8).flat_map(|v| [v, v ^ 85, 255 - v]));
    bytes.extend([&[b',', 0, 0, 0, 0], &size[..], &[if interlaced { 0x40 } else { 0 }, 8]].concat());
    let codes = Encoder::new(BitOrder::Lsb, 8).encode(indices).unwrap_or_default();
    for block in codes.chunks(255) {
        bytes.push(block.len() as u8);
        bytes.extend(block);
    }
    bytes.extend([0, b';']);
    Sample { name: if interlaced { "gif_interlaced" } else { "gif" }.to_owned(), bytes }
}

pub(super) fn bmps(photo: &Photo) -> Vec<Sample> {
    let stride = (photo.width * 3).next_multiple_of(4);
    let mut rgb = Vec::new();
    let mut indices = Vec::new();
    for row in photo.rows() {
        rgb.extend(row);
        rgb.resize(rgb.len().next_multiple_of(stride), 0);
        indices.extend(row.iter().step_by(3));
        indices.resize(indices.len().next_multiple_of(photo.width.next_multiple_of(4)), 0);
    }
    let rgb32: Vec<u8> = photo.rgb.as_chunks::<3>().0.iter().flat_map(|&[r, g, b]| [b, g, r, 0]).collect();
    let rgb16: Vec<u8> = photo.rows().flat_map(|row| row.chunks_exact(3).flat_map(|p| [p[0], p[1]])).collect();
    let runs: Vec<u8> =
        photo.rows().flat_map(|row| row.iter().step_by(3).flat_map(|&v| [1, v]).chain([0, 0])).collect();
    let bmp =
        |name: &str, bits, compression, data: &[u8]| bmp(name, photo.width, photo.height, bits, compression, data);
    vec![
        bmp("bmp_24", 24, 0, &rgb),
        bmp("bmp_32", 32, 0, &rgb32),
        bmp("bmp_16", 16, 0, &rgb16),
        bmp("bmp_8", 8, 0, &indices),
        bmp("bmp_rle8", 8, 1, &runs),
    ]
}

/// Runs of 255 pixels.
pub(super) fn bmp_bomb(side: usize) -> Sample {
    let row: Vec<u8> = (0..side).step_by(255).flat_map(|x| [(side - x).min(255) as u8, 7]).chain([0, 0]).collect();
    bmp("bmp_bomb", side, side, 8, 1, &row.repeat(side))
}

fn bmp(name: &str, width: usize, height: usize, bits: u16, compression: u32, data: &[u8]) -> Sample {
    let palette: Vec<u8> =
        if bits == 8 { (0..=255_u8).flat_map(|v| [v, 255 - v, v ^ 85, 0]).collect() } else { vec![] };
    let offset = 54 + palette.len() as u32;
    let mut bytes = b"BM\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend([offset, 40, width as u32, height as u32].map(u32::to_le_bytes).concat());
    bytes.extend([1, bits].map(u16::to_le_bytes).concat());
    bytes.extend([compression, 0, 0, 0, 0, 0].map(u32::to_le_bytes).concat());
    bytes.extend(palette);
    bytes.extend(data);
    Sample { name: name.to_owned(), bytes }
}

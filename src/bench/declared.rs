//! Time that reading what a file declares adds to judging it. Manifests are not here: their estimate is held by a test.

use std::io::Write;

use anyhow::Context;
use comfy_table::Table;
use flate2::{Compression, write::ZlibEncoder};
use serde::Serialize;

use super::{
    measure::{Rounds, Spread, thread_seconds},
    table,
};
use crate::{
    declared::{self, Detail, Reader},
    image::{self, Cancel, Limits, corpus},
};

/// Files read per round: enough for the clock's resolution.
const FILES: u32 = 100;

#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: &'static str,
    bytes: usize,
    /// CPU microseconds of finding what reading needs and of reading.
    us: Spread,
}

pub(super) fn measure(rounds: &Rounds) -> Result<Vec<Row>, anyhow::Error> {
    let reader = Reader::new(Detail::Brief, None).map_err(anyhow::Error::msg)?;
    let row = |(name, bytes): (&'static str, Vec<u8>)| {
        let header = image::inspect(&bytes, &Limits::default()).context(name)?;
        let read = || {
            declared::needs(&bytes, header.format);
            reader.read(&bytes, header.format, [header.width, header.height], &Cancel::default())
        };
        let samples = rounds.interleave(name, &[()], |()| {
            let (seconds, ()) = thread_seconds(|| (0..FILES).for_each(|_| drop(read())));
            Ok(seconds / f64::from(FILES))
        })?;
        Ok(Row { name, bytes: bytes.len(), us: samples[0].spread(1e6) })
    };
    files()?.into_iter().map(row).collect()
}

/// Plain files, ones with what honest programs write, and the longest texts that are read.
fn files() -> Result<Vec<(&'static str, Vec<u8>)>, anyhow::Error> {
    const LONGEST: usize = 1 << 20;
    let photos = corpus::photos(640, 480)?;
    let named = |name: &str| {
        let sample = photos.iter().find(|sample| sample.name == name).context("no such sample")?;
        anyhow::Ok(sample.bytes.clone())
    };
    let (jpeg, png) = (named("jpeg_420_q90")?, named("png_rgb")?);
    let xmp = format!("<x:xmpmeta>{}</x:xmpmeta>", "<rdf:li a:b='c'>text</rdf:li>".repeat(700));
    let xmp = [b"http://ns.adobe.com/xap/1.0/\0", xmp.as_bytes()].concat();
    let parameters = b"parameters\0a picture\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512";
    let tags = "<a>b</a>".repeat(LONGEST / 8);
    let packet = [b"XML:com.adobe.xmp\0\0\0\0\0", tags.as_bytes()].concat();
    let deflated = |text: &[u8]| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text)?;
        encoder.finish()
    };
    let texts = [b"prompt\0\0".as_slice(), &deflated(&[b'['; LONGEST])?].concat();
    let texts: Vec<_> = (0..4).map(|_| (b"zTXt", texts.as_slice())).collect();
    Ok(vec![
        ("plain JPEG", jpeg.clone()),
        ("JPEG, XMP of 20 kB", with_segment(&jpeg, 0xe1, &xmp)?),
        ("plain PNG", png.clone()),
        ("PNG, a generator's text", with_chunks(&png, &[(b"tEXt", parameters)])),
        ("PNG, XMP of 1 MiB", with_chunks(&png, &[(b"iTXt", &packet)])),
        ("PNG, 4 texts that unpack to 1 MiB each", with_chunks(&png, &texts)),
    ])
}

fn with_segment(jpeg: &[u8], marker: u8, body: &[u8]) -> Result<Vec<u8>, anyhow::Error> {
    const START: usize = 2;
    let length = u16::try_from(body.len() + 2)?.to_be_bytes();
    Ok([&jpeg[..START], &[0xff, marker], &length, body, &jpeg[START..]].concat())
}

/// In front of the pixels.
fn with_chunks(png: &[u8], chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    const SIGNATURE_AND_HEADER: usize = 8 + 25;
    let (start, pixels) = png.split_at(SIGNATURE_AND_HEADER);
    let mut bytes = start.to_vec();
    chunks.iter().for_each(|(kind, data)| corpus::png_chunk(&mut bytes, kind, data));
    bytes.extend(pixels);
    bytes
}

/// For the terminal.
pub(super) fn tabulate(rows: &[Row]) -> Table {
    let mut table = table(["file", "kB", "\u{b5}s"].map(String::from));
    for row in rows {
        table.add_row([row.name.to_owned(), (row.bytes / 1000).to_string(), row.us.to_string()]);
    }
    table
}

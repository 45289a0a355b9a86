//! A picture put together from generated pictures and photographs, asked about through HTTP.

use std::path::{Path, PathBuf};

use lfm_serve::image;
use reqwest::blocking::Client;
use serde_json::Value;

use crate::harness::{Server, shared};

const SIDE: usize = 256;
/// Tiles on a side of the collage.
const TILES: usize = 3;
/// Pictures of each kind that are looked at for a clear one.
const LOOKED_AT: usize = 24;

fn pictures(val: &Path, label: &str) -> Vec<PathBuf> {
    let sources = std::fs::read_dir(val).expect("the sources").map(|source| source.expect("a folder").path());
    let files = sources.filter_map(|source| std::fs::read_dir(source.join(label)).ok()).flatten();
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "png"));
    files.sort();
    // A part of every source.
    let step = files.len().div_ceil(LOOKED_AT).max(1);
    files.into_iter().step_by(step).collect()
}

fn pixels(file: &Path) -> Vec<u8> {
    let bytes = std::fs::read(file).expect("readable");
    let header = image::inspect(&bytes, &image::Limits::default()).expect("a header");
    assert_eq!((header.width as usize, header.height as usize), (SIDE, SIDE), "{}", file.display());
    image::decode(&bytes, &header, &image::Cancel::default()).expect("a picture").data
}

/// A PNG of the tiles, row by row.
fn collage(tiles: &[&Path]) -> Vec<u8> {
    let tiles: Vec<_> = tiles.iter().map(|file| pixels(file)).collect();
    let (row, wide) = (SIDE * 3, SIDE * 3 * TILES);
    let mut rgb = vec![0; wide * SIDE * TILES];
    for (index, line) in rgb.chunks_exact_mut(wide).enumerate() {
        for (tile, part) in tiles[index / SIDE * TILES..].iter().zip(line.chunks_exact_mut(row)) {
            part.copy_from_slice(&tile[index % SIDE * row..][..row]);
        }
    }
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, (SIDE * TILES) as u32, (SIDE * TILES) as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().and_then(|mut writer| writer.write_image_data(&rgb)).expect("a PNG");
    png
}

/// Eight tiles of one kind around one of the other, whose kind the model is sure of when it stands alone: whatever number
/// of regions beyond the centre is asked for, and by default, the centre alone does not decide, and the boxes show why.
#[test]
fn a_collage_gets_no_sure_verdict_by_its_centre() {
    let Some(shared) = shared("collages of data/val") else { return };
    let val = shared.join("data/val");
    let server = Server::start(&[]);
    let client = Client::new();
    let ask = |bytes: Vec<u8>, query: &str| -> Value {
        let answer = client.post(format!("{}/v1/score{query}", server.url)).body(bytes).send().expect("an answer");
        answer.json().expect("JSON")
    };
    let ranked = |label: &str, side: f64| {
        let judged = pictures(&val, label).into_iter().map(|file| {
            let answer = ask(std::fs::read(&file).expect("readable"), "");
            (side * answer["logit_raw"].as_f64().expect("a logit"), answer["verdict"].clone(), file)
        });
        let mut judged: Vec<_> = judged.collect();
        judged.sort_by(|a, b| b.0.total_cmp(&a.0));
        judged
    };
    let (real, fake) = (ranked("0_real", -1.0), ranked("1_fake", 1.0));
    for (centre, around) in [(&real, &fake), (&fake, &real)] {
        let (_, alone, middle) = &centre[0];
        assert_ne!(alone, "uncertain", "no picture is clear enough for the test");
        let mut tiles: Vec<&Path> = around.iter().take(TILES * TILES - 1).map(|(_, _, file)| &**file).collect();
        tiles.insert(TILES * TILES / 2, middle);
        let picture = collage(&tiles);
        for query in ["", "?regions=5", "?regions=9", "?regions=16"] {
            let answer = ask(picture.clone(), query);
            assert_ne!(&answer["verdict"], alone, "{query}: the centre alone decides: {answer}");
            let regions = answer["judged"]["regions"].as_array().expect("regions");
            assert!(regions.len() >= 5, "{query}: {answer}");
            let warned = answer["warnings"].as_array().is_some_and(|w| w.contains(&"regions_disagree".into()));
            assert!(warned && answer["verdict"] == "uncertain" && answer["score"].is_null(), "{query}: {answer}");
            // The centre's own region is the first, and lies on the other side than the rest.
            assert_eq!(regions[0]["box"], serde_json::json!([256, 256, 512, 512]));
            let side = |region: &Value| region["logit"].as_f64().expect("a logit") > 0.0;
            assert!(regions[1..].iter().any(|region| side(region) != side(&regions[0])), "{query}: {answer}");
        }
        // Whoever asks for the centre alone gets that.
        assert_eq!(&ask(picture, "?regions=1")["verdict"], alone);
    }
    // A generated centre of which the model is not sure alone: nothing is certain of the whole.
    let (_, _, middle) = fake.iter().find(|(_, alone, _)| alone == "uncertain").expect("an unsure one");
    let mut tiles: Vec<&Path> = real.iter().take(TILES * TILES - 1).map(|(_, _, file)| &**file).collect();
    let all_real = [&tiles[..], &tiles[..1]].concat();
    assert_eq!(ask(collage(&all_real), "")["verdict"], "real", "real all over");
    tiles.insert(TILES * TILES / 2, middle);
    assert_eq!(ask(collage(&tiles), "")["verdict"], "uncertain");
}

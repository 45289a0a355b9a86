//! Files made here, and real ones where they are at hand.

use std::{io::Write, path::Path};

use flate2::{Compression, write::ZlibEncoder};
use proptest::prelude::*;

use super::*;
use crate::image::{Limits, inspect, sniff};

fn reader() -> Reader {
    Reader::new(Detail::Brief, None).expect("a reader")
}

fn read(bytes: &[u8]) -> Declared {
    let size = inspect(bytes, &Limits::default()).map_or([64, 64], |header| [header.width, header.height]);
    reader().read(bytes, sniff(bytes).expect("a format"), size, &Cancel::default())
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    [&(data.len() as u32).to_be_bytes(), kind.as_slice(), data, &[0; 4]].concat()
}

fn png(chunks: &[Vec<u8>]) -> Vec<u8> {
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &[0; 13]), chunks.concat(), chunk(b"IEND", b"")].concat()
}

fn png_text(keyword: &str, text: &str) -> Vec<u8> {
    png(&[chunk(b"tEXt", format!("{keyword}\0{text}").as_bytes())])
}

fn deflated(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).expect("memory");
    encoder.finish().expect("memory")
}

fn jpeg(marker: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16 + 2).to_be_bytes();
    [&[0xff, 0xd8, 0xff, marker], length.as_slice(), body, b"\xff\xd9"].concat()
}

fn xmp(packet: &str) -> Vec<u8> {
    png(&[chunk(b"iTXt", format!("XML:com.adobe.xmp\0\0\0\0\0{packet}").as_bytes())])
}

/// A JPEG whose EXIF block has these fields, in one directory.
fn exif(fields: &[(u16, &[u8])]) -> Vec<u8> {
    let mut directory = (fields.len() as u16).to_be_bytes().to_vec();
    let mut values = Vec::new();
    for (tag, value) in fields {
        let at = 8 + 2 + 12 * fields.len() + 4 + values.len();
        directory.extend(tag.to_be_bytes());
        directory.extend(7_u16.to_be_bytes());
        directory.extend((value.len() as u32).to_be_bytes());
        if value.len() <= 4 {
            directory.extend([value, &[0; 4][value.len()..]].concat());
        } else {
            directory.extend((at as u32).to_be_bytes());
            values.extend_from_slice(value);
        }
    }
    jpeg(0xe1, &[b"Exif\0\0MM\0*\0\0\0\x08".as_slice(), &directory, &[0; 4], &values].concat())
}

/// A file that has a field with a value.
fn file(source: Source, field: &str, value: &str) -> Option<Vec<u8>> {
    let escaped = value.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let tag = |name: &str| {
        Some(match name {
            "ImageDescription" => 0x10e,
            "Make" => 0x10f,
            "Model" => 0x110,
            "Software" => 0x131,
            "UserComment" => 0x9286,
            _ => return None,
        })
    };
    Some(match source {
        Source::PngText => png_text(field, value),
        Source::Exif if field == "UserComment" => {
            let utf16: Vec<u8> = value.encode_utf16().flat_map(u16::to_be_bytes).collect();
            exif(&[(0x9286, &[b"UNICODE\0".as_slice(), &utf16].concat())])
        }
        Source::Exif => exif(&[(tag(field)?, value.as_bytes())]),
        Source::Xmp | Source::Iptc => {
            xmp(&format!("<x><a:{field}><rdf:Alt><rdf:li>{escaped}</rdf:li></rdf:Alt></a:{field}></x>"))
        }
        Source::C2pa => return None,
    })
}

#[test]
fn each_mark_is_found_in_a_file() {
    for (source, field, kind, tool, example) in marks::tests::examples() {
        let Some(bytes) = file(source, field, &example) else {
            assert_eq!(source, Source::C2pa);
            continue;
        };
        let declared = read(&bytes);
        let tool = if tool == "*" { &example } else { tool };
        let expected = Claim { detail: declared.claims[0].detail.clone(), ..Claim::unsigned(source, kind) };
        assert_eq!(declared.claims[..1], [expected.with_tool(tool)], "{field}: {example}");
        let generated = matches!(kind, Kind::Generated | Kind::Composite);
        assert_eq!(declared.generated, generated.then_some(true), "{field}: {example}");
    }
}

#[test]
fn a_digital_source_type_is_read_however_xmp_writes_it() {
    let term = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";
    for packet in [
        format!("<rdf:Description i:DigitalSourceType=\"{term}\"/>"),
        format!("<rdf:Description i:DigitalSourceType='{term}'></rdf:Description>"),
        format!("<i:DigitalSourceType>{term}</i:DigitalSourceType>"),
        format!("<i:DigitalSourceType><![CDATA[{term}]]></i:DigitalSourceType>"),
        format!("<i:DigitalSourceType rdf:resource=\"{term}\"/>"),
        format!("<a>&unknown;</a><i:DigitalSourceType>\n {term} </i:DigitalSourceType>"),
        format!("<i:DigitalSourceType>{}</i:DigitalSourceType>", term.replace('/', "&#47;")),
    ] {
        let declared = read(&xmp(&packet));
        assert_eq!(declared.generated, Some(true), "{packet}");
        assert_eq!(declared.claims[0].source, Source::Iptc);
        assert_eq!(declared.claims[0].validation, Validation::None);
    }
    // A caption that mentions it.
    let mention = format!("<dc:title><rdf:li>{term}</rdf:li></dc:title>");
    assert_eq!(read(&xmp(&mention)), Declared::default());
}

#[test]
fn what_a_camera_writes_is_a_capture_that_nobody_vouches_for() {
    let declared = read(&exif(&[(0x10f, b"Canon\0"), (0x110, b"Canon EOS R5\0"), (0x927c, b"maker note")]));
    assert_eq!(declared.generated, None);
    let [claim] = &declared.claims[..] else { panic!("{declared:?}") };
    assert_eq!((claim.kind, claim.validation), (Kind::Captured, Validation::None));
    assert_eq!(claim.tool.as_deref(), Some("Canon EOS R5"));
    let detail = claim.detail.as_deref().expect("a detail");
    assert!(detail.contains("with a maker note") && detail.contains("unverified"), "{detail}");
    assert_eq!(read(&exif(&[(0x10f, b"Canon\0")])), Declared::default());
}

/// In a picture of 600 x 400 pixels.
#[test]
fn a_cameras_thumbnail_is_compared_with_the_picture() {
    let golden = |name| std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name));
    let picture = golden("images/coffee_420_q75.jpg").expect("a picture");
    let detail = |thumbnail: &[u8]| {
        let mut block = b"MM\0*\0\0\0\x08".to_vec();
        let field = |tag: u16, kind: u16, count: u32, value: u32| {
            [&tag.to_be_bytes()[..], &kind.to_be_bytes(), &count.to_be_bytes(), &value.to_be_bytes()].concat()
        };
        let ascii = |text: &[u8; 4]| u32::from_be_bytes(*text);
        // The first directory ends at 38, the second at 68.
        block.extend([&[0, 2][..], &field(0x10f, 2, 4, ascii(b"Acme")), &field(0x110, 2, 4, ascii(b"One\0"))].concat());
        block.extend(38_u32.to_be_bytes());
        let length = thumbnail.len() as u32;
        block.extend([&[0, 2][..], &field(0x201, 4, 1, 68), &field(0x202, 4, 1, length), &[0; 4], thumbnail].concat());
        let body = [b"Exif\0\0".as_slice(), &block].concat();
        let segment = [&[0xff, 0xe1][..], &(body.len() as u16 + 2).to_be_bytes(), &body].concat();
        let declared = read(&[&picture[..2], &segment, &picture[2..]].concat());
        let [claim] = &declared.claims[..] else { panic!("{declared:?}") };
        assert_eq!((claim.kind, claim.tool.as_deref()), (Kind::Captured, Some("Acme One")));
        claim.detail.clone().expect("a detail")
    };
    let thumbnail = |width: u16, height: u16| {
        let size = [height.to_be_bytes(), width.to_be_bytes()].concat();
        [&b"\xff\xd8\xff\xc0\0\x0b\x08"[..], &size, b"\x01\x01\x11\0\xff\xda\0\x02\xff\xd9"].concat()
    };
    assert!(detail(&thumbnail(160, 107)).contains("a thumbnail of the picture's shape"));
    assert!(detail(&thumbnail(160, 120)).contains("a thumbnail of another shape"));
    assert!(detail(&thumbnail(106, 160)).contains("a thumbnail of another shape"));
    assert!(detail(b"no JPEG").contains("without a thumbnail"));
}

#[test]
fn prompts_are_given_only_where_they_are_asked_for() {
    let bytes = png_text("parameters", &format!("a secret\nSteps: 20, Sampler: Euler, Seed: 1{}", " long".repeat(100)));
    let read = |detail| {
        let reader = Reader::new(detail, None).expect("a reader");
        let mut declared = reader.read(&bytes, Format::Png, [64, 64], &Cancel::default());
        declared.claims.remove(0).detail.expect("a detail")
    };
    assert_eq!(read(Detail::Brief), "text `parameters`");
    let full = read(Detail::Full);
    assert!(full.starts_with("text `parameters`: a secret Steps: 20"), "{full}");
    assert_eq!(full.chars().count(), MOST_CHARACTERS);
}

#[test]
fn nothing_is_unpacked_beyond_its_bound() {
    let packed =
        |keyword: &str, text: &[u8]| chunk(b"iTXt", &[keyword.as_bytes(), b"\0\x01\0\0\0", &deflated(text)].concat());
    let mark = b"{\"a\": {\"class_type\": \"b\", \"inputs\": {}}}";
    assert_eq!(read(&png(&[packed("prompt", mark)])).generated, Some(true));
    let zip = chunk(b"zTXt", &[b"prompt\0\0".as_slice(), &deflated(mark)].concat());
    assert_eq!(read(&png(&[zip])).generated, Some(true));
    // A few kilobytes that are gigabytes; what comes behind it is still read.
    let bomb = packed("prompt", &vec![b' '; MOST_TEXT + 1]);
    let bombs = png(&[vec![bomb; 64].concat(), packed("workflow", b"{\"nodes\": [1], \"links\": []}")]);
    assert_eq!(read(&bombs).generated, Some(true));
    // Texts that are all as long as they may be use the budget up.
    let long = packed("prompt", &vec![b' '; MOST_TEXT]);
    assert_eq!(read(&png(&[vec![long; 5].concat(), packed("prompt", mark)])), Declared::default());
}

#[test]
fn xmp_expands_no_entities_and_ends_where_it_is_broken() {
    let lol = (1..64).map(|level| format!("<!ENTITY l{level} \"&l{0};&l{0};&l{0};\">", level - 1)).collect::<String>();
    let bomb = format!("<!DOCTYPE x [<!ENTITY l0 \"DALL-E\">{lol}]><x><CreatorTool>&l63;</CreatorTool></x>");
    assert_eq!(read(&xmp(&bomb)), Declared::default());
    let broken = "<x CreatorTool=\"DALL-E 3\"><a></b><c d=></x";
    assert_eq!(read(&xmp(broken)).generated, Some(true));
    for packet in [
        "<a>".repeat(100_000),
        "<a ".repeat(100_000),
        "<Credit>".repeat(100_000),
        format!("<a {}/>", "b=\"c\" ".repeat(100_000)),
    ] {
        assert_eq!(read(&xmp(&packet)), Declared::default());
    }
    let many: String = (0..1000).map(|index| format!("<CreatorTool>tool {index}</CreatorTool>")).collect();
    assert_eq!(read(&xmp(&many)).claims.len(), MOST_CLAIMS);
}

#[test]
fn generated_needs_a_claim_that_counts() {
    let claim = |kind, validation| Claim { validation, ..Claim::unsigned(Source::C2pa, kind) };
    for (claims, generated) in [
        (vec![], None),
        (vec![claim(Kind::Generated, Validation::Untrusted)], Some(true)),
        (vec![claim(Kind::Composite, Validation::Expired)], Some(true)),
        (vec![claim(Kind::Generated, Validation::Invalid)], None),
        (vec![claim(Kind::Captured, Validation::Valid)], Some(false)),
        (vec![claim(Kind::Captured, Validation::Untrusted)], None),
        (vec![claim(Kind::Captured, Validation::Valid), claim(Kind::Generated, Validation::None)], Some(true)),
        (vec![claim(Kind::Edited, Validation::Valid)], None),
    ] {
        assert_eq!(Declared::of(claims.clone()).generated, generated, "{claims:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the bytes are, what comes of them is bounded.
    #[test]
    fn any_bytes_give_a_bounded_answer(
        block in prop::collection::vec(any::<u8>(), 0..2000),
        field in prop::sample::select(vec!["parameters", "prompt", "XML:com.adobe.xmp", "Comment"]),
        place in 0..6_usize,
    ) {
        let bytes = match place {
            0 => png(&[chunk(b"iTXt", &[field.as_bytes(), b"\0", &block].concat())]),
            1 => png(&[chunk(b"eXIf", &[b"II*\0".as_slice(), &block].concat())]),
            2 => jpeg(0xe1, &[b"Exif\0\0MM\0*".as_slice(), &block].concat()),
            3 => jpeg(0xed, &[b"Photoshop 3.0\08BIM\x04\x04".as_slice(), &block].concat()),
            4 => png(&[chunk(b"caBX", &block)]),
            _ => [b"II*\0".as_slice(), &block].concat(),
        };
        let declared = read(&bytes);
        prop_assert!(declared.claims.len() <= MOST_CLAIMS);
        for claim in declared.claims {
            for text in [claim.tool, claim.signer, claim.detail].into_iter().flatten() {
                prop_assert!(text.chars().count() <= MOST_CHARACTERS && !text.contains(char::is_control));
            }
        }
    }
}

/// A folder of the reference data beside the checkout; where it is absent the test says so and passes.
pub(super) fn shared(name: &str) -> Option<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if !folder.is_dir() {
        // Not `eprintln!`: of a test that passes its output is swallowed.
        let _ = writeln!(std::io::stderr(), "SKIPPED a test of `declared`: ../shared/data/{name} is not here");
        return None;
    }
    Some(folder)
}

#[test]
fn photographs_do_not_say_that_they_are_generated() {
    let Some(folder) = shared("web") else { return };
    let manifest = std::fs::read_to_string(folder.join("../MANIFEST.tsv")).expect("the manifest");
    let real = manifest.lines().filter_map(|line| {
        let mut columns = line.split('\t');
        let (path, label) = (columns.next()?, columns.next()?);
        (label == "0").then(|| folder.join("..").join(path))
    });
    let (reader, mut count) = (reader(), 0);
    for path in real.filter(|path| path.is_file()).take(2000) {
        let bytes = std::fs::read(&path).expect("a file");
        let Some(format) = sniff(&bytes) else { continue };
        let declared = reader.read(&bytes, format, [64, 64], &Cancel::default());
        count += 1;
        assert_ne!(declared.generated, Some(true), "{}: {declared:?}", path.display());
    }
    assert!(count >= 200, "{count} photographs");
}

#[test]
fn an_avif_is_read_for_exif_and_xmp() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/variants/avif_declared.avif");
    let bytes = std::fs::read(file).expect("committed");
    let declared = read(&bytes);
    assert_eq!(declared.generated, Some(true), "{declared:?}");
    let sources: Vec<_> = declared.claims.iter().map(|claim| claim.source).collect();
    assert!(sources.contains(&Source::Exif) && sources.contains(&Source::Iptc), "{declared:?}");
    // Whatever is cut off, nothing panics.
    (0..bytes.len()).for_each(|end| drop(metadata(&bytes[..end], Format::Avif)));
}

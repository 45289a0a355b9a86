//! AVIF: the reference's pixels, and the process that decodes them.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use lfm_serve::image::{Cancel, Header, ImageError, Limits, decode, inspect};
use reqwest::blocking::Client;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{PATIENCE, Server, golden, program, root};

/// A kilobyte of flat colour that takes seconds.
fn slow() -> Vec<u8> {
    fs::read(root().join("src/image/corpus/avif/bomb.avif")).expect("committed")
}

/// Looks again and again, until `seen` sees something.
fn wait<T>(what: &str, mut seen: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = seen() {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn generated_files_have_the_references_pixels() {
    let python = root().join(".venv-pillow/bin/python");
    let exact = generated_files_are_exact(&python, "avif.py", &Limits::default(), "multiplied", |header, more| {
        assert_eq!([header.exif_orientation.to_string().as_str()], *more);
    });
    assert!(exact >= 300, "{exact} are exact");
}

/// Makes files by a script of tests/golden, and compares them with what its `digests.tsv` says: name, digest of the pixels,
/// whether the file has to be refused by a sentence with `word` in it, and more for `check`. Gives how many are exact.
pub fn generated_files_are_exact(
    python: &Path,
    script: &str,
    limits: &Limits,
    word: &str,
    check: impl Fn(&Header, &[&str]),
) -> usize {
    const FILES: usize = 330;
    let folder = tempfile::tempdir().expect("a folder");
    let made = Command::new(python)
        .args([root().join("tests/golden").join(script).as_path(), folder.path(), Path::new(&FILES.to_string())])
        .status();
    assert!(made.expect("`make test` installs it").success());
    let digests = fs::read_to_string(folder.path().join("digests.tsv")).expect("written");
    let (mut exact, mut refused) = (0, 0);
    for line in digests.lines() {
        let columns: Vec<_> = line.split('\t').collect();
        let [name, digest, refusal, more @ ..] = &columns[..] else { panic!("{line}") };
        let bytes = fs::read(folder.path().join(name)).expect("written");
        let header = match inspect(&bytes, limits) {
            Ok(header) => header,
            Err(ImageError::UnsupportedFormat { reason, .. }) => {
                assert!(*refusal == "1" && reason.contains(word), "{name}: {reason}");
                refused += 1;
                continue;
            }
            Err(error) => panic!("{name}: {error}"),
        };
        check(&header, more);
        let rgb = decode(&bytes, &header, &Cancel::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found: String = Sha256::digest(&rgb.data).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, *digest, "{name}");
        exact += 1;
    }
    assert_eq!(exact + refused, FILES, "{exact} are exact, {refused} are refused");
    exact
}

#[test]
fn damaged_files_are_answered_and_the_server_lives() {
    let names =
        ["avif_420_full.avif", "avif_rgba_420.avif", "avif_tiles.avif", "avif_10bit_420_alpha.avif", "avif_q100.avif"];
    let files = names.map(|name| golden(&format!("variants/{name}")));
    damaged_files_are_answered(&["--sessions", "1"], &files);
}

/// Sends variants of `files` with damage, and then the first as it is.
pub fn damaged_files_are_answered(flags: &[&str], files: &[Vec<u8>]) {
    const FILES: usize = 300;
    let server = Server::start(flags);
    let client = Client::new();
    let post = |bytes: Vec<u8>| client.post(format!("{}/v1/score", server.url)).body(bytes).send().expect("an answer");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = move |most: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % most as u64) as usize
    };
    let mut answers = BTreeMap::<(u16, String), usize>::new();
    for number in 0..FILES {
        let mut bytes = files[number % files.len()].clone();
        // The stream lies at the end; the container is in front.
        let from = if number % 3 == 0 { 0 } else { bytes.len() / 2 };
        for _ in 0..=below(6) {
            let at = from + below(bytes.len() - from);
            match below(4) {
                0 => bytes[at] = below(256) as u8,
                1 => bytes[at..].iter_mut().take(16).for_each(|byte| *byte = 0xff),
                2 => bytes[at] ^= 1 << below(8),
                _ => bytes.truncate((at + 1).max(from + 2)),
            }
        }
        let response = post(bytes);
        let status = response.status().as_u16();
        let body: Value = response.json().expect("JSON");
        assert!(matches!(status, 200 | 413 | 415 | 422), "{number}: {body}");
        *answers.entry((status, body["code"].as_str().unwrap_or_default().to_owned())).or_default() += 1;
    }
    let damaged = answers.get(&(422, "undecodable_image".to_owned()));
    assert!(damaged.is_some_and(|&count| count > FILES / 4), "{answers:?}");
    assert_eq!(post(files[0].clone()).status(), 200);
    assert_eq!(children(&server), Vec::<u32>::new());
    assert!(server.terminate().0.success());
}

/// The processes that a server has started.
fn children(server: &Server) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.id())).expect("its threads");
    let of_thread = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let lists: Vec<_> = tasks.flatten().map(of_thread).collect();
    lists.iter().flat_map(|list| list.split_whitespace()).map(|id| id.parse().expect("a number")).collect()
}

#[test]
fn nobody_waiting_ends_the_process() {
    let server = Server::start(&["--sessions", "1"]);
    let address = server.url.strip_prefix("http://").expect("a URL").to_owned();
    let file = slow();
    let head = |more: &str| {
        format!(
            "POST /v1/score HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n{more}connection: close\r\n\r\n",
            file.len()
        )
    };
    let ask = |more| {
        let mut connection = TcpStream::connect(&address).expect("a connection");
        connection.write_all(&[head(more).as_bytes(), &file].concat()).expect("sent");
        connection
    };
    // The client hangs up.
    let connection = ask("");
    wait("no process decodes", || children(&server).pop());
    drop(connection);
    wait("a process stays", || children(&server).is_empty().then_some(()));
    // The deadline passes.
    let mut connection = ask("x-request-timeout-ms: 4000\r\n");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 504"), "{answer}");
    wait("a process stays", || children(&server).is_empty().then_some(()));
    assert!(server.terminate().0.success());
}

/// The process as the server starts it, for a picture of so many pixels on a side.
fn decoder(side: u32, memory: u64) -> Child {
    let shape = json!({"width": side, "height": side, "depth": 8, "layout": "I420"});
    let colours = json!({"cicp": {"primaries": 1, "matrix": 6, "full_range": true}, "alpha": false});
    let job = json!({"shape": shape, "colours": colours, "memory": memory, "seconds": 10});
    let mut program = program();
    program.args(["decode-av1", &job.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    program.spawn().expect("it starts")
}

/// The AV1 stream of a picture, which ends its file.
fn stream(file: &[u8]) -> &[u8] {
    let at = file.windows(4).rposition(|kind| kind == b"mdat").expect("a box") + 4;
    &file[at..]
}

#[test]
fn the_process_has_no_rights_when_it_reads() {
    let mut process = decoder(1, 64 << 20);
    let status = wait("it keeps its rights", || {
        let status = fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
        status.contains("Seccomp:\t2").then_some(status)
    });
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Threads:\t1"), "{status}");
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.id())).expect("its limits");
    let limit =
        |name: &str| limits.lines().find_map(|line| line.strip_prefix(name)).expect("a limit").trim().to_owned();
    assert!(limit("Max data size").starts_with(&(64_u64 << 20).to_string()), "{limits}");
    assert!(limit("Max file size").starts_with("0 "), "{limits}");
    process.stdin.take().expect("a pipe").write_all(stream(&golden("variants/avif_420_1x1.avif"))).expect("it reads");
    let output = process.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stdout.len() == 1 + 3, "{output:?}");
}

#[test]
fn the_process_fails_where_its_memory_ends() {
    const SIDE: u32 = 1414;
    let file = fs::read(root().join("src/image/corpus/avif/flat.avif")).expect("committed");
    let pixels = |memory| {
        let mut process = decoder(SIDE, memory);
        // It may have ended already.
        let _ = process.stdin.take().expect("a pipe").write_all(stream(&file));
        let output = process.wait_with_output().expect("it ends");
        output.status.success().then_some(output.stdout.len())
    };
    assert_eq!(pixels(64 << 20), Some(1 + (SIDE * SIDE * 3) as usize));
    assert_eq!(pixels(3 << 20), None);
}

//! Signals that end the process at once: while it is being started, whatever hangs, and when one comes after another.

use std::{
    io::{BufRead, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::harness::{Server, program};

/// A library in ONNX Runtime's place whose constructor says that it was begun, and never returns.
const HANGS: &str = r#"
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
__attribute__((constructor)) static void hang(void) {
    close(open(getenv("BEGUN"), O_CREAT | O_WRONLY, 0600));
    for (;;) pause();
}
"#;

/// None where there is no C compiler, which is said.
fn library(folder: &Path) -> Option<std::path::PathBuf> {
    let (library, source) = (folder.join("libonnxruntime.so"), folder.join("hangs.c"));
    std::fs::write(&source, HANGS).expect("written");
    match Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status() {
        Ok(status) => assert!(status.success(), "cc: {status}"),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "SKIPPED a start that hangs: cc cannot be run: {error}");
            return None;
        }
    }
    Some(library)
}

fn send(signal: &str, process: &Child) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &process.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
}

#[test]
fn a_start_that_hangs_in_a_librarys_constructor_is_ended_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(library) = library(folder.path()) else { return };
    let begun = folder.path().join("begun");
    for signal in ["TERM", "INT", "HUP"] {
        let _ = std::fs::remove_file(&begun);
        let mut process = program()
            .args(["serve", "--listen", "127.0.0.1:0", "--drain-delay", "1h", "--drain-timeout", "2h", "--ort-library"])
            .arg(&library)
            .env("BEGUN", &begun)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        while !begun.exists() {
            assert!(process.try_wait().expect("a process").is_none(), "it ended by itself");
            std::thread::yield_now();
        }
        send(signal, &process);
        assert!(process.wait().expect("it ends").success(), "{signal}");
    }
}

#[test]
fn an_interrupt_ends_a_drain_at_once() {
    for first in ["TERM", "INT", "HUP"] {
        let (hour, log) = ("1h", ["--log-level", "info", "--log-format", "json"]);
        let slow = ["--body-timeout", hour, "--request-timeout", hour, "--min-upload-rate", "0"];
        let drain = ["--sessions", "1", "--drain-delay", hour, "--drain-timeout", "2h"];
        let mut server = Server::start(&[&slow[..], &drain, &log].concat());
        // The drain waits for a request whose body does not end.
        let mut socket = TcpStream::connect(server.url.trim_start_matches("http://")).expect("a connection");
        socket.write_all(b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n1").expect("sent");
        let mut lines = server.log().lines();
        server.signal(first);
        lines.find(|line| line.as_ref().expect("UTF-8").contains("draining")).expect("it drains").expect("UTF-8");
        std::thread::spawn(move || lines.for_each(drop));
        let (status, _) = server.end("INT");
        assert_eq!(status.code(), Some(130), "{first}, then INT");
    }
}

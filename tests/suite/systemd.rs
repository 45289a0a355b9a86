//! Notifications to systemd, received on a fake systemd socket.

use std::{os::unix::net::UnixDatagram, process::Stdio};

use crate::harness::{PATIENCE, program};

/// Waits for a message.
fn told(socket: &UnixDatagram, message: &str) {
    let mut buffer = [0; 256];
    loop {
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{message} was not received: {error}"));
        if buffer[..length].split(|&byte| byte == b'\n').any(|line| line == message.as_bytes()) {
            return;
        }
    }
}

#[test]
fn systemd_is_notified_of_readiness_progress_and_drain() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut server = program()
        .args(["serve", "--listen", "127.0.0.1:0", "--sessions", "1", "--drain-delay", "0s"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    told(&socket, "READY=1");
    told(&socket, "WATCHDOG=1");
    let killed = std::process::Command::new("kill").args(["-TERM", &server.id().to_string()]).status();
    assert!(killed.expect("kill runs").success());
    told(&socket, "STOPPING=1");
    assert!(server.wait().expect("it ends").success());
}

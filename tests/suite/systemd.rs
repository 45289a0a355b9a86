//! Notifications to systemd, received on a fake systemd socket.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::{Child, Command, Stdio},
};

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

/// The program with `socket` as the one that systemd passes, as lfm-serve.socket has it (sd_listen_fds(3)).
fn activated(socket: &TcpListener, name: &str) -> Child {
    let program = program();
    let mut shell = Command::new("sh");
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=\"$0\" exec \"$@\" 3<&0 </dev/null";
    shell.args(["-c", script, name]).arg(program.get_program()).args(program.get_args());
    for (variable, _) in program.get_envs() {
        shell.env_remove(variable);
    }
    let passed: OwnedFd = socket.try_clone().expect("a copy").into();
    // Its own address is taken by nobody: what is passed counts.
    shell
        .args(["serve", "--listen", "127.0.0.1:1", "--sessions", "1", "--drain-delay", "0s", "--log-level", "info"])
        .current_dir(crate::harness::root())
        .stdin(passed)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// Asks over a new connection, which waits until somebody accepts it.
fn asked(socket: &TcpListener) -> TcpStream {
    let mut stream = TcpStream::connect(socket.local_addr().expect("an address")).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("sent");
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn a_socket_that_systemd_opened_outlives_the_program() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let first = asked(&socket);
    for start in ["first", "after a stop"] {
        let mut server = activated(&socket, "http");
        if start == "first" {
            assert!(
                answer(first.try_clone().expect("a copy")).starts_with("HTTP/1.1 200"),
                "asked before the {start} start"
            );
        }
        assert!(answer(asked(&socket)).starts_with("HTTP/1.1 200"), "{start}");
        let killed = Command::new("kill").args(["-TERM", &server.id().to_string()]).status();
        assert!(killed.expect("kill runs").success());
        assert!(server.wait().expect("it ends").success(), "{start}");
    }
    // Between two programs a connection waits and is not refused.
    let waiting = asked(&socket);
    let mut server = activated(&socket, "http");
    assert!(answer(waiting).starts_with("HTTP/1.1 200"));
    server.kill().and_then(|()| server.wait()).expect("it ends");
}

#[test]
fn a_socket_of_a_name_that_there_is_none_of_is_refused() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let ended = activated(&socket, "web").wait_with_output().expect("it ends");
    let log = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{log}");
    assert!(log.contains("web") && log.contains("FileDescriptorName="), "{log}");
}

//! Any bytes on a connection: HTTP/1 or HTTP/2, requests in a row, a head or a body that breaks off. The server closes the
//! connection when its client is done, and answers the next one.

#![no_main]

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use lfm_serve_fuzz::Service;
use libfuzzer_sys::{Corpus, fuzz_target};

struct Listening {
    _service: Service,
    address: SocketAddr,
}

static SERVER: LazyLock<Listening> = LazyLock::new(|| {
    let service = Service::start();
    let address = service.listen();
    Listening { _service: service, address }
});

/// The server is silent for this long when it waits for more.
const QUIET: Duration = Duration::from_millis(3);

static RUNS: AtomicU32 = AtomicU32::new(0);

fuzz_target!(|data: &[u8]| -> Corpus {
    let answer = exchange(data);
    let failed = answer.windows(12).any(|bytes| bytes == b"HTTP/1.1 500");
    // An answer can repeat what it was sent.
    assert!(!failed || data.windows(3).any(|bytes| bytes == b"500"), "{}", String::from_utf8_lossy(&answer));
    if RUNS.fetch_add(1, Relaxed).is_multiple_of(256) {
        let alive = exchange(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        assert!(alive.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&alive));
    }
    Corpus::Keep
});

/// All that comes back for `data`.
fn exchange(data: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(SERVER.address).expect("a connection");
    socket.set_read_timeout(Some(QUIET)).expect("a timeout");
    // The server may have closed the connection by now.
    let _ = socket.write_all(data);
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            let _ = socket.shutdown(Shutdown::Write);
            socket.set_read_timeout(None).expect("no timeout");
            // Without an end the fuzzer's timeout is the finding.
            let _ = socket.read_to_end(&mut answer);
        }
        _ => {}
    }
    answer
}

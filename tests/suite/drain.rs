//! SIGTERM under load: every request sent to the server is answered, and the process ends in time.

use std::{
    io::{self, ErrorKind, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use crate::harness::{PATIENCE, Server, exchange, golden, request};

/// Default number of rounds; `LFM_DRAIN_ROUNDS` sets more.
const ROUNDS: usize = 5;

/// Clients that open a connection for each request, and clients that keep theirs.
const FRESH: usize = 4;
const KEPT: usize = 4;

/// Answers after which SIGTERM is sent.
const ANSWERS: usize = 20;

const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A stopping server does not accept new connections: after this time a client counts as refused.
const CONNECTING: Duration = Duration::from_millis(300);

/// Results of a round's clients.
#[derive(Debug, Default)]
struct Seen {
    /// Answers by status: 200, 429, 503.
    answers: [usize; 3],
    lost: Vec<String>,
}

impl Seen {
    fn answered(&self) -> usize {
        self.answers.iter().sum()
    }
}

#[test]
fn no_request_is_lost_when_the_server_is_stopped_under_load() {
    let rounds = std::env::var("LFM_DRAIN_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let (mut lost, mut answers, mut longest) = (Vec::new(), [0; 3], Duration::ZERO);
    for round in 0..rounds {
        let (seen, took) = stop_under_load(round);
        assert!(seen.answers[2] > 0, "round {round}: no client got a 503: {seen:?}");
        for (sum, count) in answers.iter_mut().zip(seen.answers) {
            *sum += count;
        }
        lost.extend(seen.lost.into_iter().map(|how| format!("round {round}: {how}")));
        longest = longest.max(took);
    }
    eprintln!("{rounds} SIGTERM: {answers:?} answers of 200, 429, 503; {} lost; ended within {longest:?}", lost.len());
    assert!(
        lost.is_empty(),
        "{} of {} requests were lost:\n{}",
        lost.len(),
        answers.iter().sum::<usize>(),
        lost.join("\n")
    );
}

/// Stops one server under load: its clients' results, and how long it took.
fn stop_under_load(round: usize) -> (Seen, Duration) {
    let timeout = format!("{}s", DRAIN_TIMEOUT.as_secs());
    let server = Server::start(&["--sessions", "1", "--drain-delay", "200ms", "--drain-timeout", &timeout]);
    let address: SocketAddr = server.url.trim_start_matches("http://").parse().expect("an address");
    // A body in the same packet as its head, and one in separate packets.
    let small = request(&golden("hostile/one_pixel.png"));
    let larger = request(&golden("images/x_coffee_64.png"));
    // Connections that are idle or stop in the middle of a head do not delay the end.
    let _idle = TcpStream::connect(address).expect("a connection");
    let mut stalled = TcpStream::connect(address).expect("a connection");
    stalled.write_all(&small[..20]).expect("sent");
    let seen = Mutex::new(Seen::default());
    let news = Condvar::new();
    let told = AtomicBool::new(false);
    let took = thread::scope(|scope| {
        for client in 0..FRESH + KEPT {
            let (seen, news, told) = (&seen, &news, &told);
            let request = if (client + round).is_multiple_of(2) { &small } else { &larger };
            scope.spawn(move || {
                let client = Client { address, request, keeps: client < KEPT, seen, news, told };
                client.send_until_refused();
            });
        }
        let enough = |seen: &mut Seen| seen.answered() < ANSWERS && seen.lost.is_empty();
        drop(news.wait_timeout_while(seen.lock().expect("no panic"), PATIENCE, enough).expect("no panic"));
        told.store(true, SeqCst);
        let asked = Instant::now();
        assert!(server.terminate().0.success(), "it ends with success");
        asked.elapsed()
    });
    assert!(took < DRAIN_TIMEOUT, "it took {took:?} to end");
    (seen.into_inner().expect("no panic"), took)
}

struct Client<'a> {
    address: SocketAddr,
    request: &'a [u8],
    /// Whether it reuses its connection until the server asks to close it.
    keeps: bool,
    seen: &'a Mutex<Seen>,
    news: &'a Condvar,
    /// Whether SIGTERM has been sent.
    told: &'a AtomicBool,
}

impl Client<'_> {
    /// Sends request after request until no connection can be made.
    fn send_until_refused(&self) {
        let mut kept = None;
        loop {
            let (mut socket, sent_before) = match kept.take() {
                Some(kept) => kept,
                None => match TcpStream::connect_timeout(&self.address, CONNECTING) {
                    Ok(socket) => (socket, 0),
                    Err(error) if is_refusal(&error) && self.told.load(SeqCst) => return,
                    Err(error) => {
                        self.lost(format!("no connection: {error}"));
                        return;
                    }
                },
            };
            match exchange(&mut socket, self.request) {
                Ok((status, close)) => {
                    let mut seen = self.seen.lock().expect("no panic");
                    match [200, 429, 503].iter().position(|&expected| expected == status) {
                        Some(place) => seen.answers[place] += 1,
                        None => seen.lost.push(format!("status {status}")),
                    }
                    drop(seen);
                    self.news.notify_all();
                    if self.keeps && !close {
                        kept = Some((socket, sent_before + 1));
                    }
                }
                Err(error) => self.lost(format!("request {} of its connection: {error}", sent_before + 1)),
            }
        }
    }

    fn lost(&self, how: String) {
        self.seen.lock().expect("no panic").lost.push(how);
        self.news.notify_all();
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::TimedOut)
}

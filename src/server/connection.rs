//! One connection: what it does, how long it may do nothing, and why it ended.

use std::{
    collections::BTreeMap,
    error::Error as StdError,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
    time::{Instant, Sleep, sleep_until},
};

use crate::metrics::Closed;

/// Longest silence after a connection was opened. Load balancers open connections before they need them.
const FIRST_BYTE: Duration = Duration::from_secs(30);

/// Longest time from the first byte of a request's head to its last.
const HEAD: Duration = Duration::from_secs(15);

/// Longest time between requests: above the 60 s after which load balancers close an idle connection themselves.
const IDLE: Duration = Duration::from_secs(75);

/// Longest time in which a client takes nothing of what is sent.
const WRITE: Duration = Duration::from_secs(30);

/// How often a connection with a request in flight is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// What one address holds.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(super) connections: AtomicUsize,
    /// Bytes of bodies that are being received.
    pub(super) receiving: AtomicU64,
}

/// What is known of a connection.
#[derive(Debug)]
pub(crate) struct Activity {
    opened: Instant,
    peer: Arc<Peer>,
    /// Requests in flight on all connections.
    all_in_flight: Arc<AtomicUsize>,
    only_probes: bool,
    close: Notify,
    why: OnceLock<Closed>,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    evicted: bool,
    http2: bool,
    /// Requests whose answers are not sent yet.
    in_flight: usize,
    served: bool,
    /// When the first byte of a head came that is not complete.
    head_began: Option<Instant>,
    /// When the last byte came, or the last answer was sent.
    last: Option<Instant>,
    /// HTTP/2 answers that wait for their client to take more, with the time since when.
    waiting: BTreeMap<u64, Instant>,
    next_answer: u64,
}

/// A request from its head to the end of its answer.
#[derive(Debug)]
pub(super) struct InFlight {
    activity: Arc<Activity>,
    id: u64,
}

impl Activity {
    pub(super) fn new(peer: Arc<Peer>, all_in_flight: Arc<AtomicUsize>, only_probes: bool) -> Self {
        Self {
            opened: Instant::now(),
            peer,
            all_in_flight,
            only_probes,
            close: Notify::new(),
            why: OnceLock::new(),
            now: Mutex::default(),
        }
    }

    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Whether it took a place that is kept for the probes.
    pub(super) fn only_probes(&self) -> bool {
        self.only_probes
    }

    /// Since when nothing has come; none while a request is in flight.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let now = self.now();
        (now.in_flight == 0).then(|| now.last.unwrap_or(self.opened))
    }

    pub(super) fn has_served(&self) -> bool {
        self.now().served
    }

    /// How many answers have waited since `before` or longer for their client to take more.
    pub(super) fn answers_waiting(&self, before: Instant) -> usize {
        self.now().waiting.values().filter(|&&since| since <= before).count()
    }

    /// Closes the connection: its place or its memory is needed.
    pub(super) fn evict(&self) {
        let mut now = self.now();
        if !std::mem::replace(&mut now.evicted, true) {
            // They end when the connection's task gets to it.
            self.all_in_flight.fetch_sub(now.in_flight, Relaxed);
        }
        drop(now);
        self.end(Closed::Evicted);
        self.close.notify_one();
    }

    #[cfg(test)]
    pub(super) fn is_evicted(&self) -> bool {
        self.now().evicted
    }

    /// Resolves when the connection is to be closed.
    pub(super) async fn closing(&self) {
        self.close.notified().await;
    }

    /// Why the connection ended, if that was decided here. The first reason stays.
    pub(super) fn why(&self) -> Option<Closed> {
        self.why.get().copied()
    }

    fn end(&self, why: Closed) {
        let _ = self.why.set(why);
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        // Nothing is left half changed.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request's head has come.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        let mut now = self.now();
        now.in_flight += 1;
        if !now.evicted {
            self.all_in_flight.fetch_add(1, Relaxed);
        }
        now.served = true;
        now.head_began = None;
        now.next_answer += 1;
        InFlight { activity: Arc::clone(self), id: now.next_answer }
    }

    fn received(&self, bytes: &[u8]) {
        let mut now = self.now();
        let moment = Instant::now();
        if now.last.is_none() {
            // RFC 9113 section 3.4: the connection preface.
            now.http2 = bytes.starts_with(b"PRI ");
        }
        now.last = Some(moment);
        if now.in_flight == 0 && now.head_began.is_none() {
            now.head_began = Some(moment);
        }
    }

    /// Until when the next byte may take to come, and what is wrong then; nothing is, while a request is in flight: then it
    /// is when to look again, since the end of an answer does not wake the reader.
    fn read_deadline(&self) -> (Instant, Option<Closed>) {
        let now = self.now();
        match (&*now, now.head_began, now.last) {
            (Now { in_flight: 1.., .. }, ..) => {
                let stalled = now.waiting.values().min().map(|&since| since + WRITE);
                let look = Instant::now() + LOOK;
                stalled.filter(|&at| at <= look).map_or((look, None), |at| (at, Some(Closed::WriteTimeout)))
            }
            // Idle HTTP/2 connections are pinged by their clients: bytes of a head and of a ping look alike here.
            (Now { http2: true, .. }, _, Some(last)) => (last + IDLE, Some(Closed::IdleTimeout)),
            (_, Some(began), _) => (began + HEAD, Some(Closed::HeadTimeout)),
            (_, None, Some(last)) => (last + IDLE, Some(Closed::IdleTimeout)),
            (_, None, None) => (self.opened + FIRST_BYTE, Some(Closed::FirstByteTimeout)),
        }
    }
}

impl InFlight {
    /// An HTTP/2 answer waits for its client to take more of it (`true`), or for us to make more of it.
    pub(super) fn waits_for_client(&self, waits: bool) {
        let mut now = self.activity.now();
        if waits {
            now.waiting.insert(self.id, Instant::now());
        } else {
            now.waiting.remove(&self.id);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut now = self.activity.now();
        now.waiting.remove(&self.id);
        now.in_flight -= 1;
        if !now.evicted {
            self.activity.all_in_flight.fetch_sub(1, Relaxed);
        }
        now.last = Some(Instant::now());
    }
}

/// The socket, with a clock on reads and writes that do not come forward.
pub(super) struct Clocked {
    stream: TcpStream,
    activity: Arc<Activity>,
    reading: Option<Pin<Box<Sleep>>>,
    writing: Option<Pin<Box<Sleep>>>,
}

impl Clocked {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity, reading: None, writing: None }
    }

    /// A read that waits: nothing, or the end of its time.
    fn wait_to_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let (at, why) = self.activity.read_deadline();
            let timer = self.reading.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if timer.deadline() != at && (why.is_some() || timer.is_elapsed()) {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(cx));
            if let Some(why) = why {
                return Poll::Ready(self.timed_out(why));
            }
        }
    }

    /// A write's outcome; one that waits too long is an error.
    fn clocked<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.writing = None;
            return polled;
        }
        let timer = self.writing.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + WRITE)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(self.timed_out(Closed::WriteTimeout)))
    }

    fn timed_out(&self, why: Closed) -> io::Error {
        self.activity.end(why);
        io::ErrorKind::TimedOut.into()
    }
}

impl AsyncRead for Clocked {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Pending => self.wait_to_read(cx).map(Err),
            ready => {
                let bytes = &buf.filled()[before..];
                if !bytes.is_empty() {
                    self.activity.received(bytes);
                }
                self.reading = None;
                ready
            }
        }
    }
}

impl AsyncWrite for Clocked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.clocked(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.clocked(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.clocked(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Why hyper gave a connection up.
pub(super) fn reason(error: &(dyn StdError + Send + Sync + 'static)) -> Closed {
    let Some(hyper) = error.downcast_ref::<hyper::Error>() else { return Closed::ClientGone };
    let of_io = hyper.source().is_some_and(|source| source.is::<io::Error>());
    match () {
        () if hyper.is_parse_too_large() => Closed::HeadTooLarge,
        () if hyper.is_parse() => Closed::BadHead,
        () if of_io || hyper.is_incomplete_message() || hyper.is_canceled() || hyper.is_closed() => Closed::ClientGone,
        () => Closed::ProtocolError,
    }
}

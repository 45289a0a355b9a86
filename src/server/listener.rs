//! The sockets: accepting connections, and letting go of them at the end.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo, http::Version};
use futures_util::future::join_all;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use rustix::process::{Resource, getrlimit};
use socket2::{SockFilter, SockRef};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tower::ServiceExt;

use super::{
    AppState,
    answer::Answer,
    connection::{Clocked, reason},
    lifecycle::Phase,
    places::{Place, Places},
};
use crate::{
    error::clipped,
    metrics::{Closed, Metrics},
};

/// Connections held at once where `--max-connections` is `auto` and enough files may be open.
pub const MOST_CONNECTIONS: usize = 8192;

/// Connections of the admin listener.
const ADMIN_CONNECTIONS: usize = 128;

/// Open files kept for all but connections: libraries, the model, the log, the admin listener.
const OTHER_FILES: usize = 320;

/// The largest head of a request, in bytes, which also bounds what is read ahead of a body.
const LARGEST_HEAD: usize = 32 << 10;

/// Bytes of one HTTP/2 answer that are buffered for a client that does not read.
const SEND_BUFFER: usize = 64 << 10;

/// How often an HTTP/2 client with a request in flight is asked whether it is still there.
const PING: Duration = Duration::from_secs(75);

/// After an accept that failed for want of descriptors or memory: trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the server listens on after the last request in flight.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How long answers that are being written at the very end may take.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// A socket that connections come through.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    /// Whether another process holds it too (systemd), so that it outlives this one.
    shared: bool,
}

impl Listener {
    /// A socket that is there before this process and after it.
    pub fn shared(socket: TcpListener) -> Self {
        Self { socket, shared: true }
    }

    /// Its address.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        Self { socket, shared: false }
    }
}

/// Serves each router on its listener until `stop` resolves and the drain is over.
///
/// From `stop` on readiness is off; for the time that it resolves to everything is still served; then new work is refused
/// while what is in flight finishes, at the latest until the drain timeout, counted from `stop`.
pub async fn serve(doors: Vec<(Listener, Router)>, state: Arc<AppState>, stop: impl Future<Output = Duration>) {
    let places = Places::new(state.config.max_connections.or_else(most_connections));
    let open = |router| Connections::new(router, Arc::clone(&places), Arc::clone(&state.metrics));
    let doors = Doors(doors.into_iter().map(|(listener, router)| (listener, open(router))).collect());
    let drain_delay = tokio::select! {
        () = doors.accept() => Duration::ZERO,
        drain_delay = stop => drain_delay,
    };
    if state.lifecycle.phase() == Phase::Starting {
        // Nothing was taken that would have to be finished.
        return;
    }
    let end = Instant::now() + state.config.drain_timeout;
    state.lifecycle.enter(Phase::Draining);
    tracing::info!(
        drain_delay_ms = drain_delay.as_millis() as u64,
        drain_timeout_ms = state.config.drain_timeout.as_millis() as u64,
        "draining"
    );
    tokio::select! {
        () = doors.accept() => {}
        () = sleep_until(end.min(Instant::now() + drain_delay)) => {}
    }
    state.lifecycle.enter(Phase::Refusing);
    // Connections stay open and are accepted while requests are in flight: who comes now is told to go.
    state.requests.close();
    tokio::select! {
        () = doors.accept() => {}
        done = timeout_at(end, state.requests.wait()) => {
            if done.is_err() {
                tracing::warn!("the drain timed out; requests in flight are cut off");
            }
        }
    }
    // Requests on their way are still heard, on connections that are there or are just being made. New ones are
    // not made any more: those that wait unaccepted when a listener closes are reset, with what was sent on them.
    // A shared one is not closed: what waits there is the next process's.
    for (listener, _) in doors.0.iter().filter(|(listener, _)| !listener.shared) {
        if let Err(error) = ignore_new_connections(listener) {
            tracing::warn!(%error, "connections made at the very end may be reset");
        }
    }
    tokio::select! {
        () = doors.accept() => {}
        () = sleep_until(end.min(Instant::now() + LAST_WORDS)) => {}
    }
    let _ = timeout_at(end.min(Instant::now() + LAST_ANSWERS), doors.shut()).await;
    let _ = timeout_at(end, state.stop()).await;
}

/// As many connections as open files allow.
fn most_connections() -> usize {
    let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
    files.map_or(MOST_CONNECTIONS, |files| files.saturating_sub(OTHER_FILES).clamp(64, MOST_CONNECTIONS))
}

/// The listeners, each with the connections that came through it.
struct Doors(Vec<(Listener, Connections)>);

impl Doors {
    /// Accepts connections for as long as it is polled.
    async fn accept(&self) {
        join_all(self.0.iter().map(|(listener, connections)| connections.accept(listener))).await;
    }

    /// Closes the listeners and waits for the connections.
    async fn shut(self) {
        let connections = self.0.into_iter().map(|(_, connections)| connections);
        join_all(connections.map(|connections| connections.graceful.shutdown())).await;
    }
}

/// Makes the kernel drop every SYN that comes to the listener, so that its backlog runs empty. Handshakes under
/// way go on. Who is left out tries again a second later (RFC 6298) and finds the port closed.
fn ignore_new_connections(listener: &Listener) -> io::Result<()> {
    // Classic BPF (Linux Documentation/networking/filter.rst) over the segment from its TCP header on.
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    SockRef::from(&listener.socket).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// Serves `router` on `listener` for as long as it is polled: to the end of the drain, since probes are watched until
/// then. It has places of its own: what fills the other listeners leaves them free.
pub async fn serve_admin(listener: Listener, router: Router, metrics: Arc<Metrics>) {
    Connections::new(router, Places::new(ADMIN_CONNECTIONS), metrics).accept(&listener).await;
}

/// The connections that are open.
struct Connections {
    router: Router,
    http: auto::Builder<TokioExecutor>,
    graceful: GracefulShutdown,
    places: Arc<Places>,
    metrics: Arc<Metrics>,
}

impl Connections {
    fn new(router: Router, places: Arc<Places>, metrics: Arc<Metrics>) -> Self {
        let mut http = auto::Builder::new(TokioExecutor::new());
        // Waiting is bounded by `Clocked`, which also covers what hyper's own timeout leaves out.
        http.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(LARGEST_HEAD);
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .max_concurrent_streams(256)
            .max_header_list_size(LARGEST_HEAD as u32)
            .max_send_buf_size(SEND_BUFFER);
        Self { router, http, graceful: GracefulShutdown::new(), places, metrics }
    }

    /// Accepts connections for as long as it is polled.
    async fn accept(&self, listener: &Listener) {
        loop {
            match listener.socket.accept().await {
                Ok((stream, address)) => match self.places.enter(address.ip()) {
                    Some(place) => self.spawn(stream, address, place),
                    None => self.metrics.connection_closed(Closed::Refused),
                },
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream, address: SocketAddr, place: Place) {
        // Answers are small and whole: waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let activity = Arc::clone(&place.activity);
        let (router, of_request) = (self.router.clone(), Arc::clone(&activity));
        let places = Arc::clone(&self.places);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let in_flight = of_request.begin();
            places.make_room();
            let http2 = request.version() >= Version::HTTP_2;
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Arc::clone(&of_request));
            request.extensions_mut().insert(ConnectInfo(address));
            let answering = router.clone().oneshot(request);
            async move { Ok::<_, Infallible>(answering.await?.map(|body| Answer::new(body, in_flight, http2))) }
        });
        let socket = TokioIo::new(Clocked::new(stream, Arc::clone(&activity)));
        let connection = self.graceful.watch(self.http.serve_connection(socket, service).into_owned());
        let metrics = Arc::clone(&self.metrics);
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = connection => ended,
                () = activity.closing() => Ok(()),
            };
            let why = activity.why();
            let why = why.unwrap_or_else(|| ended.as_ref().map_or_else(|error| reason(&**error), |()| Closed::Done));
            metrics.connection_closed(why);
            if let Err(error) = ended {
                // A client that breaks off is no failure of ours.
                tracing::debug!(reason = why.as_str(), error = clipped(&error.to_string()), "a connection ended early");
            }
            drop(place);
        });
    }
}

/// Errors of `accept` that belong to the connection that was to be accepted, not to the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

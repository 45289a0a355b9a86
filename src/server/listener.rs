//! The sockets: accepting connections, and letting go of them at the end.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, Request},
};
use futures_util::future::join_all;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use socket2::{SockFilter, SockRef};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tower::ServiceExt;

use super::{AppState, lifecycle::Phase};

/// Longest time that a request's head may take to arrive: a connection that trickles or idles is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// Connections held at once; further ones wait in the kernel's backlog.
const MOST_CONNECTIONS: usize = 8192;

/// After an accept that failed for want of descriptors or memory: trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the server listens on after the last request in flight.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How long answers that are being written at the very end may take.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Serves each router on its listener until `stop` resolves and the drain is over.
///
/// From `stop` on readiness is off; for the time that it resolves to everything is still served; then new work is refused
/// while what is in flight finishes, at the latest until the drain timeout, counted from `stop`.
pub async fn serve(doors: Vec<(TcpListener, Router)>, state: Arc<AppState>, stop: impl Future<Output = Duration>) {
    let doors = Doors(doors.into_iter().map(|(listener, router)| (listener, Connections::new(router))).collect());
    let drain_delay = tokio::select! {
        () = doors.accept() => Duration::ZERO,
        drain_delay = stop => drain_delay,
    };
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
    for (listener, _) in &doors.0 {
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

/// The listeners, each with the connections that came through it.
struct Doors(Vec<(TcpListener, Connections)>);

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
fn ignore_new_connections(listener: &TcpListener) -> io::Result<()> {
    // Classic BPF (Linux Documentation/networking/filter.rst) over the segment from its TCP header on.
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// Serves `router` on `listener` for as long as it is polled: to the end of the drain, which is when the probes are
/// watched.
pub async fn serve_admin(listener: TcpListener, router: Router) {
    Connections::new(router).accept(&listener).await;
}

/// The connections that are open.
struct Connections {
    router: Router,
    http: auto::Builder<TokioExecutor>,
    graceful: GracefulShutdown,
    places: Arc<Semaphore>,
}

impl Connections {
    fn new(router: Router) -> Self {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        http.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_TIMEOUT).max_concurrent_streams(256);
        Self { router, http, graceful: GracefulShutdown::new(), places: Arc::new(Semaphore::new(MOST_CONNECTIONS)) }
    }

    /// Accepts connections for as long as it is polled.
    async fn accept(&self, listener: &TcpListener) {
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => self.spawn(stream, peer, place),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream, peer: SocketAddr, place: impl Send + 'static) {
        // Answers are small and whole: waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let router = self.router.clone();
        let service = TowerToHyperService::new(tower::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            router.clone().oneshot(request)
        }));
        let connection = self.http.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = self.graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                // A client that breaks off is no failure of ours.
                tracing::debug!(error, "a connection ended early");
            }
        });
    }
}

/// Errors of `accept` that belong to the connection that was to be accepted, not to the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

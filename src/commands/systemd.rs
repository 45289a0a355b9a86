//! What systemd and the service tell each other: sockets that systemd opened (sd_listen_fds(3)), readiness, the drain and
//! the watchdog (sd_notify(3)). Outside systemd all of it does nothing.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::{net::TcpListener, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    app::App,
    server::{Listener, lifecycle::Phase},
};

/// Listeners that systemd opened, by `FileDescriptorName=`: `http`, `grpc`, `admin`.
#[derive(Debug)]
pub(super) struct Passed(Vec<(String, std::net::TcpListener)>);

impl Passed {
    /// Takes them over.
    ///
    /// # Errors
    /// One line for the operator: a socket with another name.
    pub(super) fn take_over() -> Result<Self, anyhow::Error> {
        let passed = sd_listen_fds::get().map_err(|error| anyhow::anyhow!("LISTEN_FDS: {error}"))?;
        let listener = |(name, descriptor): (Option<String>, sd_listen_fds::OwnedFd)| {
            // A unit with one socket need not name it.
            let name = name.filter(|name| !name.is_empty() && name != "unknown").unwrap_or_else(|| "http".into());
            anyhow::ensure!(
                ["http", "grpc", "admin"].contains(&&*name),
                "systemd passes a socket named {name}; its FileDescriptorName= is http, grpc or admin"
            );
            let listener = std::net::TcpListener::from(descriptor.into_std());
            listener.set_nonblocking(true).with_context(|| format!("the socket {name} of systemd"))?;
            Ok((name, listener))
        };
        Ok(Self(passed.into_iter().map(listener).collect::<Result<_, _>>()?))
    }

    /// The socket of this name, else one that is bound to `address`.
    ///
    /// # Errors
    /// One line for the operator: the address cannot be had.
    pub(super) async fn or_bind(&mut self, name: &str, address: SocketAddr) -> Result<Listener, anyhow::Error> {
        let bound = match self.optional(name)? {
            Some(listener) => Ok(listener),
            None => TcpListener::bind(address).await.map(Listener::from),
        };
        bound.with_context(|| format!("cannot listen on {address}{}", if name == "grpc" { " for gRPC" } else { "" }))
    }

    /// The socket of this name, if systemd opened one.
    ///
    /// # Errors
    /// If the runtime does not take it.
    pub(super) fn optional(&mut self, name: &str) -> io::Result<Option<Listener>> {
        let place = self.0.iter().position(|(passed, _)| passed == name);
        place.map(|place| TcpListener::from_std(self.0.swap_remove(place).1).map(Listener::shared)).transpose()
    }
}

/// Tells systemd when the service is ready, when it drains and, where the unit has a watchdog, that it makes progress.
pub(super) fn report(app: &App) -> AbortOnDropHandle<()> {
    let state = app.state.clone();
    let beat = sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|beat| *beat > Duration::ZERO);
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut phases = state.lifecycle.watch();
        loop {
            let phase = *phases.borrow_and_update();
            match phase {
                Phase::Serving => tell(NotifyState::Ready),
                Phase::Draining | Phase::Refusing => tell(NotifyState::Stopping),
                Phase::Starting => {}
            }
            let changed = async {
                loop {
                    // A start that takes minutes is progress, a session that hangs is none.
                    if beat.is_some() && state.liveness().is_ok() {
                        tell(NotifyState::Watchdog);
                    }
                    tokio::select! {
                        changed = phases.changed() => return changed,
                        () = sleep(beat.unwrap_or(Duration::from_secs(3600))) => {}
                    }
                }
            };
            if changed.await.is_err() {
                return;
            }
        }
    }))
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

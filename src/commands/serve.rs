//! `lfm-serve serve`.

use std::{process::ExitCode, sync::Arc};

use tokio::{net::TcpListener, task::spawn_blocking};
use tokio_util::task::AbortOnDropHandle;

use super::systemd::{self, Passed};
use crate::{
    app::{self, App},
    config::ServeConfig,
    model::{Model, SessionOptions, placement_summary},
    server::{self, lifecycle},
    telemetry,
};

pub(super) async fn run(config: ServeConfig) -> Result<ExitCode, anyhow::Error> {
    telemetry::start(&config.log)?.toggle_on_signal()?;
    let stop = lifecycle::stop_signal(config.drain_delay)?;
    let options = SessionOptions::read(&config.model, config.max_batch_size)?;
    let app = App::new(config.clone(), Arc::clone(options.manifest()), options.execution())?;
    let mut passed = Passed::take_over()?;
    let listener = passed.or_bind("http", config.listen).await?;
    let address = listener.local_addr()?;
    let admin = match config.admin_listen {
        Some(admin) => {
            let listener = passed.or_bind("admin", admin).await?;
            let address = listener.local_addr()?;
            Some((address, AbortOnDropHandle::new(tokio::spawn(server::serve_admin(listener, app.admin_router())))))
        }
        None => None,
    };
    let grpc = match config.grpc_listen {
        Some(grpc) => Some(passed.or_bind("grpc", grpc).await?),
        None => passed.optional("grpc")?,
    };
    let grpc_address = grpc.as_ref().map(TcpListener::local_addr).transpose()?;
    let admin_address = admin.as_ref().map(|(address, _)| *address);

    let _told = systemd::report(&app);

    // The probes answer while the sessions warm up.
    let starting = {
        let app = app.clone();
        async move {
            let loading = app.clone();
            let (options, sessions) = spawn_blocking(move || loading.load(options)).await??;
            let (count, batch) = (sessions.len(), sessions.first().map_or(0, |session| session.costs().len()));
            let placement = sessions.first().map(|session| placement_summary(session.nodes()));
            let execution = options.execution().clone();
            app.start(sessions, app::rebuild(options));
            tracing::info!(
                %address,
                grpc_address = grpc_address.map(tracing::field::display),
                admin_address = admin_address.map(tracing::field::display),
                model = app.state.manifest.name,
                digest = app.state.manifest.digest,
                licence_class = app.state.manifest.licence_class,
                provider = execution.provider.name(),
                precision = execution.precision.name(),
                placement,
                sessions = count,
                max_batch_size = batch,
                "ready"
            );
            // Scripts read this line and go on: by now the first request finds a warm model.
            super::print_line(&format!("listening on http://{address}"))?;
            if let Some(address) = grpc_address {
                super::print_line(&format!("listening for gRPC on {address}"))?;
            }
            Ok::<_, anyhow::Error>(())
        }
    };
    let mut serving = Box::pin(app.serve(listener, grpc, stop));
    tokio::select! {
        started = starting => started?,
        () = &mut serving => return Ok(ExitCode::SUCCESS),
    }
    serving.await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

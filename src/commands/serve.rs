//! `lfm-serve serve`.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use tokio::{net::TcpListener, task::spawn_blocking};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    app::{self, App},
    config::ServeConfig,
    http,
    model::{Model, placement_summary},
    shutdown, telemetry,
};

pub(super) async fn run(config: ServeConfig) -> Result<ExitCode, anyhow::Error> {
    telemetry::start(&config.log)?.toggle_on_signal()?;
    let stop = shutdown::stop_signal(config.drain_delay)?;
    let options = app::read_model(&config.model, config.max_batch_size)?;
    let app = App::new(config.clone(), Arc::clone(options.manifest()), options.execution())?;
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    let admin = match config.admin_listen {
        Some(admin) => {
            let listener = TcpListener::bind(admin).await.with_context(|| format!("cannot listen on {admin}"))?;
            let address = listener.local_addr()?;
            Some((address, AbortOnDropHandle::new(tokio::spawn(http::serve_admin(listener, Arc::clone(&app))))))
        }
        None => None,
    };
    let grpc = match config.grpc_listen {
        Some(grpc) => Some(TcpListener::bind(grpc).await.with_context(|| format!("cannot listen on {grpc} for gRPC"))?),
        None => None,
    };
    let grpc_address = grpc.as_ref().map(TcpListener::local_addr).transpose()?;
    let admin_address = admin.as_ref().map(|(address, _)| *address);

    // The probes answer while the sessions warm up.
    let starting = {
        let app = Arc::clone(&app);
        async move {
            let loading = Arc::clone(&app);
            let (options, sessions) = spawn_blocking(move || loading.load(options)).await??;
            let (count, batch) = (sessions.len(), sessions.first().map_or(0, |session| session.costs().len()));
            let placement = sessions.first().map(|session| placement_summary(session.nodes()));
            let execution = options.execution().clone();
            app.start(sessions, app::rebuild(options));
            tracing::info!(
                %address,
                grpc_address = grpc_address.map(tracing::field::display),
                admin_address = admin_address.map(tracing::field::display),
                model = app.manifest.name,
                digest = app.manifest.digest,
                licence_class = app.manifest.licence_class,
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
    let mut doors = vec![(listener, http::router(Arc::clone(&app)))];
    doors.extend(grpc.map(|listener| (listener, http::grpc::router(Arc::clone(&app)))));
    let mut serving = Box::pin(http::serve(doors, app, stop));
    tokio::select! {
        started = starting => started?,
        () = &mut serving => return Ok(ExitCode::SUCCESS),
    }
    serving.await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

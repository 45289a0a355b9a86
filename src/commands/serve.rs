//! `lfm-serve serve`.

use std::{
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{task::spawn_blocking, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use super::systemd::{self, Passed};
use crate::{
    app::{self, App},
    config::ServeConfig,
    keys::KeysFile,
    model::{Model, SessionOptions, placement_summary},
    scheduler::Pool,
    server::{
        self, Listener,
        lifecycle::{self, AtOnce},
    },
    telemetry::{self, Log},
};

/// How long the first lines on standard output may take.
const PRINTING: Duration = Duration::from_secs(1);

pub(super) async fn run(config: ServeConfig) -> Result<ExitCode, anyhow::Error> {
    if let Err(what) = config.check() {
        // As for what clap refuses.
        telemetry::say(&format!("lfm-serve: {what}"));
        return Ok(ExitCode::from(2));
    }
    // First of all: whatever hangs from here on can be ended.
    let at_once = AtOnce::install(config.api_keys_file.is_none())?;
    let log = telemetry::start(&config.log)?;
    let ended = serve(config, &log, at_once).await;
    log.flush();
    ended
}

async fn serve(config: ServeConfig, log: &Log, at_once: AtOnce) -> Result<ExitCode, anyhow::Error> {
    log.toggle_on_signal()?;
    open_more_files();
    let running = Arc::<OnceLock<App>>::default();
    let reload = {
        let running = Arc::clone(&running);
        move || running.get().and_then(|app| app.state.keys.as_ref()).map(KeysFile::reload).is_some()
    };
    let stop = lifecycle::stop_signal(config.drain_delay, reload)?;
    let read = |model| SessionOptions::read(&model, config.max_batch_size);
    let options = config.models().into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let models = options.iter().map(|options| (Arc::clone(options.manifest()), options.execution().clone()));
    let app = App::new(config.clone(), &models.collect::<Vec<_>>())?;
    log.count_dropped_in(app.state.metrics.log_lines_dropped.clone());
    let _ = running.set(app.clone());
    let mut passed = Passed::take_over()?;
    let listener = passed.or_bind("http", config.listen).await?;
    let address = listener.local_addr()?;
    let admin = match config.admin_listen {
        Some(admin) => {
            let listener = passed.or_bind("admin", admin).await?;
            let address = listener.local_addr()?;
            let metrics = Arc::clone(&app.state.metrics);
            Some((
                address,
                AbortOnDropHandle::new(tokio::spawn(server::serve_admin(listener, app.admin_router(), metrics))),
            ))
        }
        None => None,
    };
    let grpc = match config.grpc_listen {
        Some(grpc) => Some(passed.or_bind("grpc", grpc).await?),
        None => passed.optional("grpc")?,
    };
    let grpc_address = grpc.as_ref().map(Listener::local_addr).transpose()?;
    let admin_address = admin.as_ref().map(|(address, _)| *address);

    let _told = systemd::report(&app);

    // The probes answer while the sessions warm up.
    let starting = {
        let app = app.clone();
        async move {
            let loading = app.clone();
            let load = move || options.into_iter().enumerate().map(|(number, one)| loading.load(number, one)).collect();
            let loaded: Vec<_> = spawn_blocking(move || -> Result<_, anyhow::Error> { load() }).await??;
            at_once.loaded();
            // A line for each model.
            for (options, sessions) in &loaded {
                let (manifest, execution) = (options.manifest(), options.execution());
                tracing::info!(
                    %address,
                    grpc_address = grpc_address.map(tracing::field::display),
                    admin_address = admin_address.map(tracing::field::display),
                    model = manifest.name,
                    digest = manifest.digest,
                    licence_class = manifest.licence_class,
                    provider = execution.provider.name(),
                    precision = execution.precision.name(),
                    cuda_graphs = execution.graphs.asked_for().map(tracing::field::display),
                    placement = sessions.first().map(|session| placement_summary(session.nodes())),
                    sessions = sessions.len(),
                    max_batch_size = sessions.first().map_or(0, |session| session.costs().len()),
                    "ready"
                );
            }
            let pool = |(options, sessions)| Pool { sessions, rebuild: app::rebuild(options) };
            app.start(loaded.into_iter().map(pool).collect());
            // Scripts wait for this line: the model is warm by now.
            let mut lines = format!("listening on http://{address}");
            if let Some(address) = grpc_address {
                lines.push_str(&format!("\nlistening for gRPC on {address}"));
            }
            // A reader that is gone or stuck is no reason not to serve.
            let printing = spawn_blocking(move || super::print_line(&lines));
            match timeout(PRINTING, printing).await {
                Ok(printed) => {
                    if let Err(error) = printed? {
                        tracing::warn!(%error, "standard output cannot be written");
                    }
                }
                Err(_) => tracing::warn!("nobody reads standard output"),
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

/// Raises the limit on open files to what the system allows: each connection is one.
fn open_more_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Where it cannot be raised, fewer connections are held.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

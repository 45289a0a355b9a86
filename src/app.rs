//! Assembly: builds the running service from the configuration. No lower layer uses this module.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, Uri},
};
use clap::ValueEnum;
use tokio_util::task::TaskTracker;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::{
    api,
    audit::Audit,
    config::{ClassRoute, DeclaredConfig, JudgeConfig, ServeConfig, Switch},
    declared::{self, Kind, Source},
    image::Limits,
    judge::{Class, Judge, OperatingPoint, Settings, Verdict, Warning},
    keys::KeysFile,
    metrics::{Identity, Metrics, ModelIdentity, ScoreReference},
    model::{
        Combination, Execution, Manifest, Model, OnnxModel, Provider, SessionOptions, cpus, runtime, start_sessions,
    },
    oip, page,
    scheduler::{Pool, Rebuild, Scheduler, SchedulerConfig},
    served::{Models, Served},
    server::{
        self, AppState, Dialects, Listener, ProblemJson, Route,
        lifecycle::{Lifecycle, Phase},
        probes,
    },
    trace::Traces,
};

/// Error formats of the transports, by path prefix.
const DIALECTS: Dialects = Dialects(&[
    ("/v2", &oip::http::TritonJson),
    ("/inference.", &oip::grpc::GrpcStatus),
    ("/grpc.", &oip::grpc::GrpcStatus),
]);

/// Rotated parts of the decision log that are kept.
const AUDIT_PARTS: usize = 10;

/// All routes over HTTP.
pub fn routes() -> impl Iterator<Item = &'static Route> {
    [api::ROUTES, probes::ROUTES, page::ROUTES, oip::http::ROUTES].into_iter().flatten()
}

/// (route, method, statuses) of every series of the HTTP routes with a known method.
pub fn series() -> impl Iterator<Item = (&'static str, &'static str, Vec<u16>)> {
    let ours = [api::ROUTES, probes::ROUTES, page::ROUTES];
    let ours = ours.into_iter().flat_map(|routes| server::series(routes, &ProblemJson));
    ours.chain(server::series(oip::http::ROUTES, &oip::http::TritonJson)).chain([server::unmatched()])
}

/// How a model's logits become verdicts under these settings.
///
/// # Errors
/// One line for the operator: settings that the model does not support.
pub fn judge(manifest: &Manifest, settings: &JudgeConfig) -> Result<Judge, anyhow::Error> {
    let &JudgeConfig { regions, operating_point, threshold } = settings;
    let settings = Settings { regions, operating_point, threshold };
    Judge::new(manifest.rules.clone(), manifest.preprocessing, settings).map_err(anyhow::Error::msg)
}

/// The models that are served, and which class of file goes to which.
///
/// # Errors
/// One line for the operator: settings that a model does not support, models or routes that do not fit each other.
pub fn models(
    manifests: impl IntoIterator<Item = Arc<Manifest>>,
    settings: &JudgeConfig,
    routes: &[ClassRoute],
) -> Result<Models, anyhow::Error> {
    Models::new(served(manifests, settings)?, routes).map_err(anyhow::Error::msg)
}

/// The models that judge every image together.
///
/// # Errors
/// One line for the operator: a combination that cannot be read or is of other models, settings that it cannot follow.
pub fn combined(
    manifests: impl IntoIterator<Item = Arc<Manifest>>,
    settings: &JudgeConfig,
    file: &Path,
) -> Result<Models, anyhow::Error> {
    let combination = Combination::read(file)?;
    // What decides is the combination's; a model's own rules say only on how many regions it runs.
    let own = JudgeConfig { regions: settings.regions, ..JudgeConfig::default() };
    let judge = |manifest: &Manifest| judge(manifest, settings).map_err(|error| error.to_string());
    let models = Models::combined(served(manifests, &own)?, &combination, judge);
    models.map_err(|reason| anyhow::anyhow!("--combine {}: {reason}", file.display()))
}

/// The models of a service under its settings.
///
/// # Errors
/// As [`models`] and [`combined`].
pub fn configured(
    manifests: impl IntoIterator<Item = Arc<Manifest>>,
    config: &ServeConfig,
) -> Result<Models, anyhow::Error> {
    match &config.combine {
        Some(file) => combined(manifests, &config.judge, file),
        None => models(manifests, &config.judge, &config.route),
    }
}

fn served(
    manifests: impl IntoIterator<Item = Arc<Manifest>>,
    settings: &JudgeConfig,
) -> Result<Vec<Served>, anyhow::Error> {
    let served = manifests.into_iter().map(|manifest| {
        let judge = judge(&manifest, settings).with_context(|| format!("the model {}", manifest.name))?;
        Ok(Served { manifest, judge })
    });
    served.collect()
}

/// What reads what files say of themselves, unless it is switched off.
///
/// # Errors
/// One line for the operator: a trust list that cannot be read.
pub fn declared(settings: &DeclaredConfig) -> Result<Option<Arc<declared::Reader>>, anyhow::Error> {
    if settings.declared == Switch::Off {
        return Ok(None);
    }
    let path = settings.c2pa_trust.as_deref();
    let named = || path.map(|path| format!("--c2pa-trust {}", path.display())).unwrap_or_default();
    let trust = path.map(std::fs::read_to_string).transpose().with_context(named)?;
    let reader = declared::Reader::new(settings.declared_detail, trust.as_deref())
        .map_err(anyhow::Error::msg)
        .with_context(named)?;
    Ok(Some(Arc::new(reader)))
}

/// The metrics' constant facts about the models.
pub fn identity(models: &Models) -> Identity<'_> {
    Identity {
        models: models.all().iter().map(model_identity).collect(),
        combination: models.combination().map(model_identity),
        ort_version: runtime::VERSION,
        providers: Provider::ALL.map(Provider::name).to_vec(),
        verdicts: Verdict::ALL.map(Verdict::as_str).to_vec(),
        warnings: Warning::ALL.map(Warning::as_str).to_vec(),
        classes: Class::ALL.map(Class::as_str).to_vec(),
        declared: [Source::ALL.map(Source::as_str).to_vec(), Kind::ALL.map(Kind::as_str).to_vec()],
    }
}

fn model_identity(Served { manifest, judge }: &Served) -> ModelIdentity<'_> {
    ModelIdentity {
        name: &manifest.name,
        version: &manifest.version,
        digest: &manifest.digest,
        rules: judge.digest(),
        judging: judging(judge),
        reference: manifest.val_score_histogram.as_ref().map(|scores| ScoreReference {
            edges: &scores.edges,
            real: &scores.real,
            fake: &scores.fake,
        }),
    }
}

/// The settings that decide verdicts. What does not decide is empty, which Prometheus takes for no label.
fn judging(judge: &Judge) -> [(&'static str, String); 4] {
    let point = judge.operating_point();
    let share = |of: fn(OperatingPoint) -> f64| point.map(|point| of(point).to_string()).unwrap_or_default();
    let regions = judge.settings().regions.to_possible_value().map(|value| value.get_name().to_owned());
    [
        ("threshold", if point.is_none() { judge.threshold().to_string() } else { String::new() }),
        ("false_alarms", share(|point| point.false_alarms)),
        ("misses", share(|point| point.misses)),
        ("regions", regions.unwrap_or_default()),
    ]
}

/// One service. Several can run in one process.
#[derive(Debug, Clone)]
pub struct App {
    /// State of the handlers.
    pub state: Arc<AppState>,
    declared: Option<Arc<declared::Reader>>,
    cors: Option<CorsLayer>,
}

impl App {
    /// An app that is not ready yet: probes and metrics answer, work is refused until [`App::start`].
    ///
    /// # Errors
    /// One line for the operator: models that do not fit each other or the settings, an API keys file or a collector's
    /// address that cannot be used.
    pub fn new(config: ServeConfig, models: &[(Arc<Manifest>, Execution)]) -> Result<Self, anyhow::Error> {
        let calls = config.grpc_listen.map_or(&[][..], |_| oip::grpc::ROUTES);
        let series = series().chain(server::series(calls, &oip::grpc::GrpcStatus));
        let manifests = models.iter().map(|(manifest, _)| Arc::clone(manifest));
        let served = configured(manifests, &config)?;
        let metrics = Arc::new(Metrics::new(&identity(&served), series)?);
        for (number, (_, execution)) in models.iter().enumerate() {
            metrics.runs_on(number, execution.provider.name(), execution.precision.name());
        }
        let keys = config.api_keys_file.as_deref().map(KeysFile::open).transpose()?;
        let audit = config.audit_log.as_deref().map(|path| {
            Audit::open(path, config.audit_log_max_bytes.as_u64(), AUDIT_PARTS, metrics.audit_lines.clone())
                .with_context(|| format!("--audit-log {}", path.display()))
        });
        let audit = audit.transpose()?;
        let cors = cors(&config.cors_origin)?;
        let declared = declared(&config.declared)?;
        let digests = served.all().iter().map(|served| served.manifest.digest.as_str());
        let digests = digests.collect::<Vec<_>>().join(",");
        let traces = config.otlp_endpoint.as_deref().map(|url| Traces::new(url, &digests)).transpose()?;
        let state = AppState {
            config,
            models: Arc::new(served),
            metrics,
            lifecycle: Lifecycle::default(),
            requests: TaskTracker::new(),
            keys,
            traces,
            audit,
            dialects: DIALECTS,
            scheduler: Default::default(),
        };
        Ok(Self { state: Arc::new(state), declared, cors })
    }

    /// Builds and warms up the sessions of the model of this number and reports their provider in the metrics; blocks.
    ///
    /// # Errors
    /// One line for the operator.
    pub fn load(
        &self,
        model: usize,
        options: SessionOptions,
    ) -> Result<(SessionOptions, Vec<OnnxModel>), anyhow::Error> {
        let (options, sessions) = start_sessions(options)?;
        let (metrics, execution) = (&self.state.metrics, options.execution());
        metrics.runs_on(model, execution.provider.name(), execution.precision.name());
        for tried in execution.availability(options.config())? {
            metrics.provider(tried.provider.name(), tried.refusal.is_none());
        }
        Ok((options, sessions))
    }

    /// Starts the scheduler on the models' sessions, in their order; from then on requests are accepted.
    pub fn start<M: Model>(&self, pools: Vec<Pool<M>>) {
        let settings = &self.state.config;
        let sessions = pools.iter().map(|pool| pool.sessions.len()).max();
        let config = SchedulerConfig {
            max_in_flight: settings.max_in_flight(sessions.unwrap_or(0)),
            max_admitted_bytes: settings.max_admitted_bytes.as_u64(),
            max_queue_delay: settings.max_queue_delay,
            cpus: cpus(),
            // A decode estimated to exceed every request's deadline is refused.
            limits: Limits { max_cost: settings.request_timeout, ..settings.limits.image() },
            hash_pixels: false,
            declared: self.declared.clone(),
        };
        let started = Scheduler::start(config, pools, Arc::clone(&self.state.metrics));
        if self.state.scheduler.set(started).is_ok() {
            self.state.lifecycle.enter(Phase::Serving);
        }
    }

    /// The HTTP service as a router, without a socket.
    pub fn router(&self) -> Router {
        let state = &self.state;
        let probes = if state.config.admin_listen.is_some() { probes::bare() } else { probes::router() };
        let routes = api::router(state).merge(probes).merge(oip::http::router(state)).merge(page::router());
        let router = server::layered(routes, Arc::clone(state));
        // Outermost: a preflight carries no key.
        self.cors.clone().map_or(router.clone(), |cors| router.layer(cors))
    }

    /// The gRPC service as a router, without a socket.
    pub fn grpc_router(&self) -> Router {
        server::layered(oip::grpc::router(&self.state), Arc::clone(&self.state))
    }

    /// The routes of `--admin-listen`: probes and metrics only.
    pub fn admin_router(&self) -> Router {
        server::layered(probes::router(), Arc::clone(&self.state))
    }

    /// Serves HTTP, and gRPC if it has a listener, until `stop` resolves and the drain is over.
    pub async fn serve(&self, http: Listener, grpc: Option<Listener>, stop: impl Future<Output = std::time::Duration>) {
        let grpc = grpc.map(|listener| (listener, self.grpc_router()));
        let doors = [(http, self.router())].into_iter().chain(grpc).collect();
        server::serve(doors, Arc::clone(&self.state), stop).await;
    }
}

/// The CORS layer, which lets pages of other origins read answers.
fn cors(origins: &[String]) -> Result<Option<CorsLayer>, anyhow::Error> {
    if origins.is_empty() {
        return Ok(None);
    }
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(["x-request-id", "retry-after"].map(HeaderName::from_static))
        .max_age(std::time::Duration::from_secs(3600));
    if origins == ["*"] {
        return Ok(Some(layer.allow_origin(AllowOrigin::any())));
    }
    let exact = |origin: &String| {
        let uri: Option<Uri> = origin.parse().ok();
        let whole = uri.is_some_and(|uri| {
            uri.scheme().zip(uri.authority()).is_some_and(|(scheme, host)| *origin == format!("{scheme}://{host}"))
        });
        anyhow::ensure!(whole, "--cors-origin {origin}: an origin is scheme://host[:port], or a single `*`");
        Ok(HeaderValue::from_str(origin)?)
    };
    let origins = origins.iter().map(exact).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(layer.allow_origin(origins)))
}

/// How a failed session is replaced.
pub fn rebuild(options: SessionOptions) -> Rebuild<OnnxModel> {
    Arc::new(move || OnnxModel::start(&options).map_err(|error| error.to_string()))
}

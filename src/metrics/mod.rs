//! Every metric of the service, in one struct: a field's doc comment is the same sentence as its Prometheus help.
//!
//! A `Metrics` owns its registry, so several apps can run in one process. Every series whose labels are known in
//! advance exists from the start, so that dashboards have no gaps.

mod identity;
mod labels;
mod register;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

pub use identity::{Identity, ModelIdentity, ScoreReference};
pub use labels::{Closed, Outcome, Release, Stage};

use self::register::Register;
use crate::{error::Code, timings::Timings};

/// Bucket bounds of scores, as in the manifest's histogram.
fn scores() -> Vec<f64> {
    (1..=20).map(|i| f64::from(i) / 20.0).collect()
}

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of one app.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests answered, by route template, method and status.
    pub http_requests: IntCounterVec,
    /// Seconds from a request's head to its answer, by route template.
    pub http_request_duration: HistogramVec,
    /// Errors answered, by code.
    pub errors: IntCounterVec,
    warnings: IntCounterVec,
    images: IntCounterVec,
    key_images: IntCounterVec,
    verdicts: IntCounterVec,
    evidence: IntCounterVec,
    declared: IntCounterVec,
    model_images: Vec<IntCounter>,
    regions: Histogram,
    /// Scores given, by judging model (one if they are combined): the distribution shifts when the uploads or the forgeries do.
    score: Vec<Histogram>,
    stage_duration: HistogramVec,
    /// Lines of the decision log, by outcome: `written` or `dropped`.
    pub audit_lines: IntCounterVec,
    /// Images in a batch.
    pub batch_size: Histogram,
    batches: IntCounterVec,
    /// Images that wait, for a decoder or for a session.
    pub queue_images: IntGauge,
    /// Images admitted and not yet answered.
    pub images_in_flight: IntGauge,
    /// Bytes of request bodies held.
    pub admitted_bytes: IntGauge,
    /// Bytes of memory reserved by decodes that have begun.
    pub decode_bytes: IntGauge,
    key_share: GaugeVec,
    /// Sessions that can run a batch.
    pub sessions: IntGauge,
    model_info: Vec<IntGaugeVec>,
    execution_provider_available: IntGaugeVec,
    session_busy_seconds: prometheus::Counter,
    connections_closed: IntCounterVec,
    /// Lines that the log could not write in time.
    pub log_lines_dropped: IntCounter,
    /// By the model's number.
    runs: Vec<Mutex<Runs>>,
}

/// Figures of the Open Inference Protocol's statistics that histograms do not hold exactly: batches by size, and the
/// stage times of scored images, updated together so that their counts always agree.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    /// Images judged.
    pub images: u64,
    /// Their time in the stages.
    pub stages: Timings,
    /// Their total time from the request's head to the answer.
    pub total: Duration,
    /// By number of images: how many batches, and their total run time.
    pub by_size: BTreeMap<usize, (u64, Duration)>,
    /// When the last one ended.
    pub last: Option<SystemTime>,
}

impl Metrics {
    /// Creates and registers all metrics. `routes` are the existing (template, method) pairs, each with all its
    /// possible statuses.
    ///
    /// # Errors
    /// If two metrics share a name: a mistake in this file.
    pub fn new(
        identity: &Identity<'_>,
        routes: impl IntoIterator<Item = (&'static str, &'static str, Vec<u16>)>,
    ) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let add = Register(&registry);
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;

        add.info(
            "lfm_build_info",
            "Version, revision and ONNX Runtime of this server; always 1.",
            &[
                ("version", env!("CARGO_PKG_VERSION")),
                ("revision", crate::REVISION),
                ("ort_version", identity.ort_version),
            ],
        )?;
        if let Some(ModelIdentity { name, version, digest, rules, .. }) = &identity.combination {
            add.info(
                "lfm_combination_info",
                "The combination of the models that judges; always 1.",
                &[("combination", name), ("version", version), ("digest", digest), ("rules", rules)],
            )?;
        }
        // Of combined models none gives a verdict of its own.
        let judges = identity.combination.as_ref().map_or(&identity.models[..], std::slice::from_ref);
        let several = judges.len() > 1;
        for model in judges {
            let judging = model.judging.iter().map(|(name, value)| (*name, value.as_str()));
            // Of one model `lfm_model_info` has the name.
            let labels: Vec<_> = judging.chain(several.then_some(("model", model.name))).collect();
            add.info("lfm_judge_info", "How verdicts are given unless a caller asks otherwise; always 1.", &labels)?;
        }
        let mut score = Vec::with_capacity(judges.len());
        for model in judges {
            let scores = |name: &str, help: &str| {
                let opts = HistogramOpts::new(name, help).buckets(scores());
                if several { opts.const_label("model", model.name) } else { opts }
            };
            let given = scores("lfm_score", "Scores given (probability of fake), for drift.");
            score.push(add.register(Histogram::with_opts(given)?)?);
            let Some(reference) = &model.reference else { continue };
            let reference_scores = scores(
                "lfm_score_reference",
                "Scores of the model's validation images, by their true class, counted at the middle of their bin; constant.",
            );
            let histogram = add.register(HistogramVec::new(reference_scores, &["class"])?)?;
            for (class, counts) in [("real", reference.real), ("fake", reference.fake)] {
                let series = histogram.with_label_values(&[class]);
                for (bin, &count) in reference.edges.windows(2).zip(counts) {
                    let middle = (bin[0] + bin[1]) / 2.0;
                    (0..count).for_each(|_| series.observe(middle));
                }
            }
        }

        let metrics = Self {
            http_requests: add.counters(
                "lfm_http_requests_total",
                "Requests answered, by route template, method and status.",
                &["route", "method", "status"],
            )?,
            http_request_duration: add.histograms(
                "lfm_http_request_duration_seconds",
                "Seconds from a request's head to its answer, by route template.",
                &["route"],
            )?,
            errors: add.counters("lfm_errors_total", "Errors answered, by code.", &["code"])?,
            warnings: add.counters("lfm_warnings_total", "Warnings given with a verdict.", &["warning"])?,
            images: add.counters("lfm_images_total", "Images received, by outcome.", &["outcome"])?,
            key_images: add.counters(
                "lfm_key_images_total",
                "Images received with an API key, by the key's name in the keys file and by outcome.",
                &["key", "outcome"],
            )?,
            verdicts: add.counters("lfm_verdicts_total", "Verdicts given.", &["verdict"])?,
            evidence: add.counters(
                "lfm_evidence_total",
                "Verdicts given by a model with evidence, by class of file.",
                &["class", "verdict"],
            )?,
            declared: add.counters(
                "lfm_declared_total",
                "Claims that judged files make of themselves, by where they stand and what they say.",
                &["source", "kind"],
            )?,
            model_images: identity
                .models
                .iter()
                .map(|model| {
                    let images = Opts::new("lfm_model_images_total", "Images judged, by model.");
                    add.register(IntCounter::with_opts(images.const_label("model", model.name))?)
                })
                .collect::<Result<_, _>>()?,
            regions: add.register(Histogram::with_opts(
                HistogramOpts::new("lfm_regions", "Regions that an image was judged by.")
                    .buckets(vec![1.0, 2.0, 3.0, 4.0, 5.0, 9.0, 16.0]),
            )?)?,
            score,
            audit_lines: add.counters(
                "lfm_audit_lines_total",
                "Lines of the decision log, by whether they were written or dropped.",
                &["outcome"],
            )?,
            stage_duration: add.histograms(
                "lfm_stage_duration_seconds",
                "Seconds that an image spends in a stage.",
                &["stage"],
            )?,
            batch_size: add.register(Histogram::with_opts(
                HistogramOpts::new("lfm_batch_size", "Images in a batch.")
                    .buckets(vec![1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0]),
            )?)?,
            batches: add.counters("lfm_batches_total", "Batches run, by why they were released.", &["reason"])?,
            queue_images: add.gauge("lfm_queue_images", "Images that wait, for a decoder or for a session.")?,
            images_in_flight: add.gauge("lfm_images_in_flight", "Images admitted and not yet answered.")?,
            admitted_bytes: add.gauge("lfm_admitted_bytes", "Bytes of request bodies held.")?,
            decode_bytes: add
                .gauge("lfm_decode_bytes", "Bytes of memory reserved by decodes that have begun.")?,
            key_share: add.register(GaugeVec::new(
                Opts::new(
                    "lfm_key_work_share",
                    "Share of the work of about the last minute, decoding and inference, for the ten API keys with the most.",
                ),
                &["key"],
            )?)?,
            sessions: add.gauge("lfm_sessions", "Sessions that can run a batch.")?,
            model_info: identity
                .models
                .iter()
                .map(|model| {
                    add.register(IntGaugeVec::new(
                        Opts::new("lfm_model_info", "The model that is served; always 1.")
                            .const_label("model", model.name)
                            .const_label("version", model.version)
                            .const_label("digest", model.digest)
                            .const_label("rules", model.rules),
                        &["execution_provider", "precision"],
                    )?)
                })
                .collect::<Result<_, _>>()?,
            execution_provider_available: add.register(IntGaugeVec::new(
                Opts::new("lfm_execution_provider_available", "Whether the execution provider can run here."),
                &["provider"],
            )?)?,
            session_busy_seconds: add.register(prometheus::Counter::new(
                "lfm_session_busy_seconds_total",
                "Seconds that sessions spent running batches, summed over sessions.",
            )?)?,
            connections_closed: add.counters(
                "lfm_connections_closed_total",
                "Connections closed, by why.",
                &["reason"],
            )?,
            log_lines_dropped: add.register(IntCounter::new(
                "lfm_log_lines_dropped_total",
                "Lines of the log that could not be written in time.",
            )?)?,
            runs: identity.models.iter().map(|_| Mutex::default()).collect(),
            registry: registry.clone(),
        };
        metrics.fill(identity, routes);
        Ok(metrics)
    }

    /// Creates every series with known labels.
    fn fill(&self, identity: &Identity<'_>, routes: impl IntoIterator<Item = (&'static str, &'static str, Vec<u16>)>) {
        for (route, method, statuses) in routes {
            self.http_request_duration.with_label_values(&[route]);
            for status in statuses {
                self.http_requests.with_label_values(&[route, method, &status.to_string()]);
            }
        }
        for code in Code::ALL {
            self.errors.with_label_values(&[code.as_str()]);
        }
        for outcome in Outcome::ALL {
            self.images.with_label_values(&[outcome.as_str()]);
        }
        for outcome in ["written", "dropped"] {
            self.audit_lines.with_label_values(&[outcome]);
        }
        for stage in Stage::ALL {
            self.stage_duration.with_label_values(&[stage.as_str()]);
        }
        for reason in Release::ALL {
            self.batches.with_label_values(&[reason.as_str()]);
        }
        for reason in Closed::ALL {
            self.connections_closed.with_label_values(&[reason.as_str()]);
        }
        for provider in &identity.providers {
            self.provider(provider, false);
        }
        for verdict in &identity.verdicts {
            self.verdicts.with_label_values(&[verdict]);
            for class in &identity.classes {
                self.evidence.with_label_values(&[class, verdict]);
            }
        }
        let [sources, kinds] = &identity.declared;
        for (source, kind) in sources.iter().flat_map(|source| kinds.iter().map(move |kind| (source, kind))) {
            self.declared.with_label_values(&[source, kind]);
        }
        for warning in &identity.warnings {
            self.warnings.with_label_values(&[warning]);
        }
    }

    /// One claim of a judged file.
    pub fn declared(&self, source: &str, kind: &str) {
        self.declared.with_label_values(&[source, kind]).inc();
    }

    /// Sets the provider of the model of this number, which may differ from the first choice.
    pub fn runs_on(&self, model: usize, provider: &str, precision: &str) {
        self.model_info[model].reset();
        self.model_info[model].with_label_values(&[provider, precision]).set(1);
    }

    /// Whether an execution provider can run here.
    pub fn provider(&self, name: &str, available: bool) {
        self.execution_provider_available.with_label_values(&[name]).set(available.into());
    }

    /// One request was answered.
    pub fn request(&self, route: &str, method: &str, status: u16, took: Duration) {
        self.http_requests.with_label_values(&[route, method, &status.to_string()]).inc();
        self.http_request_duration.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// One connection was closed.
    pub fn connection_closed(&self, reason: Closed) {
        self.connections_closed.with_label_values(&[reason.as_str()]).inc();
    }

    /// One image's time in a stage.
    pub fn stage(&self, stage: Stage, spent: Duration) {
        self.stage_duration.with_label_values(&[stage.as_str()]).observe(spent.as_secs_f64());
    }

    /// One image was finished. `key` is the name of the valid API key that it came with: the keys file bounds the series,
    /// since what a caller makes up is never counted here.
    pub fn image(&self, outcome: Outcome, key: Option<&str>) {
        self.images.with_label_values(&[outcome.as_str()]).inc();
        if let Some(key) = key {
            self.key_images.with_label_values(&[key, outcome.as_str()]).inc();
        }
    }

    /// One batch ran on the model of this number.
    pub fn batch(&self, model: usize, reason: Release, size: usize, busy: Duration) {
        self.batches.with_label_values(&[reason.as_str()]).inc();
        self.batch_size.observe(size as f64);
        self.session_busy_seconds.inc_by(busy.as_secs_f64());
        let mut runs = self.runs[model].lock().unwrap_or_else(PoisonError::into_inner);
        let (count, spent) = runs.by_size.entry(size).or_default();
        *count += 1;
        *spent += busy;
        runs.last = Some(SystemTime::now());
    }

    /// One image was judged by the models of these numbers, `total` after its request's head.
    pub fn answered(&self, models: impl IntoIterator<Item = usize>, stages: &Timings, total: Duration) {
        self.stage(Stage::Total, total);
        for model in models {
            self.model_images[model].inc();
            let mut runs = self.runs[model].lock().unwrap_or_else(PoisonError::into_inner);
            runs.images += 1;
            runs.stages.decode += stages.decode;
            runs.stages.queue += stages.queue;
            runs.stages.inference += stages.inference;
            runs.total += total;
        }
    }

    /// The runs of the model of this number so far.
    pub fn runs(&self, model: usize) -> Runs {
        self.runs[model].lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Images with this outcome.
    pub fn images(&self, outcome: Outcome) -> u64 {
        self.images.with_label_values(&[outcome.as_str()]).get()
    }

    /// One judgement was made, by the model of this number; a void one has no score.
    pub fn judged(
        &self,
        model: usize,
        verdict: &str,
        score: Option<f64>,
        regions: usize,
        warnings: impl IntoIterator<Item = &'static str>,
    ) {
        self.verdicts.with_label_values(&[verdict]).inc();
        self.regions.observe(regions as f64);
        if let Some(score) = score {
            // Combined models have one series.
            self.score.get(model).unwrap_or(&self.score[0]).observe(score);
        }
        for warning in warnings {
            self.warnings.with_label_values(&[warning]).inc();
        }
    }

    /// Replaces the shares of the keys with the most work: a bounded number.
    pub fn key_shares(&self, shares: &[(Arc<str>, f64)]) {
        self.key_share.reset();
        for (key, share) in shares {
            self.key_share.with_label_values(&[&**key]).set(*share);
        }
    }

    /// One judgement was made by a model with evidence.
    pub fn evidence(&self, class: &str, verdict: &str) {
        self.evidence.with_label_values(&[class, verdict]).inc();
    }

    /// Prometheus text, see [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// If the encoder fails, which it does only on metrics without a name.
    pub fn encode(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

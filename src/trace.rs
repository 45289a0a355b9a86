//! Traces for an OpenTelemetry collector (OTLP over HTTP, protobuf): a span for each request that may contain images,
//! created together with its access line, with child spans for its images' stages. The SDK batches spans on its own
//! thread and drops them when its queue of 2,048 is full: a slow or absent collector does not affect requests.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use opentelemetry::{
    Context, KeyValue,
    propagation::TextMapPropagator,
    trace::{
        Span, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceId, TraceState, Tracer, TracerProvider,
    },
};
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider},
};
use tokio::time::Instant;

use crate::timings::Timings;

/// Timeout of an export.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// Timeout of the last export, at the end of the process.
const LAST_EXPORT: Duration = Duration::from_secs(2);

/// The exporter.
#[derive(Debug, Clone)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// A finished request.
#[derive(Debug)]
pub struct Finished<'a> {
    /// Method and route template.
    pub name: String,
    /// Span attributes.
    pub attributes: Vec<KeyValue>,
    /// Whether the server is at fault.
    pub failed: bool,
    /// When its head was read.
    pub started: Instant,
    /// Start and end of reading the body, if it was read.
    pub read: Option<(Instant, Instant)>,
    /// The images that were judged.
    pub images: &'a [Timings],
}

/// The caller's span (W3C Trace Context), if it sent a valid one. Its `tracestate` is ignored: it is untrusted text.
pub fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
    let span = context.span();
    let given = span.span_context();
    given
        .is_valid()
        .then(|| SpanContext::new(given.trace_id(), given.span_id(), given.trace_flags(), true, TraceState::NONE))
}

impl Traces {
    /// An exporter to the collector at `endpoint`, e.g. `http://127.0.0.1:4318`. OpenTelemetry's own environment
    /// variables set sampling, batch sizes and further resource attributes (`OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`,
    /// `OTEL_RESOURCE_ATTRIBUTES`).
    ///
    /// # Errors
    /// One line for the operator: the endpoint is invalid.
    pub fn new(endpoint: &str, model_digest: &str) -> Result<Self, anyhow::Error> {
        if !endpoint.starts_with("http://") {
            anyhow::bail!("--otlp-endpoint {endpoint}: must begin with http:// (for TLS, run a local collector)");
        }
        let agent = ureq::Agent::config_builder().timeout_global(Some(EXPORT_TIMEOUT)).build().into();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector(agent))
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .build()
            .map_err(|error| anyhow::anyhow!("--otlp-endpoint {endpoint}: {error}"))?;
        let resource = Resource::builder()
            .with_service_name(env!("CARGO_PKG_NAME"))
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("lfm.model.digest", model_digest.to_owned()),
            ])
            .build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        let tracer = provider.tracer(env!("CARGO_PKG_NAME"));
        Ok(Self { provider, tracer })
    }

    /// Records a request, under the caller's span if there is one; returns the trace's id.
    pub fn record(&self, request: Finished, parent: Option<&SpanContext>) -> TraceId {
        let clock = Clock::now();
        let above = parent.map_or_else(Context::new, |span| Context::new().with_remote_span_context(span.clone()));
        let builder = SpanBuilder::from_name(request.name)
            .with_kind(SpanKind::Server)
            .with_start_time(clock.at(request.started))
            .with_attributes(request.attributes);
        let mut span = self.tracer.build_with_context(builder, &above);
        if request.failed {
            span.set_status(Status::error(""));
        }
        let trace = span.span_context().trace_id();
        let context = above.with_span(span);
        if let Some((from, to)) = request.read {
            self.child(&context, clock, "read", from, to);
        }
        for image in request.images {
            let stages = stages(image);
            // A single image's stages are children of the request's span; several images have a span each.
            let of_image = (request.images.len() > 1).then(|| {
                let from = stages.first().map_or(request.started, |stage| stage.1);
                let builder = SpanBuilder::from_name("image").with_start_time(clock.at(from));
                context.with_span(self.tracer.build_with_context(builder, &context))
            });
            for &(name, from, to) in &stages {
                self.child(of_image.as_ref().unwrap_or(&context), clock, name, from, to);
            }
            if let (Some(image), Some(last)) = (of_image, stages.last()) {
                image.span().end_with_timestamp(clock.at(last.2));
            }
        }
        context.span().end_with_timestamp(clock.wall);
        trace
    }

    fn child(&self, context: &Context, clock: Clock, name: &'static str, from: Instant, to: Instant) {
        let builder = SpanBuilder::from_name(name).with_start_time(clock.at(from));
        self.tracer.build_with_context(builder, context).end_with_timestamp(clock.at(to));
    }

    /// Exports the remaining spans; blocks for two seconds at most.
    pub fn finish(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST_EXPORT) {
            tracing::warn!(%error, "the last traces may be lost");
        }
    }
}

/// An image's stages in order: name, start, end. It waits twice, for a decoder and for a session.
fn stages(image: &Timings) -> Vec<(&'static str, Instant, Instant)> {
    let mut stages = Vec::with_capacity(4);
    let mut queue = image.queue;
    let decoded = image.decode_began.map(|began| began + image.decode);
    if let (Some(began), Some(decoded), Some(run)) = (image.decode_began, decoded, image.inference_began) {
        let for_decoder = queue.saturating_sub(run.saturating_duration_since(decoded));
        queue = queue.saturating_sub(for_decoder);
        stages.push(("queue", began.checked_sub(for_decoder).unwrap_or(began), began));
        stages.push(("decode", began, decoded));
    }
    if let Some(run) = image.inference_began {
        stages.push(("queue", decoded.or(run.checked_sub(queue)).unwrap_or(run), run));
        stages.push(("inference", run, run + image.inference));
    }
    stages
}

/// One instant on both clocks: spans use wall-clock time, stages a monotonic clock.
#[derive(Debug, Clone, Copy)]
struct Clock {
    steady: Instant,
    wall: SystemTime,
}

impl Clock {
    fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    fn at(self, moment: Instant) -> SystemTime {
        self.wall - self.steady.saturating_duration_since(moment)
    }
}

/// A blocking client to the collector: the SDK calls it on its own thread.
#[derive(Debug)]
struct Collector(ureq::Agent);

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, mut body) = self.0.run(request.map(|body| body.to_vec()))?.into_parts();
        Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
    }
}

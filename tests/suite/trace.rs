//! Traces, as received by a collector.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use reqwest::multipart::{Form, Part};
use tokio::net::TcpListener;

use crate::{
    fake::Fake,
    harness::{TestApp, picture, run},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// The collector's received data.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let take = async |State(collector): State<Self>, body: Bytes| {
            let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
            collector.0.lock().expect("no panic").push(request);
        };
        let router = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, url)
    }

    fn spans(&self) -> Vec<Span> {
        let sent = self.0.lock().expect("no panic");
        let scopes = sent.iter().flat_map(|request| &request.resource_spans).flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[tokio::test]
async fn a_request_is_a_child_of_its_callers_span_and_its_stages_are_child_spans() {
    let (collector, url) = Collector::start().await;
    let app = TestApp::start(vec![Fake::instant()], &["--otlp-endpoint", &url]).await;
    let request = app.post("/v1/score?external_id=hidden-query").header("x-request-id", "good");
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01")).header("tracestate", "hidden=1");
    assert_eq!(request.header("user-agent", "hidden").body(picture()).send().await.expect("an answer").status(), 200);
    // Probes are not traced.
    assert_eq!(app.get("/livez").await.status(), 200);
    app.stopped().await;

    let spans = collector.spans();
    let [request] = named(&spans, "POST /v1/score")[..] else { panic!("one request in {spans:?}") };
    assert_eq!((hex(&request.trace_id), hex(&request.parent_span_id)), (TRACE.into(), CALLER.into()));
    assert_eq!(request.kind(), SpanKind::Server);
    let mut below: Vec<_> = spans.iter().filter(|span| span.parent_span_id == request.span_id).collect();
    assert_eq!(below.len() + 1, spans.len(), "{spans:?}");
    below.sort_by_key(|span| (span.start_time_unix_nano, span.end_time_unix_nano));
    assert_eq!(
        below.iter().map(|span| &*span.name).collect::<Vec<_>>(),
        ["read", "queue", "decode", "queue", "inference"]
    );
    for pair in below.windows(2) {
        assert!(pair[0].end_time_unix_nano <= pair[1].start_time_unix_nano, "{pair:?}");
    }
    for span in below {
        assert_eq!(span.trace_id, request.trace_id);
        assert!(request.start_time_unix_nano <= span.start_time_unix_nano, "{span:?}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
        assert!(span.end_time_unix_nano <= request.end_time_unix_nano, "{span:?}");
    }
    let told = format!("{:?}", collector.0.lock().expect("no panic"));
    for word in ["lfm-serve", "service.version", "lfm.model.digest", "http.route", "\"good\"", "\"scored\""] {
        assert!(told.contains(word), "{word} in {told}");
    }
    assert!(!told.contains("hidden"), "{told}");
}

#[tokio::test]
async fn each_image_of_a_batch_has_a_span_and_a_callers_fault_is_not_an_error() {
    let (collector, url) = Collector::start().await;
    let app = TestApp::start(vec![Fake::instant()], &["--otlp-endpoint", &url]).await;
    let form = Form::new().part("image", Part::bytes(picture())).part("image", Part::bytes(picture()));
    let answer = app.post("/v1/score/batch").multipart(form).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(app.score("no image").await.status(), 415);
    app.stopped().await;

    let spans = collector.spans();
    let [batch] = named(&spans, "POST /v1/score/batch")[..] else { panic!("one batch in {spans:?}") };
    assert!(batch.parent_span_id.is_empty());
    let images = named(&spans, "image");
    assert_eq!(images.len(), 2);
    for image in images {
        assert_eq!(image.parent_span_id, batch.span_id);
        assert_eq!(spans.iter().filter(|span| span.parent_span_id == image.span_id).count(), 4);
    }
    let [refused] = named(&spans, "POST /v1/score")[..] else { panic!("one refusal in {spans:?}") };
    assert_eq!(refused.status.clone().unwrap_or_default().code, 0, "{refused:?}");
    assert!(format!("{refused:?}").contains("unsupported_format"));
}

#[tokio::test]
async fn unsampled_traces_of_the_caller_are_not_sent() {
    let (collector, url) = Collector::start().await;
    let app = TestApp::start(vec![Fake::instant()], &["--otlp-endpoint", &url]).await;
    let request = app.post("/v1/score").header("traceparent", format!("00-{TRACE}-{CALLER}-00"));
    assert_eq!(request.body(picture()).send().await.expect("an answer").status(), 200);
    app.stopped().await;
    assert!(collector.spans().is_empty());
}

#[tokio::test]
async fn an_absent_collector_delays_neither_requests_nor_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let app = TestApp::start(vec![Fake::instant()], &["--otlp-endpoint", &url]).await;
    assert_eq!(app.score(picture()).await.status(), 200);
    app.stopped().await;
}

#[test]
fn an_invalid_endpoint_ends_the_program_with_one_line() {
    for endpoint in ["https://collector:4318", "collector:4318", "http://not an address"] {
        let (code, _, log) = run(&["serve", "--listen", "127.0.0.1:0", "--otlp-endpoint", endpoint]);
        assert_eq!(code, Some(1), "{log}");
        let last = log.lines().last().expect("a line");
        assert!(last.starts_with(&format!("lfm-serve: --otlp-endpoint {endpoint}: ")), "{log}");
    }
}

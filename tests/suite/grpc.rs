//! gRPC at the wire level, for cases that its clients (tests/clients) cannot produce: deadlines, cancellation, limits
//! and malformed messages, with a scripted model.

use std::{collections::BTreeMap, io::Write, sync::atomic::Ordering::SeqCst, time::Duration};

use flate2::{Compression, write::GzEncoder};
use lfm_serve::{
    config::ServeConfig,
    image::Pixels,
    keys::NewKey,
    oip::grpc::{
        GrpcStatus, ROUTES,
        proto::{
            InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelReadyRequest,
            ServerReadyRequest, ServerReadyResponse,
            infer_parameter::ParameterChoice,
            model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
        },
    },
    server::series,
};
use proptest::prelude::*;
use prost::Message;
use reqwest::{Client, RequestBuilder, Response};
use tempfile::NamedTempFile;
use tokio::time::timeout;

use crate::{
    fake::Fake,
    harness::{PATIENCE, TestApp, config, picture},
};

// gRPC status codes.
const INVALID_ARGUMENT: u32 = 3;
const DEADLINE_EXCEEDED: u32 = 4;
const NOT_FOUND: u32 = 5;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

async fn app() -> TestApp {
    TestApp::start(vec![Fake::instant()], &[]).await
}

/// A message on the wire: the compression flag, its length, the message.
pub fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

pub fn call(app: &TestApp, method: &str, body: Vec<u8>) -> RequestBuilder {
    let client = Client::builder().http2_prior_knowledge().build().expect("a client");
    let request = client.post(format!("http://{}/{method}", app.grpc));
    request.header("content-type", "application/grpc").header("te", "trailers").body(body)
}

pub const INFER: &str = "inference.GRPCInferenceService/ModelInfer";

pub fn infer(app: &TestApp, request: &ModelInferRequest) -> RequestBuilder {
    call(app, INFER, framed(&request.encode_to_vec()))
}

pub fn request(images: usize) -> ModelInferRequest {
    let raw: Vec<u8> =
        (0..images).flat_map(|_| [&(picture().len() as u32).to_le_bytes()[..], &picture()].concat()).collect();
    ModelInferRequest {
        model_name: "lfm".into(),
        id: "mine-1".into(),
        inputs: vec![InferInputTensor {
            name: "image".into(),
            datatype: "BYTES".into(),
            shape: vec![images as i64],
            ..Default::default()
        }],
        outputs: vec![InferRequestedOutputTensor { name: "logit".into(), ..Default::default() }],
        raw_input_contents: vec![raw.into()],
        ..Default::default()
    }
}

/// The message of a successful call.
pub async fn message<T: Message + Default>(response: Response) -> T {
    assert_eq!(response.headers().get("grpc-status"), None, "{response:?}");
    let body = response.bytes().await.expect("a body");
    T::decode(&body[5..]).expect("a message")
}

/// Checks a failed call's status, and returns its message.
fn assert_status(response: &Response, code: u32) -> String {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let status = response.headers().get("grpc-status").expect("a status").to_str().expect("ASCII");
    let says = response.headers()["grpc-message"].to_str().expect("ASCII").to_owned();
    assert_eq!(status, code.to_string(), "{says}");
    says
}

pub async fn send(request: RequestBuilder) -> Response {
    timeout(PATIENCE, request.send()).await.expect("in time").expect("an answer")
}

#[tokio::test]
async fn raw_and_typed_contents_are_judged_alike() {
    let app = app().await;
    let answer: ModelInferResponse = message(send(infer(&app, &request(2))).await).await;
    assert_eq!((&*answer.model_name, &*answer.model_version, &*answer.id), ("lfm", "1", "mine-1"));
    assert_eq!(
        (&*answer.outputs[0].name, &*answer.outputs[0].datatype, &answer.outputs[0].shape),
        ("logit", "FP32", &vec![2])
    );
    let raw = answer.raw_output_contents;
    let mut typed = request(2);
    typed.raw_input_contents.clear();
    let contents = InferTensorContents { bytes_contents: vec![picture().into(); 2], ..Default::default() };
    typed.inputs[0].contents = Some(contents);
    assert_eq!(message::<ModelInferResponse>(send(infer(&app, &typed)).await).await.raw_output_contents, raw);

    let mut pixels = request(1);
    let contents = InferTensorContents {
        uint_contents: (0..Pixels::LEN as u32).map(|i| 7 + i / 3 % 2).collect(),
        ..Default::default()
    };
    pixels.raw_input_contents.clear();
    pixels.inputs[0] = InferInputTensor {
        name: "pixels".into(),
        datatype: "UINT8".into(),
        shape: vec![1, 256, 256, 3],
        contents: Some(contents),
        ..Default::default()
    };
    let answer: ModelInferResponse = message(send(infer(&app, &pixels)).await).await;
    assert_eq!(answer.raw_output_contents[0][..], 7f32.to_le_bytes());
}

#[tokio::test]
async fn unsupported_inputs_are_refused() {
    let app = app().await;
    let with = |change: &dyn Fn(&mut ModelInferRequest)| {
        let mut request = request(1);
        change(&mut request);
        request
    };
    let contents = |contents: InferTensorContents| {
        with(&|request| {
            request.raw_input_contents.clear();
            request.inputs[0].contents = Some(contents.clone());
        })
    };
    let cases = [
        (with(&|request| request.inputs.clear()), INVALID_ARGUMENT, "raw contents"),
        (with(&|request| request.raw_input_contents.clear()), INVALID_ARGUMENT, "no data"),
        (with(&|request| request.raw_input_contents.push("x".into())), INVALID_ARGUMENT, "raw contents"),
        (with(&|request| request.inputs[0].contents = Some(InferTensorContents::default())), INVALID_ARGUMENT, "typed"),
        (contents(InferTensorContents { uint_contents: vec![256], ..Default::default() }), INVALID_ARGUMENT, "UINT8"),
        (contents(InferTensorContents { fp32_contents: vec![1.0], ..Default::default() }), INVALID_ARGUMENT, "size"),
        (with(&|request| request.model_name = "resnet".into()), NOT_FOUND, "unknown model"),
        (with(&|request| request.model_version = "2".into()), NOT_FOUND, "unknown model"),
        (with(&|request| request.inputs[0].shape = vec![-1]), INVALID_ARGUMENT, "shape"),
    ];
    for (request, code, says) in cases {
        let said = assert_status(&send(infer(&app, &request)).await, code);
        assert!(said.replace("%20", " ").contains(says), "{said}");
    }
    assert_eq!(app.metric("lfm_images_total{outcome=\"rejected\"}").await, 9.0);
}

#[tokio::test]
async fn every_deadline_is_enforced() {
    let (model, _gate) = Fake::gated();
    let app = TestApp::start(vec![model], &[]).await;
    let mut parameter = request(1);
    let value = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(20_000)) };
    parameter.parameters = BTreeMap::from([("timeout".into(), value)]);
    let calls = [
        infer(&app, &request(1)).header("grpc-timeout", "20m"),
        infer(&app, &request(1)).header("grpc-timeout", "20000u").header("x-request-timeout-ms", "5000"),
        infer(&app, &request(1)).header("x-request-timeout-ms", "20"),
        infer(&app, &parameter).header("grpc-timeout", "1H"),
    ];
    for call in calls {
        assert_status(&send(call).await, DEADLINE_EXCEEDED);
    }
    assert_eq!(app.metric("lfm_images_total{outcome=\"expired\"}").await, 4.0);
    for malformed in ["", "m", "1", "1x", "-1S", "123456789S"] {
        assert_status(&send(infer(&app, &request(1)).header("grpc-timeout", malformed)).await, INVALID_ARGUMENT);
    }
}

#[tokio::test]
async fn a_cancelled_call_withdraws_its_image() {
    let (model, gate) = Fake::gated();
    let app = TestApp::start(vec![model.clone()], &[]).await;
    let running = tokio::spawn(infer(&app, &request(1)).send());
    while model.images.load(SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    let waiting = tokio::spawn(infer(&app, &request(1)).send());
    while app.metric("lfm_queue_images").await < 1.0 {
        tokio::task::yield_now().await;
    }
    waiting.abort();
    while app.metric("lfm_queue_images").await > 0.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(app.metric("lfm_images_total{outcome=\"cancelled\"}").await, 1.0);
    gate.add_permits(1);
    message::<ModelInferResponse>(running.await.expect("no panic").expect("an answer")).await;
    assert_eq!(model.images.load(SeqCst), 1, "the cancelled image was never run");
    assert_eq!(app.metric("lfm_images_in_flight").await, 0.0);
    assert_eq!(app.metric("lfm_admitted_bytes").await, 0.0);
}

#[tokio::test]
async fn a_full_server_and_a_full_key_are_unavailable() {
    let key = NewKey::make("alice", None, None).expect("a key");
    let file = NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("{}\n", key.line)).expect("written");
    let flags = ["--max-in-flight", "2", "--api-keys-file", &file.path().to_string_lossy()];
    let app = TestApp::start(vec![Fake::instant()], &flags).await;
    assert_status(&send(infer(&app, &request(1))).await, UNAUTHENTICATED);
    for header in [("authorization", format!("Bearer {}", key.key)), ("x-api-key", key.key.clone())] {
        let call = |images| infer(&app, &request(images)).header(header.0, &header.1);
        message::<ModelInferResponse>(send(call(2)).await).await;
        let refused = send(call(3)).await;
        assert_status(&refused, UNAVAILABLE);
        assert!(refused.headers().contains_key("grpc-retry-pushback-ms"));
    }
    // Probes need no key.
    let ready = framed(&ServerReadyRequest {}.encode_to_vec());
    let ready = send(call(&app, "inference.GRPCInferenceService/ServerReady", ready)).await;
    assert!(message::<ServerReadyResponse>(ready).await.ready);
}

#[tokio::test]
async fn messages_have_limits_compressed_or_not() {
    let app = TestApp::start(vec![Fake::instant()], &["--max-body-bytes", "1MiB"]).await;
    assert_status(&send(call(&app, INFER, framed(&vec![0; 1 << 20]))).await, RESOURCE_EXHAUSTED);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&vec![0; 200_000_000]).expect("in memory");
    let mut bomb = framed(&encoder.finish().expect("in memory"));
    bomb[0] = 1;
    let packed = |encoding: &str| call(&app, INFER, bomb.clone()).header("grpc-encoding", encoding);
    assert_status(&send(packed("gzip")).await, RESOURCE_EXHAUSTED);
    assert_status(&send(packed("deflate")).await, INVALID_ARGUMENT);
    assert_status(&send(packed("snappy")).await, UNIMPLEMENTED);
    let ready = ModelReadyRequest { name: "x".repeat(70_000), ..Default::default() };
    let ready = call(&app, "inference.GRPCInferenceService/ModelReady", framed(&ready.encode_to_vec()));
    assert_status(&send(ready).await, RESOURCE_EXHAUSTED);
    assert_eq!(app.metric("lfm_admitted_bytes").await, 0.0);
}

#[tokio::test]
async fn a_call_that_does_not_exist_is_unimplemented() {
    let app = app().await;
    for method in
        ["inference.GRPCInferenceService/ModelStreamInfer", "inference.Other/Call", "grpc.health.v1.Health/No"]
    {
        let response = send(call(&app, method, framed(b""))).await;
        assert_status(&response, UNIMPLEMENTED);
    }
}

#[tokio::test]
async fn while_draining_calls_are_served_and_readiness_is_off() {
    let mut app = TestApp::start(vec![Fake::instant()], &["--drain-delay", "1h", "--drain-timeout", "2h"]).await;
    app.begin_stop();
    let ready = async || {
        let ready = framed(&ServerReadyRequest {}.encode_to_vec());
        let ready = send(call(&app, "inference.GRPCInferenceService/ServerReady", ready)).await;
        message::<ServerReadyResponse>(ready).await.ready
    };
    while ready().await {
        tokio::task::yield_now().await;
    }
    message::<ModelInferResponse>(send(infer(&app, &request(1))).await).await;
}

#[tokio::test]
async fn a_stop_finishes_a_call_in_flight() {
    let (model, gate) = Fake::gated();
    let mut app = TestApp::start(vec![model.clone()], &[]).await;
    let accepted = tokio::spawn(infer(&app, &request(1)).send());
    while model.images.load(SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    app.begin_stop();
    loop {
        // A call that is still admitted must not wait for the gate.
        let hurried = send(infer(&app, &request(1)).header("grpc-timeout", "50m")).await;
        if hurried.headers()["grpc-status"] == UNAVAILABLE.to_string() {
            break;
        }
    }
    gate.add_permits(1);
    message::<ModelInferResponse>(accepted.await.expect("no panic").expect("an answer")).await;
    app.stopped().await;
}

#[tokio::test]
async fn calls_are_counted_and_their_series_are_there_from_the_start() {
    let app = TestApp::start(vec![Fake::instant()], &["--grpc-listen", "127.0.0.1:0"]).await;
    let text = app.get("/metrics").await.text().await.expect("text");
    for (route, method, statuses) in series(ROUTES, &GrpcStatus) {
        for status in statuses {
            let series =
                format!("lfm_http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}} 0");
            assert!(text.contains(&series), "{series} is missing");
        }
    }
    send(infer(&app, &request(1))).await.bytes().await.expect("a body");
    send(call(&app, INFER, framed(b"\xff\xff"))).await;
    for status in ["200", "400"] {
        let series = format!("lfm_http_requests_total{{method=\"POST\",route=\"/{INFER}\",status=\"{status}\"}}");
        assert_eq!(app.metric(&series).await, 1.0, "{status}");
    }
    assert_eq!(app.metric("lfm_errors_total{code=\"bad_request\"}").await, 1.0);
    let off: ServeConfig = config(&[]);
    assert!(off.grpc_listen.is_none());
}

/// Any bytes as a call: refused as invalid, never a server error.
#[test]
fn a_malformed_call_is_an_invalid_argument() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let app = runtime.block_on(app());
    let honest = framed(&request(1).encode_to_vec());
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..100),
        prop::collection::vec(any::<u8>(), 0..100).prop_map(|message| framed(&message)),
        (1..honest.len()).prop_map({
            let honest = honest.clone();
            move |cut| honest[..cut].to_vec()
        }),
    ];
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(body in body)| {
        let response = runtime.block_on(send(call(&app, INFER, body)));
        let status = response.headers()["grpc-status"].to_str().expect("ASCII").parse::<u32>().expect("a number");
        // A random message may name an unknown model, or claim to be compressed.
        prop_assert!([INVALID_ARGUMENT, NOT_FOUND, UNIMPLEMENTED].contains(&status), "{status}");
    });
    runtime.block_on(async {
        assert_eq!(app.metric("lfm_admitted_bytes").await, 0.0);
        assert_eq!(app.metric("lfm_images_in_flight").await, 0.0);
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
}

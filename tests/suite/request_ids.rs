//! The request id in every error, whichever door it comes out of: a caller who complains can always name the request.

use lfm_serve::keys::NewKey;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;

use crate::{
    fake::Fake,
    grpc,
    harness::{TestApp, picture},
};

/// Sends each request twice, with an id and without, and holds the answer to it: in the header, and in the body where
/// the body is ours to shape.
async fn assert_ids(doors: &[(&str, &dyn Fn() -> RequestBuilder)]) {
    for (door, request) in doors {
        let (id, body) = failed(door, request().header("x-request-id", "mine-7").send().await).await;
        assert_eq!(id, "mine-7", "{door}");
        assert!(body.as_ref().is_none_or(|id| id == "mine-7"), "{door}: {body:?}");
        let (made, body) = failed(door, request().send().await).await;
        assert!(made.len() == 36 && body.is_none_or(|id| id == made), "{door}: {made}");
    }
}

fn get(app: &TestApp, path: &str) -> RequestBuilder {
    app.client.get(app.url(path))
}

/// The ids of an error: in the header, and of `application/problem+json` in the body.
async fn failed(door: &str, answer: reqwest::Result<Response>) -> (String, Option<String>) {
    let answer = answer.unwrap_or_else(|error| panic!("{door}: {error}"));
    let is_error = answer.status().as_u16() >= 400 || answer.headers().contains_key("grpc-status");
    assert!(is_error, "{door}: {answer:?}");
    let id = answer.headers()["x-request-id"].to_str().expect("ASCII").to_owned();
    let problem = answer.headers().get("content-type").is_some_and(|kind| kind == "application/problem+json");
    let body = match problem {
        true => answer.json::<Value>().await.expect("JSON")["request_id"].as_str().map(str::to_owned),
        false => None,
    };
    assert!(!problem || body.is_some(), "{door}");
    (id, body)
}

#[tokio::test]
async fn every_error_names_its_request() {
    let flags = ["--max-body-bytes", "64KiB", "--allowed-hosts", "127.0.0.1", "--max-batch-images", "1"];
    let app = TestApp::start(vec![Fake::instant()], &flags).await;
    let post = |path: &str, body: &'static str| app.post(path).body(body);
    let method = |method: Method, path: &str| app.client.request(method, app.url(path));
    let one = grpc::request(1);
    let doors: [(&str, &dyn Fn() -> RequestBuilder); 17] = [
        ("/v1 image", &|| post("/v1/score", "no image")),
        ("/v1 empty", &|| post("/v1/score", "")),
        ("/v1 query", &|| post("/v1/score?threshold=2", "x")),
        ("/v1 too large, refused before it is read", &|| app.post("/v1/score").body(vec![0; 100 << 10])),
        ("/v1 batch", &|| post("/v1/score/batch", "{}").header("content-type", "application/json")),
        ("/v1 explain", &|| app.post("/v1/explain").header("accept", "audio/wav").body(picture())),
        ("/v1 deadline", &|| app.post("/v1/score").header("x-request-timeout-ms", "never").body(picture())),
        ("no route", &|| method(Method::GET, "/nowhere")),
        ("method", &|| method(Method::PUT, "/v1/score")),
        ("head", &|| app.post("/v1/score").header("host", "elsewhere.example").body(picture())),
        ("/v2 body", &|| post("/v2/models/lfm/infer", "{")),
        ("/v2 model", &|| method(Method::GET, "/v2/models/other")),
        ("/v2 route", &|| method(Method::GET, "/v2/nowhere")),
        ("gRPC message", &|| grpc::call(&app, grpc::INFER, vec![0, 0, 0, 0, 9, 1])),
        ("gRPC call", &|| grpc::call(&app, "inference.GRPCInferenceService/None", vec![0; 5])),
        ("gRPC small message", &|| {
            grpc::call(&app, "inference.GRPCInferenceService/ModelMetadata", vec![0, 0, 0, 0, 1, 255])
        }),
        ("gRPC input", &|| {
            let mut request = one.clone();
            request.inputs[0].shape = vec![2];
            grpc::infer(&app, &request)
        }),
    ];
    assert_ids(&doors).await;
    app.stopped().await;
}

#[tokio::test]
async fn refusals_before_a_request_is_looked_at_name_it_too() {
    let app = TestApp::starting(&[]).await;
    let request = grpc::request(1);
    assert_ids(&[
        ("/v1 starting", &|| app.post("/v1/score").body(picture())),
        ("/v2 starting", &|| get(&app, "/v2/health/ready")),
        ("gRPC starting", &|| grpc::infer(&app, &request)),
        ("probe", &|| get(&app, "/readyz")),
    ])
    .await;

    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), NewKey::make("alice", None, None).expect("a key").line).expect("written");
    let app = TestApp::start(vec![Fake::instant()], &["--api-keys-file", &file.path().to_string_lossy()]).await;
    assert_ids(&[
        ("/v1 key", &|| app.post("/v1/score").body(picture())),
        ("/v2 key", &|| get(&app, "/v2/models/lfm")),
        ("gRPC key", &|| grpc::infer(&app, &request)),
    ])
    .await;
}

#[tokio::test]
async fn a_failure_of_the_server_names_its_request() {
    let fails = Fake::new(1, async |_| Err(lfm_serve::model::RunError("as the test wants".into())));
    let app = TestApp::start(vec![fails], &[]).await;
    let request = grpc::request(1);
    assert_ids(&[
        ("/v1", &|| app.post("/v1/score").body(picture())),
        ("gRPC", &|| grpc::infer(&app, &request)),
        ("HTTP/2", &|| {
            let client = Client::builder().http2_prior_knowledge().build().expect("a client");
            client.post(app.url("/v1/score")).body(picture())
        }),
    ])
    .await;
}

//! The whole service in the fuzzer's process, with a model that answers at once. Targets send it requests through the
//! doors that clients use.

#[path = "../../tests/suite/fake.rs"]
pub mod fake;

use std::{net::SocketAddr, path::Path, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Request, StatusCode, request::Builder},
};
use clap::Parser;
use http_body_util::BodyExt;
use lfm_serve::{
    app::App,
    config::ServeConfig,
    model::{Execution, Manifest},
    scheduler::Pool,
};
use tokio::{net::TcpListener, runtime::Runtime, task::yield_now};
use tower::ServiceExt;

use self::fake::Fake;

/// Small, so that a run takes little time and the limits are reached.
const FLAGS: &[&str] = &[
    "serve",
    "--max-body-bytes=64KiB",
    "--max-admitted-bytes=1MiB",
    "--max-pixels=10000",
    "--max-batch-images=4",
    "--max-in-flight=8",
];

/// The service, and its routes without a socket.
pub struct Service {
    runtime: Runtime,
    app: App,
    http: Router,
    grpc: Router,
}

/// A whole answer.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    config: ServeConfig,
}

impl Service {
    /// A service that is ready.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/model");
        let manifest = Arc::new(Manifest::read(&model).expect("the manifest of the tests"));
        let config = Flags::parse_from(FLAGS).config;
        let app = runtime.block_on(async {
            let app = App::new(config, &[(manifest, Execution::CPU)]).expect("an app");
            let model = Fake::instant();
            let rebuild = model.rebuild();
            app.start(vec![Pool { sessions: vec![model], rebuild }]);
            app
        });
        let (http, grpc) = (app.router(), app.grpc_router());
        Self { runtime, app, http, grpc }
    }

    /// Serves HTTP on a loopback socket from here on.
    pub fn listen(&self) -> SocketAddr {
        let listener = self.runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let app = self.app.clone();
        self.runtime.spawn(async move { app.serve(listener.into(), None, std::future::pending()).await });
        address
    }

    /// The answer of HTTP's routes.
    pub fn http(&self, request: Builder, body: Vec<u8>) -> Option<Answer> {
        self.ask(&self.http, request, body)
    }

    /// The answer of gRPC's routes.
    pub fn grpc(&self, request: Builder, body: Vec<u8>) -> Option<Answer> {
        self.ask(&self.grpc, request, body)
    }

    /// None, if hyper would not have let the request's head through. Nothing of the request is held afterwards.
    fn ask(&self, router: &Router, request: Builder, body: Vec<u8>) -> Option<Answer> {
        let request: Request<Body> = request.header("host", "x").body(Body::from(body)).ok()?;
        Some(self.runtime.block_on(async {
            let answer = router.clone().oneshot(request).await;
            let (head, body) = answer.unwrap_or_else(|never| match never {}).into_parts();
            let collected = body.collect().await.expect("a whole answer");
            let trailers = collected.trailers().cloned().unwrap_or_default();
            let body = collected.to_bytes();
            self.until_idle().await;
            Answer { status: head.status, headers: head.headers, body, trailers }
        }))
    }

    /// What a request holds is given back when it ends, whichever way it ends: this ends, or the fuzzer's timeout does it.
    async fn until_idle(&self) {
        let metrics = &self.app.state.metrics;
        while metrics.images_in_flight.get() + metrics.admitted_bytes.get() + metrics.decode_bytes.get() > 0 {
            yield_now().await;
        }
    }
}

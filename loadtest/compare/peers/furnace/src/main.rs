//! furnace-server: the standard graph in ONNX Runtime behind its `TensorModel` trait, its router behind one route of our
//! own that decodes the file ("Embed it in your Axum app": the app keeps its pre- and post-processing).
//!
//! Its own JPEG and PNG input (feature `image`) resizes and crops as torchvision does, which is not the reference's
//! preprocessing; so the route decodes with the code of lfm-serve, and what is compared is the server and the graph.
//! Batches, as it advises for convolutional networks; a worker and a session of one thread for each core.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::DefaultBodyLimit;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use furnace::{HostTensor, IoSpec, Model, ModelError, Server, TensorModel, Values};
use lfm_serve::image::{Cancel, ImageError, Limits, Preprocessing, SIDE, Scratch, inspect, prepare};
use lfm_serve::model::{Manifest, STANDARD_GRAPH};
use ort::session::Session;
use ort::value::TensorRef;
use tower::ServiceExt;

// As peers/detector.py has them.
const MOST_IN_FLIGHT: usize = 64;
const MOST_IN_BATCH: usize = 8;
const DEADLINE: Duration = Duration::from_secs(2);

/// One session a worker, and where each image that is run leaves a byte for the comparison to count.
#[derive(Debug)]
struct Detector {
    sessions: Vec<Mutex<Session>>,
    counter: Option<File>,
}

impl TensorModel for Detector {
    fn name(&self) -> &str {
        "lfm"
    }

    fn backend(&self) -> &str {
        "cpu"
    }

    fn inputs(&self) -> Vec<IoSpec> {
        vec![IoSpec::fp32("pixels", &[SIDE as usize, SIDE as usize, 3])]
    }

    fn outputs(&self) -> Vec<IoSpec> {
        vec![IoSpec::fp32("logit", &[1])]
    }

    fn run(&self, inputs: Vec<HostTensor>) -> furnace::Result<Vec<HostTensor>> {
        let failed = |error: String| ModelError::InferenceFailed(error);
        let Some(HostTensor { shape, values: Values::F32(values) }) = inputs.into_iter().next() else {
            return Err(failed("no pixels".into()).into());
        };
        if let Some(mut counter) = self.counter.as_ref() {
            counter.write_all(&vec![b'.'; shape[0]]).map_err(|error| failed(error.to_string()))?;
        }
        // Its tensors are of 32 or 64 bits; the graph takes bytes.
        let pixels: Vec<u8> = values.iter().map(|&value| value as u8).collect();
        // A free one is there but while it warms up, on a thread besides the workers.
        let free = self.sessions.iter().find_map(|session| match session.try_lock() {
            Ok(session) => Some(session),
            Err(TryLockError::Poisoned(session)) => Some(session.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        let mut session = free.unwrap_or_else(|| self.sessions[0].lock().unwrap_or_else(PoisonError::into_inner));
        let mut run = || -> ort::Result<Vec<f32>> {
            let pixels = TensorRef::from_array_view((shape.as_slice(), pixels.as_slice()))?;
            let outputs = session.run(ort::inputs!["pixels" => pixels])?;
            Ok(outputs["logit"].try_extract_tensor::<f32>()?.1.to_vec())
        };
        let logits = run().map_err(|error| failed(error.to_string()))?;
        Ok(vec![HostTensor { shape: vec![shape[0], 1], values: Values::F32(logits) }])
    }
}

/// A file to what `/predict` takes: the pixels as `f32`.
fn decode(file: &[u8], preprocessing: Preprocessing) -> Result<Vec<u8>, ImageError> {
    let header = inspect(file, &Limits::default())?;
    let pixels = prepare(file, &header, preprocessing, &mut Scratch::default(), &Cancel::default())?;
    Ok(pixels.as_bytes().iter().flat_map(|&byte| f32::from(byte).to_le_bytes()).collect())
}

async fn score(furnace: Router, preprocessing: Preprocessing, file: Bytes) -> Response {
    let pixels = match tokio::task::spawn_blocking(move || decode(&file, preprocessing)).await {
        Ok(Ok(pixels)) => pixels,
        Ok(Err(error)) => return (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response(),
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    };
    let request =
        Request::post("/predict").header(header::CONTENT_TYPE, "application/octet-stream").body(Body::from(pixels));
    match request {
        Ok(request) => furnace.oneshot(request).await.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../..");
    let models = root.join("models");
    let (port, cores) = (env::var("PEER_PORT")?.parse::<u16>()?, env::var("PEER_CORES")?.parse::<usize>()?);
    let counter = env::var_os("PEER_COUNTER").map(|path| OpenOptions::new().append(true).open(path)).transpose()?;
    let preprocessing = Manifest::read(&models)?.preprocessing;

    let library = root.join("vendor/onnxruntime/libonnxruntime.so");
    let environment = ort::init_from(library)?.with_telemetry(false).build()?;
    let session = || -> ort::Result<_> {
        let mut builder = Session::builder(&environment)?.with_intra_threads(1)?;
        Ok(Mutex::new(builder.commit_from_file(models.join(STANDARD_GRAPH))?))
    };
    let sessions = (0..cores).map(|_| session()).collect::<ort::Result<_>>()?;

    let furnace = Server::new()
        .model(Model::custom(Detector { sessions, counter }))
        .max_batch_size(MOST_IN_BATCH)
        .request_timeout(DEADLINE)
        .configure(|config| {
            config.max_concurrent_requests = MOST_IN_FLIGHT * cores;
            config.batching.workers = cores;
        })
        .router()?;
    let app = Router::new()
        .route("/score", post(move |file| score(furnace.clone(), preprocessing, file)))
        .layer(DefaultBodyLimit::max(20 << 20));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, app).await?;
    Ok(())
}

//! The Open Inference Protocol over gRPC, with reflection and gRPC's own health service. gRPC is HTTP/2: its calls
//! pass the layers that all requests pass.

mod convert;
mod health;
mod message;
mod scan;
mod service;
mod status;

use std::sync::Arc;

use axum::{Router, middleware};
use tonic_health::pb::health_server::HealthServer;

pub use status::GrpcStatus;

use self::{health::Health, service::Service};
use super::http::INFER;
use crate::{
    error::Code::{self, *},
    server::{self, AppState, Route},
};
use proto::grpc_inference_service_server::GrpcInferenceServiceServer;

/// What `build.rs` makes of `proto/inference.proto`.
#[allow(missing_docs, unreachable_pub, rustdoc::all, clippy::all, reason = "written by tonic-prost-build")]
pub mod proto {
    tonic::include_proto!("inference");

    /// The service's description, for the reflection service.
    pub(super) const DESCRIPTION: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));
}

/// The largest message to the health service, in bytes.
const SMALL_MESSAGE: usize = 64 << 10;

/// What can be wrong with a call's message, whatever it is.
const MESSAGE: &[Code] = &[BadRequest, BodyTooLarge, UnsupportedMediaType];

/// What a call about a model can answer.
const CALL: &[&[Code]] = &[MESSAGE, &[Unauthorized, NotFound]];

/// The calls that `--grpc-listen` adds.
pub const ROUTES: &[Route] = &[
    Route { path: "/inference.GRPCInferenceService/ServerLive", method: "POST", codes: &[MESSAGE] },
    Route { path: "/inference.GRPCInferenceService/ServerReady", method: "POST", codes: &[MESSAGE] },
    Route { path: "/inference.GRPCInferenceService/ModelReady", method: "POST", codes: &[MESSAGE, &[NotFound]] },
    Route { path: "/inference.GRPCInferenceService/ServerMetadata", method: "POST", codes: CALL },
    Route { path: "/inference.GRPCInferenceService/ModelMetadata", method: "POST", codes: CALL },
    Route { path: "/inference.GRPCInferenceService/ModelConfig", method: "POST", codes: CALL },
    Route { path: "/inference.GRPCInferenceService/ModelStatistics", method: "POST", codes: CALL },
    Route { path: "/inference.GRPCInferenceService/ModelInfer", method: "POST", codes: INFER },
    Route { path: "/grpc.health.v1.Health/Check", method: "POST", codes: &[MESSAGE, &[NotFound]] },
    Route { path: "/grpc.health.v1.Health/Watch", method: "POST", codes: &[MESSAGE] },
    Route { path: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", method: "POST", codes: &[MESSAGE] },
    Route { path: "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", method: "POST", codes: &[MESSAGE] },
];

/// Their handlers.
pub fn router(state: &Arc<AppState>) -> Router<Arc<AppState>> {
    let service = GrpcInferenceServiceServer::new(Service(Arc::clone(state)));
    // The message layers have unpacked the messages and held them to their limits.
    let small = service.clone();
    let infer = Router::new()
        .route_service("/inference.GRPCInferenceService/ModelInfer", service)
        .route_layer(middleware::from_fn_with_state(Arc::clone(state), message::layer));
    let behind_keys = Router::new()
        .route_service("/inference.GRPCInferenceService/ServerMetadata", small.clone())
        .route_service("/inference.GRPCInferenceService/ModelMetadata", small.clone())
        .route_service("/inference.GRPCInferenceService/ModelConfig", small.clone())
        .route_service("/inference.GRPCInferenceService/ModelStatistics", small.clone())
        .route_layer(middleware::from_fn(message::small))
        .merge(infer);
    let health = HealthServer::new(Health(Arc::clone(state))).max_decoding_message_size(SMALL_MESSAGE);
    let open = Router::new()
        .route_service("/inference.GRPCInferenceService/ServerLive", small.clone())
        .route_service("/inference.GRPCInferenceService/ServerReady", small.clone())
        .route_service("/inference.GRPCInferenceService/ModelReady", small)
        .route_layer(middleware::from_fn(message::small))
        .route_service("/grpc.health.v1.Health/Check", health.clone())
        .route_service("/grpc.health.v1.Health/Watch", health);
    server::guarded(behind_keys, state).merge(server::quiet(open)).merge(reflection())
}

/// What the services are, for tools that ask.
fn reflection() -> Router<Arc<AppState>> {
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTION)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut router = Router::new();
    // Descriptions that our own build made are read.
    if let (Ok(v1), Ok(v1alpha)) = (described().build_v1(), described().build_v1alpha()) {
        router = router
            .route_service("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", v1)
            .route_service("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", v1alpha);
    }
    router
}

//! The Open Inference Protocol over gRPC, with reflection and gRPC's own health service. gRPC is HTTP/2: its calls
//! pass the layers that all requests pass.

mod convert;
mod health;
mod message;
mod service;
mod status;

use std::sync::Arc;

use axum::{Router, middleware};
use tonic::codec::CompressionEncoding::{Deflate, Gzip};
use tonic_health::pb::health_server::HealthServer;

pub(super) use status::{error_in, render};

use self::{health::Health, service::Service};
use super::{auth, layered};
use crate::app::App;
use proto::grpc_inference_service_server::GrpcInferenceServiceServer;

/// What `build.rs` makes of `proto/inference.proto`.
#[allow(missing_docs, unreachable_pub, rustdoc::all, clippy::all, reason = "written by tonic-prost-build")]
pub mod proto {
    tonic::include_proto!("inference");

    /// The service's description, for the reflection service.
    pub(super) const DESCRIPTION: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));
}

/// The largest message of a call that judges nothing, in bytes: a model's name and version.
const SMALL_MESSAGE: usize = 64 << 10;

/// The service as a router, without a socket.
pub fn router(app: Arc<App>) -> Router {
    let service = GrpcInferenceServiceServer::new(Service(Arc::clone(&app)));
    let small =
        service.clone().max_decoding_message_size(SMALL_MESSAGE).accept_compressed(Gzip).accept_compressed(Deflate);
    // The message layer has unpacked it and held it to its limit.
    let infer = Router::new()
        .route_service("/inference.GRPCInferenceService/ModelInfer", service.max_decoding_message_size(usize::MAX))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&app), message::layer));
    let behind_keys = Router::new()
        .route_service("/inference.GRPCInferenceService/ServerMetadata", small.clone())
        .route_service("/inference.GRPCInferenceService/ModelMetadata", small.clone())
        .route_service("/inference.GRPCInferenceService/ModelConfig", small.clone())
        .route_service("/inference.GRPCInferenceService/ModelStatistics", small.clone())
        .merge(infer)
        .route_layer(middleware::from_fn_with_state(Arc::clone(&app), auth::layer));
    let health = HealthServer::new(Health(Arc::clone(&app))).max_decoding_message_size(SMALL_MESSAGE);
    let open = Router::new()
        .route_service("/inference.GRPCInferenceService/ServerLive", small.clone())
        .route_service("/inference.GRPCInferenceService/ServerReady", small.clone())
        .route_service("/inference.GRPCInferenceService/ModelReady", small)
        .route_service("/grpc.health.v1.Health/Check", health.clone())
        .route_service("/grpc.health.v1.Health/Watch", health);
    layered(behind_keys.merge(open).merge(reflection()), app)
}

/// What the services are, for tools that ask.
fn reflection() -> Router<Arc<App>> {
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

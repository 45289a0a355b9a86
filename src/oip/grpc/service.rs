//! The calls of `inference.GRPCInferenceService`.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tonic::{Response, Status};

use super::{
    super::{
        infer::{self, Inference},
        protocol::{self, Request, ServerMetadata, find_model},
    },
    convert,
    message::Admitted,
    proto::{self, grpc_inference_service_server::GrpcInferenceService},
};
use crate::{
    error::Error,
    metrics::Outcome,
    model::Manifest,
    server::{AppState, RequestContext, Stay},
};

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Arc<AppState>);

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    fn find_model(&self, name: &str, version: &str) -> Result<usize, Error> {
        find_model(&self.0.models, name, Some(version))
    }

    fn manifest(&self, model: usize) -> &Arc<Manifest> {
        &self.0.models.all()[model].manifest
    }

    async fn infer(&self, context: &RequestContext, admitted: Admitted) -> Result<proto::ModelInferResponse, Error> {
        let state = &self.0;
        let mut stay = Stay::new(&state.metrics, context);
        let received = self.receive(context, admitted).await;
        let (model, inference) = received.inspect_err(|error| stay.end(Outcome::of(error.code)))?;
        stay.forget();
        let answer = infer::judge(state, context, inference).await?;
        Ok(convert::answer(self.manifest(model), answer))
    }

    async fn receive(&self, context: &RequestContext, admitted: Admitted) -> Result<(usize, Inference<'_>), Error> {
        let state = &self.0;
        let Admitted { request, permit, held, deadline } = admitted;
        let model = self.find_model(&request.model_name, &request.model_version)?;
        let scheduler = state.scheduler()?;
        let most = state.config.max_batch_images;
        // Off the async threads: pixels are copied.
        let manifest = Arc::clone(self.manifest(model));
        let request = spawn_blocking(move || Request::check(&manifest, convert::request(request)?, most)).await;
        let request = request.map_err(|_| Error::inference_failed())??;
        Ok((model, Inference::new(context, scheduler, model, request, permit, held, deadline)?))
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(&self, _: tonic::Request<proto::ServerLiveRequest>) -> Answer<proto::ServerLiveResponse> {
        Ok(Response::new(proto::ServerLiveResponse { live: self.0.liveness().is_ok() }))
    }

    async fn server_ready(&self, _: tonic::Request<proto::ServerReadyRequest>) -> Answer<proto::ServerReadyResponse> {
        Ok(Response::new(proto::ServerReadyResponse { ready: self.0.readiness().is_ok() }))
    }

    async fn model_ready(
        &self,
        request: tonic::Request<proto::ModelReadyRequest>,
    ) -> Answer<proto::ModelReadyResponse> {
        let proto::ModelReadyRequest { name, version } = request.get_ref();
        let model = self.find_model(name, version)?;
        Ok(Response::new(proto::ModelReadyResponse { ready: self.0.model_readiness(model).is_ok() }))
    }

    async fn server_metadata(
        &self,
        _: tonic::Request<proto::ServerMetadataRequest>,
    ) -> Answer<proto::ServerMetadataResponse> {
        Ok(Response::new(ServerMetadata::OURS.into()))
    }

    async fn model_metadata(
        &self,
        request: tonic::Request<proto::ModelMetadataRequest>,
    ) -> Answer<proto::ModelMetadataResponse> {
        let proto::ModelMetadataRequest { name, version } = request.get_ref();
        let model = self.find_model(name, version)?;
        Ok(Response::new(protocol::ModelMetadata::of(self.manifest(model)).into()))
    }

    async fn model_config(
        &self,
        request: tonic::Request<proto::ModelConfigRequest>,
    ) -> Answer<proto::ModelConfigResponse> {
        let proto::ModelConfigRequest { name, version } = request.get_ref();
        let model = self.find_model(name, version)?;
        let config = protocol::ModelConfig::of(self.manifest(model));
        Ok(Response::new(proto::ModelConfigResponse { config: Some(config.into()) }))
    }

    async fn model_statistics(
        &self,
        request: tonic::Request<proto::ModelStatisticsRequest>,
    ) -> Answer<proto::ModelStatisticsResponse> {
        let proto::ModelStatisticsRequest { name, version } = request.get_ref();
        let models = match name.as_str() {
            "" => 0..self.0.models.all().len(),
            name => {
                let model = self.find_model(name, version)?;
                model..model + 1
            }
        };
        let statistics = |model| protocol::ModelStatistics::of(model, &self.0.models, &self.0.metrics).into();
        Ok(Response::new(proto::ModelStatisticsResponse { model_stats: models.map(statistics).collect() }))
    }

    async fn model_infer(
        &self,
        mut request: tonic::Request<proto::ModelInferRequest>,
    ) -> Answer<proto::ModelInferResponse> {
        let context = request.extensions_mut().remove::<RequestContext>();
        let admitted = request.extensions_mut().remove::<Arc<Admitted>>().and_then(Arc::into_inner);
        // Both are set by the layers that every call passes through.
        let (Some(context), Some(admitted)) = (context, admitted) else { return Err(Error::inference_failed().into()) };
        Ok(Response::new(self.infer(&context, admitted).await?))
    }
}

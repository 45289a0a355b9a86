//! gRPC's own health service: reports readiness.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::stream::{self, Stream};
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server};

use crate::{
    error::{Code, Error},
    server::{AppState, lifecycle::Phase},
};

/// The services whose health is reported; the empty name means the server.
const SERVICES: [&str; 2] = ["", "inference.GRPCInferenceService"];

/// Polling interval of `watch`: losing or regaining a session does not change the lifecycle phase.
const LOOK: Duration = Duration::from_secs(1);

/// The service.
#[derive(Debug)]
pub(super) struct Health(pub(super) Arc<AppState>);

fn status(state: &AppState) -> ServingStatus {
    if state.readiness().is_ok() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            return Err(Error::new(Code::NotFound, "there is no such service").into());
        }
        Ok(Response::new(answer(status(&self.0))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Streams the status and its changes, until the server refuses work.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = SERVICES.contains(&request.get_ref().service.as_str());
        let state = Arc::clone(&self.0);
        let phases = state.lifecycle.watch();
        let told = stream::unfold((state, phases, None), move |(state, mut phases, told)| async move {
            loop {
                let phase = *phases.borrow_and_update();
                let now = if known { status(&state) } else { ServingStatus::ServiceUnknown };
                if told != Some(now) {
                    return Some((Ok(answer(now)), (state, phases, Some(now))));
                }
                if phase >= Phase::Refusing {
                    return None;
                }
                let _ = timeout(LOOK, phases.changed()).await;
            }
        });
        Ok(Response::new(Box::pin(told)))
    }
}

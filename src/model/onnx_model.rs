//! The model that the scheduler runs: an ONNX Runtime session on a dedicated thread.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use futures_channel::oneshot;

use super::{AssignedNode, Model, Output, Provider, RunError, SessionOptions, warmup};
use crate::image::Pixels;

/// Interval of the log lines while a session is still being built.
const STILL_STARTING: Duration = Duration::from_secs(10);

type Call = (Vec<Pixels>, oneshot::Sender<Result<Vec<Output>, RunError>>);

/// A session worker's handle: calls go to a thread that owns the session, because `Session::run` blocks and takes
/// `&mut self` on purpose (pykeio/ort issues 402, 447).
#[derive(Debug)]
pub struct OnnxModel {
    calls: mpsc::Sender<Call>,
    costs: Vec<Duration>,
    nodes: Vec<AssignedNode>,
    takes_cpu: bool,
}

impl OnnxModel {
    /// Starts a session's thread and waits until the session has measured its cost curve.
    ///
    /// Blocks while the session is built and warmed up: do not call it on an async thread.
    ///
    /// # Errors
    /// One line for the operator: no ONNX Runtime, a graph that does not load or does not run.
    pub fn start(options: &SessionOptions) -> Result<Self, anyhow::Error> {
        let (calls, inbox) = mpsc::channel::<Call>();
        let (ready, started) = mpsc::channel();
        let options = options.clone();
        let takes_cpu = options.execution().provider == Provider::Cpu;
        thread::Builder::new().name("session".into()).spawn(move || {
            // The session is built on the thread that runs it: an operator domain is not `Send`.
            let warm = warmup::warm(&options);
            match warm {
                Ok((mut runner, costs)) => {
                    let _ = ready.send(Ok((costs, runner.nodes().to_vec())));
                    for (batch, reply) in inbox {
                        // A caller that no longer waits is not an error.
                        let _ = reply.send(runner.run(&batch));
                    }
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        let began = Instant::now();
        let (costs, nodes) = loop {
            match started.recv_timeout(STILL_STARTING) {
                Ok(warm) => break warm?,
                // TensorRT may take minutes to build an engine.
                Err(RecvTimeoutError::Timeout) => {
                    tracing::info!(seconds = began.elapsed().as_secs(), "a session is still being built");
                }
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the session's thread ended while starting"),
            }
        };
        Ok(Self { calls, costs, nodes, takes_cpu })
    }

    /// The execution provider of each node.
    pub fn nodes(&self) -> &[AssignedNode] {
        &self.nodes
    }
}

impl Model for OnnxModel {
    fn costs(&self) -> &[Duration] {
        &self.costs
    }

    fn takes_cpu(&self) -> bool {
        self.takes_cpu
    }

    async fn run(&mut self, batch: Vec<Pixels>) -> Result<Vec<Output>, RunError> {
        let gone = || RunError("the session's thread has ended".into());
        let (reply, answer) = oneshot::channel();
        self.calls.send((batch, reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

//! The sessions of one process, started in parallel.

use std::thread;

use super::{OnnxModel, SessionOptions};

/// Builds and warms up the sessions in parallel; blocks until all are ready. If `auto` chose a provider that cannot
/// run the model, they run on the next best; the returned options say which.
///
/// # Errors
/// One line for the operator: the first session that could not start.
pub fn start_sessions(mut options: SessionOptions) -> Result<(SessionOptions, Vec<OnnxModel>), anyhow::Error> {
    loop {
        match start_all(&options) {
            Ok(sessions) => return Ok((options, sessions)),
            Err(error) => options = options.step_down(error)?,
        }
    }
}

fn start_all(options: &SessionOptions) -> Result<Vec<OnnxModel>, anyhow::Error> {
    thread::scope(|scope| {
        let starting: Vec<_> =
            (0..options.sessions(cpus())).map(|_| scope.spawn(|| OnnxModel::start(options))).collect();
        starting
            .into_iter()
            .map(|session| session.join().unwrap_or_else(|_| Err(anyhow::anyhow!("starting a session panicked"))))
            .collect()
    })
}

/// CPUs that this process may use: the affinity mask and the cgroup's quota, which ONNX Runtime itself
/// ignores (microsoft/onnxruntime 29510).
pub fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

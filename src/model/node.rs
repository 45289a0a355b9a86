//! A session of one Top-K node, to compare the operator with ONNX Runtime's TopK.

use std::path::Path;

use ort::{
    session::{Session, SessionOutputs},
    value::TensorRef,
};

use super::{RunError, op, runtime};

/// A session whose graph has the input `maps` and the outputs `values` and `indices`. Runs on the caller's thread.
#[derive(Debug)]
pub struct TopKNode {
    session: Session,
}

impl TopKNode {
    /// Loads the graph; `ort_library` as for [`runtime::environment`].
    ///
    /// # Errors
    /// One line for the operator: no ONNX Runtime, or a graph that does not load.
    pub fn new(graph: &[u8], ort_library: Option<&Path>) -> Result<Self, anyhow::Error> {
        let environment = runtime::environment(ort_library)?;
        let build = || -> ort::Result<Session> {
            op::commit(Session::builder(environment)?.with_intra_threads(1)?, graph, &op::Layers::default())
        };
        let session = build()
            .map_err(|error| anyhow::anyhow!("ONNX Runtime cannot load the graph: {}", runtime::one_line(&error)))?;
        Ok(Self { session })
    }

    /// Runs the node on `maps` of a shape that the graph accepts.
    ///
    /// # Errors
    /// Those of ONNX Runtime; a shape that does not fit the graph or `maps`.
    pub fn run<const RANK: usize>(&mut self, shape: [usize; RANK], maps: &[f32]) -> Result<TopK<'_>, RunError> {
        let maps = TensorRef::from_array_view((shape, maps)).map_err(failed)?;
        self.session.run(ort::inputs!["maps" => maps]).map(TopK).map_err(failed)
    }
}

/// A run's outputs, in ONNX Runtime's memory.
#[derive(Debug)]
pub struct TopK<'session>(SessionOutputs<'session>);

impl TopK<'_> {
    /// The largest values of each row, descending.
    ///
    /// # Errors
    /// If the graph has no such output.
    pub fn values(&self) -> Result<&[f32], RunError> {
        Ok(self.output("values")?.try_extract_tensor().map_err(failed)?.1)
    }

    /// Their positions in the row.
    ///
    /// # Errors
    /// If the graph has no such output.
    pub fn indices(&self) -> Result<&[i64], RunError> {
        Ok(self.output("indices")?.try_extract_tensor().map_err(failed)?.1)
    }

    fn output(&self, name: &str) -> Result<&ort::value::DynValue, RunError> {
        self.0.get(name).ok_or_else(|| RunError(format!("the graph has no output {name}")))
    }
}

fn failed(error: ort::Error) -> RunError {
    RunError(runtime::one_line(&error))
}

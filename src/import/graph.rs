//! Reading an ONNX file: its one input and its one output, and what would keep it from being served.

use std::collections::HashSet;

use clap::ValueEnum;
use prost::Message;
use serde::Serialize;

use super::proto::{
    GraphProto, ModelProto, TensorProto, ValueInfoProto,
    tensor_proto::{DataLocation, DataType},
    tensor_shape_proto::dimension::Value as Dimension,
    type_proto::Value as Type,
};

/// The oldest operator set whose operators the added nodes use.
const OLDEST_OPSET: i64 = 13;

/// Order of the input's dimensions after that of the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Channels, height, width.
    Nchw,
    /// Height, width, channels.
    Nhwc,
}

/// What a graph says of its input and output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Name of the input of pixels.
    pub input: String,
    /// Name of the output to read.
    pub output: String,
    /// Whether the input takes bytes; else it takes floats.
    pub takes_bytes: bool,
    /// Where the channels are.
    pub layout: Layout,
    /// Height and width, where the graph says them.
    pub size: [Option<u32>; 2],
    /// Elements of the output for each image, where the graph says it.
    pub outputs: Option<u32>,
    /// Whether the output is of single precision.
    pub is_float: bool,
}

/// Reads the file and checks that it can be served.
pub(super) fn read(bytes: &[u8]) -> Result<(ModelProto, GraphProto), String> {
    let mut model = ModelProto::decode(bytes).map_err(|error| format!("it is not an ONNX model: {error}"))?;
    let graph = model.graph.take().filter(|graph| !graph.node.is_empty()).ok_or("it is not an ONNX model: no graph")?;
    let opset = model.opset_import.iter().find(|set| matches!(set.domain(), "" | "ai.onnx"));
    let opset = opset.map_or(1, |set| set.version());
    if opset < OLDEST_OPSET {
        return Err(format!("it is of operator set {opset}; export it with {OLDEST_OPSET} or newer"));
    }
    let outside = |tensor: &TensorProto| {
        tensor.data_location == Some(DataLocation::External as i32) || !tensor.external_data.is_empty()
    };
    let of_nodes = graph.node.iter().flat_map(|node| &node.attribute).filter_map(|attribute| attribute.t.as_ref());
    if graph.initializer.iter().chain(of_nodes).any(outside) {
        return Err("its weights are in another file; export it with external_data=False, or save it with \
                    onnx.save(onnx.load(FILE), OUT)"
            .into());
    }
    Ok((model, graph))
}

impl Info {
    /// `input` and `output` choose where the graph has several.
    pub(super) fn of(
        graph: &GraphProto,
        input: Option<&str>,
        output: Option<&str>,
        layout: Option<Layout>,
    ) -> Result<Self, String> {
        // Old files list initializers among the inputs.
        let initialised: HashSet<_> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
        let inputs: Vec<_> = graph.input.iter().filter(|value| !initialised.contains(value.name())).collect();
        if let [_, _, ..] = inputs[..] {
            return Err(format!("it has the inputs {}; a detector takes one", names(&inputs)));
        }
        let pixels = choose("input", &inputs, input)?;
        let (element, shape) = tensor(pixels).ok_or("its input is no tensor")?;
        let takes_bytes = match element {
            Some(DataType::Float) => false,
            Some(DataType::Uint8) => true,
            _ => return Err("its input takes neither float32 nor uint8".into()),
        };
        let shape = shape.filter(|shape| shape.len() == 4);
        let shape = shape.ok_or("its input does not have four dimensions: images, channels, height and width")?;
        if let Some(images) = shape[0] {
            return Err(format!(
                "it is exported for batches of {images}; export it with a dynamic first dimension (dynamic_axes or \
                 dynamic_shapes of torch.onnx.export)"
            ));
        }
        let layout = layout.or(match (shape[1], shape[3]) {
            (Some(3), Some(3)) | (None, None) => None,
            (Some(3), _) => Some(Layout::Nchw),
            (_, Some(3)) => Some(Layout::Nhwc),
            _ => None,
        });
        let layout = layout.ok_or("its input does not tell where its three channels are: give --layout")?;
        let (channels, size) = match layout {
            Layout::Nchw => (shape[1], [shape[2], shape[3]]),
            Layout::Nhwc => (shape[3], [shape[1], shape[2]]),
        };
        if channels.is_some_and(|channels| channels != 3) {
            return Err(format!("its input has {} channels, not 3", channels.unwrap_or_default()));
        }

        let outputs: Vec<_> = graph.output.iter().collect();
        let read = choose("output", &outputs, output)?;
        let (element, shape) = tensor(read).ok_or("its output is no tensor")?;
        let is_float = match element {
            Some(DataType::Float) => true,
            Some(DataType::Float16 | DataType::Bfloat16 | DataType::Double) => false,
            _ => return Err("its output is not of floats".into()),
        };
        let outputs = match shape.as_deref() {
            Some([_]) => Some(1),
            Some([_, rest @ ..]) => rest.iter().try_fold(1_u32, |product, dim| product.checked_mul((*dim)?)),
            _ => None,
        };
        let (input, output) = (pixels.name().to_owned(), read.name().to_owned());
        Ok(Self { input, output, takes_bytes, layout, size, outputs, is_float })
    }
}

fn names(values: &[&ValueInfoProto]) -> String {
    values.iter().map(|value| value.name()).collect::<Vec<_>>().join(", ")
}

fn choose<'a>(what: &str, values: &[&'a ValueInfoProto], name: Option<&str>) -> Result<&'a ValueInfoProto, String> {
    match (values, name) {
        ([one], None) => Ok(one),
        (_, Some(name)) => values
            .iter()
            .find(|value| value.name() == name)
            .copied()
            .ok_or_else(|| format!("it has no {what} {name}, only {}", names(values))),
        _ => Err(format!("it has the {what}s {}: choose one with --{what}", names(values))),
    }
}

/// Dimensions; one without a value is none.
type Dimensions = Vec<Option<u32>>;

/// Element type and dimensions.
fn tensor(value: &ValueInfoProto) -> Option<(Option<DataType>, Option<Dimensions>)> {
    let Some(Type::TensorType(tensor)) = value.r#type.as_ref()?.value.as_ref() else { return None };
    let dimension = |value: &Option<Dimension>| match value {
        Some(Dimension::DimValue(value)) => u32::try_from(*value).ok().filter(|&value| value > 0),
        _ => None,
    };
    let shape = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(|dim| dimension(&dim.value)).collect());
    Some((DataType::try_from(tensor.elem_type()).ok(), shape))
}

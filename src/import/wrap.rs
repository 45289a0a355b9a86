//! The nodes around a foreign graph.

use clap::ValueEnum;
use prost::Message;
use serde::Serialize;

use super::{
    graph::{self, Info, Layout},
    proto::{
        AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
        attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto, type_proto,
    },
};

/// Names of the served graph's input and output.
const PIXELS: &str = "pixels";
const LOGIT: &str = "logit";

/// Before the names of all that is added.
const ADDED: &str = "lfm_serve/";

/// Probabilities nearer to 0 or 1 than this count as this: a logit is finite.
const SMALLEST: f32 = 1e-7;

/// What the output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// One logit (before a sigmoid).
    Logit,
    /// Two logits (before a softmax).
    TwoLogits,
    /// One probability (after a sigmoid).
    Probability,
    /// Two probabilities (after a softmax).
    TwoProbabilities,
}

impl Reading {
    /// Elements for each image.
    const fn outputs(self) -> u32 {
        match self {
            Self::Logit | Self::Probability => 1,
            Self::TwoLogits | Self::TwoProbabilities => 2,
        }
    }
}

/// The normalisation that the network was trained with: `(value - mean) / std` of values from 0 to `range`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Normalisation {
    /// What the brightest byte becomes: 1 as torchvision's `ToTensor`, or 255.
    pub range: f64,
    /// By channel: red, green, blue.
    pub mean: [f64; 3],
    /// By channel.
    pub std: [f64; 3],
}

/// What a graph does not say of itself.
#[derive(Debug, Clone, Copy)]
pub struct Spec<'a> {
    /// The input, where there are several.
    pub input: Option<&'a str>,
    /// The output, where there are several.
    pub output: Option<&'a str>,
    /// Where the channels are, if its shape does not tell.
    pub layout: Option<Layout>,
    /// Height and width, if its shape does not tell.
    pub size: Option<[u32; 2]>,
    /// None for a graph that takes bytes.
    pub normalisation: Option<Normalisation>,
    /// What its output holds.
    pub reading: Reading,
    /// Which of two outputs is "fake"; of one output 0 says that it is of "real".
    pub fake_index: u8,
}

/// The file with the nodes added, what it said of itself, and height and width of its input.
///
/// # Errors
/// Why it cannot be served, for the operator.
pub fn wrap(bytes: &[u8], spec: &Spec<'_>) -> Result<(Vec<u8>, Info, [u32; 2]), String> {
    let (mut model, mut inner) = graph::read(bytes)?;
    if inner.node.iter().any(|node| node.output.iter().any(|name| name.starts_with(ADDED))) {
        return Err("it was imported before: import the file that was exported".into());
    }
    let mut info = Info::of(&inner, spec.input, spec.output, spec.layout)?;
    if let Some(outputs) = info.outputs.filter(|&outputs| outputs != spec.reading.outputs()) {
        return Err(format!(
            "its output {} has {outputs} elements for each image, not {}",
            info.output,
            spec.reading.outputs()
        ));
    }
    let size = match (info.size, spec.size) {
        ([Some(height), Some(width)], None) => [height, width],
        (said, Some(given)) if said.iter().zip(given).all(|(said, given)| said.is_none_or(|said| said == given)) => {
            given
        }
        ([height, width], Some(_)) => {
            let show = |side: Option<u32>| side.map_or("any".into(), |side| side.to_string());
            return Err(format!("its input is of {} x {}, not of --size", show(height), show(width)));
        }
        (_, None) => return Err("its input does not tell its height and width: give --size".into()),
    };
    match (info.takes_bytes, spec.normalisation) {
        (true, Some(_)) => return Err("its input takes bytes, so that it is normalised in the graph".into()),
        (false, None) => return Err("its input takes floats: give --mean and --std".into()),
        _ => {}
    }
    // Values of the graph may have the names that the served graph's input and output have.
    rename(&mut inner);
    info.input = renamed(&info.input);
    info.output = renamed(&info.output);
    let mut nodes = Nodes::default();
    nodes.before(&info, spec);
    nodes.nodes.append(&mut inner.node);
    nodes.after(&info, spec);
    inner.node = nodes.nodes;
    inner.initializer.append(&mut nodes.constants);
    inner.input.retain(|value| value.name() != info.input);
    inner.input.insert(0, value(PIXELS, DataType::Uint8, &[i64::from(size[0]), i64::from(size[1]), 3]));
    inner.output = vec![value(LOGIT, DataType::Float, &[])];
    model.graph = Some(inner);
    Ok((ModelProto::encode_to_vec(&model), info, size))
}

fn renamed(name: &str) -> String {
    if matches!(name, PIXELS | LOGIT) { format!("foreign/{name}") } else { name.to_owned() }
}

/// Frees the names of the served graph's input and output, in subgraphs too.
fn rename(graph: &mut GraphProto) {
    let change = |name: &mut String| *name = renamed(name);
    for node in &mut graph.node {
        node.input.iter_mut().chain(&mut node.output).for_each(change);
        for attribute in &mut node.attribute {
            attribute.g.iter_mut().chain(&mut attribute.graphs).for_each(rename);
        }
    }
    let values = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    values.filter_map(|value| value.name.as_mut()).for_each(change);
    graph.initializer.iter_mut().filter_map(|tensor| tensor.name.as_mut()).for_each(change);
    let sparse = graph.sparse_initializer.iter_mut().filter_map(|tensor| tensor.values.as_mut());
    sparse.filter_map(|tensor| tensor.name.as_mut()).for_each(change);
}

/// Added nodes and their constants.
#[derive(Default)]
struct Nodes {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

impl Nodes {
    /// From `pixels` to the graph's input.
    fn before(&mut self, info: &Info, spec: &Spec<'_>) {
        let mut at = PIXELS.to_owned();
        // First, while an element is one byte.
        if info.layout == Layout::Nchw {
            at = self.node("Transpose", &[at], vec![ints("perm", &[0, 3, 1, 2])]);
        }
        if let Some(Normalisation { range, mean, std }) = spec.normalisation {
            let shape: &[i64] = if info.layout == Layout::Nchw { &[1, 3, 1, 1] } else { &[1, 1, 1, 3] };
            at = self.cast(at);
            let factor = self.floats(shape, &std.map(|std| (range / 255.0 / std) as f32));
            at = self.node("Mul", &[at, factor], Vec::new());
            let offset = self.floats(shape, &[0, 1, 2].map(|channel| (mean[channel] / std[channel]) as f32));
            at = self.node("Sub", &[at, offset], Vec::new());
        }
        self.named("Identity", &[at], &info.input);
    }

    /// From the graph's output to `logit`.
    fn after(&mut self, info: &Info, spec: &Spec<'_>) {
        let mut at = info.output.clone();
        if !info.is_float {
            at = self.cast(at);
        }
        let shape = self.integers(&[2], &[-1, i64::from(spec.reading.outputs())]);
        at = self.node("Reshape", &[at, shape], Vec::new());
        let probability = matches!(spec.reading, Reading::Probability | Reading::TwoProbabilities);
        if probability {
            let (low, high) = (self.floats(&[], &[SMALLEST]), self.floats(&[], &[1.0 - SMALLEST]));
            at = self.node("Clip", &[at, low, high], Vec::new());
        }
        let (for_fake, against) = match spec.reading {
            Reading::Logit => (at, None),
            Reading::Probability => {
                let one = self.floats(&[], &[1.0]);
                let rest = self.node("Sub", &[one, at.clone()], Vec::new());
                let rest = self.node("Log", &[rest], Vec::new());
                (self.node("Log", &[at], Vec::new()), Some(rest))
            }
            Reading::TwoLogits | Reading::TwoProbabilities => {
                if probability {
                    at = self.node("Log", &[at], Vec::new());
                }
                let [first, second] = [0, 1].map(|index| {
                    let index = self.integers(&[], &[index]);
                    self.node("Gather", &[at.clone(), index], vec![int("axis", 1)])
                });
                (second, Some(first))
            }
        };
        at = match against {
            Some(against) => self.node("Sub", &[for_fake, against], Vec::new()),
            None => for_fake,
        };
        if spec.fake_index == 0 {
            at = self.node("Neg", &[at], Vec::new());
        }
        let shape = self.integers(&[1], &[-1]);
        self.named("Reshape", &[at, shape], LOGIT);
    }

    fn cast(&mut self, from: String) -> String {
        self.node("Cast", &[from], vec![int("to", DataType::Float as i64)])
    }

    /// A node whose output gets a name of its own.
    fn node(&mut self, operator: &str, inputs: &[String], attribute: Vec<AttributeProto>) -> String {
        let output = format!("{ADDED}{}", self.nodes.len());
        self.named(operator, inputs, &output);
        if let Some(node) = self.nodes.last_mut() {
            node.attribute = attribute;
        }
        output
    }

    fn named(&mut self, operator: &str, inputs: &[String], output: &str) {
        self.nodes.push(NodeProto {
            name: Some(format!("{ADDED}node/{}", self.nodes.len())),
            op_type: Some(operator.into()),
            input: inputs.to_vec(),
            output: vec![output.into()],
            ..NodeProto::default()
        });
    }

    fn floats(&mut self, dims: &[i64], values: &[f32]) -> String {
        self.constant(TensorProto {
            dims: dims.to_vec(),
            data_type: Some(DataType::Float as i32),
            float_data: values.to_vec(),
            ..TensorProto::default()
        })
    }

    fn integers(&mut self, dims: &[i64], values: &[i64]) -> String {
        self.constant(TensorProto {
            dims: dims.to_vec(),
            data_type: Some(DataType::Int64 as i32),
            int64_data: values.to_vec(),
            ..TensorProto::default()
        })
    }

    fn constant(&mut self, tensor: TensorProto) -> String {
        let name = format!("{ADDED}constant/{}", self.constants.len());
        self.constants.push(TensorProto { name: Some(name.clone()), ..tensor });
        name
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(value),
        ..Default::default()
    }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    let (name, ints) = (Some(name.into()), values.to_vec());
    AttributeProto { name, r#type: Some(AttributeType::Ints as i32), ints, ..Default::default() }
}

/// A tensor whose first dimension is the number of images.
fn value(name: &str, element: DataType, dims: &[i64]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dimension = |value| Dimension { value: Some(value), ..Dimension::default() };
    let images = dimension(Value::DimParam("images".into()));
    let dim = std::iter::once(images).chain(dims.iter().map(|&dim| dimension(Value::DimValue(dim)))).collect();
    let tensor = type_proto::Tensor { elem_type: Some(element as i32), shape: Some(TensorShapeProto { dim }) };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto { value, ..Default::default() }),
        ..Default::default()
    }
}

//! Rows as Parquet: one table says where in a row's JSON each column comes from. The schema is an interface
//! (docs/bulk.md): columns are added at the end, never renamed or retyped.

use std::sync::Arc;

use bytes::Bytes;
use parquet::{
    basic::Compression,
    column::writer::ColumnWriter,
    data_type::ByteArray,
    errors::ParquetError,
    file::{
        properties::WriterProperties,
        reader::{FileReader, SerializedFileReader},
        writer::SerializedFileWriter,
    },
    record::Field,
    schema::{parser::parse_message_type, types::Type},
};
use serde_json::Value;

use super::row::Known;

/// What a column holds.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// In every row.
    Key,
    Text,
    /// A part of the row as JSON text.
    Json,
    /// The number of an array's elements.
    Length,
    /// Below 2^32.
    Count,
    Long,
    Float,
    Double,
    /// A list of texts, empty where there is none.
    Texts,
}

/// Name, place in the row's JSON, kind.
const COLUMNS: [(&str, &str, Kind); 32] = [
    ("path", "/path", Kind::Key),
    ("etag", "/etag", Kind::Text),
    ("model", "/model", Kind::Key),
    ("rules", "/rules", Kind::Key),
    ("error_code", "/error/code", Kind::Text),
    ("error_detail", "/error/detail", Kind::Text),
    ("verdict", "/verdict", Kind::Text),
    ("score", "/score", Kind::Double),
    ("logit", "/logit", Kind::Float),
    ("logit_raw", "/logit_raw", Kind::Float),
    ("threshold", "/threshold", Kind::Double),
    ("warnings", "/warnings", Kind::Texts),
    ("method", "/judged/method", Kind::Text),
    ("share", "/judged/share", Kind::Double),
    ("n_regions", "/judged/regions", Kind::Length),
    ("regions", "/judged/regions", Kind::Json),
    ("class", "/evidence/class", Kind::Text),
    ("real_at_or_above", "/evidence/real_at_or_above", Kind::Double),
    ("fake_at_or_below", "/evidence/fake_at_or_below", Kind::Double),
    ("n_real", "/evidence/n_real", Kind::Count),
    ("n_fake", "/evidence/n_fake", Kind::Count),
    ("false_alarms", "/evidence/operating_point/false_alarms", Kind::Double),
    ("misses", "/evidence/operating_point/misses", Kind::Double),
    ("declared", "/declared", Kind::Json),
    ("format", "/image/format", Kind::Text),
    ("width", "/image/width", Kind::Count),
    ("height", "/image/height", Kind::Count),
    ("bytes", "/image/bytes", Kind::Long),
    ("sha256", "/image/sha256", Kind::Text),
    ("frames", "/image/frames", Kind::Count),
    ("exif_orientation", "/image/exif_orientation", Kind::Count),
    ("rgb256_sha256", "/image/rgb256_sha256", Kind::Text),
];

impl Kind {
    fn parquet(self, name: &str) -> String {
        match self {
            Self::Key => format!("required binary {name} (STRING);"),
            Self::Text => format!("optional binary {name} (STRING);"),
            Self::Json => format!("optional binary {name} (JSON);"),
            Self::Length | Self::Count => format!("optional int32 {name} (INTEGER(32,false));"),
            Self::Long => format!("optional int64 {name};"),
            Self::Float => format!("optional float {name};"),
            Self::Double => format!("optional double {name};"),
            Self::Texts => {
                format!(
                    "required group {name} (LIST) {{ repeated group list {{ required binary element (STRING); }} }}"
                )
            }
        }
    }
}

fn schema(wanted: impl Fn(&str) -> bool) -> Result<Arc<Type>, ParquetError> {
    let fields = COLUMNS.iter().filter(|(name, ..)| wanted(name)).map(|(name, _, kind)| kind.parquet(name));
    let fields = fields.collect::<String>();
    parse_message_type(&format!("message scores {{ {fields} }}")).map(Arc::new)
}

/// A column's values so far, and for each row whether it has one.
enum Values {
    Texts(Vec<ByteArray>),
    Counts(Vec<i32>),
    Longs(Vec<i64>),
    Floats(Vec<f32>),
    Doubles(Vec<f64>),
}

struct Column {
    values: Values,
    definition: Vec<i16>,
    /// Of a list: 0 begins a row, 1 goes on.
    repetition: Vec<i16>,
}

/// Rows that become one file of one row group.
pub(super) struct Columns(Vec<Column>);

impl Columns {
    pub(super) fn new() -> Self {
        let column = |kind| Column {
            values: match kind {
                Kind::Key | Kind::Text | Kind::Json | Kind::Texts => Values::Texts(Vec::new()),
                Kind::Length | Kind::Count => Values::Counts(Vec::new()),
                Kind::Long => Values::Longs(Vec::new()),
                Kind::Float => Values::Floats(Vec::new()),
                Kind::Double => Values::Doubles(Vec::new()),
            },
            definition: Vec::new(),
            repetition: Vec::new(),
        };
        Self(COLUMNS.iter().map(|&(.., kind)| column(kind)).collect())
    }

    pub(super) fn add(&mut self, row: &Value) {
        for (column, (_, place, kind)) in self.0.iter_mut().zip(COLUMNS) {
            column.add(kind, row.pointer(place).filter(|value| !value.is_null()));
        }
    }

    /// The file's bytes: the same for the same rows.
    ///
    /// # Errors
    /// None that rows can cause.
    pub(super) fn encode(&self) -> Result<Vec<u8>, ParquetError> {
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let mut writer = SerializedFileWriter::new(Vec::new(), schema(|_| true)?, Arc::new(properties))?;
        let mut group = writer.next_row_group()?;
        for column in &self.0 {
            let Some(mut place) = group.next_column()? else { break };
            column.write(place.untyped())?;
            place.close()?;
        }
        group.close()?;
        writer.into_inner()
    }
}

impl Column {
    fn add(&mut self, kind: Kind, value: Option<&Value>) {
        let text = |value: &Value| ByteArray::from(value.as_str().unwrap_or_default());
        if let (Kind::Texts, Values::Texts(values)) = (kind, &mut self.values) {
            let texts = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            values.extend(texts.iter().map(text));
            self.definition.extend(texts.iter().map(|_| 1));
            self.repetition.extend((0..texts.len()).map(|index| i16::from(index > 0)));
            if texts.is_empty() {
                self.definition.push(0);
                self.repetition.push(0);
            }
            return;
        }
        let there = value.is_some_and(|value| self.values.push(kind, value));
        self.definition.push(i16::from(there));
    }

    fn write(&self, writer: &mut ColumnWriter<'_>) -> Result<usize, ParquetError> {
        let definition = Some(&*self.definition);
        let repetition = (!self.repetition.is_empty()).then_some(&*self.repetition);
        match (writer, &self.values) {
            (ColumnWriter::ByteArrayColumnWriter(writer), Values::Texts(values)) => {
                writer.write_batch(values, definition, repetition)
            }
            (ColumnWriter::Int32ColumnWriter(writer), Values::Counts(values)) => {
                writer.write_batch(values, definition, None)
            }
            (ColumnWriter::Int64ColumnWriter(writer), Values::Longs(values)) => {
                writer.write_batch(values, definition, None)
            }
            (ColumnWriter::FloatColumnWriter(writer), Values::Floats(values)) => {
                writer.write_batch(values, definition, None)
            }
            (ColumnWriter::DoubleColumnWriter(writer), Values::Doubles(values)) => {
                writer.write_batch(values, definition, None)
            }
            _ => Err(ParquetError::General("the schema and the columns differ".into())),
        }
    }
}

impl Values {
    /// Adds a row's value; says whether there is one of this kind.
    fn push(&mut self, kind: Kind, value: &Value) -> bool {
        let unsigned = match kind {
            Kind::Length => value.as_array().map(|array| array.len() as u64),
            _ => value.as_u64(),
        };
        match self {
            Self::Texts(values) if matches!(kind, Kind::Json) => {
                values.push(ByteArray::from(value.to_string().into_bytes()));
                true
            }
            Self::Texts(values) => push(values, value.as_str().map(ByteArray::from)),
            // Parquet has unsigned numbers as the bits of signed ones.
            Self::Counts(values) => push(values, unsigned.and_then(|n| u32::try_from(n).ok()).map(u32::cast_signed)),
            Self::Longs(values) => push(values, value.as_i64()),
            // An f32 in the row: the f64 of the JSON is the same number.
            Self::Floats(values) => push(values, value.as_f64().map(|number| number as f32)),
            Self::Doubles(values) => push(values, value.as_f64()),
        }
    }
}

fn push<T>(values: &mut Vec<T>, value: Option<T>) -> bool {
    let there = value.is_some();
    values.extend(value);
    there
}

/// Reads back what a run needs of a file's rows.
///
/// # Errors
/// If it is no file of ours.
pub(super) fn known(file: Bytes, mut each: impl FnMut(Known)) -> Result<(), ParquetError> {
    const WANTED: [&str; 9] =
        ["path", "etag", "model", "rules", "error_code", "verdict", "class", "n_regions", "logit"];
    let reader = SerializedFileReader::new(file)?;
    let wanted = Type::clone(&*schema(|name| WANTED.contains(&name))?);
    for row in reader.get_row_iter(Some(wanted))? {
        let mut known = Known::default();
        for (name, field) in row?.into_columns() {
            match (&*name, field) {
                ("path", Field::Str(text)) => known.path = text,
                ("etag", Field::Str(text)) => known.etag = Some(text),
                ("model", Field::Str(text)) => known.model = text,
                ("rules", Field::Str(text)) => known.rules = text,
                ("error_code", Field::Str(text)) => known.error = Some(text),
                ("verdict", Field::Str(text)) => known.verdict = Some(text),
                ("class", Field::Str(text)) => known.class = Some(text),
                ("n_regions", Field::UInt(count)) => known.regions = count as usize,
                ("logit", Field::Float(logit)) => known.logit = Some(f64::from(logit)),
                _ => {}
            }
        }
        each(known);
    }
    Ok(())
}

//! Checks an encoded `ModelInferRequest` before it is decoded: an empty element of two bytes takes a hundred bytes or
//! more decoded. The field numbers are those of `proto/inference.proto`.

use super::super::protocol::limits::{MOST_DIMENSIONS, MOST_INPUTS, MOST_PARAMETERS, MOST_STRINGS};
use crate::error::{Code, Error};

/// Limit of typed contents that no input of ours has: enough to report a wrong type.
const MOST_OTHER_CONTENTS: usize = 64 << 10;

/// Bytes that an element of a `Vec<Bytes>` takes.
const ELEMENT: usize = size_of::<bytes::Bytes>();

/// Memory of the decoded message, in addition to the encoded one, in bytes, for pixels of at most `most_numbers` bytes.
///
/// # Errors
/// `bad_request` for an invalid message, or one with more elements than the limits.
pub(super) fn decoded_bytes(message: &[u8], most_numbers: usize) -> Result<u64, Error> {
    let mut counts = Counts { most_numbers, ..Counts::default() };
    each(message, |field, value| {
        match (field, value) {
            (4, _) => counts.parameters += 1,
            (5, Value::Bytes(input)) => {
                counts.inputs += 1;
                counts.input(input)?;
            }
            (6, Value::Bytes(output)) => {
                counts.outputs += 1;
                each(output, |field, _| {
                    counts.parameters += usize::from(field == 2);
                    counts.check()
                })?;
            }
            (7, _) => counts.raw += 1,
            _ => {}
        }
        counts.check()
    })?;
    Ok((5 * counts.numbers + ELEMENT * counts.strings) as u64)
}

#[derive(Default)]
struct Counts {
    /// The most that [`Self::numbers`] may be.
    most_numbers: usize,
    inputs: usize,
    outputs: usize,
    parameters: usize,
    raw: usize,
    dimensions: usize,
    /// Elements of `uint_contents`: four bytes each when decoded, plus one as a pixel.
    numbers: usize,
    strings: usize,
    other_contents: usize,
}

impl Counts {
    fn input(&mut self, input: &[u8]) -> Result<(), Error> {
        each(input, |field, value| {
            match (field, value) {
                // A packed field has at most one element a byte.
                (3, value) => self.dimensions += value.elements(),
                (4, _) => self.parameters += 1,
                (5, Value::Bytes(contents)) => self.contents(contents)?,
                _ => {}
            }
            self.check()
        })
    }

    fn contents(&mut self, contents: &[u8]) -> Result<(), Error> {
        each(contents, |field, value| {
            match field {
                4 => self.numbers += value.elements(),
                8 => self.strings += 1,
                1..=7 => self.other_contents += value.elements(),
                _ => {}
            }
            self.check()
        })
    }

    fn check(&self) -> Result<(), Error> {
        let limits = [
            (self.inputs, MOST_INPUTS, "inputs"),
            (self.raw, MOST_INPUTS, "raw contents"),
            (self.outputs, MOST_INPUTS, "outputs"),
            (self.parameters, MOST_PARAMETERS, "parameters"),
            (self.dimensions, MOST_DIMENSIONS * MOST_INPUTS, "dimensions"),
            (self.strings, MOST_STRINGS, "strings"),
            (self.numbers, self.most_numbers, "numbers"),
            (self.other_contents, MOST_OTHER_CONTENTS, "typed contents that are neither UINT8 nor BYTES"),
        ];
        match limits.into_iter().find(|&(count, most, _)| count > most) {
            Some((_, most, what)) => Err(bad(format!("the message has more {what} than {most}"))),
            None => Ok(()),
        }
    }
}

enum Value<'a> {
    Number,
    Bytes(&'a [u8]),
}

impl Value<'_> {
    /// Upper bound of its elements as a packed field.
    fn elements(&self) -> usize {
        match self {
            Self::Number => 1,
            // The last byte of a varint has its high bit clear.
            Self::Bytes(packed) => packed.iter().filter(|&&byte| byte < 0x80).count(),
        }
    }
}

/// Calls `look` with every field of a message.
fn each<'a>(mut message: &'a [u8], mut look: impl FnMut(u64, Value<'a>) -> Result<(), Error>) -> Result<(), Error> {
    let broken = || bad("the message cannot be read".into());
    while !message.is_empty() {
        let key = varint(&mut message).ok_or_else(broken)?;
        let value = match key & 7 {
            0 => varint(&mut message).map(|_| Value::Number),
            1 => take(&mut message, 8).map(|_| Value::Number),
            2 => varint(&mut message)
                .and_then(|length| take(&mut message, usize::try_from(length).ok()?))
                .map(Value::Bytes),
            5 => take(&mut message, 4).map(|_| Value::Number),
            // Groups (3 and 4) are not in proto3.
            _ => None,
        };
        look(key >> 3, value.ok_or_else(broken)?)?;
    }
    Ok(())
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    message.split_off(..length)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *message.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn bad(detail: String) -> Error {
    Error::new(Code::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::{super::proto, *};
    use crate::image::Pixels;

    proptest! {
        /// Any accepted bytes can be decoded, within the predicted memory.
        #[test]
        fn any_bytes_are_bounded(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let found = decoded_bytes(&bytes, Pixels::LEN);
            if let Ok(decoded) = proto::ModelInferRequest::decode(bytes.as_slice()) {
                let numbers: usize =
                    decoded.inputs.iter().flat_map(|input| &input.contents).map(|contents| contents.uint_contents.len()).sum();
                if let Ok(said) = found {
                    prop_assert!(said >= 4 * numbers as u64);
                }
            }
        }
    }

    #[test]
    fn elements_are_counted_before_they_are_decoded() {
        let empty = |count: usize| [0x2a, 0].repeat(count);
        assert!(decoded_bytes(&empty(MOST_INPUTS), Pixels::LEN).is_ok());
        let error = decoded_bytes(&empty(16 << 20), Pixels::LEN).expect_err("too many");
        assert!(error.detail.contains("more inputs"), "{error}");
        let numbers = |count| {
            let contents = proto::InferTensorContents { uint_contents: vec![7; count], ..Default::default() };
            let input = proto::model_infer_request::InferInputTensor { contents: Some(contents), ..Default::default() };
            proto::ModelInferRequest { inputs: vec![input], ..Default::default() }.encode_to_vec()
        };
        assert_eq!(decoded_bytes(&numbers(1000), Pixels::LEN).expect("a message"), 5000);
        assert!(decoded_bytes(&numbers(Pixels::LEN), Pixels::LEN).is_ok());
        let error = decoded_bytes(&numbers(Pixels::LEN + 1), Pixels::LEN).expect_err("too many");
        assert!(error.detail.contains("more numbers"), "{error}");
    }
}

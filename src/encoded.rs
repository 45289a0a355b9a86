//! Base64 as clients write it: RFC 4648 with either alphabet, with or without padding, wrapped into lines, or inside a
//! `data:` URL.

use std::borrow::Cow;

use base64::{
    DecodeError, Engine, alphabet,
    engine::general_purpose::{GeneralPurpose, NO_PAD},
    prelude::BASE64_STANDARD,
};

/// Why a text is not base64. The message says what was found and never quotes more than one character.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// An address in place of the file.
    #[error("it is a URL: the server fetches nothing, so send the file's bytes in base64")]
    Url,
    /// `data:` without `;base64,`.
    #[error("it is a data: URL without `;base64,`: encode the file in base64")]
    PlainDataUrl,
    /// `+` and `-`, or `/` and `_`, in one text.
    #[error("it mixes the standard alphabet (+ /) with the URL-safe one (- _): use one of them")]
    MixedAlphabets,
    /// A space inside, most likely a `+` that form decoding took for a space.
    #[error(
        "it has a space inside, where a `+` may have been lost: encode the text again, or use the URL-safe alphabet"
    )]
    Space,
    /// Something that no alphabet has.
    #[error("it is not base64 (RFC 4648): it has the character {0:?}")]
    Symbol(char),
    /// The number of symbols or of `=` is one that no file has.
    #[error("it is not base64 (RFC 4648): its length or its padding is wrong, so a part of the text is missing")]
    Length,
    /// Bits behind the last byte.
    #[error("it is not base64 (RFC 4648): its last symbol is wrong, so a part of the text is missing")]
    TrailingBits,
    /// The decoded bytes do not fit into memory.
    #[error("there is no memory for it")]
    Memory,
}

const NO_PADDING: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, NO_PAD);

/// Most bytes that a text of this length decodes to.
pub fn most_bytes(text_length: usize) -> usize {
    text_length.div_ceil(4) * 3
}

/// Decodes. Takes [`most_bytes`] of memory beside the text.
///
/// # Errors
/// What is wrong with the text.
pub fn decode(text: &str) -> Result<Vec<u8>, Fault> {
    let text = text.trim_ascii();
    let starts_with = |prefix: &str| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if starts_with("http://") || starts_with("https://") {
        return Err(Fault::Url);
    }
    let (symbols, in_url) = if starts_with("data:") {
        let (kind, symbols) = text.split_once(',').ok_or(Fault::PlainDataUrl)?;
        let is_base64 = kind.rsplit(';').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("base64"));
        (if is_base64 { symbols } else { return Err(Fault::PlainDataUrl) }, true)
    } else {
        (text, false)
    };
    let mut decoded = Vec::new();
    decoded.try_reserve_exact(most_bytes(symbols.len())).map_err(|_| Fault::Memory)?;
    // The common form at full speed; the others symbol by symbol.
    if BASE64_STANDARD.decode_vec(symbols, &mut decoded).is_err() {
        decoded.clear();
        let symbols = if in_url && symbols.contains('%') { unescape(symbols)? } else { Cow::Borrowed(symbols) };
        tolerant(&symbols, &mut decoded)?;
    }
    Ok(decoded)
}

/// A URL's text without its percent escapes.
fn unescape(text: &str) -> Result<Cow<'_, str>, Fault> {
    let mut parts = text.split('%');
    let mut plain = String::new();
    plain.try_reserve_exact(text.len()).map_err(|_| Fault::Memory)?;
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let code = part.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok()).ok_or(Fault::Symbol('%'))?;
        plain.push(char::from(code));
        plain.push_str(&part[2..]);
    }
    Ok(Cow::Owned(plain))
}

fn tolerant(text: &str, decoded: &mut Vec<u8>) -> Result<(), Fault> {
    // A multiple of four symbols, so that only the last block can be short.
    let mut block = [0; 4096];
    let mut filled = 0;
    let mut alphabets = [false; 2];
    let mut padding = 0;
    for symbol in text.chars() {
        let (symbol, alphabet) = match symbol {
            '\r' | '\n' => continue,
            '=' => {
                padding += 1;
                continue;
            }
            ' ' | '\t' => return Err(Fault::Space),
            _ if padding > 0 => return Err(Fault::Length),
            '+' | '/' => (symbol as u8, Some(0)),
            '-' => (b'+', Some(1)),
            '_' => (b'/', Some(1)),
            'A'..='Z' | 'a'..='z' | '0'..='9' => (symbol as u8, None),
            other => return Err(Fault::Symbol(other)),
        };
        if let Some(alphabet) = alphabet {
            alphabets[alphabet] = true;
        }
        if alphabets == [true; 2] {
            return Err(Fault::MixedAlphabets);
        }
        block[filled] = symbol;
        filled += 1;
        if filled == block.len() {
            NO_PADDING.decode_vec(block, decoded).map_err(|_| Fault::Length)?;
            filled = 0;
        }
    }
    if padding != 0 && (filled + padding) % 4 != 0 || padding > 2 {
        return Err(Fault::Length);
    }
    NO_PADDING.decode_vec(&block[..filled], decoded).map_err(|error| match error {
        DecodeError::InvalidLastSymbol { .. } => Fault::TrailingBits,
        _ => Fault::Length,
    })
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every way to write the same bytes gives them back; both alphabets in one text never do.
        #[test]
        fn every_way_to_write_it_gives_the_bytes_back(
            bytes in prop::collection::vec(any::<u8>(), 0..9000),
            width in 1..200usize,
        ) {
            let plain = [
                BASE64_STANDARD.encode(&bytes),
                BASE64_STANDARD_NO_PAD.encode(&bytes),
                BASE64_URL_SAFE.encode(&bytes),
                BASE64_URL_SAFE_NO_PAD.encode(&bytes),
            ];
            for text in plain {
                let lines: Vec<_> = text.as_bytes().chunks(width).map(|line| str::from_utf8(line).expect("ASCII")).collect();
                let percent = text.replace('+', "%2B").replace('/', "%2f").replace('=', "%3D");
                for written in [
                    lines.join("\n"),
                    lines.join("\r\n") + "\r\n",
                    format!("data:image/png;base64,{text}"),
                    format!("DATA:;charset=x;BASE64,{percent}"),
                    text.clone(),
                ] {
                    prop_assert_eq!(decode(&written), Ok(bytes.clone()), "{}", written);
                }
                let used = |symbols: [char; 2]| text.contains(symbols);
                if used(['+', '/']) {
                    prop_assert_eq!(decode(&format!("-AAA{text}")), Err(Fault::MixedAlphabets));
                }
                if used(['-', '_']) {
                    prop_assert_eq!(decode(&format!("+AAA{text}")), Err(Fault::MixedAlphabets));
                }
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>(), symbols in "[A-Za-z0-9+/=_ %:,\\-\r\n-]{0,100}") {
            for text in [text, format!("data:;base64,{symbols}"), symbols] {
                if let Ok(bytes) = decode(&text) {
                    prop_assert!(bytes.len() <= most_bytes(text.len()));
                }
            }
        }
    }

    #[test]
    fn what_is_no_base64_is_named() {
        let cases = [
            ("https://example.com/a.jpg", Fault::Url),
            ("data:image/svg+xml,%3Csvg", Fault::PlainDataUrl),
            ("data:image/png", Fault::PlainDataUrl),
            ("AA+_", Fault::MixedAlphabets),
            ("AA AA", Fault::Space),
            ("AAA*", Fault::Symbol('*')),
            ("A", Fault::Length),
            ("AA=", Fault::Length),
            ("AA=A", Fault::Length),
            ("AAAA====", Fault::Length),
            ("AB", Fault::TrailingBits),
            ("data:;base64,AA%é", Fault::Symbol('%')),
        ];
        for (text, fault) in cases {
            assert_eq!(decode(text), Err(fault), "{text}");
        }
        assert_eq!(decode(""), Ok(Vec::new()));
    }
}

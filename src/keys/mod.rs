//! API keys: who may send requests, and with how many images in flight.
//!
//! A file holds one key per line, as the key's SHA-256; `#` starts a comment line:
//!
//! ```text
//! name:sha256-hex[:max_in_flight=N][:weight=N]
//! ```
//!
//! A plain hash suffices: salts and slow hashes (Argon2, bcrypt) protect secrets that can be guessed. A key is 256
//! random bits, and a slow hash would add milliseconds to every request.

mod file;

use std::{num::NonZeroU32, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

pub use file::KeysFile;

/// Prefix of every key, so that secret scanners recognise leaked keys.
const PREFIX: &str = "lfm_";

/// Random bytes of a key.
const KEY_BYTES: usize = 32;

/// The longest name of a key, in bytes: it is part of every access line.
const LONGEST_NAME: usize = 64;

/// One key of the file.
#[derive(Debug)]
pub struct Key {
    name: String,
    hash: [u8; 32],
    max_in_flight: Option<NonZeroU32>,
    weight: NonZeroU32,
    places: Option<Arc<Semaphore>>,
}

impl Key {
    /// Name of the key's owner.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Weight in fair sharing: a key of weight 2 gets twice the share of one of weight 1.
    pub fn weight(&self) -> NonZeroU32 {
        self.weight
    }

    /// Permits for its images in flight, if they are capped.
    pub fn places(&self) -> Option<&Arc<Semaphore>> {
        self.places.as_ref()
    }
}

/// The keys of one file.
#[derive(Debug, Default)]
pub struct Keys(Vec<Arc<Key>>);

/// An error in the file. It never quotes the file, which may contain a key by mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    line: usize,
    what: &'static str,
}

impl Keys {
    /// Parses a file's text. A key with the same name and cap in `before` keeps its semaphore, so that its images in
    /// flight still count.
    ///
    /// # Errors
    /// The first invalid line.
    pub fn parse(text: &str, before: &Self) -> Result<Self, ParseError> {
        let mut keys = Self::default();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let key = parse_line(text, before).map_err(|what| ParseError { line, what })?;
            if keys.0.iter().any(|other| other.name == key.name) {
                return Err(ParseError { line, what: "the name is also on an earlier line" });
            }
            if keys.0.iter().any(|other| other.hash == key.hash) {
                return Err(ParseError { line, what: "the hash is also on an earlier line" });
            }
            keys.0.push(Arc::new(key));
        }
        Ok(keys)
    }

    /// The key that a caller presented, if it is one of these.
    pub fn find(&self, presented: &[u8]) -> Option<&Arc<Key>> {
        // `printf %s "$KEY" | sha256sum` with KEY unset makes a line that the empty key would match.
        if presented.is_empty() {
            return None;
        }
        let hash: [u8; 32] = Sha256::digest(presented).into();
        // All are compared, each in constant time, so that timing reveals nothing about the hashes.
        self.0.iter().fold(None, |found, key| if key.hash.ct_eq(&hash).into() { Some(key) } else { found })
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key, so that every request is refused.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn parse_line(text: &str, before: &Keys) -> Result<Key, &'static str> {
    let mut fields = text.split(':');
    let name = fields.next().filter(|name| is_name(name)).ok_or(NAME_RULE)?;
    let hash =
        fields.next().and_then(sha256_hex).ok_or("after the name and `:` come the 64 hex digits of a SHA-256")?;
    let (mut max_in_flight, mut weight) = (None, None);
    for field in fields {
        let (option, number) = field.split_once('=').ok_or(OPTIONS_RULE)?;
        let option = match option {
            "max_in_flight" => &mut max_in_flight,
            "weight" => &mut weight,
            _ => return Err(OPTIONS_RULE),
        };
        let number = number.parse::<NonZeroU32>().map_err(|_| OPTIONS_RULE)?;
        if option.replace(number).is_some() {
            return Err("an option is given twice");
        }
    }
    let weight = weight.unwrap_or(NonZeroU32::MIN);
    let known = before.0.iter().find(|key| key.name == name && key.max_in_flight == max_in_flight);
    let places = known.map_or_else(
        || max_in_flight.map(|most: NonZeroU32| Arc::new(Semaphore::new(most.get() as usize))),
        |key| key.places.clone(),
    );
    Ok(Key { name: name.into(), hash, max_in_flight, weight, places })
}

const OPTIONS_RULE: &str = "after the hash come max_in_flight=N and weight=N, N above 0";

const NAME_RULE: &str = "a name is 1 to 64 letters, digits, `-`, `_` and `.`";

fn is_name(text: &str) -> bool {
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(sane)
}

fn sha256_hex(text: &str) -> Option<[u8; 32]> {
    // Checked separately: `from_str_radix` accepts a sign.
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(hash)
}

/// A new key: only now its text is known.
#[derive(Debug)]
pub struct NewKey {
    /// For the caller.
    pub key: String,
    /// For the keys file.
    pub line: String,
}

impl NewKey {
    /// Generates a key from the system's random source.
    ///
    /// # Errors
    /// An invalid name; no random source.
    pub fn make(
        name: &str,
        max_in_flight: Option<NonZeroU32>,
        weight: Option<NonZeroU32>,
    ) -> Result<Self, anyhow::Error> {
        anyhow::ensure!(is_name(name), "{name:?} is not a valid key name: {NAME_RULE}");
        let mut secret = [0; KEY_BYTES];
        getrandom::fill(&mut secret)?;
        let key = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(secret));
        let hash = crate::hex(&Sha256::digest(&key));
        let cap = max_in_flight.map(|most| format!(":max_in_flight={most}")).unwrap_or_default();
        let weight = weight.map(|weight| format!(":weight={weight}")).unwrap_or_default();
        let line = format!("{name}:{hash}{cap}{weight}");
        Ok(Self { key, line })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Keys, ParseError> {
        Keys::parse(text, &Keys::default())
    }

    fn hash(key: &str) -> String {
        crate::hex(&Sha256::digest(key))
    }

    #[test]
    fn the_hash_is_what_sha256sum_prints() {
        // printf %s abc | sha256sum
        let keys = parse("a:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").expect("one key");
        assert_eq!(keys.find(b"abc").expect("found").name(), "a");
        assert!(keys.find(b"abd").is_none());
    }

    #[test]
    fn an_empty_key_is_never_accepted() {
        let keys = parse(&format!("a:{}", hash(""))).expect("one key");
        assert!(keys.find(b"").is_none());
    }

    #[test]
    fn lines_give_names_caps_and_comments() {
        let text =
            format!("# ours\n\n one:{}\r\nt.w-o_2:{}:weight=3:max_in_flight=7", hash("1"), hash("2").to_uppercase());
        let keys = parse(&text).expect("two keys");
        assert_eq!(keys.len(), 2);
        let one = keys.find(b"1").expect("found");
        assert!(one.name() == "one" && one.places().is_none() && one.weight() == NonZeroU32::MIN);
        let two = keys.find(b"2").expect("found");
        assert_eq!((two.name(), two.places().map(|places| places.available_permits())), ("t.w-o_2", Some(7)));
        assert_eq!(two.weight().get(), 3);
        assert!(parse("# nobody").expect("no keys").is_empty());
    }

    #[test]
    fn errors_name_the_line_and_never_quote_it() {
        let good = hash("k");
        let cases = [
            ("lfm_this-is-the-key-itself".into(), "64 hex digits"),
            (format!(":{good}"), "a name is"),
            (format!("two words:{good}"), "a name is"),
            (format!("{}:{good}", "n".repeat(65)), "a name is"),
            (format!("a:{}", &good[1..]), "64 hex digits"),
            (format!("a:+{}", &good[1..]), "64 hex digits"),
            (format!("a:{good}:"), "max_in_flight"),
            (format!("a:{good}:max_in_flight=0"), "max_in_flight"),
            (format!("a:{good}:max_in_flight=99999999999999999999"), "max_in_flight"),
            (format!("a:{good}:max_in_flight={}", usize::MAX), "max_in_flight"),
            (format!("a:{good}:max_in_flight=1:x"), "weight=N"),
            (format!("a:{good}:weight=0"), "weight=N"),
            (format!("a:{good}:weight=1:weight=2"), "twice"),
            (format!("a:{good}\na:{}", hash("other")), "name is also"),
            (format!("a:{good}\nb:{good}"), "hash is also"),
        ];
        for (text, expected) in cases {
            let error = parse(&text).expect_err(&text);
            assert_eq!(error.line, text.lines().count(), "{text}");
            let message = error.to_string();
            assert!(message.contains(expected) && !message.contains("itself") && !message.contains(&good), "{message}");
        }
    }

    #[test]
    fn an_unchanged_cap_keeps_counting_images_in_flight() {
        let line = |cap: &str| format!("a:{}{cap}", hash("k"));
        let before = parse(&line(":max_in_flight=2")).expect("a key");
        let places = |keys: &Keys| keys.find(b"k").expect("found").places().cloned();
        let _held = places(&before).expect("places").try_acquire_owned().expect("a place");
        let left = |text: &str| {
            let after = Keys::parse(text, &before).expect("a key");
            places(&after).map(|places| places.available_permits())
        };
        assert_eq!(left(&line(":max_in_flight=2")), Some(1));
        assert_eq!(left(&line(":max_in_flight=3")), Some(3));
        assert_eq!(left(&line("")), None);
    }

    #[test]
    fn a_new_key_matches_its_line_and_all_differ() {
        let one = NewKey::make("a", NonZeroU32::new(3), NonZeroU32::new(2)).expect("made");
        let two = NewKey::make("b", None, None).expect("made");
        assert!(one.key.starts_with("lfm_") && one.key.len() == 47 && one.key != two.key);
        let keys = parse(&format!("{}\n{}", one.line, two.line)).expect("two keys");
        assert_eq!(keys.find(one.key.as_bytes()).expect("found").name(), "a");
        assert_eq!(keys.find(two.key.as_bytes()).expect("found").name(), "b");
        assert!(!one.line.contains(&one.key[4..]) && one.line.ends_with(":max_in_flight=3:weight=2"));
        assert!(NewKey::make("a b", None, None).is_err());
    }

    proptest! {
        /// Any text gives keys or an error, and only a key is accepted.
        #[test]
        fn any_text_is_parsed_or_refused(text in "(?s).{0,200}", presented in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(keys) = parse(&text) {
                prop_assert!(keys.find(&presented).is_none());
            }
        }

        #[test]
        fn of_many_keys_each_is_found_by_name(count in 1..20usize, asked in 0..20usize) {
            let text: Vec<_> = (0..count).map(|i| format!("n{i}:{}", hash(&format!("key {i}")))).collect();
            let keys = parse(&text.join("\n")).expect("keys");
            let found = keys.find(format!("key {asked}").as_bytes()).map(|key| key.name().to_owned());
            prop_assert_eq!(found, (asked < count).then(|| format!("n{asked}")));
        }
    }
}

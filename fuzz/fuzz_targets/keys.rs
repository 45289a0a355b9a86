//! Any text of a keys file: keys or an error that names a line, and the same when it is read again.

#![no_main]

use lfm_serve::keys::Keys;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let lines = text.lines().count();
    match Keys::parse(text, &Keys::default()) {
        Ok(keys) => {
            assert!(keys.len() <= lines);
            assert!(keys.find(b"").is_none());
            let again = Keys::parse(text, &keys).expect("what was right is right again");
            assert_eq!(again.len(), keys.len());
        }
        // It never quotes the file, which may hold a key.
        Err(error) => assert!(error.to_string().len() < 120, "{error}"),
    }
});

//! Any manifest: refused in one line, or everything that a start makes of it works.

#![no_main]

use std::{
    fs,
    path::Path,
    sync::{Arc, LazyLock},
};

use lfm_serve::{app, config::JudgeConfig, metrics::Metrics, model::Manifest};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    // In memory, where there is such a place.
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.expect("a folder")
});

fuzz_target!(|text: &[u8]| {
    fs::write(FOLDER.path().join("manifest.json"), text).expect("written");
    match Manifest::read(FOLDER.path()) {
        Ok(manifest) => {
            let manifest = Arc::new(manifest);
            let models = app::models([Arc::clone(&manifest)], &JudgeConfig::default(), &[]);
            let models = models.expect("the manifest's own rules");
            let metrics = Metrics::new(&app::identity(&models), app::series()).expect("metrics");
            metrics.encode().expect("text");
            for name in manifest.file_names() {
                // Of the folder itself: there is none.
                assert!(manifest.read_file(FOLDER.path(), name).is_err() || name == "manifest.json");
            }
        }
        Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
    }
});

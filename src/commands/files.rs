//! Files named on the command line, and those in folders.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// Endings by which a file in a folder is taken for an image. What it really is, its content tells.
const ENDINGS: &[&str] = &["jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff"];

/// Files as they are named, folders with all the images below them, sorted by name.
///
/// # Errors
/// The first path that does not exist or cannot be listed.
pub(super) fn images(paths: &[PathBuf]) -> Result<Vec<PathBuf>, anyhow::Error> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(images_below(path)?);
        } else {
            // Whether it can be read shows when it is scored: one bad path does not stop the others.
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// The images below a folder, sorted by name.
///
/// # Errors
/// If the folder cannot be listed.
pub(super) fn images_below(folder: &Path) -> Result<Vec<PathBuf>, anyhow::Error> {
    let mut files = Vec::new();
    for entry in WalkDir::new(folder).follow_links(true).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_file() && has_image_ending(entry.path()) {
            files.push(entry.into_path());
        }
    }
    Ok(files)
}

fn has_image_ending(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

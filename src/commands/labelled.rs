//! The labelled images below a folder.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::files::Found;

const REAL: &str = "0_real";
const FAKE: &str = "1_fake";

/// A labelled image.
pub(super) struct Labelled {
    pub(super) file: PathBuf,
    pub(super) source: String,
    /// The file's path below the folder of its label, up to the first dot of its name: what files of one picture share.
    pub(super) picture: String,
    pub(super) fake: bool,
}

/// All labelled images, and the files beside them that are no pictures.
///
/// # Errors
/// If there are none, for the user.
pub(super) fn find(folder: &Path) -> Result<(Vec<Labelled>, Found), anyhow::Error> {
    let mut labelled = Vec::new();
    let mut found = Found::default();
    for (source, place) in sources(folder)? {
        for (fake, class) in [(false, REAL), (true, FAKE)] {
            let class = place.join(class);
            if class.is_dir() {
                found.add_below(&class);
                let files = found.images.drain(..);
                labelled.extend(files.map(|file| {
                    let picture = picture(file.strip_prefix(&class).unwrap_or(&file));
                    Labelled { file, source: source.clone(), picture, fake }
                }));
            }
        }
    }
    anyhow::ensure!(!labelled.is_empty(), "no images in {}/<source>/{{{REAL},{FAKE}}}", folder.display());
    Ok((labelled, found))
}

/// A path without what follows the first dot of its file name.
fn picture(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.split('.').next().unwrap_or_default();
    path.with_file_name(name).to_string_lossy().into_owned()
}

/// The sources below a folder, by name; a source of a set is named `set/source`.
fn sources(folder: &Path) -> Result<BTreeMap<String, PathBuf>, anyhow::Error> {
    let mut sources = BTreeMap::new();
    if is_source(folder) {
        let name = folder.file_name().map_or_else(|| "all".into(), |name| name.to_string_lossy().into_owned());
        sources.insert(name, folder.to_path_buf());
        return Ok(sources);
    }
    for (name, child) in folders(folder)? {
        if is_source(&child) {
            sources.insert(name, child);
            continue;
        }
        for (inner, grandchild) in folders(&child)? {
            if is_source(&grandchild) {
                sources.insert(format!("{name}/{inner}"), grandchild);
            }
        }
    }
    anyhow::ensure!(!sources.is_empty(), "{} holds no <source>/{{{REAL},{FAKE}}} folders", folder.display());
    Ok(sources)
}

fn is_source(folder: &Path) -> bool {
    folder.join(REAL).is_dir() || folder.join(FAKE).is_dir()
}

fn folders(folder: &Path) -> Result<Vec<(String, PathBuf)>, anyhow::Error> {
    let entries = fs::read_dir(folder).map_err(|error| anyhow::anyhow!("cannot list {}: {error}", folder.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir());
    Ok(paths.filter_map(|path| Some((path.file_name()?.to_string_lossy().into_owned(), path.clone()))).collect())
}

//! Files named on the command line, and those in folders. In a folder every regular file is looked into: a name is no
//! type.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use walkdir::{DirEntry, WalkDir};

use crate::image::{self, ImageError};

/// Endings of pictures, those that cannot be judged included: such a file is an error, not left out.
const ENDINGS: &[&str] = &[
    "jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff", "heic", "heif",
    "hif", "avif", "jxl", "jp2", "dng", "cr2", "cr3", "nef", "arw", "orf", "rw2", "raf", "pef", "srw", "psd",
];

/// What file managers, cameras and network drives put beside pictures, in lower case.
const HOUSEKEEPING: &[&str] =
    &["thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin"];

/// Bytes by which a file is recognised.
const HEAD_BYTES: u64 = 1024;

/// How many names a summary shows.
const SHOWN: usize = 5;

/// Files, sorted by name below each folder.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Named by the caller, or pictures by content or by name. Whether they can be judged shows when they are.
    pub(super) images: Vec<PathBuf>,
    /// Neither.
    pub(super) others: Vec<PathBuf>,
}

impl Found {
    /// Files as they are named, and all files below folders.
    pub(super) fn at(paths: &[PathBuf]) -> Self {
        let mut found = Self::default();
        for path in paths {
            if path.is_dir() {
                found.add_below(path);
            } else {
                found.images.push(path.clone());
            }
        }
        found
    }

    /// Adds all files below a folder.
    pub(super) fn add_below(&mut self, folder: &Path) {
        for (path, there) in files_below(folder) {
            let files = if !there || is_picture(&path) { &mut self.images } else { &mut self.others };
            files.push(path);
        }
    }

    /// One line about the files that are no pictures, if there are any.
    pub(super) fn no_pictures(&self) -> Option<String> {
        let names: Vec<_> = self.others.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
        let names = names.join(", ");
        match self.others.len() {
            0 => None,
            1 => Some(format!("1 file is no picture: {names}")),
            count if count <= SHOWN => Some(format!("{count} files are no pictures: {names}")),
            count => Some(format!("{count} files are no pictures: {names} and {} more", count - SHOWN)),
        }
    }
}

/// All files below a folder, sorted by name within each, and whether each could be found: reading one that could not
/// says why.
pub(super) fn files_below(folder: &Path) -> impl Iterator<Item = (PathBuf, bool)> + use<> {
    let entries = WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
    let wanted = |entry: &DirEntry| entry.depth() == 0 || !is_housekeeping(&entry.file_name().to_string_lossy());
    entries.filter_entry(wanted).filter_map(|entry| match entry {
        Ok(entry) => entry.file_type().is_file().then(|| (entry.into_path(), true)),
        // A link to a folder above: what is there is found anyway.
        Err(error) if error.loop_ancestor().is_some() => None,
        Err(error) => error.path().map(|path| (path.to_path_buf(), false)),
    })
}

/// Whether this is the name of a hidden file, or of what programs keep for themselves.
pub(super) fn is_housekeeping(name: &str) -> bool {
    let name = name.to_lowercase();
    name.starts_with('.') || HOUSEKEEPING.contains(&&*name)
}

/// Whether this is called as pictures are.
pub(super) fn is_named_as_picture(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    ending.is_some_and(|ending| ENDINGS.contains(&&*ending))
}

/// By its name or by its content: a picture that is recognised and not read here counts as well.
fn is_picture(path: &Path) -> bool {
    if is_named_as_picture(path) {
        return true;
    }
    let mut start = Vec::new();
    if File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut start)).is_err() {
        // One that cannot be read is not left out silently.
        return true;
    }
    match image::inspect(&start, &image::Limits::default()) {
        Err(ImageError::Empty | ImageError::UnknownFormat) => false,
        Err(ImageError::Foreign(kind)) => kind.is_still(),
        // Of a picture that is cut here the header may lie further behind.
        Ok(_) | Err(_) => true,
    }
}

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
        let entries = WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
        for entry in entries.filter_entry(|entry| entry.depth() == 0 || !is_housekeeping(entry)) {
            match entry {
                Ok(entry) if !entry.file_type().is_file() => {}
                Ok(entry) if is_picture(entry.path()) => self.images.push(entry.into_path()),
                Ok(entry) => self.others.push(entry.into_path()),
                // A link to a folder above: what is there is found anyway.
                Err(error) if error.loop_ancestor().is_some() => {}
                // Reading it says why it cannot be judged.
                Err(error) => self.images.extend(error.path().map(Path::to_path_buf)),
            }
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

/// Hidden files, and what programs keep for themselves.
fn is_housekeeping(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy().to_lowercase();
    name.starts_with('.') || HOUSEKEEPING.contains(&&*name)
}

/// By its name or by its content: a picture that is recognised and not read here counts as well.
fn is_picture(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    if ending.is_some_and(|ending| ENDINGS.contains(&&*ending)) {
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

//! A file that is renamed when it is full. The crates that rotate by size (`file-rotate`, `rolling-file`) do not let
//! their file be synced, which the audit log promises.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The file and its older parts `path.1` (the newest) to `path.keep`.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    max_bytes: u64,
    keep: usize,
    file: File,
    bytes: u64,
    /// A write failed half way: the next line begins on a line of its own.
    torn: bool,
}

impl RotatingFile {
    pub(super) fn open(path: &Path, max_bytes: u64, keep: usize) -> io::Result<Self> {
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_path_buf(), max_bytes, keep, file, bytes, torn: false })
    }

    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.max_bytes {
            self.rotate()?;
        }
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        let written = self.file.write_all(line);
        match &written {
            Ok(()) => self.bytes += line.len() as u64,
            Err(_) => self.torn = true,
        }
        written
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        let part = |number: usize| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.keep).rev() {
            match fs::rename(part(number), part(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.keep > 0 {
            fs::rename(&self.path, part(1))?;
        } else {
            fs::remove_file(&self.path)?;
        }
        self.file = append(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

/// Readable by the owner alone: the lines say who sent what.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_are_renamed_and_the_oldest_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        let mut file = RotatingFile::open(&path, 10, 2).expect("opened");
        for line in ["one.....\n", "two\n", "three...\n", "four....\n"] {
            file.write(line.as_bytes()).expect("written");
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        assert_eq!(read("audit.jsonl"), "four....\n");
        assert_eq!(read("audit.jsonl.1"), "three...\n");
        assert_eq!(read("audit.jsonl.2"), "two\n");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 3);
    }
}

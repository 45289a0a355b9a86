//! Pillow in a separate Python process, which executes commands, one per line.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde::Serialize;

const SCRIPT: &str = include_str!("pillow.py");

/// The reference's version.
const REFERENCE: &str = "11.3.0";

/// The Pillow that was found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Found {
    /// A Pillow of this version.
    Version(String),
    /// None, and why.
    Absent(String),
}

impl Found {
    /// Note below a table, unless it is the reference's version.
    pub(super) fn remark(&self) -> Option<String> {
        match self {
            Self::Version(version) if version == REFERENCE => None,
            Self::Version(version) => Some(format!("This is Pillow {version}; the reference is {REFERENCE}.")),
            Self::Absent(reason) => Some(format!(
                "Not measured against Pillow: {reason}. `make bench` installs it; --python names a Python that has it."
            )),
        }
    }
}

/// The process.
pub(super) struct Pillow {
    process: Child,
    /// `None` once the process has been told to end.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Pillow {
    /// Starts `python`, else the checkout's .venv-pillow, else `python3`; reports if it has no Pillow.
    pub(super) fn start(python: Option<&Path>) -> (Option<Self>, Found) {
        let python = python.map_or_else(default_python, Path::to_path_buf);
        match Self::greet(&python) {
            Ok((pillow, version)) => (Some(pillow), Found::Version(version)),
            Err(reason) => (None, Found::Absent(format!("{}: {reason}", python.display()))),
        }
    }

    fn greet(python: &Path) -> Result<(Self, String), anyhow::Error> {
        let mut process = Command::new(python)
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (commands, answers) = (process.stdin.take(), process.stdout.take());
        let answers = BufReader::new(answers.ok_or_else(|| anyhow::anyhow!("no standard output"))?);
        let mut pillow = Self { process, commands, answers };
        let greeting = pillow.answer()?;
        match greeting.split_once(' ') {
            Some(("pillow", version)) => Ok((pillow, version.to_owned())),
            Some(("absent", reason)) => anyhow::bail!("{reason}"),
            _ => anyhow::bail!("not a Python with Pillow"),
        }
    }

    /// Loads a JPEG for the following tasks; returns the SHA-256 of its 256x256 pixels and those of the regions, in
    /// hexadecimal.
    pub(super) fn load(&mut self, jpeg: &[u8], regions: &[[u32; 4]]) -> Result<String, anyhow::Error> {
        let regions = regions.iter().map(|[x0, y0, x1, y1]| format!(" {x0},{y0},{x1},{y1}")).collect::<String>();
        self.tell(format!("load {}{regions}\n", jpeg.len()).as_bytes())?;
        self.tell(jpeg)?;
        self.answer()
    }

    /// Runs a task once; returns its CPU seconds.
    pub(super) fn time(&mut self, task: &str) -> Result<f64, anyhow::Error> {
        self.tell(format!("{task}\n").as_bytes())?;
        let answer = self.answer()?;
        let nanoseconds: f64 =
            answer.parse().map_err(|_| anyhow::anyhow!("Pillow's process answered {answer:?} to {task}"))?;
        Ok(nanoseconds / 1e9)
    }

    fn tell(&mut self, bytes: &[u8]) -> Result<(), anyhow::Error> {
        let told = self.commands.as_mut().map(|commands| commands.write_all(bytes).and_then(|()| commands.flush()));
        told.ok_or_else(ended)?.map_err(|_| ended())
    }

    fn answer(&mut self) -> Result<String, anyhow::Error> {
        let mut line = String::new();
        match self.answers.read_line(&mut line)? {
            0 => Err(ended()),
            _ => Ok(line.trim().to_owned()),
        }
    }
}

fn ended() -> anyhow::Error {
    anyhow::anyhow!("Pillow's process has ended")
}

impl Drop for Pillow {
    fn drop(&mut self) {
        // The process ends at the end of its input.
        self.commands.take();
        let _ = self.process.wait();
    }
}

fn default_python() -> PathBuf {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv-pillow/bin/python");
    if checkout.is_file() { checkout } else { "python3".into() }
}

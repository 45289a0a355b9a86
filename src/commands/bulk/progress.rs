//! How far a run is: a bar on a terminal, else a line for each part file, as a pod's log wants it.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::commands::progress::progress_style;

pub(super) struct Progress {
    bar: ProgressBar,
    on_terminal: bool,
    begun: Instant,
    /// How many pictures there are to score, once they have been counted.
    all: Option<u64>,
    done: u64,
}

impl Progress {
    pub(super) fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} {pos} images  {per_sec}  (counting)");
        let bar = ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self { bar, on_terminal: stderr().is_terminal(), begun: Instant::now(), all: None, done: 0 }
    }

    /// The pictures to score have been counted.
    pub(super) fn counted(&mut self, all: u64) {
        self.bar.set_style(progress_style());
        self.bar.set_length(all);
        self.all = Some(all);
    }

    pub(super) fn one_more(&mut self) {
        self.done += 1;
        self.bar.inc(1);
    }

    /// A part file was written.
    pub(super) fn written(&self, name: &str) {
        if self.on_terminal {
            return;
        }
        let rate = self.done as f64 / self.begun.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        let left = self.all.map(|all| {
            let seconds = all.saturating_sub(self.done) as f64 / rate.max(f64::MIN_POSITIVE);
            let left = HumanDuration(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
            format!(" of {all}, {left} left")
        });
        eprintln!("lfm-serve: {name}: {} images{}, {rate:.1} images/s", self.done, left.unwrap_or_default());
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

//! How far a command is through its images.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on standard error: hidden where that is no terminal, and on runs too short to want one.
pub(super) fn progress_bar(files: usize) -> ProgressBar {
    const WORTH_A_BAR: usize = 16;
    if files < WORTH_A_BAR {
        return ProgressBar::hidden();
    }
    ProgressBar::new(files as u64).with_style(progress_style())
}

/// Of a bar whose length is known.
pub(super) fn progress_style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} images  {per_sec}  {eta} left");
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}

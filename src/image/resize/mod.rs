//! Pillow 11.3's `ImagingResample` with the bilinear (triangle) and the bicubic filter, byte for byte
//! (libImaging Resample.c): 22-bit fixed-point weights, the horizontal pass rounded to 8 bits, then the
//! vertical pass. Where a part of the result is wanted (a centre crop), only that part is computed.
//!
//! Rows are consumed as they are decoded. Each is resized and added, weighted, to the sums of the
//! output rows that it affects, so there is no intermediate image. Integer sums do not depend on their order, so the
//! result equals that of Pillow's pass over columns.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod scalar;
#[cfg(test)]
mod tests;
mod windows;

use std::collections::VecDeque;

use super::{
    Pixels,
    fit::{AxisFit, Filter, Fit},
    rows::RowSink,
};
pub(super) use windows::source_span;
use windows::{Axis, Window};

/// Resizes images one after another, reusing its buffers.
pub(super) struct Resizer {
    kernel: Kernel,
    horizontal: Horizontal,
    /// The current row after the horizontal pass.
    shortened: Vec<u8>,
    vertical: Vertical,
}

/// Which implementation runs; all give the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
}

impl Kernel {
    fn fastest() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = avx2::Avx2::detect() {
            return Self::Avx2(avx2);
        }
        Self::Scalar
    }

    fn add_weighted(self, row: &[u8], weight: i32, sums: &mut [i32]) {
        match self {
            Self::Scalar => scalar::add_weighted(row, weight, sums),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.add_weighted(row, weight, sums),
        }
    }
}

impl Default for Resizer {
    fn default() -> Self {
        Self::new(Kernel::fastest())
    }
}

impl Resizer {
    fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            horizontal: Horizontal::new(AxisFit::whole(0, 0), Filter::Bilinear, kernel),
            shortened: Vec::new(),
            vertical: Vertical::new(),
        }
    }

    /// Starts an image of this size; an unfinished one is discarded.
    pub(super) fn start(&mut self, fit: &Fit) {
        self.horizontal = Horizontal::new(fit.x, fit.filter, self.kernel);
        self.shortened.resize(fit.x.len as usize * 3, 0);
        self.vertical.start(fit);
    }

    /// Takes the next row; a row of the wrong length, or after the last, is ignored and leaves the image incomplete.
    pub(super) fn row(&mut self, rgb: &[u8]) {
        if rgb.len() != self.horizontal.fit.size as usize * 3 {
            return;
        }
        let row = match &self.horizontal.plan {
            Plan::Fits => {
                let AxisFit { offset, len, .. } = self.horizontal.fit;
                rgb.get(offset as usize * 3..(offset + len) as usize * 3).unwrap_or_default()
            }
            Plan::Scalar(windows) => {
                scalar::weigh_pixels(rgb, windows, &mut self.shortened);
                &self.shortened
            }
            #[cfg(target_arch = "x86_64")]
            Plan::Avx2(avx2, taps) => {
                avx2.weigh_pixels(rgb, taps, &mut self.shortened);
                &self.shortened
            }
        };
        self.vertical.row(row, self.kernel);
    }

    /// The result, once all rows were given.
    pub(super) fn finish(&mut self) -> Option<Pixels> {
        Pixels::sized(std::mem::take(&mut self.vertical.out), self.horizontal.fit.len, self.vertical.axis.len())
    }
}

/// The horizontal pass for images of one width.
struct Horizontal {
    fit: AxisFit,
    plan: Plan,
}

enum Plan {
    /// No operation: Pillow skips a pass whose size already fits.
    Fits,
    Scalar(Vec<Window>),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2, avx2::Taps),
}

impl Horizontal {
    fn new(fit: AxisFit, filter: Filter, kernel: Kernel) -> Self {
        let plan = if fit.size == fit.total {
            Plan::Fits
        } else {
            let mut axis = Axis::new(fit, filter);
            let mut windows = vec![Window::default(); fit.len as usize];
            for (x, window) in (0..fit.len).zip(&mut windows) {
                axis.fill(x, window);
            }
            Plan::new(fit.size, windows, kernel)
        };
        Self { fit, plan }
    }
}

impl Plan {
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "only the taps need it"))]
    fn new(width: u32, windows: Vec<Window>, kernel: Kernel) -> Self {
        match kernel {
            Kernel::Scalar => Self::Scalar(windows),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(avx2) => match avx2::Taps::new(width, &windows) {
                Some(taps) => Self::Avx2(avx2, taps),
                None => Self::Scalar(windows),
            },
        }
    }
}

/// Resizes row by row.
pub(super) struct ResizeSink<'a> {
    resizer: &'a mut Resizer,
}

impl<'a> ResizeSink<'a> {
    pub(super) fn new(resizer: &'a mut Resizer, fit: &Fit) -> Self {
        resizer.start(fit);
        Self { resizer }
    }

    pub(super) fn finish(self) -> Option<Pixels> {
        self.resizer.finish()
    }
}

impl RowSink for ResizeSink<'_> {
    fn row(&mut self, rgb: &[u8]) {
        self.resizer.row(rgb);
    }
}

/// The vertical pass, on rows after the horizontal pass.
struct Vertical {
    axis: Axis,
    row_bytes: usize,
    /// The next input row.
    y: u32,
    /// Output rows whose window includes or follows the current row, in order.
    rows: VecDeque<OutRow>,
    /// The output row after those.
    next: u32,
    /// Finished rows, for reuse.
    spare: Vec<OutRow>,
    out: Vec<u8>,
}

#[derive(Default)]
struct OutRow {
    window: Window,
    sums: Vec<i32>,
}

impl Vertical {
    fn new() -> Self {
        let (rows, spare, out) = (VecDeque::new(), Vec::new(), Vec::new());
        let axis = Axis::new(AxisFit::whole(0, 0), Filter::Bilinear);
        Self { axis, row_bytes: 0, y: 0, rows, next: 0, spare, out }
    }

    fn start(&mut self, fit: &Fit) {
        self.axis = Axis::new(fit.y, fit.filter);
        self.row_bytes = fit.x.len as usize * 3;
        self.y = 0;
        self.spare.extend(self.rows.drain(..));
        self.next = 0;
        self.prepare_next();
        self.out = Vec::with_capacity(self.row_bytes * fit.y.len as usize);
    }

    /// Appends the next output row.
    fn prepare_next(&mut self) {
        if self.next == self.axis.len() {
            return;
        }
        let mut row = self.spare.pop().unwrap_or_default();
        self.axis.fill(self.next, &mut row.window);
        row.sums.clear();
        row.sums.resize(self.row_bytes, windows::HALF);
        self.rows.push_back(row);
        self.next += 1;
    }

    fn row(&mut self, row: &[u8], kernel: Kernel) {
        while self.rows.back().is_some_and(|last| last.window.start <= self.y) && self.next < self.axis.len() {
            self.prepare_next();
        }
        for out in &mut self.rows {
            if let Some(weight) = out.window.weight(self.y) {
                kernel.add_weighted(row, weight, &mut out.sums);
            }
        }
        self.y = self.y.saturating_add(1);
        while self.rows.front().is_some_and(|first| first.window.end() <= self.y)
            && let Some(done) = self.rows.pop_front()
        {
            self.out.extend(done.sums.iter().copied().map(windows::round));
            self.spare.push(done);
        }
    }
}

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::ImageError;

/// Cancels a running decode. Clones share one flag, which every decoder checks between its steps.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    cancelled: Arc<AtomicBool>,
    pause: Option<Pause>,
    #[cfg(test)]
    pub(super) probe: probe::Probe,
}

/// Called between the steps of a decode.
#[derive(Clone)]
struct Pause(Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Pause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pause")
    }
}

impl Cancel {
    /// A flag whose decodes call `pause` between their steps and continue when it returns. It must not panic: some
    /// decoders are in C.
    pub fn pausing(pause: impl Fn() + Send + Sync + 'static) -> Self {
        Self { pause: Some(Pause(Arc::new(pause))), ..Self::default() }
    }

    /// Cancels the decodes with this flag, permanently.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether [`cancel`](Self::cancel) was called; runs the pause first, if there is one.
    pub fn is_cancelled(&self) -> bool {
        #[cfg(test)]
        self.probe.look();
        if !self.cancelled.load(Ordering::Relaxed)
            && let Some(Pause(pause)) = &self.pause
        {
            pause();
        }
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Fails once cancelled.
    pub(super) fn check(&self) -> Result<(), ImageError> {
        if self.is_cancelled() { Err(ImageError::Cancelled) } else { Ok(()) }
    }

    /// Fills `buffer` with `length` zeros in steps: clearing half a gigabyte at once would delay cancellation.
    pub(super) fn zeros(&self, buffer: &mut Vec<u8>, length: usize) -> Result<(), ImageError> {
        const STEP: usize = 1 << 20;
        buffer.clear();
        buffer.try_reserve_exact(length).map_err(|_| ImageError::OutOfMemory)?;
        while buffer.len() < length {
            self.check()?;
            buffer.resize(length.min(buffer.len() + STEP), 0);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod probe {
    use std::sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    };

    /// Counts the checks, and can block the decoder at one of them.
    #[derive(Debug, Clone, Default)]
    pub(in crate::image) struct Probe {
        pub(in crate::image) looks: Arc<AtomicU64>,
        pub(in crate::image) hold: Option<(u64, Arc<Barrier>)>,
    }

    impl Probe {
        pub(super) fn look(&self) {
            let look = self.looks.fetch_add(1, Ordering::SeqCst) + 1;
            if let Some((at, barrier)) = &self.hold
                && *at == look
            {
                // Once to signal that the decoder is here, once to release it.
                barrier.wait();
                barrier.wait();
            }
        }
    }
}

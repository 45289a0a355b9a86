//! `lfm_serve._native`: the library behind the Python module. Python (`python/lfm_serve`) converts and types; this
//! side has the threads, which score without the GIL.
//!
//! A process may fork: [`gate`] keeps every thread out of ONNX Runtime meanwhile, and a child starts threads and sessions
//! of its own at its first image.

mod gate;
mod pool;
mod work;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    use std::{
        path::PathBuf,
        process,
        sync::{
            Arc, Mutex, MutexGuard, PoisonError,
            atomic::{AtomicBool, Ordering},
            mpsc::{Receiver, RecvTimeoutError, TryRecvError},
        },
        time::Duration,
    };

    use clap::ValueEnum;
    use indicatif::{ProgressBar, ProgressStyle};
    use lfm_serve::{
        declared::{Detail, Reader},
        image::{Cancel, Limits, heif_library},
        judge::{Judge, RegionChoice, Settings},
        model::{self, Manifest},
    };
    use pyo3::{
        exceptions::{PyOSError, PyRuntimeError, PyValueError},
        prelude::*,
        pybacked::PyBackedBytes,
    };

    use crate::{
        gate,
        pool::Pool,
        work::{Answer, Detecting, Failure, Image, Job},
    };

    /// How often a thread that waits looks for Ctrl-C.
    const TICK: Duration = Duration::from_millis(50);

    /// The crate's version.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// The git revision that it was built from.
    #[pymodule_export]
    const REVISION: &str = lfm_serve::REVISION;

    /// Scores images on threads of its own.
    #[pyclass(frozen)]
    struct Engine {
        settings: Mutex<Settled>,
        /// Name, version, digest, rules.
        #[pyo3(get)]
        model: (String, String, String, String),
        #[pyo3(get)]
        threads: usize,
        closed: AtomicBool,
    }

    /// Only touched with the GIL held, so that no fork finds it locked.
    struct Settled {
        model: PathBuf,
        ort_library: PathBuf,
        program: PathBuf,
        regions: RegionChoice,
        limits: Limits,
        max_file_bytes: u64,
        declared: Arc<Reader>,
        pool: Option<(u32, Arc<Pool<Detecting>>)>,
    }

    #[pymethods]
    impl Engine {
        #[new]
        fn new(
            model: PathBuf,
            ort_library: PathBuf,
            program: PathBuf,
            threads: Option<usize>,
            regions: &str,
            limits: (u64, u64, bool),
        ) -> PyResult<Self> {
            let (max_file_bytes, max_pixels, heif) = limits;
            let threads = threads.unwrap_or_else(model::cpus);
            if threads == 0 {
                return Err(PyValueError::new_err("threads is at least 1"));
            }
            let regions = RegionChoice::from_str(regions, false)
                .map_err(|_| PyValueError::new_err("regions is \"auto\", 1, 5, 9 or 16"))?;
            // What is wrong with the folder shows here; sessions are opened when there is an image.
            let manifest = Manifest::read(&model).map_err(|error| PyOSError::new_err(error.to_string()))?;
            let settings = Settings { regions, ..Settings::default() };
            let judge = Judge::new(manifest.rules, manifest.preprocessing, settings).map_err(PyValueError::new_err)?;
            let declared = Arc::new(Reader::new(Detail::Brief, None).map_err(PyRuntimeError::new_err)?);
            // As on the command line: nobody else waits for a long decode, and Ctrl-C ends it.
            if heif {
                heif_library(Some(&program)).map_err(PyRuntimeError::new_err)?;
            }
            let limits = Limits { max_pixels, max_cost: Duration::MAX, heif, ..Limits::default() };
            let settled =
                Settled { model, ort_library, program, regions, limits, max_file_bytes, declared, pool: None };
            Ok(Self {
                settings: Mutex::new(settled),
                model: (manifest.name, manifest.version, manifest.digest, judge.digest().to_owned()),
                threads,
                closed: AtomicBool::new(false),
            })
        }

        /// Takes an image in: a file's bytes, RGB bytes with width and height, or a path.
        fn submit(&self, image: Given, explain: bool, overlay: bool) -> PyResult<Pending> {
            if self.closed.load(Ordering::Relaxed) {
                return Err(PyRuntimeError::new_err("the scorer is closed"));
            }
            if gate::is_over() {
                return Err(PyRuntimeError::new_err("the interpreter is ending"));
            }
            let image = match image {
                Given::Bytes(bytes) => Image::Bytes(bytes),
                Given::Pixels(rgb, width, height) if rgb.len() as u64 == 3 * u64::from(width) * u64::from(height) => {
                    Image::Pixels { rgb, width, height }
                }
                Given::Pixels(..) => return Err(PyValueError::new_err("the pixels do not have this size")),
                Given::File(path) => Image::File(path),
            };
            let cancel = Cancel::default();
            let receiver = self.pool().submit(Job { image, explain, overlay, cancel: cancel.clone() })?;
            Ok(Pending { receiver: Mutex::new(receiver), cancel, done: None, process: process::id() })
        }

        /// Ends the threads, each after its image.
        fn close(&self) {
            self.closed.store(true, Ordering::Relaxed);
            let pool = self.settled().pool.take();
            match pool {
                Some((process, pool)) if process == process::id() => pool.close(),
                // Its threads are the parent's.
                pool => std::mem::forget(pool),
            }
        }
    }

    impl Engine {
        fn settled(&self) -> MutexGuard<'_, Settled> {
            self.settings.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// This process's pool: a child has none of its parent's threads.
        fn pool(&self) -> Arc<Pool<Detecting>> {
            let mut settled = self.settled();
            let this = process::id();
            if let Some((process, pool)) = &settled.pool
                && *process == this
            {
                return Arc::clone(pool);
            }
            let work = Detecting {
                model: settled.model.clone(),
                ort_library: settled.ort_library.clone(),
                program: settled.program.clone(),
                regions: settled.regions,
                limits: settled.limits,
                max_file_bytes: settled.max_file_bytes,
                declared: Arc::clone(&settled.declared),
            };
            let pool = Arc::new(Pool::new(work, self.threads));
            // What was the parent's is left as it is.
            std::mem::forget(settled.pool.replace((this, Arc::clone(&pool))));
            pool
        }
    }

    /// An error's code, JSON or the error's detail, the overlay.
    type Told = (Option<&'static str>, String, Option<Vec<u8>>);

    #[derive(FromPyObject)]
    enum Given {
        Bytes(PyBackedBytes),
        Pixels(PyBackedBytes, u32, u32),
        File(PathBuf),
    }

    /// An image that was taken in.
    #[pyclass]
    struct Pending {
        receiver: Mutex<Receiver<Result<Answer, Failure>>>,
        cancel: Cancel,
        done: Option<Result<Answer, Failure>>,
        process: u32,
    }

    #[pymethods]
    impl Pending {
        /// Whether [`result`](Self::result) returns at once.
        fn done(&mut self) -> bool {
            if self.done.is_none() {
                match self.receiver.get_mut().unwrap_or_else(PoisonError::into_inner).try_recv() {
                    Ok(reply) => self.done = Some(reply),
                    Err(TryRecvError::Empty) => return false,
                    Err(TryRecvError::Disconnected) => {}
                }
            }
            true
        }

        /// Waits: (None, JSON, overlay), or (code, detail, None).
        fn result(&mut self, py: Python<'_>) -> PyResult<Told> {
            let reply = match self.done.take() {
                Some(reply) => reply,
                None => self.wait(py)?,
            };
            match reply {
                Ok(Answer { text, overlay }) => Ok((None, text, overlay)),
                Err(Failure::Image(error)) => Ok((Some(error.code.as_str()), error.detail, None)),
                Err(Failure::Setup(reason)) => Err(PyRuntimeError::new_err(reason)),
            }
        }

        /// Nobody waits for it any more.
        fn cancel(&self) {
            self.cancel.cancel();
        }
    }

    impl Pending {
        fn wait(&mut self, py: Python<'_>) -> PyResult<Result<Answer, Failure>> {
            loop {
                if self.process != process::id() {
                    return Err(PyRuntimeError::new_err(
                        "this image was given to the process that this one was forked from",
                    ));
                }
                let receiver = self.receiver.get_mut().unwrap_or_else(PoisonError::into_inner);
                match py.detach(move || receiver.recv_timeout(TICK)) {
                    Ok(reply) => return Ok(reply),
                    Err(RecvTimeoutError::Timeout) => py.check_signals().inspect_err(|_| self.cancel.cancel())?,
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(PyRuntimeError::new_err("the scorer is closed"));
                    }
                }
            }
        }
    }

    /// A bar on standard error; nothing where that is no terminal.
    #[pyclass(frozen)]
    struct Progress(ProgressBar);

    #[pymethods]
    impl Progress {
        #[new]
        fn new(total: Option<u64>) -> Self {
            let (bar, template) = match total {
                Some(total) => (ProgressBar::new(total), "{bar:40} {pos}/{len} images  {per_sec}  {eta} left"),
                None => (ProgressBar::no_length(), "{pos} images  {per_sec}"),
            };
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            Self(bar.with_style(style))
        }

        fn advance(&self) {
            self.0.inc(1);
        }

        fn finish(&self) {
            self.0.finish_and_clear();
        }
    }

    /// When the interpreter ends: no thread may be inside ONNX Runtime when its library is taken down.
    #[pyfunction]
    fn at_exit() {
        gate::end();
    }

    /// For `os.register_at_fork`.
    #[pyfunction]
    fn before_fork() {
        gate::close();
    }

    /// For `os.register_at_fork`.
    #[pyfunction]
    fn after_fork_in_parent() {
        gate::open();
    }

    /// For `os.register_at_fork`.
    #[pyfunction]
    fn after_fork_in_child() {
        gate::reset();
    }
}

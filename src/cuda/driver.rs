//! The few functions that we need of NVIDIA's driver API, loaded from `libcuda.so.1` at first use: the program builds
//! and starts without a driver.
#![allow(unsafe_code, reason = "calls into the driver's C API")]

use std::{
    error::Error,
    ffi::{CStr, OsStr, c_char, c_int, c_uint, c_ulonglong, c_void},
    ptr,
    sync::OnceLock,
};

use libloading::Library;

/// The driver's library, as the dynamic linker finds it.
const LIBRARY: &str = "libcuda.so.1";

/// Why the GPU cannot be used: one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// No driver.
    #[error("no NVIDIA driver: {0}")]
    NoDriver(String),
    /// The driver refused a call.
    #[error("{call}: {reason}")]
    Refused {
        /// The function.
        call: &'static str,
        /// The driver's text.
        reason: String,
    },
    /// The driver finds no GPU.
    #[error("the NVIDIA driver sees no GPU")]
    NoDevice,
    /// The GPU is too old for CUDA 13, and so for ONNX Runtime's build with it.
    #[error("the GPU, {name}, has compute capability {}.{}; 7.5 or newer is needed", .capability.0, .capability.1)]
    TooOld {
        /// As NVIDIA calls it.
        name: String,
        /// Its compute capability.
        capability: (i32, i32),
    },
    /// The work's stream is on a different GPU than the kernel.
    #[error("the stream belongs to another GPU than the kernel")]
    OtherDevice,
    /// Too many rows for one launch.
    #[error("{0} rows are more than a launch takes")]
    TooManyRows(usize),
}

impl CudaError {
    /// The dynamic linker's message is in the error's source.
    fn no_driver(error: &libloading::Error) -> Self {
        Self::NoDriver(error.source().map_or_else(|| error.to_string(), ToString::to_string))
    }
}

/// A status of the driver; 0 is success.
type Status = c_int;

/// Minimum compute capability.
const LEAST_CAPABILITY: (i32, i32) = (7, 5);

const ATTRIBUTE_CAPABILITY_MAJOR: c_int = 75;
const ATTRIBUTE_CAPABILITY_MINOR: c_int = 76;

/// A driver object: context, module or function.
pub(super) type Handle = *mut c_void;

/// A stream of work on a GPU: `CUstream`, which CUDA's runtime calls `cudaStream_t`.
pub type Stream = *mut c_void;

/// The functions, by their names in the library.
macro_rules! functions {
    ($($field:ident = $symbol:literal ($($argument:ty),*);)*) => {
        struct Functions { $($field: unsafe extern "C" fn($($argument),*) -> Status,)* }

        impl Functions {
            fn of(library: &Library) -> Result<Self, CudaError> {
                Ok(Self { $(
                    // SAFETY: the signature is that of cuda.h; the library outlives the pointer, in `Driver`.
                    $field: unsafe { library.get($symbol) }
                        .map(|symbol| *symbol)
                        .map_err(|error| CudaError::no_driver(&error))?,
                )* })
            }
        }
    };
}

functions! {
    init = b"cuInit\0" (c_uint);
    driver_version = b"cuDriverGetVersion\0" (*mut c_int);
    device_count = b"cuDeviceGetCount\0" (*mut c_int);
    device = b"cuDeviceGet\0" (*mut c_int, c_int);
    device_name = b"cuDeviceGetName\0" (*mut c_char, c_int, c_int);
    device_attribute = b"cuDeviceGetAttribute\0" (*mut c_int, c_int, c_int);
    error_string = b"cuGetErrorString\0" (Status, *mut *const c_char);
    retain_context = b"cuDevicePrimaryCtxRetain\0" (*mut Handle, c_int);
    release_context = b"cuDevicePrimaryCtxRelease_v2\0" (c_int);
    stream_context = b"cuStreamGetCtx\0" (Stream, *mut Handle);
    push_context = b"cuCtxPushCurrent_v2\0" (Handle);
    pop_context = b"cuCtxPopCurrent_v2\0" (*mut Handle);
    copy_to_gpu = b"cuMemcpyHtoD_v2\0" (c_ulonglong, *const c_void, usize);
    copy_to_host = b"cuMemcpyDtoH_v2\0" (*mut c_void, c_ulonglong, usize);
    load_module = b"cuModuleLoadData\0" (*mut Handle, *const c_void);
    unload_module = b"cuModuleUnload\0" (Handle);
    function = b"cuModuleGetFunction\0" (*mut Handle, Handle, *const c_char);
    launch = b"cuLaunchKernel\0" (
        Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Stream, *mut *mut c_void, *mut *mut c_void
    );
}

/// The driver, loaded and initialised.
pub struct Driver {
    functions: Functions,
    /// Keeps the function pointers valid.
    _library: Library,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// As NVIDIA calls it.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// The newest CUDA version that the driver knows, 1000 * major + 10 * minor.
    pub driver_version: i32,
}

impl Driver {
    /// This machine's driver, loaded once per process.
    ///
    /// # Errors
    /// If there is none, or it drives no GPU.
    pub fn get() -> Result<&'static Self, CudaError> {
        static DRIVER: OnceLock<Result<Driver, CudaError>> = OnceLock::new();
        DRIVER.get_or_init(|| Self::open(LIBRARY)).as_ref().map_err(Clone::clone)
    }

    /// Loads and initialises the driver at `path`.
    ///
    /// # Errors
    /// If there is none, or it drives no GPU.
    pub fn open(path: impl AsRef<OsStr>) -> Result<Self, CudaError> {
        // SAFETY: the caller asked to load NVIDIA's driver, which runs its initialisers.
        let library = unsafe { Library::new(path.as_ref()) }.map_err(|error| CudaError::no_driver(&error))?;
        let driver = Self { functions: Functions::of(&library)?, _library: library };
        // SAFETY: cuInit takes flags, which must be 0.
        driver.check("cuInit", unsafe { (driver.functions.init)(0) })?;
        let mut count = 0;
        // SAFETY: the driver writes one integer.
        driver.check("cuDeviceGetCount", unsafe { (driver.functions.device_count)(&raw mut count) })?;
        if count < 1 { Err(CudaError::NoDevice) } else { Ok(driver) }
    }

    /// The GPU in use: the first one in `CUDA_VISIBLE_DEVICES`.
    ///
    /// # Errors
    /// The driver's error, or a GPU that is too old.
    pub fn first_device(&self) -> Result<Device, CudaError> {
        let functions = &self.functions;
        let device = self.device()?;
        let (mut driver_version, mut major, mut minor) = (0, 0, 0);
        let mut name: [c_char; 128] = [0; 128];
        // SAFETY: each call writes one integer, or at most the given length of the name.
        unsafe {
            self.check("cuDriverGetVersion", (functions.driver_version)(&raw mut driver_version))?;
            let length = name.len() as c_int - 1;
            self.check("cuDeviceGetName", (functions.device_name)(name.as_mut_ptr(), length, device))?;
            for (attribute, value) in
                [(ATTRIBUTE_CAPABILITY_MAJOR, &mut major), (ATTRIBUTE_CAPABILITY_MINOR, &mut minor)]
            {
                self.check("cuDeviceGetAttribute", (functions.device_attribute)(value, attribute, device))?;
            }
        }
        // SAFETY: the last byte was never written, so the name is null-terminated.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        let capability = (major, minor);
        if capability < LEAST_CAPABILITY {
            return Err(CudaError::TooOld { name, capability });
        }
        Ok(Device { name, capability, driver_version })
    }

    fn device(&self) -> Result<c_int, CudaError> {
        let mut device = 0;
        // SAFETY: the driver writes one integer.
        self.check("cuDeviceGet", unsafe { (self.functions.device)(&raw mut device, 0) })?;
        Ok(device)
    }

    /// The context of CUDA's runtime on the GPU in use, until it is released as often.
    pub(super) fn retain_context(&self) -> Result<Handle, CudaError> {
        let (device, mut context) = (self.device()?, ptr::null_mut());
        // SAFETY: the device is the driver's; it writes a handle.
        let retained = unsafe { (self.functions.retain_context)(&raw mut context, device) };
        self.check("cuDevicePrimaryCtxRetain", retained)?;
        Ok(context)
    }

    /// Releases that context; a failure is ignored.
    pub(super) fn release_context(&self) {
        // SAFETY: its owner retained it, and does not use it again.
        let _ = self.device().map(|device| unsafe { (self.functions.release_context)(device) });
    }

    /// Copies to the GPU in the current context.
    ///
    /// # Safety
    /// `to` is the start of as many bytes in the GPU's memory.
    pub(super) unsafe fn copy_to_gpu(&self, from: &[u8], to: *mut c_void) -> Result<(), CudaError> {
        // SAFETY: the driver reads the slice, and writes where the caller guarantees.
        let copied = unsafe { (self.functions.copy_to_gpu)(to as c_ulonglong, from.as_ptr().cast(), from.len()) };
        self.check("cuMemcpyHtoD", copied)
    }

    /// Copies from the GPU in the current context.
    ///
    /// # Safety
    /// `from` is the start of as many bytes in the GPU's memory as `to` has, and they are values of its type.
    pub(super) unsafe fn copy_to_host<T: Copy>(&self, from: *const c_void, to: &mut [T]) -> Result<(), CudaError> {
        // SAFETY: the driver writes the slice, and reads what the caller guarantees.
        let copied =
            unsafe { (self.functions.copy_to_host)(to.as_mut_ptr().cast(), from as c_ulonglong, size_of_val(to)) };
        self.check("cuMemcpyDtoH", copied)
    }

    /// The context that a stream belongs to.
    pub(super) fn context_of(&self, stream: Stream) -> Result<Handle, CudaError> {
        let mut context = ptr::null_mut();
        // SAFETY: the caller guarantees a valid stream; the driver writes a handle.
        self.check("cuStreamGetCtx", unsafe { (self.functions.stream_context)(stream, &raw mut context) })?;
        Ok(context)
    }

    /// Runs a function with `context` current on this thread.
    pub(super) fn within<T>(
        &self,
        context: Handle,
        work: impl FnOnce() -> Result<T, CudaError>,
    ) -> Result<T, CudaError> {
        // SAFETY: the context came from the driver and lives as long as ONNX Runtime's session.
        self.check("cuCtxPushCurrent", unsafe { (self.functions.push_context)(context) })?;
        let done = work();
        let mut popped = ptr::null_mut();
        // SAFETY: pops the context pushed above.
        let left = self.check("cuCtxPopCurrent", unsafe { (self.functions.pop_context)(&raw mut popped) });
        done.and_then(|done| left.map(|()| done))
    }

    /// Loads PTX into the current context and finds its only function.
    pub(super) fn load(&self, ptx: &CStr, name: &CStr) -> Result<(Handle, Handle), CudaError> {
        let (mut module, mut function) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the driver reads up to the terminating null, and writes a handle.
        let loaded = unsafe { (self.functions.load_module)(&raw mut module, ptx.as_ptr().cast()) };
        self.check("cuModuleLoadData", loaded)?;
        // SAFETY: the module was just loaded; the driver writes a handle.
        let found = unsafe { (self.functions.function)(&raw mut function, module, name.as_ptr()) };
        match self.check("cuModuleGetFunction", found) {
            Ok(()) => Ok((module, function)),
            Err(error) => {
                self.unload(module);
                Err(error)
            }
        }
    }

    /// Unloads a module of the current context; a failure is ignored.
    pub(super) fn unload(&self, module: Handle) {
        // SAFETY: the module is loaded, and its owner does not use it again.
        let _ = unsafe { (self.functions.unload_module)(module) };
    }

    /// Launches a function on `blocks` of `threads`.
    ///
    /// # Safety
    /// The parameters point at values of the types that the function declares, in its order.
    pub(super) unsafe fn launch(
        &self,
        function: Handle,
        blocks: c_uint,
        threads: c_uint,
        stream: Stream,
        parameters: &mut [*mut c_void],
    ) -> Result<(), CudaError> {
        let (shared, extra) = (0, ptr::null_mut());
        // SAFETY: the driver reads the parameters before it returns; the caller guarantees their types.
        let launched = unsafe {
            let parameters = parameters.as_mut_ptr();
            (self.functions.launch)(function, blocks, 1, 1, threads, 1, 1, shared, stream, parameters, extra)
        };
        self.check("cuLaunchKernel", launched)
    }

    fn check(&self, call: &'static str, status: Status) -> Result<(), CudaError> {
        if status == 0 {
            return Ok(());
        }
        let mut text = ptr::null();
        // SAFETY: the driver writes a pointer to a static string, or null where it does not know the status.
        let known = unsafe { (self.functions.error_string)(status, &raw mut text) } == 0 && !text.is_null();
        let reason = match known {
            // SAFETY: not null, and a C string.
            true => format!("{} ({status})", unsafe { CStr::from_ptr(text) }.to_string_lossy()),
            false => format!("error {status}"),
        };
        Err(CudaError::Refused { call, reason })
    }
}

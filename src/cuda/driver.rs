//! NVIDIA's driver API, the few functions that are needed, looked up in `libcuda.so.1` when first asked for: the
//! program builds and starts where there is no driver.
#![allow(unsafe_code, reason = "calls into the driver's C API")]

use std::{
    ffi::{CStr, OsStr, c_char, c_int, c_uint},
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
    /// There is no GPU for the driver to drive.
    #[error("the NVIDIA driver sees no GPU")]
    NoDevice,
}

/// A status of the driver; 0 is success.
type Status = c_int;

const ATTRIBUTE_CAPABILITY_MAJOR: c_int = 75;
const ATTRIBUTE_CAPABILITY_MINOR: c_int = 76;

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
                        .map_err(|error| CudaError::NoDriver(error.to_string()))?,
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
}

/// The driver, loaded and initialised.
pub struct Driver {
    functions: Functions,
    /// Holds what the pointers point at.
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
    /// This machine's driver, loaded once a process.
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
        // SAFETY: running the initialisers of NVIDIA's driver is what was asked for.
        let library = unsafe { Library::new(path.as_ref()) }.map_err(|error| CudaError::NoDriver(error.to_string()))?;
        let driver = Self { functions: Functions::of(&library)?, _library: library };
        // SAFETY: cuInit takes flags, which must be 0.
        driver.check("cuInit", unsafe { (driver.functions.init)(0) })?;
        let mut count = 0;
        // SAFETY: the driver writes one integer.
        driver.check("cuDeviceGetCount", unsafe { (driver.functions.device_count)(&raw mut count) })?;
        if count < 1 { Err(CudaError::NoDevice) } else { Ok(driver) }
    }

    /// The GPU that is used: the first, as `CUDA_VISIBLE_DEVICES` has it.
    ///
    /// # Errors
    /// What the driver says.
    pub fn first_device(&self) -> Result<Device, CudaError> {
        let functions = &self.functions;
        let (mut device, mut driver_version, mut major, mut minor) = (0, 0, 0, 0);
        let mut name: [c_char; 128] = [0; 128];
        // SAFETY: each call writes one integer, or at most the length that it is given of the name.
        unsafe {
            self.check("cuDriverGetVersion", (functions.driver_version)(&raw mut driver_version))?;
            self.check("cuDeviceGet", (functions.device)(&raw mut device, 0))?;
            let length = name.len() as c_int - 1;
            self.check("cuDeviceGetName", (functions.device_name)(name.as_mut_ptr(), length, device))?;
            for (attribute, value) in
                [(ATTRIBUTE_CAPABILITY_MAJOR, &mut major), (ATTRIBUTE_CAPABILITY_MINOR, &mut minor)]
            {
                self.check("cuDeviceGetAttribute", (functions.device_attribute)(value, attribute, device))?;
            }
        }
        // SAFETY: the last byte was never written: the name ends in a zero.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        Ok(Device { name, capability: (major, minor), driver_version })
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

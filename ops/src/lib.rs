//! The server's operators of the domain `lfm` for any ONNX Runtime (1.18 or newer): Python, Triton, C++.
//!
//! ```python
//! options = onnxruntime.SessionOptions()
//! options.register_custom_ops_library("target/release/liblfm_ops.so")
//! session = onnxruntime.InferenceSession("models/lfm.onnx", options)
//! ```

#[allow(dead_code, reason = "only the server chooses and names kernels")]
#[path = "../../src/conv/mod.rs"]
mod conv;
#[allow(dead_code, unused_imports, reason = "only the server chooses a GPU")]
#[path = "../../src/cuda/mod.rs"]
mod cuda;
#[allow(dead_code, reason = "only the server builds sessions")]
#[path = "../../src/model/op/mod.rs"]
mod op;
#[allow(dead_code, unused_imports, reason = "only the server checks and names kernels")]
#[path = "../../src/topk/mod.rs"]
mod topk;

use std::{
    ffi::{CString, c_char},
    panic::catch_unwind,
    ptr,
    sync::{Mutex, PoisonError},
};

use ort::{
    AsPointer,
    sys::{ORT_API_VERSION, OrtApi, OrtApiBase, OrtCustomOpDomain, OrtErrorCode, OrtSessionOptions, OrtStatusPtr},
};

/// The domain of the process: sessions refer to it during their lifetime, so it is never freed.
static DOMAIN: Mutex<Option<Domain>> = Mutex::new(None);

#[derive(Clone, Copy)]
struct Domain(*const OrtCustomOpDomain);

// SAFETY: ONNX Runtime only reads a domain that is complete.
#[allow(unsafe_code)]
unsafe impl Send for Domain {}

/// The entry point that ONNX Runtime looks up in a library of operators (`RegisterCustomOpsLibrary_V2`).
///
/// # Safety
/// ONNX Runtime calls it with its own pointers.
#[allow(unsafe_code, non_snake_case, reason = "the entry point that ONNX Runtime's C API asks for")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn RegisterCustomOps(options: *mut OrtSessionOptions, base: *const OrtApiBase) -> OrtStatusPtr {
    // SAFETY: both are ONNX Runtime's, and valid during the call.
    let registered = catch_unwind(|| unsafe { register(options, base) });
    let status = registered.unwrap_or_else(|_| Err("registering the operators panicked".to_owned()));
    // SAFETY: as above; `CreateStatus` copies the text.
    unsafe { status_of(status, base) }
}

#[allow(unsafe_code, reason = "calls into ONNX Runtime's C API")]
unsafe fn register(options: *mut OrtSessionOptions, base: *const OrtApiBase) -> Result<OrtStatusPtr, String> {
    // SAFETY: as the caller guarantees; an API that this runtime does not have is null.
    let api = unsafe { ((*base).GetApi)(ORT_API_VERSION).as_ref() };
    let api = api.ok_or_else(|| format!("lfm_ops needs ONNX Runtime 1.{ORT_API_VERSION} or newer"))?;
    let mut domain = DOMAIN.lock().unwrap_or_else(PoisonError::into_inner);
    let domain = match *domain {
        Some(domain) => domain,
        None => {
            // SAFETY: a table of function pointers, copied in the size of this version.
            ort::set_api(unsafe { ptr::read(ptr::from_ref::<OrtApi>(api)) });
            let made =
                Box::leak(Box::new(op::operator_domain(&op::Layers::default()).map_err(|error| error.to_string())?));
            *domain.insert(Domain(made.ptr()))
        }
    };
    // SAFETY: the options are the caller's, the domain lives as long as the process.
    Ok(unsafe { (api.AddCustomOpDomain)(options, domain.0.cast_mut()) })
}

/// A failure as an ONNX Runtime status. `CreateStatus` is in every version of the API.
#[allow(unsafe_code, reason = "calls into ONNX Runtime's C API")]
unsafe fn status_of(result: Result<OrtStatusPtr, String>, base: *const OrtApiBase) -> OrtStatusPtr {
    let reason = match result {
        Ok(status) => return status,
        Err(reason) => CString::new(reason).unwrap_or_default(),
    };
    let text: *const c_char = reason.as_ptr();
    // SAFETY: as the caller guarantees.
    unsafe { ((*((*base).GetApi)(1)).CreateStatus)(OrtErrorCode::ORT_FAIL, text) }
}

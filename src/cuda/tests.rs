//! The kernel and its launch against an emulated GPU: topk.cu itself, compiled for the CPU behind the driver's API.

use std::{
    path::Path,
    process::Command,
    ptr,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::{Copies, CudaError, Driver, Rows, Stream, TopK};
use crate::topk::{TopKError, check};

/// Compiles the emulation with these `defines` and opens it as a driver.
fn emulated(name: &str, defines: &[&str]) -> Result<Driver, CudaError> {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder"));
    let library = folder.path().join(format!("{name}.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda/emulation.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-U_FORTIFY_SOURCE"])
        .args(defines)
        .args([Path::new("-o"), &library, &source])
        .status();
    assert!(compiled.expect("a C compiler, which the build needs too").success());
    Driver::open(&library)
}

pub(crate) fn driver() -> &'static Driver {
    static DRIVER: OnceLock<Driver> = OnceLock::new();
    DRIVER.get_or_init(|| emulated("gpu", &[]).expect("an emulated driver"))
}

/// Lock of the emulation's only warp, held during a launch.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE_WARP: Mutex<()> = Mutex::new(());
    ONE_WARP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The emulation's streams are numbers other than 0; stream 2 belongs to another GPU.
pub(crate) fn stream(number: usize) -> Stream {
    ptr::without_provenance_mut(number)
}

/// Like `topk::Kernel::top_k`, on the GPU kernel.
pub(crate) fn emulated_top_k(
    k: usize,
    row_len: usize,
    input: &[f32],
    values: &mut [f32],
    indices: &mut [i64],
) -> Result<(), TopKError> {
    let _alone = alone();
    let kernel = TopK::load(driver(), stream(1)).expect("the kernel loads");
    check(k, row_len)?;
    let rows = input.len() / row_len;
    assert_eq!((input.len(), values.len(), indices.len()), (rows * row_len, rows * k, rows * k));
    let (values, indices) = (values.as_mut_ptr(), indices.as_mut_ptr());
    let work = Rows { rows, row_len, k, input: input.as_ptr(), values, indices };
    #[allow(unsafe_code, reason = "as ONNX Runtime's kernel does")]
    // SAFETY: the emulated GPU's memory is the CPU's; the sizes were checked above; it runs before it returns.
    let launched = unsafe { kernel.launch(stream(1), work) };
    assert_eq!(launched, Ok(()));
    Ok(())
}

#[test]
fn several_blocks_and_a_partly_filled_block() {
    for rows in 0..=9 {
        let input: Vec<f32> = (0..rows * 50).map(|i| (i * 37 % 101) as f32).collect();
        let (mut values, mut indices) = (vec![0.0; rows * 40], vec![0; rows * 40]);
        emulated_top_k(40, 50, &input, &mut values, &mut indices).expect("it runs");
        for (row, (values, indices)) in input.chunks(50).zip(values.chunks(40).zip(indices.chunks(40))) {
            let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
            assert_eq!((bits, indices.to_vec()), crate::topk::by_stable_sort(row, 40));
        }
    }
}

#[test]
fn a_stream_of_another_gpu_is_refused() {
    let kernel = TopK::load(driver(), stream(1)).expect("the kernel loads");
    let (input, mut values, mut indices) = ([1.0], [0.0], [0]);
    let (values, indices) = (values.as_mut_ptr(), indices.as_mut_ptr());
    let rows = Rows { rows: 1, row_len: 1, k: 1, input: input.as_ptr(), values, indices };
    #[allow(unsafe_code, reason = "as ONNX Runtime's kernel does")]
    // SAFETY: pointers to one value each, which the emulated GPU can reach.
    let launched = unsafe { kernel.launch(stream(2), rows) };
    assert_eq!(launched, Err(CudaError::OtherDevice));
}

#[test]
fn copies_arrive() {
    let copies = Copies::new(driver()).expect("a context");
    let mut on_gpu = [0.0_f32; 3];
    let mut back = [0.0_f32; 2];
    let bytes: Vec<u8> = [1.0_f32, 2.0].iter().flat_map(|value| value.to_ne_bytes()).collect();
    #[allow(unsafe_code, reason = "the emulated GPU's memory is the CPU's")]
    // SAFETY: as many bytes on either side; an emulated copy is over when it returns.
    unsafe {
        copies.to_gpu(&bytes, on_gpu.as_mut_ptr().cast()).expect("a copy");
        copies.to_host(on_gpu.as_ptr().cast(), &mut back).expect("a copy");
    }
    assert_eq!((on_gpu, back), ([1.0, 2.0, 0.0], [1.0, 2.0]));
}

#[test]
fn the_device_is_described() {
    let device = driver().first_device().expect("a device");
    assert_eq!((&*device.name, device.capability, device.driver_version), ("an emulated GPU", (8, 0), 13000));
}

#[test]
fn missing_parts_are_reported() {
    let missing = Driver::open("libno-such-driver.so.1").err().expect("there is none").to_string();
    assert!(missing.starts_with("no NVIDIA driver: libno-such-driver.so.1: cannot open"), "{missing}");
    let foreign = Driver::open("libc.so.6").err().expect("it is another library").to_string();
    assert!(foreign.starts_with("no NVIDIA driver: ") && foreign.contains("cuInit"), "{foreign}");
    let none = emulated("none", &["-DDEVICES=0"]).err();
    assert_eq!(none, Some(CudaError::NoDevice));
    let old = emulated("old", &["-DCAPABILITY_MAJOR=6"]).expect("a driver").first_device().expect_err("too old");
    assert_eq!(old.to_string(), "the GPU, an emulated GPU, has compute capability 6.0; 7.5 or newer is needed");
}

#[test]
fn a_driver_that_is_too_old_for_the_kernel_says_so() {
    for (status, reason) in [
        ("222", "cuModuleLoadData: the provided PTX was compiled with an unsupported toolchain. (222)"),
        ("209", "cuModuleLoadData: error 209"),
    ] {
        let driver = emulated(status, &[&format!("-DMODULE_STATUS={status}")]).expect("a driver");
        let error = TopK::load(Box::leak(Box::new(driver)), stream(1)).err().expect("it does not load");
        assert_eq!(error.to_string(), reason);
    }
}

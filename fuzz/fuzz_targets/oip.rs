//! Any body of an inference request over HTTP: JSON, JSON with tensors behind it, packed or not. An answer of the
//! documented kind, never a failure of ours.

#![no_main]

use std::{io::Write, sync::LazyLock};

use flate2::{Compression, write::ZlibEncoder};
use lfm_serve_fuzz::Service;
use libfuzzer_sys::fuzz_target;

static SERVICE: LazyLock<Service> = LazyLock::new(Service::start);

fuzz_target!(|data: &[u8]| {
    let Some((&[how, low, high], body)) = data.split_first_chunk::<3>() else { return };
    let mut request = axum::http::Request::post("/v2/models/lfm/infer");
    let mut body = body.to_vec();
    // Length of the JSON: given, the offset of its end, or left out.
    match how % 3 {
        0 => request = request.header("inference-header-content-length", u16::from_le_bytes([low, high])),
        1 => {
            let end = body.iter().position(|&byte| byte == b'\n').unwrap_or(body.len());
            request = request.header("inference-header-content-length", end);
        }
        _ => {}
    }
    match how / 3 % 4 {
        0 => {
            let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(&body).expect("in memory");
            body = packed.finish().expect("in memory");
            request = request.header("content-encoding", "deflate");
        }
        1 => request = request.header("content-encoding", "deflate"),
        _ => {}
    }
    let Some(answer) = SERVICE.http(request, body) else { return };
    let status = answer.status.as_u16();
    assert!([200, 400, 413, 415, 422, 503].contains(&status), "{status}");
    if status != 200 {
        assert!(answer.body.len() < 4096, "{}", answer.body.len());
    }
});

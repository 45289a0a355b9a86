//! Any form of an upload: multipart, JSON with base64, a raw body, packed or not. An answer of the documented kind, never a
//! failure of ours.

#![no_main]

use std::{io::Write, sync::LazyLock};

use flate2::{Compression, write::GzEncoder};
use lfm_serve_fuzz::Service;
use libfuzzer_sys::fuzz_target;

static SERVICE: LazyLock<Service> = LazyLock::new(Service::start);

fuzz_target!(|data: &[u8]| {
    let Some((&[route, form, packing], rest)) = data.split_first_chunk::<3>() else { return };
    let path = ["/v1/score", "/v1/score/batch", "/v1/explain"][usize::from(route) % 3];
    // Some of the types come from the input, as its first line.
    let line = rest.iter().position(|&byte| byte == b'\n').unwrap_or(0);
    let (kind, body) = match form % 4 {
        0 => (&b"multipart/form-data; boundary=X"[..], rest),
        1 => (&b"application/json"[..], rest),
        2 => (&b"image/png"[..], rest),
        _ => (&rest[..line], &rest[line..]),
    };
    let mut request = axum::http::Request::post(path).header("content-type", kind);
    let mut body = body.to_vec();
    match packing % 4 {
        0 => {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(&body).expect("in memory");
            body = packed.finish().expect("in memory");
            request = request.header("content-encoding", "gzip");
        }
        1 => request = request.header("content-encoding", "gzip"),
        _ => {}
    }
    let Some(answer) = SERVICE.http(request, body) else { return };
    let status = answer.status.as_u16();
    assert!([200, 400, 406, 413, 415, 422, 429].contains(&status), "{status}");
    if status != 200 {
        // Whatever of the request is repeated is cut.
        assert!(answer.body.len() < 4096, "{}", answer.body.len());
        assert_eq!(answer.headers["content-type"], "application/problem+json");
    }
});

//! Any message of a gRPC call, framed as it should be or not, packed or not. A status of gRPC's, never a failure of ours.

#![no_main]

use std::{io::Write, sync::LazyLock};

use axum::http::{Request, Version};
use flate2::{Compression, write::GzEncoder};
use lfm_serve_fuzz::Service;
use libfuzzer_sys::fuzz_target;

static SERVICE: LazyLock<Service> = LazyLock::new(Service::start);

const CALLS: &[&str] = &[
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ModelMetadata",
    "/inference.GRPCInferenceService/ModelStatistics",
    "/inference.GRPCInferenceService/ModelReady",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

/// gRPC's codes for what is wrong on our side: UNKNOWN and INTERNAL.
const OURS: [&str; 2] = ["2", "13"];

fuzz_target!(|data: &[u8]| {
    let Some((&[call, how], message)) = data.split_first_chunk::<2>() else { return };
    // Half of the runs are inference.
    let call = if call < 128 { CALLS[0] } else { CALLS[usize::from(call) % CALLS.len()] };
    let request = Request::post(call).version(Version::HTTP_2);
    let mut request = request.header("content-type", "application/grpc").header("te", "trailers");
    let framed = |packed: u8, message: &[u8]| [&[packed], &(message.len() as u32).to_be_bytes()[..], message].concat();
    let body = match how % 4 {
        0 => {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(message).expect("in memory");
            request = request.header("grpc-encoding", "gzip");
            framed(1, &packed.finish().expect("in memory"))
        }
        1 => {
            request = request.header("grpc-encoding", "gzip");
            framed(1, message)
        }
        2 => message.to_vec(),
        _ => framed(0, message),
    };
    let Some(answer) = SERVICE.grpc(request, body) else { return };
    assert_eq!(answer.status, 200);
    let status = answer.headers.get("grpc-status").or_else(|| answer.trailers.get("grpc-status"));
    let status = status.expect("a status").to_str().expect("ASCII");
    let text = answer.headers.get("grpc-message").map(|text| String::from_utf8_lossy(text.as_bytes()));
    assert!(!OURS.contains(&status), "{status}: {text:?}");
    assert!(text.is_none_or(|text| text.len() < 4096));
});

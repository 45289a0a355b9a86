//! Puts the git revision into the binary, for `--version` and `lfm_build_info`, makes the gRPC service and
//! the messages of ONNX files from their descriptions, without protoc, and compiles the part of the JPEG reader that has to be C.

use std::{env, error::Error, fs, path::Path, process::Command};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    revision();
    jpeg();
    grpc()?;
    onnx()
}

fn jpeg() {
    const SOURCE: &str = "src/image/jpeg/reader.c";
    println!("cargo:rerun-if-changed={SOURCE}");
    // Of the libjpeg-turbo that turbojpeg-sys has built.
    let headers = env::var("DEP_TURBOJPEG_INCLUDE").unwrap_or_default();
    cc::Build::new().file(SOURCE).includes(headers.split(',')).warnings_into_errors(true).compile("lfm_jpeg");
}

fn grpc() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let description = protox::compile(["inference.proto"], ["proto"])?;
    let out = env::var("OUT_DIR")?;
    // What the reflection service hands out.
    fs::write(Path::new(&out).join("inference.bin"), description.encode_to_vec())?;
    let builder = tonic_prost_build::configure().build_client(false).bytes(".inference");
    Ok(builder.btree_map(".inference").compile_fds(description)?)
}

/// The messages of ONNX files.
fn onnx() -> Result<(), Box<dyn Error>> {
    let description = protox::compile(["onnx.proto"], ["proto"])?;
    let builder = tonic_prost_build::configure().build_client(false).build_server(false);
    Ok(builder.bytes(".onnx").compile_fds(description)?)
}

fn revision() {
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs/heads");
    println!("cargo:rerun-if-env-changed=LFM_REVISION");
    // A container build has no .git and passes the revision in.
    let given = env::var("LFM_REVISION").ok();
    let revision = given.or_else(from_git).unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=LFM_REVISION={revision}");
}

fn from_git() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let revision = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| revision.trim().to_owned())
}

//! Puts the git revision into the binary, for `--version` and `lfm_build_info`.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs/heads");
    println!("cargo:rerun-if-env-changed=LFM_REVISION");
    // A container build has no .git and passes the revision in.
    let given = std::env::var("LFM_REVISION").ok();
    let revision = given.or_else(from_git).unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=LFM_REVISION={revision}");
}

fn from_git() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let revision = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| revision.trim().to_owned())
}

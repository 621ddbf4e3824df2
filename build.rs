//! Stamps the version and sets the link arguments of the loadable library.
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=.git/HEAD");
    let commit = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|out| out.status.success())
        .and_then(|out| String::from_utf8(out.stdout).ok())
        .map(|hash| hash.trim().to_string())
        .unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=LIBREPLICA_COMMIT={commit}");

    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        // A library with live VFS methods and threads must never be unmapped,
        // not even where a host ignores SQLITE_OK_LOAD_PERMANENTLY.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}

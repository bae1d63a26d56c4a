//! Names the commit that the binary is built from, or `unknown` outside of a clone. It must not fail a build.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=TIDEGATE_COMMIT");
    let commit = std::env::var("TIDEGATE_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty())
        .or_else(commit)
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=TIDEGATE_COMMIT={commit}");
}

/// The commit of the clone that this package lies in. A package that was copied into another repository has none.
fn commit() -> Option<String> {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?);
    let root = here.join("../..").canonicalize().ok()?;
    let top = PathBuf::from(git(&here, &["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != root {
        return None;
    }
    // Both change when the commit does; a path that is not there would make every build run this again.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&here, &["rev-parse", "--git-path", name]);
        if let Some(path) = path
            .map(|path| here.join(path))
            .filter(|path| path.exists())
        {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    git(&here, &["rev-parse", "--short=12", "HEAD"])
}

fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

//! Finds a way to compile Rust for `wasm32-unknown-unknown`, and installs one where there is none: the
//! toolchain's own target, the one that rustup can add, or Debian's compiler with its sources. It must
//! not know what is compiled.
//!
//! `TIDEGATE_WASM_TARGET=toolchain`, `=rustup` or `=debian` tries that way only.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::command::{ask, cargo, locked, succeeds_within};
use crate::workspace::Workspace;

const TARGET: &str = "wasm32-unknown-unknown";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// How long rustup may take to fetch the target, and apt its packages.
const RUSTUP_BOUND: Duration = Duration::from_secs(120);
const APT_BOUND: Duration = Duration::from_secs(600);

/// How a filter is compiled: for speed, which an eighth more of the file and of the time to load it buys. It stands here and
/// not in a manifest so that it holds for every workspace that is built.
const PROFILE: [&str; 7] = [
    "profile.wasm.inherits='release'",
    "profile.wasm.opt-level=3",
    "profile.wasm.lto='fat'",
    "profile.wasm.codegen-units=1",
    "profile.wasm.panic='abort'",
    "profile.wasm.debug=false",
    // Only symbols and names go: custom sections (`component-type`, the manifest) stay.
    "profile.wasm.strip=true",
];

/// Numbers of functions and addresses take five bytes each unless the linker is told to shorten them.
const LINK_FLAGS: &str = "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS";

/// A compiler that can build for the target.
#[derive(Debug)]
pub(crate) enum WasmTarget {
    /// The active toolchain has the target's standard library.
    Toolchain,
    /// A compiler without it, which builds the standard library from its sources, and a linker for it.
    BuildStd { rustc: PathBuf, linker: PathBuf },
}

impl WasmTarget {
    /// Finds or installs a compiler. Says in one line why, if it must install something.
    pub(crate) fn find(workspace: &Workspace) -> Result<Self> {
        let only = env::var("TIDEGATE_WASM_TARGET").ok();
        let may = |way: &str| only.as_deref().is_none_or(|only| only == way);

        let sysroot = sysroot("rustc");
        if may("toolchain") && has_target(sysroot.as_deref()) {
            return Ok(Self::Toolchain);
        }
        if may("rustup") && rustup_adds_target(workspace, sysroot.as_deref()) {
            return Ok(Self::Toolchain);
        }
        if may("debian") && (has_sources() || debian_installs_packages()) {
            return Ok(Self::BuildStd {
                rustc: DEBIAN_RUSTC.into(),
                linker: linker(sysroot.as_deref())?,
            });
        }
        bail!(
            "no Rust compiler here builds for {TARGET}; run `rustup target add {TARGET}`, or on Debian \
             `apt-get install {}`, and try again",
            DEBIAN_PACKAGES.join(" ")
        )
    }

    /// A `cargo rustc` of one library for the target, to which the caller adds which one. It makes the module and nothing else:
    /// beside a library for Rust, cargo would leave out the optimisation of the whole, and a third of the file stays.
    pub(crate) fn cargo_rustc(&self, workspace: &Workspace) -> Command {
        let mut command = cargo();
        command.args(["rustc", "--profile", "wasm", "--target", TARGET]);
        command.args(["--lib", "--crate-type", "cdylib"]);
        // A folder of its own: the host's builds keep their fingerprints.
        command
            .arg("--target-dir")
            .arg(workspace.target().join("wasm"));
        for setting in PROFILE {
            command.args(["--config", setting]);
        }
        locked(&mut command);
        // These are meant for the host, `-C target-cpu=native` for one.
        for flags in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_RUSTFLAGS",
        ] {
            command.env_remove(flags);
        }
        command.env(LINK_FLAGS, "-C link-arg=--compress-relocations");
        if let Self::BuildStd { rustc, linker } = self {
            command
                .args(["-Z", "build-std=std,panic_abort"])
                .env("RUSTC", rustc)
                // The standard library's sources need the compiler's unstable features.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        command
    }
}

fn sysroot(rustc: &str) -> Option<PathBuf> {
    ask(Command::new(rustc).args(["--print", "sysroot"])).map(PathBuf::from)
}

fn has_target(sysroot: Option<&Path>) -> bool {
    sysroot.is_some_and(|folder| folder.join("lib/rustlib").join(TARGET).join("lib").is_dir())
}

/// Asks rustup once for each toolchain; what it could not fetch today is not asked for in every build.
fn rustup_adds_target(workspace: &Workspace, sysroot: Option<&Path>) -> bool {
    let Some(sysroot) = sysroot else { return false };
    let refusal = workspace.target().join("wasm/rustup-has-no-target");
    let toolchain = sysroot.to_string_lossy();
    let asked = fs::read_to_string(&refusal).is_ok_and(|text| text == toolchain);
    let there = || ask(Command::new("rustup").arg("--version")).is_some();
    if (asked && has_sources()) || !there() {
        return false;
    }
    eprintln!("rustup target add {TARGET}: filters are built for it, and the toolchain lacks it");
    if succeeds_within(
        Command::new("rustup").args(["target", "add", TARGET]),
        RUSTUP_BOUND,
    ) && has_target(Some(sysroot))
    {
        return true;
    }
    // If it can't be noted, rustup is asked again: slower, not wrong.
    let _noted = fs::create_dir_all(workspace.target().join("wasm"))
        .and_then(|()| fs::write(&refusal, toolchain.as_bytes()));
    false
}

/// Whether Debian's compiler and the sources of its standard library are installed.
fn has_sources() -> bool {
    Path::new(DEBIAN_RUSTC).is_file()
        && sysroot(DEBIAN_RUSTC).is_some_and(|folder| {
            folder
                .join("lib/rustlib/src/rust/library/std/Cargo.toml")
                .is_file()
        })
}

fn debian_installs_packages() -> bool {
    if ask(Command::new("apt-get").arg("--version")).is_none()
        || ask(Command::new("id").arg("-u")).as_deref() != Some("0")
    {
        return false;
    }
    let packages = DEBIAN_PACKAGES.join(" ");
    eprintln!(
        "apt-get install {packages}: filters are built for {TARGET}, and rustup can't add it"
    );
    let install = || {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(DEBIAN_PACKAGES);
        succeeds_within(&mut command, APT_BOUND)
    };
    // A fresh machine knows no packages yet.
    let updated = || {
        succeeds_within(
            Command::new("apt-get").args(["update", "--quiet"]),
            APT_BOUND,
        )
    };
    (install() || (updated() && install())) && has_sources()
}

/// The linker for wasm: the one that rustup's toolchains bring, else one of the system.
fn linker(sysroot: Option<&Path>) -> Result<PathBuf> {
    let host = ask(Command::new("rustc").arg("-vV"))
        .and_then(|text| {
            let host = text.lines().find_map(|line| line.strip_prefix("host: "));
            host.map(str::to_owned)
        })
        .unwrap_or_default();
    let bundled = sysroot.map(|folder| folder.join("lib/rustlib").join(host).join("bin/rust-lld"));
    bundled
        .filter(|path| path.is_file())
        .or_else(|| on_path(&["rust-lld", "wasm-ld"]))
        .with_context(|| format!("no linker for {TARGET} here: install `lld`"))
}

/// The first of some programs that stands in a folder of `PATH`.
pub(crate) fn on_path(names: &[&str]) -> Option<PathBuf> {
    let path: OsString = env::var_os("PATH")?;
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    names.iter().find_map(|name| {
        folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|candidate| candidate.is_file())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysroot_without_the_target_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!has_target(Some(folder.path())));
        fs::create_dir_all(folder.path().join("lib/rustlib").join(TARGET).join("lib")).unwrap();
        assert!(has_target(Some(folder.path())));
        assert!(!has_target(None));
    }

    #[test]
    fn programs_are_found_in_order() {
        let shell = on_path(&["no-program-of-this-name", "sh"]).unwrap();
        assert!(shell.ends_with("sh"));
        assert_eq!(on_path(&["no-program-of-this-name"]), None);
    }
}

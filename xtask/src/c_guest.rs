//! Compiles C to a core wasm module, with clang if it can, else with the clang in Python's `ziglang`
//! package. It must not know what the module is for.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};

use crate::command::{ask, run, succeeds_within};
use crate::output::put;
use crate::wasm_target::on_path;
use crate::workspace::Workspace;

/// The version that is fetched where no compiler is found; a fixed one, so that builds are alike.
const ZIG_PACKAGE: &str = "ziglang==0.17.1";
const PIP_BOUND: Duration = Duration::from_secs(600);

/// What both compilers are told. Functions are exported by `__attribute__((export_name("...")))`; the
/// stack is 64 KiB, where linkers would reserve a megabyte.
const FLAGS: [&str; 8] = [
    "-std=c17",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wl,--no-entry",
    "-Wl,--strip-all",
    "-Wl,-z,stack-size=65536",
];

/// A compiler that makes wasm from C.
#[derive(Debug)]
pub(crate) enum CCompiler {
    Clang {
        linker: PathBuf,
    },
    /// `python3 -m ziglang cc`, with the folder that holds the package if it is not Python's own.
    Zig {
        packages: Option<PathBuf>,
    },
}

impl CCompiler {
    /// Finds or installs a compiler. Says in one line why, if it must install something.
    pub(crate) fn find(workspace: &Workspace) -> Result<Self> {
        let knows_wasm = ask(Command::new("clang").arg("--print-targets"))
            .is_some_and(|targets| targets.contains("wasm32"));
        if knows_wasm && let Some(linker) = on_path(&["wasm-ld"]) {
            return Ok(Self::Clang { linker });
        }
        let own = workspace.target().join("tools/python");
        for packages in [None, Some(own.clone())] {
            if ask(zig(packages.as_deref()).arg("version")).is_some() {
                return Ok(Self::Zig { packages });
            }
        }
        eprintln!(
            "pip install {ZIG_PACKAGE} to target/tools: C filters need a clang for wasm, and none is here"
        );
        let mut pip = Command::new("python3");
        pip.env("PIP_ROOT_USER_ACTION", "ignore");
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--target",
        ])
        .arg(&own)
        .arg(ZIG_PACKAGE);
        if !succeeds_within(&mut pip, PIP_BOUND) || ask(zig(Some(&own)).arg("version")).is_none() {
            bail!(
                "no C compiler for wasm: install clang and lld, or make `python3 -m pip install {ZIG_PACKAGE}` work"
            );
        }
        Ok(Self::Zig {
            packages: Some(own),
        })
    }

    /// Compiles `sources` together to `output`, if that is older than they are. Says whether it changed.
    pub(crate) fn compile(
        &self,
        workspace: &Workspace,
        sources: &[PathBuf],
        output: &Path,
    ) -> Result<bool> {
        if newer_than_inputs(output, sources) {
            return Ok(false);
        }
        let scratch = tempfile::tempdir_in(scratch_folder(workspace)?)?;
        let draft = scratch.path().join("out.wasm");
        let mut command = self.command(workspace);
        command.args(FLAGS).arg("-o").arg(&draft).args(sources);
        run(&mut command)?;
        let changed = put(output, &fs::read(&draft)?)?;
        // The same bytes from newer sources are up to date all the same.
        fs::File::options()
            .append(true)
            .open(output)?
            .set_modified(SystemTime::now())?;
        Ok(changed)
    }

    fn command(&self, workspace: &Workspace) -> Command {
        match self {
            Self::Clang { linker } => {
                let mut command = Command::new("clang");
                command.args(["--target=wasm32-unknown-unknown", "-nostdlib"]);
                // Copies of structures become instructions: there is no library that has `memcpy`.
                command.arg("-mbulk-memory");
                let mut choice = OsString::from("-fuse-ld=");
                choice.push(linker);
                command.arg(choice);
                command
            }
            Self::Zig { packages } => {
                let mut command = zig(packages.as_deref());
                let cache = workspace.target().join("tools/zig-cache");
                command
                    .env("ZIG_GLOBAL_CACHE_DIR", &cache)
                    .env("ZIG_LOCAL_CACHE_DIR", &cache)
                    // With its own small library, which has `memcpy` and its like.
                    .args(["cc", "-target", "wasm32-freestanding"]);
                command
            }
        }
    }
}

fn zig(packages: Option<&Path>) -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "ziglang"]);
    if let Some(packages) = packages {
        command.env("PYTHONPATH", packages);
    }
    command
}

fn scratch_folder(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target().join("tools");
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    Ok(folder)
}

/// Whether an output is younger than all files beside its sources (headers lie there), and than this
/// program, which holds the flags.
fn newer_than_inputs(output: &Path, sources: &[PathBuf]) -> bool {
    let Some(made) = modified(output) else {
        return false;
    };
    let mut inputs: Vec<PathBuf> = std::env::current_exe().into_iter().collect();
    for folder in sources.iter().filter_map(|source| source.parent()) {
        let Ok(entries) = fs::read_dir(folder) else {
            return false;
        };
        inputs.extend(entries.flatten().map(|entry| entry.path()));
    }
    inputs
        .iter()
        .all(|input| modified(input).is_some_and(|changed| changed < made))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_header_makes_the_output_old() {
        let folder = tempfile::tempdir().unwrap();
        let sources = [folder.path().join("a.c")];
        fs::write(&sources[0], "").unwrap();
        let output = tempfile::NamedTempFile::new().unwrap();
        let later = |seconds| SystemTime::now() + Duration::from_secs(seconds);
        output.as_file().set_modified(later(100)).unwrap();
        assert!(newer_than_inputs(output.path(), &sources));

        let header = fs::File::create(folder.path().join("a.h")).unwrap();
        header.set_modified(later(200)).unwrap();
        assert!(!newer_than_inputs(output.path(), &sources));
        assert!(!newer_than_inputs(
            &folder.path().join("none.wasm"),
            &sources
        ));
    }
}

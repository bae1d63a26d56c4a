//! `cargo xtask plugins`: builds every program that is wasm and puts it where proxies and tests look for
//! it. What is up to date is left to cargo and to files' times.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::Message;

use crate::c_guest::CCompiler;
use crate::command::for_each_line;
use crate::component;
use crate::output::put;
use crate::programs::{self, Library, Program, Shelf, Source};
use crate::wasm_target::WasmTarget;
use crate::workspace::Workspace;

/// Builds all of them; `components` adds each native one as a component.
pub(crate) fn run(workspace: &Workspace, components: bool) -> Result<()> {
    let programs = programs::find(workspace)?;
    let mut changed = build_rust(workspace, &programs)?;
    changed += build_c(workspace, &programs)?;
    if components {
        changed += wrap(workspace, &programs)?;
    }
    for shelf in Shelf::ALL {
        remove_strangers(workspace, &programs, shelf)?;
    }
    eprintln!(
        "{} programs in {} and {}, {changed} files new or changed",
        programs.len(),
        workspace
            .relative(&folder(workspace, Shelf::Plugins))
            .display(),
        workspace
            .relative(&folder(workspace, Shelf::Guests))
            .display(),
    );
    Ok(())
}

/// Builds the library of one package, and gives its bytes.
pub(crate) fn build_package(
    workspace: &Workspace,
    manifest: &Path,
    package: &str,
) -> Result<Vec<u8>> {
    let target = WasmTarget::find(workspace)?;
    let library = Library {
        workspace: manifest.to_owned(),
        package: package.to_owned(),
        name: package.replace('-', "_"),
        opt_level: None,
    };
    cargo_build(workspace, &target, &library)
}

fn folder(workspace: &Workspace, shelf: Shelf) -> PathBuf {
    workspace.target().join(shelf.folder())
}

fn file(workspace: &Workspace, program: &Program) -> PathBuf {
    folder(workspace, program.shelf).join(format!("{}.wasm", program.name))
}

fn build_rust(workspace: &Workspace, programs: &[Program]) -> Result<usize> {
    let mut target = None;
    let mut changed = 0;
    for program in programs {
        let Source::Cargo(library) = &program.source else {
            continue;
        };
        let target = match &target {
            Some(found) => found,
            None => target.insert(WasmTarget::find(workspace)?),
        };
        let bytes = cargo_build(workspace, target, library)?;
        changed += usize::from(report(workspace, &file(workspace, program), &bytes)?);
    }
    Ok(changed)
}

/// Builds one library and gives its module.
fn cargo_build(workspace: &Workspace, target: &WasmTarget, library: &Library) -> Result<Vec<u8>> {
    let package = &library.package;
    let mut command = target.cargo_rustc(workspace);
    command.arg("--manifest-path").arg(&library.workspace);
    command.args(["--package", package]);
    command.args(["--quiet", "--message-format", "json-render-diagnostics"]);
    if let Some(level) = &library.opt_level {
        command.arg("--config");
        command.arg(format!("profile.wasm.opt-level='{level}'"));
    }
    let mut built = None;
    let good = for_each_line(&mut command, |line| {
        if let Ok(Message::CompilerArtifact(artifact)) = serde_json::from_str(line) {
            for file in artifact.filenames {
                if file.extension() == Some("wasm")
                    && artifact.target.name.replace('-', "_") == library.name
                {
                    built = Some(file);
                }
            }
        }
    })?;
    let built = match built {
        Some(built) if good => built,
        _ => bail!("`{package}` makes no wasm: it does not build, or is no cdylib"),
    };
    fs::read(&built).with_context(|| format!("can't read {built}"))
}

fn build_c(workspace: &Workspace, programs: &[Program]) -> Result<usize> {
    let mut compiler = None;
    let mut changed = 0;
    for program in programs {
        let Source::C(sources) = &program.source else {
            continue;
        };
        let compiler = match &compiler {
            Some(found) => found,
            None => compiler.insert(CCompiler::find(workspace)?),
        };
        let output = file(workspace, program);
        if compiler.compile(workspace, sources, &output)? {
            announce(workspace, &output)?;
            changed += 1;
        }
    }
    Ok(changed)
}

fn wrap(workspace: &Workspace, programs: &[Program]) -> Result<usize> {
    let wit = workspace.root().join("sdk/wit");
    let mut changed = 0;
    for program in programs {
        let core_file = file(workspace, program);
        let name = workspace.relative(&core_file).display();
        let core = fs::read(&core_file).with_context(|| format!("can't read {name}"))?;
        let component = component::wrap(&core, &wit)
            .with_context(|| format!("can't make a component of {name}"))?;
        if let Some(component) = component {
            let output = core_file.with_extension("component.wasm");
            changed += usize::from(report(workspace, &output, &component)?);
        }
    }
    Ok(changed)
}

fn report(workspace: &Workspace, output: &Path, bytes: &[u8]) -> Result<bool> {
    let changed = put(output, bytes)?;
    if changed {
        announce(workspace, output)?;
    }
    Ok(changed)
}

fn announce(workspace: &Workspace, output: &Path) -> Result<()> {
    let length = fs::metadata(output)?.len();
    let tenths = length * 10 / 1024;
    eprintln!(
        "{:>8}.{} KiB  {}",
        tenths / 10,
        tenths % 10,
        workspace.relative(output).display()
    );
    Ok(())
}

/// Removes what a program left that is gone or renamed: a proxy that is given the folder would load it.
fn remove_strangers(workspace: &Workspace, programs: &[Program], shelf: Shelf) -> Result<()> {
    let names: BTreeSet<&str> = programs
        .iter()
        .filter(|program| program.shelf == shelf)
        .map(|program| program.name.as_str())
        .collect();
    let folder = folder(workspace, shelf);
    let Ok(entries) = fs::read_dir(&folder) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        let stranger = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".wasm"))
            .is_some_and(|name| !names.contains(name.strip_suffix(".component").unwrap_or(name)));
        if stranger {
            fs::remove_file(&path).with_context(|| format!("can't remove {}", path.display()))?;
            eprintln!(
                "removed {}: nothing makes it any more",
                workspace.relative(&path).display()
            );
        }
    }
    Ok(())
}

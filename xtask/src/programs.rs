//! Finds the programs that are built for wasm: the shipped filters, the examples' filters, the tests'
//! guests. It reads folders and manifests and builds nothing.
//!
//! - `plugins/NAME`: a member of the workspace, `tidegate-NAME`, gives `target/plugins/NAME.wasm`.
//! - `examples/NAME/filter` (or `examples/NAME`): a cargo package of its own gives
//!   `target/plugins/PACKAGE.wasm`, a folder with C files gives `target/plugins/NAME.wasm`.
//! - `tests/guests`: a workspace of its own whose libraries give `target/guests/PACKAGE.wasm`; each file
//!   `tests/guests/c/NAME.c` gives `target/guests/NAME.wasm`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{CrateType, Metadata, Package};

use crate::workspace::{Workspace, read};

/// One program to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    /// The name of its file, without `.wasm`.
    pub(crate) name: String,
    pub(crate) shelf: Shelf,
    pub(crate) source: Source,
}

/// Where a program goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shelf {
    Plugins,
    Guests,
}

impl Shelf {
    pub(crate) const ALL: [Self; 2] = [Self::Plugins, Self::Guests];

    /// The name of its folder below `target`.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Plugins => "plugins",
            Self::Guests => "guests",
        }
    }
}

/// What a program is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A dynamic library of a cargo package.
    Cargo(Library),
    /// C files that are compiled together.
    C(Vec<PathBuf>),
}

/// A dynamic library of a cargo package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Library {
    /// The manifest of the workspace that holds the package.
    pub(crate) workspace: PathBuf,
    pub(crate) package: String,
    /// The library's name, by which cargo calls the file.
    pub(crate) name: String,
    /// How the compiler shall optimise, where the package asks for something else than the others: `[package.metadata.wasm]`
    /// `opt-level`.
    pub(crate) opt_level: Option<String>,
}

/// Everything that there is to build, in a stable order.
pub(crate) fn find(workspace: &Workspace) -> Result<Vec<Program>> {
    let root = workspace.root();
    let mut found = shipped(&workspace.metadata, root);
    for example in folders(&root.join("examples"))? {
        found.extend(example_filters(&example)?);
    }
    let guests = root.join("tests/guests");
    let manifest = guests.join("Cargo.toml");
    if manifest.is_file() {
        found.extend(libraries(&read(&manifest)?, Shelf::Guests, str::to_owned));
    }
    for source in c_files(&guests.join("c"))? {
        let name = stem(&source)?;
        found.push(Program {
            name,
            shelf: Shelf::Guests,
            source: Source::C(vec![source]),
        });
    }
    refuse_collisions(&found)?;
    Ok(found)
}

fn shipped(metadata: &Metadata, root: &Path) -> Vec<Program> {
    let folder = root.join("plugins");
    let mut metadata = metadata.clone();
    metadata
        .packages
        .retain(|package| package.manifest_path.starts_with(&folder));
    libraries(&metadata, Shelf::Plugins, |package| {
        package
            .strip_prefix("tidegate-")
            .unwrap_or(package)
            .to_owned()
    })
}

fn example_filters(example: &Path) -> Result<Vec<Program>> {
    for folder in [example.join("filter"), example.to_owned()] {
        let manifest = folder.join("Cargo.toml");
        if manifest.is_file() {
            return Ok(libraries(&read(&manifest)?, Shelf::Plugins, str::to_owned));
        }
        let sources = c_files(&folder)?;
        if !sources.is_empty() {
            return Ok(vec![Program {
                name: stem(example)?,
                shelf: Shelf::Plugins,
                source: Source::C(sources),
            }]);
        }
    }
    Ok(Vec::new())
}

/// The packages that make a dynamic library, which is what a wasm module is to cargo.
fn libraries(metadata: &Metadata, shelf: Shelf, name: impl Fn(&str) -> String) -> Vec<Program> {
    let manifest = metadata.workspace_root.as_std_path().join("Cargo.toml");
    let mut found: Vec<Program> = metadata
        .packages
        .iter()
        .flat_map(|package| {
            let dynamic = package
                .targets
                .iter()
                .filter(|target| target.crate_types.contains(&CrateType::CDyLib));
            dynamic.map(|target| Program {
                name: name(&package.name),
                shelf,
                source: Source::Cargo(Library {
                    workspace: manifest.clone(),
                    package: package.name.to_string(),
                    name: target.name.replace('-', "_"),
                    opt_level: opt_level(package),
                }),
            })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn opt_level(package: &Package) -> Option<String> {
    let level = package.metadata.get("wasm")?.get("opt-level")?;
    level.as_str().map(str::to_owned)
}

/// Two programs of one file name would overwrite each other, two libraries of one name would do so in
/// cargo's target folder.
fn refuse_collisions(programs: &[Program]) -> Result<()> {
    let mut files = BTreeMap::new();
    let mut libraries = BTreeMap::new();
    for program in programs {
        if let Some(other) = files.insert((program.shelf, &program.name), program) {
            bail!(
                "two programs want to be target/{}/{}.wasm: {} and {}; rename one",
                program.shelf.folder(),
                program.name,
                describe(other),
                describe(program)
            );
        }
        if let Source::Cargo(Library { name, .. }) = &program.source
            && let Some(other) = libraries.insert(name, program)
        {
            bail!(
                "two libraries are called `{name}`: {} and {}; rename one",
                describe(other),
                describe(program)
            );
        }
    }
    Ok(())
}

fn describe(program: &Program) -> String {
    match &program.source {
        Source::Cargo(Library {
            workspace, package, ..
        }) => format!("package `{package}` of {}", workspace.display()),
        Source::C(files) => {
            let files: Vec<String> = files
                .iter()
                .map(|file| file.display().to_string())
                .collect();
            files.join(" with ")
        }
    }
}

fn folders(parent: &Path) -> Result<Vec<PathBuf>> {
    let mut found = entries(parent)?;
    found.retain(|path| path.is_dir());
    Ok(found)
}

fn c_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = entries(folder)?;
    found.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
    Ok(found)
}

/// What lies in a folder, in the order of the names; nothing if there is no such folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))? {
        found.push(entry?.path());
    }
    found.sort();
    Ok(found)
}

fn stem(path: &Path) -> Result<String> {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    Ok(stem
        .with_context(|| format!("{} has no name that can be used", path.display()))?
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cargo_program(name: &str, shelf: Shelf, library: &str) -> Program {
        Program {
            name: name.to_owned(),
            shelf,
            source: Source::Cargo(Library {
                workspace: format!("/{name}/Cargo.toml").into(),
                package: name.to_owned(),
                name: library.to_owned(),
                opt_level: None,
            }),
        }
    }

    #[test]
    fn a_c_example_is_called_like_its_folder() {
        let root = tempfile::tempdir().unwrap();
        let filter = root.path().join("stamp/filter");
        fs::create_dir_all(&filter).unwrap();
        for file in ["b.c", "a.c", "notes.md"] {
            fs::write(filter.join(file), "").unwrap();
        }
        assert_eq!(
            example_filters(&root.path().join("stamp")).unwrap(),
            [Program {
                name: "stamp".to_owned(),
                shelf: Shelf::Plugins,
                source: Source::C(vec![filter.join("a.c"), filter.join("b.c")]),
            }]
        );
    }

    #[test]
    fn an_example_without_a_filter_of_its_own_is_fine() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("tidegate.toml"), "").unwrap();
        assert_eq!(example_filters(root.path()).unwrap(), []);
    }

    #[test]
    fn a_package_is_called_by_its_name() {
        let root = tempfile::tempdir().unwrap();
        let filter = root.path().join("filter");
        fs::create_dir_all(filter.join("src")).unwrap();
        fs::write(filter.join("src/lib.rs"), "").unwrap();
        fs::write(
            filter.join("Cargo.toml"),
            "[package]\nname = \"say-hello\"\n[lib]\ncrate-type = [\"cdylib\"]\n[workspace]\n",
        )
        .unwrap();
        let found = example_filters(root.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "say-hello");
        assert!(
            matches!(&found[0].source, Source::Cargo(Library { name, .. }) if name == "say_hello")
        );
    }

    #[test]
    fn two_programs_of_one_name_are_refused() {
        let message = refuse_collisions(&[
            cargo_program("a", Shelf::Plugins, "a"),
            cargo_program("a", Shelf::Plugins, "b"),
        ])
        .unwrap_err()
        .to_string();
        assert!(message.contains("target/plugins/a.wasm"), "{message}");
    }

    #[test]
    fn a_guest_and_a_filter_may_share_a_name_but_no_library() {
        let guest = cargo_program("a", Shelf::Guests, "guest_a");
        let filter = cargo_program("a", Shelf::Plugins, "a");
        assert!(refuse_collisions(&[guest, filter.clone()]).is_ok());
        let twin = cargo_program("b", Shelf::Guests, "a");
        let message = refuse_collisions(&[filter, twin]).unwrap_err().to_string();
        assert!(message.contains("libraries are called `a`"), "{message}");
    }
}

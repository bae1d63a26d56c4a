//! Holds the imports among our own crates against the floor table. Foreign crates are another file's.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cargo_metadata::{DependencyKind, Metadata};

use super::floors::{FILTERS, OUTSIDE, PLACES, SDK};
use crate::programs::{self, Source};
use crate::workspace::{Workspace, read};

/// A crate of ours, as cargo knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    name: String,
    /// From the repository's root.
    folder: PathBuf,
    /// The crates of this repository that it names as dependencies, of whatever kind.
    imports: Vec<Import>,
    /// Whether it has a workspace of its own, as an example's filter and the tests' guests have.
    guest: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Import {
    name: String,
    table: &'static str,
}

/// What the table says of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Only(&'static str, &'static [&'static str]),
    Anything,
}

/// One line for each edge and each crate that breaks the table.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let root = workspace.root();
    let mut members = members(&workspace.metadata, root, false);
    let mut manifests: Vec<PathBuf> = programs::find(workspace)?
        .into_iter()
        .filter_map(|program| match program.source {
            Source::Cargo(library) => Some(library.workspace),
            Source::C(_) => None,
        })
        .filter(|manifest| *manifest != root.join("Cargo.toml"))
        .collect();
    manifests.dedup();
    for manifest in manifests {
        members.extend(self::members(&read(&manifest)?, root, true));
    }
    Ok(breaches(&members))
}

fn members(metadata: &Metadata, root: &Path, guest: bool) -> Vec<Member> {
    let relative = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_owned();
    metadata
        .packages
        .iter()
        .map(|package| {
            let folder = package.manifest_path.parent();
            let siblings: Vec<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
            let imports = package.dependencies.iter().filter(|dependency| {
                let path = dependency.path.as_ref();
                // Guests may share code among themselves; that is no edge of the house.
                let among_guests = guest && siblings.contains(&dependency.name.as_str());
                path.is_some_and(|path| path.starts_with(root)) && !among_guests
            });
            Member {
                name: package.name.to_string(),
                folder: folder.map_or_else(PathBuf::new, |folder| relative(folder.as_std_path())),
                imports: imports
                    .map(|dependency| Import {
                        name: dependency.name.clone(),
                        table: match dependency.kind {
                            DependencyKind::Development => "dev-dependencies",
                            DependencyKind::Build => "build-dependencies",
                            _ => "dependencies",
                        },
                    })
                    .collect(),
                guest,
            }
        })
        .collect()
}

fn breaches(members: &[Member]) -> Vec<String> {
    let mut found = Vec::new();
    for member in members {
        let Some(rule) = rule(member) else {
            found.push(format!(
                "crate `{}` in {} has no place in the floor table: give it one in \
                 xtask/src/lint/floors.rs and in ARCHITECTURE.md",
                member.name,
                member.folder.display()
            ));
            continue;
        };
        for import in &member.imports {
            found.extend(breach(member, rule, import));
        }
    }
    found
}

/// The rule for a member; none if it is unknown or does not lie where the table puts it.
fn rule(member: &Member) -> Option<Rule> {
    if member.guest {
        return Some(Rule::Only("a guest program", &[SDK]));
    }
    if member.folder.parent() == Some(Path::new(FILTERS)) {
        return Some(Rule::Only("a filter", &[SDK]));
    }
    let is =
        |(name, folder): (&str, &str)| member.name == name && member.folder == Path::new(folder);
    if OUTSIDE.into_iter().any(is) {
        return Some(Rule::Anything);
    }
    PLACES
        .iter()
        .find(|place| is((place.name, place.folder)))
        .map(|place| Rule::Only(place.floor, place.may_import))
}

fn breach(member: &Member, rule: Rule, import: &Import) -> Option<String> {
    let edge = format!(
        "`{}` imports `{}` ([{}] of {}/Cargo.toml)",
        member.name,
        import.name,
        import.table,
        member.folder.display()
    );
    if OUTSIDE.iter().any(|(name, _)| *name == import.name) {
        return Some(format!(
            "{edge}: tests and tools are imported by nobody; move what is shared into a crate of the house"
        ));
    }
    let Rule::Only(floor, allowed) = rule else {
        return None;
    };
    if allowed.contains(&import.name.as_str()) {
        return None;
    }
    let may = match allowed {
        [] => "nothing of this workspace".to_owned(),
        names => format!("only `{}`", names.join("`, `")),
    };
    Some(format!(
        "{edge}: as {floor} it may import {may}; move what both need to a lower floor, or let the upper \
         floor hand it down behind a trait of `tidegate-core`"
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn member(name: &str, folder: &str, imports: &[&str]) -> Member {
        Member {
            name: name.to_owned(),
            folder: folder.into(),
            imports: imports
                .iter()
                .map(|name| Import {
                    name: (*name).to_owned(),
                    table: "dependencies",
                })
                .collect(),
            guest: false,
        }
    }

    #[test]
    fn the_house_as_it_is_meant_has_no_breach() {
        let members = [
            member("tidegate-core", "host/core", &[]),
            member("tidegate-wasm", "host/wasm", &["tidegate-core"]),
            member(
                "tidegate-gateway",
                "host/gateway",
                &["tidegate-core", "tidegate-upstream", "tidegate-wasm"],
            ),
            member("tidegate-auth", "plugins/auth", &["tidegate-sdk"]),
            member("tidegate-tests", "tests", &["tidegate", "tidegate-core"]),
            member("xtask", "xtask", &[]),
        ];
        assert_eq!(breaches(&members), Vec::<String>::new());
    }

    #[test]
    fn an_upward_edge_is_named_with_a_remedy() {
        let found = breaches(&[member("tidegate-core", "host/core", &["tidegate-gateway"])]);
        assert_eq!(found.len(), 1);
        for part in [
            "`tidegate-core` imports `tidegate-gateway`",
            "[dependencies] of host/core/Cargo.toml",
            "nothing of this workspace",
            "lower floor",
        ] {
            assert!(found[0].contains(part), "{found:?}");
        }
    }

    #[test]
    fn neighbours_on_one_floor_do_not_import_each_other() {
        let found = breaches(&[member(
            "tidegate-wasm",
            "host/wasm",
            &["tidegate-core", "tidegate-upstream"],
        )]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("only `tidegate-core`"), "{found:?}");
    }

    #[test]
    fn filters_and_guests_see_the_sdk_alone() {
        let guest = Member {
            guest: true,
            ..member("hello", "examples/hello/filter", &["tidegate-core"])
        };
        let filter = member(
            "tidegate-auth",
            "plugins/auth",
            &["tidegate-sdk", "tidegate-core"],
        );
        let found = breaches(&[guest, filter]);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn nobody_imports_the_tests() {
        let found = breaches(&[member("xtask", "xtask", &["tidegate-tests"])]);
        assert!(found[0].contains("imported by nobody"), "{found:?}");
    }

    #[test]
    fn a_crate_without_a_place_is_named() {
        let found = breaches(&[
            member("tidegate-extra", "host/extra", &[]),
            member("tidegate-core", "host/elsewhere", &[]),
        ]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].contains("`tidegate-extra` in host/extra"),
            "{found:?}"
        );
    }

    /// The same through cargo itself: a small house with one wrong arrow.
    #[test]
    fn an_edge_in_a_manifest_is_found() {
        let house = tempfile::tempdir().unwrap();
        let root = house.path().canonicalize().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "Cargo.toml",
            "[workspace]\nresolver = \"3\"\nmembers = [\"host/core\", \"host/wasm\"]\n",
        );
        write(
            "host/core/Cargo.toml",
            "[package]\nname = \"tidegate-core\"\n[dev-dependencies]\ntidegate-wasm.path = \"../wasm\"\n",
        );
        write(
            "host/wasm/Cargo.toml",
            "[package]\nname = \"tidegate-wasm\"\n",
        );
        write("host/core/src/lib.rs", "");
        write("host/wasm/src/lib.rs", "");

        let metadata = read(&root.join("Cargo.toml")).unwrap();
        let found = breaches(&members(&metadata, &root, false));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains(
                "`tidegate-core` imports `tidegate-wasm` ([dev-dependencies] of host/core/Cargo.toml)"
            ),
            "{found:?}"
        );
    }
}

//! Looks for crates that must not be anywhere in another's tree, and shows the way by which they came in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context as _, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

use super::floors::PLACES;
use crate::workspace::Workspace;

/// Which crate needs which, in a program that is shipped: without the tests' dependencies.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// One line for each crate that is where it must not be.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(workspace.root().join("Cargo.toml"))
        .exec()
        .context("cargo can't resolve the workspace's dependencies")?;
    let graph = graph(&metadata)?;
    let mut breaches = Vec::new();
    for place in &PLACES {
        for banned in place.never_holds {
            if let Some(way) = way(&graph, place.name, banned) {
                breaches.push(format!(
                    "`{}` must stay free of `{banned}`, which comes in by {}; drop that dependency, or move \
                     the code that needs it to the floor that owns `{banned}`",
                    place.name,
                    way.join(" -> ")
                ));
            }
        }
    }
    Ok(breaches)
}

fn graph(metadata: &Metadata) -> Result<Graph> {
    let resolve = metadata
        .resolve
        .as_ref()
        .context("cargo metadata came without a resolved graph")?;
    let names: BTreeMap<_, _> = metadata
        .packages
        .iter()
        .map(|package| (&package.id, package.name.to_string()))
        .collect();
    let mut graph = Graph::new();
    for node in &resolve.nodes {
        let Some(name) = names.get(&node.id) else {
            continue;
        };
        let needed = node.deps.iter().filter(|dependency| {
            let mut kinds = dependency.dep_kinds.iter();
            kinds.any(|kind| kind.kind == DependencyKind::Normal)
        });
        // Two versions of one crate are one node here: either of them would be a breach.
        graph
            .entry(name.clone())
            .or_default()
            .extend(needed.filter_map(|dependency| names.get(&dependency.pkg).cloned()));
    }
    Ok(graph)
}

/// The shortest way from one crate to another.
fn way<'a>(graph: &'a Graph, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let mut seen = BTreeSet::from([from]);
    let mut open = VecDeque::from([vec![from]]);
    while let Some(path) = open.pop_front() {
        let last = *path.last()?;
        if last == to {
            return Some(path);
        }
        for next in graph.get(last).into_iter().flatten() {
            if seen.insert(next) {
                open.push_back([path.as_slice(), &[next.as_str()]].concat());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph_of(edges: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph
                .entry((*from).to_owned())
                .or_default()
                .insert((*to).to_owned());
        }
        graph
    }

    #[test]
    fn the_shortest_way_is_shown() {
        let graph = graph_of(&[
            ("tidegate-core", "a"),
            ("a", "b"),
            ("b", "tokio"),
            ("tidegate-core", "c"),
            ("c", "tokio"),
            ("c", "tidegate-core"),
        ]);
        assert_eq!(
            way(&graph, "tidegate-core", "tokio").unwrap(),
            ["tidegate-core", "c", "tokio"]
        );
        assert_eq!(way(&graph, "tidegate-core", "wasmtime"), None);
        assert_eq!(way(&graph, "not-there", "tokio"), None);
    }
}

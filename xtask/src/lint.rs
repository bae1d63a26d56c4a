//! `cargo xtask lint`: the rules of ARCHITECTURE.md that a machine can hold: who may import whom, what
//! stays out of the core, and how each source file begins. Style within a file is rustfmt's and clippy's.

mod edges;
mod floors;
mod reach;
mod sources;

use anyhow::Result;

use crate::workspace::Workspace;

/// Names every breach of a rule. Says whether there was none.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    let mut breaches = edges::check(workspace)?;
    breaches.extend(reach::check(workspace)?);
    let sources = sources::check(workspace)?;
    breaches.extend(sources.breaches);

    for warning in &sources.warnings {
        eprintln!("warning: {warning}");
    }
    for breach in &breaches {
        eprintln!("error: {breach}");
    }
    match breaches.len() {
        0 => eprintln!(
            "lint: {} crates and {} source files keep the rules",
            workspace.metadata.packages.len(),
            sources.files
        ),
        1 => eprintln!("lint: 1 rule is broken"),
        count => eprintln!("lint: {count} rules are broken"),
    }
    Ok(breaches.is_empty())
}

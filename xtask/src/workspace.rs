//! Where things lie: the repository's root, its crates and its target folder. Nothing here builds.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cargo_metadata::{Metadata, MetadataCommand};

/// The repository as cargo sees it.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The members and their declared dependencies, without resolving anything.
    pub(crate) metadata: Metadata,
}

impl Workspace {
    /// Finds the workspace that this program was built from.
    pub(crate) fn find() -> Result<Self> {
        // Cargo sets the variable for `cargo run`; without it the program was started by hand.
        let own_folder = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = own_folder
            .parent()
            .context("xtask lies in no workspace: call it as `cargo xtask`")?;
        Ok(Self {
            metadata: read(&root.join("Cargo.toml"))?,
        })
    }

    /// The repository's root.
    pub(crate) fn root(&self) -> &Path {
        self.metadata.workspace_root.as_std_path()
    }

    /// Where everything that is built goes, `target` unless cargo is configured otherwise.
    pub(crate) fn target(&self) -> &Path {
        self.metadata.target_directory.as_std_path()
    }

    /// A path as a reader of messages wants it: from the root on.
    pub(crate) fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(self.root()).unwrap_or(path)
    }
}

/// Reads the members that a manifest's workspace has, without resolving their dependencies.
pub(crate) fn read(manifest: &Path) -> Result<Metadata> {
    MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .exec()
        .with_context(|| format!("cargo can't read {}", manifest.display()))
}

//! `cargo xtask fuzz`: the fuzz targets for a bounded time, with the compiler at hand. `cargo fuzz`, where there is one,
//! runs the same targets from the folder `fuzz` and sees which code they reach.

use std::path::PathBuf;

use anyhow::Result;

use crate::command::{cargo, locked, run as run_to_end};
use crate::workspace::Workspace;

/// What to try, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Targets: configuration, forwarding, framing, header-replace, header-template, host-calls, route. Default: all.
    targets: Vec<String>,
    /// Seconds for all of them together.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// What the inputs are made from; the same number gives the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this file's content, with the one target that is named.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
}

impl Options {
    /// What belongs to every run of the tests.
    pub(crate) fn of_tests() -> Self {
        Self {
            targets: Vec::new(),
            seconds: 20,
            seed: 1,
            replay: None,
        }
    }
}

/// Runs targets. Says whether everything held; the driver has told what did not.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    let mut build = cargo();
    build.current_dir(workspace.root());
    // With the whole workspace: alone it would want the same crates with other features, and build them all again.
    build.args(["build", "--quiet", "--workspace", "--bins"]);
    run_to_end(locked(&mut build))?;
    let mut driver = std::process::Command::new(workspace.target().join("debug/tidegate-fuzz"));
    driver.args(&options.targets);
    driver.args(["--seconds", &options.seconds.to_string()]);
    driver.args(["--seed", &options.seed.to_string()]);
    driver
        .arg("--artifacts")
        .arg(workspace.target().join("fuzz"));
    if let Some(file) = &options.replay {
        driver.arg("--replay").arg(file);
    }
    Ok(driver.status()?.success())
}

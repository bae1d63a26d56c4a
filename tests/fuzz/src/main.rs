//! The stable driver: runs targets one after the other for a bounded time, or a file through one of them.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it talks to the terminal that called it"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use tidegate_fuzz::{TARGETS, Target, driver};

/// Runs fuzz targets.
#[derive(Debug, Parser)]
struct Arguments {
    /// The targets. Default: all.
    targets: Vec<String>,
    /// Seconds for all of them together.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// What the inputs are made from; the same gives the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this file's content, and no other input.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Where inputs go at which something did not hold.
    #[arg(long, default_value = "target/fuzz")]
    artifacts: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let targets = chosen(&arguments.targets)?;
    if let Some(file) = &arguments.replay {
        let [target] = targets.as_slice() else {
            bail!("name the one target that is to be given the file");
        };
        let input =
            std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
        println!("{}: {:016x}", target.name, (target.fuzz)(&input));
        return Ok(true);
    }
    let count = u32::try_from(targets.len()).unwrap_or(1).max(1);
    let time = Duration::from_secs(arguments.seconds) / count;
    // Panics are told in the report.
    std::panic::set_hook(Box::new(|_| {}));
    let mut good = true;
    for target in targets {
        let artifacts = arguments.artifacts.join(target.name);
        let report = driver::run(&target, time, arguments.seed, &artifacts)?;
        println!(
            "{}: {} inputs, {} kept",
            target.name, report.tried, report.kept
        );
        if let Some((file, message)) = report.failure {
            good = false;
            println!("{}: failed: {message}", target.name);
            println!(
                "  again: cargo xtask fuzz {} --replay {}",
                target.name,
                file.display()
            );
        }
    }
    Ok(good)
}

fn chosen(names: &[String]) -> Result<Vec<Target>> {
    if names.is_empty() {
        return Ok(TARGETS.to_vec());
    }
    let find = |name: &String| {
        let known = || TARGETS.map(|target| target.name).join(", ");
        let found = TARGETS.into_iter().find(|target| target.name == name);
        found.with_context(|| format!("no target is called {name}; there are {}", known()))
    };
    names.iter().map(find).collect()
}

//! The repository's build tool, `cargo xtask COMMAND`: it calls cargo and the C compiler in the right
//! order. It knows where things lie in this repository; it must not know what they do.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a build tool talks to the terminal that called it"
)]

mod bench;
mod c_guest;
mod client;
mod command;
mod component;
mod demo;
mod fuzz;
mod lint;
mod output;
mod plugins;
mod programs;
mod test;
mod wasm_target;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Builds, checks and shows tidegate.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the shipped filters and the examples to target/plugins, the tests' guests to target/guests.
    Plugins {
        /// Also write each native filter as a component, NAME.component.wasm.
        #[arg(long)]
        components: bool,
    },
    /// Build everything, then run all tests: unit, documentation, system.
    Test {
        /// Also what takes hours: 1,000 reloads, an hour of mixed load.
        #[arg(long)]
        long: bool,
        /// Handed to every `cargo test`, as in `cargo xtask test reload -- --nocapture`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build everything, start an upstream and the proxy with the shipped filters, and stay up to be tried.
    Demo {
        /// Try it instead: send requests, replace a filter under load, end with 0 only if all held.
        #[arg(long)]
        once: bool,
    },
    /// Measure what a request costs, beside nginx and HAProxy, and write docs/benchmarks.md.
    Bench(bench::Options),
    /// Try the parsers, the rules and the host functions with made-up inputs, for a bounded time.
    Fuzz(fuzz::Options),
    /// Hold crates and sources against the rules of ARCHITECTURE.md.
    Lint,
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether all was well; whoever says no has told why.
fn run(task: &Task) -> Result<bool> {
    let workspace = Workspace::find()?;
    match task {
        Task::Plugins { components } => plugins::run(&workspace, *components).map(|()| true),
        Task::Test { long, arguments } => test::run(&workspace, *long, arguments),
        Task::Demo { once } => demo::run(&workspace, *once),
        Task::Bench(options) => bench::run(&workspace, options),
        Task::Fuzz(options) => fuzz::run(&workspace, options),
        Task::Lint => lint::run(&workspace),
    }
}

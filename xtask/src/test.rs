//! `cargo xtask test`: builds what the tests need, runs them all in the order from small to large, and
//! adds them up.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::command::{cargo, for_each_line, locked, run as run_to_end};
use crate::fuzz;
use crate::plugins;
use crate::workspace::Workspace;

/// The stages, as `cargo test` selects them. All of them name the whole workspace: the same features,
/// and so the same build, for each.
const STAGES: [(&str, &[&str]); 3] = [
    (
        "unit tests of host, SDK, filters and tools",
        &["--lib", "--bins"],
    ),
    ("examples in the documentation", &["--doc"]),
    ("system tests through the real binary", &["--test", "*"]),
];

/// The variable that tests look at which have a short and a long form.
const LONG: &str = "TIDEGATE_TEST_LONG";

/// What libtest counts, added up.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Builds and runs everything; `arguments` go to each `cargo test`, and `long` tests take as long as they can. The last
/// line is the sum. Says whether all passed.
pub(crate) fn run(workspace: &Workspace, long: bool, arguments: &[String]) -> Result<bool> {
    let start = Instant::now();
    plugins::run(workspace, true)?;
    // One build for all: system tests start the binary, which cargo builds for no other package's tests.
    let mut build = cargo();
    build.current_dir(workspace.root());
    build.args(["build", "--workspace", "--bins", "--tests"]);
    run_to_end(locked(&mut build))?;

    let mut sum = Count::default();
    let mut broken = Vec::new();
    for (name, selection) in STAGES {
        println!("\n== {name}");
        let mut stage = stage(workspace, selection, arguments);
        if long {
            stage.env(LONG, "1");
        }
        let good = for_each_line(&mut stage, |line| {
            println!("{line}");
            sum.add_line(line);
        })?;
        if !good {
            broken.push(name);
        }
    }
    println!("\n== fuzz targets, for a short time");
    if !fuzz::run(workspace, &fuzz::Options::of_tests())? {
        broken.push("fuzz targets");
    }
    println!("\n== sum, after {} s", start.elapsed().as_secs());
    for name in &broken {
        println!("not passed: {name}");
    }
    if sum.ignored > 0 {
        println!("{} ignored", sum.ignored);
    }
    println!("{} passed, {} failed", sum.passed, sum.failed);
    Ok(broken.is_empty())
}

fn stage(workspace: &Workspace, selection: &[&str], arguments: &[String]) -> Command {
    let mut command = cargo();
    command.current_dir(workspace.root());
    command.args(["test", "--workspace", "--no-fail-fast"]);
    locked(&mut command).args(selection).args(arguments);
    command
}

impl Count {
    /// Takes a line like `test result: ok. 3 passed; 0 failed; 1 ignored; ...`; others count nothing.
    fn add_line(&mut self, line: &str) {
        let Some(result) = line.trim_start().strip_prefix("test result: ") else {
            return;
        };
        for part in result.split([';', '.']) {
            let mut words = part.split_whitespace();
            let Some(number) = words.next().and_then(|word| word.parse::<u64>().ok()) else {
                continue;
            };
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_added_up() {
        let mut sum = Count::default();
        for line in [
            "running 4 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s",
            "test a::passed ... ok",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1.50s",
        ] {
            sum.add_line(line);
        }
        assert_eq!(
            sum,
            Count {
                passed: 13,
                failed: 2,
                ignored: 1
            }
        );
    }
}

//! `cargo xtask bench --micro`: runs the micro-benchmarks and holds them against the committed results. What counts is
//! the proportion to a loop that every machine runs, so that machines compare.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, process};

use anyhow::{Context as _, Result, bail};

use crate::command::{cargo, locked};
use crate::output::put;
use crate::workspace::Workspace;

/// The benchmark that the others are measured by.
const CALIBRATION: &str = "calibration";
/// Samples of each, and how often each repeats the step: enough that reading a clock does not count, and that some samples
/// are left alone on a busy machine.
const REPEATS: &str = "200";
/// How much slower than committed is slower. A quarter: another machine's caches and clock make up for less.
const TOLERANCE: f64 = 1.25;

/// Runs them. Says whether none became slower than it may; `bless` makes the results the committed ones.
pub(super) fn run(workspace: &Workspace, bless: bool) -> Result<bool> {
    let mut bench = cargo();
    bench.current_dir(workspace.root());
    bench.args([
        "run",
        "--release",
        "--package",
        "tidegate-micro",
        "--features",
        "measure",
    ]);
    let output = locked(&mut bench)
        .args(["--", "--bench", "--sample-size", REPEATS])
        .args(["--sample-count", REPEATS])
        .stderr(process::Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("the micro-benchmarks failed: {text}");
    }
    let now = ratios(&fastest(&text))?;
    let file = baseline(workspace);
    if bless {
        put(&file, &(serde_json::to_vec_pretty(&now)?))?;
        println!(
            "{} benchmarks kept in {}",
            now.len(),
            workspace.relative(&file).display()
        );
        return Ok(true);
    }
    let before = read(&file)?;
    let (table, slower) = compare(
        &now,
        &before,
        fastest(&text).get(CALIBRATION).copied().unwrap_or_default(),
    );
    println!("{table}");
    if slower > 0 {
        println!("{slower} slower than {TOLERANCE} times what is committed");
    }
    Ok(slower == 0)
}

fn baseline(workspace: &Workspace) -> PathBuf {
    workspace.root().join("tests/micro/baseline.json")
}

fn read(file: &Path) -> Result<BTreeMap<String, f64>> {
    let text = fs::read(file)
        .with_context(|| format!("can't read {}; `--bless` makes it", file.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is not what `--bless` wrote", file.display()))
}

/// The fastest sample of each benchmark in nanoseconds, from the table that is printed.
fn fastest(table: &str) -> BTreeMap<String, f64> {
    table.lines().filter_map(line).collect()
}

/// A line like `├─ path_plain   12.3 ns   │ 40 ns ...`.
fn line(line: &str) -> Option<(String, f64)> {
    let line = line.trim_start_matches(['│', ' ', '├', '╰', '─']);
    let mut words = line.split_whitespace();
    let (name, number, unit) = (words.next()?, words.next()?, words.next()?);
    let scale = match unit {
        "ps" => 1e-3,
        "ns" => 1.0,
        "µs" => 1e3,
        "ms" => 1e6,
        _ => return None,
    };
    Some((name.to_owned(), number.parse::<f64>().ok()? * scale))
}

/// Each in proportion to the calibration, with four digits.
fn ratios(nanoseconds: &BTreeMap<String, f64>) -> Result<BTreeMap<String, f64>> {
    let unit = nanoseconds
        .get(CALIBRATION)
        .context("the calibration did not run")?;
    let others = nanoseconds.iter().filter(|(name, _)| *name != CALIBRATION);
    Ok(others
        .map(|(name, time)| (name.clone(), (time / unit * 1e4).round() / 1e4))
        .collect())
}

/// A table, and how many became slower.
fn compare(
    now: &BTreeMap<String, f64>,
    before: &BTreeMap<String, f64>,
    unit: f64,
) -> (String, usize) {
    let mut table =
        String::from("| step | ns | in proportion | committed | change |\n|---|---|---|---|---|\n");
    let mut slower = 0;
    for (name, ratio) in now {
        let (committed, change) = match before.get(name) {
            Some(before) if *before > 0.0 => {
                slower += usize::from(ratio / before > TOLERANCE);
                (
                    format!("{before:.4}"),
                    format!("{:+.0} %", (ratio / before - 1.0) * 100.0),
                )
            }
            _ => ("-".to_owned(), "new".to_owned()),
        };
        table += &format!(
            "| {name} | {:.0} | {ratio:.4} | {committed} | {change} |\n",
            ratio * unit
        );
    }
    (table, slower)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Timer precision: 10 ns\n\
        micro                      fastest       │ slowest       │ median        │ mean          │ samples │ iters\n\
        ├─ calibration             4 µs          │ 9 µs          │ 4.1 µs        │ 4.2 µs        │ 100     │ 800\n\
        ╰─ path_plain              20.5 ns       │ 55.1 ns       │ 21.1 ns       │ 22.1 ns       │ 100     │ 12800\n";

    #[test]
    fn the_table_is_read_and_set_in_proportion() {
        let found = fastest(TABLE);
        assert_eq!(found.len(), 2, "{found:?}");
        let ratios = ratios(&found).unwrap();
        assert_eq!(ratios, BTreeMap::from([("path_plain".to_owned(), 0.0051)]));
        assert!(super::ratios(&BTreeMap::new()).is_err());
    }

    #[test]
    fn only_what_is_much_slower_counts() {
        let with = |ratio| BTreeMap::from([("a".to_owned(), ratio), ("b".to_owned(), 1.0)]);
        assert_eq!(compare(&with(1.2), &with(1.0), 1.0).1, 0);
        let (table, slower) = compare(&with(1.3), &with(1.0), 1000.0);
        assert_eq!(slower, 1);
        assert!(
            table.contains("| a | 1300 | 1.3000 | 1.0000 | +30 % |"),
            "{table}"
        );
        assert_eq!(compare(&with(9.0), &BTreeMap::new(), 1.0).1, 0);
    }
}

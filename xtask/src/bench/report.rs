//! Tables of what was measured, and their place in the documentation. It must not know how it was measured.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::machine;
use super::measure::Run;
use super::peer::{Peer, PeerKind, program};
use super::statistics::{calm, median, p50_p99};
use super::workload::Workload;
use crate::command::ask;
use crate::output::put;
use crate::workspace::Workspace;

/// The document, and what stands around the tables in it.
const DOCUMENT: &str = "docs/benchmarks.md";
const BEGIN: &str = "<!-- written by `cargo xtask bench` -->\n";
const END: &str = "<!-- end of what it wrote -->";

/// A figure of one proxy with one workload.
type Figure<'a> = &'a dyn Fn(PeerKind, Workload) -> Option<f64>;

/// All tables, as markdown.
pub(super) fn tables(
    runs: &[Run],
    peers: &[Peer],
    workloads: &[Workload],
    two_workers: Option<f64>,
) -> String {
    let kinds: Vec<PeerKind> = peers.iter().map(|peer| peer.kind).collect();
    let loaded: Vec<Workload> = workloads
        .iter()
        .copied()
        .filter(|workload| *workload != Workload::Latency)
        .collect();
    let of = |peer: PeerKind, workload: Workload| {
        runs.iter()
            .filter(move |run| run.peer == peer && run.workload == workload)
    };
    let calm_cpu = |peer, workload| {
        calm(
            of(peer, workload)
                .flat_map(|run| run.windows.clone())
                .collect(),
        )
    };
    let median_cpu = |peer, workload| median(of(peer, workload).map(|run| run.cpu).collect());
    let latency = |peer, pick: fn((f64, f64)) -> f64| {
        let rounds = of(peer, Workload::Latency).filter_map(|run| p50_p99(&run.latencies));
        median(rounds.map(pick).collect())
    };

    let mut text = String::new();
    if !loaded.is_empty() {
        text += &table(
            "CPU of the proxy a request, calm: microseconds (and in proportion to nginx)",
            &kinds,
            &loaded,
            &calm_cpu,
        );
        text += &table("The same, median of the runs", &kinds, &loaded, &median_cpu);
        text += &filter_costs(&kinds, &calm_cpu);
    }
    if workloads.contains(&Workload::Latency) {
        text += "\nLatency at 500 requests a second on one connection: microseconds (and in proportion to nginx)\n\n";
        text += "| proxy | p50 | p99 |\n|---|---|---|\n";
        for kind in kinds
            .iter()
            .filter(|kind| latency(**kind, |both| both.0).is_some())
        {
            let cell = |pick: fn((f64, f64)) -> f64| {
                cell(latency(*kind, pick), latency(PeerKind::Nginx, pick), 0)
            };
            let _infallible = writeln!(
                text,
                "| {} | {} | {} |",
                kind.name(),
                cell(|both| both.0),
                cell(|both| both.1)
            );
        }
    }
    text += "\nResident memory, MiB\n\n| proxy | idle | highest |\n|---|---|---|\n";
    for peer in peers {
        let _infallible = writeln!(
            text,
            "| {} | {:.1} | {:.1} |",
            peer.kind.name(),
            peer.idle,
            peer.highest
        );
    }
    if let Some(two_workers) = two_workers {
        let _infallible = writeln!(
            text,
            "| tidegate+shipped, two workers | {two_workers:.1} | |"
        );
    }
    let disturbed = runs
        .iter()
        .filter(|run| run.others >= super::DISTURBED)
        .count();
    let _infallible = writeln!(
        text,
        "\n{disturbed} of {} runs shared the machine with other programs that took a tenth of a core or more.",
        runs.len()
    );
    text
}

fn table(title: &str, kinds: &[PeerKind], workloads: &[Workload], figure: Figure<'_>) -> String {
    let mut text = format!("\n{title}\n\n| proxy |");
    for workload in workloads {
        let _infallible = write!(text, " {} |", workload.title());
    }
    text += "\n|---|";
    text += &"---|".repeat(workloads.len());
    text += "\n";
    for &kind in kinds {
        let _infallible = write!(text, "| {} |", kind.name());
        for &workload in workloads {
            let _infallible = write!(
                text,
                " {} |",
                cell(figure(kind, workload), figure(PeerKind::Nginx, workload), 1)
            );
        }
        text += "\n";
    }
    text
}

/// A figure and its ratio to nginx's.
fn cell(figure: Option<f64>, nginx: Option<f64>, digits: usize) -> String {
    match (figure, nginx) {
        (Some(figure), Some(nginx)) if nginx > 0.0 => {
            format!("{figure:.digits$} ({:.2})", figure / nginx)
        }
        (Some(figure), _) => format!("{figure:.digits$}"),
        (None, _) => "-".to_owned(),
    }
}

/// What one small filter adds.
fn filter_costs(kinds: &[PeerKind], figure: Figure<'_>) -> String {
    let Some(plain) = figure(PeerKind::Tidegate, Workload::Get) else {
        return String::new();
    };
    let mut text = String::new();
    for &kind in kinds.iter().filter(|kind| kind.small_filters() > 0) {
        let count = f64::from(kind.small_filters());
        if let Some(with) = figure(kind, Workload::Get) {
            let _infallible = writeln!(text, "| {} | {:.2} |", kind.name(), (with - plain) / count);
        }
    }
    if text.is_empty() {
        return text;
    }
    format!(
        "\nWhat a small filter adds to GET 128 B, calm: microseconds each\n\n| proxy | one filter |\n|---|---|\n{text}"
    )
}

/// Machine, versions, date and command.
pub(super) fn circumstances(
    workspace: &Workspace,
    binary: &Path,
    rounds: u32,
    seconds: u32,
) -> String {
    let first_line =
        |text: Option<String>| text.and_then(|text| text.lines().next().map(str::to_owned));
    let version = first_line(ask(Command::new(binary).arg("--version")))
        .unwrap_or_else(|| "tidegate".to_owned());
    let mut git = Command::new("git");
    git.arg("-C")
        .arg(workspace.root())
        .args(["rev-parse", "--short", "HEAD"]);
    let commit = ask(&mut git)
        .map(|commit| format!(" at {commit}"))
        .unwrap_or_default();
    let haproxy = first_line(ask(Command::new(program("haproxy")).arg("-v"))).unwrap_or_default();
    let haproxy = haproxy.split(' ').nth(2).unwrap_or("?").to_owned();
    format!(
        "{}. {version}{commit}, nginx {}, HAProxy {haproxy}, wrk, {}. {}; `cargo xtask bench --rounds {rounds} --seconds {seconds}`.\n",
        machine::describe(),
        nginx_version(),
        first_line(ask(Command::new("h2load").arg("--version"))).unwrap_or_default(),
        machine::today(),
    )
}

/// nginx tells its version on standard error.
fn nginx_version() -> String {
    let output = Command::new(program("nginx")).arg("-v").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
    let text = text.unwrap_or_default();
    text.trim().rsplit('/').next().unwrap_or("?").to_owned()
}

/// Puts tables into the document, between the markers.
pub(super) fn keep(workspace: &Workspace, tables: &str, circumstances: &str) -> Result<()> {
    let path = workspace.root().join(DOCUMENT);
    let text =
        fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
    let text = replaced(&text, &format!("\n{circumstances}{tables}\n")).with_context(|| {
        format!(
            "{DOCUMENT} has no place for the tables: the line {}",
            BEGIN.trim()
        )
    })?;
    put(&path, text.as_bytes())?;
    println!("kept in {DOCUMENT}");
    Ok(())
}

fn replaced(document: &str, tables: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{tables}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_the_ratio_if_there_is_one() {
        assert_eq!(cell(Some(15.04), Some(20.0), 1), "15.0 (0.75)");
        assert_eq!(cell(Some(15.0), None, 0), "15");
        assert_eq!(cell(None, Some(20.0), 1), "-");
    }

    #[test]
    fn a_filter_costs_what_it_adds() {
        let figure = |kind: PeerKind, _: Workload| match kind {
            PeerKind::Tidegate => Some(10.0),
            PeerKind::Tidegate10 => Some(15.0),
            _ => None,
        };
        let text = filter_costs(&PeerKind::ALL, &figure);
        assert!(text.ends_with("| tidegate+10 | 0.50 |\n"), "{text}");
        assert!(!text.contains("tidegate+3"), "{text}");
    }

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let document = format!("# A\n{BEGIN}old\n{END}\n## B\n");
        assert_eq!(
            replaced(&document, "new\n").unwrap(),
            format!("# A\n{BEGIN}new\n{END}\n## B\n")
        );
        assert_eq!(replaced("# A\n", "new\n"), None);
    }
}

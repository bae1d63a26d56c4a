//! `cargo xtask bench`: what a request costs the proxy, side by side with others, on two cores and loopback only. The
//! proxy has one core, load and upstream the other; rounds are interleaved, so that a slow minute hits everyone.

mod install;
mod machine;
mod measure;
mod micro;
mod peer;
mod process;
mod report;
mod statistics;
mod upstream;
mod workload;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::machine::Quiet;
use self::measure::{Bench, Run};
use self::peer::{Peer, PeerKind};
use self::upstream::Upstream;
use self::workload::Workload;
use crate::command::{cargo, locked, run as run_to_end};
use crate::plugins;
use crate::workspace::Workspace;

/// The core that the proxy has for itself, and the one of load, upstream and this program.
const PROXY_CORE: usize = 0;
const LOAD_CORE: usize = 1;
/// Seconds, over a whole bench, that are spent on waiting for other programs and on repeating what they disturbed.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often a disturbed run is tried.
const ATTEMPTS: usize = 3;
/// The share of a core from which on other programs disturb.
const DISTURBED: f64 = 0.1;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Proxies, separated by commas. Default: all.
    #[arg(long, value_delimiter = ',', value_enum)]
    peers: Vec<PeerKind>,
    /// Workloads, separated by commas. Default: all; small filters only where they tell something.
    #[arg(long, value_delimiter = ',', value_enum)]
    workloads: Vec<Workload>,
    /// Runs of each workload with each proxy.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each run.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=60))]
    seconds: u32,
    /// The tidegate to measure. Default: it is built for release.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Run the micro-benchmarks in place of all this, and compare them with the committed results.
    #[arg(long, conflicts_with_all = ["peers", "workloads", "rounds", "seconds", "binary", "install"])]
    micro: bool,
    /// Make the results of the micro-benchmarks the committed ones.
    #[arg(long, requires = "micro")]
    bless: bool,
    /// Install what is missing (wrk, h2load, nginx, HAProxy) with apt-get.
    #[arg(long)]
    install: bool,
}

impl Options {
    /// Whether the whole table is measured, so that it may be kept.
    fn whole(&self) -> bool {
        self.peers.is_empty() && self.workloads.is_empty()
    }

    fn peers(&self) -> &[PeerKind] {
        if self.peers.is_empty() {
            &PeerKind::ALL
        } else {
            &self.peers
        }
    }

    fn workloads(&self) -> &[Workload] {
        if self.workloads.is_empty() {
            &Workload::ALL
        } else {
            &self.workloads
        }
    }

    fn runs(&self, peer: PeerKind, workload: Workload) -> bool {
        !self.workloads.is_empty() || peer.tells_something_with(workload)
    }
}

/// Measures, prints the tables, and keeps them if they are whole. Says whether no micro-benchmark became slower.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    if options.micro {
        return micro::run(workspace, options.bless);
    }
    machine::check()?;
    install::check(options.peers(), options.install)?;
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stopped))?;
    }
    let binary = prepare(workspace, options)?;
    machine::pin(LOAD_CORE)?;

    let scratch = tempfile::tempdir()?;
    let upstream = Upstream::start(
        &workspace.target().join("release/tidegate-bench-upstream"),
        scratch.path(),
    )?;
    let mut bench = Bench::new(scratch.path(), upstream, stopped)?;
    let place = peer::Place::new(workspace, &binary, scratch.path(), bench.upstream_port())?;
    let mut peers = Vec::new();
    for &kind in options.peers() {
        peers.push(Peer::start(kind, &place)?);
    }
    say_how_long(options);
    let runs = measure_all(&mut bench, &mut peers, options, &raw_file(workspace)?)?;
    let two_workers = if options.peers().contains(&PeerKind::TidegateShipped) {
        Some(peer::idle_memory_with_two_workers(&place)?)
    } else {
        None
    };
    for peer in &mut peers {
        peer.stop();
    }
    let tables = report::tables(&runs, &peers, options.workloads(), two_workers);
    println!("{tables}");
    if options.whole() {
        report::keep(
            workspace,
            &tables,
            &report::circumstances(workspace, &binary, options.rounds, options.seconds),
        )?;
    } else {
        println!("not kept: docs/benchmarks.md holds whole tables only");
    }
    Ok(true)
}

/// Builds everything that is measured. Gives the proxy's binary.
fn prepare(workspace: &Workspace, options: &Options) -> Result<PathBuf> {
    plugins::run(workspace, true)?;
    let mut build = cargo();
    build.current_dir(workspace.root());
    build.args(["build", "--release", "--package", "tidegate-bench-upstream"]);
    if options.binary.is_none() {
        build.args(["--package", "tidegate"]);
    }
    run_to_end(locked(&mut build))?;
    match &options.binary {
        Some(binary) => {
            fs::canonicalize(binary).with_context(|| format!("there is no {}", binary.display()))
        }
        None => Ok(workspace.target().join("release/tidegate")),
    }
}

/// The file of the single results, one JSON object a line.
fn raw_file(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target().join("bench");
    fs::create_dir_all(&folder)?;
    Ok(folder.join("results.jsonl"))
}

fn pairs(options: &Options, peers: &[Peer]) -> Vec<(usize, Workload)> {
    let mut pairs = Vec::new();
    for &workload in options.workloads() {
        for (index, peer) in peers.iter().enumerate() {
            if options.runs(peer.kind, workload) {
                pairs.push((index, workload));
            }
        }
    }
    pairs
}

fn say_how_long(options: &Options) {
    let each = |peer: &PeerKind| {
        let workloads = options.workloads().iter();
        workloads
            .filter(|workload| options.runs(*peer, **workload))
            .count()
    };
    let runs: usize = options.peers().iter().map(each).sum();
    let runs = u32::try_from(runs).unwrap_or(u32::MAX);
    let seconds = runs * (options.rounds * (options.seconds + 1) + 2);
    eprintln!(
        "{runs} pairs of proxy and workload, {} rounds: {} to {} minutes",
        options.rounds,
        seconds / 60,
        (u64::from(seconds) + PATIENCE.as_secs()).div_ceil(60)
    );
}

/// Checks and warms every pair once, then measures them round by round.
fn measure_all(
    bench: &mut Bench,
    peers: &mut [Peer],
    options: &Options,
    raw: &Path,
) -> Result<Vec<Run>> {
    let pairs = pairs(options, peers);
    for &(index, workload) in &pairs {
        let Some(peer) = peers.get_mut(index) else {
            continue;
        };
        peer.check(bench, workload)?;
        bench.measure(peer, workload, 1, 0)?;
    }
    let mut file =
        fs::File::create(raw).with_context(|| format!("can't write {}", raw.display()))?;
    let mut quiet = Quiet::new(PATIENCE);
    let mut runs = Vec::new();
    for round in 1..=options.rounds {
        for &(index, workload) in &pairs {
            let Some(peer) = peers.get_mut(index) else {
                continue;
            };
            let run = least_disturbed(bench, peer, workload, options.seconds, round, &mut quiet)?;
            eprintln!("{}", run.line());
            writeln!(file, "{}", run.json())?;
            runs.push(run);
        }
    }
    Ok(runs)
}

/// One run, repeated while other programs disturb it and patience lasts.
fn least_disturbed(
    bench: &mut Bench,
    peer: &mut Peer,
    workload: Workload,
    seconds: u32,
    round: u32,
    quiet: &mut Quiet,
) -> Result<Run> {
    let mut best: Option<Run> = None;
    for _ in 0..ATTEMPTS {
        quiet.wait()?;
        let run = bench.measure(peer, workload, seconds, round)?;
        let better = best.as_ref().is_none_or(|best| run.others < best.others);
        let good = run.others < DISTURBED;
        if better {
            best = Some(run);
        }
        if good || !quiet.spend(Duration::from_secs(seconds.into())) {
            break;
        }
    }
    let Some(best) = best else {
        bail!("no run of {}", workload.name());
    };
    Ok(best)
}

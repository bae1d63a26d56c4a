//! One run: a generator at one proxy for some seconds, with the proxy's CPU time and the upstream's answers read four
//! times a second. It must not know what is made of the figures.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::peer::{Peer, PeerKind, Ports};
use super::process::Process;
use super::upstream::Upstream;
use super::workload::{Files, Workload};
use super::{LOAD_CORE, machine};

/// The length of a window.
const WINDOW: Duration = Duration::from_millis(250);
/// How often within one the generator is looked after.
const LOOKS: u32 = 5;
/// Answers below which a window says nothing.
const FEWEST: u64 = 40;
/// How much longer than asked a generator may take.
const GRACE: Duration = Duration::from_secs(20);

/// What every run needs.
#[derive(Debug)]
pub(super) struct Bench {
    folder: PathBuf,
    files: Files,
    upstream: Upstream,
    /// Set by a signal.
    stopped: Arc<AtomicBool>,
}

/// What one run gave.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) peer: PeerKind,
    pub(super) workload: Workload,
    pub(super) round: u32,
    /// Microseconds of CPU a request: over the run, and in each window.
    pub(super) cpu: f64,
    pub(super) windows: Vec<f64>,
    /// Requests a second.
    pub(super) rate: f64,
    /// Microseconds until each answer's end; of the latency workload only.
    pub(super) latencies: Vec<f64>,
    /// The share of a core that other programs took.
    pub(super) others: f64,
}

/// CPU time of the proxy and answers of the upstream, at a moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    cpu: Duration,
    answers: u64,
}

impl Bench {
    pub(super) fn new(folder: &Path, upstream: Upstream, stopped: Arc<AtomicBool>) -> Result<Self> {
        Ok(Self {
            folder: folder.to_owned(),
            files: Files::write(folder)?,
            upstream,
            stopped,
        })
    }

    pub(super) fn upstream_port(&self) -> u16 {
        self.upstream.port
    }

    /// Sends a few requests. Gives what the generator said.
    pub(super) fn trial(&mut self, ports: Ports, workload: Workload) -> Result<String> {
        self.generate(workload.trial(ports, &self.files), 1, |_| Ok(()))
    }

    /// Loads a proxy for some seconds.
    pub(super) fn measure(
        &mut self,
        peer: &mut Peer,
        workload: Workload,
        seconds: u32,
        round: u32,
    ) -> Result<Run> {
        let what = format!("{} with workload {}", peer.kind.name(), workload.name());
        let command = workload.command(peer.ports, seconds, &self.files);
        let mut load = Duration::ZERO;
        let mut samples = Vec::new();
        let (busy, ours, start) = (machine::busy()?, self.own_time(peer)?, Instant::now());
        let before = self.sample(peer)?;
        let output = self
            .generate_counting(command, seconds, &mut load, |bench| {
                samples.push(bench.sample(peer)?);
                Ok(())
            })
            .with_context(|| what.clone())?;
        let after = self.sample(peer)?;
        peer.process.must_run()?;
        let took = start.elapsed().as_secs_f64();
        let ours = self.own_time(peer)? - ours + load;
        let others = (machine::busy()? - busy - ours.as_secs_f64()).max(0.0) / took;
        peer.highest = peer.highest.max(peer.process.resident());
        let requests = workload
            .requests(&output)
            .with_context(|| format!("{what}: not every answer was good"))?;
        let latencies = if workload == Workload::Latency {
            self.files.take_latencies()?
        } else {
            Vec::new()
        };
        Ok(Run {
            peer: peer.kind,
            workload,
            round,
            cpu: microseconds(after.cpu.saturating_sub(before.cpu)) / requests as f64,
            windows: windows(&samples),
            rate: requests as f64 / f64::from(seconds),
            latencies,
            others,
        })
    }

    fn sample(&mut self, peer: &Peer) -> Result<Sample> {
        Ok(Sample {
            answers: self.upstream.count()?,
            cpu: peer.process.cpu(),
        })
    }

    /// CPU time of all that is part of the bench and still runs.
    fn own_time(&self, peer: &Peer) -> Result<Duration> {
        Ok(peer.process.cpu() + self.upstream.process.cpu() + machine::own_cpu()?)
    }

    fn generate(
        &mut self,
        command: Command,
        seconds: u32,
        each: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<String> {
        let mut unasked = Duration::ZERO;
        self.generate_counting(command, seconds, &mut unasked, each)
    }

    /// Runs a generator to its end and calls `each` once a window. `load` becomes its CPU time.
    fn generate_counting(
        &mut self,
        mut command: Command,
        seconds: u32,
        load: &mut Duration,
        mut each: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<String> {
        let mut generator = Process::start("generator", &mut command, LOAD_CORE, &self.folder)?;
        let deadline = Instant::now() + Duration::from_secs(seconds.into()) + GRACE;
        let mut looks = 0;
        loop {
            *load = generator.cpu().max(*load);
            if let Some(status) = generator.ended()? {
                if !status.success() {
                    bail!("the generator ended with {status}; {}", generator.words());
                }
                return Ok(generator.output());
            }
            if self.stopped.load(Ordering::Relaxed) {
                bail!("stopped by a signal");
            }
            if Instant::now() > deadline {
                bail!(
                    "the generator did not end within {} s; {}",
                    GRACE.as_secs(),
                    generator.words()
                );
            }
            if looks % LOOKS == 0 {
                each(self)?;
            }
            looks += 1;
            thread::sleep(WINDOW / LOOKS);
        }
    }
}

/// Microseconds of CPU an answer in each window. The load begins in the first window and ends in the last.
fn windows(samples: &[Sample]) -> Vec<f64> {
    let inner = samples
        .get(1..samples.len().saturating_sub(1))
        .unwrap_or_default();
    let pairs = inner.iter().zip(inner.iter().skip(1));
    pairs
        .filter_map(|(from, to)| {
            let answers = to.answers.saturating_sub(from.answers);
            let cpu = to.cpu.saturating_sub(from.cpu);
            (answers >= FEWEST).then(|| microseconds(cpu) / answers as f64)
        })
        .collect()
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

impl Run {
    /// One line for who waits.
    pub(super) fn line(&self) -> String {
        format!(
            "round {} {:8} {:18} {:8.1} us {:8.0} req/s  others {:.0} %",
            self.round,
            self.workload.name(),
            self.peer.name(),
            self.cpu,
            self.rate,
            self.others * 100.0
        )
    }

    /// Everything but the single latencies.
    pub(super) fn json(&self) -> serde_json::Value {
        json!({
            "peer": self.peer.name(),
            "workload": self.workload.name(),
            "round": self.round,
            "cpu-us": self.cpu,
            "windows-us": self.windows,
            "requests-per-second": self.rate,
            "latency-us": super::statistics::p50_p99(&self.latencies),
            "others": self.others,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_windows_count() {
        let sample = |milliseconds, answers| Sample {
            cpu: Duration::from_millis(milliseconds),
            answers,
        };
        let samples = [
            sample(0, 0),
            sample(5, 100),
            sample(15, 1100),
            sample(16, 1110),
            sample(26, 1610),
            sample(30, 1700),
        ];
        assert_eq!(windows(&samples), [10.0, 20.0]);
        assert_eq!(windows(&samples[..2]), [0.0; 0]);
        assert_eq!(windows(&[]), [0.0; 0]);
    }
}

//! The machine: its cores, how busy they are and with whom, what it is called. It must not know what is measured.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::command::ask;

/// Jiffies a second in /proc, the same on every Linux that we know (`USER_HZ`).
const HERTZ: f64 = 100.0;
/// Share of all cores' time from which on a measurement waits.
const BUSY: f64 = 0.15;

/// Refuses machines on which nothing could be measured.
pub(super) fn check() -> Result<()> {
    let cores = thread::available_parallelism()?.get();
    if cores < 2 {
        bail!(
            "the bench needs two cores, one for the proxy and one for load and upstream; there is {cores}"
        );
    }
    if !fs::exists("/proc/self/schedstat")? {
        bail!(
            "the bench reads the CPU time of processes from /proc/PID/task/*/schedstat, which this system lacks"
        );
    }
    Ok(())
}

/// Keeps the calling thread, and what it starts, on one core.
pub(super) fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("can't keep to core {core}"))
}

/// CPU time of this program so far.
pub(super) fn own_cpu() -> Result<Duration> {
    let text = fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds = text
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok());
    Ok(Duration::from_nanos(
        nanoseconds.context("/proc/self/schedstat holds no number")?,
    ))
}

/// Seconds that all cores together have been busy.
pub(super) fn busy() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    busy_in(&text).context("/proc/stat has no line of all cores")
}

/// user, nice, system, irq and softirq; not idle, iowait or stolen.
fn busy_in(stat: &str) -> Option<f64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let jiffies: Vec<f64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let taken = [0, 1, 2, 5, 6].iter().filter_map(|at| jiffies.get(*at));
    Some(taken.sum::<f64>() / HERTZ)
}

/// Patience with other programs, bounded over a whole bench.
#[derive(Debug)]
pub(super) struct Quiet {
    left: Duration,
}

impl Quiet {
    pub(super) fn new(patience: Duration) -> Self {
        Self { left: patience }
    }

    /// Waits until the cores are left alone, or patience is used up.
    pub(super) fn wait(&mut self) -> Result<()> {
        while !self.left.is_zero() {
            let (before, start) = (busy()?, Instant::now());
            thread::sleep(Duration::from_millis(200));
            if busy()? - before < BUSY * start.elapsed().as_secs_f64() {
                break;
            }
            self.spend(Duration::from_millis(800));
            thread::sleep(Duration::from_millis(600));
        }
        Ok(())
    }

    /// Takes from what is left. Says whether there was any.
    pub(super) fn spend(&mut self, time: Duration) -> bool {
        let any = !self.left.is_zero();
        self.left = self.left.saturating_sub(time);
        any
    }
}

/// Processor, cores and kernel in a few words.
pub(super) fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let guest = if cpu.contains(" hypervisor ") || cpu.contains(" hypervisor\n") {
        "virtual machine"
    } else {
        "machine"
    };
    format!("{model}, {guest} of {cores} cores, Linux {}", kernel.trim())
}

/// The day, as YYYY-MM-DD in UTC.
pub(super) fn today() -> String {
    ask(Command::new("date").args(["-u", "+%Y-%m-%d"]))
        .unwrap_or_else(|| "an unknown day".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_not_being_busy() {
        let stat = "cpu  100 10 200 9999 8888 30 40 777 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert!((busy_in(stat).unwrap() - 3.8).abs() < 1e-9);
        assert_eq!(busy_in("nonsense"), None);
    }

    #[test]
    fn patience_ends() {
        let mut quiet = Quiet::new(Duration::from_secs(1));
        assert!(quiet.spend(Duration::from_secs(5)));
        assert!(!quiet.spend(Duration::from_secs(5)));
        let start = Instant::now();
        quiet.wait().unwrap();
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

//! A program on one core: started, waited for, its time and memory read with those of its children, ended by its id.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::machine;

/// How long a program may take to open its port, and to end when asked.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one may take to end before it is made to.
const GRACE: Duration = Duration::from_secs(3);

/// A running program with its children.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program on one core. What it says goes to `NAME.log` in `folder`.
    pub(super) fn start(
        name: &str,
        command: &mut Command,
        core: usize,
        folder: &Path,
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("can't write {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let program = command.get_program().to_string_lossy().into_owned();
        // A thread of its own: a child inherits the core of the thread that starts it.
        let started = thread::scope(|scope| {
            let start = scope.spawn(|| {
                machine::pin(core)?;
                command
                    .spawn()
                    .with_context(|| format!("can't start {program}"))
            });
            start.join()
        });
        let child = match started {
            Ok(child) => child?,
            Err(_) => bail!("can't start {program}"),
        };
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Waits until a port takes connections.
    pub(super) fn wait_for(&mut self, port: u16) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            self.must_run()?;
            if Instant::now() > deadline {
                bail!(
                    "{} opened no port {port} within {} s; {}",
                    self.name,
                    PATIENCE.as_secs(),
                    self.words()
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// An error if the program has ended.
    pub(super) fn must_run(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}; {}", self.name, self.words());
        }
        Ok(())
    }

    /// Whether the program has ended, and how.
    pub(super) fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// All that it said.
    pub(super) fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of what it said, for messages.
    pub(super) fn words(&self) -> String {
        let text = self.output();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(15);
        format!(
            "it said: {}",
            lines.get(from..).unwrap_or_default().join("\n")
        )
    }

    /// CPU time so far of all threads of the program and its children.
    pub(super) fn cpu(&self) -> Duration {
        let family = family(self.child.id());
        Duration::from_nanos(family.iter().map(|pid| nanoseconds(*pid)).sum())
    }

    /// Resident memory of the program and its children, in MiB.
    pub(super) fn resident(&self) -> f64 {
        let kibibytes: u64 = family(self.child.id())
            .iter()
            .map(|pid| resident(*pid))
            .sum();
        kibibytes as f64 / 1024.0
    }

    /// Lets the program end, and makes it if it does not.
    pub(super) fn stop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let children = family(self.child.id());
        signal(self.child.id(), Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        // The child's id stays its own until it is waited for; those of its children may be others' by now, but a
        // program that ends takes them along first, and ids are not used again that soon.
        let _ended_already = self.child.kill();
        let _same = self.child.wait();
        for pid in children.into_iter().skip(1) {
            signal(pid, Signal::KILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ended_already = kill_process(pid, signal);
    }
}

/// A process, its children, theirs, and so on.
fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(&pid) = found.get(at) {
        for task in tasks(pid) {
            let children = fs::read_to_string(task.join("children")).unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
        at += 1;
    }
    found
}

/// The folders of a process's threads; none once it is gone.
fn tasks(pid: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    let entries = entries.into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn nanoseconds(pid: u32) -> u64 {
    let read = |task: &PathBuf| -> Option<u64> {
        let text = fs::read_to_string(task.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    tasks(pid).iter().filter_map(read).sum()
}

/// Resident memory in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// A port that nobody has at the moment.
pub(super) fn free_port() -> Result<u16> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_measured_with_its_children_and_ended_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "sh -c 'while :; do :; done' & wait"]);
        let mut process = Process::start("loop", &mut shell, 0, folder.path()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        // Time that only the inner shell uses.
        while process.cpu() < Duration::from_millis(50) {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(5));
        }
        assert!(process.resident() > 0.1);
        let family = family(process.child.id());
        assert_eq!(family.len(), 2);
        process.stop();
        let gone = || tasks(family[1]).is_empty();
        while !gone() {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_program_that_ends_is_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo no such file; exit 3"]);
        let mut process = Process::start("broken", &mut shell, 0, folder.path()).unwrap();
        let error = process
            .wait_for(free_port().unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains("no such file"), "{error}");
    }
}

//! The side that starts a compiler's process, waits for it, and ends it; `child` is the other side. The process is this
//! program again, so what it gives is code for this program's runtime.
//!
//! File and code change hands in memory files: the process finds them as its standard input and output, and nothing of
//! it can make us wait but its end.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tidegate_wasm::{Compiler, Kind, precompile};

use super::child;
use super::gate::Gate;
use crate::config::checked::Compile;
use crate::config::units::{Size, Time};

/// This program, whatever became of its file.
const PROGRAM: &str = "/proc/self/exe";
/// The most threads of one compiler; more are no faster with files as large as filters are.
const THREADS: usize = 4;
/// The most bytes of code that one file is made into.
const CODE: u64 = 256 << 20;
/// The most bytes that are read of what a compiler says.
const WORDS: u64 = 4096;

/// Compiles files in processes of their own, so many at a time.
#[derive(Debug)]
pub(super) struct Process {
    bounds: Compile,
    gate: Gate,
    warned: Once,
}

/// How a compiler that gave no code ended.
enum Ending {
    /// It said why there is none.
    Said(String),
    /// It ran over a bound, or broke.
    Broke(String),
    /// There can be no process, now or ever.
    Never(io::Error),
}

impl Process {
    /// One with these bounds for each file.
    pub(super) fn new(bounds: Compile) -> Self {
        Process {
            gate: Gate::new(bounds.at_once),
            bounds,
            warned: Once::new(),
        }
    }

    fn compile_there(&self, kind: Kind, file: &[u8]) -> Result<Vec<u8>, Ending> {
        let _turn = self.gate.enter();
        let broke =
            |error: io::Error| Ending::Broke(format!("the compiler can't be talked to: {error}"));
        let mut input = memory_file("tidegate-file").map_err(broke)?;
        input.write_all(file).map_err(broke)?;
        input.rewind().map_err(broke)?;
        let mut code = memory_file("tidegate-code").map_err(broke)?;
        let mut words = memory_file("tidegate-words").map_err(broke)?;
        let mut child = self
            .command(kind)
            .stdin(input)
            .stdout(code.try_clone().map_err(broke)?)
            .stderr(words.try_clone().map_err(broke)?)
            .spawn()
            .map_err(unstartable)?;
        let status = wait(&mut child, self.bounds.time).map_err(broke)?;
        let Some(status) = status else {
            let time = Time(self.bounds.time);
            return Err(Ending::Broke(format!(
                "the compiler was ended after {time}, which is as long as one file may take (`time` in [server.compile])"
            )));
        };
        if status.success() {
            let mut content = Vec::new();
            code.rewind().map_err(broke)?;
            code.read_to_end(&mut content).map_err(broke)?;
            return Ok(content);
        }
        let mut said = Vec::new();
        words.rewind().map_err(broke)?;
        words.take(WORDS).read_to_end(&mut said).map_err(broke)?;
        Err(self.ending(status, String::from_utf8_lossy(&said).trim()))
    }

    fn command(&self, kind: Kind) -> Command {
        let mut command = Command::new(PROGRAM);
        let Compile { memory, time, .. } = self.bounds;
        let threads = thread::available_parallelism().map_or(1, |count| count.get().min(THREADS));
        command
            .arg(child::COMMAND)
            .arg(child::word(kind))
            .arg(format!("--memory={}", Size(memory)))
            .arg(format!(
                "--processor-time={}",
                Time(time * processors(threads))
            ))
            .arg(format!("--code={}", Size(CODE)))
            .current_dir("/")
            .env_clear()
            .env("RAYON_NUM_THREADS", threads.to_string())
            // Compilers recurse.
            .env("RUST_MIN_STACK", (8 << 20).to_string());
        command
    }

    /// What became of a compiler that ended by itself without code.
    fn ending(&self, status: ExitStatus, said: &str) -> Ending {
        let signal = status.signal();
        let is = |wanted: Signal| signal == Some(wanted.as_raw());
        if status.code() == Some(child::REFUSED) {
            Ending::Said(said.to_owned())
        } else if is(Signal::XFSZ) {
            Ending::Broke(format!("its code has more than {}", Size(CODE)))
        } else if is(Signal::XCPU) {
            let time = Time(self.bounds.time);
            Ending::Broke(format!(
                "the compiler was ended because it used the processors for longer than {time} (`time` in [server.compile]) allows"
            ))
        } else if is(Signal::ABORT) && said.contains("memory allocation of") {
            let memory = Size(self.bounds.memory);
            Ending::Broke(format!(
                "the compiler needed more than {memory}, which is all that it may have (`memory` in [server.compile])"
            ))
        } else {
            // Its own words tell the compiler's makers more than the file's author.
            tracing::debug!(%status, said, "a compiler broke");
            Ending::Broke(format!("the compiler broke on it ({status})"))
        }
    }
}

#[expect(
    unsafe_code,
    reason = "what it gives is run as code, so it has to vouch for where that comes from"
)]
// SAFETY: what `compile` gives is what `precompile` gave: either here, or in a process of this same program, started by
// the kernel's own handle on it, whose output nobody but it and us can write to (an anonymous file in memory that is
// handed to that process alone). It is taken only from a process that ended with success.
unsafe impl Compiler for Process {
    fn compile(&self, kind: Kind, file: &[u8]) -> Result<Vec<u8>, String> {
        match self.compile_there(kind, file) {
            Ok(code) => Ok(code),
            Err(Ending::Said(words) | Ending::Broke(words)) => Err(words),
            Err(Ending::Never(error)) => {
                self.warned.call_once(|| {
                    tracing::warn!(
                        "filters are compiled in this process, without bounds on time and memory, because no other can be started from {PROGRAM}: {error}"
                    );
                });
                precompile(kind, file)
            }
        }
    }
}

/// Whether it can't be now, for lack of something, or never.
fn unstartable(error: io::Error) -> Ending {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported => {
            Ending::Never(error)
        }
        _ => Ending::Broke(format!("no process can be started to compile it: {error}")),
    }
}

fn processors(threads: usize) -> u32 {
    u32::try_from(threads).unwrap_or(1)
}

fn memory_file(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC)?))
}

/// Waits for a process to end, and ends it when its time is over; then there is no status.
fn wait(child: &mut Child, time: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + time;
    let handle = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).ok();
    loop {
        match child.try_wait() {
            Ok(None) => {}
            Ok(status) => return Ok(status),
            Err(error) => {
                end_it(child);
                return Err(error);
            }
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            end_it(child);
            return Ok(None);
        }
        pause(handle.as_ref(), left);
    }
}

fn end_it(child: &mut Child) {
    // One that has ended by itself meanwhile is as good.
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits for the process's end or the time's; where the kernel can't say, for a moment.
fn pause(handle: Option<&OwnedFd>, left: Duration) {
    if let (Some(handle), Ok(left)) = (handle, Timespec::try_from(left)) {
        let mut wanted = [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)];
        if matches!(
            poll(&mut wanted, Some(&left)),
            Ok(_) | Err(rustix::io::Errno::INTR)
        ) {
            return;
        }
    }
    thread::sleep(left.min(Duration::from_millis(5)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_will_never_work_is_done_here_instead() {
        let kinds = [
            (io::ErrorKind::NotFound, true),
            (io::ErrorKind::PermissionDenied, true),
            (io::ErrorKind::WouldBlock, false),
            (io::ErrorKind::OutOfMemory, false),
        ];
        for (kind, never) in kinds {
            let ending = unstartable(kind.into());
            assert_eq!(matches!(ending, Ending::Never(_)), never, "{kind}");
        }
    }

    #[test]
    fn a_process_is_waited_for_and_ended_when_its_time_is_over() {
        let mut quick = Command::new("true").spawn().unwrap();
        let status = wait(&mut quick, Duration::from_secs(60)).unwrap();
        assert!(status.is_some_and(|status| status.success()));
        let mut slow = Command::new("sleep").arg("600").spawn().unwrap();
        assert!(
            wait(&mut slow, Duration::from_millis(20))
                .unwrap()
                .is_none()
        );
        assert!(slow.try_wait().unwrap().is_some());
    }
}

//! The signals that the process answers to. It decides nothing.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To end in good order: SIGTERM, SIGINT.
    End,
    /// To read everything again: SIGHUP.
    Reload,
    /// To open the access log anew: SIGUSR1.
    Reopen,
}

/// The signals.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
    file_size: Signal,
}

impl Signals {
    /// Takes them over from the system. SIGPIPE is ignored by every Rust program.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Asked {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Asked::End,
                _ = self.interrupt.recv() => return Asked::End,
                _ = self.hangup.recv() => return Asked::Reload,
                _ = self.user1.recv() => return Asked::Reopen,
                // It would end the process, which nobody who sends it wants.
                _ = self.user2.recv() => {}
                // A file has reached the limit of sizes. Whoever writes it gets an error, as with a full disk.
                _ = self.file_size.recv() => {}
            }
        }
    }
}

//! What to do when `accept` fails: wait rather than spin, and tell it rather than flood the log. Pure: time is an
//! argument.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The first rest after a failure; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(5);
/// The longest rest.
const LONGEST: Duration = Duration::from_millis(500);
/// Between two lines of the log.
const BETWEEN_LINES: Duration = Duration::from_secs(1);

/// One listener's failures.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    in_a_row: u32,
}

/// What was told of failures, by all listeners together.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<(Option<Instant>, u64)>);

impl Backoff {
    /// How long not to try, after a failure that was not one client's.
    pub(crate) fn failed(&mut self) -> Duration {
        let rest = FIRST.saturating_mul(1 << self.in_a_row.min(16));
        self.in_a_row = self.in_a_row.saturating_add(1);
        rest.min(LONGEST)
    }

    /// After a connection.
    pub(crate) fn succeeded(&mut self) {
        self.in_a_row = 0;
    }
}

impl Told {
    /// How many failures a line of the log is to tell of now; none: no line.
    pub(crate) fn failed(&self, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, untold) = &mut *told;
        *untold += 1;
        let quiet = last.is_some_and(|last| now.saturating_duration_since(last) < BETWEEN_LINES);
        if quiet {
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(untold))
    }
}

/// Whether a failure is that of the connection that would have been accepted, so that the next one may be tried at
/// once.
pub(crate) fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_longer_and_longer_and_tells_once_a_second() {
        let told = Told::default();
        let mut listeners = [Backoff::default(), Backoff::default()];
        let start = Instant::now();
        let mut now = start;
        let mut lines = Vec::new();
        while now < start + Duration::from_secs(10) {
            let rests = listeners.each_mut().map(|listener| {
                lines.extend(told.failed(now));
                listener.failed()
            });
            now += rests[0];
        }
        // Ten seconds without a descriptor: a handful of attempts, and at most a line a second.
        assert!(lines.len() <= 10, "{lines:?}");
        assert_eq!(lines[0], 1);
        let attempts: u64 = lines.iter().sum();
        assert!(attempts < 80, "{attempts}");
        listeners[0].succeeded();
        assert_eq!(listeners[0].failed(), FIRST);
    }

    #[test]
    fn a_client_that_left_is_no_reason_to_wait() {
        let error = |kind: io::ErrorKind| is_of_one_connection(&io::Error::from(kind));
        assert!(error(io::ErrorKind::ConnectionAborted));
        assert!(!error(io::ErrorKind::OutOfMemory));
        // Too many open files.
        assert!(!is_of_one_connection(&io::Error::from_raw_os_error(24)));
    }
}

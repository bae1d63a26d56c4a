//! What the ends of one client connection tell each other: the bytes' end, which follows the framing, and the requests' end,
//! which decides.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::answer::ClientFault;

/// The most bytes of interim responses that wait to be written; what is over is left out.
const MAX_INTERIM: usize = 16 * 1024;

/// In place of a request's number: the connection as a whole.
pub(crate) const CONNECTION: u64 = u64::MAX;

/// The signals of one connection.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    begun: Cell<u64>,
    fault: Cell<Option<(u64, ClientFault)>>,
    reset: Cell<bool>,
    pub(crate) interim: Arc<InterimBytes>,
}

impl Signals {
    /// Requests' end: one more request has come that is in order.
    pub(crate) fn begin(&self) {
        self.begun.set(self.begun.get() + 1);
    }

    /// Bytes' end: how many have.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// Bytes' end: the request of this number, counted from 0, must not be served. The first fault counts.
    pub(crate) fn found(&self, request: u64, fault: ClientFault) {
        if self.fault.get().is_none() {
            self.fault.set(Some((request, fault)));
        }
    }

    /// Requests' end: what is wrong with the request of this number.
    pub(crate) fn fault_of(&self, request: u64) -> Option<ClientFault> {
        let (number, fault) = self.fault.get()?;
        (number == request).then_some(fault)
    }

    /// Requests' end: the connection's end must not look like the end of a body.
    pub(crate) fn reset(&self) {
        self.reset.set(true);
    }

    /// Bytes' end: whether it must not.
    pub(crate) fn is_reset(&self) -> bool {
        self.reset.get()
    }

    /// Bytes' end: a request begins. What came too late for an earlier one is not this one's.
    pub(crate) fn forget_interim(&self) {
        if self.interim.waits.load(Ordering::Relaxed) {
            self.interim.take(&mut Vec::new());
        }
    }

    /// Bytes' end: moves the interim responses that wait behind what is to be written.
    pub(crate) fn take_interim(&self, out: &mut Vec<u8>) {
        if self.interim.waits.load(Ordering::Relaxed) {
            self.interim.take(out);
        }
    }
}

/// Interim responses as they stand on the wire, between whoever hears of them and the connection that writes them. Locked
/// because the HTTP/2 engine wants to be able to call from anywhere; only one thread ever does, so nothing waits.
#[derive(Debug, Default)]
pub(crate) struct InterimBytes {
    waits: AtomicBool,
    bytes: Mutex<Vec<u8>>,
    writer: Mutex<Option<Waker>>,
}

impl InterimBytes {
    /// Whom to wake when one is to be written.
    pub(crate) fn listen(&self, waker: &Waker) {
        let mut writer = lock(&self.writer);
        if !writer.as_ref().is_some_and(|held| held.will_wake(waker)) {
            writer.replace(waker.clone());
        }
    }

    /// An interim response.
    pub(crate) fn put(&self, bytes: &[u8]) {
        let mut waiting = lock(&self.bytes);
        if waiting.len() + bytes.len() > MAX_INTERIM {
            return;
        }
        waiting.extend_from_slice(bytes);
        self.waits.store(true, Ordering::Relaxed);
        if let Some(waker) = &*lock(&self.writer) {
            waker.wake_by_ref();
        }
    }

    fn take(&self, out: &mut Vec<u8>) {
        self.waits.store(false, Ordering::Relaxed);
        out.append(&mut lock(&self.bytes));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interim_response_that_comes_too_late_is_no_other_requests() {
        let signals = Signals::default();
        let mut out = Vec::new();
        signals.interim.put(b"103");
        signals.take_interim(&mut out);
        assert_eq!(out, b"103");
        signals.interim.put(b"late");
        signals.forget_interim();
        signals.take_interim(&mut out);
        assert_eq!(out, b"103");
    }
}

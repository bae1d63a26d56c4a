//! What the two ends of one HTTP/1 connection tell each other: the bytes' end (`client_io`), which follows the framing,
//! and the requests' end (`serve`), which decides. Atomic and locked because hyper wants what it reads from to be `Send`;
//! only one thread ever has it, so nothing waits.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::time::Instant;

use crate::answer::ClientFault;

/// The most bytes of interim responses that wait to be written; what is over is left out.
const MAX_INTERIM: usize = 16 * 1024;

/// In place of a request's number: the connection as a whole.
pub(crate) const CONNECTION: u64 = u64::MAX;

/// What became of a request to change the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// Not answered yet: bytes behind the request's head wait.
    Open,
    /// They are HTTP again.
    Declined,
    /// They are another protocol's.
    Accepted,
}

/// The signals of one connection.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    begun: AtomicU64,
    served: AtomicU64,
    finished: Mutex<Option<Instant>>,
    faulty: AtomicBool,
    fault: Mutex<Option<(u64, ClientFault)>>,
    upgrade: AtomicU8,
    reset: AtomicBool,
    has_interim: AtomicBool,
    is_final: AtomicBool,
    interim: Mutex<Vec<u8>>,
    reader: Mutex<Option<Waker>>,
    writer: Mutex<Option<Waker>>,
}

impl Signals {
    // --- Beginnings ---

    /// Requests' end: one more request has come that is in order.
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes' end: how many have.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    // --- Faults ---

    /// Bytes' end: the request of this number, counted from 0, must not be served.
    pub(crate) fn found(&self, request: u64, fault: ClientFault) {
        lock(&self.fault).get_or_insert((request, fault));
        self.faulty.store(true, Ordering::Relaxed);
    }

    /// Requests' end: what is wrong with the request of this number.
    pub(crate) fn fault_of(&self, request: u64) -> Option<ClientFault> {
        if !self.faulty.load(Ordering::Relaxed) {
            return None;
        }
        lock(&self.fault)
            .filter(|(number, _)| *number == request)
            .map(|(_, fault)| fault)
    }

    // --- Upgrades ---

    /// Bytes' end: a head asks for another protocol.
    pub(crate) fn ask_upgrade(&self) {
        self.upgrade.store(Upgrade::Open as u8, Ordering::Relaxed);
    }

    /// Requests' end: the answer to that. Only the first one counts.
    pub(crate) fn answer_upgrade(&self, answer: Upgrade) {
        let open = Upgrade::Open as u8;
        let order = Ordering::Relaxed;
        let first = self
            .upgrade
            .compare_exchange(open, answer as u8, order, order);
        if first.is_ok() {
            self.wake_reader();
        }
    }

    /// Bytes' end: the answer so far. Whoever gets none is woken when there is one.
    pub(crate) fn upgrade(&self, waker: &Waker) -> Upgrade {
        let answer = self.upgrade.load(Ordering::Relaxed);
        if answer == Upgrade::Accepted as u8 {
            Upgrade::Accepted
        } else if answer == Upgrade::Declined as u8 {
            Upgrade::Declined
        } else {
            self.read_later(waker);
            Upgrade::Open
        }
    }

    // --- Interim responses ---

    /// Requests' end: whom to wake when an interim response is to be written.
    pub(crate) fn listen(&self, waker: &Waker) {
        let mut writer = lock(&self.writer);
        if !writer.as_ref().is_some_and(|held| held.will_wake(waker)) {
            writer.replace(waker.clone());
        }
    }

    /// Requests' end: an interim response as it stands on the wire.
    pub(crate) fn interim(&self, bytes: &[u8]) {
        let mut waiting = lock(&self.interim);
        if waiting.len() + bytes.len() > MAX_INTERIM {
            return;
        }
        waiting.extend_from_slice(bytes);
        self.has_interim.store(true, Ordering::Relaxed);
        if let Some(waker) = &*lock(&self.writer) {
            waker.wake_by_ref();
        }
    }

    /// Requests' end: whether the final response comes now. What waits is written before it, or not at all.
    pub(crate) fn final_response(&self, comes: bool) {
        self.is_final.store(comes, Ordering::Relaxed);
    }

    /// Bytes' end: a message is being written, and nothing can be put between its parts.
    pub(crate) fn too_late(&self) {
        if self.is_final.load(Ordering::Relaxed) && self.has_interim.swap(false, Ordering::Relaxed)
        {
            lock(&self.interim).clear();
        }
    }

    /// Bytes' end: what is to be written before anything else.
    pub(crate) fn take_interim(&self) -> Option<Vec<u8>> {
        self.has_interim
            .swap(false, Ordering::Relaxed)
            .then(|| std::mem::take(&mut *lock(&self.interim)))
    }

    // --- Endings ---

    /// Requests' end: one more exchange is over.
    pub(crate) fn finish(&self, now: Instant) {
        lock(&self.finished).replace(now);
        self.served.fetch_add(1, Ordering::Relaxed);
        self.wake_reader();
    }

    /// Bytes' end: when the last one was.
    pub(crate) fn finished(&self) -> Option<Instant> {
        *lock(&self.finished)
    }

    /// Bytes' end: how many are.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Bytes' end: whom to wake when there may be more to say.
    pub(crate) fn read_later(&self, waker: &Waker) {
        lock(&self.reader).replace(waker.clone());
    }

    /// Wakes whoever waits to read.
    pub(crate) fn wake_reader(&self) {
        if let Some(waker) = lock(&self.reader).take() {
            waker.wake();
        }
    }

    /// Requests' end: the connection's end must not look like the end of a body.
    pub(crate) fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }

    /// Bytes' end: whether it must not.
    pub(crate) fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Follows the frames of an HTTP/2 client in the bytes as they come (RFC 9113 section 4.1), before the parser, for what
//! the parser puts no bound to: a header block that takes its time, and frames that cost the client nothing and us a little
//! each (section 10.5). Keeps the head of one frame and two counters. Knows no socket and no hpack.
//!
//! What a client sends is paid for by what it moves: a frame without use costs a unit, a stream that is taken back some
//! more, and every request that is served and every half KiB of bodies, in either direction, pays some back. Who spends
//! more than [`BUDGET`] in [`WINDOW`] floods. The clock is looked at when the budget is spent, and not before.

use std::time::Duration;

use tokio::time::Instant;

use crate::answer::ClientFault;

/// Units that a connection may spend without use.
pub(crate) const BUDGET: u32 = 2_000;
/// In what time.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);
/// What a RST_STREAM costs: what was begun for the stream was for nothing.
const RESET: u32 = 4;
/// What a request pays back. Its head and its reset together cost more.
const REQUEST: u32 = 4;
/// Bytes of a body, in either direction, that pay a unit back.
const BYTES: usize = 512;
/// Bytes of a header block that cost a unit. A block below that is a request's like any other.
const BLOCK: usize = 4 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// Bytes before the first frame.
const PREFACE: usize = 24;
/// Bytes of a frame's head.
const HEAD: usize = 9;

/// The follower's state.
#[derive(Debug)]
pub(crate) struct Guard {
    /// The head of a frame, as far as it has come.
    head: [u8; HEAD],
    have: usize,
    /// Bytes of the present frame's payload that are still to come.
    left: usize,
    /// Whether the first frame is still to come.
    fresh: bool,
    /// Whether a header block has begun and not ended, and its bytes.
    in_block: bool,
    block: usize,
    /// The highest stream so far.
    last_stream: u32,
    spent: u32,
    /// Bytes of bodies that have not paid a unit yet, and requests that have paid.
    moved: usize,
    requests: u64,
    since: Instant,
    clock: fn() -> Instant,
}

impl Guard {
    /// A connection that begins now, with its preface.
    pub(crate) fn new(clock: fn() -> Instant) -> Self {
        Guard {
            head: [0; HEAD],
            have: 0,
            left: PREFACE,
            fresh: true,
            in_block: false,
            block: 0,
            last_stream: 0,
            spent: 0,
            moved: 0,
            requests: 0,
            since: clock(),
            clock,
        }
    }

    /// Follows bytes that have come. `requests` is how many were found in order and served up to now: a head that is
    /// refused by the parser pays nothing.
    ///
    /// # Errors
    /// The connection must be ended.
    pub(crate) fn inspect(&mut self, mut bytes: &[u8], requests: u64) -> Result<(), ClientFault> {
        if requests != self.requests {
            let new = u32::try_from(requests - self.requests).unwrap_or(u32::MAX);
            self.requests = requests;
            self.spent = self.spent.saturating_sub(new.saturating_mul(REQUEST));
        }
        while !bytes.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(bytes.len());
                bytes = bytes.get(taken..).unwrap_or_default();
                self.left -= taken;
                continue;
            }
            let taken = (HEAD - self.have).min(bytes.len());
            let (now, rest) = bytes.split_at_checked(taken).unwrap_or((bytes, &[]));
            if let Some(room) = self.head.get_mut(self.have..self.have + taken) {
                room.copy_from_slice(now);
            }
            self.have += taken;
            bytes = rest;
            if self.have == HEAD {
                self.have = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    /// Whether a header block has begun of which something is still to come.
    pub(crate) fn is_in_block(&self) -> bool {
        self.in_block
            || (self.left > 0 && matches!(self.head.get(3), Some(&HEADERS | &CONTINUATION)))
    }

    /// The highest number of a stream that the client has opened.
    pub(crate) fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// Bytes have gone to the client.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.moved(bytes);
    }

    fn frame(&mut self) -> Result<(), ClientFault> {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.left = length;
        if std::mem::take(&mut self.fresh) && (kind != SETTINGS || flags & ACK != 0) {
            return Err(ClientFault::Preface);
        }
        match kind {
            DATA if length > 0 => {
                self.moved(length);
                Ok(())
            }
            DATA if flags & END_STREAM != 0 => Ok(()),
            HEADERS => {
                self.last_stream = self
                    .last_stream
                    .max(u32::from_be_bytes(stream) & !(1 << 31));
                self.block = 0;
                self.block(length, flags)
            }
            CONTINUATION => self.block(length, flags),
            RST_STREAM => self.spend(RESET),
            // SETTINGS, PING, PRIORITY, WINDOW_UPDATE, GOAWAY, empty DATA and what nobody knows.
            _ => self.spend(1),
        }
    }

    /// A piece of a header block.
    fn block(&mut self, length: usize, flags: u8) -> Result<(), ClientFault> {
        self.block = self.block.saturating_add(length);
        self.in_block = flags & END_HEADERS == 0;
        self.spend(1)?;
        if self.in_block {
            return Ok(());
        }
        let units = u32::try_from(self.block / BLOCK).unwrap_or(u32::MAX);
        self.spend(units)
    }

    fn moved(&mut self, bytes: usize) {
        let moved = self.moved.saturating_add(bytes);
        let units = u32::try_from(moved / BYTES).unwrap_or(u32::MAX);
        self.moved = moved % BYTES;
        self.spent = self.spent.saturating_sub(units);
    }

    fn spend(&mut self, units: u32) -> Result<(), ClientFault> {
        self.spent = self.spent.saturating_add(units);
        if self.spent < BUDGET {
            return Ok(());
        }
        let now = (self.clock)();
        if now.duration_since(self.since) < WINDOW {
            return Err(ClientFault::Flood);
        }
        self.spent = 0;
        self.since = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static START: Instant = Instant::now();
        static SECONDS: Cell<u64> = const { Cell::new(0) };
    }

    fn now() -> Instant {
        START.with(|start| *start + Duration::from_secs(SECONDS.get()))
    }

    fn frame(kind: u8, flags: u8, stream: u32, length: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(length).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.resize(HEAD + length, 0);
        bytes
    }

    fn begun() -> Guard {
        let mut guard = Guard::new(now);
        guard.inspect(&[0; PREFACE], 0).unwrap();
        guard.inspect(&frame(SETTINGS, 0, 0, 6), 0).unwrap();
        guard
    }

    /// How many times bytes pass, of so many, if each time is a request or none is.
    fn passes(guard: &mut Guard, bytes: &[u8], times: u32, served: bool) -> u32 {
        (0..times)
            .take_while(|_| {
                let requests = guard.requests + u64::from(served);
                guard.inspect(bytes, requests).is_ok()
            })
            .count()
            .try_into()
            .unwrap()
    }

    #[test]
    fn frames_without_use_are_a_flood() {
        let kinds = [
            ("SETTINGS", frame(SETTINGS, 0, 0, 0)),
            ("PING", frame(6, 0, 0, 8)),
            ("PRIORITY", frame(2, 0, 1, 5)),
            ("WINDOW_UPDATE", frame(8, 0, 1, 4)),
            ("empty DATA", frame(DATA, 0, 1, 0)),
            ("an unknown kind", frame(0x77, 0, 0, 100)),
            ("CONTINUATION", frame(CONTINUATION, 0, 1, 1)),
            ("heads that are refused", frame(HEADERS, 5, 1, 20)),
        ];
        for (name, bytes) in kinds {
            let passed = passes(&mut begun(), &bytes, 10_000, false);
            assert!((BUDGET - 2..=BUDGET).contains(&passed), "{name}: {passed}");
        }
        let passed = passes(&mut begun(), &frame(RST_STREAM, 0, 1, 4), 10_000, false);
        assert!(passed <= BUDGET / RESET, "{passed}");
        // Each pair costs one more than it pays.
        let pair = [frame(HEADERS, 5, 1, 20), frame(RST_STREAM, 0, 1, 4)].concat();
        let passed = passes(&mut begun(), &pair, 10_000, true);
        assert!(passed <= BUDGET, "{passed}");
        // Large header blocks that are refused, whatever they are made of.
        let large = frame(HEADERS, 5, 1, 16 * 1024);
        let passed = passes(&mut begun(), &large, 10_000, false);
        assert!(passed <= BUDGET / 5, "{passed}");
    }

    #[test]
    fn frames_that_go_with_something_are_none() {
        // Requests, and the windows for their answers.
        let mut guard = begun();
        let request = [
            frame(HEADERS, 5, 1, 40),
            frame(8, 0, 0, 4),
            frame(8, 0, 1, 4),
        ]
        .concat();
        assert_eq!(passes(&mut guard, &request, 100_000, true), 100_000);
        // A long upload with empty frames in it; a long download.
        let mut guard = begun();
        let upload = [frame(DATA, 0, 1, 1024), frame(DATA, 0, 1, 0)].concat();
        assert_eq!(passes(&mut guard, &upload, 100_000, false), 100_000);
        for _ in 0..100_000 {
            guard.sent(1024);
            guard.inspect(&frame(8, 0, 1, 4), 0).unwrap();
        }
        // A few each second, for ever.
        let mut guard = begun();
        for _ in 0..1000 {
            SECONDS.set(SECONDS.get() + 1);
            assert_eq!(passes(&mut guard, &frame(6, 0, 0, 8), 100, false), 100);
        }
    }

    #[test]
    fn a_byte_of_window_at_a_time_is_a_flood() {
        let mut guard = begun();
        let mut count = 0;
        while guard.inspect(&frame(8, 0, 1, 4), 0).is_ok() {
            // A frame with one byte.
            guard.sent(HEAD + 1);
            count += 1;
            assert!(count < 2 * BUDGET);
        }
    }

    #[test]
    fn frames_are_followed_wherever_they_are_cut() {
        let bytes = [
            vec![0; PREFACE],
            frame(SETTINGS, 0, 0, 6),
            frame(HEADERS, 0, 7, 300),
            frame(CONTINUATION, END_HEADERS, 7, 5),
            frame(DATA, 0, 7, 20),
        ]
        .concat();
        let begins = PREFACE + 15 + HEAD;
        let ends = PREFACE + 15 + 309 + 14;
        for size in 1..bytes.len() {
            let mut guard = Guard::new(now);
            let mut seen = 0;
            for piece in bytes.chunks(size) {
                guard.inspect(piece, 0).unwrap();
                seen += piece.len();
                let inside = (begins..ends).contains(&seen);
                assert_eq!(guard.is_in_block(), inside, "{size}: {seen}");
            }
            assert_eq!(guard.last_stream(), 7);
            assert_eq!((guard.have, guard.left), (0, 0));
        }
    }

    #[test]
    fn settings_come_first() {
        for bytes in [
            frame(HEADERS, 5, 1, 10),
            frame(SETTINGS, ACK, 0, 0),
            frame(6, 0, 0, 8),
        ] {
            let mut guard = Guard::new(now);
            guard.inspect(&[0; PREFACE], 0).unwrap();
            assert_eq!(guard.inspect(&bytes, 0), Err(ClientFault::Preface));
        }
    }
}

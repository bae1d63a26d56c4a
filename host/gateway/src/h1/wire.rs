//! A client's socket: what came and is not taken yet, what is to be written, how long a client may take nothing of it, and an
//! end that is not mistaken for another. Knows no request.

use std::cell::RefCell;
use std::fmt;
use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tidegate_core::clock;
use tidegate_core::http1::outgoing::Outgoing;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::time::Instant;

use crate::stream::{ClientStream, Linger};
use crate::timer::Timer;

/// Room for one read of heads and small bodies.
pub(super) const READ: usize = 16 * 1024;
/// Room for one read of a large body.
pub(super) const READ_MORE: usize = 64 * 1024;
/// Up to this many bytes that came are copied out of the thread's buffer; more are taken with it.
const SMALL_READ: usize = 2 * 1024;
/// Memory of its own that a connection at rest keeps, in bytes.
const KEPT: usize = 1024;

thread_local! {
    /// Where bytes come in: a connection that waits has no buffer of its own.
    static INCOMING: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// A client's socket.
pub(super) struct Wire {
    io: Box<dyn ClientStream>,
    /// What came, and is not taken.
    pub(super) read: BytesMut,
    pub(super) out: Outgoing,
    flushed: bool,
    /// Whether the client sends no more.
    pub(super) has_ended: bool,
    pub(super) reading: Timer,
    writing: Timer,
    /// How long a client may take nothing of what is written.
    patience: Duration,
    /// Since when it has.
    stalled: Option<Instant>,
    closing: Closing,
}

enum Closing {
    Open,
    Lingers(Linger),
}

impl Wire {
    /// `ahead` was read already.
    pub(super) fn new(io: Box<dyn ClientStream>, ahead: &[u8], patience: Duration) -> Self {
        Wire {
            io,
            read: BytesMut::from(ahead),
            out: Outgoing::default(),
            flushed: true,
            has_ended: false,
            reading: Timer::default(),
            writing: Timer::default(),
            patience,
            stalled: None,
            closing: Closing::Open,
        }
    }

    /// Reads more, and says how much came; 0: the client sends no more.
    pub(super) fn poll_fill(
        &mut self,
        room: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.has_ended {
            return Poll::Ready(Ok(0));
        }
        INCOMING.with_borrow_mut(|incoming| {
            incoming.clear();
            incoming.reserve(room);
            let reading = pin!(self.io.read_buf(incoming));
            let length = ready!(reading.poll(cx))?;
            if self.read.is_empty() && length > SMALL_READ {
                self.read = incoming.split();
            } else {
                self.read.extend_from_slice(incoming);
            }
            self.has_ended = length == 0;
            Poll::Ready(Ok(length))
        })
    }

    /// Writes all that is to be written. Ready when that has left.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = self.poll_write_out(cx);
        self.bounded(cx, result)
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let [before, data, after] = self.out.slices();
            let io = Pin::new(&mut self.io);
            let written = if data.is_empty() && after.is_empty() {
                ready!(io.poll_write(cx, before))?
            } else {
                let slices = [before, data, after].map(IoSlice::new);
                ready!(io.poll_write_vectored(cx, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.flushed = false;
            self.stalled = None;
            self.out.advance(written);
        }
        if !self.flushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Bounds how long a write may wait.
    fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let now = || Instant::from_std(clock::turn());
        let since = *self.stalled.get_or_insert_with(now);
        ready!(self.writing.poll_until(since + self.patience, cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ends the connection as it should end. `unread` says that the client may still be sending: then what it sends is read for
    /// a while and thrown away.
    pub(super) fn poll_close(&mut self, unread: bool, cx: &mut Context<'_>) -> Poll<()> {
        if let Closing::Open = self.closing {
            let result = Pin::new(&mut self.io).poll_shutdown(cx);
            let shut = ready!(self.bounded(cx, result)).is_ok();
            if !shut || !unread || self.has_ended {
                return Poll::Ready(());
            }
            self.closing = Closing::Lingers(Linger::new());
        }
        match &mut self.closing {
            Closing::Lingers(linger) => linger.poll(&mut self.io, &mut self.reading, cx),
            Closing::Open => Poll::Ready(()),
        }
    }

    /// Makes the close that comes a reset.
    pub(super) fn reset(&self) {
        self.io.reset_on_close();
    }

    /// Gives memory back that a connection at rest does not need.
    pub(super) fn trim(&mut self) {
        if self.read.is_empty() && self.read.capacity() > KEPT {
            self.read = BytesMut::new();
        }
        if self.out.is_empty() && self.out.heads().capacity() > KEPT {
            self.out.clear();
        }
    }

    /// The socket, for another protocol: what came is in `read`.
    pub(super) fn io(&mut self) -> Pin<&mut Box<dyn ClientStream>> {
        Pin::new(&mut self.io)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

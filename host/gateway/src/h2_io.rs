//! A client's bytes on their way to the HTTP/2 engine and from it: what came before the protocol was known, the guard, and the
//! time that a client may take. Knows no request.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::answer::ClientFault;
use crate::h2_guard::Guard;
use crate::settings::Limits;
use crate::signals::{CONNECTION, Signals};
use crate::stream::{ClientStream, Linger};
use crate::timer::Timer;

/// A client's connection as the engine has it.
pub(crate) struct H2Io<IO> {
    io: IO,
    signals: Rc<Signals>,
    /// Read already, and not given to the engine.
    ahead: Bytes,
    guard: Guard,
    header_timeout: Duration,
    /// Since when a header block waits for its rest.
    since: Option<Instant>,
    /// Whether the connection was ended under the engine.
    ended: bool,
    reading: Timer,
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
    Closed,
}

impl<IO: ClientStream> H2Io<IO> {
    /// A connection of which some bytes were read already: they end with the preface, or have it all before them.
    pub(crate) fn new(io: IO, ahead: Vec<u8>, limits: &Limits, signals: Rc<Signals>) -> Self {
        H2Io {
            io,
            signals,
            ahead: ahead.into(),
            guard: Guard::new(Instant::now),
            header_timeout: limits.header_timeout,
            since: None,
            ended: false,
            reading: Timer::default(),
            writing: Timer::default(),
            patience: limits.body_idle_timeout,
            stalled: None,
            closing: Closing::Open,
        }
    }

    /// Shows what was read from `start` on to the guard, and takes it back if it must not go on.
    fn show(&mut self, buf: &mut ReadBuf<'_>, start: usize) {
        let fresh = buf.filled().get(start..).unwrap_or_default();
        self.since = None;
        if let Err(fault) = self.guard.inspect(fresh, self.signals.begun()) {
            self.end(fault);
            buf.set_filled(start);
        }
    }

    fn end(&mut self, fault: ClientFault) {
        self.signals.found(CONNECTION, fault);
        self.ended = true;
    }

    /// Whether the client has been waited for long enough: all streams wait for the end of a header block that has begun.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.guard.is_in_block() {
            return Poll::Pending;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        ready!(self.reading.poll_until(since + self.header_timeout, cx));
        self.end(ClientFault::HeadTimedOut);
        Poll::Ready(())
    }

    /// Ends the connection under the engine: says GOAWAY, and reads on for a moment so that it arrives.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Closing::Open = self.closing {
            let fault = self.signals.fault_of(CONNECTION);
            let goaway = goaway(self.guard.last_stream(), fault);
            // Nobody waits for a client that does not read.
            let _ = Pin::new(&mut self.io).poll_write(cx, &goaway);
            let _ = Pin::new(&mut self.io).poll_shutdown(cx);
            self.closing = Closing::Lingers(Linger::new());
        }
        ready!(self.poll_linger(cx));
        self.closing = Closing::Closed;
        Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
    }

    /// Reads on for a while behind the end of what was written.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.closing {
            Closing::Lingers(linger) => linger.poll(&mut self.io, &mut self.reading, cx),
            Closing::Open | Closing::Closed => Poll::Ready(()),
        }
    }

    fn written(&mut self, result: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(written)) = result {
            self.guard.sent(*written);
        }
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
        let since = *self.stalled.get_or_insert_with(Instant::now);
        ready!(self.writing.poll_until(since + self.patience, cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<IO: ClientStream> AsyncRead for H2Io<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.ended {
                return this.poll_end(cx);
            }
            let start = buf.filled().len();
            if this.ahead.is_empty() {
                match Pin::new(&mut this.io).poll_read(cx, buf) {
                    Poll::Ready(Ok(())) if buf.filled().len() > start => {}
                    Poll::Ready(result) => return Poll::Ready(result),
                    Poll::Pending => {
                        ready!(this.poll_patience(cx));
                        continue;
                    }
                }
            } else {
                let length = this.ahead.len().min(buf.remaining());
                buf.put_slice(&this.ahead.split_to(length));
            }
            this.show(buf, start);
            if buf.filled().len() > start {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<IO: ClientStream> AsyncWrite for H2Io<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.ended {
            // What the engine still writes goes nowhere.
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.written(&result);
        this.bounded(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()));
        }
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, pieces);
        this.written(&result);
        this.bounded(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_flush(cx);
        this.bounded(cx, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Closing::Open = this.closing {
            let result = Pin::new(&mut this.io).poll_shutdown(cx);
            ready!(this.bounded(cx, result))?;
            this.closing = Closing::Closed;
        }
        ready!(this.poll_linger(cx));
        this.closing = Closing::Closed;
        Poll::Ready(Ok(()))
    }
}

impl<IO> fmt::Debug for H2Io<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H2Io").finish_non_exhaustive()
    }
}

/// A GOAWAY frame (RFC 9113 section 6.8) that tells of a fault.
fn goaway(last_stream: u32, fault: Option<ClientFault>) -> [u8; 17] {
    let reason = match fault {
        Some(ClientFault::Preface) => h2::Reason::PROTOCOL_ERROR,
        _ => h2::Reason::ENHANCE_YOUR_CALM,
    };
    let [a, b, c, d] = last_stream.to_be_bytes();
    let [e, f, g, h] = u32::from(reason).to_be_bytes();
    [0, 0, 8, 7, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h]
}

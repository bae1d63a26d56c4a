//! A client's bytes on their way to the parser and from it: what came before the protocol was known, the guard of HTTP/1,
//! the time that a client may take, interim responses, and an end that is not mistaken for another. Knows no request.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tidegate_core::clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::answer::ClientFault;
use crate::h1_guard::{Guard, Seen};
use crate::h2_guard;
use crate::settings::Limits;
use crate::signals::{CONNECTION, Signals, Upgrade};

/// What is still read behind a refused request before the connection is closed under it: an answer that a client has not
/// read yet is lost if bytes of its own meet a closed socket (RFC 9112 section 9.6).
const LINGER_BYTES: usize = 1024 * 1024;
/// Up to this many bytes are copied together: the system takes one piece for less than several.
const SMALL_WRITE: usize = 2048;
/// For how long it is read.
const LINGER: Duration = Duration::from_secs(2);

/// A client's connection as the gateway is given it.
pub trait ClientStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes the close that comes a reset. Over TLS there is nothing to do: without a goodbye, the client knows that what it
    /// got is not whole.
    fn reset_on_close(&self) {}
}

impl ClientStream for TcpStream {
    fn reset_on_close(&self) {
        // A socket that is closed already needs none.
        let _ = self.set_zero_linger();
    }
}

/// A stream that can't be reset, or need not be.
#[derive(Debug)]
pub struct Plain<IO>(pub IO);

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> ClientStream for Plain<IO> {}

impl<IO: AsyncRead + Unpin> AsyncRead for Plain<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Plain<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

/// A client's connection as the parser has it.
pub(crate) struct ClientIo<IO: ClientStream> {
    io: IO,
    signals: Arc<Signals>,
    /// Read already, and not given to the parser.
    ahead: Bytes,
    http1: Option<Http1>,
    http2: Option<Http2>,
    reading: Timer,
    writing: Timer,
    /// How long a client may take nothing of what is written.
    patience: Duration,
    /// Since when it has.
    stalled: Option<Instant>,
    interim: Bytes,
    /// Whether the last write took all that it was given, and whether it is written.
    at_rest: bool,
    flushed: bool,
    closing: Closing,
}

/// What HTTP/1 needs besides.
struct Http1 {
    guard: Guard,
    header_timeout: Duration,
    idle_timeout: Duration,
    accepted: Instant,
    /// Since when a head is on its way, and which request's.
    since: Option<(u64, Instant)>,
    /// What the parser gets before it is told that nothing more comes.
    tail: &'static [u8],
    /// That nothing more comes; the parser is told when so many requests are served, since it would give up those that are
    /// not.
    end: Option<u64>,
    /// Whether bytes that came are left unread.
    unread: bool,
    /// Whether what comes waits for the answer to an upgrade.
    waits: bool,
    tunnel: bool,
}

/// What HTTP/2 needs besides.
struct Http2 {
    guard: h2_guard::Guard,
    header_timeout: Duration,
    /// Since when a header block waits for its rest.
    since: Option<Instant>,
    /// Whether the connection was ended under the parser.
    ended: bool,
}

/// What the parser waits for when nothing comes.
enum Awaits {
    /// Nothing that has a time.
    Nothing,
    /// That a request is answered.
    Answer,
    /// Bytes, until then.
    Bytes(Instant),
}

enum Closing {
    Open,
    Lingers { left: usize, until: Instant },
    Closed,
}

impl<IO: ClientStream> ClientIo<IO> {
    /// A connection of which some bytes were read already. `accepted` is when the client's time began.
    pub(crate) fn http1(
        io: IO,
        ahead: Vec<u8>,
        limits: &Limits,
        accepted: Instant,
        signals: Arc<Signals>,
    ) -> Self {
        let http1 = Http1 {
            guard: Guard::new(limits),
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            accepted,
            since: None,
            tail: b"",
            end: None,
            unread: false,
            waits: false,
            tunnel: false,
        };
        let mut this = Self::new(io, ahead, limits, signals);
        this.http1 = Some(http1);
        this
    }

    /// The same for HTTP/2. What was read already ends with the preface, or has it all before it.
    pub(crate) fn http2(io: IO, ahead: Vec<u8>, limits: &Limits, signals: Arc<Signals>) -> Self {
        let http2 = Http2 {
            guard: h2_guard::Guard::new(Instant::now),
            header_timeout: limits.header_timeout,
            since: None,
            ended: false,
        };
        let mut this = Self::new(io, ahead, limits, signals);
        this.http2 = Some(http2);
        this
    }

    fn new(io: IO, ahead: Vec<u8>, limits: &Limits, signals: Arc<Signals>) -> Self {
        ClientIo {
            io,
            signals,
            ahead: ahead.into(),
            http1: None,
            http2: None,
            reading: Timer::default(),
            writing: Timer::default(),
            patience: limits.body_idle_timeout,
            stalled: None,
            interim: Bytes::new(),
            at_rest: true,
            flushed: true,
            closing: Closing::Open,
        }
    }

    /// Shows what was read from `start` on to the guard, and takes back what may not go on yet, or ever.
    fn show(&mut self, buf: &mut ReadBuf<'_>, start: usize) {
        let fresh = buf.filled().get(start..).unwrap_or_default();
        let Some(http1) = &mut self.http1 else {
            if let Some(http2) = &mut self.http2 {
                http2.since = None;
                if let Err(fault) = http2.guard.inspect(fresh, self.signals.begun()) {
                    self.signals.found(CONNECTION, fault);
                    http2.ended = true;
                    buf.set_filled(start);
                }
            }
            return;
        };
        match http1.guard.inspect(fresh) {
            Seen::Clear => {}
            Seen::Upgrade(kept) => {
                let rest = fresh.get(kept..).unwrap_or_default();
                if !rest.is_empty() {
                    self.ahead = [rest, &self.ahead].concat().into();
                }
                http1.waits = true;
                self.signals.ask_upgrade();
                buf.set_filled(start + kept);
            }
            Seen::Fault {
                request,
                kept,
                fault,
                tail,
            } => {
                self.signals.found(request, fault);
                http1.unread = true;
                http1.tail = tail;
                // A body that breaks off breaks its request; a head's request is answered first.
                http1.end = Some(if tail.is_empty() { 0 } else { request + 1 });
                buf.set_filled(start + kept);
            }
        }
    }

    /// Whether the client has been waited for long enough. Over HTTP/2 this holds for a header block that has begun: all
    /// streams wait for its end.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(http1) = &mut self.http1 else {
            let http2 = self.http2.as_mut().filter(|it| it.guard.is_in_block());
            let Some(http2) = http2 else {
                return Poll::Pending;
            };
            let since = *http2.since.get_or_insert_with(Instant::now);
            ready!(self.reading.poll_until(since + http2.header_timeout, cx));
            self.signals.found(CONNECTION, ClientFault::HeadTimedOut);
            http2.ended = true;
            return Poll::Ready(());
        };
        loop {
            match http1.awaits(&self.signals) {
                Awaits::Nothing => return Poll::Pending,
                // Nobody asks again when that is over, so a look from time to time must do.
                Awaits::Answer => {
                    let next = Instant::from_std(clock::turn()) + http1.idle_timeout;
                    ready!(self.reading.poll_before(next, cx));
                }
                Awaits::Bytes(until) => {
                    ready!(self.reading.poll_until(until, cx));
                    break;
                }
            }
        }
        if http1.guard.is_in_head() {
            let request = http1.guard.request();
            self.signals.found(request, ClientFault::HeadTimedOut);
            http1.tail = http1.guard.tail();
            http1.end = Some(request + 1);
        } else {
            http1.end = Some(0);
        }
        Poll::Ready(())
    }

    /// Ends an HTTP/2 connection under the parser: says GOAWAY, and reads on for a moment so that it arrives.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let (Closing::Open, Some(http2)) = (&self.closing, &self.http2) {
            let fault = self.signals.fault_of(CONNECTION);
            let goaway = goaway(http2.guard.last_stream(), fault);
            // Nobody waits for a client that does not read.
            let _ = Pin::new(&mut self.io).poll_write(cx, &goaway);
            let _ = Pin::new(&mut self.io).poll_shutdown(cx);
            self.closing = Closing::Lingers {
                left: LINGER_BYTES,
                until: Instant::now() + LINGER,
            };
        }
        ready!(self.poll_linger(cx));
        self.closing = Closing::Closed;
        Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
    }

    /// Bounds how long a write may wait.
    fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let tunnel = self.http1.as_ref().is_some_and(|http1| http1.tunnel);
        if result.is_ready() || tunnel {
            self.stalled = None;
            return result;
        }
        let since = *self.stalled.get_or_insert_with(Instant::now);
        ready!(self.writing.poll_until(since + self.patience, cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Http1 {
    /// The client has ended its side. It still gets the answers to what it has sent whole.
    fn ended(&mut self) {
        let whole = self.guard.is_between() && !self.tunnel;
        self.end = Some(if whole { self.guard.request() } else { 0 });
    }

    /// What the parser waits for.
    fn awaits(&mut self, signals: &Signals) -> Awaits {
        // A body has a time of its own.
        if self.tunnel || self.guard.is_in_body() {
            return Awaits::Nothing;
        }
        let (request, in_head) = (self.guard.request(), self.guard.is_in_head());
        if signals.served() < request {
            return Awaits::Answer;
        }
        if request == 0 {
            return Awaits::Bytes(self.accepted + self.header_timeout);
        }
        if !in_head {
            let since = signals.finished().unwrap_or(self.accepted);
            return Awaits::Bytes(since + self.idle_timeout);
        }
        let since = match self.since {
            Some((of, since)) if of == request => since,
            _ => Instant::from_std(clock::turn()),
        };
        self.since = Some((request, since));
        Awaits::Bytes(since + self.header_timeout)
    }
}

impl<IO: ClientStream> AsyncRead for ClientIo<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Some(http1) = &mut this.http1 {
                if !http1.tail.is_empty() {
                    let length = http1.tail.len().min(buf.remaining());
                    let (now, later) = http1.tail.split_at(length);
                    buf.put_slice(now);
                    http1.tail = later;
                    return Poll::Ready(Ok(()));
                }
                if let Some(requests) = http1.end {
                    let served = this.signals.served() >= requests && this.flushed;
                    if served || requests == 0 {
                        return Poll::Ready(Ok(()));
                    }
                    this.signals.read_later(cx.waker());
                    return Poll::Pending;
                }
                if http1.waits {
                    match this.signals.upgrade(cx.waker()) {
                        Upgrade::Open => return Poll::Pending,
                        Upgrade::Declined => {}
                        Upgrade::Accepted => {
                            http1.guard.stop();
                            http1.tunnel = true;
                        }
                    }
                    http1.waits = false;
                }
            }
            if this.has_ended() {
                return this.poll_end(cx);
            }
            let start = buf.filled().len();
            if this.ahead.is_empty() {
                match Pin::new(&mut this.io).poll_read(cx, buf) {
                    Poll::Ready(Ok(())) if buf.filled().len() > start => {}
                    Poll::Ready(Ok(())) => match &mut this.http1 {
                        Some(http1) => {
                            http1.ended();
                            continue;
                        }
                        None => return Poll::Ready(Ok(())),
                    },
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
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

impl<IO: ClientStream> ClientIo<IO> {
    /// Writes interim responses, which stand before whatever comes next.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim.is_empty() {
            if !self.at_rest {
                self.signals.too_late();
                return Poll::Ready(Ok(()));
            }
            match self.signals.take_interim() {
                Some(interim) => self.interim = interim.into(),
                None => return Poll::Ready(Ok(())),
            }
        }
        while !self.interim.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.interim))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn written(&mut self, result: &Poll<io::Result<usize>>, offered: usize) {
        if let (Some(http2), Poll::Ready(Ok(written))) = (&mut self.http2, result) {
            http2.guard.sent(*written);
        }
        self.at_rest = matches!(result, Poll::Ready(Ok(written)) if *written == offered);
        self.flushed = false;
    }

    /// Whether an HTTP/2 connection was ended under the parser: what it still writes goes nowhere.
    fn has_ended(&self) -> bool {
        self.http2.as_ref().is_some_and(|http2| http2.ended)
    }

    /// Reads on for a while behind the end of what was written, and throws it away.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Closing::Lingers { left, until } = &mut self.closing else {
            return Poll::Ready(());
        };
        let mut scratch = [0; 8 * 1024];
        while *left > 0 {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    *left = left.saturating_sub(buf.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.reading.poll_until(*until, cx),
            }
        }
        Poll::Ready(())
    }
}

impl<IO: ClientStream> AsyncWrite for ClientIo<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.has_ended() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = match this.poll_interim(cx) {
            Poll::Ready(Ok(())) => {
                let result = Pin::new(&mut this.io).poll_write(cx, bytes);
                this.written(&result, bytes.len());
                result
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        this.bounded(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.has_ended() {
            return Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()));
        }
        let result = match this.poll_interim(cx) {
            Poll::Ready(Ok(())) => {
                let length = pieces.iter().map(|piece| piece.len()).sum();
                let io = Pin::new(&mut this.io);
                let result = if length <= SMALL_WRITE {
                    let mut space = [const { MaybeUninit::uninit() }; SMALL_WRITE];
                    let mut whole = ReadBuf::uninit(&mut space);
                    pieces.iter().for_each(|piece| whole.put_slice(piece));
                    io.poll_write(cx, whole.filled())
                } else {
                    io.poll_write_vectored(cx, pieces)
                };
                this.written(&result, length);
                result
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        this.bounded(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = match this.poll_interim(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.io).poll_flush(cx),
            other => other,
        };
        // The parser flushes when it has nothing left to write.
        if let Poll::Ready(Ok(())) = result
            && !std::mem::replace(&mut this.flushed, true)
            && this.http1.as_ref().is_some_and(|http1| http1.end.is_some())
        {
            this.signals.wake_reader();
        }
        this.bounded(cx, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Closing::Open = this.closing {
            let result = Pin::new(&mut this.io).poll_shutdown(cx);
            ready!(this.bounded(cx, result))?;
            let unread = this
                .http1
                .as_ref()
                .is_some_and(|http1| http1.unread || http1.guard.is_in_body());
            this.closing = if unread {
                Closing::Lingers {
                    left: LINGER_BYTES,
                    until: Instant::now() + LINGER,
                }
            } else {
                Closing::Closed
            };
        }
        ready!(this.poll_linger(cx));
        this.closing = Closing::Closed;
        Poll::Ready(Ok(()))
    }
}

impl<IO: ClientStream> Drop for ClientIo<IO> {
    fn drop(&mut self) {
        if self.signals.is_reset() {
            self.io.reset_on_close();
        }
    }
}

impl<IO: ClientStream> fmt::Debug for ClientIo<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIo").finish_non_exhaustive()
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

/// A moment to wait for, which may move. Moving it to later costs nothing until the earlier one has come.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Waits for a moment that is set already and comes sooner, or for the given one.
    fn poll_before(&mut self, moment: Instant, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(sleep) if !sleep.is_elapsed() && sleep.deadline() <= moment => {
                sleep.as_mut().poll(cx)
            }
            _ => self.poll_until(moment, cx),
        }
    }

    fn poll_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

//! One client connection: which protocol it speaks, how long it may take, and how it ends when the process drains. Knows
//! nothing of what is served on it.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Executor, Read, ReadBufCursor, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tidegate_core::exchange::TlsFacts;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::h1_guard::{Guard, POISON, Signals};
use crate::serve::{self, Connection};
use crate::settings::Limits;
use crate::worker::Worker;

/// How long an HTTP/2 client without streams may take to answer GOAWAY.
const FAREWELL: Duration = Duration::from_secs(2);

/// What HTTP/2 begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Tells connections that the process drains.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<bool>);

/// Starts the drain.
#[derive(Debug)]
pub struct DrainTrigger(watch::Sender<bool>);

impl Drain {
    /// A drain that has not begun, and what begins it.
    pub fn new() -> (DrainTrigger, Drain) {
        let (sender, receiver) = watch::channel(false);
        (DrainTrigger(sender), Drain(receiver))
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it begins; for ever if it never can.
    pub async fn begun(&mut self) {
        if self.0.wait_for(|begun| *begun).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl DrainTrigger {
    /// Begins it: HTTP/1.1 connections close behind their exchange, HTTP/2 connections say GOAWAY.
    pub fn drain(&self) {
        self.0.send_replace(true);
    }
}

impl Worker {
    /// Serves a connection to its end. Never fails: what goes wrong is counted.
    pub async fn serve_connection<IO>(
        self: Rc<Self>,
        mut io: IO,
        peer: SocketAddr,
        tls: Option<Arc<TlsFacts>>,
        mut drain: Drain,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = self.shared.settings.limits.clone();
        let _open = Open::new(&self);
        let negotiated = tls.as_ref().and_then(|tls| tls.alpn.as_deref());
        let (http2, prefix) = match negotiated {
            Some("h2") => (true, Vec::new()),
            Some(_) => (false, Vec::new()),
            None => {
                let detected = tokio::select! {
                    biased;
                    detected = tokio::time::timeout(limits.header_timeout, detect(&mut io)) => detected,
                    () = drain.begun() => return,
                };
                match detected {
                    Ok(Ok(detected)) => detected,
                    Ok(Err(_)) => return,
                    Err(_) => {
                        self.figures.client_error("timeout_header");
                        return;
                    }
                }
            }
        };
        let signals = Arc::new(Signals::default());
        let connection = Rc::new(Connection {
            peer,
            tls,
            signals: Arc::clone(&signals),
        });
        if http2 {
            self.http2(
                Guarded::new(io, prefix, None, limits.body_idle_timeout),
                connection,
                &limits,
                drain,
            )
            .await;
        } else {
            let guard = Guard::new();
            let io = Guarded::new(io, prefix, Some((guard, signals)), limits.body_idle_timeout);
            self.http1(io, connection, &limits, drain).await;
        }
    }

    async fn http1<IO>(
        self: Rc<Self>,
        io: Guarded<IO>,
        connection: Rc<Connection>,
        limits: &Limits,
        mut drain: Drain,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let signals = Arc::clone(&connection.signals);
        let activity = Rc::new(Activity::default());
        let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
            let (worker, connection, busy) = (
                Rc::clone(&self),
                Rc::clone(&connection),
                Activity::enter(&activity),
            );
            async move {
                let response = serve::serve(worker, connection, request).await;
                drop(busy);
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout.max(limits.idle_timeout))
            // A client that sends no more still gets its answer: `Guarded` keeps the end of its stream back until then, and
            // passes a reset on at once.
            .half_close(false)
            .max_headers(limits.max_fields.saturating_add(64))
            .max_buf_size(limits.max_head.max(8192));
        let mut served = pin!(builder.serve_connection(io, service).with_upgrades());
        let result = loop {
            tokio::select! {
                biased;
                result = served.as_mut() => break result,
                () = drain.begun(), if !activity.draining.get() => {
                    activity.draining.set(true);
                    served.as_mut().graceful_shutdown();
                }
            }
        };
        match (signals.violation(), result) {
            (Some(violation), _) => self.figures.client_error(violation.reason()),
            (None, Err(error)) if error.is_timeout() => self.figures.client_error("timeout_header"),
            (None, Err(error)) if error.is_parse() => self.figures.client_error("parse"),
            _ => {}
        }
    }

    async fn http2<IO>(
        self: Rc<Self>,
        io: Guarded<IO>,
        connection: Rc<Connection>,
        limits: &Limits,
        mut drain: Drain,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Rc::new(Activity::default());
        let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
            let (worker, connection, busy) = (
                Rc::clone(&self),
                Rc::clone(&connection),
                Activity::enter(&activity),
            );
            async move {
                let response = serve::serve(worker, connection, request).await;
                drop(busy);
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let mut builder = http2::Builder::new(Local);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.max_concurrent_streams)
            .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(Some(128))
            .max_send_buf_size(256 * 1024)
            .keep_alive_interval(Some(limits.idle_timeout.max(Duration::from_secs(10))))
            .keep_alive_timeout(Duration::from_secs(20));
        let mut served = pin!(builder.serve_connection(io, service));
        let mut shutting = false;
        loop {
            let patience = if activity.ever.get() {
                limits.idle_timeout
            } else {
                limits.header_timeout
            };
            tokio::select! {
                biased;
                result = served.as_mut() => {
                    if result.is_err() {
                        self.figures.client_error("http2");
                    }
                    return;
                }
                () = drain.begun(), if !shutting => {
                    shutting = true;
                    served.as_mut().graceful_shutdown();
                }
                () = activity.idle_for(patience), if !shutting => {
                    shutting = true;
                    served.as_mut().graceful_shutdown();
                }
                // Whoever does not answer the farewell is left without.
                () = activity.idle_for(FAREWELL), if shutting => return,
            }
        }
    }
}

/// How many exchanges a connection has under way, and since when it has none.
#[derive(Default)]
struct Activity {
    busy: Cell<usize>,
    turns: Cell<u64>,
    ever: Cell<bool>,
    draining: Cell<bool>,
}

struct Busy(Rc<Activity>);

impl Activity {
    fn enter(this: &Rc<Self>) -> Busy {
        this.busy.set(this.busy.get() + 1);
        this.turns.set(this.turns.get() + 1);
        this.ever.set(true);
        Busy(Rc::clone(this))
    }

    /// Waits until no exchange was under way for so long.
    async fn idle_for(&self, patience: Duration) {
        loop {
            let before = self.turns.get();
            tokio::time::sleep(patience).await;
            if self.busy.get() == 0 && self.turns.get() == before {
                return;
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get().saturating_sub(1));
        self.0.turns.set(self.0.turns.get() + 1);
    }
}

/// Counts an open connection.
struct Open(Rc<Worker>);

impl Open {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.figures.connections.increment();
        worker.figures.open.add(1.0);
        Open(Rc::clone(worker))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.figures.open.add(-1.0);
    }
}

/// Reads until it is clear whether the preface of HTTP/2 comes, and returns what was read.
async fn detect<IO: AsyncRead + Unpin>(io: &mut IO) -> io::Result<(bool, Vec<u8>)> {
    let mut read = Vec::with_capacity(1024);
    loop {
        if io.read_buf(&mut read).await? == 0 {
            // What came before the end may be a whole request of a client that sends no more.
            return if read.is_empty() {
                Err(io::ErrorKind::UnexpectedEof.into())
            } else {
                Ok((false, read))
            };
        }
        let common = read.iter().zip(PREFACE).take_while(|(a, b)| a == b).count();
        if common == PREFACE.len() {
            return Ok((true, read));
        }
        if common < read.len() {
            return Ok((false, read));
        }
    }
}

/// Spawns on the worker's own thread.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

type Watch = (Guard, Arc<Signals>);

/// A stream for hyper that gives out what was read already, and shows everything to the guard on its way.
struct Guarded<IO> {
    io: IO,
    prefix: Vec<u8>,
    given: usize,
    watch: Option<Watch>,
    /// Whether the client broke the rules: behind the prefix, nothing comes any more.
    poisoned: bool,
    /// How long a client may take nothing of what is sent, and since when it does.
    patience: Duration,
    stuck: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<IO> Guarded<IO> {
    fn new(io: IO, prefix: Vec<u8>, watch: Option<Watch>, patience: Duration) -> Self {
        Guarded {
            io,
            prefix,
            given: 0,
            watch,
            poisoned: false,
            patience,
            stuck: None,
        }
    }

    /// Whether the client has sent its whole request and not got its whole answer.
    fn waits_for_answer(&self) -> bool {
        self.watch.as_ref().is_some_and(|(guard, signals)| {
            !signals.is_off() && guard.whole().is_some_and(|whole| whole > signals.ended())
        })
    }

    /// Passes a write's outcome on, unless the client has taken nothing for too long.
    fn patiently<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stuck = None;
            return outcome;
        }
        let patience = self.patience;
        let stuck = self
            .stuck
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        match stuck.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Shows bytes to the guard and says how many of them may go on.
    fn show(&mut self, bytes: &[u8]) -> usize {
        let Some((guard, signals)) = &mut self.watch else {
            return bytes.len();
        };
        if signals.is_off() {
            return bytes.len();
        }
        match guard.inspect(bytes) {
            Ok(()) => bytes.len(),
            Err((found, at)) => {
                signals.found(found);
                self.poisoned = true;
                self.prefix = POISON.to_vec();
                self.given = 0;
                at
            }
        }
    }
}

/// Bytes that are read at a time.
const READ: usize = 16 * 1024;

impl<IO: AsyncRead + Unpin> Read for Guarded<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.given < this.prefix.len() {
            let from = this.given;
            let to = this.prefix.len().min(from + cursor.remaining());
            let piece = this.prefix.get(from..to).unwrap_or_default().to_vec();
            this.given = to;
            let kept = if this.poisoned {
                piece.len()
            } else {
                this.show(&piece)
            };
            cursor.put_slice(piece.get(..kept).unwrap_or_default());
            if kept > 0 || !this.poisoned {
                return Poll::Ready(Ok(()));
            }
            // Nothing of the piece may go on: the poison goes in its place.
            let room = POISON.len().min(cursor.remaining());
            cursor.put_slice(POISON.get(..room).unwrap_or_default());
            this.given = this.prefix.len();
            return Poll::Ready(Ok(()));
        }
        if this.poisoned {
            return Poll::Ready(Ok(()));
        }
        let mut room = [const { std::mem::MaybeUninit::<u8>::uninit() }; READ];
        let length = cursor.remaining().min(READ);
        let mut buffer = ReadBuf::uninit(room.get_mut(..length).unwrap_or_default());
        match Pin::new(&mut this.io).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {
                let filled = buffer.filled();
                if filled.is_empty() && this.waits_for_answer() {
                    // The exchange's end polls again and finds the end of the stream.
                    return Poll::Pending;
                }
                let kept = this.show(filled);
                cursor.put_slice(filled.get(..kept).unwrap_or_default());
                if this.poisoned {
                    let room = POISON.len().min(cursor.remaining());
                    cursor.put_slice(POISON.get(..room).unwrap_or_default());
                    this.given = this.prefix.len();
                }
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

impl<IO: AsyncWrite + Unpin> Write for Guarded<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.patiently(cx, outcome)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.io).poll_write_vectored(cx, pieces);
        this.patiently(cx, outcome)
    }
}

impl<IO> fmt::Debug for Guarded<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}

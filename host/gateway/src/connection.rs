//! One client connection: which protocol it speaks, how long it may rest, and how it ends when the process drains. Knows
//! nothing of what is served on it.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_core::clock;
use tidegate_core::exchange::TlsFacts;
use tidegate_upstream::Upgraded;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::answer::ClientFault;
use crate::forwarded::{self, Hop};
use crate::h1;
use crate::h2_io::H2Io;
use crate::head::Reader;
use crate::journey::Journey;
use crate::serve;
use crate::settings::Limits;
use crate::signals::{CONNECTION, Signals};
use crate::stream::{ClientStream, Plain};
use crate::streams::{Stall, Streams};
use crate::upload::Incoming;
use crate::worker::Worker;

/// What HTTP/2 begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long an HTTP/2 client without streams may take to answer GOAWAY.
const FAREWELL: Duration = Duration::from_secs(2);

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

    /// Whether there may be more to see than when [`Drain::begun`] last looked.
    pub(crate) fn has_news(&self) -> bool {
        self.0.has_changed().unwrap_or(true)
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

/// What is known of a connection, for the requests that come on it.
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    /// Whether the peer's word on those before it counts.
    pub(crate) trusted: bool,
    pub(crate) tls: Option<Arc<TlsFacts>>,
    pub(crate) http2: bool,
    /// How upstreams are told of the peer.
    pub(crate) hop: Hop,
    pub(crate) reader: Reader,
    /// From its bytes, and to them.
    pub(crate) signals: Rc<Signals>,
    /// What follows a 101: the exchange that ends as a tunnel, and the upstream's side of it.
    pub(crate) tunnel: Cell<Option<(Journey, Upgraded)>>,
    activity: Rc<Activity>,
    wear: Wear,
    _open: Open,
}

/// How much a connection may serve, and for how long.
struct Wear {
    requests: u64,
    /// When it is too old.
    end: Option<Instant>,
    /// Tells an HTTP/2 connection that it has served enough.
    out: Notify,
}

/// A request's place on its connection.
pub(crate) struct Place {
    /// Its number, counted from 0.
    pub(crate) number: u64,
    /// Its stream.
    pub(crate) stall: Option<Rc<Stall>>,
    _busy: Busy,
}

impl Worker {
    /// [`Worker::serve_stream`] for streams that need no reset.
    pub async fn serve_connection<IO>(
        self: Rc<Self>,
        io: IO,
        peer: SocketAddr,
        tls: Option<Arc<TlsFacts>>,
        drain: Drain,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.serve_stream(Plain(io), peer, tls, drain).await;
    }

    /// Serves a connection to its end, tunnels included. Never fails: what goes wrong is counted.
    pub async fn serve_stream(
        self: Rc<Self>,
        mut io: impl ClientStream,
        peer: SocketAddr,
        tls: Option<Arc<TlsFacts>>,
        mut drain: Drain,
    ) {
        let accepted = Instant::now();
        let open = Open::new(&self);
        let limits = self.shared.settings.limits.clone();
        let negotiated = tls.as_ref().and_then(|tls| tls.alpn.as_deref());
        let (http2, ahead) = match negotiated {
            Some("h2") => (true, Vec::new()),
            Some(_) => (false, Vec::new()),
            None => {
                let patience = limits.header_timeout;
                let detected = tokio::select! {
                    biased;
                    detected = tokio::time::timeout(patience, detect(&mut io)) => detected,
                    () = drain.begun() => return,
                };
                match detected {
                    Ok(Ok(detected)) => detected,
                    Ok(Err(_)) => return,
                    Err(_) => {
                        self.refused(peer, ClientFault::HeadTimedOut.told().reason);
                        return;
                    }
                }
            }
        };
        let connection = Rc::new(Connection {
            peer,
            trusted: forwarded::is_trusted(peer.ip(), &self.shared.settings.trusted_proxies),
            reader: Reader::new(tls.is_some()),
            tls,
            http2,
            hop: Hop::new(peer.ip()),
            signals: Rc::default(),
            tunnel: Cell::new(None),
            activity: Rc::new(Activity::new()),
            wear: Wear {
                requests: limits.max_requests.unwrap_or(u64::MAX),
                end: limits.max_age.map(|age| accepted + age),
                out: Notify::new(),
            },
            _open: open,
        });
        if http2 {
            let signals = Rc::clone(&connection.signals);
            let io = H2Io::new(io, ahead, &limits, signals);
            // Large, and the other one is what most connections wait in.
            Box::pin(self.http2(io, &connection, &limits, drain)).await;
        } else {
            let _end = TunnelEnd(Rc::clone(&connection));
            h1::serve(self, Box::new(io), ahead, &connection, accepted, drain).await;
        }
    }

    async fn http2(
        self: Rc<Self>,
        io: H2Io<impl ClientStream>,
        connection: &Rc<Connection>,
        limits: &Limits,
        mut drain: Drain,
    ) {
        let streams = Streams::new(limits.body_idle_timeout);
        let service = service_fn(|request: Request<hyper::body::Incoming>| {
            let place = connection.enter(Some(streams.open()));
            let (parts, body) = request.into_parts();
            let body = Incoming::Http2(body);
            let worker = Rc::clone(&self);
            let served = serve::serve(worker, Rc::clone(connection), place, parts, body, None);
            async { Ok::<_, Infallible>(served.await) }
        });
        let mut builder = http2::Builder::new(streams.clone());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.max_concurrent_streams)
            .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(Some(128))
            .max_send_buf_size(256 * 1024)
            .keep_alive_interval(Some(limits.idle_timeout.max(Duration::from_secs(10))))
            .keep_alive_timeout(Duration::from_secs(20));
        let mut served = pin!(builder.serve_connection(TokioIo::new(io), service));
        let activity = &connection.activity;
        let mut leaving = false;
        loop {
            let patience = |ever| match (leaving, ever) {
                (true, _) => FAREWELL,
                (false, true) => limits.idle_timeout,
                (false, false) => limits.header_timeout,
            };
            tokio::select! {
                biased;
                result = served.as_mut() => {
                    let found = connection.signals.fault_of(CONNECTION);
                    let found = found.map(|fault| fault.told().reason);
                    if let Some(reason) = found.or(result.err().as_ref().and_then(http2_reason)) {
                        self.refused(connection.peer, reason);
                    }
                    return;
                }
                () = drain.begun(), if !leaving => {
                    leaving = true;
                    served.as_mut().graceful_shutdown();
                }
                () = connection.wear.worn_out(), if !leaving => {
                    leaving = true;
                    activity.touch();
                    served.as_mut().graceful_shutdown();
                }
                () = activity.idle_for(patience) => {
                    if leaving {
                        // Whoever does not answer the farewell is left without.
                        return;
                    }
                    leaving = true;
                    activity.touch();
                    served.as_mut().graceful_shutdown();
                }
            }
        }
    }

    /// Counts and logs what never became a request, or ended all of a connection's.
    fn refused(&self, client: SocketAddr, reason: &'static str) {
        self.figures.client_error(reason);
        if self.figures.may_log() {
            tracing::info!(%client, reason, "a connection was ended");
        }
    }
}

impl Wear {
    /// Waits until an HTTP/2 connection has served enough, or is too old.
    async fn worn_out(&self) {
        match self.end {
            None => self.out.notified().await,
            Some(end) => {
                // Which of both it was does not matter.
                let _ = tokio::time::timeout_at(end, self.out.notified()).await;
            }
        }
    }
}

impl Connection {
    /// Whether the response to the request of this number is the connection's last one. HTTP/1 only.
    pub(crate) fn ends_with(&self, number: u64) -> bool {
        let wear = &self.wear;
        number + 1 >= wear.requests || wear.end.is_some_and(|end| end <= Instant::now())
    }

    /// How many requests have begun.
    pub(crate) fn turns(&self) -> u64 {
        self.activity.turns.get()
    }

    /// A request begins.
    pub(crate) fn enter(&self, stall: Option<Rc<Stall>>) -> Place {
        let number = self.activity.turns.get();
        self.activity.turns.set(number + 1);
        if self.http2 {
            self.signals.begin();
            if number + 1 >= self.wear.requests {
                self.wear.out.notify_one();
            }
        }
        self.activity.busy.set(self.activity.busy.get() + 1);
        Place {
            number,
            stall,
            _busy: Busy(Rc::clone(&self.activity)),
        }
    }
}

/// Lets go of a tunnel that nobody serves: it holds its connection, which holds it.
struct TunnelEnd(Rc<Connection>);

impl Drop for TunnelEnd {
    fn drop(&mut self) {
        let tunnel = self.0.tunnel.take();
        drop(tunnel);
    }
}

/// How many exchanges a connection has had and has under way, and since when it has none.
struct Activity {
    turns: Cell<u64>,
    busy: Cell<usize>,
    since: Cell<Instant>,
}

/// An exchange under way.
struct Busy(Rc<Activity>);

impl Activity {
    fn new() -> Self {
        Activity {
            turns: Cell::new(0),
            busy: Cell::new(0),
            since: Cell::new(Instant::now()),
        }
    }

    fn touch(&self) {
        self.since.set(Instant::from_std(clock::turn()));
    }

    /// Waits until no exchange was under way for so long. The patience may depend on whether there ever was one.
    async fn idle_for(&self, patience: impl Fn(bool) -> Duration) {
        loop {
            let patience = patience(self.turns.get() > 0);
            let until = if self.busy.get() > 0 {
                Instant::now() + patience
            } else {
                self.since.get() + patience
            };
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get().saturating_sub(1));
        self.0.touch();
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

/// What to call it that an HTTP/2 connection was ended, unless it only broke.
fn http2_reason(error: &hyper::Error) -> Option<&'static str> {
    let cause = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
    match cause.reason()? {
        h2::Reason::NO_ERROR | h2::Reason::CANCEL => None,
        h2::Reason::ENHANCE_YOUR_CALM => Some("h2_abuse"),
        _ => Some("h2_protocol"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_protocol_is_known_as_soon_as_it_can_be() {
        for (pieces, http2) in [
            (&["GET / HTTP/1.1\r\n"][..], false),
            (&["P", "UT / HTTP/1.1\r\n"], false),
            (&["PRI * HTTP/2.0\r\n\r\n", "SM\r\n\r\nrest"], true),
            (&["PRI * HTTP/2.0\r\n\r\n", "XX"], false),
            (&["PRI"], false),
        ] {
            let mut builder = tokio_test_io(pieces);
            let (found, read) = detect(&mut builder).await.unwrap();
            assert_eq!(found, http2, "{pieces:?}");
            assert_eq!(read, pieces.concat().into_bytes(), "{pieces:?}");
        }
    }

    /// Gives the pieces one by one, then the end.
    fn tokio_test_io(pieces: &[&'static str]) -> impl AsyncRead + Unpin + use<> {
        pieces.iter().fold(
            Box::new(tokio::io::empty()) as Box<dyn AsyncRead + Unpin>,
            |before, piece| Box::new(before.chain(piece.as_bytes())),
        )
    }
}

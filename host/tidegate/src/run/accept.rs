//! One worker's door: accepts connections, gives each a place, a worker and a TLS handshake, and hands it to the gateway. Knows no request.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tidegate_core::metrics::{Counter, Owner, Registry};
use tidegate_gateway::{CONNECTION_REFUSED, Drain, Worker};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::backoff::{Backoff, is_of_one_connection};
use super::balance::{Balance, Choice, Counted, Handed, Hands};
use super::bounds::{Alive, Bounds, Place, Placed, Refusal};
use super::proxied;
use super::tls;

/// How many refused connections of one worker are told so at a time; more than that are closed without a word.
const MAX_REFUSING: usize = 64;
/// For how long, and how many bytes of theirs are read meanwhile: an answer is lost if bytes meet a closed socket.
const REFUSING: Duration = Duration::from_secs(1);
const REFUSING_BYTES: u64 = 16 * 1024;

/// What a worker's accepted connections need.
pub(crate) struct Door {
    /// Who serves the next connection.
    pub(crate) worker: RefCell<Rc<Worker>>,
    /// Bounds over all workers.
    pub(crate) bounds: Arc<Bounds>,
    /// Who serves what is accepted here.
    pub(crate) balance: Balance<Accepted>,
    /// Tells connections to end.
    pub(crate) drain: Drain,
    /// Held by every connection until it is closed.
    pub(crate) alive: Alive,
    /// What is counted.
    pub(crate) figures: DoorFigures,
    /// How many refused connections are being told so.
    pub(crate) refusing: Cell<usize>,
}

/// A connection on its way to another worker than the one that accepted it.
#[derive(Debug)]
pub(crate) struct Accepted {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    place: Place,
}

/// What a worker counts at its door.
#[derive(Debug)]
pub(crate) struct DoorFigures {
    registry: Arc<Registry>,
    owner: Owner,
    accept_failures: Counter,
    taken_over: Counter,
    handshakes: Counter,
}

impl DoorFigures {
    pub(crate) fn new(registry: Arc<Registry>, worker: usize) -> Self {
        let owner = Owner::Worker(worker);
        let counter = |name, help| registry.counter(owner, name, help, &[]).unwrap_or_default();
        DoorFigures {
            owner,
            accept_failures: counter(
                "tidegate_accept_failures_total",
                "Times that a connection could not be accepted for want of descriptors or memory.",
            ),
            taken_over: counter(
                "tidegate_connections_handed_over_total",
                "Connections that were accepted by one worker and are served by a less busy one.",
            ),
            handshakes: counter(
                "tidegate_tls_handshakes_total",
                "TLS handshakes that succeeded.",
            ),
            registry,
        }
    }

    fn refused(&self, refusal: Refusal) {
        let help = "Client connections that were refused because a bound was met, by bound.";
        let labels = [("reason", refusal.reason())];
        let name = "tidegate_connections_refused_total";
        if let Ok(counter) = self.registry.counter(self.owner, name, help, &labels) {
            counter.increment();
        }
    }

    fn handshake_failed(&self, reason: &str) {
        let help = "TLS handshakes that failed, by reason.";
        self.failed("tidegate_tls_handshake_failures_total", help, reason);
    }

    fn proxy_head_failed(&self, reason: &str) {
        let help = "Connections of balancers that were closed for their head of the PROXY protocol, by reason.";
        self.failed("tidegate_proxy_protocol_failures_total", help, reason);
    }

    fn failed(&self, name: &str, help: &str, reason: &str) {
        let labels = [("reason", reason)];
        if let Ok(counter) = self.registry.counter(self.owner, name, help, &labels) {
            counter.increment();
        }
    }
}

impl Door {
    /// Accepts from a socket until the task is aborted or the worker ends.
    pub(crate) fn open(
        self: &Rc<Self>,
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
    ) -> JoinHandle<()> {
        let door = Rc::clone(self);
        tokio::task::spawn_local(door.accept(listener, tls))
    }

    async fn accept(self: Rc<Self>, listener: TcpListener, tls: Option<Arc<ServerConfig>>) {
        let mut backoff = Backoff::default();
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    backoff.succeeded();
                    self.admit(stream, peer, tls.as_ref());
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.figures.accept_failures.increment();
                    if let Some(times) = self.bounds.told.failed(Instant::now()) {
                        tracing::error!(
                            %error,
                            times,
                            "connections can't be accepted; raise the limit of open files (`ulimit -n`) or lower `max-connections`"
                        );
                    }
                    tokio::time::sleep(backoff.failed()).await;
                }
            }
        }
    }

    /// Starts to serve, if there is a place, or has another worker do so.
    fn admit(
        self: &Rc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        tls: Option<&Arc<ServerConfig>>,
    ) {
        // Whole answers are written at once; nothing is gained by waiting for more. A peer that is gone again has
        // no options to set, and is found out by whoever reads from it.
        let _ = stream.set_nodelay(true);
        let place = match self.bounds.place(peer.ip()) {
            Ok(place) => place,
            Err(refusal) => return self.refuse(stream, peer, refusal, tls.is_none()),
        };
        match self.balance.choose() {
            Choice::Keep(counted) => {
                let stream = Placed::new(stream, place, Some(counted), self.alive.clone());
                self.serve(stream, peer, tls);
            }
            Choice::Give(recipient) => {
                // It leaves this worker's poll. That fails only for what is no socket of this worker's.
                let Ok(stream) = stream.into_std() else {
                    return;
                };
                let accepted = Accepted {
                    stream,
                    peer,
                    tls: tls.cloned(),
                    place,
                };
                if let Err(back) = recipient.give(accepted) {
                    self.take_over(back, self.balance.keep());
                }
            }
        }
    }

    /// Serves what other workers hand over until it is told to stop, and then what is under way to this one.
    pub(crate) async fn receive(
        self: Rc<Self>,
        mut hands: Hands<Accepted>,
        mut stop: oneshot::Receiver<Infallible>,
    ) {
        let mut open = true;
        loop {
            tokio::select! {
                handed = hands.recv() => match handed {
                    Some(Handed { what, counted }) => {
                        self.figures.taken_over.increment();
                        self.take_over(what, counted);
                    }
                    None => return,
                },
                _ = &mut stop, if open => {
                    open = false;
                    hands.close();
                }
            }
        }
    }

    fn take_over(self: &Rc<Self>, accepted: Accepted, counted: Counted) {
        let Accepted {
            stream,
            peer,
            tls,
            place,
        } = accepted;
        match TcpStream::from_std(stream) {
            Ok(stream) => {
                let stream = Placed::new(stream, place, Some(counted), self.alive.clone());
                self.serve(stream, peer, tls.as_ref());
            }
            Err(error) => {
                tracing::error!(%error, "a connection that another worker accepted can't be served");
            }
        }
    }

    fn serve(
        self: &Rc<Self>,
        stream: Placed<TcpStream>,
        peer: SocketAddr,
        tls: Option<&Arc<ServerConfig>>,
    ) {
        if self.bounds.is_proxied(peer.ip()) {
            let (door, tls) = (Rc::clone(self), tls.cloned());
            tokio::task::spawn_local(door.serve_proxied(stream, peer, tls));
        } else {
            self.serve_client(stream, peer, tls);
        }
    }

    /// Serves what a balancer passes on, once it has said for whom.
    async fn serve_proxied(
        self: Rc<Self>,
        mut stream: Placed<TcpStream>,
        peer: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
    ) {
        let mut draining = self.drain.clone();
        let head = tokio::time::timeout(self.bounds.handshake(), proxied::read(&mut stream));
        let head = tokio::select! {
            head = head => head,
            () = draining.begun() => return,
        };
        match head {
            Ok(Ok(None)) => self.serve_client(stream, peer, tls.as_ref()),
            Ok(Ok(Some(client))) => match stream.count_for(client.ip()) {
                Ok(()) => self.serve_client(stream, client, tls.as_ref()),
                Err(refusal) => self.refuse(stream, client, refusal, tls.is_none()),
            },
            Ok(Err(error)) => {
                tracing::debug!(%peer, "a balancer's connection is closed: {error}");
                self.figures.proxy_head_failed(error.reason());
            }
            Err(_) => self.figures.proxy_head_failed("timeout"),
        }
    }

    fn serve_client(
        self: &Rc<Self>,
        stream: Placed<TcpStream>,
        peer: SocketAddr,
        tls: Option<&Arc<ServerConfig>>,
    ) {
        let worker = Rc::clone(&self.worker.borrow());
        let drain = self.drain.clone();
        let Some(tls) = tls else {
            tokio::task::spawn_local(worker.serve_stream(stream, peer, None, drain));
            return;
        };
        let door = Rc::clone(self);
        let acceptor = TlsAcceptor::from(Arc::clone(tls));
        // The time runs from here, whatever the client does first.
        let handshake = tokio::time::timeout(self.bounds.handshake(), acceptor.accept(stream));
        tokio::task::spawn_local(async move {
            let mut draining = door.drain.clone();
            let done = tokio::select! {
                done = handshake => done,
                () = draining.begun() => return,
            };
            match done {
                Ok(Ok(stream)) => {
                    door.figures.handshakes.increment();
                    let facts = Arc::new(tls::facts(stream.get_ref().1));
                    worker
                        .serve_connection(stream, peer, Some(facts), drain)
                        .await;
                }
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "a TLS handshake failed");
                    door.figures.handshake_failed(tls::failure(&error));
                }
                Err(_) => door.figures.handshake_failed("timeout"),
            }
        });
    }

    /// Sends a connection away: with a word where HTTP is spoken in the clear.
    fn refuse(
        self: &Rc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        peer: SocketAddr,
        refusal: Refusal,
        plain: bool,
    ) {
        self.figures.refused(refusal);
        let [of_all, of_source] = &self.bounds.told_refused;
        let told = match refusal {
            Refusal::Connections => of_all,
            Refusal::Source => of_source,
        };
        if let Some(times) = told.failed(Instant::now()) {
            let setting = refusal.setting();
            tracing::warn!(
                client = %peer, setting, times,
                "connections are refused: as many are open as `{setting}` in [server.limits] allows"
            );
        }
        if plain && self.refusing.get() < MAX_REFUSING {
            self.refusing.set(self.refusing.get() + 1);
            let door = Rc::clone(self);
            tokio::task::spawn_local(async move {
                // Who does not take it in time is left without.
                let _ = tokio::time::timeout(REFUSING, tell_refused(stream)).await;
                door.refusing.set(door.refusing.get().saturating_sub(1));
            });
        }
    }
}

async fn tell_refused(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    stream.write_all(CONNECTION_REFUSED).await?;
    stream.shutdown().await?;
    let mut rest = stream.take(REFUSING_BYTES);
    let mut scratch = [0; 1024];
    while rest.read(&mut scratch).await? > 0 {}
    Ok(())
}

//! One worker's door: accepts connections, gives each a place, a worker and a TLS handshake, and hands it to the gateway. Knows no request.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustls::ServerConfig;
use tidegate_core::metrics::{Counter, Owner, Registry};
use tidegate_gateway::{Drain, Worker};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::backoff::{Backoff, is_of_one_connection};
use super::balance::{Balance, Choice, Counted, Handed, Hands};
use super::bounds::{Alive, Bounds, Place, Placed};
use super::tls;

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

    fn handshake_failed(&self, reason: &str) {
        let help = "TLS handshakes that failed, by reason.";
        let labels = [("reason", reason)];
        if let Ok(counter) = self.registry.counter(
            self.owner,
            "tidegate_tls_handshake_failures_total",
            help,
            &labels,
        ) {
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
                    self.admit(stream, peer, tls.as_ref()).await;
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

    /// Waits for a place, so that no more are accepted than there are places, and starts to serve, or has another worker
    /// do so.
    async fn admit(
        self: &Rc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        tls: Option<&Arc<ServerConfig>>,
    ) {
        // Whole answers are written at once; nothing is gained by waiting for more. A peer that is gone again has
        // no options to set, and is found out by whoever reads from it.
        let _ = stream.set_nodelay(true);
        let Some(place) = self.bounds.place().await else {
            return;
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
}

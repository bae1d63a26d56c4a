//! Bounds on connections that hold over all workers, and a stream that counts against them for as long as it is open,
//! whoever holds it last. Knows no protocol.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use ipnet::IpNet;
use tidegate_core::metrics::{Gauge, Registry};
use tidegate_gateway::ClientStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::backoff::Told;
use super::balance::Counted;
use super::start::lock;
use crate::config::checked::Server;

/// What holds for connections of all workers. Can be changed while they run.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// How many there may be, and are.
    connections: AtomicUsize,
    open: AtomicUsize,
    of_sources: RwLock<OfSources>,
    /// How many each source has. A source without any is not there.
    sources: Mutex<HashMap<IpAddr, usize>>,
    handshake_millis: AtomicU64,
    most: OnceLock<Gauge>,
    /// What was told of connections that could not be accepted.
    pub(crate) told: Told,
    /// The same for those that were refused, by what refused them.
    pub(crate) told_refused: [Told; 2],
}

/// How many connections one source may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OfSources {
    /// As it is written; none: three quarters of all.
    pub(crate) most: Option<usize>,
    /// Who has any number: those that speak for many.
    pub(crate) exempt: Vec<IpNet>,
    /// Who says for whom they speak, in a head of the PROXY protocol.
    pub(crate) proxied: Vec<IpNet>,
}

/// Which bound a connection met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// That of all connections.
    Connections,
    /// That of its source.
    Source,
}

/// Somebody who waits for this to be gone from everywhere.
pub(crate) type Alive = mpsc::Sender<Infallible>;

/// A stream that has a place among the open connections.
#[derive(Debug)]
pub(crate) struct Placed<IO> {
    io: IO,
    place: Place,
    _counted: Option<Counted>,
    _alive: Alive,
}

/// A place among the open connections.
#[derive(Debug)]
pub(crate) struct Place {
    bounds: Arc<Bounds>,
    /// Whose number it counts in.
    source: Option<IpAddr>,
}

impl OfSources {
    /// What a configuration says.
    pub(crate) fn of(server: &Server) -> Self {
        OfSources {
            most: server.limits.max_connections_per_source,
            exempt: server.trusted_proxies.clone(),
            proxied: server.proxy_protocol.clone(),
        }
    }

    /// How many a peer's source may have; none: any number.
    fn most_of(&self, peer: IpAddr, connections: usize) -> Option<usize> {
        if self.exempt.iter().any(|network| network.contains(&peer)) {
            return None;
        }
        match self.most {
            Some(most) => Some(most),
            // Programs of this machine speak for others more often than not.
            None if peer.is_loopback() => None,
            None => Some((connections - connections / 4).max(1)),
        }
    }
}

impl Refusal {
    /// The setting that is to be raised if the bound is too low.
    pub(crate) fn setting(self) -> &'static str {
        match self {
            Refusal::Connections => "max-connections",
            Refusal::Source => "max-connections-per-source",
        }
    }

    /// For figures.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Refusal::Connections => "max_connections",
            Refusal::Source => "max_connections_per_source",
        }
    }
}

impl Bounds {
    /// So many connections at a time, and so much time for a TLS handshake.
    pub(crate) fn new(connections: usize, handshake: Duration) -> Self {
        Bounds {
            connections: AtomicUsize::new(connections),
            open: AtomicUsize::new(0),
            of_sources: RwLock::default(),
            sources: Mutex::default(),
            handshake_millis: AtomicU64::new(millis(handshake)),
            most: OnceLock::new(),
            told: Told::default(),
            told_refused: Default::default(),
        }
    }

    /// Shows the bound among the figures.
    pub(crate) fn export(&self, registry: &Registry) {
        let help = "Client connections that may be open at the same time (`max-connections`).";
        if let Ok(gauge) = registry.gauge("tidegate_connections_max", help, &[]) {
            self.most.get_or_init(|| gauge);
        }
        self.show();
    }

    fn show(&self) {
        if let Some(gauge) = self.most.get() {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            gauge.set(self.connections.load(Ordering::Relaxed) as f64);
        }
    }

    /// Gives handshakes that begin from now on so much time.
    pub(crate) fn change_handshake(&self, handshake: Duration) {
        self.handshake_millis
            .store(millis(handshake), Ordering::Relaxed);
    }

    /// Allows so many connections. Those over a lower bound stay, and no new ones come until enough have ended.
    pub(crate) fn change_connections(&self, connections: usize) {
        self.connections.store(connections, Ordering::Relaxed);
        self.show();
    }

    /// Allows each source so many, likewise.
    pub(crate) fn change_sources(&self, bound: OfSources) {
        *self
            .of_sources
            .write()
            .unwrap_or_else(PoisonError::into_inner) = bound;
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How long a TLS handshake may take.
    pub(crate) fn handshake(&self) -> Duration {
        Duration::from_millis(self.handshake_millis.load(Ordering::Relaxed))
    }

    /// A place among the open connections for a peer.
    ///
    /// # Errors
    /// There is none: the bound that is met.
    pub(crate) fn place(self: &Arc<Self>, peer: IpAddr) -> Result<Place, Refusal> {
        let most = self.connections.load(Ordering::Relaxed);
        let mut place = Place {
            bounds: Arc::clone(self),
            source: None,
        };
        if self.open.fetch_add(1, Ordering::Relaxed) >= most {
            return Err(Refusal::Connections);
        }
        // Whoever speaks for others is counted when it has said for whom.
        if !self.is_proxied(peer) {
            place.count(peer)?;
        }
        Ok(place)
    }

    /// Whether a peer's connections begin with a head of the PROXY protocol.
    pub(crate) fn is_proxied(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let of_sources = self.of_sources();
        of_sources
            .proxied
            .iter()
            .any(|network| network.contains(&peer))
    }

    fn of_sources(&self) -> RwLockReadGuard<'_, OfSources> {
        self.of_sources
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Counts it among the connections of a source too.
    ///
    /// # Errors
    /// That has as many as it may.
    fn count(&mut self, peer: IpAddr) -> Result<(), Refusal> {
        let peer = peer.to_canonical();
        let most = self.bounds.connections.load(Ordering::Relaxed);
        let Some(most) = self.bounds.of_sources().most_of(peer, most) else {
            return Ok(());
        };
        let source = source(peer);
        let mut sources = lock(&self.bounds.sources);
        let count = sources.entry(source).or_default();
        if *count >= most {
            return Err(Refusal::Source);
        }
        *count += 1;
        self.source = Some(source);
        Ok(())
    }
}

impl<IO> Placed<IO> {
    /// Counts it among the connections of the client for whom a balancer passes it on.
    ///
    /// # Errors
    /// That one has as many as it may.
    pub(crate) fn count_for(&mut self, client: IpAddr) -> Result<(), Refusal> {
        self.place.count(client)
    }

    /// A stream that has a place, and may be counted against a worker.
    pub(crate) fn new(io: IO, place: Place, counted: Option<Counted>, alive: Alive) -> Self {
        Placed {
            io,
            place,
            _counted: counted,
            _alive: alive,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.bounds.open.fetch_sub(1, Ordering::Relaxed);
        let Some(source) = self.source else { return };
        let mut sources = lock(&self.bounds.sources);
        if let Some(count) = sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&source);
            }
        }
    }
}

/// Whose connection it is: an address, or for IPv6 the /64 that one customer has.
fn source(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl<IO: AsyncRead + Unpin> AsyncRead for Placed<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Placed<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl ClientStream for Placed<TcpStream> {
    fn reset_on_close(&self) {
        // A socket that is closed already needs none.
        let _ = self.io.set_zero_linger();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Which peers find a place, in their order, each staying.
    fn places(bounds: &Arc<Bounds>, peers: &[&str]) -> (Vec<Place>, Vec<Option<Refusal>>) {
        let mut placed = Vec::new();
        let mut refused = Vec::new();
        for text in peers {
            match bounds.place(peer(text)) {
                Ok(place) => {
                    placed.push(place);
                    refused.push(None);
                }
                Err(refusal) => refused.push(Some(refusal)),
            }
        }
        (placed, refused)
    }

    #[test]
    fn a_connection_over_the_bound_is_refused_until_one_ends() {
        let bounds = Arc::new(Bounds::new(2, Duration::from_secs(1)));
        let (mut placed, refused) = places(&bounds, &["127.0.0.1"; 3]);
        assert_eq!(refused, [None, None, Some(Refusal::Connections)]);
        // A refusal takes no place.
        placed.pop();
        let (_one, refused) = places(&bounds, &["127.0.0.1"; 2]);
        assert_eq!(refused, [None, Some(Refusal::Connections)]);
    }

    #[test]
    fn a_lower_bound_is_reached_as_connections_end() {
        let bounds = Arc::new(Bounds::new(3, Duration::from_secs(1)));
        let (mut placed, _) = places(&bounds, &["127.0.0.1"; 3]);
        bounds.change_connections(1);
        bounds.change_handshake(Duration::from_secs(2));
        assert_eq!(bounds.handshake(), Duration::from_secs(2));
        placed.truncate(1);
        let (_none, refused) = places(&bounds, &["127.0.0.1"]);
        assert_eq!(refused, [Some(Refusal::Connections)]);
        placed.clear();
        let (_one, refused) = places(&bounds, &["127.0.0.1"]);
        assert_eq!(refused, [None]);
    }

    #[test]
    fn a_source_is_an_address_or_a_network_of_version_6() {
        let bounds = Arc::new(Bounds::new(100, Duration::from_secs(1)));
        bounds.change_sources(OfSources {
            most: Some(1),
            exempt: vec!["10.0.0.0/8".parse().unwrap()],
            proxied: Vec::new(),
        });
        let (placed, refused) = places(
            &bounds,
            &[
                "192.0.2.1",
                "192.0.2.1",
                "192.0.2.2",
                "::ffff:192.0.2.2",
                "2001:db8::1",
                "2001:db8::ffff:1",
                "2001:db8:0:1::1",
                "127.0.0.1",
                "127.0.0.1",
                "10.1.1.1",
                "10.1.1.1",
            ],
        );
        let source = Some(Refusal::Source);
        assert_eq!(
            refused,
            [
                None, source, None, source, None, source, None, None, source, None, None
            ]
        );
        // Nothing is left of those that are gone.
        drop(placed);
        assert!(lock(&bounds.sources).is_empty());
        assert_eq!(bounds.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn without_a_bound_no_stranger_takes_the_last_quarter() {
        let bounds = Arc::new(Bounds::new(8, Duration::from_secs(1)));
        let (_placed, refused) = places(&bounds, &["192.0.2.1"; 7]);
        assert_eq!(refused.iter().flatten().count(), 1);
        let (_placed, refused) = places(&bounds, &["127.0.0.1"; 3]);
        assert_eq!(refused, [None, None, Some(Refusal::Connections)]);
    }
}

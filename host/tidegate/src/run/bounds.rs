//! Bounds on connections that hold over all workers, and a stream that counts against them for as long as it is open,
//! whoever holds it last. Knows no protocol.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_gateway::ClientStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::backoff::Told;
use super::balance::Counted;

/// What holds for connections of all workers. Can be changed while they run.
#[derive(Debug)]
pub(crate) struct Bounds {
    room: Arc<Semaphore>,
    connections: AtomicUsize,
    handshake_millis: AtomicU64,
    /// What was told of connections that could not be accepted.
    pub(crate) told: Told,
}

/// Somebody who waits for this to be gone from everywhere.
pub(crate) type Alive = mpsc::Sender<Infallible>;

/// A stream that has a place among the open connections.
#[derive(Debug)]
pub(crate) struct Placed<IO> {
    io: IO,
    _place: Place,
    _counted: Option<Counted>,
    _alive: Alive,
}

/// A place among the open connections.
#[derive(Debug)]
pub(crate) struct Place(
    #[expect(dead_code, reason = "held, and given back when dropped")] OwnedSemaphorePermit,
);

impl Bounds {
    /// So many connections at a time, and so much time for a TLS handshake.
    pub(crate) fn new(connections: usize, handshake: Duration) -> Self {
        let connections = connections.min(Semaphore::MAX_PERMITS);
        Bounds {
            room: Arc::new(Semaphore::new(connections)),
            connections: AtomicUsize::new(connections),
            handshake_millis: AtomicU64::new(millis(handshake)),
            told: Told::default(),
        }
    }

    /// Gives handshakes that begin from now on so much time.
    pub(crate) fn change_handshake(&self, handshake: Duration) {
        self.handshake_millis
            .store(millis(handshake), Ordering::Relaxed);
    }

    /// Allows so many connections. Those over a lower bound stay, and no new ones come until enough have ended.
    pub(crate) fn change_connections(&self, connections: usize) {
        let connections = connections.min(Semaphore::MAX_PERMITS);
        let before = self.connections.swap(connections, Ordering::Relaxed);
        if connections >= before {
            self.room.add_permits(connections - before);
            return;
        }
        let excess = before - connections;
        let missing = excess - self.room.forget_permits(excess);
        if missing > 0 {
            // They are taken as they are given back.
            let room = Arc::clone(&self.room);
            let missing = u32::try_from(missing).unwrap_or(u32::MAX);
            tokio::task::spawn_local(async move {
                if let Ok(permits) = room.acquire_many_owned(missing).await {
                    permits.forget();
                }
            });
        }
    }

    /// How long a TLS handshake may take.
    pub(crate) fn handshake(&self) -> Duration {
        Duration::from_millis(self.handshake_millis.load(Ordering::Relaxed))
    }

    /// A place among the open connections, once there is one.
    pub(crate) async fn place(&self) -> Option<Place> {
        let place = Arc::clone(&self.room).acquire_owned().await;
        place.ok().map(Place)
    }
}

impl<IO> Placed<IO> {
    /// A stream that has a place, and may be counted against a worker.
    pub(crate) fn new(io: IO, place: Place, counted: Option<Counted>, alive: Alive) -> Self {
        Placed {
            io,
            _place: place,
            _counted: counted,
            _alive: alive,
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
    use tokio::runtime::{Builder, LocalOptions};

    fn in_runtime(test: impl Future<Output = ()>) {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn a_connection_over_the_bound_waits_for_one_to_end() {
        in_runtime(async {
            let bounds = Bounds::new(1, Duration::from_secs(1));
            let first = bounds.place().await.unwrap();
            let mut second = std::pin::pin!(bounds.place());
            let early = tokio::select! {
                biased;
                _ = second.as_mut() => true,
                () = tokio::task::yield_now() => false,
            };
            assert!(!early);
            drop(first);
            second.await.unwrap();
        });
    }

    #[test]
    fn a_lower_bound_is_reached_as_connections_end() {
        in_runtime(async {
            let bounds = Bounds::new(3, Duration::from_secs(1));
            let (alive, mut gone) = mpsc::channel(1);
            let mut held = Vec::new();
            for _ in 0..3 {
                let place = bounds.place().await.unwrap();
                held.push(Placed::new((), place, None, alive.clone()));
            }
            bounds.change_connections(1);
            bounds.change_handshake(Duration::from_secs(2));
            assert_eq!(bounds.handshake(), Duration::from_secs(2));
            held.truncate(1);
            tokio::task::yield_now().await;
            assert_eq!(bounds.room.available_permits(), 0);
            held.clear();
            tokio::task::yield_now().await;
            assert_eq!(bounds.room.available_permits(), 1);
            bounds.change_connections(5);
            assert_eq!(bounds.room.available_permits(), 5);
            // Whoever waits for the last one is told.
            drop(alive);
            assert!(gone.recv().await.is_none());
        });
    }
}

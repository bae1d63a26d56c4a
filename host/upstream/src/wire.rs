//! A connection's bytes, watched: whether anything came, and how it ended. Knows nothing of what they mean.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::metrics::OpenConnection;

/// What is known of a connection. Atomic because hyper wants what it reads from to be `Send`; only one thread has it.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    reads: AtomicU64,
    broken: AtomicBool,
}

impl Watch {
    /// How often bytes have come.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Whether the other side takes nothing any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

/// A socket, with TLS or without.
///
/// An HTTP/1.1 upstream may answer before it has read the whole request, then close. What it said is still there
/// to be read when writing fails, so a failure to write is not shown while reading may bring something: writing just
/// makes no progress. The reading side learns of the end in the same moment.
#[derive(Debug)]
pub(crate) struct Wire<T> {
    io: T,
    watch: Arc<Watch>,
    /// Whether a failure to write is held back.
    patient: bool,
    read_ended: bool,
    /// Counts it for as long as it is open.
    _open: OpenConnection,
}

impl<T> Wire<T> {
    pub(crate) fn new(io: T, patient: bool, open: OpenConnection) -> Self {
        Wire {
            io,
            watch: Arc::default(),
            patient,
            read_ended: false,
            _open: open,
        }
    }

    pub(crate) fn watch(&self) -> Arc<Watch> {
        self.watch.clone()
    }

    /// Whether writing makes no progress because it has failed before.
    fn holds(&self) -> bool {
        self.patient && !self.read_ended && self.watch.is_broken()
    }

    fn written<R>(&mut self, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if let Poll::Ready(Err(_)) = &result {
            self.watch.broken.store(true, Ordering::Relaxed);
            if self.holds() {
                return Poll::Pending;
            }
        }
        result
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        if result.is_ok() && buf.filled().len() > before {
            self.watch.reads.fetch_add(1, Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() > 0 || result.is_err() {
            self.read_ended = true;
            // The error of a reset is told once. If writing was told, reading sees a clean end that is none.
            if result.is_ok() && self.patient && self.watch.is_broken() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
        Poll::Ready(result)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.holds() {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.holds() {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.holds() {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.written(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.watch.is_broken() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use crate::metrics::Figures;

    /// A socket whose other side said some words and then took nothing any more; the system tells of the reset when
    /// something is written, and never again.
    struct Reset(VecDeque<&'static [u8]>);

    impl AsyncRead for Reset {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buf.put_slice(self.0.pop_front().unwrap_or_default());
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Reset {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn wire(patient: bool) -> Wire<Reset> {
        let figures = Figures::new(Arc::default(), 0, "u".into());
        Wire::new(Reset([&b"word"[..]].into()), patient, figures.opened())
    }

    #[tokio::test]
    async fn what_was_said_before_a_reset_is_read_and_its_end_is_no_clean_one() {
        let mut wire = wire(true);
        tokio::select! {
            biased;
            written = wire.write(b"x") => panic!("{written:?}"),
            () = std::future::ready(()) => {}
        }
        assert!(wire.watch().is_broken());
        let mut word = [0; 4];
        wire.read_exact(&mut word).await.unwrap();
        assert_eq!((&word, wire.watch().reads()), (b"word", 1));
        let end = wire.read(&mut word).await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
        // Now there is nothing to wait for.
        wire.write(b"x").await.unwrap_err();
    }

    #[tokio::test]
    async fn a_connection_that_many_share_fails_at_once() {
        wire(false).write(b"x").await.unwrap_err();
    }
}

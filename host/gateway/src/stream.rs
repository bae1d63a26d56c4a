//! A client's connection as the gateway is given it, and how its end is softened. Knows no protocol.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::timer::Timer;

/// How many bytes are still read behind the last answer, and for how long, before the connection is closed: an answer that a
/// client has not read yet is lost if bytes of its own meet a closed socket (RFC 9112 section 9.6).
const LINGER_BYTES: usize = 1024 * 1024;
const LINGER: Duration = Duration::from_secs(2);

/// A connection that is closed for us, and read on for a while.
pub(crate) struct Linger {
    left: usize,
    until: Instant,
}

impl Linger {
    /// It begins now.
    pub(crate) fn new() -> Self {
        Linger {
            left: LINGER_BYTES,
            until: Instant::now() + LINGER,
        }
    }

    /// Reads, and throws it away. Ready when the client has nothing more to say, or has said enough.
    pub(crate) fn poll(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        timer: &mut Timer,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let mut scratch = [0; 8 * 1024];
        while self.left > 0 {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    self.left = self.left.saturating_sub(buf.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return timer.poll_until(self.until, cx),
            }
        }
        Poll::Ready(())
    }
}

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

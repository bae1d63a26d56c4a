//! A connection's bytes while an exchange is under way: the request goes out as the socket takes it, the response comes in,
//! and an answer that comes before the request is sent whole is not lost. Knows no time and no pool.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body::Body as _;
use tidegate_core::body::{Body, BodyError};
use tidegate_core::http1::framing::{Framing, Piece};
use tidegate_core::http1::outgoing::{Frames, Outgoing};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::encode;
use super::parse::{self, Head, Invalid};
use crate::error::Failure;
use crate::metrics::OpenConnection;
use crate::upstream::HeadBounds;
use crate::{Interim, Upgraded};

/// Room for one read: a head with a small body.
const READ: usize = 16 * 1024;
/// Room for one read of a large body.
const READ_MORE: usize = 64 * 1024;
/// How much of a request is gathered before it is written.
const GATHER: usize = 16 * 1024;

/// A socket, with TLS or without.
#[derive(Debug)]
pub(crate) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection's bytes.
#[derive(Debug)]
pub(crate) struct Flow {
    io: Io,
    read: BytesMut,
    /// How much of it can't hold the end of a head.
    searched: usize,
    out: Outgoing,
    flushed: bool,
    /// The request's body, while it goes out.
    body: Option<Body>,
    frames: Frames,
    /// The body as it was, if it is at hand.
    kept: Option<Body>,
    /// Whether the other side takes nothing any more.
    deaf: bool,
    /// Whether anything of this exchange was written, or read.
    spoke: bool,
    heard: bool,
    /// Why the request's body ended before its end.
    failed: Option<BodyError>,
    /// Who reads the response while somebody else sends the request.
    reader: Option<Waker>,
}

/// How an exchange ended without a response's head.
#[derive(Debug)]
pub(super) enum Ended {
    /// The request's body broke off.
    Body(BodyError),
    /// What came is no response.
    Invalid(Invalid),
    /// The connection ended.
    Io(String),
}

/// How far the request is.
#[derive(Debug)]
pub(crate) enum Pushed {
    /// All is written that can be.
    Done,
    /// Its body broke off: the upstream must not take it for whole.
    Broken,
}

/// A part of a response's body.
#[derive(Debug)]
pub(crate) enum Frame {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Flow {
    pub(super) fn new(io: Io) -> Self {
        Flow {
            io,
            read: BytesMut::new(),
            searched: 0,
            out: Outgoing::default(),
            flushed: true,
            body: None,
            frames: Frames::Length(0),
            kept: None,
            deaf: false,
            spoke: false,
            heard: false,
            failed: None,
            reader: None,
        }
    }

    // --- Between exchanges ---

    /// Whether nothing came, and the connection has not ended. Costs no system call as long as nothing has happened.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        !self.deaf
            && self.read.is_empty()
            && Pin::new(&mut self.io)
                .poll_read(&mut cx, &mut buffer)
                .is_pending()
    }

    /// Whether the exchange has left nothing behind.
    pub(super) fn is_done(&self) -> bool {
        !self.is_sending() && !self.deaf && self.read.is_empty() && self.failed.is_none()
    }

    /// Gives memory back that a connection at rest does not need.
    pub(crate) fn trim(&mut self) {
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
        if self.out.is_empty() {
            self.out.clear();
        }
    }

    // --- The request ---

    /// Takes a request to be sent; its head stays as it is.
    ///
    /// # Errors
    /// Its fields contradict its body.
    pub(super) fn begin(&mut self, request: &mut Request<Body>) -> Result<(), Failure> {
        self.frames = encode::head(&mut self.out, request)?;
        let body = std::mem::take(request.body_mut());
        self.kept = match &body {
            Body::Empty => Some(Body::Empty),
            Body::Full(bytes) => Some(Body::Full(bytes.clone())),
            Body::Stream(_) => None,
        };
        self.body = (!body.is_end_stream()).then_some(body);
        self.failed = None;
        (self.spoke, self.heard, self.flushed) = (false, false, false);
        self.searched = 0;
        Ok(())
    }

    /// Puts the body back into a request that brought no response. Says whether it is as it was.
    pub(super) fn restore(&mut self, request: &mut Request<Body>) -> bool {
        let body = match (self.kept.take(), self.body.take()) {
            (Some(kept), _) => kept,
            // Nobody has read from a body that waits.
            (None, Some(body)) if !self.spoke => body,
            (None, _) => return false,
        };
        *request.body_mut() = body;
        true
    }

    /// Whether no byte of the request left.
    pub(super) fn is_unsent(&self) -> bool {
        !self.spoke && !self.heard
    }

    /// Whether no byte came back.
    pub(super) fn is_silent(&self) -> bool {
        !self.heard
    }

    /// Whether a part of the request is still to go out.
    pub(crate) fn is_sending(&self) -> bool {
        self.body.is_some() || !self.out.is_empty() || !self.flushed
    }

    /// Sends what can be sent. Ready when there is nothing more to do.
    pub(crate) fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<Pushed> {
        if !self.is_sending() {
            return Poll::Ready(Pushed::Done);
        }
        loop {
            if let Err(error) = self.gather(cx) {
                self.failed = Some(error);
                self.body = None;
                if let Some(reader) = self.reader.take() {
                    reader.wake();
                }
                return Poll::Ready(Pushed::Broken);
            }
            match self.poll_write(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) if self.body.is_some() => return Poll::Pending,
                Poll::Ready(Ok(false)) => return Poll::Ready(Pushed::Done),
                Poll::Ready(Err(_)) => {
                    // What the upstream said before is still there to be read: the end shows there.
                    self.deaf = true;
                    self.flushed = true;
                    self.out.clear();
                    self.body = None;
                    return Poll::Ready(Pushed::Done);
                }
            }
        }
    }

    /// Puts what there is of the body behind what is to be written.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let broken = |detail: &'static str| BodyError::Broken(detail.to_owned());
        while let Some(body) = &mut self.body {
            if !self.out.takes_more(GATHER) {
                return Ok(());
            }
            let frame = match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(frame) => frame.transpose()?,
            };
            match frame.map(http_body::Frame::into_data) {
                Some(Ok(data)) => {
                    self.out.piece(&mut self.frames, data).map_err(broken)?;
                    if self.body.as_ref().is_some_and(Body::is_end_stream) {
                        self.body = None;
                        self.out.end(self.frames, None).map_err(broken)?;
                    }
                }
                Some(Err(frame)) => {
                    let trailers = frame.into_trailers().ok();
                    self.body = None;
                    self.out
                        .end(self.frames, trailers.as_ref())
                        .map_err(broken)?;
                }
                None => {
                    self.body = None;
                    self.out.end(self.frames, None).map_err(broken)?;
                }
            }
        }
        Ok(())
    }

    /// Writes, and says whether anything was there to be written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let worked = !self.out.is_empty();
        while !self.out.is_empty() {
            let [before, data, after] = self.out.slices();
            let io = Pin::new(&mut self.io);
            let written = if data.is_empty() && after.is_empty() {
                ready!(io.poll_write(cx, before))?
            } else {
                let slices = [before, data, after].map(IoSlice::new);
                ready!(io.poll_write_vectored(cx, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.spoke = true;
            self.flushed = false;
            self.out.advance(written);
        }
        if !self.flushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(worked))
    }

    // --- The response ---

    /// Sends the request, and waits for the head of the final response.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        interim: Option<&dyn Interim>,
        bounds: HeadBounds,
    ) -> Poll<Result<Head, Ended>> {
        let _ = self.poll_push(cx);
        if let Some(error) = &self.failed {
            return Poll::Ready(Err(Ended::Body(error.clone())));
        }
        loop {
            while let Some(head) = self.take_head(bounds).transpose() {
                match head {
                    Err(detail) => return Poll::Ready(Err(Ended::Invalid(detail))),
                    Ok(head) if head.is_interim() => {
                        if let Some(interim) = interim {
                            interim.came(head.status, &head.fields);
                        }
                    }
                    Ok(head) => return Poll::Ready(Ok(head)),
                }
            }
            match ready!(self.poll_fill(cx, READ)) {
                Ok(0) if self.deaf => {
                    return Poll::Ready(Err(Ended::Io("connection reset".to_owned())));
                }
                Ok(0) => {
                    return Poll::Ready(Err(Ended::Io("connection closed".to_owned())));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(Ended::Io(error.to_string()))),
            }
        }
    }

    /// A head, if one has come whole.
    fn take_head(&mut self, bounds: HeadBounds) -> Result<Option<Head>, Invalid> {
        let most = bounds.bytes as usize;
        if let Some(end) = parse::end_of_head(&self.read, self.searched) {
            if end > most {
                return Err("the head is too long");
            }
            self.searched = 0;
            let bytes = self.read.split_to(end).freeze();
            return parse::head(&bytes, bounds.fields).map(Some);
        }
        if self.searched == 0 {
            // What is no HTTP is not waited for.
            parse::begins(&self.read, bounds.fields)?;
        }
        self.searched = self.read.len();
        if self.read.len() >= most {
            return Err("the head is too long");
        }
        Ok(None)
    }

    /// The next part of the response's body; none at its end.
    pub(crate) fn poll_frame(
        &mut self,
        framing: &mut Framing,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, String>>> {
        loop {
            if self.failed.is_some() {
                return Poll::Ready(Some(Err("the request broke off".to_owned())));
            }
            match framing.next(&mut self.read) {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::Data(data)))),
                Ok(Piece::End(None)) => return Poll::Ready(None),
                Ok(Piece::End(Some(trailers))) => {
                    return Poll::Ready(Some(Ok(Frame::Trailers(trailers))));
                }
                Ok(Piece::More) => {}
                Err(error) => return Poll::Ready(Some(Err(error.text().to_owned()))),
            }
            let want = match framing.exact() {
                Some(left) if left <= READ as u64 => READ,
                _ => READ_MORE,
            };
            match self.poll_fill(cx, want) {
                Poll::Pending => {
                    if self.is_sending() {
                        self.reader = Some(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) if *framing == Framing::UntilClose && !self.deaf => {
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Some(Err("the connection ended before it".to_owned())));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.to_string()))),
            }
        }
    }

    /// Reads more, with room for so many bytes.
    fn poll_fill(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<io::Result<usize>> {
        if self.read.capacity() - self.read.len() < want / 2 {
            self.read.reserve(want);
        }
        let reading = pin!(self.io.read_buf(&mut self.read));
        let read = ready!(reading.poll(cx))?;
        self.heard |= read > 0;
        Poll::Ready(Ok(read))
    }

    /// What the connection is when it has left HTTP.
    pub(super) fn upgrade(self, open: OpenConnection) -> Upgraded {
        Upgraded::new(self.io, self.read.freeze(), open)
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Io::Tls(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(cx, slices),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

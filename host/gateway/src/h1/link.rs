//! What a connection's loop and the exchange under way on it share: the socket, and how much of the request's body is still to
//! come. Knows no head and no response.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tidegate_core::body::BodyError;
use tidegate_core::clock;
use tidegate_core::http1::framing::{Framing, FramingError, Piece};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::parse;
use super::wire::{READ, READ_MORE, Wire};
use crate::signals::Signals;
use crate::upload::{DRAIN, DRAIN_BYTES};

/// The most bytes that wait while nobody wants them: of the request's body, or of later requests. Read at all because that is how
/// a client shows that it has gone.
const MAX_AHEAD: usize = 16 * 1024;

/// One HTTP/1 connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) wire: RefCell<Wire>,
    /// The body of the request under way.
    framing: RefCell<Framing>,
    /// The request's number, counted from 0.
    number: Cell<u64>,
    /// Whether the client waits to be asked for the body.
    expects: Cell<bool>,
    /// The connection's own task: the only one that waits for the socket.
    owner: RefCell<Option<Waker>>,
    /// Another task that waits for the body.
    reader: RefCell<Option<Waker>>,
    /// The rest of a body that nobody wants: how many bytes of it may be read, and until when.
    rest: Cell<Option<(u64, Instant)>>,
    signals: Rc<Signals>,
}

impl Link {
    pub(super) fn new(wire: Wire, signals: &Rc<Signals>) -> Rc<Self> {
        Rc::new(Link {
            wire: RefCell::new(wire),
            framing: RefCell::new(Framing::Length(0)),
            number: Cell::new(0),
            expects: Cell::new(false),
            owner: RefCell::new(None),
            reader: RefCell::new(None),
            rest: Cell::new(None),
            signals: Rc::clone(signals),
        })
    }

    /// What the connection does from now on, it does in the caller's task.
    pub(super) fn own(&self, cx: &Context<'_>) {
        self.owner.replace(Some(cx.waker().clone()));
    }

    /// The connection is over.
    pub(super) fn end(&self) {
        self.number.set(u64::MAX);
        self.wake_reader();
    }

    fn wake_reader(&self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// A request begins; its body is what is returned.
    pub(super) fn begin(
        self: &Rc<Self>,
        number: u64,
        framing: Framing,
        expects: bool,
    ) -> RequestBody {
        // Whoever still waits for an earlier one waits in vain.
        self.wake_reader();
        self.framing.replace(framing);
        self.number.set(number);
        self.expects.set(expects);
        self.rest.set(None);
        self.signals.forget_interim();
        RequestBody {
            link: Rc::clone(self),
            number,
        }
    }

    /// Whether the request's body is read to its end.
    pub(super) fn is_over(&self) -> bool {
        self.framing.borrow().is_over()
    }

    /// A response begins. Says whether the client still waits to be asked for the body: it will not be any more.
    pub(super) fn is_unasked(&self) -> bool {
        self.expects.replace(false) && !self.is_over()
    }

    /// What goes on while somebody else works on the request: interim responses are written, what comes is read as far as there
    /// is room, a body that nobody wants is read on. Ready when the client is gone.
    pub(super) fn poll_meanwhile(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut wire = self.wire.borrow_mut();
        self.signals.take_interim(wire.out.heads());
        if let Poll::Ready(Err(_)) = wire.poll_write(cx) {
            return Poll::Ready(());
        }
        self.poll_ahead(&mut wire, cx)
    }

    /// The same without writing.
    pub(super) fn poll_ahead(&self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<()> {
        if self.rest.get().is_some() && ready!(self.poll_rest(wire, cx)).is_err() {
            return Poll::Ready(());
        }
        let (limit, room) = if self.is_over() {
            (MAX_AHEAD, READ)
        } else {
            (READ_MORE, READ_MORE)
        };
        while !wire.has_ended && wire.read.len() < limit {
            let filled = ready!(wire.poll_fill(room, cx));
            self.wake_reader();
            if filled.is_err() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Nobody wants the rest of the body: it is read on all the same, within bounds, so that the next request can be found.
    fn skip(&self) {
        let until = Instant::from_std(clock::turn()) + DRAIN;
        self.rest.set(Some((DRAIN_BYTES, until)));
    }

    /// Reads the body to its end behind a response that has left. Says whether the next request can be found.
    pub(super) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.is_over() {
            return Poll::Ready(true);
        }
        let long = |framing: &Framing| framing.exact().is_some_and(|left| left > DRAIN_BYTES);
        if long(&self.framing.borrow()) {
            return Poll::Ready(false);
        }
        if self.rest.get().is_none() {
            self.skip();
        }
        let wire = &mut self.wire.borrow_mut();
        let rest = ready!(self.poll_rest(wire, cx));
        Poll::Ready(rest.is_ok() && self.is_over())
    }

    /// Reads what nobody wants. Ready at its end, and when it is too much or too late.
    fn poll_rest(&self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some((mut left, until)) = self.rest.get() else {
            return Poll::Ready(Ok(()));
        };
        let mut framing = self.framing.borrow_mut();
        loop {
            match framing.next(&mut wire.read) {
                Ok(Piece::More) => {}
                Ok(Piece::End(_)) => break,
                Ok(Piece::Data(data)) => match left.checked_sub(data.len() as u64) {
                    Some(less) => {
                        left = less;
                        continue;
                    }
                    None => break,
                },
                Err(error) => {
                    drop(framing);
                    self.found(error);
                    break;
                }
            }
            match wire.poll_fill(READ_MORE, cx) {
                Poll::Ready(Ok(0)) => break,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.rest.set(Some((left, until)));
                    ready!(wire.reading.poll_until(until, cx));
                    break;
                }
            }
        }
        self.rest.set(None);
        Poll::Ready(Ok(()))
    }

    /// The body's framing is broken: nothing more can be read.
    fn found(&self, error: FramingError) {
        self.signals.found(self.number.get(), parse::fault(error));
    }

    fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let broken = |text: &str| Poll::Ready(Some(Err(BodyError::Broken(text.to_owned()))));
        let wire = &mut *self.wire.borrow_mut();
        let mut framing = self.framing.borrow_mut();
        loop {
            match framing.next(&mut wire.read) {
                Ok(Piece::More) => {}
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Piece::End(None)) => return Poll::Ready(None),
                Ok(Piece::End(Some(trailers))) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Err(error) => {
                    self.found(error);
                    return broken(error.text());
                }
            }
            if self.expects.replace(false) {
                let out = wire.out.heads();
                out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            let owner = self.owner.borrow();
            if let Some(owner) = owner.as_ref().filter(|owner| !owner.will_wake(cx.waker())) {
                if wire.has_ended {
                    return broken("the connection ended before it");
                }
                self.reader.replace(Some(cx.waker().clone()));
                owner.wake_by_ref();
                return Poll::Pending;
            }
            // An error shows when the body is read.
            let _ = wire.poll_write(cx);
            let room = match framing.exact() {
                Some(left) if left <= READ as u64 => READ,
                _ => READ_MORE,
            };
            match ready!(wire.poll_fill(room, cx)) {
                Ok(0) => return broken("the connection ended before it"),
                Ok(_) => {}
                Err(error) => return broken(&error.to_string()),
            }
        }
    }
}

/// A request's body. Of use as long as its request is under way.
#[derive(Debug)]
pub(crate) struct RequestBody {
    link: Rc<Link>,
    number: u64,
}

impl RequestBody {
    fn is_current(&self) -> bool {
        self.link.number.get() == self.number
    }

    /// Nobody wants the rest of it: it is read on all the same, within bounds, so that the next request can be found.
    pub(crate) fn skip(&self) {
        if self.is_current() && !self.link.is_over() {
            self.link.skip();
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_current() {
            self.link.poll_body(cx)
        } else {
            Poll::Ready(Some(Err(BodyError::Broken(
                "its request is over".to_owned(),
            ))))
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_current() && self.link.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match self.link.framing.borrow().exact() {
            Some(length) if self.is_current() => SizeHint::with_exact(length),
            _ => SizeHint::default(),
        }
    }
}

/// The client's side of a connection that has left HTTP: bytes both ways.
#[derive(Debug)]
pub(crate) struct ClientSide(pub(super) Rc<Link>);

impl AsyncRead for ClientSide {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.0.wire.borrow_mut();
        if wire.read.is_empty() {
            return wire.io().poll_read(cx, buf);
        }
        let length = wire.read.len().min(buf.remaining());
        buf.put_slice(&wire.read.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientSide {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.wire.borrow_mut().io().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.wire.borrow_mut().io().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.wire.borrow_mut().io().poll_shutdown(cx)
    }
}

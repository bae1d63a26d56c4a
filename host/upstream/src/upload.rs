//! A request's body, watched while it is sent: whose turn it is, and why it ended. Changes no byte of it.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tidegate_core::body::{Body, BodyError};
use tokio::time::Instant;

/// What is known of a request's body that comes as it comes.
#[derive(Debug)]
pub(crate) struct Upload {
    /// When a part of it last went to the connection.
    at: Cell<Instant>,
    /// Whether the connection waits for its next part.
    waiting: Cell<bool>,
    error: RefCell<Option<BodyError>>,
}

impl Upload {
    /// Watches the body of a request, if it is one that comes as it comes.
    pub(crate) fn watch(request: &mut Request<Body>) -> Option<Rc<Upload>> {
        if !matches!(request.body(), Body::Stream(_)) {
            return None;
        }
        let upload = Rc::new(Upload {
            at: Cell::new(Instant::now()),
            waiting: Cell::new(false),
            error: RefCell::new(None),
        });
        let inner = std::mem::take(request.body_mut());
        *request.body_mut() = Body::stream(Watched {
            inner,
            upload: upload.clone(),
        });
        Some(upload)
    }

    /// Since when it is the upstream's turn to read or to answer: now, if we wait for the client.
    pub(crate) fn upstreams_turn_since(&self) -> Instant {
        if self.waiting.get() {
            Instant::now()
        } else {
            self.at.get()
        }
    }

    /// Why the body broke off, if it did.
    pub(crate) fn error(&self) -> Option<BodyError> {
        self.error.borrow().clone()
    }
}

struct Watched {
    inner: Body,
    upload: Rc<Upload>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        self.upload.waiting.set(polled.is_pending());
        if let Poll::Ready(frame) = &polled {
            self.upload.at.set(Instant::now());
            if let Some(Err(error)) = frame {
                *self.upload.error.borrow_mut() = Some(error.clone());
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

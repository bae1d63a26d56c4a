//! A request made ready for one protocol or the other, and watched while it is sent. Opens nothing.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, UPGRADE};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Uri, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tidegate_core::body::{Body, BodyError};
use tokio::time::Instant;

use crate::endpoint::{Endpoint, Scheme};
use crate::error::{Failure, SendErrorKind};

/// Whether the request asks to leave HTTP.
pub(crate) fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
}

/// Whether sending the request a second time does no harm, and is possible (RFC 9110 section 9.2.2).
pub(crate) fn is_replayable(request: &Request<Body>) -> bool {
    let method = request.method();
    let idempotent = [
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
    ];
    idempotent.contains(method) && request.body().is_empty() && !wants_upgrade(request.headers())
}

/// A second request with the same head and no body.
pub(crate) fn copy_head(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(Body::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Origin form, and a `Host` field. Also undoes [`for_http2`].
pub(crate) fn for_http1(request: &mut Request<Body>, endpoint: &Endpoint) -> Result<(), Failure> {
    *request.version_mut() = Version::HTTP_11;
    if !request.headers().contains_key(HOST) {
        let host = match request.uri().authority() {
            Some(authority) => HeaderValue::from_str(authority.as_str()),
            None => HeaderValue::from_str(&endpoint.authority()),
        };
        let host = host.map_err(|error| Failure::new(SendErrorKind::InvalidResponse, error))?;
        request.headers_mut().insert(HOST, host);
    }
    if request.uri().authority().is_some() {
        let path = path_of(request.uri());
        *request.uri_mut() = Uri::from(path);
    }
    Ok(())
}

/// An absolute URI whose authority is the `Host` field, and none of HTTP/1.1's own fields (RFC 9113 section
/// 8.2.2). An upgrade can't be asked for this way and is left out.
pub(crate) fn for_http2(request: &mut Request<Body>, endpoint: &Endpoint) -> Result<(), Failure> {
    let host = request.headers_mut().remove(HOST);
    let authority = match (&host, request.uri().authority()) {
        (Some(host), _) => Authority::try_from(host.as_bytes()),
        (None, Some(authority)) => Ok(authority.clone()),
        (None, None) => Authority::try_from(endpoint.authority()),
    };
    let scheme = match endpoint.scheme() {
        Scheme::Https => "https",
        Scheme::Http | Scheme::H2c => "http",
    };
    let uri = authority.map_err(http::Error::from).and_then(|authority| {
        Uri::builder()
            .scheme(scheme)
            .authority(authority)
            .path_and_query(path_of(request.uri()))
            .build()
    });
    *request.uri_mut() =
        uri.map_err(|error| Failure::new(SendErrorKind::InvalidResponse, error))?;
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(UPGRADE);
    request.headers_mut().remove(CONNECTION);
    Ok(())
}

fn path_of(uri: &Uri) -> PathAndQuery {
    uri.path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// What is known of a request's body while it is being sent.
#[derive(Debug)]
pub(crate) struct Progress {
    /// When a part of it last went to the connection.
    at: Cell<Instant>,
    error: RefCell<Option<BodyError>>,
}

impl Progress {
    /// When a part of the body last went to the connection.
    pub(crate) fn at(&self) -> Instant {
        self.at.get()
    }

    /// Why the body broke off, if it did.
    pub(crate) fn error(&self) -> Option<BodyError> {
        self.error.borrow().clone()
    }

    /// Watches the body of a request, if it is one that comes as it comes.
    pub(crate) fn watch(request: &mut Request<Body>) -> Option<Rc<Progress>> {
        if !matches!(request.body(), Body::Stream(_)) {
            return None;
        }
        let progress = Rc::new(Progress {
            at: Cell::new(Instant::now()),
            error: RefCell::new(None),
        });
        let inner = std::mem::take(request.body_mut());
        *request.body_mut() = Body::stream(Watched {
            inner,
            progress: progress.clone(),
        });
        Some(progress)
    }
}

struct Watched {
    inner: Body,
    progress: Rc<Progress>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        self.progress.at.set(Instant::now());
        if let Some(Err(error)) = &frame {
            *self.progress.error.borrow_mut() = Some(error.clone());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

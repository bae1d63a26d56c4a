//! The response on its way out: the head as the client's protocol wants it, the body counted to its end, which is the end
//! of the exchange, or the switch to another protocol.

use std::fmt::Write as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tidegate_core::body::{Body, BodyError};
use tidegate_upstream::Upgraded;

use crate::answer::Failure;
use crate::journey::Journey;
use crate::upload::clean_trailers;

/// Makes the response that leaves.
pub(crate) fn leave(journey: Journey, mut body: Body, closes: bool) -> Response<Body> {
    let http1 = !journey.connection.http2;
    journey.upload.answered();
    let closes = closes || (http1 && journey.connection.ends_with(journey.place.number));
    if http1 {
        journey.upload.drain();
    }
    let mut response = head(&journey);
    tell_times(&journey, response.headers_mut());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        match switch(&journey) {
            Some((protocol, upstream)) => return switched(journey, response, protocol, upstream),
            None => {
                body = journey.chain.adopt(Failure::WrongProtocol.into());
                response = head(&journey);
            }
        }
    }
    let (method, version) = {
        let exchange = journey.chain.exchange.borrow();
        (exchange.request.method.clone(), exchange.request.version)
    };
    let status = response.status();
    let fields = response.headers_mut();
    if http1 && closes {
        fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if fit(fields, status, &method, &body) {
        journey.left();
        return response;
    }
    let close_delimited =
        version == Version::HTTP_10 && !fields.contains_key(header::CONTENT_LENGTH);
    if version == Version::HTTP_11
        && let Some(trailer) = journey.sent.borrow_mut().trailer.take()
        && !fields.contains_key(header::CONTENT_LENGTH)
    {
        fields.insert(header::TRAILER, trailer);
    }
    *response.body_mut() = Body::stream(Leaving {
        inner: body,
        bytes: 0,
        close_delimited,
        failed: None,
        journey: Some(journey),
    });
    response
}

/// The exchange's response head. Nothing of it can be changed any more.
fn head(journey: &Journey) -> Response<Body> {
    let keep = journey.chain.later().response;
    let mut exchange = journey.chain.exchange.borrow_mut();
    exchange.response_begun = true;
    let mut response = Response::new(Body::Empty);
    if let Some(head) = &mut exchange.response {
        *response.status_mut() = head.status;
        *response.headers_mut() = if keep {
            head.fields.clone()
        } else {
            std::mem::take(&mut head.fields)
        };
    }
    response
}

/// Tells the client how long filters and upstream took (Server-Timing), where the route wants that. Calls for the
/// response's body are still to come.
fn tell_times(journey: &Journey, fields: &mut HeaderMap) {
    let Some(spent) = journey.chain.spent.get() else {
        return;
    };
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    let mut text = format!("filter;dur={:.3}", millis(spent));
    if let Some(took) = journey.sent.borrow().took {
        // Writing to a string does not fail.
        let _ = write!(text, ", upstream;dur={:.3}", millis(took));
    }
    if let Ok(value) = HeaderValue::try_from(text) {
        fields.append("server-timing", value);
    }
}

/// Makes the fields fit a response that has no body, whatever somebody gave it (RFC 9110 section 6.4.1). Says whether it has
/// none.
fn fit(fields: &mut HeaderMap, status: StatusCode, method: &Method, body: &Body) -> bool {
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        fields.remove(header::CONTENT_LENGTH);
        return true;
    }
    if *method == Method::HEAD {
        if !body.is_end_stream()
            && !fields.contains_key(header::CONTENT_LENGTH)
            && let Some(length) = body.size_hint().exact()
        {
            fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        return true;
    }
    body.is_end_stream()
}

/// The protocol that both sides change to, and the upstream's side.
fn switch(journey: &Journey) -> Option<(HeaderValue, Upgraded)> {
    let asked = journey.aside.upgrade.as_ref()?.to_str().ok()?;
    let mut sent = journey.sent.borrow_mut();
    let given = sent.protocol.take()?;
    let name = given.to_str().ok()?.trim();
    let is_asked = asked
        .split(',')
        .any(|token| token.trim().eq_ignore_ascii_case(name));
    let upstream = sent.upgraded.take()?;
    is_asked.then_some((given.clone(), upstream))
}

fn switched(
    journey: Journey,
    mut response: Response<Body>,
    protocol: HeaderValue,
    upstream: Upgraded,
) -> Response<Body> {
    let fields = response.headers_mut();
    fields.remove(header::CONTENT_LENGTH);
    fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(header::UPGRADE, protocol);
    let connection = Rc::clone(&journey.connection);
    connection.tunnel.set(Some((journey, upstream)));
    response
}

/// A response's body. Dropping it before its end means that the client is gone.
struct Leaving {
    inner: Body,
    bytes: u64,
    /// Whether the connection's end is the body's.
    close_delimited: bool,
    failed: Option<BodyError>,
    /// None once the exchange is over.
    journey: Option<Journey>,
}

impl Leaving {
    fn end(&mut self, error: Option<&BodyError>) {
        let Some(journey) = self.journey.take() else {
            return;
        };
        journey.response_bytes.set(self.bytes);
        match error {
            None => journey.left(),
            Some(error) => journey.broke(error, self.close_delimited),
        }
    }

    /// Tells the connection whose turn it is: ours to give, or the client's to take.
    fn given(&self, given: bool) {
        if let Some(stall) = self
            .journey
            .as_ref()
            .and_then(|journey| journey.place.stall.as_ref())
        {
            stall.given(given);
        }
    }
}

impl HttpBody for Leaving {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(error) = this.failed.take() {
            this.end(Some(&error));
            return Poll::Ready(Some(Err(error)));
        }
        this.given(false);
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                this.end(None);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.bytes += data.len() as u64;
                } else if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
                // Nobody asks again behind a length that is met, or behind trailers.
                if this.inner.is_end_stream() || frame.is_trailers() {
                    this.end(None);
                } else {
                    this.given(true);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                // An error ends the connection, or the stream, with what it has not written yet. What came before the error
                // is written first.
                this.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.failed.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(journey) = &self.journey {
            journey.response_bytes.set(self.bytes);
        }
    }
}

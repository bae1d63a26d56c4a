//! Trailers of a request on its way: only those that the client announced, and none that stands for a field of the head.
//! Servers that put trailers and fields together would else take the client's word over a filter's or ours (RFC 9110
//! section 6.5.1). Knows no exchange.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tidegate_core::body::{Body, BodyError};
use tidegate_core::fields::tells_of_the_client;

/// The names in a Trailer field.
pub(crate) fn announced(trailer: &HeaderValue) -> impl Iterator<Item = HeaderName> {
    let text = trailer.to_str().unwrap_or_default();
    text.split(',').filter_map(|name| name.trim().parse().ok())
}

/// A request's body without those trailers of the client's, who announced `announced`, that stand for a field of the head
/// as it goes out, or say who the client is. What a filter adds is its own.
pub(crate) fn bounded(body: Body, announced: &HeaderValue, head: &HeaderMap) -> Body {
    let may_not_stand = |name: &HeaderName| {
        tells_of_the_client(name.as_str()) || head.keys().any(|field| is_one(field, name))
    };
    let refused: Vec<HeaderName> = self::announced(announced).filter(may_not_stand).collect();
    if refused.is_empty() {
        return body;
    }
    Body::stream(Bounded {
        inner: body,
        refused,
    })
}

/// Whether servers may take two names for one: many read an underscore as a hyphen.
fn is_one(one: &HeaderName, other: &HeaderName) -> bool {
    let (one, other) = (one.as_str().bytes(), other.as_str().bytes());
    let fold = |byte| if byte == b'_' { b'-' } else { byte };
    one.map(fold).eq(other.map(fold))
}

struct Bounded {
    inner: Body,
    refused: Vec<HeaderName>,
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut polled = Pin::new(&mut this.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            for name in &this.refused {
                trailers.remove(name);
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

/// Takes out all but some.
pub(crate) fn keep(trailers: &mut HeaderMap, may_stay: impl Fn(&HeaderName) -> bool) {
    let refused: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| !may_stay(name))
        .cloned()
        .collect();
    for name in refused {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_reads_like_a_fields_is_that_fields() {
        let name = |text: &str| text.parse::<HeaderName>().unwrap();
        assert!(is_one(&name("x-auth-user"), &name("X_Auth-User")));
        assert!(!is_one(&name("x-auth-user"), &name("x-auth-users")));
        let trailer = HeaderValue::from_static("x-a, X-B ,,no name");
        let names: Vec<HeaderName> = announced(&trailer).collect();
        assert_eq!(names, [name("x-a"), name("x-b")]);
    }
}

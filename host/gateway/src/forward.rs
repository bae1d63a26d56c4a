//! What the upstream is sent, made from the request as the filters left it; and what of the upstream's response goes on.
//! Sends nothing itself.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri, Version};
use http_body::Body as _;
use tidegate_core::body::Body;
use tidegate_core::exchange::{Exchange, ResponseHead};
use tidegate_core::survey::Survey;
use tidegate_upstream::{Endpoint, Interim, Upstream};

use crate::admit::Aside;
use crate::answer::Failure;
use crate::forwarded::Hop;
use crate::head;
use crate::settings::Settings;
use crate::signals::InterimBytes;
use crate::trailers;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What decides, besides the exchange, what goes upstream.
pub(crate) struct Terms<'a> {
    pub(crate) aside: &'a Aside,
    pub(crate) hop: &'a Hop,
    pub(crate) settings: &'a Settings,
    /// The upstream's own host, if it does not see the client's.
    pub(crate) host: Option<String>,
    /// Whether somebody looks at the request's fields later on; else they need not be copied.
    pub(crate) keep: bool,
}

/// Makes the upstream's request. The exchange keeps its own head.
///
/// # Errors
/// [`Failure::Loop`] if our name is in `Via` already.
pub(crate) fn request(
    exchange: &mut Exchange,
    terms: &Terms<'_>,
    body: Body,
) -> Result<Request<Body>, Failure> {
    let aside = terms.aside;
    let mut fields = if terms.keep {
        exchange.request.fields.clone()
    } else {
        std::mem::take(&mut exchange.request.fields)
    };
    let head = &exchange.request;
    terms
        .hop
        .append(&mut fields, &head.scheme, aside.host.as_ref());
    fields.insert(REQUEST_ID, exchange.request_id.clone());
    if head.method == Method::OPTIONS {
        count_down(&mut fields)?;
    }
    if let Some(name) = &terms.settings.via {
        add_via(&mut fields, name, head.version)?;
    }
    if let Some(host) = host(exchange, terms) {
        fields.insert(header::HOST, host);
    }
    if let Some(protocol) = &aside.upgrade {
        fields.insert(header::UPGRADE, protocol.clone());
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    } else if aside.takes_trailers {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    frame(&mut fields, aside, &body);
    let body = match &aside.trailer {
        Some(announced) => trailers::bounded(body, announced, &fields),
        None => body,
    };
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from(head.target.clone());
    *request.headers_mut() = fields;
    Ok(request)
}

/// Says that a body of unknown length is there: without a length, the client half takes a method that seldom has a body
/// for one that has none.
fn frame(fields: &mut HeaderMap, aside: &Aside, body: &Body) {
    let is_open = !body.is_end_stream() && body.size_hint().exact().is_none();
    if !is_open || fields.contains_key(header::CONTENT_LENGTH) {
        return;
    }
    let chunked = HeaderValue::from_static("chunked");
    fields.insert(header::TRANSFER_ENCODING, chunked);
    if let Some(trailer) = &aside.trailer {
        fields.insert(header::TRAILER, trailer.clone());
    }
}

/// The Host that the upstream sees: its own, or the request's, which a filter may have changed.
fn host(exchange: &Exchange, terms: &Terms<'_>) -> Option<HeaderValue> {
    if let Some(host) = &terms.host {
        return HeaderValue::from_str(host).ok();
    }
    let authority = exchange.request.authority.as_ref()?.as_str();
    match &terms.aside.host {
        Some(host) if host == authority => Some(host.clone()),
        _ => HeaderValue::from_str(authority).ok(),
    }
}

/// The host of an upstream's first endpoint, for requests that do not carry the client's.
pub(crate) fn host_of(upstream: &Upstream) -> Option<String> {
    upstream.config().endpoints.first().map(Endpoint::authority)
}

/// Counts Max-Forwards down. What is no number is taken out: nobody behind us could count it either.
fn count_down(fields: &mut HeaderMap) -> Result<(), Failure> {
    let Some(value) = fields.remove(header::MAX_FORWARDS) else {
        return Ok(());
    };
    match value
        .to_str()
        .ok()
        .and_then(|text| text.parse::<u64>().ok())
    {
        Some(0) => Err(Failure::LastHop),
        Some(left) => {
            fields.insert(header::MAX_FORWARDS, HeaderValue::from(left - 1));
            Ok(())
        }
        None => Ok(()),
    }
}

fn add_via(fields: &mut HeaderMap, name: &str, version: Version) -> Result<(), Failure> {
    // `received-protocol received-by [comment]` (RFC 9110 section 7.6.3).
    let ours = |element: &str| {
        element
            .split_whitespace()
            .nth(1)
            .is_some_and(|known| known.eq_ignore_ascii_case(name))
    };
    let seen = fields
        .get_all(header::VIA)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(ours));
    if seen {
        return Err(Failure::Loop);
    }
    let number = match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    if let Ok(value) = HeaderValue::try_from(format!("{number} {name}")) {
        fields.append(header::VIA, value);
    }
    Ok(())
}

impl Interim for InterimBytes {
    fn came(&self, status: StatusCode, fields: &HeaderMap) {
        if status != StatusCode::CONTINUE {
            self.put(&interim_bytes(status, fields));
        }
    }
}

/// An interim response as it stands on the wire.
fn interim_bytes(status: StatusCode, fields: &HeaderMap) -> Vec<u8> {
    let mut fields = fields.clone();
    let seen = Survey::of(&fields);
    head::remove_hop_by_hop(&mut fields, seen);
    fields.remove(header::CONTENT_LENGTH);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in &fields {
        for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(piece);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// What goes on of a response, and what was set apart.
pub(crate) struct Received {
    pub(crate) head: ResponseHead,
    /// The names of trailers, which are framing again on the way to the client.
    pub(crate) trailer: Option<HeaderValue>,
    /// The protocol that the upstream changes to.
    pub(crate) upgrade: Option<HeaderValue>,
}

/// Takes out of a response's head what belongs to the connection it came on. `seen` says what it holds.
pub(crate) fn response(parts: http::response::Parts, seen: Survey) -> Received {
    let mut fields = parts.headers;
    let trailer = if seen.has(Survey::TRAILER) {
        fields.remove(header::TRAILER)
    } else {
        None
    };
    let upgrade = if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        fields.remove(header::UPGRADE)
    } else {
        None
    };
    head::remove_hop_by_hop(&mut fields, seen);
    Received {
        head: ResponseHead {
            status: parts.status,
            fields,
        },
        trailer,
        upgrade,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn via_grows_and_finds_our_own_name() {
        let mut fields = HeaderMap::new();
        add_via(&mut fields, "edge", Version::HTTP_2).unwrap();
        assert_eq!(fields["via"], "2 edge");
        for seen in ["1.1 edge", "1.0 other, 2 EDGE (comment)"] {
            let mut fields = HeaderMap::new();
            fields.insert(header::VIA, HeaderValue::from_static(seen));
            assert!(matches!(
                add_via(&mut fields, "edge", Version::HTTP_11),
                Err(Failure::Loop)
            ));
        }
        let mut fields = HeaderMap::new();
        let others = HeaderValue::from_static("1.1 edge-2, edge 1.1");
        fields.insert(header::VIA, others);
        assert!(add_via(&mut fields, "edge", Version::HTTP_11).is_ok());
    }

    #[test]
    fn an_interim_response_is_written_without_what_is_one_connections() {
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("link", "</a>"),
            ("connection", "x-a"),
            ("x-a", "1"),
            ("content-length", "1"),
        ] {
            fields.append(name, HeaderValue::from_static(value));
        }
        let bytes = interim_bytes(StatusCode::EARLY_HINTS, &fields);
        assert_eq!(bytes, b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    }
}

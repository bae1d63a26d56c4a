//! What the upstream is sent, made from the request as the filters left it; and what of the upstream's response goes on.
//! Sends nothing itself.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Uri, Version};
use tidegate_core::body::Body;
use tidegate_core::exchange::{Exchange, ResponseHead};
use tidegate_upstream::{Endpoint, Upstream};

use crate::answer::Failure;
use crate::forwarded;
use crate::head;
use crate::settings::Settings;

/// What the request's head said besides its fields.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    pub(crate) upgrade: Option<HeaderValue>,
    pub(crate) takes_trailers: bool,
    /// The names that the client announced trailers with.
    pub(crate) trailer: Option<HeaderValue>,
}

/// Makes the upstream's request. The exchange keeps its own head.
///
/// # Errors
/// [`Failure::Loop`] if our name is in `Via` already.
pub(crate) fn request(
    exchange: &Exchange,
    aside: &Aside,
    upstream_host: Option<String>,
    settings: &Settings,
    body: Body,
) -> Result<Request<Body>, Failure> {
    let mut fields = exchange.request.fields.clone();
    let client_host = exchange
        .request
        .authority
        .as_ref()
        .map_or("", |authority| authority.as_str());
    forwarded::append(
        &mut fields,
        exchange.client.peer.ip(),
        exchange.request.scheme.as_str(),
        client_host,
    );
    fields.insert("x-request-id", exchange.request_id.clone());
    if let Some(name) = &settings.via {
        add_via(&mut fields, name, exchange.request.version)?;
    }
    let host = upstream_host.and_then(|host| HeaderValue::from_str(&host).ok());
    if let Some(host) = host.or_else(|| {
        HeaderValue::from_str(client_host)
            .ok()
            .filter(|host| !host.is_empty())
    }) {
        fields.insert(header::HOST, host);
    }
    if let Some(protocol) = &aside.upgrade {
        fields.insert(header::UPGRADE, protocol.clone());
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    } else if aside.takes_trailers {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(trailer) = &aside.trailer {
        fields.insert(header::TRAILER, trailer.clone());
    }
    // Without a length, only this tells the client half that there is a body behind a method that seldom has one.
    if aside.upgrade.is_none()
        && !body.is_empty()
        && http_body::Body::size_hint(&body).exact().is_none()
    {
        fields.insert(
            header::TRANSFER_ENCODING,
            HeaderValue::from_static("chunked"),
        );
    }
    let mut request = Request::new(body);
    *request.method_mut() = exchange.request.method.clone();
    *request.uri_mut() = Uri::from(exchange.request.target.clone());
    *request.headers_mut() = fields;
    Ok(request)
}

/// The host of an upstream's first endpoint, for requests that do not carry the client's.
pub(crate) fn host_of(upstream: &Upstream) -> Option<String> {
    upstream.config().endpoints.first().map(Endpoint::authority)
}

fn add_via(fields: &mut HeaderMap, name: &str, version: Version) -> Result<(), Failure> {
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
    let number = if version == Version::HTTP_2 {
        "2"
    } else if version == Version::HTTP_10 {
        "1.0"
    } else {
        "1.1"
    };
    if let Ok(value) = HeaderValue::from_str(&format!("{number} {name}")) {
        fields.append(header::VIA, value);
    }
    Ok(())
}

/// What goes on of a response's head: everything but what belongs to the connection it came on. `Trailer` is kept apart,
/// since it is framing again on the way to the client.
pub(crate) fn response(parts: http::response::Parts) -> (ResponseHead, Option<HeaderValue>) {
    let mut fields = parts.headers;
    let trailer = fields.remove(header::TRAILER);
    head::remove_hop_by_hop(&mut fields);
    (
        ResponseHead {
            status: parts.status,
            fields,
        },
        trailer,
    )
}

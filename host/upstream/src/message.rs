//! A request made ready for one protocol or the other, and a response's head judged. Opens and sends nothing.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Request, Uri, Version};
use tidegate_core::body::Body;

use crate::endpoint::{Endpoint, Scheme};
use crate::error::{Failure, SendErrorKind};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Whether the request asks to leave HTTP.
pub(crate) fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
}

/// A second request like the first; without its body if that comes as it comes.
pub(crate) fn copy(request: &Request<Body>) -> Request<Body> {
    let body = match request.body() {
        Body::Full(bytes) => Body::Full(bytes.clone()),
        Body::Empty | Body::Stream(_) => Body::Empty,
    };
    let mut copy = Request::new(body);
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
/// 8.2.2); `te: trailers` stays. An upgrade can't be asked for this way and is left out.
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
    for name in [UPGRADE, CONNECTION, TRANSFER_ENCODING, KEEP_ALIVE] {
        request.headers_mut().remove(name);
    }
    Ok(())
}

fn path_of(uri: &Uri) -> PathAndQuery {
    uri.path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// What hyper reads one way and someone behind us may read another (RFC 9112 section 6.3): a length beside a coding,
/// lengths that are repeated or no numbers, codings that nobody undoes here. Else the length, if there is one.
pub(crate) fn check_framing(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    let mut number = 0;
    if lengths.next().is_some() {
        return Err("Content-Length is repeated");
    }
    if let Some(length) = length {
        let length = length.as_bytes();
        // 19 digits are below 2^64 whatever they are.
        if length.is_empty() || length.len() > 19 || !length.iter().all(u8::is_ascii_digit) {
            return Err("Content-Length is no number");
        }
        number = length
            .iter()
            .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(length.map(|_| number));
    };
    if length.is_some() {
        return Err("Content-Length stands beside Transfer-Encoding");
    }
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err("Transfer-Encoding is not just chunked");
    }
    Ok(None)
}

/// For how many seconds the upstream says that it keeps the connection, if it says so.
pub(crate) fn keep_alive_seconds(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    let mut parameters = value.split(',').filter_map(|part| part.split_once('='));
    let timeout = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))?;
    timeout.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let parsed = lines.iter().map(|(name, value)| {
            let value = HeaderValue::from_static(value);
            (HeaderName::from_static(name), value)
        });
        parsed.collect()
    }

    #[test]
    fn one_length_or_one_coding_is_all_there_may_be() {
        let length = "content-length";
        let coding = "transfer-encoding";
        for lines in [
            &[][..],
            &[(length, "0")],
            &[(length, "9999999999999999999")],
            &[(coding, "chunked")],
            &[(coding, "Chunked")],
        ] {
            let told = lines.iter().find(|(name, _)| *name == length);
            let expected = told.map(|(_, value)| value.parse().unwrap());
            assert_eq!(check_framing(&headers(lines)), Ok(expected), "{lines:?}");
        }
        for lines in [
            &[(length, "4"), (length, "4")][..],
            &[(length, "4"), (length, "5")],
            &[(length, "4, 4")],
            &[(length, "+4")],
            &[(length, "")],
            &[(length, "99999999999999999999")],
            &[(length, "4"), (coding, "chunked")],
            &[(coding, "chunked"), (coding, "chunked")],
            &[(coding, "chunked, chunked")],
            &[(coding, "gzip, chunked")],
            &[(coding, "identity")],
            &[(coding, "")],
        ] {
            assert!(check_framing(&headers(lines)).is_err(), "{lines:?}");
        }
    }

    #[test]
    fn the_upstreams_own_keep_alive_is_read() {
        for (value, expected) in [
            ("timeout=5", Some(5)),
            ("max=100, Timeout = 15", Some(15)),
            ("timeout=x", None),
            ("max=100", None),
        ] {
            let held = headers(&[("keep-alive", value)]);
            assert_eq!(keep_alive_seconds(&held), expected, "{value}");
        }
        assert_eq!(keep_alive_seconds(&headers(&[])), None);
    }

    #[test]
    fn a_request_is_the_same_after_having_been_made_ready_for_http2() {
        let endpoint: Endpoint = "https://up.test".parse().unwrap();
        let mut request = Request::post("/a?b")
            .header("host", "front.test:8443")
            .header("te", "trailers")
            .header("connection", "te")
            .body(Body::full("x"))
            .unwrap();
        for_http2(&mut request, &endpoint).unwrap();
        assert_eq!(request.uri(), "https://front.test:8443/a?b");
        assert_eq!(request.headers().len(), 1);
        assert_eq!(request.headers()["te"], "trailers");
        for_http1(&mut request, &endpoint).unwrap();
        assert_eq!(request.uri(), "/a?b");
        assert_eq!(request.headers()["host"], "front.test:8443");
    }
}

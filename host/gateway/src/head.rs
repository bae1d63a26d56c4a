//! From a parsed request to the head that routes and filters see: everything that could be read in two ways is refused,
//! and what belongs to one connection only is taken out. Knows no routes.

use std::borrow::Cow;
use std::cell::RefCell;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Version, request};
use tidegate_core::exchange::RequestHead;
use tidegate_core::fields::HOP_BY_HOP;
use tidegate_core::path;
use tidegate_core::survey::Survey;

use crate::answer::ClientFault;
use crate::settings::{Settings, Underscores};

/// A request's head with what was set apart from it.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// What routes and filters see.
    pub(crate) head: RequestHead,
    /// The protocol that the client wants to change to.
    pub(crate) upgrade: Option<HeaderValue>,
    /// Whether the client takes trailers (`TE: trailers`).
    pub(crate) takes_trailers: bool,
}

/// What is known of a request's connection, as far as it decides how its heads are read.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    secure: bool,
    /// The host that was read last: a connection's requests mostly name the same one.
    last: RefCell<Option<(HeaderValue, Authority)>>,
}

/// Checks and cleans a head, of which `seen` says what it holds. The fields are taken out of `parts` if nothing is wrong.
///
/// # Errors
/// The fault to answer with; the connection is closed behind it.
pub(crate) fn read(
    parts: &mut request::Parts,
    seen: Survey,
    reader: &Reader,
    settings: &Settings,
) -> Result<Incoming, ClientFault> {
    let request::Parts {
        method,
        uri,
        version,
        headers: fields,
        ..
    } = parts;
    let version = *version;
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(ClientFault::Method);
    }
    if fields.len() > settings.limits.max_fields {
        return Err(ClientFault::TooManyFields);
    }
    if uri
        .path_and_query()
        .is_some_and(|target| target.as_str().len() > settings.limits.max_target)
    {
        return Err(ClientFault::TargetTooLong);
    }
    check_scheme(uri, version)?;
    if seen.has(Survey::CONTENT_LENGTH.and(Survey::TRANSFER_ENCODING)) {
        check_framing(fields, version)?;
    }
    if seen.has(Survey::EXPECT) {
        check_expectation(fields)?;
    }
    let scheme = if reader.secure {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    };
    let authority = authority(uri, fields, version, &scheme, reader)?;
    let target = target(uri, method, settings)?;
    let takes_trailers = seen.has(Survey::TE)
        && tokens(fields, &header::TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    let upgrade = if seen.has(Survey::UPGRADE) {
        upgrade(fields, method, version)
    } else {
        None
    };
    remove_hop_by_hop(fields, seen);
    fields.remove(header::HOST);
    if seen.has(Survey::EXPECT) {
        fields.remove(header::EXPECT);
    }
    if seen.has(Survey::UNDERSCORE) {
        check_underscores(fields, settings.underscores)?;
    }
    if version == Version::HTTP_2 && seen.has(Survey::COOKIE) {
        join_cookies(fields);
    }
    Ok(Incoming {
        head: RequestHead {
            method: method.clone(),
            scheme,
            authority,
            target,
            version,
            fields: std::mem::take(fields),
        },
        upgrade,
        takes_trailers,
    })
}

impl Reader {
    /// `secure` says that heads come over TLS.
    pub(crate) fn new(secure: bool) -> Self {
        Reader {
            secure,
            last: RefCell::new(None),
        }
    }

    /// Reads the value of a Host field.
    fn host(&self, value: &HeaderValue) -> Result<Authority, ClientFault> {
        let mut last = self.last.borrow_mut();
        if let Some((text, authority)) = &*last
            && text == value
        {
            return Ok(authority.clone());
        }
        let authority = parse_authority(value.as_bytes())?;
        *last = Some((value.clone(), authority.clone()));
        Ok(authority)
    }
}

/// A target with an authority has a scheme of ours: an authority alone is a target for CONNECT only (RFC 9112 section
/// 3.2.3).
fn check_scheme(uri: &http::Uri, version: Version) -> Result<(), ClientFault> {
    match uri.scheme_str() {
        Some("http" | "https") => Ok(()),
        Some(_) => Err(ClientFault::Path),
        None if uri.authority().is_some() && version != Version::HTTP_2 => Err(ClientFault::Path),
        None => Ok(()),
    }
}

/// One Content-Length, one `Transfer-Encoding: chunked`, never both (RFC 9112 sections 6.1 and 6.3).
fn check_framing(fields: &HeaderMap, version: Version) -> Result<(), ClientFault> {
    let lengths = fields.get_all(header::CONTENT_LENGTH).iter().count();
    let mut codings = fields.get_all(header::TRANSFER_ENCODING).iter();
    let coding = codings.next();
    if lengths > 1
        || codings.next().is_some()
        || (coding.is_some() && (lengths > 0 || version != Version::HTTP_11))
    {
        return Err(ClientFault::Framing);
    }
    match coding {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Err(ClientFault::Coding)
        }
        _ => Ok(()),
    }
}

fn check_expectation(fields: &HeaderMap) -> Result<(), ClientFault> {
    let known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if fields.get_all(header::EXPECT).iter().all(known) {
        Ok(())
    } else {
        Err(ClientFault::Expectation)
    }
}

/// The one authority of a request. Host and an authority in the target must agree.
fn authority(
    uri: &http::Uri,
    fields: &HeaderMap,
    version: Version,
    scheme: &Scheme,
    reader: &Reader,
) -> Result<Option<Authority>, ClientFault> {
    let mut hosts = fields.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(ClientFault::Host);
    }
    let named = match host {
        None => None,
        Some(value) => Some(reader.host(value)?),
    };
    if let Some(target) = uri.authority() {
        let target = parse_authority(target.as_str().as_bytes())?;
        if named.is_some_and(|named| !is_same(&named, &target, scheme)) {
            return Err(ClientFault::Host);
        }
        return Ok(Some(target));
    }
    if named.is_none() && version >= Version::HTTP_11 {
        return Err(ClientFault::Host);
    }
    Ok(named)
}

/// Whether two authorities are one: the same host, and the same port where a missing one is the scheme's own.
fn is_same(one: &Authority, other: &Authority, scheme: &Scheme) -> bool {
    let own = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(own);
    port(one) == port(other) && normal_host(one) == normal_host(other)
}

fn parse_authority(bytes: &[u8]) -> Result<Authority, ClientFault> {
    let authority = Authority::try_from(bytes).map_err(|_| ClientFault::Host)?;
    let text = authority.as_str();
    let port = text
        .rsplit_once(':')
        .filter(|(_, port)| !port.ends_with(']'))
        .map(|(_, port)| port);
    let port_ok = port.is_none_or(|port| port.is_empty() || port.parse::<u16>().is_ok());
    let host_ok = !authority.host().is_empty()
        && !text.contains('@')
        && authority
            .host()
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b',' | b'/' | b'%'));
    if port_ok && host_ok {
        Ok(authority)
    } else {
        Err(ClientFault::Host)
    }
}

/// A host as routes compare it: lower case, without port and trailing dot.
pub(crate) fn normal_host(authority: &Authority) -> Cow<'_, str> {
    let host = authority.host().trim_end_matches('.');
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

fn target(
    uri: &http::Uri,
    method: &Method,
    settings: &Settings,
) -> Result<PathAndQuery, ClientFault> {
    let written = uri.path();
    if written == "*" || written.is_empty() {
        // `OPTIONS *` (RFC 9110 section 9.3.7) is about the server as a whole: it is routed as its root. An absolute
        // target without a path means the root too.
        let root = *method == Method::OPTIONS || (written.is_empty() && uri.scheme().is_some());
        return if root {
            Ok(PathAndQuery::from_static("/"))
        } else {
            Err(ClientFault::Path)
        };
    }
    let normal =
        path::normalise(written, settings.ambiguous_paths).map_err(|_| ClientFault::Path)?;
    match (uri.path_and_query(), uri.query()) {
        (Some(target), _) if matches!(normal, Cow::Borrowed(_)) => Ok(target.clone()),
        (_, None) => PathAndQuery::try_from(&*normal).map_err(|_| ClientFault::Path),
        (_, Some(query)) => {
            PathAndQuery::try_from(format!("{normal}?{query}")).map_err(|_| ClientFault::Path)
        }
    }
}

/// The protocol of an upgrade that may be passed on: asked for with both fields, on HTTP/1.1, and not to HTTP/2, which
/// would let requests past us (RFC 9110 section 7.8).
fn upgrade(fields: &HeaderMap, method: &Method, version: Version) -> Option<HeaderValue> {
    let asked =
        tokens(fields, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let mut values = fields.get_all(header::UPGRADE).iter();
    let value = values.next()?;
    let bodiless = !fields.contains_key(header::TRANSFER_ENCODING)
        && fields
            .get(header::CONTENT_LENGTH)
            .is_none_or(|length| length == "0");
    let http2 = |token: &str| {
        ["h2", "h2c"]
            .iter()
            .any(|name| token.trim().eq_ignore_ascii_case(name))
    };
    let plain = value
        .to_str()
        .is_ok_and(|text| !text.is_empty() && !text.split(',').any(http2));
    (asked
        && plain
        && bodiless
        && values.next().is_none()
        && *method == Method::GET
        && version == Version::HTTP_11)
        .then(|| value.clone())
}

/// Takes out what belongs to one connection only (RFC 9110 section 7.6.1): the known fields and those that Connection
/// names. Done before anything is added, so that Connection can't erase what is added later.
/// `seen` says what the head holds.
pub(crate) fn remove_hop_by_hop(fields: &mut HeaderMap, seen: Survey) {
    if !seen.has(Survey::HOP_BY_HOP) {
        return;
    }
    if seen.has(Survey::CONNECTION) {
        let named: Vec<HeaderName> = tokens(fields, &header::CONNECTION)
            .filter_map(|token| token.parse().ok())
            .collect();
        for name in named {
            // A client may not make its own message unreadable for us.
            if name != header::CONTENT_LENGTH && name != header::HOST {
                fields.remove(name);
            }
        }
    }
    for name in HOP_BY_HOP {
        fields.remove(name);
    }
    fields.remove(header::PROXY_AUTHORIZATION);
    fields.remove(header::PROXY_AUTHENTICATE);
}

/// The comma-separated tokens of a field.
fn tokens<'a>(fields: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    fields
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(str::trim)
}

fn check_underscores(fields: &mut HeaderMap, underscores: Underscores) -> Result<(), ClientFault> {
    if underscores == Underscores::Allow {
        return Ok(());
    }
    if underscores == Underscores::Refuse {
        return Err(ClientFault::FieldName);
    }
    let names: Vec<HeaderName> = fields
        .keys()
        .filter(|name| name.as_str().contains('_'))
        .cloned()
        .collect();
    for name in names {
        fields.remove(name);
    }
    Ok(())
}

/// HTTP/2 may cut Cookie into several fields; everyone else expects one (RFC 9113 section 8.2.3).
fn join_cookies(fields: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = fields
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        fields.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut builder = http::Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn read_parts(mut parts: request::Parts) -> Result<Incoming, ClientFault> {
        let seen = Survey::of(&parts.headers);
        read(&mut parts, seen, &Reader::default(), &Settings::default())
    }

    fn check(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<Incoming, ClientFault> {
        read_parts(parts(method, uri, fields))
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (method, uri, fields, fault) in [
            ("GET", "/", &[][..], ClientFault::Host),
            (
                "GET",
                "/",
                &[("host", "a"), ("host", "a")],
                ClientFault::Host,
            ),
            ("GET", "/", &[("host", "a, b")], ClientFault::Host),
            ("GET", "/", &[("host", "u@a")], ClientFault::Host),
            ("GET", "/", &[("host", "a:99999")], ClientFault::Host),
            ("GET", "/", &[("host", "")], ClientFault::Host),
            ("GET", "http://b/x", &[("host", "a")], ClientFault::Host),
            (
                "POST",
                "/",
                &[
                    ("host", "a"),
                    ("content-length", "1"),
                    ("content-length", "1"),
                ],
                ClientFault::Framing,
            ),
            (
                "POST",
                "/",
                &[
                    ("host", "a"),
                    ("content-length", "1"),
                    ("transfer-encoding", "chunked"),
                ],
                ClientFault::Framing,
            ),
            (
                "POST",
                "/",
                &[("host", "a"), ("transfer-encoding", "gzip, chunked")],
                ClientFault::Coding,
            ),
            ("GET", "http://a/", &[("host", "a:81")], ClientFault::Host),
            ("GET", "http://u@a/", &[("host", "a")], ClientFault::Host),
            ("GET", "ftp://a/", &[("host", "a")], ClientFault::Path),
            ("GET", "a:80", &[("host", "a:80")], ClientFault::Path),
            ("GET", "/..%2fa", &[("host", "a")], ClientFault::Path),
            ("GET", "*", &[("host", "a")], ClientFault::Path),
            ("TRACE", "/", &[("host", "a")], ClientFault::Method),
            (
                "GET",
                "/",
                &[("host", "a"), ("expect", "gold")],
                ClientFault::Expectation,
            ),
        ] {
            assert_eq!(
                check(method, uri, fields).err(),
                Some(fault),
                "{method} {uri} {fields:?}"
            );
        }
    }

    #[test]
    fn connection_erases_the_clients_fields_only() {
        let incoming = check(
            "GET",
            "/a/../b?x",
            &[
                ("host", "A.example.:80"),
                ("connection", "close, x-user"),
                ("x-user", "root"),
                ("te", "trailers"),
                ("x_user", "root"),
                ("x-b", "1"),
            ],
        )
        .unwrap();
        assert_eq!(incoming.head.target, "/b?x");
        assert_eq!(
            incoming
                .head
                .fields
                .keys()
                .map(HeaderName::as_str)
                .collect::<Vec<_>>(),
            ["x-b"]
        );
        assert!(incoming.takes_trailers);
        assert_eq!(normal_host(&incoming.head.authority.unwrap()), "a.example");
    }

    #[test]
    fn only_a_whole_upgrade_is_one() {
        let ask = |fields: &[(&str, &str)]| check("GET", "/", fields).unwrap().upgrade;
        assert!(
            ask(&[
                ("host", "a"),
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "websocket")
            ])
            .is_some()
        );
        assert!(ask(&[("host", "a"), ("upgrade", "websocket")]).is_none());
        let upgrade = ("connection", "upgrade");
        assert!(ask(&[("host", "a"), upgrade, ("upgrade", "H2C")]).is_none());
        assert!(ask(&[("host", "a"), upgrade, ("upgrade", "websocket, h2c")]).is_none());
        assert!(ask(&[("host", "a"), upgrade, ("upgrade", "own-h2")]).is_some());
    }

    #[test]
    fn one_authority_is_one_however_it_is_written() {
        for (uri, host) in [
            ("http://a.example/", "A.example.:80"),
            ("http://a.example:80/", "a.example"),
            ("http://[::1]:8080/", "[::1]:8080"),
        ] {
            let incoming = check("GET", uri, &[("host", host)]).unwrap();
            assert_eq!(incoming.head.target, "/");
        }
    }

    #[test]
    fn crumbs_of_a_cookie_become_one() {
        let mut parts = parts(
            "GET",
            "http://a/",
            &[("cookie", "a=1"), ("cookie", "b=2"), ("x", "1")],
        );
        parts.version = Version::HTTP_2;
        let incoming = read_parts(parts).unwrap();
        let cookies: Vec<_> = incoming.head.fields.get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=1; b=2"]);
    }
}

//! From what the parser hands over to an exchange: who the client is, what it wants, and what was set apart from its
//! fields. Knows no routes.

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Version, request};
use tidegate_core::exchange::{Client, Exchange, RequestHead};
use tidegate_core::survey::Survey;

use crate::answer::{ClientFault, Manner};
use crate::connection::Connection;
use crate::forwarded;
use crate::head;
use crate::worker::Worker;

/// What a request's head said besides what filters see of it.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    /// The protocol that the client wants to change to.
    pub(crate) upgrade: Option<HeaderValue>,
    pub(crate) takes_trailers: bool,
    /// The names that the client announced trailers with.
    pub(crate) trailer: Option<HeaderValue>,
    /// The host that the client named.
    pub(crate) host: Option<HeaderValue>,
    /// Whether the client sends its body only when it is asked to.
    pub(crate) expects: bool,
}

/// What the client asked for, before any filter changed it: the log tells this.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) authority: Option<Authority>,
    pub(crate) target: PathAndQuery,
    pub(crate) version: Version,
    pub(crate) user_agent: Option<HeaderValue>,
    pub(crate) referer: Option<HeaderValue>,
}

/// A request on its way in.
pub(crate) struct Admitted {
    pub(crate) exchange: Exchange,
    /// For the log, if there is one.
    pub(crate) asked: Option<Box<Asked>>,
    pub(crate) aside: Aside,
    pub(crate) manner: Manner,
    /// Why it must be refused.
    pub(crate) fault: Option<ClientFault>,
}

/// Checks a request's head and makes its exchange. `found` is what the guard has seen already.
pub(crate) fn admit(
    worker: &Worker,
    connection: &Connection,
    mut parts: request::Parts,
    found: Option<ClientFault>,
) -> Admitted {
    let settings = &worker.shared.settings;
    let seen = Survey::of(&parts.headers);
    let address = if connection.trusted {
        let peer = connection.peer.ip();
        forwarded::client_address(peer, &parts.headers, &settings.trusted_proxies)
    } else {
        forwarded::strip_untrusted(&mut parts.headers, seen);
        connection.hop.peer
    };
    let request_id = if seen.has(Survey::REQUEST_ID) {
        request_id(&parts.headers)
    } else {
        None
    };
    let request_id = request_id.unwrap_or_else(|| worker.request_id());
    let trailer = if seen.has(Survey::TRAILER) {
        parts.headers.get(header::TRAILER).cloned()
    } else {
        None
    };
    let host = parts.headers.get(header::HOST).cloned();
    let read = match found {
        Some(fault) => Err(fault),
        None => head::read(&mut parts, seen, &connection.reader, settings),
    };
    let (head, mut aside, fault) = match read {
        Ok(incoming) => {
            let aside = Aside {
                upgrade: incoming.upgrade,
                takes_trailers: incoming.takes_trailers,
                trailer,
                host,
                expects: seen.has(Survey::EXPECT),
            };
            (incoming.head, aside, None)
        }
        Err(fault) => {
            let head = fallback(&parts, connection.tls.is_some());
            (head, Aside::default(), Some(fault))
        }
    };
    if aside.host.is_none() {
        aside.host = head
            .authority
            .as_ref()
            .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    }
    // Only the log asks for it.
    let asked = worker.shared.access_log.is_some().then(|| {
        Box::new(Asked {
            method: head.method.clone(),
            authority: head.authority.clone(),
            target: head.target.clone(),
            version: head.version,
            user_agent: head.fields.get(header::USER_AGENT).cloned(),
            referer: head.fields.get(header::REFERER).cloned(),
        })
    });
    let manner = Manner::of(&head, seen);
    let client = Client {
        address,
        peer: connection.peer,
        tls: connection.tls.clone(),
    };
    let mut exchange = Exchange::new(worker.next_id(), head, client, request_id);
    exchange.ambiguous = settings.ambiguous_paths;
    if let Some(scheme) = connection
        .trusted
        .then(|| told_scheme(&exchange.request.fields))
        .flatten()
    {
        exchange.request.scheme = scheme;
    }
    Admitted {
        exchange,
        asked,
        aside,
        manner,
        fault,
    }
}

/// How a trusted proxy says that the client spoke to it.
fn told_scheme(fields: &HeaderMap) -> Option<Scheme> {
    let proto = fields.get("x-forwarded-proto")?.as_bytes();
    if proto.eq_ignore_ascii_case(b"https") {
        Some(Scheme::HTTPS)
    } else if proto.eq_ignore_ascii_case(b"http") {
        Some(Scheme::HTTP)
    } else {
        None
    }
}

/// The client's request id, if it is one that can stand in a log.
fn request_id(fields: &HeaderMap) -> Option<HeaderValue> {
    let mut values = fields.get_all("x-request-id").iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    let may_stand = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@~".contains(byte);
    let fit = (1..=128).contains(&value.len()) && value.as_bytes().iter().all(may_stand);
    fit.then(|| value.clone())
}

/// A head for the log and the answer when the real one can't be used.
fn fallback(parts: &request::Parts, secure: bool) -> RequestHead {
    let kept = [header::ACCEPT, header::USER_AGENT, header::REFERER];
    RequestHead {
        method: parts.method.clone(),
        scheme: if secure { Scheme::HTTPS } else { Scheme::HTTP },
        authority: None,
        target: parts
            .uri
            .path_and_query()
            .cloned()
            .unwrap_or(PathAndQuery::from_static("/")),
        version: parts.version,
        fields: kept
            .into_iter()
            .filter_map(|name| Some((name.clone(), parts.headers.get(name)?.clone())))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_kept_if_it_is_one_token() {
        let id = |values: &[&'static str]| {
            let mut fields = HeaderMap::new();
            for value in values {
                fields.append("x-request-id", HeaderValue::from_static(value));
            }
            request_id(&fields)
        };
        assert_eq!(id(&["given-by-the-edge"]).unwrap(), "given-by-the-edge");
        assert_eq!(id(&["0af7651916cd43dd8448eb211c80319c"]).unwrap().len(), 32);
        for bad in ["", "a b", "a\"b", "a,b", "{}"] {
            assert_eq!(id(&[bad]), None, "{bad}");
        }
        assert_eq!(id(&["a", "a"]), None);
    }

    #[test]
    fn only_http_and_https_are_schemes() {
        let scheme = |value| {
            told_scheme(&HeaderMap::from_iter([(
                header::HeaderName::from_static("x-forwarded-proto"),
                HeaderValue::from_static(value),
            )]))
        };
        assert_eq!(scheme("HTTPS"), Some(Scheme::HTTPS));
        assert_eq!(scheme("http"), Some(Scheme::HTTP));
        assert_eq!(scheme("https, http"), None);
    }
}

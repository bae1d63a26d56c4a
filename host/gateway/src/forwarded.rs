//! Who the client is, and what the upstream is told of it: X-Forwarded-*, Forwarded (RFC 7239). Believes only peers that
//! the settings trust.

use std::cell::RefCell;
use std::net::IpAddr;

use http::header::{Entry, HeaderMap, HeaderName, HeaderValue};
use http::uri::Scheme;
use ipnet::IpNet;
use tidegate_core::fields::tells_of_the_client;
use tidegate_core::survey::Survey;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Whether a peer's word counts.
pub(crate) fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|network| network.contains(&peer))
}

/// The client's address: the peer's own, or behind trusted peers the rightmost of X-Forwarded-For that is not one of
/// them. What is no address ends the search.
pub(crate) fn client_address(peer: IpAddr, fields: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    if !is_trusted(client, trusted) {
        return client;
    }
    let mut hops: Vec<&str> = Vec::new();
    for value in fields.get_all(&FOR) {
        hops.extend(value.to_str().unwrap_or("?").split(',').map(str::trim));
    }
    for hop in hops.into_iter().rev() {
        let Some(address) = address(hop) else { break };
        client = address;
        if !is_trusted(client, trusted) {
            break;
        }
    }
    client
}

/// An address as proxies write it: bare, with a port, or in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    if let Some(inner) = text.strip_prefix('[') {
        return inner.split_once(']')?.0.parse().ok();
    }
    let parsed = text.parse::<IpAddr>().ok().or_else(|| {
        let (host, port) = text.rsplit_once(':')?;
        port.parse::<u16>().ok()?;
        host.parse().ok()
    });
    parsed.map(|address| address.to_canonical())
}

/// Takes out what an untrusted peer says of the client or of hops before us, however it is spelled. `seen` says what the
/// head holds. Done before any filter runs.
pub(crate) fn strip_untrusted(fields: &mut HeaderMap, seen: Survey) {
    if !seen.has(Survey::FORWARDED.and(Survey::UNDERSCORE)) {
        return;
    }
    let lies: Vec<HeaderName> = fields
        .keys()
        .filter(|name| tells_of_the_client(name.as_str()))
        .cloned()
        .collect();
    for name in lies {
        fields.remove(name);
    }
}

/// Our hop as it is told: the peer of one connection, and what was told last, since a connection's requests are alike.
#[derive(Debug)]
pub(crate) struct Hop {
    /// The peer's address, in its shortest form.
    pub(crate) peer: IpAddr,
    address: HeaderValue,
    node: String,
    last: RefCell<Option<Told>>,
}

/// An element of `Forwarded`, and what it was made of.
#[derive(Debug)]
struct Told {
    scheme: Scheme,
    host: Option<HeaderValue>,
    element: HeaderValue,
}

impl Hop {
    pub(crate) fn new(peer: IpAddr) -> Self {
        let peer = peer.to_canonical();
        let node = match peer {
            IpAddr::V4(address) => format!("for={address}"),
            IpAddr::V6(address) => format!("for=\"[{address}]\""),
        };
        let text = peer.to_string();
        Hop {
            peer,
            // An address is always a valid value.
            address: HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unknown")),
            node,
            last: RefCell::new(None),
        }
    }

    /// Adds our hop to a request: X-Forwarded-For and Forwarded grow by the peer, Proto says how the client spoke, and Host
    /// is set where no trusted proxy did. `host` is the one that the client named.
    pub(crate) fn append(
        &self,
        fields: &mut HeaderMap,
        scheme: &Scheme,
        host: Option<&HeaderValue>,
    ) {
        extend(fields, FOR, &self.address);
        let proto = if *scheme == Scheme::HTTPS {
            "https"
        } else {
            "http"
        };
        fields.insert(PROTO, HeaderValue::from_static(proto));
        if let Some(host) = host {
            fields.entry(HOST).or_insert_with(|| host.clone());
        }
        if let Some(element) = self.element(scheme, proto, host) {
            extend(fields, http::header::FORWARDED, &element);
        }
    }

    fn element(
        &self,
        scheme: &Scheme,
        proto: &str,
        host: Option<&HeaderValue>,
    ) -> Option<HeaderValue> {
        let mut last = self.last.borrow_mut();
        if let Some(told) = &*last
            && told.scheme == *scheme
            && told.host.as_ref() == host
        {
            return Some(told.element.clone());
        }
        let text = match host.and_then(|host| host.to_str().ok()) {
            Some(host) => format!("{};proto={proto};host=\"{host}\"", self.node),
            None => format!("{};proto={proto}", self.node),
        };
        let element = HeaderValue::try_from(text).ok()?;
        *last = Some(Told {
            scheme: scheme.clone(),
            host: host.cloned(),
            element: element.clone(),
        });
        Some(element)
    }
}

/// Adds an element behind those that a field has, in one line.
fn extend(fields: &mut HeaderMap, name: HeaderName, element: &HeaderValue) {
    match fields.entry(name) {
        Entry::Vacant(place) => {
            place.insert(element.clone());
        }
        Entry::Occupied(mut held) => {
            let values: Vec<&[u8]> = held
                .iter()
                .map(HeaderValue::as_bytes)
                .chain([element.as_bytes()])
                .collect();
            if let Ok(joined) = HeaderValue::from_bytes(&values.join(&b", "[..])) {
                held.insert(joined);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )])
    }

    #[test]
    fn only_trusted_peers_name_the_client() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (peer, value, expected) in [
            ("192.0.2.1", "1.2.3.4", "192.0.2.1"),
            ("10.0.0.1", "1.2.3.4", "1.2.3.4"),
            ("10.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.9", "1.2.3.4"),
            ("10.0.0.1", "1.2.3.4, garbage", "10.0.0.1"),
            ("10.0.0.1", "[2001:db8::1]:443", "2001:db8::1"),
            ("10.0.0.1", "1.2.3.4:5", "1.2.3.4"),
            ("::ffff:10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ] {
            assert_eq!(
                client_address(ip(peer), &fields("x-forwarded-for", value), &trusted),
                ip(expected),
                "{value}"
            );
        }
    }

    #[test]
    fn our_hop_is_added_behind_those_before() {
        let mut map = fields("x-forwarded-for", "1.2.3.4");
        let hop = Hop::new("::1".parse().unwrap());
        let host = HeaderValue::from_static("a.example");
        hop.append(&mut map, &Scheme::HTTPS, Some(&host));
        assert_eq!(map["x-forwarded-for"], "1.2.3.4, ::1");
        assert_eq!(map["x-forwarded-proto"], "https");
        assert_eq!(
            map["forwarded"],
            "for=\"[::1]\";proto=https;host=\"a.example\""
        );
        let seen = Survey::of(&map);
        strip_untrusted(&mut map, seen);
        assert!(map.is_empty());
        // The next request of the connection may be to another host, or to none.
        for _ in 0..2 {
            let host = HeaderValue::from_static("b.example");
            hop.append(&mut map, &Scheme::HTTP, Some(&host));
            assert_eq!(
                map["forwarded"],
                "for=\"[::1]\";proto=http;host=\"b.example\""
            );
            assert_eq!(map["x-forwarded-host"], "b.example");
            strip_untrusted(&mut map, seen);
        }
        hop.append(&mut map, &Scheme::HTTP, None);
        assert_eq!(map["forwarded"], "for=\"[::1]\";proto=http");
        assert!(!map.contains_key("x-forwarded-host"));
    }
}

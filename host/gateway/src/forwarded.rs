//! Who the client is, and what the upstream is told of it: X-Forwarded-*, Forwarded (RFC 7239). Believes only peers that
//! the settings trust.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Fields that tell of a hop before us; only a trusted peer may send them.
const TRUSTED_ONLY: [&str; 7] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-real-ip",
    "forwarded",
];

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

/// Takes out what an untrusted peer says of hops before us. Done before any filter runs.
pub(crate) fn strip_untrusted(fields: &mut HeaderMap) {
    for name in TRUSTED_ONLY {
        fields.remove(name);
    }
}

/// Adds our hop: X-Forwarded-For and Forwarded grow by the peer, Proto and Host are set where no trusted proxy did.
pub(crate) fn append(fields: &mut HeaderMap, peer: IpAddr, scheme: &str, host: &str) {
    let peer = peer.to_canonical();
    extend(fields, &FOR, &peer.to_string());
    for (name, text) in [(PROTO, scheme), (HOST, host)] {
        if !fields.contains_key(&name)
            && let Ok(value) = HeaderValue::from_str(text)
        {
            fields.insert(name, value);
        }
    }
    let mut element = String::new();
    // Writing to a string does not fail.
    let _ = match peer {
        IpAddr::V4(address) => write!(element, "for={address};proto={scheme}"),
        IpAddr::V6(address) => write!(element, "for=\"[{address}]\";proto={scheme}"),
    };
    if !host.is_empty() {
        let _ = write!(element, ";host=\"{host}\"");
    }
    extend(fields, &http::header::FORWARDED, &element);
}

fn extend(fields: &mut HeaderMap, name: &HeaderName, element: &str) {
    let mut joined = Vec::new();
    for value in fields.get_all(name) {
        if !joined.is_empty() {
            joined.extend_from_slice(b", ");
        }
        joined.extend_from_slice(value.as_bytes());
    }
    if !joined.is_empty() {
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(element.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        fields.insert(name.clone(), value);
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
        append(&mut map, "::1".parse().unwrap(), "https", "a.example");
        assert_eq!(map["x-forwarded-for"], "1.2.3.4, ::1");
        assert_eq!(map["x-forwarded-proto"], "https");
        assert_eq!(
            map["forwarded"],
            "for=\"[::1]\";proto=https;host=\"a.example\""
        );
        strip_untrusted(&mut map);
        assert!(map.is_empty());
    }
}

//! What an upstream is told of the hops before: nobody but a trusted proxy may say anything, what a client says can't
//! break out of a field, and what belongs to one connection goes no further.

use std::net::IpAddr;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Version};
use ipnet::IpNet;
use tidegate_core::fields::HOP_BY_HOP;
use tidegate_core::path::{Ambiguous, normalise};
use tidegate_gateway::Settings;
use tidegate_gateway::probe::{Passed, pass};

use super::fingerprint;
use crate::Target;
use crate::source::Source;

/// A byte for the connection, then lines: the target, and a field each.
pub const TARGET: Target = Target {
    name: "forwarding",
    fuzz,
    dictionary: &[
        "x-forwarded-for: ",
        "x-forwarded-proto: https\n",
        "x-forwarded-host: ",
        "forwarded: for=\"[::1]\";proto=https\n",
        "forwarded: ",
        "x-real-ip: 1.2.3.4\n",
        "host: a.example\n",
        "host: ",
        "connection: ",
        "close, ",
        "x-forwarded-for",
        "x_forwarded_for: 1\n",
        "10.0.0.1",
        "192.0.2.1",
        "[2001:db8::1]:443",
        "::ffff:10.0.0.1",
        "1.2.3.4:5",
        ", ",
        ",",
        "\"",
        ";",
        "unknown",
        "_hidden",
        "te: trailers\n",
        "upgrade: h2c\n",
        "content-length: 1\n",
        "transfer-encoding: chunked\n",
        "keep-alive: 1\n",
        "proxy-connection: a\n",
        "cookie: a=b\n",
        "http://a.example/",
        "/a/../b?c",
        "*",
        "\n",
        "@",
        "%",
    ],
};

/// Networks of trusted proxies.
const TRUSTED: [&str; 2] = ["10.0.0.0/8", "2001:db8::/32"];
/// Peers, of which the second half is trusted.
const PEERS: [&str; 4] = ["192.0.2.9", "::1", "10.0.0.9", "::ffff:10.0.0.8"];
/// Fields by which a client could make itself another.
const CLAIMS: [&str; 4] = [
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-real-ip",
    "forwarded",
];

/// See [`TARGET`].
pub fn fuzz(data: &[u8]) -> u64 {
    let mut source = Source::new(data);
    let choice = source.byte();
    let peer_index = usize::from(choice % 4);
    let peer: IpAddr = PEERS
        .get(peer_index)
        .and_then(|peer| peer.parse().ok())
        .expect("an address");
    let (is_trusted, secure) = (peer_index >= 2, choice & 4 != 0);
    let mut request = Request::builder().uri(source.line());
    request = request.version(match choice & 24 {
        8 => Version::HTTP_10,
        16 => Version::HTTP_2,
        _ => Version::HTTP_11,
    });
    let mut fields = 0;
    while !source.is_empty() && fields < 64 {
        let line = source.line();
        let colon = line
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            request = request.header(name, value);
            fields += 1;
        }
    }
    let Ok(request) = request.body(()) else {
        return 0;
    };
    let claimed = request.headers().clone();
    let settings = Settings {
        trusted_proxies: TRUSTED
            .iter()
            .map(|network| network.parse::<IpNet>().expect("a network"))
            .collect(),
        ..Settings::default()
    };
    match pass(request.into_parts().0, peer, secure, &settings) {
        Err(fault) => fingerprint(fault),
        Ok(passed) => {
            check(&passed, &claimed, peer.to_canonical(), is_trusted);
            fingerprint((
                passed.client == peer.to_canonical(),
                is_trusted,
                passed.sent.len(),
            ))
        }
    }
}

fn check(passed: &Passed, claimed: &HeaderMap, peer: IpAddr, is_trusted: bool) {
    let Passed { client, head, sent } = passed;
    let one = |name: &str| {
        let mut values = sent.get_all(name).iter();
        let value = values.next().map(HeaderValue::as_bytes);
        assert!(values.next().is_none(), "{name} stands twice");
        value
    };
    let hops = one("x-forwarded-for").expect("our hop");
    let last = hops
        .rsplit(|byte| *byte == b',')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    assert_eq!(
        last,
        peer.to_string().as_bytes(),
        "the last hop is the peer"
    );
    let told = one("forwarded").expect("our hop");
    check_element(told, is_trusted, peer);
    if is_trusted {
        let said: Vec<u8> = claimed
            .get_all("x-forwarded-for")
            .iter()
            .flat_map(|value| [value.as_bytes(), b","].concat())
            .collect();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(
            *client == peer || !said.is_empty(),
            "a client that nobody named"
        );
    } else {
        assert_eq!(
            hops,
            peer.to_string().as_bytes(),
            "an untrusted client has no hops before it"
        );
        assert_eq!(*client, peer);
        for name in CLAIMS.iter().take(3) {
            assert!(!sent.contains_key(*name), "{name} of an untrusted client");
        }
        let authority = head
            .authority
            .as_ref()
            .map(|authority| authority.as_str().as_bytes());
        assert_eq!(
            one("x-forwarded-host"),
            authority,
            "the host that the client named"
        );
    }
    let proto = one("x-forwarded-proto").expect("a protocol");
    assert!(matches!(proto, b"http" | b"https"));
    for name in HOP_BY_HOP {
        assert!(!sent.contains_key(name), "{name} belongs to one connection");
    }
    assert!(!sent.contains_key("host") && !sent.contains_key("expect"));
    assert!(
        sent.keys().all(|name| !name.as_str().contains('_')),
        "underscores are dropped"
    );
    let path = head.target.path();
    assert_eq!(
        normalise(path, Ambiguous::Refuse).as_deref(),
        Ok(path),
        "the path is in normal form"
    );
}

/// Our element of `Forwarded`: a client's words stand in it between quotes and can't end them.
fn check_element(told: &[u8], is_trusted: bool, peer: IpAddr) {
    let text = String::from_utf8_lossy(told);
    let node = match peer {
        IpAddr::V4(address) => format!("for={address};proto="),
        IpAddr::V6(address) => format!("for=\"[{address}]\";proto="),
    };
    let start = text
        .rfind(&node)
        .unwrap_or_else(|| panic!("no hop of ours in {text}"));
    assert!(is_trusted || start == 0, "something before our hop: {text}");
    let rest = text.get(start + node.len()..).unwrap_or_default();
    let rest = rest
        .strip_prefix("https")
        .or_else(|| rest.strip_prefix("http"))
        .expect("a protocol");
    if !rest.is_empty() {
        let host = rest
            .strip_prefix(";host=\"")
            .and_then(|rest| rest.strip_suffix('"'));
        let host = host.unwrap_or_else(|| panic!("an element that does not end: {text}"));
        assert!(
            !host.contains(['"', '\\']),
            "a host that breaks out of its quotes: {text}"
        );
    }
}

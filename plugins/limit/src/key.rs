//! Whose bucket a request takes from: the parts of a key, as they are configured and as a request fills them. Counts
//! nothing.
//!
//! A key is the rule's name and a line for each part. What others chose can hold no line break, so no two different
//! requests meet in one key by accident.

use std::cell::OnceCell;
use std::hash::Hasher as _;
use std::net::{IpAddr, Ipv6Addr};

use siphasher::sip128::{Hasher128 as _, SipHasher13};
use tidegate_sdk::prelude::*;

use crate::read::{Loose, from_loose, words};
use crate::words::{is_v4, mask, wide};

/// One thing by which requests are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    source: Source,
    /// What it is the value of: a field, a parameter, a property.
    name: Box<str>,
}

/// Where a part's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The client's address, as the proxy resolved it.
    Client,
    /// The consumer that an earlier filter found.
    Consumer,
    /// The first of the consumer's roles.
    Role,
    /// The route's name.
    Route,
    /// The host that the client named.
    Host,
    /// The request's method.
    Method,
    /// The same for all requests.
    Constant,
    /// A field of the request.
    Header,
    /// A parameter of the query.
    Query,
    /// A cookie.
    Cookie,
    /// A claim of the consumer's token, which is a property too.
    Claim,
    /// What a `{name}` of the route's path stands for.
    Param,
    /// A value that an earlier filter left.
    Property,
}

/// How they are written. Those behind `constant` take a name.
const SOURCES: [(&str, Source); 13] = [
    ("client", Source::Client),
    ("consumer", Source::Consumer),
    ("role", Source::Role),
    ("route", Source::Route),
    ("host", Source::Host),
    ("method", Source::Method),
    ("constant", Source::Constant),
    ("header", Source::Header),
    ("query", Source::Query),
    ("cookie", Source::Cookie),
    ("claim", Source::Claim),
    ("param", Source::Param),
    ("property", Source::Property),
];

impl ConfigSchema for Part {
    const SCHEMA: &'static str = r#"{"type":"string","title":"key","pattern":"^(client|consumer|role|route|host|method|constant|(header|query|cookie|claim|param|property):.+)$","examples":["client","consumer","header:x-tenant"]}"#;
}

impl Part {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once(':') {
            Some((kind, name)) => (kind, Some(name)),
            None => (text, None),
        };
        let known = SOURCES.iter().find(|(word, _)| *word == kind);
        let source = known.map(|(_, source)| *source);
        let named = source.is_some_and(|source| source as u8 > Source::Constant as u8);
        let why = match (source, name) {
            (None, _) => {
                "is no key: there is client, consumer, role, route, host, method, constant, header:NAME, query:NAME, cookie:NAME, claim:NAME, param:NAME and property:NAME"
            }
            (Some(_), Some(_)) if !named => "takes no name: leave it away",
            (Some(_), None | Some("")) if named => "names nothing: write a name behind a colon",
            (Some(Source::Header), Some(name)) if !is_token(name) => "has no name of a field",
            (Some(source), name) => {
                let name = name.unwrap_or_default();
                let name = match source {
                    Source::Header => name.to_ascii_lowercase(),
                    Source::Claim => ["claim.", name].concat(),
                    _ => name.to_owned(),
                };
                return Ok(Part {
                    source,
                    name: name.into(),
                });
            }
        };
        Err(["`", text, "` ", why].concat())
    }
}

/// Whether a text can be a field's name (RFC 9110 section 5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

/// A whole key: one part, or several joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) Vec<Part>);

impl Key {
    /// More parts than this help nobody, and the host bounds its keys.
    const MOST: usize = 4;
}

impl Default for Key {
    fn default() -> Self {
        Key(vec![Part {
            source: Source::Client,
            name: "".into(),
        }])
    }
}

impl ConfigSchema for Key {
    const SCHEMA: &'static str = tidegate_sdk::schema::concat!(
        r#"{"anyOf":["#,
        <Part as ConfigSchema>::SCHEMA,
        r#",{"type":"array","minItems":1,"maxItems":4,"items":{"type":"string"}}]}"#,
    );
}

from_loose!(Key);

impl Key {
    fn read(loose: Loose) -> Result<Self, String> {
        let texts = match loose {
            Loose::Text(text) => vec![text],
            Loose::List(texts) if (1..=Self::MOST).contains(&texts.len()) => texts,
            _ => return Err(
                "a key is one of client, consumer, header:NAME and so on, or a list of one to four"
                    .into(),
            ),
        };
        let parts: Result<_, _> = texts.iter().map(|text| Part::parse(text)).collect();
        parts.map(Key)
    }
}

words! {
    /// What becomes of a request for which a part has no value.
    pub(crate) enum Missing {
        /// The client's address stands in its place.
        #[default]
        "client" => Client,
        /// All requests without it share one bucket.
        "shared" => Shared,
        /// The rule lets it pass.
        "pass" => Pass,
    }
}

/// How many leading bits of an address name one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefixes {
    pub(crate) v4: u8,
    pub(crate) v6: u8,
}

impl Default for Prefixes {
    fn default() -> Self {
        Prefixes { v4: 32, v6: 64 }
    }
}

/// What several rules ask of one request, asked of the host once.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    request: &'a RequestHead,
    client: OnceCell<String>,
    consumer: OnceCell<Option<Vec<u8>>>,
    roles: OnceCell<Option<Vec<u8>>>,
}

impl<'a> Facts<'a> {
    pub(crate) fn new(request: &'a RequestHead) -> Self {
        Facts {
            request,
            client: OnceCell::new(),
            consumer: OnceCell::new(),
            roles: OnceCell::new(),
        }
    }

    pub(crate) fn request(&self) -> &RequestHead {
        self.request
    }

    pub(crate) fn client(&self) -> &str {
        self.client.get_or_init(|| self.request.client_address())
    }

    /// The consumer's name; none for nobody, whom auth may let pass with an empty one.
    pub(crate) fn consumer(&self) -> Option<&[u8]> {
        self.consumer
            .get_or_init(|| self.request.property("consumer"))
            .as_deref()
            .filter(|name| !name.is_empty())
    }

    /// The consumer's roles, in their order.
    pub(crate) fn roles(&self) -> impl Iterator<Item = &[u8]> {
        let roles = self.roles.get_or_init(|| self.request.property("roles"));
        let roles = roles.as_deref().unwrap_or_default();
        roles
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            .filter(|role| !role.is_empty())
    }
}

/// Adds a key's parts to the text in which it is made. Says false if a part has no value and the rule lets such requests
/// pass.
pub(crate) fn write(
    out: &mut String,
    parts: &[Part],
    missing: Missing,
    prefixes: Prefixes,
    facts: &Facts<'_>,
) -> bool {
    parts
        .iter()
        .all(|part| write_part(out, part, missing, prefixes, facts))
}

fn write_part(
    out: &mut String,
    part: &Part,
    missing: Missing,
    prefixes: Prefixes,
    facts: &Facts<'_>,
) -> bool {
    let (request, name) = (facts.request(), &part.name);
    let (kind, value) = match part.source {
        Source::Client => {
            write_client(out, facts.client(), prefixes);
            return true;
        }
        Source::Constant => return true,
        Source::Consumer => {
            return match facts.consumer() {
                Some(value) => written(out, 'n', Author::Operator, value),
                None => without(out, missing, prefixes, facts),
            };
        }
        Source::Role => {
            return match facts.roles().next() {
                Some(value) => written(out, 'r', Author::Operator, value),
                None => without(out, missing, prefixes, facts),
            };
        }
        Source::Route => ('R', Some(request.route().into_bytes())),
        Source::Claim | Source::Property => ('p', request.property(name)),
        Source::Method => ('m', Some(request.method().into_bytes())),
        Source::Host => {
            let mut host = request.authority().into_bytes();
            host.make_ascii_lowercase();
            ('a', Some(host))
        }
        Source::Header => ('h', request.get(name)),
        Source::Query => {
            let query = request.query();
            ('q', query.and_then(|query| parameter(&query, name)))
        }
        Source::Cookie => {
            let all = request.get_all("cookie");
            let value = all.iter().find_map(|cookies| cookie(cookies, name));
            ('k', value.map(<[u8]>::to_vec))
        }
        Source::Param => ('u', request.path_parameter(name).map(String::into_bytes)),
    };
    let author = match part.source {
        Source::Route | Source::Claim | Source::Property => Author::Operator,
        _ => Author::Client,
    };
    match value {
        Some(value) => written(out, kind, author, &value),
        None => without(out, missing, prefixes, facts),
    }
}

/// What stands for a part that has no value. Says false if the rule lets such requests pass.
fn without(out: &mut String, missing: Missing, prefixes: Prefixes, facts: &Facts<'_>) -> bool {
    match missing {
        Missing::Pass => return false,
        Missing::Client => write_client(out, facts.client(), prefixes),
        Missing::Shared => out.push_str("\n-"),
    }
    true
}

/// An address's leading bits: an IPv4 address as it is written, an IPv6 address in eight groups.
fn write_client(out: &mut String, text: &str, prefixes: Prefixes) {
    out.push_str("\nc");
    if prefixes.v4 == 32 && !text.contains(':') {
        return out.push_str(text);
    }
    let Ok(address) = text.parse::<IpAddr>() else {
        return out.push_str(text);
    };
    let address = wide(address);
    let prefix = if is_v4(address) {
        prefixes.v4 + 96
    } else {
        prefixes.v6
    };
    let kept = address & mask(prefix);
    if is_v4(address) {
        for (index, octet) in kept.to_be_bytes().into_iter().skip(12).enumerate() {
            if index > 0 {
                out.push('.');
            }
            out.push_str(itoa::Buffer::new().format(octet));
        }
    } else {
        for group in Ipv6Addr::from(kept).segments() {
            hexadecimal(out, u64::from(group), 4);
            out.push(':');
        }
    }
}

/// Who has chosen a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Author {
    /// The operator, or a filter on its behalf.
    Operator,
    /// The client.
    Client,
}

/// Adds a value. The operator's stands as it is, unless it is long or odd. A client's is hashed: so it takes little room
/// however long it is, and what may be a secret stands in no store. Always true.
fn written(out: &mut String, kind: char, author: Author, value: &[u8]) -> bool {
    const LONGEST: usize = 64;
    out.push('\n');
    if author == Author::Operator
        && value.len() <= LONGEST
        && value.iter().all(|byte| *byte >= b' ')
        && let Ok(text) = std::str::from_utf8(value)
    {
        out.push(kind);
        out.push_str(text);
        return true;
    }
    let mut hasher = SipHasher13::new();
    hasher.write(value);
    let hash = hasher.finish128();
    out.push('#');
    out.push(kind);
    hexadecimal(out, hash.h1, 16);
    hexadecimal(out, hash.h2, 16);
    true
}

/// The last digits of a number to base 16.
fn hexadecimal(out: &mut String, number: u64, digits: u32) {
    for digit in (0..digits).rev() {
        let nibble = u8::try_from((number >> (digit * 4)) & 15).unwrap_or(0);
        out.push(char::from(if nibble < 10 {
            b'0' + nibble
        } else {
            b'a' - 10 + nibble
        }));
    }
}

/// The first value of a query's parameter, decoded.
fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name || decode(key) == name.as_bytes()).then(|| decode(value))
    })
}

/// What `%XX` and `+` stand for.
fn decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let digit = |byte: &u8| {
            char::from(*byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        match (first, tail) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, behind @ ..])
                if let (Some(high), Some(low)) = (digit(high), digit(low)) =>
            {
                out.push(high * 16 + low);
                rest = behind;
            }
            _ => out.push(*first),
        }
    }
    out
}

/// The first value of a cookie (RFC 6265 section 4.2.1).
fn cookie<'a>(cookies: &'a [u8], name: &str) -> Option<&'a [u8]> {
    cookies.split(|byte| *byte == b';').find_map(|pair| {
        let rest = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str, v4: u8, v6: u8) -> String {
        let mut out = String::new();
        write_client(&mut out, text, Prefixes { v4, v6 });
        out
    }

    #[test]
    fn ipv6_neighbours_share_a_bucket_and_ipv4_ones_do_not() {
        assert_eq!(
            client("2001:db8:1:2:3::1", 32, 64),
            client("2001:db8:1:2:ffff::9", 32, 64)
        );
        assert_ne!(
            client("2001:db8:1:2::1", 32, 64),
            client("2001:db8:1:3::1", 32, 64)
        );
        assert_ne!(client("192.0.2.1", 32, 64), client("192.0.2.2", 32, 64));
        assert_eq!(
            client("::ffff:192.0.2.1", 32, 64),
            client("192.0.2.1", 32, 64)
        );
        assert_eq!(client("192.0.2.1", 24, 64), client("192.0.2.254", 24, 64));
        assert_ne!(client("192.0.2.1", 24, 64), client("192.0.3.1", 24, 64));
        assert_eq!(client("192.0.2.1", 0, 64), client("10.9.8.7", 0, 0));
        assert_eq!(client("2001:db8::1", 32, 0), client("fe80::1", 32, 0));
        assert_ne!(
            client("2001:db8::1", 32, 128),
            client("2001:db8::2", 32, 128)
        );
        assert_eq!(
            client("2001:db8::1", 32, 48),
            "\nc2001:0db8:0000:0000:0000:0000:0000:0000:"
        );
    }

    #[test]
    fn every_kind_of_key_is_read_and_others_are_told_what_there_is() {
        for (text, source, name) in [
            ("header:X-Tenant", Source::Header, "x-tenant"),
            ("claim:sub", Source::Claim, "claim.sub"),
            ("query:a:b", Source::Query, "a:b"),
            ("client", Source::Client, ""),
        ] {
            let part = Part::parse(text).unwrap();
            assert_eq!((part.source, &*part.name), (source, name), "{text}");
        }
        for plain in [
            "client", "consumer", "role", "route", "host", "method", "constant",
        ] {
            assert!(Part::parse(plain).is_ok(), "{plain}");
        }
        for (text, word) in [
            ("adress", "is no key: there is client"),
            ("header", "names nothing"),
            ("header:", "names nothing"),
            ("header:a b", "no name of a field"),
            ("client:x", "takes no name"),
            ("", "is no key"),
        ] {
            let error = Part::parse(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn kinds_do_not_mix_and_long_values_stay_short_and_apart() {
        let made = |kind, author, value: &[u8]| {
            let mut out = String::new();
            assert!(written(&mut out, kind, author, value));
            out
        };
        let (operator, client) = (Author::Operator, Author::Client);
        assert_eq!(made('n', operator, b"ada"), "\nnada");
        assert_ne!(made('n', operator, b"a"), made('r', operator, b"a"));
        assert_ne!(made('h', client, b"a"), made('q', client, b"a"));
        let long = "x".repeat(8_000);
        let one = made('n', operator, format!("{long}1").as_bytes());
        assert_ne!(one, made('n', operator, format!("{long}2").as_bytes()));
        assert!(one.len() <= 40);
        // A line break in a value begins no part.
        assert_eq!(made('n', operator, b"a\nnb").matches('\n').count(), 1);
        assert!(!made('h', client, b"secret").contains("secret"));
    }

    #[test]
    fn parameters_and_cookies_are_found() {
        assert_eq!(parameter("a=1&b=x%2fy+z&b=2", "b").unwrap(), b"x/y z");
        assert_eq!(parameter("%61=1", "a").unwrap(), b"1");
        assert_eq!(parameter("a", "a").unwrap(), b"");
        assert_eq!(parameter("ab=1", "a"), None);
        assert_eq!(decode("%"), b"%");
        assert_eq!(decode("%4"), b"%4");
        assert_eq!(decode("%zz%41"), b"%zzA");
        assert_eq!(cookie(b"x=1; sid=abc; y=2", "sid").unwrap(), b"abc");
        assert_eq!(cookie(b"xsid=abc;sid2=d", "sid"), None);
    }
}

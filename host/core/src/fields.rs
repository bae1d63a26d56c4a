//! Which header fields are the host's alone, and the bounds on what a filter may put into a head. Pure rules on
//! names and values; knows no exchange.

use std::cell::RefCell;

use http::header::{GetAll, HeaderMap, HeaderName, HeaderValue};

use crate::exchange::Refusal;

/// The most fields that a filter may leave in one head, values of one name each counted.
pub const MAX_FIELDS: usize = 256;
/// The longest value that a filter may set, in bytes.
pub const MAX_VALUE: usize = 32 * 1024;
/// The most bytes of names and values that a filter may leave in one head.
pub const MAX_HEAD: usize = 64 * 1024;

/// Hop-by-hop fields (RFC 9110 section 7.6.1): they are about one connection, never forwarded, and no filter
/// may set them.
pub const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Fields that say how a message is framed or routed and may therefore not stand in trailers (RFC 9110 section
/// 6.5.1), with those that decide who somebody is.
const NOT_IN_TRAILERS: [&str; 9] = [
    "authorization",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "host",
    "set-cookie",
    "x-forwarded-for",
];

/// Whether the host alone decides on a field of a head.
pub fn is_hosts(name: &str) -> bool {
    name == "host" || name == "content-length" || name == "trailer" || HOP_BY_HOP.contains(&name)
}

/// Whether a field may stand in trailers.
pub fn may_trail(name: &str) -> bool {
    !is_hosts(name) && !NOT_IN_TRAILERS.contains(&name)
}

/// Whether a field says who a client is, or what hops before us saw of it: only proxies that are trusted may send it
/// (RFC 7239 section 8.1; RFC 9440 section 4.1). An underscore counts as a hyphen, since many servers read it as one.
pub fn tells_of_the_client(name: &str) -> bool {
    const NAMES: [&str; 4] = ["forwarded", "x-real-ip", "client-cert", "client-cert-chain"];
    const BEGINNINGS: [&str; 4] = [
        "x-forwarded-",
        "x-client-cert",
        "x-ssl-client-",
        "ssl-client-",
    ];
    NAMES
        .iter()
        .any(|known| name.len() == known.len() && begins_like(name, known))
        || BEGINNINGS.iter().any(|known| begins_like(name, known))
}

/// Whether a name in lower case begins with another, or looks so to who reads underscores as hyphens.
fn begins_like(name: &str, beginning: &str) -> bool {
    name.len() >= beginning.len()
        && name
            .bytes()
            .zip(beginning.bytes())
            .all(|(byte, known)| byte == known || (byte == b'_' && known == b'-'))
}

/// Reads a name that a filter gave.
///
/// # Errors
/// [`Refusal::InvalidName`] for what is no token.
pub fn name(name: &str) -> Result<HeaderName, Refusal> {
    with_name(name, HeaderName::clone)
}

/// The first value of a field, whose name may be no token.
pub fn find<'a>(fields: &'a HeaderMap, name: &str) -> Option<&'a HeaderValue> {
    with_name(name, |name| fields.get(name)).ok()?
}

/// All values of a field, whose name may be no token.
pub fn find_all<'a>(fields: &'a HeaderMap, name: &str) -> Option<GetAll<'a, HeaderValue>> {
    with_name(name, |name| fields.get_all(name)).ok()
}

/// Names up to this length are kept by [`with_name`], so many a thread.
const KEPT_NAME: usize = 64;
const KEPT_NAMES: usize = 64;

/// Reads a name. Filters use the same few again and again, and a name that was used lately costs a comparison.
fn with_name<R>(name: &str, then: impl FnOnce(&HeaderName) -> R) -> Result<R, Refusal> {
    thread_local! {
        static KEPT: RefCell<[Option<HeaderName>; KEPT_NAMES]> =
            const { RefCell::new([const { None }; KEPT_NAMES]) };
    }
    let read = || HeaderName::from_bytes(name.as_bytes()).map_err(|_| Refusal::InvalidName);
    let Some(place) = place_of(name.as_bytes()) else {
        return Ok(then(&read()?));
    };
    KEPT.with_borrow_mut(|kept| {
        let Some(held) = kept.get_mut(place) else {
            return Ok(then(&read()?));
        };
        // Lower case is the names' only other spelling.
        if let Some(known) = held
            && known.as_str().eq_ignore_ascii_case(name)
        {
            return Ok(then(known));
        }
        Ok(then(held.insert(read()?)))
    })
}

/// Where a name is kept, the same for all its spellings: decided by its length and three of its letters.
fn place_of(name: &[u8]) -> Option<usize> {
    if name.len() > KEPT_NAME {
        return None;
    }
    let lower = |byte: &u8| usize::from(byte | 0x20);
    let (first, last) = (lower(name.first()?), lower(name.last()?));
    let middle = lower(name.get(name.len() / 2)?);
    Some((name.len() * 5 + first + middle * 3 + last * 7) % KEPT_NAMES)
}

/// Reads a value that a filter gave.
///
/// # Errors
/// [`Refusal::InvalidValue`] for control characters, [`Refusal::TooLarge`] over [`MAX_VALUE`].
pub fn value(value: &[u8]) -> Result<HeaderValue, Refusal> {
    if value.len() > MAX_VALUE {
        return Err(Refusal::TooLarge);
    }
    HeaderValue::from_bytes(value).map_err(|_| Refusal::InvalidValue)
}

/// A value up to this length is short.
pub const SHORT: usize = 1024;

/// Whether a head with one more such value could be too large. Few fields with a short new one can't be, because the
/// client's or upstream's head was bounded when it came.
pub fn is_crowded(fields: &HeaderMap, value: &HeaderValue) -> bool {
    fields.len() > 32 || value.len() > SHORT
}

/// Checks that a head has room for one more field of the given size.
///
/// # Errors
/// [`Refusal::TooLarge`].
pub fn room(fields: &HeaderMap, name: &HeaderName, value: &HeaderValue) -> Result<(), Refusal> {
    if fields.len() >= MAX_FIELDS {
        return Err(Refusal::TooLarge);
    }
    if is_crowded(fields, value) {
        let held: usize = fields
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        if held + name.as_str().len() + value.len() > MAX_HEAD {
            return Err(Refusal::TooLarge);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_would_break_a_line_are_refused() {
        for bad in [&b"a\r\nb"[..], b"a\nb", b"a\0b", b"\x7f"] {
            assert_eq!(value(bad), Err(Refusal::InvalidValue));
        }
        assert!(value(b"caf\xe9").is_ok());
        assert_eq!(value(&vec![b'a'; MAX_VALUE + 1]), Err(Refusal::TooLarge));
    }

    #[test]
    fn names_are_tokens() {
        for bad in ["", "a b", "a:", "a\r\n", "é"] {
            assert_eq!(name(bad), Err(Refusal::InvalidName), "{bad:?}");
        }
        assert_eq!(name("X-A").unwrap(), "x-a");
    }

    #[test]
    fn what_tells_of_the_client_does_so_in_every_spelling() {
        for name in [
            "forwarded",
            "x-real-ip",
            "x_real_ip",
            "x-forwarded-for",
            "x_forwarded-client_cert",
            "x-client-cert",
            "x-client-certificate",
            "x_client_cert_subject",
            "client-cert",
            "client_cert-chain",
            "ssl-client-verify",
            "x_ssl_client_s_dn",
        ] {
            assert!(tells_of_the_client(name), "{name}");
        }
        for name in [
            "client-certs",
            "forwarded-by",
            "x-client",
            "x-real-ips",
            "",
            "x",
        ] {
            assert!(!tells_of_the_client(name), "{name}");
        }
    }

    #[test]
    fn a_name_that_is_kept_is_the_same_name_in_every_spelling() {
        let mut fields = HeaderMap::new();
        for (index, spelled) in ["x-a", "X-A", "x-b", "content-type", "Content-Type"]
            .into_iter()
            .cycle()
            .take(20)
            .enumerate()
        {
            let read = name(spelled).unwrap();
            assert_eq!(read.as_str(), spelled.to_ascii_lowercase());
            fields.append(read, HeaderValue::from(index));
            assert!(find(&fields, spelled).is_some());
        }
        let all = |name| find_all(&fields, name).map(|all| all.iter().count());
        assert_eq!((all("X-a"), all("x-B")), (Some(8), Some(4)));
        assert_eq!((all("x-c"), all("x a"), all("")), (Some(0), None, None));
        assert_eq!(find(&fields, "x\0a"), None);
        // More of them than are kept, and a letter that is another one without its case.
        for number in 0..1000 {
            assert_eq!(
                name(&format!("X-{number}")).unwrap().as_str(),
                format!("x-{number}")
            );
        }
        assert_eq!(name("x_a").unwrap().as_str(), "x_a");
        assert_eq!(name("x\u{7f}a"), Err(Refusal::InvalidName));
    }

    #[test]
    fn a_head_does_not_grow_without_bound() {
        let mut fields = HeaderMap::new();
        let big = value(&vec![b'a'; 30 * 1024]).unwrap();
        let name = name("x-big").unwrap();
        let mut added = 0;
        while room(&fields, &name, &big).is_ok() {
            fields.append(name.clone(), big.clone());
            added += 1;
        }
        assert_eq!(added, 2);
    }
}

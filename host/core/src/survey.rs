//! Which of the fields that mean something to a proxy stand in a head, found in one pass over it: most heads hold none of
//! them, and looking for each in turn costs more than all the rest of reading a head. Knows no values.

use http::header::HeaderMap;

use crate::fields::tells_of_the_client;

/// The fields that a head holds, of those that mean something to a proxy. A set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey(u32);

impl Survey {
    /// `Accept`.
    pub const ACCEPT: Survey = Survey(1);
    /// `Connection`.
    pub const CONNECTION: Survey = Survey(1 << 1);
    /// `Content-Length`.
    pub const CONTENT_LENGTH: Survey = Survey(1 << 2);
    /// `Transfer-Encoding`.
    pub const TRANSFER_ENCODING: Survey = Survey(1 << 3);
    /// `TE`.
    pub const TE: Survey = Survey(1 << 4);
    /// `Trailer`.
    pub const TRAILER: Survey = Survey(1 << 5);
    /// `Upgrade`.
    pub const UPGRADE: Survey = Survey(1 << 6);
    /// `Keep-Alive`.
    pub const KEEP_ALIVE: Survey = Survey(1 << 7);
    /// Any other field that is about one connection only: `Proxy-Connection`, `HTTP2-Settings`, `Proxy-Authorization`,
    /// `Proxy-Authenticate`.
    pub const OTHER_HOP: Survey = Survey(1 << 8);
    /// `Expect`.
    pub const EXPECT: Survey = Survey(1 << 9);
    /// `Cookie`.
    pub const COOKIE: Survey = Survey(1 << 10);
    /// `X-Request-Id`.
    pub const REQUEST_ID: Survey = Survey(1 << 11);
    /// A field that [tells of the client](tells_of_the_client), if no underscore stands for a hyphen of its name.
    pub const FORWARDED: Survey = Survey(1 << 12);
    /// A name with an underscore.
    pub const UNDERSCORE: Survey = Survey(1 << 13);
    /// Everything that is about one connection only (RFC 9110 section 7.6.1).
    pub const HOP_BY_HOP: Survey = Survey::CONNECTION
        .and(Survey::TRANSFER_ENCODING)
        .and(Survey::TE)
        .and(Survey::UPGRADE)
        .and(Survey::KEEP_ALIVE)
        .and(Survey::OTHER_HOP);

    /// Looks through a head.
    pub fn of(fields: &HeaderMap) -> Survey {
        fields.keys().fold(Survey::default(), |found, name| {
            found.and(Survey::named(name.as_str()))
        })
    }

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Survey) -> Survey {
        Survey(self.0 | other.0)
    }

    /// Whether the head holds any field of a set.
    pub const fn has(self, any: Survey) -> bool {
        self.0 & any.0 != 0
    }

    /// What a name, in lower case, counts as.
    fn named(name: &str) -> Survey {
        // By length first: most names are none of these, and are not compared with any.
        match (name.len(), name) {
            (2, "te") => Survey::TE,
            (6, "accept") => Survey::ACCEPT,
            (6, "cookie") => Survey::COOKIE,
            (6, "expect") => Survey::EXPECT,
            (7, "trailer") => Survey::TRAILER,
            (7, "upgrade") => Survey::UPGRADE,
            (10, "connection") => Survey::CONNECTION,
            (10, "keep-alive") => Survey::KEEP_ALIVE,
            (12, "x-request-id") => Survey::REQUEST_ID,
            (14, "content-length") => Survey::CONTENT_LENGTH,
            (14, "http2-settings") => Survey::OTHER_HOP,
            (16, "proxy-connection") => Survey::OTHER_HOP,
            (17, "transfer-encoding") => Survey::TRANSFER_ENCODING,
            (18, "proxy-authenticate") | (19, "proxy-authorization") => Survey::OTHER_HOP,
            _ => {
                let spelled = if name.as_bytes().contains(&b'_') {
                    Survey::UNDERSCORE
                } else {
                    Survey::default()
                };
                // None of those names begins otherwise.
                match name.as_bytes() {
                    [b'x', b'-', b'f' | b'c' | b'r' | b's', ..] | [b'f' | b'c' | b's', ..]
                        if tells_of_the_client(name) =>
                    {
                        spelled.and(Survey::FORWARDED)
                    }
                    _ => spelled,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::HOP_BY_HOP;
    use http::header::{HeaderName, HeaderValue};

    fn survey(names: &[&str]) -> Survey {
        let fields = names.iter().map(|name| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, HeaderValue::from_static("x"))
        });
        Survey::of(&fields.collect())
    }

    #[test]
    fn every_hop_by_hop_field_counts_as_one() {
        for name in HOP_BY_HOP {
            assert!(survey(&[name]).has(Survey::HOP_BY_HOP), "{name}");
        }
        for name in ["Proxy-Authorization", "Proxy-Authenticate"] {
            assert!(survey(&[name]).has(Survey::HOP_BY_HOP), "{name}");
        }
    }

    #[test]
    fn a_head_holds_what_its_fields_count_as() {
        let usual = survey(&["Host", "User-Agent", "Content-Type", "X-A"]);
        assert_eq!(usual, Survey::default());
        let found = survey(&["x-a_b", "X-Forwarded-Port", "Expect", "Host"]);
        for set in [Survey::UNDERSCORE, Survey::FORWARDED, Survey::EXPECT] {
            assert!(found.has(set));
        }
        assert!(!found.has(Survey::HOP_BY_HOP));
        assert!(found.has(Survey::HOP_BY_HOP.and(Survey::EXPECT)));
    }
    #[test]
    fn an_underscore_counts_whatever_stands_before_it() {
        for name in ["x-forwarded-for_", "x-forwarded-user_id", "te_", "_x"] {
            assert!(survey(&[name]).has(Survey::UNDERSCORE), "{name}");
        }
        assert!(survey(&["x-forwarded-for_"]).has(Survey::FORWARDED));
        assert!(!survey(&["x-forwarded-for"]).has(Survey::UNDERSCORE));
    }

    #[test]
    fn what_tells_of_the_client_is_found_whatever_it_begins_with() {
        for name in [
            "forwarded",
            "x-real-ip",
            "x-forwarded-anything",
            "x-client-cert-subject",
            "client-cert",
            "client-cert-chain",
            "ssl-client-cert",
            "x-ssl-client-verify",
        ] {
            assert_eq!(survey(&[name]), Survey::FORWARDED, "{name}");
        }
    }
}

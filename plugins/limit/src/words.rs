//! The single values of a configuration: each is read into what it means where it stands, so that a mistake is told at
//! its place. Knows no rule.

use std::net::{IpAddr, Ipv6Addr};

use tidegate_sdk::prelude::*;

use crate::read::{from_number, from_text};

const SECOND: u64 = 1_000;
const DAY: u64 = 86_400 * SECOND;
/// The longest period, in milliseconds: a leap year.
const LONGEST: u64 = 366 * DAY;

/// How long a quota is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period {
    /// Its length in milliseconds, at least 1.
    pub(crate) length: u64,
    /// How calendars cut it.
    pub(crate) cut: Cut,
}

/// Where one window of a calendar ends and the next begins, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// At whole multiples of its length since 1970, which for a minute, an hour or a day is where a clock cuts.
    Even,
    /// On Mondays.
    Week,
    /// On the first of a month.
    Month,
}

impl Default for Period {
    fn default() -> Self {
        Period {
            length: SECOND,
            cut: Cut::Even,
        }
    }
}

impl ConfigSchema for Period {
    const SCHEMA: &'static str = r#"{"type":"string","title":"period","pattern":"^(second|minute|hour|day|week|month|0*[1-9][0-9]*(s|m|h|d))$","examples":["minute","10s"]}"#;
}

from_text!(Period);

impl Period {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (length, cut) = match text {
            "second" => (SECOND, Cut::Even),
            "minute" => (60 * SECOND, Cut::Even),
            "hour" => (3_600 * SECOND, Cut::Even),
            "day" => (DAY, Cut::Even),
            "week" => (7 * DAY, Cut::Week),
            "month" => (30 * DAY, Cut::Month),
            _ => (milliseconds(text).unwrap_or(0), Cut::Even),
        };
        if length < SECOND {
            return Err([
                "`",
                text,
                "` is no period: write second, minute, hour, day, week, month, or a number with s, m, h or d",
            ]
            .concat());
        }
        if length > LONGEST {
            return Err(["`", text, "` is longer than 366 days"].concat());
        }
        Ok(Period { length, cut })
    }
}

/// How long a request may be made to wait, in milliseconds; at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait(pub(crate) u32);

impl ConfigSchema for Wait {
    const SCHEMA: &'static str = r#"{"type":"string","title":"duration","pattern":"^0*[1-9][0-9]*(ms|s|m)$","examples":["500ms","2s"]}"#;
}

from_text!(Wait);

impl Wait {
    /// The longest that the host lets one filter hold one request.
    const LONGEST: u64 = 60 * SECOND;

    fn parse(text: &str) -> Result<Self, String> {
        match milliseconds(text) {
            Some(length @ 1..=Self::LONGEST) => Ok(Wait(u32::try_from(length).unwrap_or(u32::MAX))),
            Some(_) => Err(["`", text, "` is not between 1ms and 60s"].concat()),
            None => Err(["`", text, "` is no duration such as 500ms or 2s"].concat()),
        }
    }
}

/// A number with one unit.
fn milliseconds(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3_600 * SECOND,
        "d" => DAY,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// A rule's name, which stands in fields, metrics and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleName(pub(crate) Box<str>);

impl ConfigSchema for RuleName {
    const SCHEMA: &'static str = r#"{"type":"string","title":"name of letters, digits, hyphens and underscores","pattern":"^[A-Za-z0-9_-]{1,64}$","examples":["per-client"]}"#;
}

from_text!(RuleName);

impl RuleName {
    fn parse(text: &str) -> Result<Self, String> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if (1..=64).contains(&text.len()) && text.bytes().all(known) {
            Ok(RuleName(text.into()))
        } else {
            Err([
                "`",
                text,
                "`: a name is 1 to 64 letters, digits, hyphens and underscores",
            ]
            .concat())
        }
    }
}

/// A method (RFC 9110 section 9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Method(pub(crate) Box<str>);

impl ConfigSchema for Method {
    const SCHEMA: &'static str = r#"{"type":"string","title":"method in upper case","pattern":"^[A-Z][A-Z-]*$","examples":["POST"]}"#;
}

from_text!(Method);

impl Method {
    fn parse(text: &str) -> Result<Self, String> {
        let upper = |byte: u8| byte.is_ascii_uppercase() || byte == b'-';
        if !text.is_empty() && text.bytes().all(upper) {
            Ok(Method(text.into()))
        } else {
            Err(["`", text, "` is no method in upper case, such as POST"].concat())
        }
    }
}

/// Addresses that begin alike: `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    first: u128,
    mask: u128,
}

impl ConfigSchema for Network {
    const SCHEMA: &'static str = r#"{"type":"string","title":"network or address","pattern":"^[0-9a-fA-F.:]+(/[0-9]{1,3})?$","examples":["10.0.0.0/8","2001:db8::/32"]}"#;
}

from_text!(Network);

impl Network {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(["`", text, "` is no network: ", why].concat());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return wrong(
                "write an address such as 10.0.0.0 or 2001:db8::, and a prefix length behind a slash",
            );
        };
        let (longest, offset) = if address.is_ipv4() {
            (32, 96)
        } else {
            (128, 0)
        };
        let bits = match bits.map(str::parse::<u8>) {
            None => longest,
            Some(Ok(bits)) if bits <= longest => bits,
            Some(_) if longest == 32 => return wrong("the prefix length is 0 to 32"),
            Some(_) => return wrong("the prefix length is 0 to 128"),
        };
        let mask = mask(bits + offset);
        let first = wide(address);
        if first & !mask != 0 {
            return wrong("bits are set behind its prefix");
        }
        Ok(Network { first, mask })
    }

    /// Whether an address belongs to it. An IPv4 address in IPv6 form is the IPv4 address.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        wide(address) & self.mask == self.first
    }
}

/// An address as 128 bits, IPv4 in its IPv6 form.
pub(crate) fn wide(address: IpAddr) -> u128 {
    let wide = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    u128::from(wide)
}

/// So many leading ones.
pub(crate) fn mask(bits: u8) -> u128 {
    u128::MAX
        .checked_shl(128 - u32::from(bits.min(128)))
        .unwrap_or(0)
}

/// Whether 128 bits are an IPv4 address in its IPv6 form.
pub(crate) fn is_v4(address: u128) -> bool {
    Ipv6Addr::from(address).to_ipv4_mapped().is_some()
}

/// How many leading bits of an IPv4 address name one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct V4Prefix(pub(crate) u8);

/// How many leading bits of an IPv6 address name one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct V6Prefix(pub(crate) u8);

from_number!(
    V4Prefix,
    u8,
    0,
    32,
    r#"{"type":"integer","minimum":0,"maximum":32}"#
);
from_number!(
    V6Prefix,
    u8,
    0,
    128,
    r#"{"type":"integer","minimum":0,"maximum":128}"#
);

/// A number of tokens or requests, at least 1. The host counts up to 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amount(pub(crate) u64);

from_number!(
    Amount,
    u64,
    1,
    1_000_000_000_000_000,
    r#"{"type":"integer","minimum":1,"maximum":1000000000000000}"#
);

/// A number of requests at a time, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u32);

from_number!(
    Count,
    u32,
    1,
    4_294_967_295,
    r#"{"type":"integer","minimum":1,"maximum":4294967295}"#
);

/// What is taken where a field does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DefaultCost(pub(crate) u32);

from_number!(
    DefaultCost,
    u32,
    0,
    4_294_967_295,
    r#"{"type":"integer","minimum":0,"maximum":4294967295}"#
);

/// The status of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) u16);

from_number!(
    Status,
    u16,
    400,
    599,
    r#"{"type":"integer","minimum":400,"maximum":599}"#
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_names_or_numbers_with_a_unit() {
        for (text, seconds) in [
            ("second", 1),
            ("minute", 60),
            ("hour", 3_600),
            ("day", 86_400),
            ("week", 604_800),
            ("month", 2_592_000),
            ("10s", 10),
            ("15m", 900),
            ("12h", 43_200),
            ("366d", 31_622_400),
        ] {
            assert_eq!(
                Period::parse(text).unwrap().length,
                seconds * 1_000,
                "{text}"
            );
        }
        for text in [
            "",
            "0s",
            "fortnight",
            "10",
            "s",
            "1.5s",
            "-1s",
            "500ms",
            "367d",
            "99999999999999999999d",
            "9999999999999d",
        ] {
            assert!(Period::parse(text).unwrap_err().contains(text), "{text}");
        }
    }

    #[test]
    fn waits_are_bounded() {
        assert_eq!(Wait::parse("500ms").unwrap().0, 500);
        assert_eq!(Wait::parse("1m").unwrap().0, 60_000);
        for text in ["0ms", "61s", "2m", "1h", "", "ms", "5"] {
            assert!(Wait::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        let has = |network: &str, address: &str| {
            Network::parse(network)
                .unwrap()
                .has(address.parse().unwrap())
        };
        assert!(has("10.0.0.0/8", "10.255.0.1"));
        assert!(has("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(!has("10.0.0.0/8", "11.0.0.1"));
        assert!(!has("10.0.0.0/8", "2001:db8::1"));
        assert!(has("0.0.0.0/0", "255.1.1.1") && !has("0.0.0.0/0", "::1"));
        assert!(has("192.0.2.7", "192.0.2.7") && !has("192.0.2.7", "192.0.2.8"));
        assert!(has("2001:db8::/32", "2001:db8:ffff::") && !has("2001:db8::/32", "2001:db9::"));
        assert!(has("::/0", "2001:db8::1"));
        for text in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "example.com",
            "1.2.3.4/",
            "1.2.3.4/-1",
        ] {
            let error = Network::parse(text).unwrap_err();
            assert!(error.contains("no network"), "{error}");
        }
    }
}

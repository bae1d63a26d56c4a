//! Until when a certificate holds: the one date of an X.509 certificate that nobody else here can tell. It walks the few
//! DER elements that stand before it and judges nothing; whether a certificate can be used is for TLS to say.

use jiff::civil;
use jiff::tz::TimeZone;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// The version, which only version 1 leaves out.
const VERSION: u8 = 0xa0;

/// The end of a certificate's validity (RFC 5280 section 4.1.2.5), in seconds since 1970; none if it can't be read.
pub(super) fn end(certificate: &[u8]) -> Option<i64> {
    let (mut whole, _) = expect(SEQUENCE, certificate)?;
    let (to_be_signed, _) = expect(SEQUENCE, whole)?;
    whole = to_be_signed;
    if let Some((_, rest)) = expect(VERSION, whole) {
        whole = rest;
    }
    // The serial number, the algorithm of the signature, the issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, whole) = expect(tag, whole)?;
    }
    let (validity, _) = expect(SEQUENCE, whole)?;
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// The content of the first element, if it has this tag, and what follows it.
fn expect(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(der)?;
    (found == tag).then_some((content, rest))
}

/// The first element: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The length of the length; certificates of 16 MiB are none.
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, of 1950 to 2049, or `YYYYMMDDHHMMSSZ`: the only forms that certificates may have.
fn time(tag: u8, text: &str) -> Option<i64> {
    let digits = text.strip_suffix('Z')?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year: i16 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 {
        return None;
    }
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i8>().ok();
    let time = civil::DateTime::new(year, part(0)?, part(2)?, part(4)?, part(6)?, part(8)?, 0);
    let time = time.ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some(time.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn certificate(year: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 2, 3);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn both_forms_of_a_date_are_read() {
        // 2030 is written with two digits of the year, 2060 with four.
        assert_eq!(end(&certificate(2030)), Some(1_896_307_200));
        assert_eq!(end(&certificate(2060)), Some(2_842_992_000));
        assert_eq!(time(UTC_TIME, "700101000000Z"), Some(0));
        // This date says that there is no end (RFC 5280 section 4.1.2.5).
        assert_eq!(time(GENERALIZED_TIME, "99991231235959Z"), None);
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        let whole = certificate(2030);
        for length in 0..whole.len().min(200) {
            // Until the date, everything is missing something; no cut makes trouble.
            assert_eq!(end(&whole[..length]), None);
        }
        let mut twisted = whole.clone();
        for at in 0..twisted.len().min(200) {
            for byte in [0, 0x7f, 0x80, 0x84, 0xff] {
                twisted[at] = byte;
                let _ = end(&twisted);
            }
            twisted[at] = whole[at];
        }
        for text in [
            "",
            "Z",
            "300203000000",
            "300203000000+0000",
            "30020300000Z",
            "301303000000Z",
            "ÄÄ0203000000Z",
        ] {
            assert_eq!(time(UTC_TIME, text), None, "{text}");
        }
    }
}

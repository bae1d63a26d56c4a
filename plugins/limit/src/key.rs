//! Whose bucket a request takes from. Turns addresses and field values into keys; counts nothing.

use std::net::IpAddr;

/// The key of a client's address: an IPv4 address whole, an IPv6 address by its first `prefix` bits, because one
/// client usually has a whole network of them. An IPv4 address in IPv6 form is the IPv4 address.
pub(crate) fn address(text: &str, prefix: u8) -> String {
    match text.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => format!("a:{address}"),
        Ok(IpAddr::V6(address)) => {
            let kept = u128::MAX
                .checked_shl(128 - u32::from(prefix.min(128)))
                .unwrap_or(0);
            format!(
                "a:{}/{prefix}",
                std::net::Ipv6Addr::from(u128::from(address) & kept)
            )
        }
        Err(_) => format!("a:{text}"),
    }
}

/// The key of a field's or consumer's value. What has another kind or another name never meets in one bucket,
/// and a long value is cut: the limiter's keys are bounded.
pub(crate) fn value(kind: char, value: &[u8]) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(value);
    if text.len() <= LONGEST {
        return format!("{kind}:{text}");
    }
    // FNV-1a of the whole keeps long values with a common beginning apart.
    let hash = value.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let end = (0..=LONGEST)
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    format!("{kind}:{}#{hash:016x}", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_neighbours_share_a_bucket_and_ipv4_ones_do_not() {
        assert_eq!(
            address("2001:db8:1:2:3::1", 64),
            address("2001:db8:1:2:ffff::9", 64)
        );
        assert_ne!(
            address("2001:db8:1:2::1", 64),
            address("2001:db8:1:3::1", 64)
        );
        assert_ne!(address("192.0.2.1", 64), address("192.0.2.2", 64));
        assert_eq!(address("::ffff:192.0.2.1", 64), address("192.0.2.1", 64));
        assert_eq!(address("2001:db8::1", 0), "a:::/0");
        assert_ne!(address("2001:db8::1", 128), address("2001:db8::2", 128));
    }

    #[test]
    fn kinds_do_not_mix_and_long_values_stay_apart() {
        assert_ne!(value('h', b"a"), value('c', b"a"));
        let long = "x".repeat(500);
        let (one, two) = (
            value('h', format!("{long}1").as_bytes()),
            value('h', format!("{long}2").as_bytes()),
        );
        assert_ne!(one, two);
        assert!(one.len() < 256);
        assert!(value('h', "é".repeat(300).as_bytes()).len() < 256);
    }
}

//! Ranges of addresses, as operators write them: an address, or one with the length of its prefix. Knows no client.

use std::net::IpAddr;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Net {
    /// Without the bits behind the prefix.
    base: u128,
    prefix: u32,
    v4: bool,
}

impl Net {
    /// Reads `10.0.0.0/8`, `2001:db8::/32` or one address.
    ///
    /// # Errors
    /// What may stand there.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address and no range such as `10.0.0.0/8`");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let v4 = address.is_ipv4();
        let bits = if v4 { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(prefix) => prefix.parse::<u32>().map_err(|_| wrong())?,
        };
        if prefix > bits {
            return Err(wrong());
        }
        let base = number(address);
        if base != kept(base, prefix, bits) {
            return Err(format!(
                "`{text}` has bits behind its prefix; write the range's first address"
            ));
        }
        Ok(Net { base, prefix, v4 })
    }

    /// Whether an address lies in it.
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        let bits = if self.v4 { 32 } else { 128 };
        address.is_ipv4() == self.v4 && kept(number(address), self.prefix, bits) == self.base
    }
}

/// An address as text; IPv4 in IPv6 is IPv4.
pub(crate) fn address(text: &[u8]) -> Option<IpAddr> {
    let address: IpAddr = core::str::from_utf8(text).ok()?.parse().ok()?;
    Some(address.to_canonical())
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn kept(number: u128, prefix: u32, bits: u32) -> u128 {
    let behind = bits - prefix;
    number
        .checked_shr(behind)
        .unwrap_or(0)
        .checked_shl(behind)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_they_say() {
        for (range, yes, no) in [
            (
                "10.0.0.0/8",
                vec!["10.1.2.3", "::ffff:10.1.2.3"],
                vec!["11.0.0.0", "::a00:1"],
            ),
            ("192.0.2.7", vec!["192.0.2.7"], vec!["192.0.2.8"]),
            ("0.0.0.0/0", vec!["1.2.3.4"], vec!["::1"]),
            ("::/0", vec!["::1", "2001:db8::1"], vec!["1.2.3.4"]),
            ("2001:db8::/32", vec!["2001:db8:1::"], vec!["2001:db9::"]),
        ] {
            let net = Net::parse(range).unwrap();
            for text in yes {
                assert!(
                    net.holds(address(text.as_bytes()).unwrap()),
                    "{range} {text}"
                );
            }
            for text in no {
                assert!(
                    !net.holds(address(text.as_bytes()).unwrap()),
                    "{range} {text}"
                );
            }
        }
        for (text, word) in [
            ("10.0.0.1/8", "first address"),
            ("10.0.0.0/33", "no range"),
            ("10.0.0/8", "no range"),
            ("a", "no range"),
            ("::/x", "no range"),
        ] {
            let error = Net::parse(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(address(b"unix:"), None);
    }
}

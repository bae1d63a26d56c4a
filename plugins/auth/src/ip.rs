//! Which client addresses may come: networks in CIDR notation. Knows no request.

use std::net::IpAddr;

use crate::config::IpConfig;

/// A network: its first address as a number, IPv4 as it stands in IPv6 (`::ffff:0:0/96`), and how many bits of it count.
#[derive(Clone, Copy, Debug)]
struct Network {
    first: u128,
    bits: u32,
}

impl Network {
    /// A single address, or an address and the length of the prefix.
    fn read(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
        };
        let address: IpAddr = address.parse().ok()?;
        let (all, before) = match address {
            IpAddr::V4(_) => (32, 96),
            IpAddr::V6(_) => (128, 0),
        };
        let bits = bits.unwrap_or(all);
        (bits <= all).then(|| Network {
            first: number(address),
            bits: before + bits,
        })
    }

    /// The bits that count, set.
    fn mask(self) -> u128 {
        u128::MAX.checked_shl(128 - self.bits).unwrap_or(0)
    }

    fn contains(self, address: u128) -> bool {
        address & self.mask() == self.first
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The networks that may come, and those that may not.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    allow: Vec<Network>,
    deny: Vec<Network>,
}

impl Networks {
    /// # Errors
    /// What is no network, or none at all.
    pub(crate) fn new(config: &IpConfig) -> Result<Self, String> {
        if config.allow.is_empty() && config.deny.is_empty() {
            return Err(
                "`ip` needs `allow` or `deny`; leave it out to let every address come".to_owned(),
            );
        }
        Ok(Networks {
            allow: read(&config.allow, "ip.allow")?,
            deny: read(&config.deny, "ip.deny")?,
        })
    }

    /// Whether an address may come. What is no address may not.
    pub(crate) fn admit(&self, address: &str) -> bool {
        let Ok(address) = address.parse::<IpAddr>() else {
            return false;
        };
        let address = number(address);
        let within =
            |networks: &[Network]| networks.iter().any(|network| network.contains(address));
        !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
    }
}

fn read(texts: &[String], key: &str) -> Result<Vec<Network>, String> {
    let network = |(index, text): (usize, &String)| {
        let network = Network::read(text).ok_or_else(|| {
            format!("`{key}[{index}]`: `{text}` is no network; write `10.0.0.0/8`, `2001:db8::/32` or an address")
        })?;
        if network.first & !network.mask() != 0 {
            return Err(format!(
                "`{key}[{index}]`: `{text}` has bits behind its prefix; set them to 0, or write an address without `/`"
            ));
        }
        Ok(network)
    };
    texts.iter().enumerate().map(network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(allow: &[&str], deny: &[&str]) -> Result<Networks, String> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Networks::new(&IpConfig {
            allow: owned(allow),
            deny: owned(deny),
        })
    }

    #[test]
    fn denied_wins_over_allowed() {
        let both = networks(&["10.0.0.0/8", "2001:db8::/32"], &["10.1.0.0/16"]).unwrap();
        for (address, may) in [
            ("10.0.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("10.1.2.3", false),
            ("11.0.0.1", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
            ("", false),
            ("somewhere", false),
        ] {
            assert_eq!(both.admit(address), may, "{address}");
        }
        let denied = networks(&[], &["192.0.2.7"]).unwrap();
        assert!(denied.admit("192.0.2.8") && !denied.admit("192.0.2.7"));
    }

    #[test]
    fn mistakes_are_told_with_a_remedy() {
        assert!(networks(&[], &[]).unwrap_err().contains("leave it out"));
        let error = networks(&["10.0.0.0/33"], &[]).unwrap_err();
        assert!(
            error.contains("ip.allow[0]") && error.contains("10.0.0.0/8"),
            "{error}"
        );
        let error = networks(&[], &["10.0.0.1/8"]).unwrap_err();
        assert!(error.contains("behind its prefix"), "{error}");
    }
}

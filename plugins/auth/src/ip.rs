//! Which client addresses may come: networks in CIDR notation. Knows no request.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::IpConfig;

/// The networks that may come, and those that may not.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
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
        let address = address.to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
    }
}

fn read(texts: &[String], key: &str) -> Result<Vec<IpNet>, String> {
    let network = |(index, text): (usize, &String)| {
        let single = text
            .parse::<IpAddr>()
            .map(|one| IpNet::from(one.to_canonical()));
        let network = single.or_else(|_| text.parse::<IpNet>()).map_err(|_| {
            format!("`{key}[{index}]`: `{text}` is no network; write `10.0.0.0/8`, `2001:db8::/32` or an address")
        })?;
        if network.addr() == network.network() {
            Ok(network)
        } else {
            Err(format!(
                "`{key}[{index}]`: `{text}` has bits behind its prefix; write `{}`",
                network.trunc()
            ))
        }
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
        assert!(error.contains("write `10.0.0.0/8`"), "{error}");
    }
}

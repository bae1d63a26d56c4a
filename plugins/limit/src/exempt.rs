//! Who is not limited at all. Counts nothing.

use std::net::IpAddr;

use tidegate_sdk::ConfigError;

use crate::config::Exempt;
use crate::key::Facts;
use crate::words::Network;

/// Who is not limited.
#[derive(Debug, Default)]
pub(crate) struct Exemption {
    clients: Vec<Network>,
    consumers: Vec<String>,
    roles: Vec<String>,
}

impl Exemption {
    pub(crate) fn new(written: Option<Exempt>) -> Result<Self, ConfigError> {
        let Some(written) = written else {
            return Ok(Exemption::default());
        };
        if written.clients.is_empty() && written.consumers.is_empty() && written.roles.is_empty() {
            return Err("`exempt`: nobody is exempt: add `clients`, `consumers` or `roles`, or leave it away".into());
        }
        Ok(Exemption {
            clients: written.clients,
            consumers: written.consumers,
            roles: written.roles,
        })
    }

    /// Whether a request is not limited.
    pub(crate) fn covers(&self, facts: &Facts<'_>) -> bool {
        let named =
            |list: &[String], name: &[u8]| list.iter().any(|known| known.as_bytes() == name);
        if !self.clients.is_empty()
            && let Ok(address) = facts.client().parse::<IpAddr>()
            && self.clients.iter().any(|network| network.has(address))
        {
            return true;
        }
        if !self.consumers.is_empty()
            && facts
                .consumer()
                .is_some_and(|consumer| named(&self.consumers, consumer))
        {
            return true;
        }
        !self.roles.is_empty() && facts.roles().any(|role| named(&self.roles, role))
    }
}

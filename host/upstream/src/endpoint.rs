//! One address of an upstream, read from a URL. Opens nothing and resolves nothing.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

/// What is spoken to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP/1.1 without TLS.
    Http,
    /// HTTP/2 or HTTP/1.1 over TLS, as agreed by ALPN.
    Https,
    /// HTTP/2 without TLS and without asking first.
    H2c,
}

impl Scheme {
    /// The scheme as it stands in an endpoint's URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::H2c => "h2c",
        }
    }

    /// The port if the URL names none.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http | Scheme::H2c => 80,
            Scheme::Https => 443,
        }
    }
}

/// Where an upstream listens: `http://`, `https://` or `h2c://`, then a name, an IPv4 address or an IPv6 address
/// in brackets, then perhaps a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    scheme: Scheme,
    host: Arc<str>,
    address: Option<IpAddr>,
    port: u16,
}

impl Endpoint {
    /// What is spoken.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The name or address, without brackets, in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The address, if it is given as one.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What a `Host` field says of it: without the port if that is the scheme's own.
    pub fn authority(&self) -> String {
        let (open, close) = self.brackets();
        if self.port == self.scheme.default_port() {
            format!("{open}{}{close}", self.host)
        } else {
            format!("{open}{}{close}:{}", self.host, self.port)
        }
    }

    fn brackets(&self) -> (&'static str, &'static str) {
        match self.address {
            Some(IpAddr::V6(_)) => ("[", "]"),
            _ => ("", ""),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = self.brackets();
        let (scheme, host, port) = (self.scheme.as_str(), &self.host, self.port);
        write!(f, "{scheme}://{open}{host}{close}:{port}")
    }
}

/// Why a text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No scheme, or one that is not spoken here.
    #[error("{0:?} must begin with http://, https:// or h2c://")]
    Scheme(String),
    /// A user, a path, a query or a fragment.
    #[error("{0:?} must end after the host and port; paths, queries and users have no place here")]
    Extra(String),
    /// No host, or none that is a name or an address.
    #[error("{0:?} names no host; write a name, an IPv4 address, or an IPv6 address in brackets")]
    Host(String),
    /// A port that is none.
    #[error("{0:?} has no port from 1 to 65535 after the colon")]
    Port(String),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let owned = || text.to_owned();
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| EndpointError::Scheme(owned()))?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "h2c" => Scheme::H2c,
            _ => return Err(EndpointError::Scheme(owned())),
        };
        // One slash at the end is how people write a URL without a path.
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(EndpointError::Extra(owned()));
        }
        let (host, port) = split_port(rest).ok_or_else(|| EndpointError::Host(owned()))?;
        let (host, address) = parse_host(host).ok_or_else(|| EndpointError::Host(owned()))?;
        let port = match port {
            None => scheme.default_port(),
            Some(port) => parse_port(port).ok_or_else(|| EndpointError::Port(owned()))?,
        };
        Ok(Endpoint {
            scheme,
            host,
            address,
            port,
        })
    }
}

/// Splits at the colon that is not inside brackets. The host keeps its brackets.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    let end = if text.starts_with('[') {
        text.find(']')? + 1
    } else {
        text.find(':').unwrap_or(text.len())
    };
    let (host, rest) = text.split_at_checked(end)?;
    match rest.strip_prefix(':') {
        Some(port) => Some((host, Some(port))),
        None => rest.is_empty().then_some((host, None)),
    }
}

fn parse_host(host: &str) -> Option<(Arc<str>, Option<IpAddr>)> {
    if let Some(inner) = host.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some((address.to_string().into(), Some(address.into())));
    }
    let host = host.to_ascii_lowercase();
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && !host.trim_end_matches('.').split('.').any(str::is_empty);
    let address = host.parse::<IpAddr>().ok();
    // A last label of digits only is an address that was mistyped, never a name.
    let is_number = host
        .rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()) && !label.is_empty());
    (is_name && (address.is_some() || !is_number)).then(|| (host.into(), address))
}

fn parse_port(port: &str) -> Option<u16> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|port| digits && *port != 0)
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;

//! An upstream as the configuration describes it, and whose turn it is. Shared by all workers; holds no
//! connection.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use crate::endpoint::{Endpoint, Scheme};
use crate::error::UpstreamError;
use crate::names::{Name, Names};
use crate::pool::Bounds;
use crate::tls::{TlsConfigs, TlsSetup};

/// How an upstream's certificate is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The authorities that are trusted. Empty: those that browsers trust.
    pub ca: Vec<CertificateDer<'static>>,
    /// Whether any certificate will do. For tests only.
    pub insecure: bool,
    /// The name that is asked for and verified, if it is not the endpoint's host.
    pub server_name: Option<String>,
}

/// An upstream: its endpoints and the bounds that hold for each of them.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// What the configuration calls it.
    pub name: Arc<str>,
    /// Where it listens; requests go to each in turn.
    pub endpoints: Vec<Endpoint>,
    /// How long a connection may take, TLS handshake included.
    pub connect_timeout: Duration,
    /// How long the response head may take after the last byte of the request that could be sent.
    pub response_timeout: Duration,
    /// How long a response body may pause between two reads.
    pub idle_timeout: Duration,
    /// How many unused connections are kept, per worker and endpoint.
    pub idle_connections: usize,
    /// How long an unused connection is kept.
    pub keep_alive: Duration,
    /// How long a connection is used for further requests after it was made.
    pub max_age: Duration,
    /// What the head of a response may hold.
    pub head: HeadBounds,
    /// How its certificate is judged; for `https` endpoints.
    pub tls: TlsOptions,
}

/// What the head of a response may hold. Past it, the response is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadBounds {
    /// Bytes; over HTTP/2, each field counts 32 more than it has (RFC 9113 section 6.5.2).
    pub bytes: u32,
    /// Fields; more than [`HeadBounds::MOST_FIELDS`] are never taken.
    pub fields: usize,
}

impl HeadBounds {
    /// The most fields that can be allowed.
    pub const MOST_FIELDS: usize = 1000;
}

impl Default for HeadBounds {
    /// 128 KiB, 256 fields.
    fn default() -> Self {
        HeadBounds {
            bytes: 128 * 1024,
            fields: 256,
        }
    }
}

impl UpstreamConfig {
    /// An upstream with the customary bounds.
    pub fn new(name: impl Into<Arc<str>>, endpoints: Vec<Endpoint>) -> Self {
        UpstreamConfig {
            name: name.into(),
            endpoints,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            idle_connections: 64,
            keep_alive: Duration::from_secs(60),
            max_age: Duration::from_secs(3600),
            head: HeadBounds::default(),
            tls: TlsOptions::default(),
        }
    }

    /// How long its connections are of use.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            keep_alive: self.keep_alive,
            max_age: self.max_age,
        }
    }
}

/// An upstream that requests can be sent to.
#[derive(Debug)]
pub struct Upstream {
    /// Tells it apart from every other that this process has made.
    number: u64,
    config: UpstreamConfig,
    targets: Vec<Arc<Target>>,
    cursor: AtomicUsize,
}

impl Upstream {
    /// Prepares an upstream, its TLS settings included. Somebody must keep `names`, see [`Names::keep`], if endpoints are
    /// given by name.
    ///
    /// # Errors
    /// If the TLS settings can't be used.
    pub fn new(config: UpstreamConfig, names: &Names) -> Result<Arc<Self>, UpstreamError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let is_tls = |endpoint: &Endpoint| endpoint.scheme() == Scheme::Https;
        let configs = config.endpoints.iter().any(is_tls);
        let configs = configs
            .then(|| TlsConfigs::new(&config.name, &config.tls))
            .transpose()?;
        let targets = config
            .endpoints
            .iter()
            .map(|endpoint| {
                let tls = configs
                    .as_ref()
                    .filter(|_| is_tls(endpoint))
                    .map(|configs| TlsSetup::new(configs, &config.name, endpoint, &config.tls))
                    .transpose()?;
                Ok(Arc::new(Target {
                    label: endpoint.to_string().into(),
                    name: endpoint
                        .address()
                        .is_none()
                        .then(|| names.get(endpoint.host())),
                    identity: Arc::new(Identity {
                        endpoint: endpoint.clone(),
                        head: config.head,
                        tls: tls.is_some().then(|| config.tls.clone()),
                    }),
                    tls,
                }))
            })
            .collect::<Result<_, UpstreamError>>()?;
        Ok(Arc::new(Upstream {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            config,
            targets,
            cursor: AtomicUsize::new(0),
        }))
    }

    /// What the configuration calls it.
    pub fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    /// What it was made from.
    pub fn config(&self) -> &UpstreamConfig {
        &self.config
    }

    /// A number that no other upstream has, not even one made from the same configuration.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The endpoints, in the order of the configuration.
    pub(crate) fn targets(&self) -> &[Arc<Target>] {
        &self.targets
    }

    /// The position of the endpoint whose turn it is; the turn passes on.
    pub(crate) fn next_turn(&self) -> usize {
        let turn = self.cursor.fetch_add(1, Ordering::Relaxed);
        turn.checked_rem(self.targets.len()).unwrap_or(0)
    }
}

/// One endpoint with what is needed to connect to it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) label: Arc<str>,
    /// What its host stands for, if that is no address.
    pub(crate) name: Option<Arc<Name>>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) tls: Option<TlsSetup>,
}

impl Target {
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.identity.endpoint
    }

    /// What the head of a response may hold.
    pub(crate) fn head(&self) -> HeadBounds {
        self.identity.head
    }
}

/// What two connections must have in common so that one may stand in for the other. Upstreams that agree on it
/// share connections, also across reloads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    endpoint: Endpoint,
    /// Told the other side when a connection begins.
    head: HeadBounds,
    tls: Option<TlsOptions>,
}

impl Hash for Identity {
    /// The endpoint alone: it tells nearly all apart, and certificates are long.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.endpoint.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_take_turns() {
        let names = Names::default();
        let endpoints = ["http://a", "http://b", "http://c"];
        let endpoints = endpoints.map(|text| text.parse().unwrap()).to_vec();
        let upstream = Upstream::new(UpstreamConfig::new("u", endpoints), &names).unwrap();
        let turns: Vec<usize> = (0..4).map(|_| upstream.next_turn()).collect();
        assert_eq!(turns, [0, 1, 2, 0]);
        let none = Upstream::new(UpstreamConfig::new("u", Vec::new()), &names).unwrap();
        assert_eq!(none.next_turn(), 0);
    }

    #[test]
    fn connections_are_not_shared_between_tls_settings() {
        let names = Names::default();
        let endpoint: Endpoint = "https://a".parse().unwrap();
        let mut config = UpstreamConfig::new("u", vec![endpoint]);
        let strict = Upstream::new(config.clone(), &names).unwrap();
        config.tls.insecure = true;
        let lax = Upstream::new(config, &names).unwrap();
        let identity = |upstream: &Upstream| upstream.targets[0].identity.clone();
        assert_ne!(identity(&strict), identity(&lax));
    }
}

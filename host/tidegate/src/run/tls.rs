//! TLS towards clients: which certificate answers to which name, how a connection's handshake is bounded, and what it
//! came to. Certificates can be replaced while connections go on; it reads no file.

use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ParsedCertificate, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, ProtocolVersion, ServerConfig, ServerConnection};
use tidegate_core::exchange::TlsFacts;

/// What is offered by ALPN, the most wanted first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why TLS can't be set up at all.
#[derive(Debug, thiserror::Error)]
#[error("TLS can't be set up: {0}")]
pub(crate) struct TlsError(#[from] rustls::Error);

/// The certificates of one address, which can be replaced.
pub(crate) struct Certificates(ArcSwap<Shown>);

/// What is shown to whom.
pub(crate) struct Shown {
    /// In the order in which they are written. Never empty.
    pub(crate) keys: Vec<Arc<CertifiedKey>>,
    /// Whether a name for which none of them holds is refused.
    pub(crate) refuse_unknown: bool,
}

impl Certificates {
    /// Certificates to begin with.
    pub(crate) fn new(shown: Shown) -> Arc<Self> {
        Arc::new(Certificates(ArcSwap::from_pointee(shown)))
    }

    /// Puts others in their place, for the handshakes that come.
    pub(crate) fn replace(&self, shown: Shown) {
        self.0.store(Arc::new(shown));
    }

    /// The first that holds for a name, else the first of all, or none if unknown names are refused.
    fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.load();
        let Shown {
            keys,
            refuse_unknown,
        } = &**shown;
        let named = name
            .filter(|_| keys.len() > 1 || *refuse_unknown)
            .and_then(|name| ServerName::try_from(name).ok())
            .and_then(|name| keys.iter().find(|key| holds_for(key, &name)));
        if named.is_none() && name.is_some() && *refuse_unknown {
            return None;
        }
        named.or_else(|| keys.first()).cloned()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name())
    }
}

/// Whether a certificate holds for a name, by the rules that clients go by.
fn holds_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    key.end_entity_cert()
        .ok()
        .and_then(|certificate| ParsedCertificate::try_from(certificate).ok())
        .is_some_and(|certificate| verify_server_name(&certificate, name).is_ok())
}

/// Makes tickets by which clients resume sessions, for all addresses and workers.
///
/// # Errors
/// The system has no randomness.
pub(crate) fn tickets() -> Result<Arc<dyn ProducesTickets>, TlsError> {
    Ok(ring::Ticketer::new()?)
}

/// The settings of one address: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, no client certificates, no early data (which
/// could be replayed).
///
/// # Errors
/// The library has no versions or suites that fit.
pub(crate) fn server_config(
    certificates: Arc<Certificates>,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    config.ticketer = tickets;
    Ok(Arc::new(config))
}

/// What a handshake came to.
pub(crate) fn facts(connection: &ServerConnection) -> TlsFacts {
    let cipher = connection
        .negotiated_cipher_suite()
        .and_then(|suite| suite.suite().as_str());
    TlsFacts {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        // The library tells the suites of TLS 1.3 apart by their beginning; IANA does not.
        cipher: match cipher.and_then(|name| name.strip_prefix("TLS13_")) {
            Some(rest) => format!("TLS_{rest}"),
            None => cipher.unwrap_or_default().to_owned(),
        },
        server_name: connection.server_name().map(str::to_owned),
        alpn: connection
            .alpn_protocol()
            .map(|name| String::from_utf8_lossy(name).into_owned()),
        client_certificate: None,
    }
}

/// Why a handshake failed, in a word for the figures.
pub(crate) fn failure(error: &io::Error) -> &'static str {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        None => "closed",
        Some(rustls::Error::NoApplicationProtocol) => "alpn",
        // The library's word for a resolver that shows no certificate, which only an unknown name leads to.
        Some(rustls::Error::General(_)) => "sni",
        Some(rustls::Error::PeerIncompatible(reason)) => match reason {
            rustls::PeerIncompatible::Tls12NotOffered
            | rustls::PeerIncompatible::Tls12NotOfferedOrEnabled
            | rustls::PeerIncompatible::Tls13RequiredForQuic
            | rustls::PeerIncompatible::SupportedVersionsExtensionRequired
            // Only what is older than TLS 1.2, or knows nothing newer than SHA-1, leaves it out.
            | rustls::PeerIncompatible::SignatureAlgorithmsExtensionRequired => "version",
            _ => "incompatible",
        },
        Some(rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
            // Of all that a client can find wrong in a server's signatures, the certificate's is the likely one.
            | AlertDescription::DecryptError,
        )) => "certificate",
        Some(rustls::Error::AlertReceived(_)) => "alert",
        Some(rustls::Error::InvalidMessage(_)) => "not-tls",
        Some(_) => "protocol",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

    fn key(names: &[&str]) -> Arc<CertifiedKey> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
        let private =
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = ring::default_provider();
        Arc::new(CertifiedKey::from_der(chain, private, &provider).unwrap())
    }

    fn shown(keys: &[&Arc<CertifiedKey>], refuse_unknown: bool) -> Shown {
        Shown {
            keys: keys.iter().map(|key| Arc::clone(key)).collect(),
            refuse_unknown,
        }
    }

    fn certificates(keys: &[&Arc<CertifiedKey>], refuse_unknown: bool) -> Arc<Certificates> {
        Certificates::new(shown(keys, refuse_unknown))
    }

    #[test]
    fn the_first_certificate_that_holds_for_the_name_is_shown_else_the_first() {
        let first = key(&["first.example"]);
        let second = key(&["second.example", "*.wild.example", "127.0.0.1"]);
        let third = key(&["second.example"]);
        let certificates = certificates(&[&first, &second, &third], false);
        for (name, expected) in [
            (Some("first.example"), &first),
            (Some("second.example"), &second),
            (Some("SECOND.Example"), &second),
            (Some("a.wild.example"), &second),
            (Some("a.b.wild.example"), &first),
            (Some("wild.example"), &first),
            (Some("other.example"), &first),
            (Some("not a name"), &first),
            (Some(""), &first),
            (None, &first),
        ] {
            let chosen = certificates.choose(name).unwrap();
            assert!(Arc::ptr_eq(&chosen, expected), "{name:?}");
        }
    }

    #[test]
    fn unknown_names_can_be_refused() {
        let only = key(&["a.example"]);
        let certificates = certificates(&[&only], true);
        for (name, served) in [
            (Some("a.example"), true),
            (Some("b.example"), false),
            (Some("not a name"), false),
            (None, true),
        ] {
            assert_eq!(certificates.choose(name).is_some(), served, "{name:?}");
        }
        certificates.replace(shown(&[&only], false));
        assert!(certificates.choose(Some("b.example")).is_some());
    }

    #[test]
    fn a_replaced_certificate_is_shown_from_then_on() {
        let (old, new) = (key(&["a.example"]), key(&["a.example"]));
        let certificates = certificates(&[&old], false);
        certificates.replace(shown(&[&new], false));
        let chosen = certificates.choose(Some("a.example")).unwrap();
        assert!(Arc::ptr_eq(&chosen, &new));
    }

    #[test]
    fn settings_can_be_made_for_any_certificate() {
        let certificates = certificates(&[&key(&["a.example"])], false);
        let config = server_config(certificates, tickets().unwrap()).unwrap();
        assert_eq!(config.alpn_protocols.len(), 2);
        assert_eq!(config.max_early_data_size, 0);
        assert!(config.ticketer.enabled());
    }

    #[test]
    fn failures_are_told_apart() {
        let of = |error: rustls::Error| failure(&io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(of(rustls::Error::NoApplicationProtocol), "alpn");
        assert_eq!(
            of(rustls::Error::PeerIncompatible(
                rustls::PeerIncompatible::Tls12NotOffered
            )),
            "version"
        );
        assert_eq!(
            of(rustls::Error::InvalidMessage(
                rustls::InvalidMessage::InvalidContentType
            )),
            "not-tls"
        );
        assert_eq!(
            failure(&io::Error::from(io::ErrorKind::UnexpectedEof)),
            "closed"
        );
    }
}

//! TLS towards upstreams: what is trusted and what is asked for. Knows neither sockets nor HTTP beyond its ALPN
//! names.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::endpoint::Endpoint;
use crate::error::UpstreamError;
use crate::upstream::TlsOptions;

/// HTTP/2's name in ALPN.
pub(crate) const H2: &[u8] = b"h2";
/// HTTP/1.1's name in ALPN.
const HTTP1: &[u8] = b"http/1.1";

/// What the handshakes with all endpoints of an upstream have in common.
#[derive(Debug)]
pub(crate) struct TlsConfigs {
    any: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

impl TlsConfigs {
    pub(crate) fn new(name: &Arc<str>, options: &TlsOptions) -> Result<Self, UpstreamError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| UpstreamError::Tls {
                name: name.clone(),
                detail: error.to_string(),
            })?;
        // The authorities are read even if nothing is verified, so that a broken one is found when it is written.
        let roots = roots(name, &options.ca)?;
        let mut any = if options.insecure {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth()
        } else {
            builder.with_root_certificates(roots).with_no_client_auth()
        };
        let mut http1 = any.clone();
        any.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
        http1.alpn_protocols = vec![HTTP1.to_vec()];
        Ok(TlsConfigs {
            any: Arc::new(any),
            http1: Arc::new(http1),
        })
    }
}

/// What a handshake with one endpoint needs.
#[derive(Debug)]
pub(crate) struct TlsSetup {
    /// Offers HTTP/2 and HTTP/1.1.
    pub(crate) any: Arc<ClientConfig>,
    /// Offers HTTP/1.1 only: for what HTTP/2 has no way to say, an upgrade.
    pub(crate) http1: Arc<ClientConfig>,
    /// What is asked for and what the certificate must be for.
    pub(crate) server_name: ServerName<'static>,
}

impl TlsSetup {
    pub(crate) fn new(
        configs: &TlsConfigs,
        name: &Arc<str>,
        endpoint: &Endpoint,
        options: &TlsOptions,
    ) -> Result<Self, UpstreamError> {
        let asked = options.server_name.as_deref().unwrap_or(endpoint.host());
        let server_name = ServerName::try_from(asked.trim_end_matches('.').to_owned());
        let server_name = server_name.map_err(|_| UpstreamError::ServerName {
            name: name.clone(),
            server_name: asked.to_owned(),
        })?;
        Ok(TlsSetup {
            any: configs.any.clone(),
            http1: configs.http1.clone(),
            server_name,
        })
    }
}

fn roots(name: &Arc<str>, ca: &[CertificateDer<'static>]) -> Result<RootCertStore, UpstreamError> {
    let mut roots = RootCertStore::empty();
    if ca.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for certificate in ca {
        roots
            .add(certificate.clone())
            .map_err(|error| UpstreamError::Ca {
                name: name.clone(),
                detail: error.to_string(),
            })?;
    }
    Ok(roots)
}

/// Takes every certificate, but not every signature: the peer must hold the key of what it shows.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

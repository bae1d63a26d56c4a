//! What a client's certificate says. Reads none itself: whoever knows the encoding says how, and it is done when
//! somebody asks.

use std::fmt;
use std::sync::OnceLock;

/// What a certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The subject's distinguished name, as RFC 4514 writes it.
    pub subject: String,
    /// The issuer's, likewise.
    pub issuer: String,
    /// The serial number, in lower-case hexadecimal digits without leading zeros.
    pub serial: String,
    /// The first second in which it holds, counted from 1970.
    pub not_before: i64,
    /// The last one.
    pub not_after: i64,
    /// SHA-256 of the whole, in lower-case hexadecimal digits.
    pub sha256: String,
    /// Alternative names of the subject that are host names.
    pub dns_names: Vec<String>,
    /// Those that are URIs.
    pub uris: Vec<String>,
    /// Those that are mail addresses.
    pub emails: Vec<String>,
    /// Those that are IP addresses, as text.
    pub ip_addresses: Vec<String>,
}

/// A certificate that a client showed and that was verified.
pub struct ClientCertificate {
    der: Vec<u8>,
    read: fn(&[u8]) -> Option<CertificateFacts>,
    facts: OnceLock<Option<CertificateFacts>>,
}

impl ClientCertificate {
    /// A certificate in DER, and how it is read.
    pub fn new(der: Vec<u8>, read: fn(&[u8]) -> Option<CertificateFacts>) -> Self {
        ClientCertificate {
            der,
            read,
            facts: OnceLock::new(),
        }
    }

    /// What it says, read when it is first asked for. None if it can't be read, which verifying it excludes.
    pub fn facts(&self) -> Option<&CertificateFacts> {
        self.facts.get_or_init(|| (self.read)(&self.der)).as_ref()
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

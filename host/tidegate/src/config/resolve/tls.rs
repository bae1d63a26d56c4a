//! Certificates, keys and authorities: PEM files read and held against each other. It speaks no TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::super::checked::Identity;
use super::super::written::Tls;
use super::{Resolver, validity};
use crate::plugins::{self, MAX_SETTINGS};

impl Resolver<'_> {
    /// A certificate with its key; none: a mistake was noted.
    pub(super) fn identity(
        &mut self,
        pointer: &str,
        written: &Tls,
        files: &mut Vec<PathBuf>,
    ) -> Option<Identity> {
        let certificate = self.base.join(&written.certificate);
        let key = self.base.join(&written.key);
        files.extend([certificate.clone(), key.clone()]);
        let chain = certificates(&certificate);
        let private = private_key(&key);
        let chain = self.noted(&format!("{pointer}/certificate"), &certificate, chain);
        let private = self.noted(&format!("{pointer}/key"), &key, private);
        self.warn_of_readers(&format!("{pointer}/key"), &key);
        let (chain, private) = (chain?, private?);
        let expires = chain.first().and_then(|it| validity::end(it));
        self.warn_of_age(&format!("{pointer}/certificate"), &certificate, expires);
        match CertifiedKey::from_der(chain, private, &ring::default_provider()) {
            Ok(certified) => Some(Identity {
                certificate,
                key,
                certified: Arc::new(certified),
                expires,
            }),
            Err(rustls::Error::InconsistentKeys(_)) => {
                let message = format!(
                    "the key does not belong to the certificate of {}",
                    certificate.display()
                );
                let mistake = self.at(&format!("{pointer}/key"), &message);
                self.notes.mistake(mistake);
                None
            }
            Err(error) => {
                let message = format!("certificate and key can't be used: {error}");
                let mistake = self.at(&format!("{pointer}/certificate"), &message);
                self.notes.mistake(mistake);
                None
            }
        }
    }

    /// Authorities to believe; none: a mistake was noted.
    pub(super) fn authorities(
        &mut self,
        pointer: &str,
        file: &Path,
    ) -> Option<Vec<CertificateDer<'static>>> {
        let read = certificates(file);
        self.noted(pointer, file, read)
    }

    /// Warns of a certificate that no client takes any more.
    fn warn_of_age(&mut self, pointer: &str, certificate: &Path, expires: Option<i64>) {
        let Some(expired) = expires.and_then(|expires| Timestamp::from_second(expires).ok()) else {
            return;
        };
        if expired < Timestamp::now() {
            let message = format!("{} expired at {expired}", certificate.display());
            let warning = self
                .at(pointer, &message)
                .help("clients refuse it: renew it");
            self.notes.warn(warning);
        }
    }

    fn noted<T>(&mut self, pointer: &str, file: &Path, read: Result<T, String>) -> Option<T> {
        match read {
            Ok(read) => Some(read),
            Err(error) => {
                let mistake = self.at(pointer, &format!("{}: {error}", file.display()));
                self.notes.mistake(mistake);
                None
            }
        }
    }

    /// Warns of a key that every user of the machine can read.
    fn warn_of_readers(&mut self, pointer: &str, key: &Path) {
        use std::os::unix::fs::PermissionsExt as _;
        let open = std::fs::metadata(key).is_ok_and(|it| it.permissions().mode() & 0o004 != 0);
        if open {
            let message = format!("every user of this machine can read {}", key.display());
            let warning = self
                .at(pointer, &message)
                .help(format!("`chmod o-r {}`", key.display()));
            self.notes.warn(warning);
        }
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text =
        plugins::read(file, MAX_SETTINGS).map_err(|error| format!("can't be read: {error}"))?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, pem::Error>>()
        .map_err(|error| format!("is not a PEM file: {error}"))?;
    if chain.is_empty() {
        return Err("holds no certificate (`-----BEGIN CERTIFICATE-----`)".to_owned());
    }
    Ok(chain)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text =
        plugins::read(file, MAX_SETTINGS).map_err(|error| format!("can't be read: {error}"))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            "holds no private key (`-----BEGIN PRIVATE KEY-----`, without a password)".to_owned()
        }
        error => format!("is not a PEM file: {error}"),
    })
}

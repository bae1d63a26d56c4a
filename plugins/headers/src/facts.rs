//! What can be asked of an exchange and what can be changed in it: in the request's phase, in the response's, and in an
//! answer that this filter makes itself. Rules and templates see [`Facts`] and [`Fields`] and none of the three.

use std::cell::OnceCell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tidegate_sdk::prelude::*;
use tidegate_sdk::{CertificateFacts, clock, random};

use crate::cookies;
use crate::names;
use crate::number;
use crate::query;
use crate::template::{CertificatePart, Source, TimeFormat, Unit};
use crate::time;
use crate::view::View;

/// The property that keeps the path as it was before it was rewritten.
pub(crate) const ORIGINAL_PATH: &str = "original-path";
/// The property that keeps an exchange's nonce.
const NONCE: &str = "csp-nonce";

/// What is known of an exchange.
pub(crate) trait Facts {
    /// Writes what a source stands for behind what is in `out`. Says whether there is such a thing, be it empty.
    fn write(&self, source: &Source, out: &mut Vec<u8>) -> bool;

    /// All values of a field of the request.
    fn request_fields(&self, name: &str) -> Vec<Vec<u8>>;

    /// All values of a field of the response.
    fn response_fields(&self, name: &str) -> Vec<Vec<u8>>;

    /// The response's status; 0 before there is one.
    fn status(&self) -> u16;
}

/// Named values in an order, which rules change: a head's fields, or its cookies.
pub(crate) trait Fields {
    fn facts(&self) -> &dyn Facts;
    fn has(&self, name: &str) -> bool;
    fn get_all(&self, name: &str) -> Vec<Vec<u8>>;
    /// The names, each once or more often.
    fn names(&self) -> Vec<String>;
    /// Puts one value in place of all that a name has.
    fn set(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal>;
    fn append(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal>;
    fn remove(&mut self, name: &str) -> Result<(), Refusal>;
}

/// The request's phase.
pub(crate) struct Incoming<'a> {
    pub(crate) head: &'a mut RequestHead,
    /// As it came to this filter.
    path: OnceCell<String>,
}

/// The response's phase.
pub(crate) struct Outgoing<'a> {
    pub(crate) head: &'a mut ResponseHead,
    path: OnceCell<String>,
}

/// An answer of this filter's, in the request's phase.
pub(crate) struct Own<'a> {
    pub(crate) request: &'a Incoming<'a>,
    pub(crate) status: u16,
    /// Names in lower case, those of one name together.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
}

// === impl Incoming ===

impl<'a> Incoming<'a> {
    pub(crate) fn new(head: &'a mut RequestHead) -> Self {
        Incoming {
            head,
            path: OnceCell::new(),
        }
    }

    /// The path as it came to this filter.
    pub(crate) fn path(&self) -> &str {
        self.path.get_or_init(|| self.head.path())
    }
}

impl Facts for Incoming<'_> {
    fn write(&self, source: &Source, out: &mut Vec<u8>) -> bool {
        match source {
            Source::Path => put(out, self.path()),
            source => write(self.head, self, source, out),
        }
    }

    fn request_fields(&self, name: &str) -> Vec<Vec<u8>> {
        self.head.get_all(name)
    }

    fn response_fields(&self, _: &str) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn status(&self) -> u16 {
        0
    }
}

impl Fields for Incoming<'_> {
    fn facts(&self) -> &dyn Facts {
        self
    }

    fn has(&self, name: &str) -> bool {
        self.head.get(name).is_some()
    }

    fn get_all(&self, name: &str) -> Vec<Vec<u8>> {
        self.head.get_all(name)
    }

    fn names(&self) -> Vec<String> {
        changeable(self.head.iter().map(|(name, _)| name))
    }

    fn set(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        self.head.set(name, value)
    }

    fn append(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        self.head.append(name, value)
    }

    fn remove(&mut self, name: &str) -> Result<(), Refusal> {
        self.head.remove(name).map(drop)
    }
}

// === impl Outgoing ===

impl<'a> Outgoing<'a> {
    pub(crate) fn new(head: &'a mut ResponseHead) -> Self {
        Outgoing {
            head,
            path: OnceCell::new(),
        }
    }
}

impl Facts for Outgoing<'_> {
    fn write(&self, source: &Source, out: &mut Vec<u8>) -> bool {
        match source {
            Source::Path => put(out, self.path.get_or_init(|| self.head.path())),
            source => write(self.head, self, source, out),
        }
    }

    fn request_fields(&self, name: &str) -> Vec<Vec<u8>> {
        self.head.request_fields(name)
    }

    fn response_fields(&self, name: &str) -> Vec<Vec<u8>> {
        self.head.get_all(name)
    }

    fn status(&self) -> u16 {
        self.head.status()
    }
}

impl Fields for Outgoing<'_> {
    fn facts(&self) -> &dyn Facts {
        self
    }

    fn has(&self, name: &str) -> bool {
        self.head.get(name).is_some()
    }

    fn get_all(&self, name: &str) -> Vec<Vec<u8>> {
        self.head.get_all(name)
    }

    fn names(&self) -> Vec<String> {
        changeable(self.head.iter().map(|(name, _)| name))
    }

    fn set(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        self.head.set(name, value)
    }

    fn append(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        self.head.append(name, value)
    }

    fn remove(&mut self, name: &str) -> Result<(), Refusal> {
        self.head.remove(name).map(drop)
    }
}

// === impl Own ===

impl Facts for Own<'_> {
    fn write(&self, source: &Source, out: &mut Vec<u8>) -> bool {
        match source {
            Source::Path => self.request.write(source, out),
            source => write(self.request.head, self, source, out),
        }
    }

    fn request_fields(&self, name: &str) -> Vec<Vec<u8>> {
        self.request.request_fields(name)
    }

    fn response_fields(&self, name: &str) -> Vec<Vec<u8>> {
        self.get_all(name)
    }

    fn status(&self) -> u16 {
        self.status
    }
}

impl Fields for Own<'_> {
    fn facts(&self) -> &dyn Facts {
        self
    }

    fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(known, _)| known == name)
    }

    fn get_all(&self, name: &str) -> Vec<Vec<u8>> {
        let fields = self.fields.iter().filter(|(known, _)| known == name);
        fields.map(|(_, value)| value.clone()).collect()
    }

    fn names(&self) -> Vec<String> {
        self.fields.iter().map(|(name, _)| name.clone()).collect()
    }

    fn set(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        let at = self.fields.iter().position(|(known, _)| known == name);
        self.remove(name)?;
        let at = at.unwrap_or(self.fields.len());
        self.fields.insert(at, (name.to_owned(), value.to_vec()));
        Ok(())
    }

    fn append(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        let last = self.fields.iter().rposition(|(known, _)| known == name);
        let at = last.map_or(self.fields.len(), |last| last + 1);
        self.fields.insert(at, (name.to_owned(), value.to_vec()));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), Refusal> {
        self.fields.retain(|(known, _)| known != name);
        Ok(())
    }
}

/// Names without those that are the proxy's.
fn changeable(all: impl Iterator<Item = String>) -> Vec<String> {
    all.filter(|name| names::field(name).is_ok()).collect()
}

// === Sources ===

fn put(out: &mut Vec<u8>, value: impl AsRef<[u8]>) -> bool {
    out.extend_from_slice(value.as_ref());
    true
}

fn put_some(out: &mut Vec<u8>, value: Option<impl AsRef<[u8]>>) -> bool {
    value.is_some_and(|value| put(out, value))
}

/// What all phases tell alike.
fn write(view: &dyn View, facts: &dyn Facts, source: &Source, out: &mut Vec<u8>) -> bool {
    match source {
        Source::ClientAddress => put(out, view.client_address()),
        Source::ClientPort => number::write(u64::from(view.client_port()), out),
        Source::Protocol => put(out, view.protocol()),
        Source::TlsVersion => put_some(out, view.tls().map(|tls| tls.version)),
        Source::TlsCipher => put_some(out, view.tls().map(|tls| tls.cipher)),
        Source::TlsServerName => put_some(out, view.tls().and_then(|tls| tls.server_name)),
        Source::TlsAlpn => put_some(out, view.tls().and_then(|tls| tls.alpn)),
        Source::Route => put(out, view.route()),
        Source::RequestId => put(out, view.request_id()),
        Source::Method => put(out, view.method()),
        Source::Path => put(out, view.path()),
        Source::OriginalPath => match view.property(ORIGINAL_PATH) {
            Some(path) => put(out, path),
            None => facts.write(&Source::Path, out),
        },
        Source::Query => put_some(out, view.query()),
        Source::Uri => {
            facts.write(&Source::Path, out);
            if let Some(query) = view.query() {
                out.push(b'?');
                put(out, query);
            }
            true
        }
        Source::Host => put(out, view.authority()),
        Source::HostName => put(out, host_name(&view.authority())),
        Source::Scheme => put(out, view.scheme()),
        Source::Parameter(name) => put_some(out, view.path_parameter(name)),
        Source::QueryParameter(name) => {
            let query = view.query().unwrap_or_default();
            put_some(out, query::parameter(&query, name))
        }
        Source::Header(name) => put_some(out, view.request_field(name)),
        Source::Headers(name) => {
            let values = facts.request_fields(name);
            put(out, values.join(&b", "[..]));
            !values.is_empty()
        }
        Source::Cookie(name) => {
            let lines = facts.request_fields("cookie");
            put_some(out, cookies::find(&lines, name))
        }
        Source::Response(name) => put_some(out, facts.response_fields(name).into_iter().next()),
        Source::Property(name) => put_some(out, view.property(name)),
        Source::Status => {
            let status = facts.status();
            status > 0 && number::write(u64::from(status), out)
        }
        Source::Time(format) => {
            let now = clock::wall();
            match format {
                TimeFormat::Seconds => number::write(now / 1_000_000_000, out),
                TimeFormat::Milliseconds => number::write(now / 1_000_000, out),
                TimeFormat::Rfc3339 => put(out, time::rfc3339(now / 1_000_000_000)),
                TimeFormat::Http => put(out, time::http(now / 1_000_000_000)),
            }
        }
        Source::Nonce => put(out, nonce(view)),
        Source::Uuid => put(out, uuid()),
        Source::Certificate(part) => {
            let certificate = view.client_certificate();
            certificate.is_some_and(|facts| certificate_fact(&facts, *part, out))
        }
        Source::Duration(unit) => {
            let nanoseconds = view.elapsed();
            match unit {
                Unit::Microseconds => number::write(nanoseconds / 1_000, out),
                Unit::Milliseconds => number::write(nanoseconds / 1_000_000, out),
                Unit::Seconds => {
                    number::write(nanoseconds / 1_000_000_000, out);
                    out.push(b'.');
                    number::write_padded(nanoseconds / 1_000_000 % 1_000, 3, out);
                    true
                }
            }
        }
        // Only who renders knows the groups.
        Source::Capture(_) => false,
    }
}

/// A fact of a client's certificate; of several names the first.
fn certificate_fact(facts: &CertificateFacts, part: CertificatePart, out: &mut Vec<u8>) -> bool {
    match part {
        CertificatePart::Subject => put(out, &facts.subject),
        CertificatePart::Issuer => put(out, &facts.issuer),
        CertificatePart::Serial => put(out, &facts.serial),
        CertificatePart::Sha256 => put(out, &facts.sha256),
        CertificatePart::Dns => put_some(out, facts.dns_names.first()),
        CertificatePart::Uri => put_some(out, facts.uris.first()),
        CertificatePart::Email => put_some(out, facts.emails.first()),
        CertificatePart::Ip => put_some(out, facts.ip_addresses.first()),
    }
}

/// A host without its port; an IPv6 address keeps its brackets.
pub(crate) fn host_name(authority: &str) -> &str {
    let port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    match authority.rsplit_once(':') {
        Some((host, behind)) if port(behind) => host,
        _ => authority,
    }
}

/// 144 random bits, the same for all who ask in one exchange.
fn nonce(view: &dyn View) -> Vec<u8> {
    view.property(NONCE).unwrap_or_else(|| {
        let nonce = STANDARD.encode(random::bytes(18)).into_bytes();
        // If there is no room to keep it, the next who asks gets another one, which fits nothing: the safe side.
        let _kept = view.set_property(NONCE, &nonce);
        nonce
    })
}

/// A random UUID (RFC 9562 section 5.4).
fn uuid() -> Vec<u8> {
    let mut bytes = random::bytes(16);
    if let Some(version) = bytes.get_mut(6) {
        *version = *version & 0x0f | 0x40;
    }
    if let Some(variant) = bytes.get_mut(8) {
        *variant = *variant & 0x3f | 0x80;
    }
    let mut out = Vec::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        number::write_hex(*byte, &mut out);
    }
    out
}

//! Signed requests: HTTP message signatures (RFC 9421) by hmac-sha256, with a digest of the body (RFC 9530). Each passes once
//! only, within the clocks' skew.

mod input;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256, Sha512};
use subtle::ConstantTimeEq as _;
use tidegate_sdk::prelude::*;
use tidegate_sdk::store;

use crate::api_key::{hex, seconds};
use crate::config::{SignatureConfig, SignerConfig};
use crate::dates;
use crate::identity::Identity;
use crate::jwt::{base64, granted};
use crate::refused::Refused;
use input::Input;

/// The parts of a request that are no field and can be signed.
const DERIVED: [&str; 7] = [
    "@method",
    "@authority",
    "@scheme",
    "@target-uri",
    "@request-target",
    "@path",
    "@query",
];

/// Who signs, and what a signature must be.
#[derive(Debug)]
pub(crate) struct Signatures {
    signers: Vec<Signer>,
    components: Vec<String>,
    skew: i64,
    /// The namespace in which signatures are noted that have passed.
    once: Option<String>,
}

#[derive(Debug)]
struct Signer {
    id: String,
    secret: Vec<u8>,
    identity: Identity,
}

/// Whose request it is.
pub(crate) struct Signed<'a> {
    pub(crate) identity: &'a Identity,
    /// The body is still to be held against its digest.
    pub(crate) body: bool,
}

impl Signatures {
    /// # Errors
    /// Which key or component is wrong, and how to put it right.
    pub(crate) fn new(config: &SignatureConfig, namespace: &str) -> Result<Self, String> {
        let mut signers: Vec<Signer> = Vec::new();
        for (index, signer) in config.keys.iter().enumerate() {
            let signer =
                read(signer).map_err(|error| format!("`signature.keys[{index}]`: {error}"))?;
            if signers.iter().any(|known| known.id == signer.id) {
                return Err(format!(
                    "`signature.keys[{index}]`: the id `{}` is another key's too",
                    signer.id
                ));
            }
            signers.push(signer);
        }
        if signers.is_empty() {
            return Err("`signature.keys` needs at least one key".to_owned());
        }
        let mut components = config.components.clone();
        if components.is_empty() {
            components = ["@method", "@path", "@query"].map(str::to_owned).to_vec();
        }
        for component in &components {
            let field = !component.is_empty()
                && component
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            if !field && !DERIVED.contains(&component.as_str()) {
                return Err(format!(
                    "`signature.components`: `{component}` is no field's name in lower case and none of {}",
                    DERIVED.join(", ")
                ));
            }
        }
        let once = config.once.unwrap_or(true);
        if once {
            granted(namespace, "signature.once")?;
        }
        Ok(Signatures {
            signers,
            components,
            skew: i64::from(config.skew_seconds.unwrap_or(300)),
            once: once.then(|| namespace.to_owned()),
        })
    }

    /// Whose request it is, if it is signed.
    ///
    /// # Errors
    /// [`Refused`] for a signature that does not hold, is too old or has passed before.
    pub(crate) fn identify(&self, request: &RequestHead) -> Result<Option<Signed<'_>>, Refused> {
        let (inputs, signatures) = (
            request.get_all("signature-input"),
            request.get_all("signature"),
        );
        if inputs.is_empty() && signatures.is_empty() {
            return Ok(None);
        }
        let refused = |reason| Err(Refused::Signature(reason));
        let ([input], [signature]) = (&*inputs, &*signatures) else {
            return refused("a request has one Signature and one Signature-Input");
        };
        let Some(input) = std::str::from_utf8(input).ok().and_then(input::read) else {
            return refused("Signature-Input can't be read, or has more signatures than one");
        };
        let signature = std::str::from_utf8(signature).ok();
        let signature = signature.and_then(|text| input::signature(text, &input.label));
        let Some(signature) = signature else {
            return refused("Signature can't be read, or has no signature of that label");
        };
        if input
            .algorithm
            .as_deref()
            .is_some_and(|name| name != "hmac-sha256")
        {
            return refused("the signature's algorithm is not hmac-sha256");
        }
        let signer = input.key.as_deref();
        let signer = signer.and_then(|id| self.signers.iter().find(|signer| signer.id == id));
        let Some(signer) = signer else {
            return refused("the signature's key is not known");
        };
        self.check_cover(&input, request)?;
        let base = base(&input, request)?;
        let holds = Hmac::<Sha256>::new_from_slice(&signer.secret)
            .is_ok_and(|mac| mac.chain_update(base).verify_slice(&signature).is_ok());
        if !holds {
            return refused("the signature is wrong");
        }
        self.check_time(&input, request)?;
        self.check_once(&signature)?;
        let digest = input.components.iter().any(|one| one == "content-digest");
        if digest && request.is_end() {
            check_digest(request.get("content-digest"), &[])?;
        }
        Ok(Some(Signed {
            identity: &signer.identity,
            body: digest && !request.is_end(),
        }))
    }

    /// Everything that must be signed is.
    fn check_cover(&self, input: &Input, request: &RequestHead) -> Result<(), Refused> {
        let covers = |name: &str| input.components.iter().any(|one| one == name);
        if !self.components.iter().all(|name| covers(name)) {
            return Err(Refused::Signature(
                "the signature does not cover everything that it must",
            ));
        }
        if !request.is_end() && !covers("content-digest") {
            return Err(Refused::Signature(
                "the signature of a request with a body must cover content-digest",
            ));
        }
        Ok(())
    }

    fn check_time(&self, input: &Input, request: &RequestHead) -> Result<(), Refused> {
        let now = seconds();
        let near = |moment: i64| (now.saturating_sub(moment)).abs() <= self.skew;
        let dated = input.components.iter().any(|one| one == "date");
        if dated {
            let date = request.get_str("date");
            if !date.as_deref().and_then(dates::imf).is_some_and(near) {
                return Err(Refused::Signature(
                    "the Date is too far from the proxy's clock",
                ));
            }
        }
        match input.created {
            Some(created) if !near(created) => {
                return Err(Refused::Signature(
                    "the signature was created too long ago, or in the future",
                ));
            }
            None if !dated => {
                return Err(Refused::Signature("the signature needs `created`"));
            }
            _ => {}
        }
        if input.expires.is_some_and(|end| now >= end) {
            return Err(Refused::Signature("the signature has expired"));
        }
        Ok(())
    }

    fn check_once(&self, signature: &[u8]) -> Result<(), Refused> {
        let Some(namespace) = &self.once else {
            return Ok(());
        };
        let digest = Sha256::digest(signature);
        let key = ["signature/", &hex(digest.get(..16).unwrap_or_default())].concat();
        // It can't be good for longer than from one end of the skew to the other.
        let ttl = u64::try_from(self.skew).unwrap_or(0) * 2000 + 2000;
        match store::compare_and_swap(namespace, &key, None, b"1", ttl) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refused::Signature("the signature has been used before")),
            Err(error) => {
                log::error!("whether a signature was used before can't be told: {error}");
                Err(Refused::Unavailable(1))
            }
        }
    }
}

fn read(config: &SignerConfig) -> Result<Signer, String> {
    let secret = match (&config.secret, &config.secret_base64) {
        (Some(secret), None) => secret.clone().into_bytes(),
        (None, Some(text)) => base64(text)?,
        _ => return Err("a key has one of `secret` and `secret-base64`".to_owned()),
    };
    if secret.len() < 32 {
        return Err(format!(
            "the secret needs at least 32 bytes and has {}; `openssl rand -base64 32` makes one",
            secret.len()
        ));
    }
    let name = config.consumer.clone().unwrap_or_else(|| config.id.clone());
    Ok(Signer {
        id: config.id.clone(),
        secret,
        identity: Identity::new(name, config.roles.clone()),
    })
}

/// What is signed (RFC 9421 section 2.5).
fn base(input: &Input, request: &RequestHead) -> Result<Vec<u8>, Refused> {
    let mut base = Vec::with_capacity(256);
    for name in &input.components {
        base.push(b'"');
        base.extend_from_slice(name.as_bytes());
        base.extend_from_slice(b"\": ");
        component(name, request, &mut base)?;
        base.push(b'\n');
    }
    base.extend_from_slice(b"\"@signature-params\": ");
    base.extend_from_slice(input.parameters.as_bytes());
    Ok(base)
}

fn component(name: &str, request: &RequestHead, base: &mut Vec<u8>) -> Result<(), Refused> {
    let query = || request.query().unwrap_or_default();
    let text = match name {
        "@method" => request.method(),
        "@authority" => authority(request),
        "@scheme" => request.scheme(),
        "@path" => request.path(),
        "@query" => ["?", &query()].concat(),
        "@target-uri" => [
            &request.scheme(),
            "://",
            &authority(request),
            &target(request),
        ]
        .concat(),
        "@request-target" => target(request),
        other if other.starts_with('@') => {
            return Err(Refused::Signature(
                "the signature covers what is not known here",
            ));
        }
        field => {
            let values = request.get_all(field);
            if values.is_empty() {
                return Err(Refused::Signature(
                    "the signature covers a field that is not there",
                ));
            }
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    base.extend_from_slice(b", ");
                }
                base.extend_from_slice(value.trim_ascii());
            }
            return Ok(());
        }
    };
    base.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Host and port in normal form (RFC 9421 section 2.2.3): lower case, without the scheme's own port.
fn authority(request: &RequestHead) -> String {
    let authority = request.authority().to_ascii_lowercase();
    let port = if request.scheme() == "https" {
        ":443"
    } else {
        ":80"
    };
    match authority.strip_suffix(port) {
        Some(host) => host.to_owned(),
        None => authority,
    }
}

fn target(request: &RequestHead) -> String {
    match request.query() {
        None => request.path(),
        Some(query) => [&request.path(), "?", &query].concat(),
    }
}

/// Holds a body against the field Content-Digest (RFC 9530): each digest in it that is known here must be right, and one must be
/// there.
///
/// # Errors
/// [`Refused::Digest`].
pub(crate) fn check_digest(field: Option<Vec<u8>>, body: &[u8]) -> Result<(), Refused> {
    let field = field.and_then(|field| String::from_utf8(field).ok());
    let mut checked = false;
    for part in field.as_deref().unwrap_or_default().split(',') {
        let (name, value) = part.trim().split_once('=').unwrap_or_default();
        let made = match name {
            "sha-256" => Sha256::digest(body).to_vec(),
            "sha-512" => Sha512::digest(body).to_vec(),
            _ => continue,
        };
        let value = value
            .strip_prefix(':')
            .and_then(|rest| rest.strip_suffix(':'));
        let value = value.and_then(|text| STANDARD.decode(text).ok());
        if !value.is_some_and(|value| bool::from(value.ct_eq(&made))) {
            return Err(Refused::Digest);
        }
        checked = true;
    }
    if checked {
        Ok(())
    } else {
        Err(Refused::Digest)
    }
}

#[cfg(test)]
mod tests;

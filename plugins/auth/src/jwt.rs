//! JSON Web Tokens (RFC 7519) signed as RFC 7515 says, verified as RFC 8725 advises: the algorithm is the key's,
//! never the token's; keys that a token carries or points to are ignored; what is not understood is refused.
//! Knows no HTTP and no clock.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use p256::ecdsa::signature::Verifier;
use p256::pkcs8::DecodePublicKey;
use rsa::traits::PublicKeyParts;

use serde_json::{Map, Value};
use sha2::Sha256;
use tidegate_sdk::prelude::*;

/// The longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// The signature algorithm of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ConfigSchema)]
pub enum Algorithm {
    /// HMAC with SHA-256 and a shared secret.
    HS256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
}

/// A key as it is configured.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KeyConfig {
    /// The one algorithm that this key is used with.
    pub algorithm: Algorithm,
    /// HS256: the secret, at least 32 bytes.
    pub secret: Option<String>,
    /// RS256 and ES256: the public key as PEM (`BEGIN PUBLIC KEY`).
    pub public_key: Option<String>,
    /// The key's id. A token that names an id is verified with the key of that id only.
    pub kid: Option<String>,
}

/// What a token's claims must satisfy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// The only issuer (`iss`) taken, if one is given.
    pub(crate) issuer: Option<String>,
    /// Audiences of which the token's `aud` must hold one, if any are given.
    pub(crate) audience: Vec<String>,
    /// Seconds by which clocks may differ.
    pub(crate) leeway: u32,
    /// Whether a token without `exp` is taken.
    pub(crate) allow_without_expiry: bool,
}

/// Why a token was refused. The text goes to the log and, as `error_description`, to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    TooLong,
    Malformed,
    Algorithm,
    Critical,
    UnknownKey,
    Signature,
    NoExpiry,
    Expired,
    NotYetValid,
    BadTime,
    Issuer,
    Audience,
}

impl Rejection {
    /// A sentence without quotes, fit for a quoted-string.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Rejection::TooLong => "the token is too long",
            Rejection::Malformed => "the token is malformed",
            Rejection::Algorithm => "the token's algorithm is not the key's",
            Rejection::Critical => "the token demands an extension that is not understood",
            Rejection::UnknownKey => "the token's key is not known",
            Rejection::Signature => "the token's signature is wrong",
            Rejection::NoExpiry => "the token has no expiry",
            Rejection::Expired => "the token has expired",
            Rejection::NotYetValid => "the token is not valid yet",
            Rejection::BadTime => "the token has a time that is no number",
            Rejection::Issuer => "the token's issuer is not accepted",
            Rejection::Audience => "the token is for another audience",
        }
    }
}

/// A set of keys.
#[derive(Debug, Default)]
pub(crate) struct Verifiers {
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Secret(Vec<u8>),
    Rsa(Box<rsa::pkcs1v15::VerifyingKey<Sha256>>),
    P256(Box<p256::ecdsa::VerifyingKey>),
}

impl Key {
    fn algorithm(&self) -> &'static str {
        match self.material {
            Material::Secret(_) => "HS256",
            Material::Rsa(_) => "RS256",
            Material::P256(_) => "ES256",
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Secret(secret) => Hmac::<Sha256>::new_from_slice(secret)
                .is_ok_and(|mac| mac.chain_update(message).verify_slice(signature).is_ok()),
            Material::Rsa(key) => rsa::pkcs1v15::Signature::try_from(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Material::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }
}

impl Verifiers {
    /// Reads the configured keys.
    ///
    /// # Errors
    /// A sentence naming the key, by its position and id, and what is wrong with it.
    pub(crate) fn new(keys: &[KeyConfig]) -> Result<Self, String> {
        let keys = keys
            .iter()
            .enumerate()
            .map(|(index, config)| {
                let material =
                    read_key(config).map_err(|error| format!("jwt.keys[{index}]: {error}"))?;
                Ok(Key {
                    id: config.kid.clone(),
                    material,
                })
            })
            .collect::<Result<_, String>>()?;
        Ok(Verifiers { keys })
    }

    /// Verifies a token and returns its claims. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// See [`Rejection`].
    pub(crate) fn verify(
        &self,
        token: &str,
        rules: &Rules,
        now: i64,
    ) -> Result<Map<String, Value>, Rejection> {
        if token.len() > MAX_TOKEN {
            return Err(Rejection::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Rejection::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(Rejection::Malformed)?;
        let header = object(header)?;
        if header.contains_key("crit") {
            return Err(Rejection::Critical);
        }
        let algorithm = header
            .get("alg")
            .and_then(Value::as_str)
            .ok_or(Rejection::Algorithm)?;
        let id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.as_str()),
            Some(_) => return Err(Rejection::Malformed),
        };
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| Rejection::Malformed)?;
        self.check_signature(id, algorithm, message.as_bytes(), &signature)?;
        let claims = object(payload)?;
        check_times(&claims, rules, now)?;
        check_parties(&claims, rules)?;
        Ok(claims)
    }

    /// A key with the token's id, else keys without an id. A token without an id tries all keys.
    fn check_signature(
        &self,
        id: Option<&str>,
        algorithm: &str,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Rejection> {
        let named = self
            .keys
            .iter()
            .any(|key| id.is_some() && key.id.as_deref() == id);
        let mut candidates = self
            .keys
            .iter()
            .filter(|key| match id {
                Some(_) if named => key.id.as_deref() == id,
                Some(_) => key.id.is_none(),
                None => true,
            })
            .peekable();
        if candidates.peek().is_none() {
            return Err(Rejection::UnknownKey);
        }
        let mut rejection = Rejection::Algorithm;
        for key in candidates.filter(|key| key.algorithm() == algorithm) {
            if key.verifies(message, signature) {
                return Ok(());
            }
            rejection = Rejection::Signature;
        }
        Err(rejection)
    }
}

fn read_key(config: &KeyConfig) -> Result<Material, String> {
    let public_key = || match (&config.public_key, &config.secret) {
        (Some(pem), None) => Ok(pem),
        _ => Err("RS256 and ES256 take `public-key` and no `secret`".to_owned()),
    };
    match config.algorithm {
        Algorithm::HS256 => match (&config.secret, &config.public_key) {
            (Some(secret), None) if secret.len() >= 32 => {
                Ok(Material::Secret(secret.clone().into_bytes()))
            }
            (Some(_), None) => Err(
                "an HS256 `secret` must have at least 32 bytes (RFC 7518 section 3.2)".to_owned(),
            ),
            _ => Err("HS256 takes a `secret` and no `public-key`".to_owned()),
        },
        Algorithm::RS256 => {
            let key = rsa::RsaPublicKey::from_public_key_pem(public_key()?)
                .map_err(|error| format!("no RSA public key in PEM form: {error}"))?;
            if key.size() < 256 {
                return Err(
                    "an RSA key must have at least 2048 bits (RFC 7518 section 3.3)".to_owned(),
                );
            }
            Ok(Material::Rsa(Box::new(rsa::pkcs1v15::VerifyingKey::new(
                key,
            ))))
        }
        Algorithm::ES256 => {
            let key = p256::ecdsa::VerifyingKey::from_public_key_pem(public_key()?)
                .map_err(|error| format!("no P-256 public key in PEM form: {error}"))?;
            Ok(Material::P256(Box::new(key)))
        }
    }
}

fn object(part: &str) -> Result<Map<String, Value>, Rejection> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Rejection::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| Rejection::Malformed)
}

fn check_times(claims: &Map<String, Value>, rules: &Rules, now: i64) -> Result<(), Rejection> {
    let leeway = i64::from(rules.leeway);
    match time(claims, "exp")? {
        Some(expiry) if now >= expiry.saturating_add(leeway) => return Err(Rejection::Expired),
        None if !rules.allow_without_expiry => return Err(Rejection::NoExpiry),
        _ => {}
    }
    for claim in ["nbf", "iat"] {
        if time(claims, claim)?.is_some_and(|start| now < start.saturating_sub(leeway)) {
            return Err(Rejection::NotYetValid);
        }
    }
    Ok(())
}

/// A NumericDate (RFC 7519 section 2): seconds, possibly with a fraction, within the range of 64 bits.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, Rejection> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    if let Some(seconds) = value.as_i64() {
        return if seconds >= 0 {
            Ok(Some(seconds))
        } else {
            Err(Rejection::BadTime)
        };
    }
    match value.as_f64() {
        // Far beyond any date and far within 64 bits.
        Some(seconds) if (0.0..1e15).contains(&seconds) => Ok(Some(seconds as i64)),
        _ => Err(Rejection::BadTime),
    }
}

fn check_parties(claims: &Map<String, Value>, rules: &Rules) -> Result<(), Rejection> {
    if let Some(issuer) = &rules.issuer
        && claims.get("iss").and_then(Value::as_str) != Some(issuer)
    {
        return Err(Rejection::Issuer);
    }
    if !rules.audience.is_empty() {
        let accepted = |value: &Value| {
            value
                .as_str()
                .is_some_and(|name| rules.audience.iter().any(|a| a == name))
        };
        let ours = match claims.get("aud") {
            Some(Value::Array(audiences)) => audiences.iter().any(accepted),
            Some(audience) => accepted(audience),
            None => false,
        };
        if !ours {
            return Err(Rejection::Audience);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

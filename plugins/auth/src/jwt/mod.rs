//! JSON Web Tokens (RFC 7519): finds the token, verifies it with a key that its issuer has, checks its claims, and remembers that.

mod der;
mod keys;
mod remote;
mod token;

use std::cell::RefCell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tidegate_sdk::prelude::*;
use tidegate_sdk::store;

use crate::api_key::{hex, seconds};
use crate::claims::{Use, UseConfig};
use crate::config::{Algorithm, JwtConfig, KeyConfig};
use crate::identity::Identity;
use crate::json;
use crate::place::{self, Place};
use crate::refused::{Refused, Rejection};
use crate::remember::{Keyed, Table};
use keys::Key;
use remote::Remote;
pub(crate) use remote::granted;
use token::{Rules, Times, Token};

/// Which tokens are taken, and what becomes of them.
#[derive(Debug)]
pub(crate) struct Tokens {
    places: Vec<Place>,
    hide: bool,
    /// Tokens of another form are left to another method.
    only_jws: bool,
    max_size: usize,
    algorithms: Vec<Algorithm>,
    keys: Vec<Key>,
    remote: Option<Remote>,
    rules: Rules,
    claims: Use,
    /// The namespace with the deny list.
    deny: Option<String>,
    keyed: Keyed,
    known: RefCell<Table<Known>>,
}

/// A token that was verified.
#[derive(Debug)]
struct Known {
    identity: Identity,
    times: Times,
    jti: Option<String>,
    /// The fetched key set's number when it was verified.
    epoch: u64,
}

impl Tokens {
    /// `only_jws`: tokens that are none of this kind are left to another method.
    ///
    /// # Errors
    /// Which key is wrong, and how to put it right.
    pub(crate) fn new(config: &JwtConfig, namespace: &str, only_jws: bool) -> Result<Self, String> {
        let keys =
            config.keys.iter().enumerate().map(|(index, key)| {
                read(key).map_err(|error| format!("`jwt.keys[{index}]`: {error}"))
            });
        let keys: Vec<Key> = keys.collect::<Result<_, String>>()?;
        let remote = match (&config.jwks, &config.oidc) {
            (Some(_), Some(_)) => {
                return Err("`jwt.jwks` and `jwt.oidc` name two key sets: keep one".to_owned());
            }
            (Some(jwks), None) => Some(Remote::jwks(jwks, namespace)?),
            (None, Some(oidc)) => Some(Remote::oidc(oidc, namespace)?),
            (None, None) => None,
        };
        if keys.is_empty() && remote.is_none() {
            return Err(
                "`jwt` needs `keys`, `jwks` or `oidc`: without a key no token can be verified"
                    .to_owned(),
            );
        }
        if config.deny_list {
            granted(namespace, "jwt.deny-list")?;
        }
        let issuer = config.issuer.clone();
        let issuer = issuer.or_else(|| config.oidc.as_ref().map(|oidc| oidc.issuer.clone()));
        let typ = config.typ.as_ref().map(|typ| typ.to_ascii_lowercase());
        Ok(Tokens {
            places: Place::of_tokens(&config.from, "jwt.from")?,
            hide: config.hide,
            only_jws,
            max_size: config.max_size.unwrap_or(8192) as usize,
            algorithms: config.algorithms.clone(),
            keys,
            remote,
            rules: Rules {
                issuer,
                audience: config.audience.clone(),
                typ: typ.map(|typ| typ.strip_prefix("application/").unwrap_or(&typ).to_owned()),
                leeway: i64::from(config.leeway_seconds.unwrap_or(30)),
                max_age: config.max_age_seconds.map(i64::from),
                allow_without_expiry: config.allow_without_expiry,
            },
            claims: Use::new(&UseConfig {
                key: "jwt",
                scopes: &config.require_scopes,
                rules: &config.require,
                claims: &config.claims,
                properties: &config.properties,
                consumer: config.consumer.as_deref(),
                consumer_else: &["sub"],
                roles: config.roles.as_deref(),
            })?,
            deny: config.deny_list.then(|| namespace.to_owned()),
            keyed: Keyed::default(),
            known: RefCell::new(Table::new(config.remember.unwrap_or(500))),
        })
    }

    /// The fields that it fills.
    pub(crate) fn fields(&self) -> impl Iterator<Item = String> + '_ {
        self.claims.fields()
    }

    /// Looks for a token, and calls `then` with whose it is.
    ///
    /// # Errors
    /// [`Refused`] for a token that does not hold or lacks something, and for more tokens than one.
    pub(crate) fn identify<T>(
        &self,
        request: &RequestHead,
        then: impl FnOnce(&Identity) -> T,
    ) -> Result<Option<T>, Refused> {
        let Some(token) = place::only(&self.places, request)? else {
            return Ok(None);
        };
        if self.only_jws && token.iter().filter(|byte| **byte == b'.').count() != 2 {
            return Ok(None);
        }
        if token.len() > self.max_size {
            return Err(Refused::Token(Rejection::TooLong));
        }
        let now = seconds();
        let digest = self.keyed.digest(&[&token]);
        // Also for a token that is known: a key that its issuer has withdrawn counts no more.
        let epoch = match &self.remote {
            Some(remote) if self.keys.is_empty() => remote.refresh(now)?,
            Some(remote) => remote.refresh(now).unwrap_or_default(),
            None => 0,
        };
        if let Some(known) = self.known.borrow_mut().get(digest)
            && known.epoch == epoch
        {
            known
                .times
                .check(&self.rules, now)
                .map_err(Refused::Token)?;
            self.check_deny_list(known.jti.as_deref())?;
            return Ok(Some(then(&known.identity)));
        }
        let read = Token::read(&token, &self.rules).map_err(Refused::Token)?;
        self.check_signature(&read, now)?;
        let (claims, times) = read.claims(&self.rules, now).map_err(Refused::Token)?;
        let identity = self.claims.identity(&claims)?;
        let jti = claims.get("jti").and_then(Value::as_str);
        self.check_deny_list(jti)?;
        let answer = then(&identity);
        let known = Known {
            identity,
            times,
            jti: jti.filter(|_| self.deny.is_some()).map(str::to_owned),
            // The set may have been fetched anew for the sake of this very token.
            epoch: match &self.remote {
                Some(remote) => remote.refresh(now).unwrap_or(epoch),
                None => 0,
            },
        };
        self.known.borrow_mut().put(digest, known);
        Ok(Some(answer))
    }

    fn check_signature(&self, token: &Token<'_>, now: i64) -> Result<(), Refused> {
        if !self.algorithms.is_empty() && !self.algorithms.contains(&token.algorithm) {
            return Err(Refused::Token(Rejection::Algorithm));
        }
        let outcome = check_signature(&self.keys, token);
        let Some(remote) = &self.remote else {
            return outcome.map_err(Refused::Token);
        };
        if outcome.is_ok() {
            return Ok(());
        }
        if !self.keys.is_empty() {
            remote.refresh(now)?;
        }
        remote
            .with_keys(now, |keys| check_signature(keys, token))
            .map_err(Refused::Token)
    }

    fn check_deny_list(&self, jti: Option<&str>) -> Result<(), Refused> {
        let (Some(namespace), Some(jti)) = (&self.deny, jti) else {
            return Ok(());
        };
        let key = if jti.len() <= 256 {
            ["jti/", jti].concat()
        } else {
            ["jti/", &hex(&Sha256::digest(jti))].concat()
        };
        match store::get(namespace, &key) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(Refused::Token(Rejection::Denied)),
            Err(error) => {
                log::error!("the deny list can't be read: {error}");
                Err(Refused::Unavailable(1))
            }
        }
    }

    /// Takes the token out of what is forwarded, if that was asked for.
    pub(crate) fn hide(&self, request: &mut RequestHead) {
        if self.hide {
            for place in &self.places {
                place.hide(request);
            }
        }
    }
}

/// Tries the key with the token's id, else keys without an id. For a token without an id, all keys are tried that its algorithm
/// goes with.
fn check_signature(keys: &[Key], token: &Token<'_>) -> Result<(), Rejection> {
    let id = token.id.as_deref();
    let named = id.is_some() && keys.iter().any(|key| key.id.as_deref() == id);
    let mut rejection = Rejection::UnknownKey;
    for key in keys {
        let fits = match id {
            Some(_) if named => key.id.as_deref() == id,
            Some(_) => key.id.is_none(),
            None => true,
        };
        if !fits {
            continue;
        }
        if !key.takes(token.algorithm) {
            if rejection == Rejection::UnknownKey {
                rejection = Rejection::Algorithm;
            }
            continue;
        }
        if key.verifies(token.algorithm, token.message, &token.signature) {
            return Ok(());
        }
        rejection = Rejection::Signature;
    }
    Err(rejection)
}

/// Reads a configured key.
fn read(config: &KeyConfig) -> Result<Key, String> {
    let KeyConfig {
        algorithm,
        secret,
        secret_base64,
        public_key,
        jwk,
        kid,
    } = config;
    let id = kid.clone();
    let key = match (secret, secret_base64, public_key, jwk) {
        (Some(secret), None, None, None) => {
            Key::secret(*algorithm, secret.clone().into_bytes(), id)?
        }
        (None, Some(text), None, None) => Key::secret(*algorithm, base64(text)?, id)?,
        (None, None, Some(pem), None) => Key::pem(*algorithm, pem, id)?,
        (None, None, None, Some(Value::Object(jwk))) => Key::jwk(*algorithm, jwk, id)?,
        (None, None, None, Some(Value::String(text))) => {
            let jwk = json::object(text.as_bytes()).ok_or("its `jwk` is no JSON object")?;
            Key::jwk(*algorithm, &jwk, id)?
        }
        _ => {
            return Err(
                "a key has one of `secret`, `secret-base64`, `public-key` and `jwk`".to_owned(),
            );
        }
    };
    if key.is_open() {
        return Err("an RSA key needs `algorithm`: RS256 is what most issuers use".to_owned());
    }
    Ok(key)
}

/// Bytes that a configuration holds as base64.
///
/// # Errors
/// That it is none.
pub(crate) fn base64(text: &str) -> Result<Vec<u8>, String> {
    STANDARD
        .decode(text.trim())
        .map_err(|_| "its `secret-base64` is no base64 with padding; `openssl rand -base64 64` makes a secret".to_owned())
}

#[cfg(test)]
mod tests;

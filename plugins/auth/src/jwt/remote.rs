//! A key set that is fetched from an issuer: before its first use, ahead of its end, and for the sake of a key that is not known.
//! What one worker has fetched, all have: it goes through the store, and so does the right to fetch. Knows no token.

use std::cell::RefCell;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tidegate_sdk::http::{Call, CallResponse};
use tidegate_sdk::prelude::*;
use tidegate_sdk::store::{self, StoreError};

use super::keys::Key;
use crate::api_key::hex;
use crate::config::{FetchConfig, JwksConfig, OidcConfig};
use crate::json;
use crate::refused::{Refused, Rejection};

/// The longest key set that is taken, in bytes: it must fit into a value of the store.
const MAX_SET: u32 = 60 * 1024;
/// The most keys of a set that are looked at.
const MAX_KEYS: usize = 100;
/// The longest pause between two attempts while an issuer is down, in seconds.
const MAX_PAUSE: i64 = 30;
/// What the lock says while its holder fetches, and after that did not work.
const FETCHING: &[u8] = b"fetching";
const PAUSING: &[u8] = b"pausing";
/// The shortest time for which keys count as fresh, in seconds, whatever the issuer says.
const MIN_FRESH: i64 = 30;

/// A key set that is fetched.
#[derive(Debug)]
pub(crate) struct Remote {
    source: Source,
    namespace: String,
    /// What stands before all of its keys in the store.
    name: String,
    fresh: i64,
    stale: i64,
    cooldown: u64,
    timeout: u32,
    held: RefCell<Held>,
}

#[derive(Debug)]
enum Source {
    Set {
        upstream: String,
        path: String,
    },
    Issuer {
        issuer: String,
        upstream: String,
        keys_upstream: Option<String>,
    },
}

/// What this instance has of it.
#[derive(Debug, Default)]
struct Held {
    keys: Vec<Key>,
    /// When it was fetched, and until when it is fresh, in seconds since 1970.
    fetched: i64,
    fresh_until: i64,
    /// Changes with each set that is taken up.
    epoch: u64,
}

impl Remote {
    /// # Errors
    /// What is wrong with an address, a bound, or the store's grant.
    pub(crate) fn jwks(config: &JwksConfig, namespace: &str) -> Result<Self, String> {
        path_of(&config.path, "jwt.jwks.path")?;
        let name = [&config.upstream, " ", &config.path].concat();
        let source = Source::Set {
            upstream: config.upstream.clone(),
            path: config.path.clone(),
        };
        Remote::new(source, &name, &config.fetch, namespace, "jwt.jwks")
    }

    /// # Errors
    /// As above.
    pub(crate) fn oidc(config: &OidcConfig, namespace: &str) -> Result<Self, String> {
        let Some((_, path)) = split(&config.issuer) else {
            return Err(format!(
                "`jwt.oidc.issuer`: `{}` must be an address, such as `https://login.example/realms/main`",
                config.issuer
            ));
        };
        path_of(path, "jwt.oidc.issuer")?;
        let name = [&config.upstream, " ", &config.issuer].concat();
        let source = Source::Issuer {
            issuer: config.issuer.clone(),
            upstream: config.upstream.clone(),
            keys_upstream: config.keys_upstream.clone(),
        };
        Remote::new(source, &name, &config.fetch, namespace, "jwt.oidc")
    }

    fn new(
        source: Source,
        name: &str,
        fetch: &FetchConfig,
        namespace: &str,
        key: &str,
    ) -> Result<Self, String> {
        let cooldown = fetch.cooldown_seconds.unwrap_or(60);
        if cooldown < 10 {
            return Err(format!(
                "`{key}.fetch.cooldown-seconds` is {cooldown} and must be at least 10, or anybody makes the proxy ask the issuer without end"
            ));
        }
        granted(namespace, key)?;
        let digest = Sha256::digest(name);
        Ok(Remote {
            source,
            namespace: namespace.to_owned(),
            name: format!("keys/{}", hex(digest.get(..12).unwrap_or_default())),
            fresh: i64::from(fetch.fresh_seconds.unwrap_or(600)).max(MIN_FRESH),
            stale: i64::from(fetch.stale_seconds.unwrap_or(86_400)),
            cooldown: u64::from(cooldown) * 1000,
            timeout: fetch.timeout_ms.unwrap_or(3000).clamp(1, 60_000),
            held: RefCell::default(),
        })
    }

    /// Sees to it that the keys are as fresh as they can be had. Cheap as long as nothing is due. Gives the set's number, which
    /// changes with the set.
    ///
    /// # Errors
    /// [`Refused::Unavailable`] if there are no keys that may still be used.
    pub(crate) fn refresh(&self, now: i64) -> Result<u64, Refused> {
        let held = &mut *self.held.borrow_mut();
        if now < held.due() {
            return Ok(held.epoch);
        }
        self.take_up(held);
        if now >= held.due() {
            self.fetch_if_nobody_does(held, now);
        }
        if !held.keys.is_empty() && now < held.fresh_until.saturating_add(self.stale) {
            Ok(held.epoch)
        } else {
            Err(Refused::Unavailable(1))
        }
    }

    /// Lets keys be tried, and once more with a set that was fetched for the sake of it if none of them is known.
    pub(crate) fn with_keys(
        &self,
        now: i64,
        attempt: impl Fn(&[Key]) -> Result<(), Rejection>,
    ) -> Result<(), Rejection> {
        let held = &mut *self.held.borrow_mut();
        let outcome = attempt(&held.keys);
        if outcome != Err(Rejection::UnknownKey) {
            return outcome;
        }
        let before = held.epoch;
        self.take_up(held);
        // Whoever sends random ids makes nobody ask the issuer more often than once in that time.
        if held.epoch == before && self.first("kid", self.cooldown) {
            self.fetch(held, now);
        }
        if held.epoch == before {
            return outcome;
        }
        attempt(&held.keys)
    }

    /// Whether nobody did this for some time; and nobody will.
    fn first(&self, what: &str, ttl_ms: u64) -> bool {
        let key = [&self.name, "/", what].concat();
        store::compare_and_swap(&self.namespace, &key, None, FETCHING, ttl_ms).unwrap_or(false)
    }

    fn fetch_if_nobody_does(&self, held: &mut Held, now: i64) {
        let lock = u64::from(self.timeout) * 2 + 1000;
        if self.first("fetch", lock) {
            self.fetch(held, now);
            return;
        }
        // Somebody fetches, or waits after a failure. With keys at hand, stale or not, they do meanwhile.
        if !held.keys.is_empty() {
            return;
        }
        // There is no way to wait for somebody else's fetch, and to refuse who comes while it runs would be worse.
        let lock = [&self.name, "/fetch"].concat();
        if let Ok(Some(FETCHING)) = store::get(&self.namespace, &lock)
            .as_ref()
            .map(Option::as_deref)
        {
            self.fetch(held, now);
        }
    }

    /// Fetches the set and shares it. A failure keeps what there is, and everybody from trying again for a while.
    fn fetch(&self, held: &mut Held, now: i64) {
        let lock = [&self.name, "/fetch"].concat();
        let failures = [&self.name, "/failures"].concat();
        match self.source.ask(self.timeout) {
            Ok((set, max_age)) => {
                let fresh = max_age.unwrap_or(i64::MAX).clamp(MIN_FRESH, self.fresh);
                let mut record = Vec::with_capacity(16 + set.len());
                record.extend_from_slice(&now.to_be_bytes());
                record.extend_from_slice(&now.saturating_add(fresh).to_be_bytes());
                record.extend_from_slice(&set);
                let stamp = [&self.name, "/at"].concat();
                let ttl = u64::try_from(self.fresh.saturating_add(self.stale)).unwrap_or_default();
                let ttl = ttl.saturating_mul(1000);
                let shared = store::set(&self.namespace, &self.name, &record, ttl)
                    .and_then(|()| store::set(&self.namespace, &stamp, &now.to_be_bytes(), ttl));
                if let Err(error) = shared {
                    log::error!("fetched keys can't be shared with the other workers: {error}");
                }
                held.put(&record);
                let _ = store::delete(&self.namespace, &failures);
                let _ = store::delete(&self.namespace, &lock);
            }
            Err(error) => {
                let count = store::increment(&self.namespace, &failures, 1, 300_000).unwrap_or(1);
                let pause = 1_i64
                    .checked_shl(u32::try_from(count - 1).unwrap_or(0).min(10))
                    .unwrap_or(MAX_PAUSE)
                    .min(MAX_PAUSE);
                log::error!(
                    "the issuer's keys can't be fetched, next attempt in {pause} s: {error}"
                );
                let ttl = u64::try_from(pause).unwrap_or(1) * 1000;
                let _ = store::set(&self.namespace, &lock, PAUSING, ttl);
            }
        }
    }

    /// Takes up what another worker has fetched, if it is newer.
    fn take_up(&self, held: &mut Held) {
        let stamp = [&self.name, "/at"].concat();
        let at = match store::get(&self.namespace, &stamp) {
            Ok(at) => at.and_then(|at| Some(i64::from_be_bytes(at.try_into().ok()?))),
            Err(error) => {
                log::error!("the store can't say which keys there are: {error}");
                None
            }
        };
        if at.is_none_or(|at| at <= held.fetched && !held.keys.is_empty()) {
            return;
        }
        if let Ok(Some(record)) = store::get(&self.namespace, &self.name) {
            held.put(&record);
        }
    }
}

impl Held {
    /// When keys are to be fetched anew: when four fifths of their time are over.
    fn due(&self) -> i64 {
        if self.keys.is_empty() {
            return i64::MIN;
        }
        self.fresh_until - (self.fresh_until - self.fetched) / 5
    }

    /// Takes up a record of the store.
    fn put(&mut self, record: &[u8]) {
        let Some((at, rest)) = record.split_at_checked(8) else {
            return;
        };
        let Some((until, set)) = rest.split_at_checked(8) else {
            return;
        };
        let number = |bytes: &[u8]| bytes.try_into().map(i64::from_be_bytes).unwrap_or_default();
        if let Ok(keys) = read(set) {
            self.keys = keys;
            self.fetched = number(at);
            self.fresh_until = number(until);
            self.epoch += 1;
        }
    }
}

impl Source {
    /// Fetches the set: its text, and for how long its issuer calls it fresh.
    fn ask(&self, timeout: u32) -> Result<(Vec<u8>, Option<i64>), String> {
        let response = match self {
            Source::Set { upstream, path } => get(upstream, path, timeout)?,
            Source::Issuer {
                issuer,
                upstream,
                keys_upstream,
            } => {
                let (host, path) = split(issuer).unwrap_or_default();
                let path = [
                    path.strip_suffix('/').unwrap_or(path),
                    "/.well-known/openid-configuration",
                ]
                .concat();
                let response = get(upstream, &path, timeout)?;
                let document = json::object(&response.body)
                    .ok_or_else(|| format!("`{path}` of `{upstream}` is no JSON object"))?;
                let text = |name: &str| document.get(name).and_then(Value::as_str);
                // RFC 8414 section 3.3: another issuer's document would name another's keys.
                if text("issuer") != Some(issuer) {
                    return Err(format!(
                        "`{upstream}` says that it is the issuer `{}`, not `{issuer}`",
                        text("issuer").unwrap_or_default()
                    ));
                }
                let address = text("jwks_uri").unwrap_or_default();
                let (there, path) =
                    split(address).ok_or_else(|| format!("`{upstream}` names no `jwks_uri`"))?;
                let upstream = match keys_upstream {
                    Some(keys) => keys,
                    None if there.eq_ignore_ascii_case(host) => upstream,
                    None => {
                        return Err(format!(
                            "the keys are at `{address}`, on another host than the issuer; name the upstream that has them in `keys-upstream`"
                        ));
                    }
                };
                get(upstream, path, timeout)?
            }
        };
        read(&response.body)?;
        let max_age = response.get("cache-control").and_then(max_age);
        Ok((response.body, max_age))
    }
}

/// Asks an upstream. A redirect is no answer: the address that was configured is the one that is trusted.
fn get(upstream: &str, path: &str, timeout: u32) -> Result<CallResponse, String> {
    let response = Call::new("GET", path)
        .field("accept", "application/json")
        .timeout_ms(timeout)
        .max_response(MAX_SET)
        .send(upstream)
        .map_err(|error| format!("`{path}` of `{upstream}`: {error}"))?;
    match response.status {
        200 => Ok(response),
        status => Err(format!("`{path}` of `{upstream}` has the status {status}")),
    }
}

/// Reads a key set. Keys that are of no use here are passed over, secrets among them: what anybody can fetch is no secret.
pub(crate) fn read(set: &[u8]) -> Result<Vec<Key>, String> {
    let set = json::object(set).ok_or("the key set is no JSON object")?;
    let list = set.get("keys").and_then(Value::as_array);
    let list = list.ok_or("the key set has no list `keys`")?;
    let keys: Vec<Key> = list
        .iter()
        .take(MAX_KEYS)
        .filter_map(Value::as_object)
        .filter(|jwk| jwk.get("kty").and_then(Value::as_str) != Some("oct"))
        .filter_map(|jwk| Key::jwk(None, jwk, None).ok())
        .collect();
    if keys.is_empty() {
        return Err("the key set has no key that can be used here".to_owned());
    }
    Ok(keys)
}

/// The `max-age` of Cache-Control, in seconds.
fn max_age(value: &[u8]) -> Option<i64> {
    let value = std::str::from_utf8(value).ok()?;
    value.split(',').find_map(|directive| {
        let (name, seconds) = directive.trim().split_once('=')?;
        name.eq_ignore_ascii_case("max-age")
            .then(|| seconds.trim_matches('"').parse().ok())
            .flatten()
    })
}

/// Host (with port) and path of an address.
fn split(address: &str) -> Option<(&str, &str)> {
    let rest = address
        .strip_prefix("https://")
        .or_else(|| address.strip_prefix("http://"))?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at_checked(end)?;
    (!host.is_empty()).then_some((host, path))
}

fn path_of(path: &str, key: &str) -> Result<(), String> {
    let fits = path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if fits && (path.starts_with('/') || path.is_empty() && key.ends_with("issuer")) {
        Ok(())
    } else {
        Err(format!(
            "`{key}`: `{path}` must be a path that begins with `/`"
        ))
    }
}

/// Whether the store may be used.
///
/// # Errors
/// The line that grants it.
pub(crate) fn granted(namespace: &str, key: &str) -> Result<(), String> {
    match store::get(namespace, "-") {
        Err(StoreError::NotGranted) => Err(format!(
            "`{key}` needs the store, which workers share; add `allow = {{ store = [\"{namespace}\"] }}` to the filter"
        )),
        _ => Ok(()),
    }
}

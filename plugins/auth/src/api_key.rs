//! API keys: whose key was shown, in a time that does not depend on how nearly it was right. Knows digests only; the keys
//! themselves are nowhere in the configuration.

use std::cell::RefCell;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tidegate_sdk::prelude::*;
use tidegate_sdk::{clock, store};

use crate::config::{ApiKeyConfig, Consumer};
use crate::dates;
use crate::identity::Identity;
use crate::place::{self, Place, field_name};
use crate::refused::Refused;
use crate::remember::{Keyed, Table};

/// Keys that were found and are remembered.
const REMEMBERED: u32 = 1024;
/// The longest key, in bytes.
const MAX_KEY: usize = 4096;

/// The consumers and their keys' digests.
#[derive(Debug)]
pub(crate) struct ApiKeys {
    places: Vec<Place>,
    hide: bool,
    known: Vec<Known>,
    /// The namespace in which keys are looked up too, and for how many seconds what is found is remembered.
    shelf: Option<(String, u32)>,
    keyed: Keyed,
    found: RefCell<Table<Found>>,
}

#[derive(Debug)]
struct Known {
    digest: [u8; 32],
    identity: Identity,
    /// Seconds since 1970.
    expires: Option<i64>,
}

/// Whose key was found.
#[derive(Debug)]
enum Found {
    /// The consumer at that position.
    Configured(usize),
    /// One from the store, until that second.
    Stored(Box<Identity>, i64),
}

impl ApiKeys {
    /// # Errors
    /// Which key or consumer is wrong, and how to put it right.
    pub(crate) fn new(config: &ApiKeyConfig, namespace: &str) -> Result<Self, String> {
        if config.consumers.is_empty() && !config.in_store {
            return Err(
                "`api-key.consumers` needs at least one consumer, or set `in-store = true`"
                    .to_owned(),
            );
        }
        let mut places = Vec::new();
        if let Some(name) = &config.header {
            places.push(Place::Field(field_name(name, "api-key.header")?));
        }
        places.extend(config.query.clone().map(Place::Query));
        places.extend(config.cookie.clone().map(Place::Cookie));
        if places.is_empty() {
            places.push(Place::Field("x-api-key".to_owned()));
        }
        let mut known: Vec<Known> = Vec::with_capacity(config.consumers.len());
        for consumer in &config.consumers {
            let one = read(consumer)?;
            if known.iter().any(|other| other.digest == one.digest) {
                return Err(format!(
                    "the key of consumer `{}` is another consumer's too",
                    consumer.name
                ));
            }
            known.push(one);
        }
        let seconds = config.remember_seconds.unwrap_or(60);
        Ok(ApiKeys {
            places,
            hide: config.hide,
            known,
            shelf: config.in_store.then(|| (namespace.to_owned(), seconds)),
            keyed: Keyed::default(),
            found: RefCell::new(Table::new(REMEMBERED)),
        })
    }

    /// Looks for a key, and calls `then` with whose it is.
    ///
    /// # Errors
    /// [`Refused`] for a key that nobody has, and for more keys than one.
    pub(crate) fn identify<T>(
        &self,
        request: &RequestHead,
        then: impl FnOnce(&Identity) -> T,
    ) -> Result<Option<T>, Refused> {
        let Some(key) = place::only(&self.places, request)? else {
            return Ok(None);
        };
        if key.len() > MAX_KEY {
            return Err(Refused::UnknownKey);
        }
        let quick = self.keyed.digest(&[&key]);
        let mut table = self.found.borrow_mut();
        match table.get(quick) {
            Some(Found::Configured(index)) => {
                let known = self.known.get(*index).ok_or(Refused::UnknownKey)?;
                return self.live(known).map(|identity| Some(then(identity)));
            }
            Some(Found::Stored(identity, until)) if *until > seconds() => {
                return Ok(Some(then(identity)));
            }
            _ => {}
        }
        let digest: [u8; 32] = Sha256::digest(&key).into();
        if let Some(index) = self.find(&digest) {
            let known = self.known.get(index).ok_or(Refused::UnknownKey)?;
            let identity = self.live(known)?;
            table.put(quick, Found::Configured(index));
            return Ok(Some(then(identity)));
        }
        let (identity, until) = self.look_up(&digest)?;
        let answer = then(&identity);
        table.put(quick, Found::Stored(Box::new(identity), until));
        Ok(Some(answer))
    }

    /// The position of the consumer with that digest. All digests are compared, each in constant time.
    fn find(&self, digest: &[u8; 32]) -> Option<usize> {
        let mut found = None;
        for (index, known) in self.known.iter().enumerate() {
            if bool::from(known.digest.ct_eq(digest)) {
                found = Some(index);
            }
        }
        found
    }

    /// Who a key stands for, unless its time is over.
    fn live<'a>(&self, known: &'a Known) -> Result<&'a Identity, Refused> {
        match known.expires {
            Some(end) if seconds() >= end => Err(Refused::UnknownKey),
            _ => Ok(&known.identity),
        }
    }

    /// Who a key of the store stands for, and until which second that may be remembered.
    fn look_up(&self, digest: &[u8; 32]) -> Result<(Identity, i64), Refused> {
        let (namespace, remember) = self.shelf.as_ref().ok_or(Refused::UnknownKey)?;
        let key = format!("key/{}", hex(digest));
        let text = match store::get(namespace, &key) {
            Ok(Some(text)) => text,
            Ok(None) => return Err(Refused::UnknownKey),
            Err(error) => {
                log::error!("API keys can't be looked up: {error}");
                return Err(Refused::Unavailable(1));
            }
        };
        let record: Value = serde_json::from_slice(&text).unwrap_or_default();
        let name = record.get("name").and_then(Value::as_str);
        let expires = match record.get("expires") {
            None => Some(i64::MAX),
            Some(moment) => moment.as_str().and_then(dates::rfc3339),
        };
        let (Some(name), Some(expires)) = (name, expires) else {
            log::error!(
                "the record of an API key in the store can't be read: `name` is a text and `expires` a moment"
            );
            return Err(Refused::UnknownKey);
        };
        let now = seconds();
        if now >= expires {
            return Err(Refused::UnknownKey);
        }
        let roles = record.get("roles").and_then(Value::as_array);
        let roles = roles.into_iter().flatten().filter_map(Value::as_str);
        let identity = Identity::new(name.to_owned(), roles.map(str::to_owned).collect());
        Ok((identity, expires.min(now + i64::from(*remember))))
    }

    /// Takes the key out of what is forwarded, if that was asked for.
    pub(crate) fn hide(&self, request: &mut RequestHead) {
        if self.hide {
            for place in &self.places {
                place.hide(request);
            }
        }
    }
}

fn read(consumer: &Consumer) -> Result<Known, String> {
    let name = &consumer.name;
    let digest = from_hex(&consumer.sha256).ok_or_else(|| {
        format!(
            "the sha256 of consumer `{name}` must be 64 hexadecimal digits: `printf %s KEY | sha256sum` prints them"
        )
    })?;
    let expires = match &consumer.expires {
        None => None,
        Some(text) => Some(dates::rfc3339(text).ok_or_else(|| {
            format!(
                "`expires` of consumer `{name}` is `{text}`; write a date, `2027-01-31`, or a moment, `2027-01-31T12:00:00Z`"
            )
        })?),
    };
    Ok(Known {
        digest,
        identity: Identity::new(name.clone(), consumer.roles.clone()),
        expires,
    })
}

/// Seconds since 1970.
pub(crate) fn seconds() -> i64 {
    i64::try_from(clock::wall() / 1_000_000_000).unwrap_or(i64::MAX)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| DIGITS.get(usize::from(digit)))
        .map(|digit| char::from(*digit))
        .collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        for letter in pair {
            *byte = (*byte << 4) | char::from(*letter).to_digit(16)? as u8;
        }
    }
    Some(digest)
}

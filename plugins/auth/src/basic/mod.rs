//! Names and passwords (RFC 7617). A right answer is remembered under a keyed hash for a bounded time, the hashing of the others
//! is bounded, and a name that nobody has costs what a wrong password costs.

mod hashes;

use std::cell::RefCell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use tidegate_sdk::prelude::*;
use tidegate_sdk::{clock, limiter, store};

use crate::api_key::hex;
use crate::config::BasicConfig;
use crate::identity::Identity;
use crate::jwt::granted;
use crate::place;
use crate::refused::Refused;
use crate::remember::{Digest, Keyed, Table};
use hashes::Hash;

/// Right answers that are remembered.
const REMEMBERED: u32 = 1024;
/// The longest value of Authorization that is looked at, in bytes.
const MAX_VALUE: usize = 2048;
/// The longest password, in bytes: what some hashes cost grows with its square.
const MAX_PASSWORD: usize = 256;

/// The users.
#[derive(Debug)]
pub(crate) struct Users {
    users: Vec<User>,
    hide: bool,
    /// Nanoseconds for which a right answer is remembered.
    remember: u64,
    rate: f64,
    burst: u32,
    keyed: Keyed,
    /// The user, and until when, by the monotonic clock.
    right: RefCell<Table<(usize, u64)>>,
    /// The namespace through which all instances share what is right, if it is granted.
    shelf: Option<String>,
}

#[derive(Debug)]
struct User {
    name: String,
    hash: Hash,
    /// Made of the hash, so that whoever reads the store has nothing to try passwords against.
    key: [u8; 32],
    identity: Identity,
}

impl User {
    /// Where it is noted that a password is this user's.
    fn note(&self, password: &str) -> String {
        let digest = Hmac::<Sha256>::new_from_slice(&self.key).map(|mac| {
            let mac = mac.chain_update(&self.name).chain_update([0]);
            hex(&mac.chain_update(password).finalize().into_bytes())
        });
        ["basic/", &digest.unwrap_or_default()].concat()
    }
}

impl Users {
    /// # Errors
    /// Which line is wrong, and how to put it right.
    pub(crate) fn new(config: &BasicConfig, namespace: &str) -> Result<Self, String> {
        let inline = config.users.iter().enumerate();
        let inline = inline.map(|(index, line)| (format!("basic.users[{index}]"), line.as_str()));
        let file = config.htpasswd.as_deref().unwrap_or_default().lines();
        let file = file
            .enumerate()
            .map(|(index, line)| (format!("basic.htpasswd, line {}", index + 1), line.trim()));
        let file = file.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let mut users: Vec<User> = Vec::new();
        for (place, line) in inline.chain(file) {
            // A line is never shown: it holds a hash.
            let (name, hash) = line
                .split_once(':')
                .ok_or_else(|| format!("`{place}`: a line is `NAME:HASH`"))?;
            if name.is_empty() || users.iter().any(|user| user.name == name) {
                return Err(format!(
                    "`{place}`: the name `{name}` is empty or there twice"
                ));
            }
            let key = Sha256::digest(hash).into();
            let hash = Hash::read(hash).map_err(|error| format!("`{place}`: {error}"))?;
            let roles = config.roles.get(name).cloned().unwrap_or_default();
            users.push(User {
                name: name.to_owned(),
                hash,
                key,
                identity: Identity::new(name.to_owned(), roles),
            });
        }
        if users.is_empty() {
            return Err(
                "`basic` needs `users` or `htpasswd` with at least one line `NAME:HASH`".to_owned(),
            );
        }
        if let Some((name, _)) = config
            .roles
            .iter()
            .find(|(name, _)| !users.iter().any(|user| user.name == *name))
        {
            return Err(format!("`basic.roles`: there is no user `{name}`"));
        }
        let burst = config.hashes_at_once.unwrap_or(8);
        let rate = config.hashes_per_second.unwrap_or(20);
        if burst == 0 || rate == 0 {
            return Err(
                "`basic.hashes-at-once` and `basic.hashes-per-second` must be at least 1"
                    .to_owned(),
            );
        }
        Ok(Users {
            users,
            hide: config.hide,
            remember: u64::from(config.remember_seconds.unwrap_or(300)) * 1_000_000_000,
            rate: f64::from(rate),
            burst,
            keyed: Keyed::default(),
            right: RefCell::new(Table::new(REMEMBERED)),
            shelf: granted(namespace, "basic")
                .is_ok()
                .then(|| namespace.to_owned()),
        })
    }

    /// Who asks, if a name and password were given.
    ///
    /// # Errors
    /// [`Refused`] for what is wrong or can't be read, and when too many are being tried.
    pub(crate) fn identify(&self, request: &RequestHead) -> Result<Option<&Identity>, Refused> {
        let Some(value) = place::authorization(request, "Basic")? else {
            return Ok(None);
        };
        let (name, password) = credentials(&value).ok_or(Refused::Password)?;
        let digest = self.keyed.digest(&[name.as_bytes(), password.as_bytes()]);
        if let Some((index, until)) = self.right.borrow_mut().get(digest)
            && *until > clock::monotonic()
        {
            return Ok(self.users.get(*index).map(|user| &user.identity));
        }
        let known = self.users.iter().position(|user| user.name == name);
        let tried = known.unwrap_or_else(|| self.stand_in(&name));
        let user = self.users.get(tried).ok_or(Refused::Password)?;
        let note = user.note(&password);
        if !(self.is_noted(&note) && known.is_some()) {
            self.room(request)?;
            if !user.hash.is_of(password.as_bytes()) {
                return Err(Refused::Password);
            }
            if known.is_some() {
                self.share(&note);
            }
        }
        let index = known.ok_or(Refused::Password)?;
        if self.remember > 0 {
            let until = clock::monotonic().saturating_add(self.remember);
            self.right.borrow_mut().put(digest, (index, until));
        }
        Ok(self.users.get(index).map(|user| &user.identity))
    }

    /// Whose hash is tried for a name that nobody has: always the same one's, so that all names together cost what those cost
    /// that there are.
    fn stand_in(&self, name: &str) -> usize {
        let count = Digest::try_from(self.users.len()).unwrap_or(1).max(1);
        usize::try_from(self.keyed.digest(&[name.as_bytes()]) % count).unwrap_or_default()
    }

    /// Whether another instance has found a password to be right.
    fn is_noted(&self, note: &str) -> bool {
        let shelf = self.shelf.as_ref().filter(|_| self.remember > 0);
        shelf.is_some_and(|shelf| matches!(store::get(shelf, note), Ok(Some(_))))
    }

    fn share(&self, note: &str) {
        if let Some(shelf) = self.shelf.as_ref().filter(|_| self.remember > 0) {
            // Without it, the others try for themselves.
            let _ = store::set(shelf, note, b"1", self.remember / 1_000_000);
        }
    }

    /// Whether another password may be hashed now.
    fn room(&self, request: &RequestHead) -> Result<(), Refused> {
        // One address alone can't take all of it from the others.
        let address = ["basic ", &request.client_address()].concat();
        let half = self.burst.div_ceil(2);
        for (key, rate, burst) in [
            (address.as_str(), self.rate / 2.0, half),
            ("basic", self.rate, self.burst),
        ] {
            let verdict = limiter::take(key, 1, rate, burst);
            if !verdict.allowed {
                let seconds = verdict.retry_after_ns.div_ceil(1_000_000_000);
                return Err(Refused::Busy(seconds.clamp(1, 3600)));
            }
        }
        Ok(())
    }

    /// Takes the credential out of what is forwarded, if that was asked for.
    pub(crate) fn hide(&self, request: &mut RequestHead) {
        if self.hide {
            let _ = request.remove("authorization");
        }
    }
}

/// Name and password of a credential.
fn credentials(value: &[u8]) -> Option<(String, String)> {
    if value.len() > MAX_VALUE {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    let fits = !text.bytes().any(|byte| byte.is_ascii_control());
    (fits && password.len() <= MAX_PASSWORD).then(|| (name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests;

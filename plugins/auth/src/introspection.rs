//! Tokens that a server is asked about (RFC 7662). Answers are remembered, good and bad apart, so that nobody's guesses push out
//! what is good.

use std::cell::RefCell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tidegate_sdk::http::Call;
use tidegate_sdk::prelude::*;
use tidegate_sdk::{clock, env};

use crate::api_key::seconds;
use crate::claims::{Claims, Use, UseConfig, check_parties, time};
use crate::config::{IntrospectionConfig, WhenDown};
use crate::identity::Identity;
use crate::json;
use crate::place::{self, Place};
use crate::refused::{Refused, Rejection};
use crate::remember::{Digest, Keyed, Table};

/// The longest token, in bytes.
const MAX_TOKEN: usize = 8192;
/// The longest answer, in bytes.
const MAX_ANSWER: u32 = 64 * 1024;

/// A server that is asked, and what becomes of its answers.
#[derive(Debug)]
pub(crate) struct Introspection {
    places: Vec<Place>,
    hide: bool,
    upstream: String,
    path: String,
    /// The value of Authorization with which it is asked; none: the client id stands in the question.
    authorization: Option<String>,
    client_id: String,
    issuer: Option<String>,
    audience: Vec<String>,
    claims: Use,
    when_down: WhenDown,
    timeout: u32,
    /// Nanoseconds for which a good answer is remembered, and used for longer when the server is down; and a bad one.
    good_for: u64,
    stale_for: u64,
    bad_for: u64,
    keyed: Keyed,
    good: RefCell<Table<Good>>,
    bad: RefCell<Table<(Refused, u64)>>,
}

/// A token that is good.
#[derive(Debug)]
struct Good {
    identity: Identity,
    /// Until when that is believed, by the monotonic clock.
    until: u64,
    /// When the token ends, in seconds since 1970.
    expiry: Option<i64>,
}

/// What was found out.
pub(crate) enum Found<T> {
    /// There is no token.
    Nothing,
    /// Somebody's.
    Of(T),
    /// The server can't say, and the operator lets such requests pass.
    Anybody,
}

impl Introspection {
    /// # Errors
    /// What is missing, and how to put it right.
    pub(crate) fn new(config: &IntrospectionConfig) -> Result<Self, String> {
        if !config.path.starts_with('/') {
            return Err(format!(
                "`introspection.path`: `{}` must be a path that begins with `/`",
                config.path
            ));
        }
        let authorization = match &config.client_secret_env {
            None => None,
            Some(name) => {
                let secret = env::get(name).ok_or_else(|| {
                    format!(
                        "`introspection.client-secret-env`: `{name}` is not set or not granted; add `allow = {{ env = [\"{name}\"] }}` to the filter"
                    )
                })?;
                // RFC 6749 section 2.3.1: both are form-encoded first.
                let pair = [&form(&config.client_id), ":", &form(&secret)].concat();
                Some(["Basic ", &STANDARD.encode(pair)].concat())
            }
        };
        let nanoseconds = |seconds: u32| u64::from(seconds) * 1_000_000_000;
        let remember = config.remember.unwrap_or(500);
        Ok(Introspection {
            places: Place::of_tokens(&config.from, "introspection.from")?,
            hide: config.hide,
            upstream: config.upstream.clone(),
            path: config.path.clone(),
            authorization,
            client_id: config.client_id.clone(),
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            claims: Use::new(&UseConfig {
                key: "introspection",
                scopes: &config.require_scopes,
                rules: &config.require,
                claims: &config.claims,
                properties: &config.properties,
                consumer: config.consumer.as_deref(),
                consumer_else: &["sub", "username", "client_id"],
                roles: config.roles.as_deref(),
            })?,
            when_down: config.when_down.unwrap_or(WhenDown::Refuse),
            timeout: config.timeout_ms.unwrap_or(2000).clamp(1, 60_000),
            good_for: nanoseconds(config.remember_seconds.unwrap_or(60)),
            stale_for: nanoseconds(config.stale_seconds.unwrap_or(300)),
            bad_for: nanoseconds(config.remember_refused_seconds.unwrap_or(10)),
            keyed: Keyed::default(),
            good: RefCell::new(Table::new(remember)),
            bad: RefCell::new(Table::new(remember)),
        })
    }

    /// The fields that it fills.
    pub(crate) fn fields(&self) -> impl Iterator<Item = String> + '_ {
        self.claims.fields()
    }

    /// Looks for a token, and calls `then` with whose it is.
    ///
    /// # Errors
    /// [`Refused`] for a token that is not active or lacks something, and for more tokens than one.
    pub(crate) fn identify<T>(
        &self,
        request: &RequestHead,
        then: impl FnOnce(&Identity) -> T,
    ) -> Result<Found<T>, Refused> {
        let Some(token) = place::only(&self.places, request)? else {
            return Ok(Found::Nothing);
        };
        if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
            return Err(Refused::Token(Rejection::Malformed));
        }
        if token.len() > MAX_TOKEN {
            return Err(Refused::Token(Rejection::TooLong));
        }
        let digest = self.keyed.digest(&[&token]);
        let now = clock::monotonic();
        if let Some(good) = self.good.borrow_mut().get(digest)
            && now < good.until
        {
            good.check()?;
            return Ok(Found::Of(then(&good.identity)));
        }
        if let Some((refused, until)) = self.bad.borrow_mut().get(digest)
            && now < *until
        {
            return Err(refused.clone());
        }
        match self.ask(&token) {
            Ok(claims) => match self.judge(&claims) {
                Ok(good) => {
                    let answer = then(&good.identity);
                    self.good.borrow_mut().put(digest, good);
                    Ok(Found::Of(answer))
                }
                Err(refused) => {
                    self.good.borrow_mut().remove(digest);
                    let until = now.saturating_add(self.bad_for);
                    self.bad.borrow_mut().put(digest, (refused.clone(), until));
                    Err(refused)
                }
            },
            Err(error) => {
                log::error!(
                    "the introspection server can't say whether a token is active: {error}"
                );
                self.down(digest, now, then)
            }
        }
    }

    /// What the operator wants while the server is down.
    fn down<T>(
        &self,
        digest: Digest,
        now: u64,
        then: impl FnOnce(&Identity) -> T,
    ) -> Result<Found<T>, Refused> {
        match self.when_down {
            WhenDown::Refuse => Err(Refused::Unavailable(1)),
            WhenDown::Anonymous => Ok(Found::Anybody),
            WhenDown::Stale => match self.good.borrow_mut().get(digest) {
                Some(good) if now < good.until.saturating_add(self.stale_for) => {
                    good.check()?;
                    Ok(Found::Of(then(&good.identity)))
                }
                _ => Err(Refused::Unavailable(1)),
            },
        }
    }

    /// Asks the server.
    fn ask(&self, token: &[u8]) -> Result<Claims, String> {
        let token = String::from_utf8_lossy(token);
        let mut body = ["token=", &form(&token), "&token_type_hint=access_token"].concat();
        let mut call = Call::new("POST", &self.path)
            .field("content-type", "application/x-www-form-urlencoded")
            .field("accept", "application/json")
            .timeout_ms(self.timeout)
            .max_response(MAX_ANSWER);
        match &self.authorization {
            Some(value) => call = call.field("authorization", value),
            None => body.push_str(&["&client_id=", &form(&self.client_id)].concat()),
        }
        let upstream = &self.upstream;
        let response = call
            .body(body)
            .send(upstream)
            .map_err(|error| format!("`{upstream}`: {error}"))?;
        if response.status != 200 {
            return Err(format!("`{upstream}` has the status {}", response.status));
        }
        json::object(&response.body)
            .filter(|answer| answer.get("active").is_some_and(Value::is_boolean))
            .ok_or_else(|| format!("the answer of `{upstream}` is no JSON object with `active`"))
    }

    fn judge(&self, claims: &Claims) -> Result<Good, Refused> {
        if claims.get("active") != Some(&Value::Bool(true)) {
            return Err(Refused::Token(Rejection::Inactive));
        }
        let expiry = time(claims, "exp").map_err(Refused::Token)?;
        // The server need not name an issuer; one that it names must be ours.
        let issuer = self.issuer.as_deref();
        let issuer = issuer.filter(|_| claims.contains_key("iss"));
        check_parties(claims, issuer, &self.audience).map_err(Refused::Token)?;
        let good = Good {
            identity: self.claims.identity(claims)?,
            until: clock::monotonic().saturating_add(self.good_for),
            expiry,
        };
        good.check()?;
        Ok(good)
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

impl Good {
    fn check(&self) -> Result<(), Refused> {
        match self.expiry {
            Some(end) if seconds() >= end => Err(Refused::Token(Rejection::Expired)),
            _ => Ok(()),
        }
    }
}

/// A text as a form has it.
fn form(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            let digits = crate::api_key::hex(&[byte]);
            out.push_str(&digits.to_ascii_uppercase());
        }
    }
    out
}

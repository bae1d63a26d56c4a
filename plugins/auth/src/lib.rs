//! Lets in who shows a known API key or a valid JSON Web Token, and tells the upstream who it is.
//!
//! Identity fields that come from outside are removed first, in every spelling, whatever happens then.

mod jwt;
mod keys;

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tidegate_sdk::clock;
use tidegate_sdk::prelude::*;

use crate::jwt::{KeyConfig, Rejection, Rules, Verifiers};
use crate::keys::{Consumer, Keys};

/// What the operator configures. At least one of `api-key` and `jwt`.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The realm in `WWW-Authenticate`. Default: api.
    pub realm: Option<String>,
    /// Whether requests without a credential pass, as nobody. A wrong credential never passes. Default: false.
    #[serde(default)]
    pub optional: bool,
    /// API keys.
    pub api_key: Option<ApiKeyConfig>,
    /// JSON Web Tokens.
    pub jwt: Option<JwtConfig>,
    /// Roles of which the consumer must have one; with a token, from its claim `roles`.
    #[serde(default)]
    pub require_roles: Vec<String>,
}

/// Where API keys are looked for, and whose they are.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// The field that carries the key. Default: x-api-key, if neither query nor cookie is given.
    pub header: Option<String>,
    /// The query's parameter that carries the key.
    pub query: Option<String>,
    /// The cookie that carries the key.
    pub cookie: Option<String>,
    /// Who has a key.
    pub consumers: Vec<Consumer>,
}

/// Which tokens are taken.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct JwtConfig {
    /// The keys that sign tokens.
    pub keys: Vec<KeyConfig>,
    /// The only issuer (`iss`) taken.
    pub issuer: Option<String>,
    /// Audiences, of which a token must be for one.
    #[serde(default)]
    pub audience: Vec<String>,
    /// Seconds by which clocks may differ. Default: 30.
    pub leeway_seconds: Option<u32>,
    /// Whether tokens without `exp` are taken. Default: false.
    #[serde(default)]
    pub allow_without_expiry: bool,
    /// Scopes (claim `scope` or `scp`) that a token must have, all of them.
    #[serde(default)]
    pub require_scopes: Vec<String>,
    /// Claims that are passed on, and the fields for them: `{ sub = "x-user" }`.
    #[serde(default)]
    pub claims: BTreeMap<String, String>,
}

/// The field that tells the upstream who asks.
const CONSUMER: &str = "x-consumer";
/// The field that tells the upstream what the consumer may be.
const ROLES: &str = "x-roles";

/// The filter.
#[derive(Debug)]
pub struct Auth {
    config: Config,
    realm: String,
    keys: Keys,
    verifiers: Verifiers,
    rules: Rules,
    /// Fields that only this filter may set, as they are compared: lower case, hyphens.
    identity: Vec<String>,
}

/// Who asks.
struct Identity {
    name: String,
    roles: Vec<String>,
    fields: Vec<(String, String)>,
}

/// Why somebody is not let in.
enum Refused {
    /// No credential, or one that can't be read.
    Missing,
    /// More credentials than one of a kind: nobody can say which counts.
    Ambiguous,
    /// A key that nobody has.
    UnknownKey,
    /// A token that does not hold.
    Token(Rejection),
    /// Known, but without the role.
    Role,
    /// Known, but the token lacks a scope.
    Scope(String),
}

#[filter(
    name = "auth",
    description = "Authenticates requests by API key or JSON Web Token and tells the upstream who asks."
)]
impl Filter for Auth {
    type Config = Config;
    type State = ();

    fn new(config: Config) -> Result<Self, ConfigError> {
        if config.api_key.is_none() && config.jwt.is_none() {
            return Err("nobody could be let in: configure `api-key` or `jwt`".into());
        }
        let realm = config.realm.clone().unwrap_or_else(|| "api".to_owned());
        if realm
            .bytes()
            .any(|byte| byte.is_ascii_control() || byte == b'"' || byte == b'\\')
        {
            return Err("`realm` can't hold quotes, backslashes or control characters".into());
        }
        let consumers = config
            .api_key
            .as_ref()
            .map_or(&[][..], |keys| &keys.consumers);
        let keys = Keys::new(consumers)?;
        let (verifiers, rules) = match &config.jwt {
            None => (Verifiers::default(), Rules::default()),
            Some(jwt) if jwt.keys.is_empty() => {
                return Err("`jwt.keys` needs at least one key".into());
            }
            Some(jwt) => {
                let rules = Rules {
                    issuer: jwt.issuer.clone(),
                    audience: jwt.audience.clone(),
                    leeway: jwt.leeway_seconds.unwrap_or(30),
                    allow_without_expiry: jwt.allow_without_expiry,
                };
                (Verifiers::new(&jwt.keys)?, rules)
            }
        };
        let mut identity = vec![CONSUMER.to_owned(), ROLES.to_owned()];
        for name in config.jwt.iter().flat_map(|jwt| jwt.claims.values()) {
            if name.is_empty()
                || !name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            {
                return Err(format!(
                    "`jwt.claims`: `{name}` must be a field name of letters, digits and hyphens"
                )
                .into());
            }
            identity.push(name.to_ascii_lowercase());
        }
        Ok(Auth {
            realm,
            keys,
            verifiers,
            rules,
            identity,
            config,
        })
    }

    fn request_head(&self, request: &mut RequestHead, _: &mut ()) -> Flow {
        self.remove_identity(request);
        match self.identify(request) {
            Ok(Some(identity)) => {
                pass_on(request, &identity);
                Flow::Continue
            }
            Ok(None) => Flow::Continue,
            Err(refused) => self.refuse(&refused),
        }
    }
}

impl Auth {
    /// Takes out what a client says of its own identity, whichever way it is spelled: upstreams that read fields as variables
    /// take `X_Consumer` and `X-Consumer` for one.
    fn remove_identity(&self, request: &mut RequestHead) {
        let claimed: Vec<String> = request
            .iter()
            .map(|(name, _)| name)
            .filter(|name| {
                let spelled = name.to_ascii_lowercase().replace('_', "-");
                self.identity.contains(&spelled)
            })
            .collect();
        for name in claimed {
            let _ = request.remove(&name);
        }
    }

    /// Finds out who asks; none if nobody has to say.
    fn identify(&self, request: &RequestHead) -> Result<Option<Identity>, Refused> {
        if let Some(key) = self.api_key(request)? {
            let consumers = self
                .config
                .api_key
                .as_ref()
                .map_or(&[][..], |keys| &keys.consumers);
            let found = self
                .keys
                .find(&key)
                .and_then(|index| consumers.get(index))
                .ok_or(Refused::UnknownKey)?;
            self.check_roles(&found.roles)?;
            return Ok(Some(Identity {
                name: found.name.clone(),
                roles: found.roles.clone(),
                fields: Vec::new(),
            }));
        }
        if let Some(jwt) = &self.config.jwt
            && let Some(token) = bearer(request)?
        {
            let now = i64::try_from(clock::wall() / 1_000_000_000).unwrap_or(i64::MAX);
            let claims = self
                .verifiers
                .verify(&token, &self.rules, now)
                .map_err(Refused::Token)?;
            let roles = texts(claims.get("roles"));
            let scopes = scopes(&claims);
            if let Some(scope) = jwt
                .require_scopes
                .iter()
                .find(|scope| !scopes.contains(scope))
            {
                return Err(Refused::Scope(scope.clone()));
            }
            self.check_roles(&roles)?;
            let fields = jwt
                .claims
                .iter()
                .filter_map(|(claim, field)| Some((field.clone(), text(claims.get(claim)?)?)))
                .collect();
            let name = claims.get("sub").and_then(text).unwrap_or_default();
            return Ok(Some(Identity {
                name,
                roles,
                fields,
            }));
        }
        if self.config.optional {
            Ok(None)
        } else {
            Err(Refused::Missing)
        }
    }

    fn api_key(&self, request: &RequestHead) -> Result<Option<Vec<u8>>, Refused> {
        let Some(places) = &self.config.api_key else {
            return Ok(None);
        };
        let default = (places.query.is_none() && places.cookie.is_none()).then_some("x-api-key");
        let mut found = Vec::new();
        if let Some(name) = places.header.as_deref().or(default) {
            found.extend(request.get_all(name));
        }
        if let Some(name) = &places.query {
            found.extend(parameters(&request.query().unwrap_or_default(), name));
        }
        if let Some(name) = &places.cookie {
            for cookies in request.get_all("cookie") {
                found.extend(cookie(&cookies, name));
            }
        }
        match found.len() {
            0 | 1 => Ok(found.pop()),
            _ => Err(Refused::Ambiguous),
        }
    }

    fn check_roles(&self, roles: &[String]) -> Result<(), Refused> {
        let required = &self.config.require_roles;
        if required.is_empty() || required.iter().any(|role| roles.contains(role)) {
            Ok(())
        } else {
            Err(Refused::Role)
        }
    }

    fn refuse(&self, refused: &Refused) -> Flow {
        let realm = &self.realm;
        let (status, challenge, text) = match refused {
            Refused::Missing => (401, Some(self.challenges(None)), "a credential is needed"),
            Refused::Ambiguous => (400, None, "more than one credential"),
            Refused::UnknownKey => (
                401,
                Some(format!("ApiKey realm=\"{realm}\"")),
                "the key is not known",
            ),
            Refused::Token(rejection) => (
                401,
                Some(self.challenges(Some(*rejection))),
                rejection.reason(),
            ),
            Refused::Role => (403, None, "the role is missing"),
            Refused::Scope(scope) => {
                let scope: String = scope
                    .chars()
                    .filter(|c| c.is_ascii_graphic() && !"\"\\".contains(*c))
                    .collect();
                let challenge = format!(
                    "Bearer realm=\"{realm}\", error=\"insufficient_scope\", scope=\"{scope}\""
                );
                (403, Some(challenge), "the scope is missing")
            }
        };
        let mut answer = Answer::new(status).field("cache-control", "no-store");
        if let Some(challenge) = challenge {
            answer = answer.field("www-authenticate", challenge);
        }
        answer.text(&format!("{text}\n")).send()
    }

    /// What would be taken (RFC 9110 section 11.6.1, RFC 6750 section 3).
    fn challenges(&self, rejection: Option<Rejection>) -> String {
        let realm = &self.realm;
        let bearer = match rejection {
            None => format!("Bearer realm=\"{realm}\""),
            Some(rejection) => format!(
                "Bearer realm=\"{realm}\", error=\"invalid_token\", error_description=\"{}\"",
                rejection.reason()
            ),
        };
        match (&self.config.jwt, &self.config.api_key) {
            (Some(_), Some(_)) => format!("{bearer}, ApiKey realm=\"{realm}\""),
            (Some(_), None) => bearer,
            (None, _) => format!("ApiKey realm=\"{realm}\""),
        }
    }
}

fn pass_on(request: &mut RequestHead, identity: &Identity) {
    let _ = request.set_property("consumer", &identity.name);
    let _ = request.set_property("roles", identity.roles.join(","));
    let mut set = |name: &str, value: &str| {
        // A claim with control characters in it is left out rather than cut: half a name is another name.
        if let Err(refusal) = request.set(name, value) {
            log::warn(&format!("`{name}` could not be passed on: {refusal}"));
        }
    };
    if !identity.name.is_empty() {
        set(CONSUMER, &identity.name);
    }
    if !identity.roles.is_empty() {
        set(ROLES, &identity.roles.join(","));
    }
    for (name, value) in &identity.fields {
        set(name, value);
    }
}

/// The bearer token of the one Authorization field, if that is its scheme.
fn bearer(request: &RequestHead) -> Result<Option<String>, Refused> {
    let mut values = request.get_all("authorization");
    if values.len() > 1 {
        return Err(Refused::Ambiguous);
    }
    let Some(value) = values.pop() else {
        return Ok(None);
    };
    let Ok(value) = String::from_utf8(value) else {
        return Err(Refused::Token(Rejection::Malformed));
    };
    let Some((scheme, token)) = value.split_once(' ') else {
        return Ok(None);
    };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    let token = token.trim();
    if token.contains([',', ' ']) {
        return Err(Refused::Ambiguous);
    }
    Ok(Some(token.to_owned()))
}

/// All values of a query's parameter, with `%XX` decoded.
fn parameters(query: &str, name: &str) -> Vec<Vec<u8>> {
    query
        .split('&')
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key) == name.as_bytes()).then(|| decode(value))
        })
        .collect()
}

fn decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let digits = match (first, tail) {
            (b'%', [high, low, ..]) => char::from(*high)
                .to_digit(16)
                .zip(char::from(*low).to_digit(16)),
            _ => None,
        };
        match digits.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None if *first == b'+' => out.push(b' '),
            None => out.push(*first),
        }
    }
    out
}

/// All values of a cookie.
fn cookie(cookies: &[u8], name: &str) -> Vec<Vec<u8>> {
    cookies
        .split(|byte| *byte == b';')
        .filter_map(|pair| {
            let pair = pair.trim_ascii();
            let at = pair.iter().position(|byte| *byte == b'=')?;
            let (key, value) = pair.split_at(at);
            (key == name.as_bytes()).then(|| value.get(1..).unwrap_or_default().to_vec())
        })
        .collect()
}

/// The scopes of a token: one text with spaces, or a list (RFC 8693 section 4.2).
fn scopes(claims: &Map<String, Value>) -> Vec<String> {
    ["scope", "scp"]
        .iter()
        .flat_map(|name| texts(claims.get(*name)))
        .collect()
}

fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => text.split_whitespace().map(str::to_owned).collect(),
        Some(Value::Array(list)) => list
            .iter()
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

/// A claim as a field's value: texts and numbers as they are, lists joined, what is nested as JSON.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(list) if list.iter().all(|item| item.is_string() || item.is_number()) => {
            Some(list.iter().filter_map(text).collect::<Vec<_>>().join(","))
        }
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests;

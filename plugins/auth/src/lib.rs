//! Lets in who can show who he is, and tells the upstream and later filters.
//!
//! Identity fields that come from outside are removed first, in every spelling, whatever happens then. Each method has a file:
//! it finds its credential, judges it, and says whose it is.

mod answers;
mod api_key;
mod basic;
mod certificate;
mod claims;
mod config;
mod dates;
mod identity;
mod introspection;
mod ip;
mod json;
mod jwt;
mod pairs;
mod place;
mod refused;
mod remember;
mod signature;

use tidegate_sdk::prelude::*;

use crate::answers::Answers;
use crate::api_key::ApiKeys;
use crate::basic::Users;
use crate::certificate::Certificates;
pub use crate::config::Config;
use crate::config::Method;
use crate::identity::{Identity, Outgoing};
use crate::introspection::{Found, Introspection};
use crate::ip::Networks;
use crate::jwt::Tokens;
use crate::refused::Refused;
use crate::signature::Signatures;

/// The method that is named where nobody has shown who he is.
const ANONYMOUS: &str = "anonymous";

/// The filter.
#[derive(Debug)]
pub struct Auth {
    methods: Vec<Way>,
    optional: bool,
    preflight: bool,
    skip: Vec<Skip>,
    require_roles: Vec<String>,
    outgoing: Outgoing,
    answers: Answers,
    networks: Option<Networks>,
    /// Whether bodies may have to be held against a digest.
    bodies: bool,
}

/// A method, ready.
#[derive(Debug)]
enum Way {
    ApiKey(ApiKeys),
    Basic(Users),
    Jwt(Tokens),
    Introspection(Introspection),
    Signature(Signatures),
    Certificate(Certificates),
}

/// Requests that need no credential.
#[derive(Debug)]
struct Skip {
    path: String,
    /// Whether longer paths are meant too.
    begins: bool,
    methods: Vec<String>,
}

/// What a method said.
enum Said {
    /// Its credential is not there.
    Nothing,
    /// Somebody is known, and has been passed on. The body is to be held against its digest, if so.
    Known { body: bool },
    /// Nobody can say, and that shall do.
    Anybody,
}

#[filter(
    name = "auth",
    description = "Authenticates requests by API key, password, token, signature or client certificate and tells the upstream who asks.",
    optional_http = "to fetch an issuer's keys, and to ask about tokens",
    optional_store = "to share keys, deny lists and replay windows between workers",
    optional_env = "to ask about tokens with a client's secret",
    request_body = "on-hold"
)]
impl Filter for Auth {
    type Config = Config;
    type State = ();

    fn new(config: Config) -> Result<Self, ConfigError> {
        Auth::read(config).map_err(ConfigError::from)
    }

    fn interests(&self, interests: &mut Interests) {
        if !self.bodies {
            interests.remove(Phase::RequestBody);
        }
    }

    fn request_head(&self, request: &mut RequestHead, _: &mut ()) -> Flow {
        self.outgoing.remove_claimed(request);
        match self.admit(request) {
            Ok(Said::Known { body: true }) => Flow::Hold,
            Ok(Said::Known { body: false }) => Flow::Continue,
            Ok(Said::Nothing | Said::Anybody) => {
                self.outgoing
                    .pass_on(request, &Identity::default(), ANONYMOUS);
                Flow::Continue
            }
            Err(refused) => self.answers.refuse(request, &refused),
        }
    }

    fn request_body(&self, body: &mut RequestBody, _: &mut ()) -> Flow {
        match signature::check_digest(body.get("content-digest"), &body.read()) {
            Ok(()) => Flow::Continue,
            Err(refused) => self.answers.refuse_body(&refused),
        }
    }
}

impl Auth {
    fn read(config: Config) -> Result<Self, String> {
        let namespace = config.store.clone().unwrap_or_else(|| "auth".to_owned());
        let order = order(&config)?;
        let methods = order
            .iter()
            .map(|method| way(*method, &config, &namespace))
            .collect::<Result<Vec<Way>, String>>()?;
        let networks = config.ip.as_ref().map(Networks::new).transpose()?;
        let fields = methods
            .iter()
            .flat_map(Way::fields)
            .collect::<Vec<String>>();
        let skip = config.skip.into_iter().enumerate().map(|(index, skip)| {
            if !skip.path.starts_with('/') {
                return Err(format!(
                    "`skip[{index}].path`: `{}` must begin with `/`",
                    skip.path
                ));
            }
            let shortened = skip.path.strip_suffix('*');
            Ok(Skip {
                begins: shortened.is_some(),
                path: shortened.unwrap_or(&skip.path).to_owned(),
                methods: skip.methods,
            })
        });
        Ok(Auth {
            bodies: order.contains(&Method::Signature),
            optional: config.optional || methods.is_empty(),
            preflight: config.preflight,
            skip: skip.collect::<Result<_, String>>()?,
            require_roles: config.require_roles,
            outgoing: Outgoing::new(&config.headers, fields.into_iter())?,
            answers: Answers::new(config.realm, config.answers, &order)?,
            networks,
            methods,
        })
    }

    /// Finds out who asks, and passes it on.
    fn admit(&self, request: &mut RequestHead) -> Result<Said, Refused> {
        if let Some(networks) = &self.networks
            && !networks.admit(&request.client_address())
        {
            return Err(Refused::Address);
        }
        if self.is_skipped(request) {
            return Ok(Said::Nothing);
        }
        for way in &self.methods {
            match self.ask(way, request)? {
                Said::Nothing => {}
                said => {
                    way.hide(request);
                    return Ok(said);
                }
            }
        }
        if self.optional {
            Ok(Said::Nothing)
        } else {
            Err(Refused::Missing)
        }
    }

    /// Asks one method.
    fn ask(&self, way: &Way, request: &mut RequestHead) -> Result<Said, Refused> {
        let known = |identity: &Identity| self.check_roles(identity).map(|()| identity.clone());
        let (identity, name, body) = match way {
            Way::ApiKey(keys) => match keys.identify(request, known)? {
                None => return Ok(Said::Nothing),
                Some(identity) => (identity?, "api-key", false),
            },
            Way::Basic(users) => match users.identify(request)? {
                None => return Ok(Said::Nothing),
                Some(identity) => (known(identity)?, "basic", false),
            },
            Way::Jwt(tokens) => match tokens.identify(request, known)? {
                None => return Ok(Said::Nothing),
                Some(identity) => (identity?, "jwt", false),
            },
            Way::Introspection(server) => match server.identify(request, known)? {
                Found::Nothing => return Ok(Said::Nothing),
                Found::Anybody => return Ok(Said::Anybody),
                Found::Of(identity) => (identity?, "introspection", false),
            },
            Way::Signature(signatures) => match signatures.identify(request)? {
                None => return Ok(Said::Nothing),
                Some(signed) => (known(signed.identity)?, "signature", signed.body),
            },
            Way::Certificate(certificates) => match certificates.identify(request)? {
                None => return Ok(Said::Nothing),
                Some(identity) => (known(&identity)?, "client-certificate", false),
            },
        };
        self.outgoing.pass_on(request, &identity, name);
        Ok(Said::Known { body })
    }

    fn check_roles(&self, identity: &Identity) -> Result<(), Refused> {
        let required = &self.require_roles;
        if required.is_empty() || required.iter().any(|role| identity.roles.contains(role)) {
            Ok(())
        } else {
            Err(Refused::Role)
        }
    }

    /// Whether a request needs no credential.
    fn is_skipped(&self, request: &RequestHead) -> bool {
        if self.preflight
            && request.method() == "OPTIONS"
            && request.get("origin").is_some()
            && request.get("access-control-request-method").is_some()
        {
            return true;
        }
        if self.skip.is_empty() {
            return false;
        }
        let path = request.path();
        self.skip.iter().any(|skip| {
            let fits = path == skip.path || (skip.begins && path.starts_with(&skip.path));
            fits && (skip.methods.is_empty() || skip.methods.contains(&request.method()))
        })
    }
}

impl Way {
    /// The fields that it fills.
    fn fields(&self) -> Vec<String> {
        match self {
            Way::Jwt(tokens) => tokens.fields().collect(),
            Way::Introspection(server) => server.fields().collect(),
            Way::ApiKey(_) | Way::Basic(_) | Way::Signature(_) | Way::Certificate(_) => Vec::new(),
        }
    }

    /// Takes its credential out of what is forwarded, if that was asked for.
    fn hide(&self, request: &mut RequestHead) {
        match self {
            Way::ApiKey(keys) => keys.hide(request),
            Way::Basic(users) => users.hide(request),
            Way::Jwt(tokens) => tokens.hide(request),
            Way::Introspection(server) => server.hide(request),
            Way::Signature(_) | Way::Certificate(_) => {}
        }
    }
}

/// The methods in the order in which they are tried.
fn order(config: &Config) -> Result<Vec<Method>, String> {
    let there = [
        (
            Method::ClientCertificate,
            "client-certificate",
            config.client_certificate.is_some(),
        ),
        (Method::Signature, "signature", config.signature.is_some()),
        (Method::Jwt, "jwt", config.jwt.is_some()),
        (
            Method::Introspection,
            "introspection",
            config.introspection.is_some(),
        ),
        (Method::Basic, "basic", config.basic.is_some()),
        (Method::ApiKey, "api-key", config.api_key.is_some()),
    ];
    let all = || there.iter().filter(|(.., there)| *there);
    if all().next().is_none() && config.ip.is_none() {
        return Err("nobody could be let in: configure a method (`api-key`, `basic`, `jwt`, `introspection`, `signature`, `client-certificate`) or `ip`".to_owned());
    }
    if config.methods.is_empty() {
        return Ok(all().map(|(method, ..)| *method).collect());
    }
    for (method, name, there) in there {
        let count = config
            .methods
            .iter()
            .filter(|named| **named == method)
            .count();
        match (count, there) {
            (0, false) | (1, true) => {}
            (0, true) => {
                return Err(format!(
                    "`methods` leaves out `{name}`, which is configured: add it, or remove its table"
                ));
            }
            (1, false) => {
                return Err(format!(
                    "`methods` names `{name}`, which is not configured: add its table"
                ));
            }
            _ => return Err(format!("`methods` names `{name}` twice")),
        }
    }
    Ok(config.methods.clone())
}

fn way(method: Method, config: &Config, namespace: &str) -> Result<Way, String> {
    let missing = || "a method that is not configured".to_owned();
    Ok(match method {
        Method::ApiKey => {
            let keys = config.api_key.as_ref().ok_or_else(missing)?;
            Way::ApiKey(ApiKeys::new(keys, namespace)?)
        }
        Method::Basic => Way::Basic(Users::new(
            config.basic.as_ref().ok_or_else(missing)?,
            namespace,
        )?),
        Method::Jwt => {
            let jwt = config.jwt.as_ref().ok_or_else(missing)?;
            Way::Jwt(Tokens::new(jwt, namespace, config.introspection.is_some())?)
        }
        Method::Introspection => {
            let server = config.introspection.as_ref().ok_or_else(missing)?;
            Way::Introspection(Introspection::new(server)?)
        }
        Method::Signature => {
            let signature = config.signature.as_ref().ok_or_else(missing)?;
            Way::Signature(Signatures::new(signature, namespace)?)
        }
        Method::ClientCertificate => {
            let certificates = config.client_certificate.as_ref().ok_or_else(missing)?;
            Way::Certificate(Certificates::new(certificates)?)
        }
    })
}

#[cfg(test)]
mod page;
#[cfg(test)]
mod tests;

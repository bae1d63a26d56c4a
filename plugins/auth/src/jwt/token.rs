//! A token in its compact form (RFC 7515 section 7.1): its parts, its header, and the claims once a key has verified it. Knows no
//! place in a request, no clock, and no key set that is fetched.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::claims::{Claims, check_parties, time};
use crate::config::Algorithm;
use crate::json;
use crate::refused::Rejection;

/// The longest header, in bytes of its encoded form.
const MAX_HEADER: usize = 4096;
/// The longest `kid`, in bytes.
const MAX_ID: usize = 256;

/// What a token's claims must satisfy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// The only issuer (`iss`) taken, if one is given.
    pub(crate) issuer: Option<String>,
    /// Audiences of which the token's `aud` must hold one, if any are given.
    pub(crate) audience: Vec<String>,
    /// The only type, in lower case and without `application/`.
    pub(crate) typ: Option<String>,
    /// Seconds by which clocks may differ.
    pub(crate) leeway: i64,
    /// The greatest age in seconds.
    pub(crate) max_age: Option<i64>,
    /// Whether a token without `exp` is taken.
    pub(crate) allow_without_expiry: bool,
}

/// A token that was taken apart, and that nobody has verified.
#[derive(Debug)]
pub(crate) struct Token<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) id: Option<String>,
    /// What is signed.
    pub(crate) message: &'a [u8],
    pub(crate) signature: Vec<u8>,
    payload: &'a str,
}

/// The times of a token, in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    expiry: Option<i64>,
    start: Option<i64>,
    issued: Option<i64>,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// See [`Rejection`].
    pub(crate) fn read(token: &'a [u8], rules: &Rules) -> Result<Self, Rejection> {
        let token = std::str::from_utf8(token).map_err(|_| Rejection::Malformed)?;
        // Three parts: five are an encrypted token (RFC 7516).
        let mut parts = token.splitn(4, '.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Rejection::Malformed);
        };
        if header.len() > MAX_HEADER {
            return Err(Rejection::TooLong);
        }
        let fields = object(header)?;
        // Nothing that could be critical is understood here, `b64` (RFC 7797) included.
        if fields.contains_key("crit") {
            return Err(Rejection::Critical);
        }
        let text = |name: &str| match fields.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(Rejection::Malformed),
        };
        let algorithm = text("alg")?
            .and_then(Algorithm::named)
            .ok_or(Rejection::Algorithm)?;
        if let Some(wanted) = &rules.typ {
            let typ = text("typ")?.unwrap_or_default().to_ascii_lowercase();
            if typ.strip_prefix("application/").unwrap_or(&typ) != wanted {
                return Err(Rejection::Type);
            }
        }
        let id = text("kid")?;
        if id.is_some_and(|id| id.len() > MAX_ID) {
            return Err(Rejection::UnknownKey);
        }
        let length = token.len() - signature.len() - 1;
        Ok(Token {
            algorithm,
            id: id.map(str::to_owned),
            message: token.as_bytes().get(..length).unwrap_or_default(),
            signature: URL_SAFE_NO_PAD
                .decode(signature)
                .map_err(|_| Rejection::Malformed)?,
            payload,
        })
    }

    /// The claims, which are worth something once the signature is verified, and the token's times.
    ///
    /// # Errors
    /// See [`Rejection`].
    pub(crate) fn claims(&self, rules: &Rules, now: i64) -> Result<(Claims, Times), Rejection> {
        let claims = object(self.payload)?;
        let times = Times {
            expiry: time(&claims, "exp")?,
            start: time(&claims, "nbf")?,
            issued: time(&claims, "iat")?,
        };
        if times.expiry.is_none() && !rules.allow_without_expiry {
            return Err(Rejection::NoExpiry);
        }
        times.check(rules, now)?;
        check_parties(&claims, rules.issuer.as_deref(), &rules.audience)?;
        Ok((claims, times))
    }
}

impl Times {
    /// Whether a token is good at this second.
    ///
    /// # Errors
    /// See [`Rejection`].
    pub(crate) fn check(&self, rules: &Rules, now: i64) -> Result<(), Rejection> {
        let leeway = rules.leeway;
        if self
            .expiry
            .is_some_and(|end| now >= end.saturating_add(leeway))
        {
            return Err(Rejection::Expired);
        }
        let starts = [self.start, self.issued].into_iter().flatten();
        if starts
            .max()
            .is_some_and(|start| now < start.saturating_sub(leeway))
        {
            return Err(Rejection::NotYetValid);
        }
        if let Some(max_age) = rules.max_age {
            let issued = self.issued.ok_or(Rejection::TooOld)?;
            if now > issued.saturating_add(max_age).saturating_add(leeway) {
                return Err(Rejection::TooOld);
            }
        }
        Ok(())
    }
}

fn object(part: &str) -> Result<Claims, Rejection> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Rejection::Malformed)?;
    json::object(&bytes).ok_or(Rejection::Malformed)
}

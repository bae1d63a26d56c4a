//! Cross-origin requests (the Fetch standard): which other origins' pages may read answers, and with what they may ask.
//! Preflights are answered here; what an upstream says about it is replaced.

use tidegate_sdk::prelude::*;
use tidegate_sdk::{Answer, Refusal};

use crate::condition::{Condition, When};
use crate::facts::{Facts, Fields, Incoming};
use crate::mistakes::{Mistakes, Place};
use crate::names;
use crate::number;
use crate::one_or_many::OneOrMany;
use crate::pattern::Pattern;
use crate::regex::Regex;

/// Which other origins' pages may use what is behind this route.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Cors {
    /// When this holds; always, if it is missing.
    when: Option<When>,
    /// Origins: whole ones such as `https://app.example`, with `*` for letters, digits, `-` and `.` of a host's name or a port,
    /// `~` with a regular expression for the whole origin, `null`, or `*` alone for all.
    origins: OneOrMany<String>,
    /// Methods that may be used; GET, HEAD and POST if it is missing, `*` for all.
    methods: Option<Vec<String>>,
    /// Fields of requests that may be used besides those that always may; `*` for all.
    headers: Vec<String>,
    /// Fields of responses that pages may read besides those that they always may; `*` for all.
    expose: Vec<String>,
    /// Whether cookies and other credentials may come along.
    credentials: bool,
    /// Seconds that a browser may remember a preflight's answer.
    max_age: Option<u32>,
    /// Whether pages from public networks may use this one, which is on a private network.
    private_network: bool,
    /// Whether preflights go on to the upstream.
    pass_preflight: bool,
    /// Whether requests of origins that are not allowed get 403, in place of an answer that their pages can't read.
    refuse: bool,
}

/// The rules, ready to be asked.
#[derive(Debug)]
pub(crate) struct Compiled {
    when: Option<Condition>,
    origins: Origins,
    methods: Words,
    headers: Words,
    expose: Option<Vec<u8>>,
    credentials: bool,
    max_age: Option<Vec<u8>>,
    private_network: bool,
    pass_preflight: bool,
    refuse: bool,
}

#[derive(Debug)]
enum Origins {
    /// All, without a name.
    All,
    Some(Vec<Pattern>),
}

/// Names that are allowed, and the line that says so.
#[derive(Debug)]
enum Words {
    All,
    Some(Vec<String>, Vec<u8>),
}

/// What a request's origin may do.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The request has none: it is of the same origin, or of no browser.
    None,
    Allowed(Vec<u8>),
    Refused,
}

/// Fields by which servers speak of it; what an upstream says there goes.
const FIELDS: [&str; 7] = [
    ALLOW_ORIGIN,
    ALLOW_CREDENTIALS,
    EXPOSE,
    ALLOW_METHODS,
    ALLOW_HEADERS,
    MAX_AGE,
    PRIVATE_NETWORK,
];
const ALLOW_ORIGIN: &str = "access-control-allow-origin";
const ALLOW_CREDENTIALS: &str = "access-control-allow-credentials";
const ALLOW_METHODS: &str = "access-control-allow-methods";
const ALLOW_HEADERS: &str = "access-control-allow-headers";
const EXPOSE: &str = "access-control-expose-headers";
const MAX_AGE: &str = "access-control-max-age";
const PRIVATE_NETWORK: &str = "access-control-allow-private-network";

// === impl Cors ===

impl Cors {
    pub(crate) fn compile(self, place: &Place, mistakes: &mut Mistakes) -> Compiled {
        let when = self
            .when
            .map(|when| when.compile_for_both(&place.key("when"), mistakes));
        let origins = origins(
            self.origins,
            self.credentials,
            &place.key("origins"),
            mistakes,
        );
        let methods = self
            .methods
            .unwrap_or_else(|| ["GET", "HEAD", "POST"].map(str::to_owned).to_vec());
        let methods = words(methods, false, &place.key("methods"), mistakes);
        let headers = words(self.headers, true, &place.key("headers"), mistakes);
        let expose = match words(self.expose, true, &place.key("expose"), mistakes) {
            Words::All if self.credentials => {
                mistakes.add(
                    &place.key("expose"),
                    "with `credentials`, browsers take `*` for a field's name; name the fields",
                );
                None
            }
            Words::All => Some(b"*".to_vec()),
            Words::Some(_, line) => (!line.is_empty()).then_some(line),
        };
        Compiled {
            when,
            origins,
            methods,
            headers,
            expose,
            credentials: self.credentials,
            max_age: self.max_age.map(|seconds| {
                let mut text = Vec::new();
                number::write(u64::from(seconds), &mut text);
                text
            }),
            private_network: self.private_network,
            pass_preflight: self.pass_preflight,
            refuse: self.refuse,
        }
    }
}

fn origins(
    texts: OneOrMany<String>,
    credentials: bool,
    place: &Place,
    mistakes: &mut Mistakes,
) -> Origins {
    if texts.is_empty() {
        mistakes.add(
            place,
            "there is none; name at least one, such as `https://app.example`",
        );
    }
    let mut patterns = Vec::new();
    let mut all = false;
    for (place, text) in texts.each(place) {
        if text == "*" {
            all = true;
            if credentials {
                mistakes.add(
                    &place,
                    "with `credentials`, any page could act as its visitor; name the origins",
                );
            }
            continue;
        }
        let pattern = match text.strip_prefix('~') {
            Some(pattern) => Regex::whole(pattern).map(Pattern::from),
            None if text == "null" || is_origin(&text) => Pattern::new(&text),
            None => Err(format!(
                "`{text}` is no origin; write scheme, host and port if there is one, without a path: \
                 `https://app.example`"
            )),
        };
        patterns.extend(mistakes.take(&place, pattern));
    }
    if all {
        Origins::All
    } else {
        Origins::Some(patterns)
    }
}

/// Whether a text, with stars or not, can be an origin as browsers write it.
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let scheme_letter =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    let host_letter =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._*[]:".contains(&byte);
    // Only an address in brackets has colons before the port's.
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !rest.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let port_letter = |byte: u8| byte.is_ascii_digit() || byte == b'*';
    !scheme.is_empty()
        && scheme.bytes().all(scheme_letter)
        && !host.is_empty()
        && host.bytes().all(host_letter)
        && (host.starts_with('[') || !host.contains([':', '[', ']']))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(port_letter))
}

fn words(texts: Vec<String>, lower: bool, place: &Place, mistakes: &mut Mistakes) -> Words {
    if texts.iter().any(|text| text == "*") {
        return Words::All;
    }
    for (index, text) in texts.iter().enumerate() {
        if !names::is_token(text) {
            mistakes.add(&place.at(index), &format!("`{text}` is no name"));
        }
    }
    let line = texts.join(", ").into_bytes();
    let texts = texts.into_iter().map(|text| {
        if lower {
            text.to_ascii_lowercase()
        } else {
            text
        }
    });
    Words::Some(texts.collect(), line)
}

impl Words {
    /// Whether every name in a line with commas is among them.
    fn allow(&self, line: &[u8]) -> bool {
        match self {
            Words::All => true,
            Words::Some(names, _) => line
                .split(|byte| *byte == b',')
                .map(|name| name.trim_ascii().to_ascii_lowercase())
                .filter(|name| !name.is_empty())
                .all(|name| names.iter().any(|known| known.as_bytes() == name)),
        }
    }
}

// === impl Compiled ===

impl Compiled {
    /// Whether nothing is answered here.
    pub(crate) fn leaves_requests(&self) -> bool {
        self.pass_preflight && !self.refuse
    }

    /// An answer to a request that is a preflight, or that is refused.
    pub(crate) fn answer(&self, incoming: &Incoming<'_>, buffer: &mut Vec<u8>) -> Option<Answer> {
        if !self.applies(incoming, buffer) {
            return None;
        }
        let verdict = self.verdict(incoming.facts());
        if verdict == Verdict::None {
            return None;
        }
        let asked = incoming
            .head
            .get("access-control-request-method")
            .filter(|_| incoming.head.method() == "OPTIONS");
        let Some(method) = asked.filter(|_| !self.pass_preflight) else {
            let refused = self.refuse && verdict == Verdict::Refused;
            return refused
                .then(|| self.with_vary(Answer::new(403).text("this origin is not allowed\n")));
        };
        Some(self.preflight(incoming, verdict, &method))
    }

    fn preflight(&self, incoming: &Incoming<'_>, verdict: Verdict, method: &[u8]) -> Answer {
        let headers = incoming
            .head
            .get_all("access-control-request-headers")
            .join(&b", "[..]);
        let private = incoming.head.get("access-control-request-private-network");
        let private = private.is_some_and(|asked| asked == b"true");
        let method_allowed = match &self.methods {
            Words::All => true,
            // Methods' case counts.
            Words::Some(known, _) => known.iter().any(|known| known.as_bytes() == method),
        };
        let Verdict::Allowed(origin) = verdict else {
            return self.with_vary(Answer::new(403).text("this origin is not allowed\n"));
        };
        if !method_allowed {
            return self
                .with_vary(Answer::new(403).text("this method is not allowed to other origins\n"));
        }
        if !self.headers.allow(&headers) {
            return self
                .with_vary(Answer::new(403).text("a field is not allowed to other origins\n"));
        }
        if private && !self.private_network {
            return self.with_vary(Answer::new(403).text("public networks are not allowed\n"));
        }
        let mut answer = self
            .with_vary(Answer::new(204))
            .field(ALLOW_ORIGIN, origin)
            .field(
                ALLOW_METHODS,
                match &self.methods {
                    Words::All => method,
                    Words::Some(_, line) => line,
                },
            );
        if self.credentials {
            answer = answer.field(ALLOW_CREDENTIALS, "true");
        }
        let allowed = match &self.headers {
            Words::All => &headers,
            Words::Some(_, line) => line,
        };
        if !allowed.is_empty() {
            answer = answer.field(ALLOW_HEADERS, allowed);
        }
        if let Some(seconds) = &self.max_age {
            answer = answer.field(MAX_AGE, seconds);
        }
        if private {
            answer = answer.field(PRIVATE_NETWORK, "true");
        }
        answer
    }

    /// What a cache must look at before it gives one preflight's answer to another.
    fn with_vary(&self, answer: Answer) -> Answer {
        answer.field(
            "vary",
            "origin, access-control-request-method, access-control-request-headers, \
             access-control-request-private-network",
        )
    }

    /// Says in a response what its page may do.
    ///
    /// # Errors
    /// Why the host refused it.
    pub(crate) fn apply(
        &self,
        fields: &mut dyn Fields,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        if !self.applies(fields.facts(), buffer) {
            return Ok(());
        }
        for name in FIELDS {
            fields.remove(name)?;
        }
        if !matches!(self.origins, Origins::All) {
            vary_by_origin(fields)?;
        }
        if let Verdict::Allowed(origin) = self.verdict(fields.facts()) {
            fields.set(ALLOW_ORIGIN, &origin)?;
            if self.credentials {
                fields.set(ALLOW_CREDENTIALS, b"true")?;
            }
            if let Some(expose) = &self.expose {
                fields.set(EXPOSE, expose)?;
            }
        }
        Ok(())
    }

    fn applies(&self, facts: &dyn Facts, buffer: &mut Vec<u8>) -> bool {
        self.when
            .as_ref()
            .is_none_or(|when| when.holds(facts, buffer))
    }

    fn verdict(&self, facts: &dyn Facts) -> Verdict {
        let origins = facts.request_fields("origin");
        let [origin] = origins.as_slice() else {
            // Several are of no browser.
            return if origins.is_empty() {
                Verdict::None
            } else {
                Verdict::Refused
            };
        };
        match &self.origins {
            Origins::All => Verdict::Allowed(b"*".to_vec()),
            Origins::Some(patterns) => {
                let text = core::str::from_utf8(origin).unwrap_or_default();
                let is_origin = text == "null" || is_origin(text) && !text.contains('*');
                let allowed = is_origin && patterns.iter().any(|pattern| pattern.is_match(origin));
                if allowed {
                    Verdict::Allowed(origin.clone())
                } else {
                    Verdict::Refused
                }
            }
        }
    }
}

/// A cache must not give one origin's answer to another.
fn vary_by_origin(fields: &mut dyn Fields) -> Result<(), Refusal> {
    let lines = fields.get_all("vary");
    let said = lines
        .iter()
        .flat_map(|line| line.split(|byte| *byte == b','))
        .map(|word| word.trim_ascii())
        .any(|word| word == b"*" || word.eq_ignore_ascii_case(b"origin"));
    if said {
        return Ok(());
    }
    fields.append("vary", b"origin")
}

#[cfg(test)]
mod tests;

//! What a refusal looks like, to browsers, programs and gRPC clients. Decides nothing.

use tidegate_sdk::prelude::*;

use crate::config::AnswerConfig;
use crate::key::{Facts, is_token};

/// What a refusal looks like.
#[derive(Debug)]
pub(crate) struct Look {
    status: u16,
    /// The body and its type; none for the usual ones.
    body: Option<(Box<str>, Box<str>)>,
    fields: Vec<(Box<str>, Box<str>)>,
}

impl Default for Look {
    fn default() -> Self {
        Look {
            status: 429,
            body: None,
            fields: Vec::new(),
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

/// Fields that the proxy answers for.
const FRAMING: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Look {
    pub(crate) fn new(written: AnswerConfig) -> Result<Self, String> {
        let wrong = |name: &str, why: &str| Err(["`answer`: `", name, "` ", why].concat());
        let printable = |text: &str| {
            text.bytes()
                .all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
        };
        let mut fields = Vec::new();
        for (name, value) in written.fields.0 {
            let lower = name.to_ascii_lowercase();
            if !is_token(&name) {
                return wrong(&name, "is no name of a field");
            }
            if FRAMING.contains(&&*lower) {
                return wrong(&name, "is the proxy's: leave it away");
            }
            if lower == "content-type" {
                return wrong(&name, "stands in `content-type`, not in `fields`");
            }
            if !printable(&value) {
                return wrong(&name, "has a control character in its value: leave it away");
            }
            fields.push((lower.into(), value.into()));
        }
        let kind = written.content_type;
        if kind
            .as_deref()
            .is_some_and(|kind| kind.is_empty() || !printable(kind))
        {
            return wrong("content-type", "is no type such as application/json");
        }
        let body = match (written.body, kind) {
            (Some(body), kind) => Some((body.into(), kind.unwrap_or_else(|| TEXT.into()).into())),
            (None, Some(_)) => return wrong("content-type", "says what `body` is: add `body`"),
            (None, None) => None,
        };
        Ok(Look {
            status: written.status.map_or(429, |status| status.0),
            body,
            fields,
        })
    }

    /// The refusal of the rules of those names, to which the caller adds where the client stands.
    pub(crate) fn answer(&self, facts: &Facts<'_>, rules: &[&str]) -> Answer {
        let request = facts.request();
        let speaks_grpc = request
            .get("content-type")
            .is_some_and(|kind| kind.starts_with(b"application/grpc"));
        let mut answer = match (&self.body, speaks_grpc) {
            // What gRPC calls "trailers-only": its clients read the status nowhere else.
            (_, true) => Answer::new(200)
                .field("content-type", "application/grpc")
                .field("grpc-status", RESOURCE_EXHAUSTED)
                .field("grpc-message", "too many requests"),
            (Some((body, kind)), false) => Answer::new(self.status)
                .field("content-type", kind.as_ref())
                .body(&**body),
            (None, false) if wants_json(request) => Answer::new(self.status)
                .field("content-type", "application/problem+json")
                .body(problem(self.status, rules)),
            (None, false) => Answer::new(self.status).text("too many requests\n"),
        };
        for (name, value) in &self.fields {
            answer = answer.field(name, value.as_ref() as &str);
        }
        answer
    }
}

/// gRPC's status 8.
const RESOURCE_EXHAUSTED: &str = "8";

fn wants_json(request: &RequestHead) -> bool {
    let accept = request.get("accept").unwrap_or_default();
    let names = |word: &[u8]| accept.windows(word.len()).any(|part| part == word);
    names(b"json") && !names(b"text/")
}

/// The problem (RFC 9457) that draft-ietf-httpapi-ratelimit-headers registers. Rules' names need no escapes.
fn problem(status: u16, rules: &[&str]) -> String {
    let mut names = String::new();
    for rule in rules {
        let comma = if names.is_empty() { "" } else { "," };
        names.extend([comma, "\"", rule, "\""]);
    }
    [
        "{\"type\":\"https://iana.org/assignments/http-problem-types#quota-exceeded\",\"title\":\"too many requests\",\"status\":",
        itoa::Buffer::new().format(status),
        ",\"violated-policies\":[",
        &names,
        "]}\n",
    ]
    .concat()
}

/// The refusal when the store can't be reached and nothing may pass without it. gRPC clients get UNAVAILABLE by the proxy.
pub(crate) fn unavailable() -> Answer {
    Answer::new(503)
        .field("cache-control", "no-store")
        .text("the limit can't be looked up\n")
}

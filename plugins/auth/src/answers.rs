//! What is answered to those who are not let in: status, challenges (RFC 9110 section 11.6.1), and a body as the client wants it.
//! Decides nothing.

use tidegate_sdk::prelude::*;

use crate::config::{AnswersConfig, Method};
use crate::json;
use crate::refused::Refused;

/// How refusals look.
#[derive(Debug)]
pub(crate) struct Answers {
    realm: String,
    /// One for each method, in their order.
    challenges: Vec<(Method, String)>,
    /// The login page's address, before and behind the address that was asked for.
    login: Option<(String, Option<String>)>,
    unauthorized: Option<String>,
    forbidden: Option<String>,
}

/// What a refusal is, whatever the client speaks.
struct Verdict<'a> {
    status: u16,
    grpc: u8,
    text: &'a str,
    challenges: Vec<String>,
    retry_after: Option<u64>,
}

impl Answers {
    /// # Errors
    /// A realm that can't stand in a challenge, or an address that can't stand in Location.
    pub(crate) fn new(
        realm: Option<String>,
        config: AnswersConfig,
        methods: &[Method],
    ) -> Result<Self, String> {
        let realm = realm.unwrap_or_else(|| "api".to_owned());
        if !realm.bytes().all(quotable) {
            return Err(
                "`realm` can't hold quotes, backslashes, control characters or letters beyond ASCII"
                    .to_owned(),
            );
        }
        let mut challenges: Vec<(Method, String)> = Vec::new();
        for method in methods {
            let challenge = match method {
                Method::Jwt | Method::Introspection => format!("Bearer realm=\"{realm}\""),
                Method::Basic => format!("Basic realm=\"{realm}\", charset=\"UTF-8\""),
                Method::ApiKey => format!("ApiKey realm=\"{realm}\""),
                Method::Signature => format!("Signature realm=\"{realm}\""),
                // It is asked for in the handshake, not here.
                Method::ClientCertificate => continue,
            };
            if !challenges.iter().any(|(_, known)| *known == challenge) {
                challenges.push((*method, challenge));
            }
        }
        if challenges.is_empty() {
            // A 401 has one (RFC 9110 section 15.5.2).
            challenges.push((
                Method::ClientCertificate,
                format!("Certificate realm=\"{realm}\""),
            ));
        }
        let login = match config.login {
            None => None,
            Some(login) => {
                let fits = login.bytes().all(|byte| byte.is_ascii_graphic());
                if !fits || !(login.starts_with('/') || login.contains("://")) {
                    return Err(
                        "`answers.login` must be an address, such as `https://login.example/?to={url}`, or a path"
                            .to_owned(),
                    );
                }
                Some(match login.split_once("{url}") {
                    None => (login, None),
                    Some((before, behind)) => (before.to_owned(), Some(behind.to_owned())),
                })
            }
        };
        Ok(Answers {
            realm,
            challenges,
            login,
            unauthorized: config.unauthorized,
            forbidden: config.forbidden,
        })
    }

    /// Answers.
    pub(crate) fn refuse(&self, request: &RequestHead, refused: &Refused) -> Flow {
        let verdict = self.verdict(refused);
        if request
            .get("content-type")
            .is_some_and(|kind| kind.starts_with(b"application/grpc"))
        {
            return grpc(&verdict);
        }
        let accept = request.get("accept").unwrap_or_default();
        let wants = |kind: &[u8]| accept.windows(kind.len()).any(|part| part == kind);
        if matches!(refused, Refused::Missing | Refused::Token(_))
            && let Some(login) = &self.login
            && wants(b"text/html")
            && matches!(request.method().as_str(), "GET" | "HEAD")
        {
            return Answer::new(302)
                .field("location", address(login, request))
                .field("cache-control", "no-store")
                .send();
        }
        self.refuse_plainly(&verdict, wants(b"json"))
    }

    /// Answers where the request's body has been judged, and its head is at hand no more.
    pub(crate) fn refuse_body(&self, refused: &Refused) -> Flow {
        self.refuse_plainly(&self.verdict(refused), false)
    }

    fn refuse_plainly(&self, verdict: &Verdict<'_>, json: bool) -> Flow {
        let mut answer = Answer::new(verdict.status).field("cache-control", "no-store");
        for challenge in &verdict.challenges {
            answer = answer.field("www-authenticate", challenge);
        }
        if let Some(seconds) = verdict.retry_after {
            answer = answer.field("retry-after", seconds.to_string());
        }
        if json {
            let mut body = ["{\"status\":", &verdict.status.to_string(), ",\"error\":"].concat();
            json::string(verdict.text, &mut body);
            body.push('}');
            answer
                .field("content-type", "application/json")
                .body(body)
                .send()
        } else {
            answer.text(&format!("{}\n", verdict.text)).send()
        }
    }

    fn verdict<'a>(&'a self, refused: &'a Refused) -> Verdict<'a> {
        let realm = &self.realm;
        let verdict = |status: u16, grpc: u8, text: &'a str| Verdict {
            status,
            grpc,
            text: match (status, &self.unauthorized, &self.forbidden) {
                (401, Some(own), _) | (403, _, Some(own)) => own,
                _ => text,
            },
            challenges: Vec::new(),
            retry_after: None,
        };
        let unauthorized = |text: &'a str, challenges: Vec<String>| Verdict {
            challenges,
            ..verdict(401, 16, text)
        };
        let of = |method: Method| {
            let own = self.challenges.iter().filter(|(known, _)| *known == method);
            own.map(|(_, challenge)| challenge.clone()).collect()
        };
        match refused {
            Refused::Missing => unauthorized(
                "a credential is needed",
                self.challenges
                    .iter()
                    .map(|(_, text)| text.clone())
                    .collect(),
            ),
            Refused::Ambiguous => verdict(400, 3, "more than one credential"),
            Refused::UnknownKey => unauthorized("the key is not known", of(Method::ApiKey)),
            Refused::Password => {
                unauthorized("the name or the password is wrong", of(Method::Basic))
            }
            Refused::Busy(seconds) => Verdict {
                retry_after: Some(*seconds),
                ..verdict(429, 8, "too many passwords are being tried")
            },
            Refused::Token(rejection) => {
                let reason = rejection.reason();
                let challenge = format!(
                    "Bearer realm=\"{realm}\", error=\"invalid_token\", error_description=\"{reason}\""
                );
                unauthorized(reason, vec![challenge])
            }
            Refused::Signature(reason) => unauthorized(reason, of(Method::Signature)),
            Refused::Digest => verdict(400, 3, "the body is not the one that was signed"),
            Refused::Certificate => verdict(403, 7, "the client certificate is not known here"),
            Refused::Address => verdict(403, 7, "the client address may not come here"),
            Refused::Role => verdict(403, 7, "the role is missing"),
            Refused::Claim => verdict(403, 7, "a claim is not what it must be"),
            Refused::Scope(scope) => {
                let scope: String = scope.chars().filter(|c| c.is_ascii_graphic()).collect();
                let scope = scope.replace(['"', '\\'], "");
                Verdict {
                    challenges: vec![format!(
                        "Bearer realm=\"{realm}\", error=\"insufficient_scope\", scope=\"{scope}\""
                    )],
                    ..verdict(403, 7, "the scope is missing")
                }
            }
            Refused::Unavailable(seconds) => Verdict {
                retry_after: Some(*seconds),
                ..verdict(503, 14, "the credential can't be checked now")
            },
        }
    }
}

fn quotable(byte: u8) -> bool {
    (byte.is_ascii_graphic() || byte == b' ') && byte != b'"' && byte != b'\\'
}

/// A gRPC answer without messages: the status stands in the head.
fn grpc(verdict: &Verdict<'_>) -> Flow {
    let message: String = verdict.text.chars().filter(char::is_ascii).collect();
    Answer::new(200)
        .field("content-type", "application/grpc")
        .field("grpc-status", verdict.grpc.to_string())
        .field("grpc-message", message.replace('%', "%25"))
        .send()
}

/// The login page's address, with the one that was asked for in it.
fn address((before, behind): &(String, Option<String>), request: &RequestHead) -> String {
    let mut address = before.clone();
    if let Some(behind) = behind {
        let query = request.query();
        let (scheme, authority, path) = (request.scheme(), request.authority(), request.path());
        let asked = [
            scheme.as_str(),
            "://",
            &authority,
            &path,
            if query.is_some() { "?" } else { "" },
            query.as_deref().unwrap_or_default(),
        ]
        .concat();
        for byte in asked.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                address.push(char::from(byte));
            } else {
                const DIGITS: [char; 16] = [
                    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
                ];
                address.push('%');
                address.extend(DIGITS.get(usize::from(byte >> 4)));
                address.extend(DIGITS.get(usize::from(byte & 15)));
            }
        }
        address.push_str(behind);
    }
    address
}

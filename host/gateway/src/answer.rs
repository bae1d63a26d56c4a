//! The one place where a failure becomes a status: what the client is told, what the log and the figures call it. What is
//! told names the request's id and nothing of what stands behind the proxy.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use tidegate_core::body::BodyError;
use tidegate_core::exchange::{Answer, RequestHead};
use tidegate_core::survey::Survey;
use tidegate_upstream::{SendError, SendErrorKind};

/// What a connection is told for which there is no room, whatever it asks for.
pub const CONNECTION_REFUSED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
connection: close\r\nretry-after: 1\r\ncache-control: no-store\r\ncontent-type: text/plain; charset=utf-8\r\n\
content-length: 25\r\n\r\n503 too many connections\n";

/// What a client did that can't be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientFault {
    /// A line of the head that is none, or has a character that may not stand there.
    Head,
    /// A body whose length is not clear.
    Framing,
    /// A transfer coding other than `chunked`.
    Coding,
    /// A version of HTTP that is not spoken here.
    Version,
    /// No host, several, or none that could be one.
    Host,
    /// No target that could be routed.
    Path,
    /// A method that is never served.
    Method,
    /// A method that can't be one.
    UnknownMethod,
    /// An expectation other than `100-continue`.
    Expectation,
    /// A field's name that the settings do not accept.
    FieldName,
    /// More fields than allowed.
    TooManyFields,
    /// More bytes of a head, or of trailers, than allowed.
    HeadTooLarge,
    /// More bytes of a target than allowed.
    TargetTooLong,
    /// A head that did not come in time.
    HeadTimedOut,
    /// More bytes of a body than allowed.
    BodyTooLarge,
    /// A body that did not come in time.
    BodyTimedOut,
    /// A body that broke off.
    BodyBroken,
    /// HTTP/2: frames without use, and more of them than one can mean well. Ends the connection.
    Flood,
    /// HTTP/2: something else than settings at the beginning. Ends the connection.
    Preface,
}

/// Why an exchange has no answer of an upstream or of a filter.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The client's doing; whether its connection can go on is not sure.
    Client(ClientFault),
    /// No route takes the request.
    NoRoute,
    /// The route has no upstream.
    NoUpstream,
    /// The request has been here before.
    Loop,
    /// The request may not go any further, by its own Max-Forwards (RFC 9110 section 7.6.2). No failure of anybody's.
    LastHop,
    /// A filter failed, or there is none to call, and its policy is `closed`.
    Filter,
    /// A filter failed so often that it is not called for a while, and its policy is `closed`.
    Quarantined,
    /// All instances that a filter may have are at work.
    Instances,
    /// A response is too large for a filter that wants it whole.
    ResponseTooLarge,
    /// The upstream's response broke off while a filter waited for the whole of it.
    ResponseBroken,
    /// The upstream's response did not go on in time while a filter waited for the whole of it.
    ResponseTimedOut,
    /// The upstream changes to a protocol that the client did not ask for.
    WrongProtocol,
    /// The upstream did not answer.
    Upstream(SendError),
}

/// What a failure is to the client and to the log.
pub(crate) struct Told {
    pub(crate) status: StatusCode,
    /// For figures and the log.
    pub(crate) reason: &'static str,
    /// For the client.
    pub(crate) text: &'static str,
}

impl ClientFault {
    /// Status, reason and text.
    pub(crate) fn told(self) -> Told {
        let (status, reason, text) = match self {
            ClientFault::Head => (400, "bad_head", "the request's head is not valid"),
            ClientFault::Framing => (400, "framing", "the request's length is not clear"),
            ClientFault::Coding => (501, "coding", "this transfer coding is not supported"),
            ClientFault::Version => (505, "version", "this version of HTTP is not supported"),
            ClientFault::Host => (
                400,
                "bad_host",
                "the request's host is missing or not valid",
            ),
            ClientFault::Path => (400, "bad_path", "the request's path is not valid"),
            ClientFault::Method => (405, "method", "this method is not allowed"),
            ClientFault::UnknownMethod => (501, "method", "this method is not supported"),
            ClientFault::Expectation => (417, "expectation", "this expectation can't be met"),
            ClientFault::FieldName => (400, "field_name", "a field's name is not accepted"),
            ClientFault::TooManyFields => {
                (431, "header_too_large", "the request has too many fields")
            }
            ClientFault::HeadTooLarge => {
                (431, "header_too_large", "the request's head is too large")
            }
            ClientFault::TargetTooLong => (414, "uri_too_long", "the request's target is too long"),
            ClientFault::HeadTimedOut => (
                408,
                "timeout_header",
                "the request's head did not come in time",
            ),
            ClientFault::BodyTooLarge => (413, "body_too_large", "the request's body is too large"),
            ClientFault::BodyTimedOut => (
                408,
                "timeout_body",
                "the request's body did not come in time",
            ),
            ClientFault::BodyBroken => (400, "body_broken", "the request's body broke off"),
            ClientFault::Flood => (400, "h2_abuse", "too many frames without use"),
            ClientFault::Preface => (
                400,
                "h2_protocol",
                "the connection does not begin as it must",
            ),
        };
        told(status, reason, text)
    }
}

impl Failure {
    /// Status, reason and text of a failure. No other place chooses a status.
    pub(crate) fn told(&self) -> Told {
        let (status, reason, text) = match self {
            Failure::Client(fault) => return fault.told(),
            Failure::NoRoute => (404, "no_route", "nothing is here"),
            Failure::NoUpstream => (502, "no_upstream", "no upstream is configured"),
            Failure::LastHop => (200, "last_hop", "the request goes no further"),
            Failure::Loop => (508, "loop", "the request has been here before"),
            Failure::Filter => (503, "filter", "the service is not available"),
            Failure::Quarantined => (503, "filter_quarantined", "the service is not available"),
            Failure::Instances => (503, "instances", "the service is busy"),
            Failure::ResponseTooLarge => (
                502,
                "response_too_large",
                "the upstream's response can't be passed on",
            ),
            Failure::ResponseBroken => (
                502,
                "upstream_truncated",
                "the upstream's response broke off",
            ),
            Failure::ResponseTimedOut => (
                504,
                "upstream_idle",
                "the upstream's response did not come in time",
            ),
            Failure::WrongProtocol => (
                502,
                "wrong_protocol",
                "the upstream's response is not valid",
            ),
            Failure::Upstream(error) => {
                let (status, text) = match &error.kind {
                    SendErrorKind::NoEndpoint => (503, "the upstream is not available"),
                    SendErrorKind::Connect | SendErrorKind::Dns | SendErrorKind::Tls => {
                        (502, "the upstream can't be reached")
                    }
                    SendErrorKind::ConnectTimedOut => {
                        (504, "the upstream can't be reached in time")
                    }
                    SendErrorKind::ResetBeforeHead => (502, "the upstream broke the request off"),
                    SendErrorKind::HeadTimedOut => (504, "the upstream did not answer in time"),
                    SendErrorKind::InvalidResponse => (502, "the upstream's response is not valid"),
                    SendErrorKind::RequestBody(body) => return of_body(body).told(),
                };
                (status, error.kind.reason(), text)
            }
        };
        told(status, reason, text)
    }

    /// What the client did, if it was the client: also where it was found out on the way to an upstream.
    pub(crate) fn of_client(&self) -> Option<ClientFault> {
        match self {
            Failure::Client(fault) => Some(*fault),
            Failure::Upstream(error) => match &error.kind {
                SendErrorKind::RequestBody(body) => Some(of_body(body)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the connection can't be trusted to go on.
    pub(crate) fn closes(&self) -> bool {
        match self {
            Failure::Client(_) | Failure::Upstream(_) => self.of_client().is_some(),
            _ => false,
        }
    }

    /// The answer that tells the client.
    pub(crate) fn answer(&self, manner: Manner, request_id: &HeaderValue) -> Answer {
        let told = self.told();
        let mut answer = manner.small(told.status, told.text, request_id);
        if told.status == StatusCode::METHOD_NOT_ALLOWED || matches!(self, Failure::LastHop) {
            let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
            answer.fields.insert(header::ALLOW, methods);
        }
        answer
    }
}

fn told(status: u16, reason: &'static str, text: &'static str) -> Told {
    Told {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY),
        reason,
        text,
    }
}

/// Whose fault it is that a request's body ended before its end.
pub(crate) fn of_body(error: &BodyError) -> ClientFault {
    match error {
        BodyError::TooLarge { .. } => ClientFault::BodyTooLarge,
        BodyError::TimedOut => ClientFault::BodyTimedOut,
        BodyError::Broken(_) | BodyError::Stopped => ClientFault::BodyBroken,
    }
}

/// How a client wants to be answered, by what it sent before any filter changed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manner {
    json: bool,
    grpc: bool,
}

impl Manner {
    /// `seen` says what the head held when it came.
    pub(crate) fn of(head: &RequestHead, seen: Survey) -> Self {
        let accept = if seen.has(Survey::ACCEPT) {
            head.fields.get(header::ACCEPT)
        } else {
            None
        };
        let accept = accept
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let grpc = head.version == Version::HTTP_2
            && head.method == Method::POST
            && head
                .fields
                .get(header::CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        Manner {
            json: accept.contains("json") && !accept.contains("text/"),
            grpc,
        }
    }

    /// Whether it speaks gRPC, whose streams may rest.
    pub(crate) fn is_grpc(self) -> bool {
        self.grpc
    }

    /// A small answer of the proxy's own: JSON for who asks for it, else text.
    fn small(self, status: StatusCode, text: &str, request_id: &HeaderValue) -> Answer {
        let id = request_id.to_str().unwrap_or_default();
        let (kind, body) = if self.json {
            let body =
                serde_json::json!({ "status": status.as_u16(), "error": text, "request-id": id });
            ("application/json", format!("{body}\n"))
        } else {
            let body = format!("{} {text}\nrequest id: {id}\n", status.as_u16());
            ("text/plain; charset=utf-8", body)
        };
        let mut fields = HeaderMap::with_capacity(4);
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        fields.insert("x-request-id", request_id.clone());
        Answer {
            status,
            fields,
            body: body.into(),
        }
    }

    /// Puts an answer into the form that the client's protocol reads. gRPC reads the status from `grpc-status` only, so
    /// an error becomes what it calls "trailers-only": 200 with that among the fields.
    pub(crate) fn suit(self, answer: &mut Answer) {
        const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
        if !self.grpc || answer.status.is_success() || answer.fields.contains_key(GRPC_STATUS) {
            return;
        }
        let status = grpc_status(answer.status);
        let text = String::from_utf8_lossy(&answer.body);
        let message = percent_encoded(text.lines().next().unwrap_or_default());
        answer.status = StatusCode::OK;
        answer.fields.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        answer.fields.insert(GRPC_STATUS, HeaderValue::from(status));
        if let Ok(message) = HeaderValue::from_str(&message) {
            answer.fields.insert("grpc-message", message);
        }
        answer.body = bytes::Bytes::new();
    }
}

/// The status that gRPC has for one of HTTP.
fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 | 414 | 431 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        408 | 504 => 4,
        413 | 429 => 8,
        502 | 503 => 14,
        _ => 2,
    }
}

/// At most 200 characters of a message as `grpc-message` has them.
fn percent_encoded(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(200) {
        if (' '..='~').contains(&c) && c != '%' {
            out.push(c);
        } else {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::uri::{PathAndQuery, Scheme};

    fn manner(version: Version, accept: &'static str, kind: &'static str) -> Manner {
        let mut fields = HeaderMap::new();
        fields.insert(header::ACCEPT, HeaderValue::from_static(accept));
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        let seen = Survey::of(&fields);
        Manner::of(
            &RequestHead {
                method: Method::POST,
                scheme: Scheme::HTTP,
                authority: None,
                target: PathAndQuery::from_static("/"),
                version,
                fields,
            },
            seen,
        )
    }

    #[test]
    fn an_answer_names_the_id_and_is_json_for_who_wants_it() {
        let id = HeaderValue::from_static("the-id");
        let text = Failure::NoRoute.answer(manner(Version::HTTP_11, "*/*", "x"), &id);
        assert_eq!(text.status, 404);
        assert_eq!(&text.body[..], b"404 nothing is here\nrequest id: the-id\n");
        let json = Failure::NoRoute.answer(manner(Version::HTTP_11, "application/json", "x"), &id);
        let value: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
        assert_eq!(value["request-id"], "the-id");
        let browser = manner(Version::HTTP_11, "text/html, application/json;q=0.1", "x");
        assert_eq!(browser, Manner::default());
    }

    #[test]
    fn grpc_gets_its_own_status() {
        let id = HeaderValue::from_static("the-id");
        let grpc = manner(Version::HTTP_2, "*/*", "application/grpc+proto");
        let mut answer = Failure::NoUpstream.answer(grpc, &id);
        grpc.suit(&mut answer);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.fields["grpc-status"], "14");
        assert_eq!(
            answer.fields["grpc-message"],
            "502 no upstream is configured"
        );
        assert!(answer.body.is_empty());
        let old = manner(Version::HTTP_11, "*/*", "application/grpc");
        let mut answer = Failure::NoUpstream.answer(old, &id);
        old.suit(&mut answer);
        assert_eq!(answer.status, 502);
        assert_eq!(percent_encoded("100 %\u{e9}"), "100 %25%C3%A9");
    }
}

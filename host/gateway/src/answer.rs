//! The one place where a failure becomes a status: what the client is told, what the log calls it. What is told names the
//! request's id and nothing of what stands behind the proxy.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Version};
use tidegate_core::body::BodyError;
use tidegate_core::exchange::{Answer, Exchange};
use tidegate_upstream::{SendError, SendErrorKind};

/// What a client did that can't be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientFault {
    Framing,
    Coding,
    Host,
    Path,
    Method,
    Expectation,
    FieldName,
    TooManyFields,
    TargetTooLong,
    BodyTooLarge,
    BodyTimedOut,
    BodyBroken,
}

/// Why an exchange has no answer of an upstream or of a filter.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The client's doing; whether the connection can go on is not sure.
    Client(ClientFault),
    /// No route takes the request.
    NoRoute,
    /// The route has no upstream.
    NoUpstream,
    /// The request has been here before.
    Loop,
    /// A filter failed and its policy is `closed`.
    Filter,
    /// A response is too large for a filter that wants it whole.
    ResponseTooLarge,
    /// The upstream's response broke while a filter collected it.
    ResponseBroken,
    /// The upstream did not answer.
    Upstream(SendError),
}

/// What a failure is to the client and to the log.
pub(crate) struct Told {
    pub(crate) status: StatusCode,
    /// For metrics and the log.
    pub(crate) reason: &'static str,
    /// For the client.
    pub(crate) text: &'static str,
}

impl Failure {
    /// Status, reason and text of a failure. No other place chooses a status.
    pub(crate) fn told(&self) -> Told {
        let (status, reason, text) = match self {
            Failure::Client(fault) => match fault {
                ClientFault::Framing => (400, "framing", "the request's length is not clear"),
                ClientFault::Coding => (501, "coding", "this transfer coding is not supported"),
                ClientFault::Host => (
                    400,
                    "bad_host",
                    "the request's host is missing or not valid",
                ),
                ClientFault::Path => (400, "bad_path", "the request's path is not valid"),
                ClientFault::Method => (405, "method", "this method is not allowed"),
                ClientFault::Expectation => (417, "expectation", "this expectation can't be met"),
                ClientFault::FieldName => (400, "field_name", "a field's name is not accepted"),
                ClientFault::TooManyFields => {
                    (431, "header_too_large", "the request has too many fields")
                }
                ClientFault::TargetTooLong => {
                    (414, "uri_too_long", "the request's target is too long")
                }
                ClientFault::BodyTooLarge => {
                    (413, "body_too_large", "the request's body is too large")
                }
                ClientFault::BodyTimedOut => (
                    408,
                    "timeout_body",
                    "the request's body did not come in time",
                ),
                ClientFault::BodyBroken => (400, "body_broken", "the request's body broke off"),
            },
            Failure::NoRoute => (404, "no_route", "nothing is here"),
            Failure::NoUpstream => (502, "no_upstream", "no upstream is configured"),
            Failure::Loop => (508, "loop", "the request has been here before"),
            Failure::Filter => (503, "filter", "the service is not available"),
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
            Failure::Upstream(error) => match &error.kind {
                SendErrorKind::NoEndpoint => (503, "no_endpoint", "the upstream is not available"),
                SendErrorKind::Connect => (502, "connect", "the upstream can't be reached"),
                SendErrorKind::ConnectTimedOut => (
                    504,
                    "connect_timeout",
                    "the upstream can't be reached in time",
                ),
                SendErrorKind::Dns => (502, "dns", "the upstream can't be reached"),
                SendErrorKind::Tls => (502, "tls", "the upstream can't be reached"),
                SendErrorKind::ResetBeforeHead => (
                    502,
                    "reset_before_head",
                    "the upstream broke the request off",
                ),
                SendErrorKind::HeadTimedOut => {
                    (504, "head_timeout", "the upstream did not answer in time")
                }
                SendErrorKind::InvalidResponse => (
                    502,
                    "invalid_response",
                    "the upstream's response is not valid",
                ),
                SendErrorKind::RequestBody(body) => return Failure::Client(of_body(body)).told(),
            },
        };
        Told {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY),
            reason,
            text,
        }
    }

    /// Whether the connection can't be trusted to go on.
    pub(crate) fn closes(&self) -> bool {
        matches!(self, Failure::Client(_))
    }

    /// The answer that tells the client.
    pub(crate) fn answer(&self, exchange: &Exchange) -> Answer {
        let told = self.told();
        let mut answer = small(told.status, told.text, exchange);
        if matches!(told.status, StatusCode::METHOD_NOT_ALLOWED) {
            answer.fields.insert(
                header::ALLOW,
                HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            );
        }
        answer
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

/// A small answer of the proxy's own: JSON for who asks for it, else text.
fn small(status: StatusCode, text: &str, exchange: &Exchange) -> Answer {
    let id = exchange.request_id.to_str().unwrap_or_default();
    let accept = exchange
        .request
        .fields
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let (kind, body) = if accept.contains("json") {
        let body =
            serde_json::json!({ "status": status.as_u16(), "error": text, "request-id": id });
        ("application/json", format!("{body}\n"))
    } else {
        (
            "text/plain; charset=utf-8",
            format!("{} {text}\nrequest id: {id}\n", status.as_u16()),
        )
    };
    let mut fields = HeaderMap::new();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert("x-request-id", exchange.request_id.clone());
    Answer {
        status,
        fields,
        body: body.into(),
    }
}

/// Whether a request is gRPC, whose clients read the status from `grpc-status` only.
pub(crate) fn is_grpc(exchange: &Exchange) -> bool {
    exchange.request.version == Version::HTTP_2
        && exchange.request.method == Method::POST
        && exchange
            .request
            .fields
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Turns an answer into the form that gRPC calls "trailers-only": 200 with `grpc-status` among the fields.
pub(crate) fn for_grpc(answer: &mut Answer) {
    if answer.fields.contains_key("grpc-status") {
        return;
    }
    let status = match answer.status.as_u16() {
        200..=299 => return,
        400 | 431 | 414 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        408 | 504 => 4,
        413 | 429 => 8,
        502 | 503 => 14,
        _ => 2,
    };
    let message: String = String::from_utf8_lossy(&answer.body)
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| (' '..='~').contains(c) && *c != '%')
        .take(200)
        .collect();
    answer.status = StatusCode::OK;
    answer.fields.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    answer
        .fields
        .insert("grpc-status", HeaderValue::from(status));
    if let Ok(message) = HeaderValue::from_str(&message) {
        answer.fields.insert("grpc-message", message);
    }
    answer.body = bytes::Bytes::new();
}

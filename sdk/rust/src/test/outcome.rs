//! What comes out of a harness: the request as it would go to the upstream, the response as it would go to the client, or the
//! answer that was given in its place.

use crate::host::mock::{Exchange, Fields};

/// An answer that a filter gave, or the proxy to a body over the bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The status, 200 to 599.
    pub status: u16,
    /// The fields, names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body; the proxy adds its length.
    pub body: Vec<u8>,
}

impl Answered {
    /// The first value of a field, as text.
    pub fn field(&self, name: &str) -> Option<String> {
        find(&self.fields, name)
    }

    /// The body, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A request as it goes on to the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The method, in upper case as a rule.
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Host and port.
    pub authority: String,
    /// The path in normal form.
    pub path: String,
    /// What stands behind the question mark.
    pub query: Option<String>,
    /// The fields, names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body, put together.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Option<Vec<(String, Vec<u8>)>>,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The answer in place of the upstream's response, if there is one.
    pub answer: Option<Answered>,
    /// The request as the filter left it. With an answer, nothing of it goes on.
    pub request: Sent,
    /// How long the filter let the request wait in all, in milliseconds. The harness does not wait and its clocks stand still.
    pub delay_ms: u32,
    pub(super) id: u64,
    pub(super) exchange: Exchange,
}

impl Outcome {
    pub(super) fn new(
        id: u64,
        mut exchange: Exchange,
        body: Vec<u8>,
        trailers: Option<Fields>,
    ) -> Self {
        Outcome {
            answer: answered(exchange.answer.take()),
            request: Sent {
                method: exchange.method.clone(),
                scheme: exchange.scheme.clone(),
                authority: exchange.authority.clone(),
                path: exchange.path.clone(),
                query: exchange.query.clone(),
                fields: exchange.request.clone(),
                body,
                trailers,
            },
            delay_ms: exchange.delayed,
            id,
            exchange,
        }
    }

    /// The first value of a field of the request as it goes on, as text.
    pub fn field(&self, name: &str) -> Option<String> {
        find(&self.request.fields, name)
    }

    /// A property, as the filter left it for those behind.
    pub fn property(&self, name: &str) -> Option<&[u8]> {
        let mut properties = self.exchange.properties.iter();
        properties
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_slice())
    }

    /// The trailers as they go on.
    pub fn trailers(&self) -> Option<&[(String, Vec<u8>)]> {
        self.request.trailers.as_deref()
    }
}

/// A response as it goes on to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Responded {
    /// The status.
    pub status: u16,
    /// The fields, names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body, put together.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Option<Vec<(String, Vec<u8>)>>,
}

impl Responded {
    pub(super) fn new(exchange: &Exchange, body: Vec<u8>, trailers: Option<Fields>) -> Self {
        match answered(exchange.answer.clone()) {
            Some(Answered {
                status,
                fields,
                body,
            }) => Responded {
                status,
                fields,
                body,
                trailers: None,
            },
            None => Responded {
                status: exchange.status,
                fields: exchange.response.clone().unwrap_or_default(),
                body,
                trailers,
            },
        }
    }

    /// The first value of a field, as text.
    pub fn field(&self, name: &str) -> Option<String> {
        find(&self.fields, name)
    }
}

fn answered(answer: Option<(u16, Fields, Vec<u8>)>) -> Option<Answered> {
    let (status, fields, body) = answer?;
    Some(Answered {
        status,
        fields,
        body,
    })
}

fn find(fields: &[(String, Vec<u8>)], name: &str) -> Option<String> {
    let (_, value) = fields
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

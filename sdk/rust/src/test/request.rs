//! What goes into a harness and what comes out of it.

use crate::host::mock::{Exchange, Fields};

/// A request for a filter.
#[derive(Clone, Debug)]
pub struct Request {
    pub(crate) exchange: Exchange,
    pub(crate) pieces: Vec<Vec<u8>>,
    pub(crate) trailers: Option<Fields>,
}

impl Request {
    /// A GET of a path, perhaps with a query, from 192.0.2.1 to `test.example`.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST with a body in one piece.
    pub fn post(target: &str, body: &[u8]) -> Self {
        Self::new("POST", target).body_chunks([body])
    }

    /// A request of any method.
    pub fn new(method: &str, target: &str) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let exchange = Exchange {
            method: method.to_owned(),
            scheme: "http".to_owned(),
            authority: "test.example".to_owned(),
            path: path.to_owned(),
            query,
            client: "192.0.2.1".to_owned(),
            route: "test".to_owned(),
            ..Exchange::default()
        };
        Request {
            exchange,
            pieces: Vec::new(),
            trailers: None,
        }
    }

    /// Adds a field.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.exchange
            .request
            .push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// Sets the body, piece by piece.
    #[must_use]
    pub fn body_chunks<P: AsRef<[u8]>>(mut self, pieces: impl IntoIterator<Item = P>) -> Self {
        self.pieces = pieces
            .into_iter()
            .map(|piece| piece.as_ref().to_vec())
            .collect();
        self
    }

    /// Adds a trailer.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        let trailers = self.trailers.get_or_insert_default();
        trailers.push((name.to_ascii_lowercase(), value.as_bytes().to_vec()));
        self
    }

    /// Sets the client's address.
    #[must_use]
    pub fn client(mut self, address: &str) -> Self {
        address.clone_into(&mut self.exchange.client);
        self
    }

    /// Sets the authority.
    #[must_use]
    pub fn authority(mut self, authority: &str) -> Self {
        authority.clone_into(&mut self.exchange.authority);
        self
    }

    /// Sets the route's name.
    #[must_use]
    pub fn route(mut self, name: &str) -> Self {
        name.clone_into(&mut self.exchange.route);
        self
    }

    /// Sets what the route's path found.
    #[must_use]
    pub fn param(mut self, name: &str, value: &str) -> Self {
        self.exchange
            .parameters
            .push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets a property, as an earlier filter would.
    #[must_use]
    pub fn property(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.exchange
            .properties
            .insert(name.to_owned(), value.as_ref().to_vec());
        self
    }
}

/// An answer that a filter gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// The fields, names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answered {
    /// The first value of a field, as text.
    pub fn field(&self, name: &str) -> Option<String> {
        find(&self.fields, name)
    }
}

/// A request as it goes on to the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The query.
    pub query: Option<String>,
    /// Host and port.
    pub authority: String,
    /// The fields, names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The filter's answer, if it gave one (or the host's, to a body over the limit).
    pub answer: Option<Answered>,
    /// The request as the filter left it.
    pub request: Sent,
    pub(crate) id: u64,
    pub(crate) exchange: Exchange,
}

impl Outcome {
    pub(crate) fn new(id: u64, exchange: Exchange, body: Vec<u8>) -> Self {
        Outcome {
            answer: answered(&exchange),
            request: Sent {
                method: exchange.method.clone(),
                path: exchange.path.clone(),
                query: exchange.query.clone(),
                authority: exchange.authority.clone(),
                fields: exchange.request.clone(),
                body,
            },
            id,
            exchange,
        }
    }

    /// The first value of a field of the request as it goes on, as text.
    pub fn field(&self, name: &str) -> Option<String> {
        find(&self.request.fields, name)
    }

    /// A property that the filter left.
    pub fn property(&self, name: &str) -> Option<&[u8]> {
        self.exchange.properties.get(name).map(Vec::as_slice)
    }

    /// The trailers as they go on.
    pub fn trailers(&self) -> Option<&[(String, Vec<u8>)]> {
        self.exchange.request_trailers.as_deref()
    }
}

/// A response as it goes on to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Responded {
    /// The status.
    pub status: u16,
    /// The fields, names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Responded {
    pub(crate) fn new(exchange: Exchange, body: Vec<u8>) -> Self {
        match answered(&exchange) {
            Some(Answered {
                status,
                fields,
                body,
            }) => Responded {
                status,
                fields,
                body,
            },
            None => Responded {
                status: exchange.status,
                fields: exchange.response.unwrap_or_default(),
                body,
            },
        }
    }

    /// The first value of a field, as text.
    pub fn field(&self, name: &str) -> Option<String> {
        find(&self.fields, name)
    }
}

fn answered(exchange: &Exchange) -> Option<Answered> {
    let (status, fields, body) = exchange.answer.clone()?;
    Some(Answered {
        status,
        fields,
        body,
    })
}

fn find(fields: &[(String, Vec<u8>)], name: &str) -> Option<String> {
    let (_, value) = fields.iter().find(|(known, _)| known == name)?;
    Some(String::from_utf8_lossy(value).into_owned())
}

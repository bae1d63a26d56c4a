//! What goes into a harness: requests and responses, as a client or an upstream would send them.

use crate::host::mock::{Exchange, Fields};
use crate::views::{CertificateFacts, TlsFacts};

/// A request for a filter.
///
/// ```
/// use tidegate_sdk::test::Request;
///
/// let request = Request::post("/u/7?x=1", b"hello")
///     .field("content-type", "text/plain")
///     .client("2001:db8::7")
///     .route("users")
///     .param("id", "7")
///     .property("consumer", "ada");
/// # let _ = request;
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request goes into `Harness::request`"]
pub struct Request {
    pub(super) exchange: Exchange,
    pub(super) pieces: Vec<Vec<u8>>,
    pub(super) trailers: Option<Fields>,
}

impl Request {
    /// A GET of a path, perhaps with a query, from 192.0.2.1 to `test.example` by the route `test`.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST with a body in one piece.
    pub fn post(target: &str, body: &[u8]) -> Self {
        Self::new("POST", target).body_chunks([body])
    }

    /// A request of any method. The path is taken as it stands: the proxy would have brought it into normal form.
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
            port: 40_000,
            protocol: "HTTP/1.1".to_owned(),
            route: "test".to_owned(),
            request_id: "0123456789abcdef".to_owned(),
            ..Exchange::default()
        };
        Request {
            exchange,
            pieces: Vec::new(),
            trailers: None,
        }
    }

    /// Adds a field behind those that are there.
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        add(&mut self.exchange.request, name, value.as_ref());
        self
    }

    /// Sets the body, piece by piece, as the pieces would come over time.
    pub fn body_chunks<P: AsRef<[u8]>>(mut self, pieces: impl IntoIterator<Item = P>) -> Self {
        self.pieces = self::pieces(pieces);
        self
    }

    /// Adds a trailer, behind the body.
    pub fn trailer(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        add(self.trailers.get_or_insert_default(), name, value.as_ref());
        self
    }

    /// Sets the client's address, as the filter sees it.
    pub fn client(mut self, address: &str) -> Self {
        address.clone_into(&mut self.exchange.client);
        self
    }

    /// Sets host and port.
    pub fn authority(mut self, authority: &str) -> Self {
        authority.clone_into(&mut self.exchange.authority);
        self
    }

    /// Sets the protocol, such as `HTTP/2`.
    pub fn protocol(mut self, protocol: &str) -> Self {
        protocol.clone_into(&mut self.exchange.protocol);
        self
    }

    /// Lets the client have come by TLS, which makes the scheme `https`.
    pub fn tls(mut self, facts: TlsFacts) -> Self {
        self.exchange.tls = Some(facts);
        "https".clone_into(&mut self.exchange.scheme);
        self
    }

    /// Lets the client have shown a certificate, which the proxy has verified. Without [`Request::tls`], the connection is one
    /// of TLS 1.3.
    pub fn client_certificate(mut self, facts: CertificateFacts) -> Self {
        self.exchange.certificate = Some(facts);
        if self.exchange.tls.is_some() {
            return self;
        }
        self.tls(TlsFacts {
            version: "TLSv1.3".to_owned(),
            cipher: "TLS_AES_128_GCM_SHA256".to_owned(),
            server_name: None,
            alpn: None,
        })
    }

    /// Sets the route's name.
    pub fn route(mut self, name: &str) -> Self {
        name.clone_into(&mut self.exchange.route);
        self
    }

    /// Sets what a `{name}` of the route's path stands for.
    pub fn param(mut self, name: &str, value: &str) -> Self {
        self.exchange
            .parameters
            .push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the request's id.
    pub fn request_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.exchange.request_id);
        self
    }

    /// Leaves a property, as an earlier filter would.
    pub fn property(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.exchange
            .properties
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }
}

/// A response for a filter.
///
/// ```
/// use tidegate_sdk::test::Response;
///
/// let response = Response::new(200).field("content-type", "text/plain").body_chunks(["a", "b"]).trailer("x-sum", "2");
/// # let _ = response;
/// ```
#[derive(Clone, Debug)]
#[must_use = "a response goes into `Harness::respond`"]
pub struct Response {
    pub(super) status: u16,
    pub(super) fields: Fields,
    pub(super) pieces: Vec<Vec<u8>>,
    pub(super) trailers: Option<Fields>,
}

impl Response {
    /// A response of that status without fields and body.
    pub fn new(status: u16) -> Self {
        Response {
            status,
            fields: Vec::new(),
            pieces: Vec::new(),
            trailers: None,
        }
    }

    /// Adds a field behind those that are there.
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        add(&mut self.fields, name, value.as_ref());
        self
    }

    /// Sets the body, in one piece; an empty one is none.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.pieces = pieces([body]);
        self.pieces.retain(|piece| !piece.is_empty());
        self
    }

    /// Sets the body, piece by piece.
    pub fn body_chunks<P: AsRef<[u8]>>(mut self, pieces: impl IntoIterator<Item = P>) -> Self {
        self.pieces = self::pieces(pieces);
        self
    }

    /// Adds a trailer, behind the body.
    pub fn trailer(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        add(self.trailers.get_or_insert_default(), name, value.as_ref());
        self
    }
}

/// Fields of one name stand together, in their order.
fn add(fields: &mut Fields, name: &str, value: &[u8]) {
    let name = name.to_ascii_lowercase();
    let last = fields.iter().rposition(|(known, _)| *known == name);
    let at = last.map_or(fields.len(), |last| last + 1);
    fields.insert(at, (name, value.to_vec()));
}

fn pieces<P: AsRef<[u8]>>(pieces: impl IntoIterator<Item = P>) -> Vec<Vec<u8>> {
    pieces
        .into_iter()
        .map(|piece| piece.as_ref().to_vec())
        .collect()
}

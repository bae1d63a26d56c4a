//! Clients: one connection each, of the protocol that the test wants. They add nothing to a request but the
//! Host that every request has, and hide nothing of the answer.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Channel, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::upstream::Echo;
use crate::wait::within;

/// What goes wrong with a body that a test sends.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body that a test sends.
pub type Body = BoxBody<Bytes, BodyError>;

/// The sending end of a body that is written as the test goes on.
pub type BodySender = http_body_util::channel::Sender<Bytes, BodyError>;

/// The name that requests go to unless they say otherwise.
pub const HOST: &str = "localhost";

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A body with a length.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

/// A body without a length, which ends when its sender is dropped.
pub fn streamed() -> (BodySender, Body) {
    let (sender, body) = Channel::<Bytes, BodyError>::new(1);
    (sender, body.boxed())
}

/// A body without a length: these pieces, then these trailers if there are any.
pub fn pieces(pieces: &[&str], trailers: &[(&'static str, &'static str)]) -> Body {
    let mut frames: Vec<Result<Frame<Bytes>, BodyError>> = pieces
        .iter()
        .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece.as_bytes()))))
        .collect();
    if !trailers.is_empty() {
        let fields = trailers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        frames.push(Ok(Frame::trailers(fields.collect())));
    }
    http_body_util::StreamBody::new(futures_util::stream::iter(frames)).boxed()
}

/// The beginning of a request; its target is a path with a query.
pub fn request(method: Method, target: &str) -> http::request::Builder {
    Request::builder().method(method).uri(target)
}

/// A GET without further ado.
pub fn get(target: &str) -> Request<Body> {
    request(Method::GET, target).body(empty()).unwrap()
}

/// A GET with fields.
pub fn get_with(target: &str, fields: &[(&str, &str)]) -> Request<Body> {
    with(get(target), fields)
}

/// A POST of bytes that are all here.
pub fn post(target: &str, body: impl Into<Bytes>) -> Request<Body> {
    request(Method::POST, target).body(full(body)).unwrap()
}

/// The same request with fields added.
pub fn with(mut request: Request<Body>, fields: &[(&str, &str)]) -> Request<Body> {
    for (name, value) in fields {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request
}

/// An answer that has come whole.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub version: Version,
    pub fields: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Reply {
    /// Collects an answer.
    ///
    /// # Errors
    /// If its body breaks off.
    pub async fn collect(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        let (head, body) = response.into_parts();
        let body = within("the end of a body", body.collect()).await?;
        Ok(Reply {
            status: head.status,
            version: head.version,
            fields: head.headers,
            trailers: body.trailers().cloned(),
            body: body.to_bytes(),
        })
    }

    /// The first value of a field, as text.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().unwrap())
    }

    /// All values of a field, as text.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let values = self.fields.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON: {error}: {self:?}"))
    }

    /// What the echoing upstream says that it saw.
    ///
    /// # Panics
    /// If the answer is not from there.
    pub fn echo(&self) -> Echo {
        assert_eq!(
            self.status,
            StatusCode::OK,
            "not from the upstream: {self:?}"
        );
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not from the upstream: {error}: {self:?}"))
    }
}

/// One connection.
#[derive(Debug)]
pub enum Client {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    /// HTTP/1.1 in the clear.
    pub async fn http1(address: SocketAddr) -> Self {
        Self::http1_over(connect(address).await).await
    }

    /// HTTP/2 in the clear, with prior knowledge.
    pub async fn http2(address: SocketAddr) -> Self {
        Self::http2_over(connect(address).await).await
    }

    /// TLS, and the protocol that is negotiated there.
    ///
    /// # Errors
    /// If the handshake fails.
    pub async fn tls(
        address: SocketAddr,
        name: &str,
        config: rustls::ClientConfig,
    ) -> std::io::Result<Self> {
        let stream = Tls::connect(address, name, config).await?;
        Ok(if stream.0.get_ref().1.alpn_protocol() == Some(b"h2") {
            Self::http2_over(stream.0).await
        } else {
            Self::http1_over(stream.0).await
        })
    }

    /// HTTP/1.1 over whatever carries bytes.
    pub async fn http1_over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = within("a handshake", http1::handshake(TokioIo::new(io)))
            .await
            .unwrap();
        tokio::spawn(async move {
            // How a connection ends is seen by whoever waits for an answer on it.
            let _seen_by_the_sender = connection.with_upgrades().await;
        });
        Client::Http1(sender)
    }

    /// HTTP/2 over whatever carries bytes.
    pub async fn http2_over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(io));
        let (sender, connection) = within("a handshake", handshake).await.unwrap();
        tokio::spawn(async move {
            let _seen_by_the_sender = connection.await;
        });
        Client::Http2(sender)
    }

    /// Sends a request and waits for the answer's head.
    ///
    /// # Errors
    /// If the connection or the stream breaks before.
    pub async fn start(
        &mut self,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        match self {
            Client::Http1(sender) => {
                if !request.headers().contains_key("host") {
                    let host = HOST.parse().unwrap();
                    request.headers_mut().insert("host", host);
                }
                within("a connection to be free", sender.ready()).await?;
                within("an answer", sender.send_request(request)).await
            }
            Client::Http2(sender) => {
                let host = request.headers_mut().remove("host");
                if request.uri().authority().is_none() {
                    let host = host.as_ref().map_or(HOST, |host| host.to_str().unwrap());
                    let uri = format!("http://{host}{}", request.uri());
                    *request.uri_mut() = uri.parse::<Uri>().unwrap();
                }
                within("a connection to be free", sender.ready()).await?;
                within("an answer", sender.send_request(request)).await
            }
        }
    }

    /// Sends a request and waits for the whole answer.
    ///
    /// # Errors
    /// If anything breaks before its end.
    pub async fn try_send(&mut self, request: Request<Body>) -> Result<Reply, hyper::Error> {
        let response = self.start(request).await?;
        Reply::collect(response).await
    }

    /// Sends a request and waits for the whole answer.
    ///
    /// # Panics
    /// If anything breaks before its end.
    pub async fn send(&mut self, request: Request<Body>) -> Reply {
        let what = format!("{} {}", request.method(), request.uri());
        self.try_send(request)
            .await
            .unwrap_or_else(|error| panic!("{what}: no whole answer: {error:?}"))
    }

    /// Waits until the other side has closed the connection.
    pub async fn closed(&mut self) {
        crate::wait::until("the connection's end", async || match self {
            Client::Http1(sender) => sender.is_closed(),
            Client::Http2(sender) => sender.is_closed(),
        })
        .await;
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = within("a connection", TcpStream::connect(address))
        .await
        .unwrap_or_else(|error| panic!("no connection to {address}: {error}"));
    stream.set_nodelay(true).unwrap();
    stream
}

/// A TLS connection, for tests that look at the handshake.
#[derive(Debug)]
pub struct Tls(pub tokio_rustls::client::TlsStream<TcpStream>);

impl Tls {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// If the handshake fails.
    pub async fn connect(
        address: SocketAddr,
        name: &str,
        config: rustls::ClientConfig,
    ) -> std::io::Result<Self> {
        Self::connect_behind(address, b"", name, config).await
    }

    /// As [`connect`](Self::connect), with something in the clear before the handshake.
    ///
    /// # Errors
    /// If the handshake fails.
    pub async fn connect_behind(
        address: SocketAddr,
        ahead: &[u8],
        name: &str,
        config: rustls::ClientConfig,
    ) -> std::io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connect(address).await;
        stream.write_all(ahead).await?;
        let handshake = connector.connect(name, stream);
        within("a TLS handshake", handshake).await.map(Tls)
    }

    /// The server's certificate, in DER.
    pub fn certificate(&self) -> Vec<u8> {
        let (_, connection) = self.0.get_ref();
        connection.peer_certificates().unwrap()[0].to_vec()
    }

    /// What was negotiated by ALPN.
    pub fn protocol(&self) -> Option<String> {
        let (_, connection) = self.0.get_ref();
        connection
            .alpn_protocol()
            .map(|name| String::from_utf8_lossy(name).into_owned())
    }
}

/// A body that yields the same piece until so many bytes have gone, and counts nothing in memory.
#[derive(Debug)]
pub struct Flood {
    left: u64,
    piece: Bytes,
}

impl Flood {
    /// A body of `length` bytes, all of them `byte`.
    pub fn body(byte: u8, length: u64) -> Body {
        let piece = Bytes::from(vec![byte; 16 * 1024]);
        Flood {
            left: length,
            piece,
        }
        .boxed()
    }
}

impl http_body::Body for Flood {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let size = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(self.piece.len());
        self.left -= size as u64;
        Poll::Ready(Some(Ok(Frame::data(self.piece.slice(..size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }
}

//! Upstreams: one that answers with what it was asked, one that a test's closure answers for, and one that
//! speaks bytes. All count what reaches them.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use crate::certs::Identity;
use crate::client::{Body, full};
use crate::wire::Wire;

/// A request as an upstream saw it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Echo {
    pub method: String,
    /// As it stood in the request line; over HTTP/2 the path with its query.
    pub target: String,
    pub version: String,
    /// In lower case and in their order; over HTTP/2 with the authority as `:authority`.
    pub fields: Vec<(String, String)>,
    pub body: String,
    pub trailers: Vec<(String, String)>,
    /// Whether the body ended as it should.
    pub whole: bool,
}

impl Echo {
    /// All values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }

    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// The first value of a trailer.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        values(&self.trailers, name).first().copied()
    }

    /// Where the request was for, whatever the protocol.
    pub fn host(&self) -> Option<&str> {
        self.field("host").or_else(|| self.field(":authority"))
    }
}

fn values<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    fields
        .iter()
        .filter(|(found, _)| found == name)
        .map(|(_, value)| value.as_str())
        .collect()
}

/// A server that runs as long as this value lives.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    secure: bool,
    seen: Arc<Mutex<Vec<Echo>>>,
    connections: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// Answers every request with what it was, as JSON; speaks HTTP/1.1 and HTTP/2 in the clear.
    pub async fn echo() -> Self {
        Self::start(None, |seen| std::future::ready(answer(&seen))).await
    }

    /// The same over TLS, with the protocol negotiated.
    pub async fn echo_tls(identity: &Identity) -> Self {
        let acceptor = TlsAcceptor::from(identity.server(&["h2", "http/1.1"]));
        Self::start(Some(acceptor), |seen| std::future::ready(answer(&seen))).await
    }

    /// Answers every request, read whole, as the closure says.
    pub async fn serve<F, A>(handler: F) -> Self
    where
        F: Fn(Echo) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::start(None, handler).await
    }

    /// Answers every request, of which only the head was read, as the closure says.
    pub async fn stream<F, A>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let handler = Arc::new(handler);
        Self::listen(None, seen, move |request: Request<Incoming>| {
            log.lock().unwrap().push(head_of(&request));
            let handler = Arc::clone(&handler);
            async move { handler(request).await }
        })
        .await
    }

    async fn start<F, A>(acceptor: Option<TlsAcceptor>, handler: F) -> Self
    where
        F: Fn(Echo) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let handler = Arc::new(handler);
        Self::listen(acceptor, seen, move |request| {
            let log = Arc::clone(&log);
            let handler = Arc::clone(&handler);
            async move {
                let echo = read(request).await;
                log.lock().unwrap().push(echo.clone());
                handler(echo).await
            }
        })
        .await
    }

    async fn listen<F, A>(
        acceptor: Option<TlsAcceptor>,
        seen: Arc<Mutex<Vec<Echo>>>,
        handler: F,
    ) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let secure = acceptor.is_some();
        let handler = Arc::new(handler);
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                count.fetch_add(1, Ordering::SeqCst);
                stream.set_nodelay(true).unwrap();
                let handler = Arc::clone(&handler);
                match acceptor.clone() {
                    None => drop(tokio::spawn(serve_connection(stream, handler))),
                    Some(acceptor) => drop(tokio::spawn(async move {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            serve_connection(stream, handler).await;
                        }
                    })),
                }
            }
        })
        .abort_handle();
        Upstream {
            address,
            secure,
            seen,
            connections,
            task,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As an endpoint of HTTP/1.1, over TLS if it was started so.
    pub fn url(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// As an endpoint of HTTP/2 in the clear.
    pub fn h2c(&self) -> String {
        format!("h2c://{}", self.address)
    }

    /// Every request that came, in order.
    pub fn seen(&self) -> Vec<Echo> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Forgets the requests that came.
    pub fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    /// How many connections came.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve_connection<IO, F, A>(io: IO, handler: Arc<F>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // What is too much is for the proxy to say.
    builder.http1().max_headers(1000);
    // A broken connection is what some tests are about.
    let _seen_by_the_proxy = builder
        .serve_connection_with_upgrades(TokioIo::new(io), service)
        .await;
}

/// What is known of a request before its body.
fn head_of<B>(request: &Request<B>) -> Echo {
    let mut fields = list(request.headers());
    if let Some(authority) = request.uri().authority() {
        fields.insert(0, (":authority".to_owned(), authority.to_string()));
    }
    Echo {
        method: request.method().to_string(),
        target: request
            .uri()
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        version: format!("{:?}", request.version()),
        fields,
        body: String::new(),
        trailers: Vec::new(),
        whole: false,
    }
}

async fn read(request: Request<Incoming>) -> Echo {
    let mut echo = head_of(&request);
    if let Ok(body) = request.into_body().collect().await {
        echo.whole = true;
        echo.trailers = body.trailers().map(list).unwrap_or_default();
        echo.body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    }
    echo
}

fn list(fields: &HeaderMap) -> Vec<(String, String)> {
    fields
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.to_string(), value)
        })
        .collect()
}

fn answer(seen: &Echo) -> Response<Body> {
    let body = serde_json::to_vec(seen).unwrap();
    Response::builder()
        .header("content-type", "application/json")
        .header("x-upstream", "echo")
        .body(full(Bytes::from(body)))
        .unwrap()
}

/// A server that speaks bytes: each connection is handed to a closure, with its number from 0 on.
#[derive(Debug)]
pub struct Scripted {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    /// Runs the closure for each connection. An error in it only ends that connection.
    pub async fn start<F, A>(script: F) -> Self
    where
        F: Fn(usize, Wire) -> A + Send + Sync + 'static,
        A: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(script(number, Wire::over(stream)));
                }
            }
        })
        .abort_handle();
        Scripted {
            address,
            connections,
            task,
        }
    }

    /// Answers each request on each connection with the same bytes.
    pub async fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Arc<Vec<u8>> = Arc::new(bytes.into());
        Self::start(move |_, mut wire| {
            let bytes = Arc::clone(&bytes);
            async move {
                loop {
                    wire.try_read_message().await?;
                    wire.try_send(&*bytes).await?;
                }
            }
        })
        .await
    }

    /// Answers the first request of each connection with these bytes and closes it.
    pub async fn answering_once(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Arc<Vec<u8>> = Arc::new(bytes.into());
        Self::start(move |_, mut wire| {
            let bytes = Arc::clone(&bytes);
            async move {
                wire.try_read_message().await?;
                wire.try_send(&*bytes).await?;
                wire.finish().await;
                // Whoever closes first with unread bytes resets; wait for the other side.
                wire.read_to_end().await;
                Ok(())
            }
        })
        .await
    }

    /// As an endpoint.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections came.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// An address where nobody listens, and nobody can begin to while this value lives.
#[derive(Debug)]
pub struct DeadEnd {
    socket: TcpSocket,
}

impl DeadEnd {
    /// Takes a port and does not listen on it.
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        DeadEnd { socket }
    }

    /// As an endpoint.
    pub fn url(&self) -> String {
        format!("http://{}", self.socket.local_addr().unwrap())
    }
}

impl Default for DeadEnd {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Client, pieces, post, request};

    #[tokio::test]
    async fn the_echo_tells_what_it_was_asked() {
        let upstream = Upstream::echo().await;
        for mut client in [
            Client::http1(upstream.address()).await,
            Client::http2(upstream.address()).await,
        ] {
            let seen = client.send(post("/x?y", "body")).await.echo();
            assert_eq!(seen.target, "/x?y");
            assert_eq!(seen.body, "body");
            assert_eq!(seen.host(), Some("localhost"));
            let sent = request(http::Method::POST, "/")
                .header("trailer", "x-sum")
                .body(pieces(&["a", "b"], &[("x-sum", "1")]))
                .unwrap();
            let seen = client.send(sent).await.echo();
            assert_eq!(
                (seen.body.as_str(), seen.trailer("x-sum")),
                ("ab", Some("1"))
            );
        }
        assert_eq!((upstream.requests(), upstream.connections()), (4, 2));
    }

    #[tokio::test]
    async fn a_script_speaks_bytes() {
        let script = Scripted::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let mut wire = Wire::connect(script.address).await;
        for _ in 0..2 {
            wire.send("GET / HTTP/1.1\r\n\r\n").await;
            assert_eq!(wire.read_message().await.text(), "ok");
        }
    }

    #[tokio::test]
    async fn nobody_listens_at_a_dead_end() {
        let nobody = DeadEnd::new();
        let address: SocketAddr = nobody.url()[7..].parse().unwrap();
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    }
}

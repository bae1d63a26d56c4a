//! The client against scripted upstreams: plain sockets that say exactly what a test wants them to say.

mod bounds;
mod early;
mod frames;
mod http1;
mod http2;
mod invalid;
mod names;
mod reload;
mod stale;
mod tls;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use tidegate_core::body::{Body, BodyError};
use tidegate_core::metrics::Registry;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{Client, Names, SendError, Sent, Upstream, UpstreamConfig};

/// A bound that a test is meant to reach.
const SHORT: Duration = Duration::from_millis(30);

/// Runs a test as a worker runs requests.
fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap()
        .block_on(async {
            let bound = Duration::from_secs(20);
            tokio::time::timeout(bound, test)
                .await
                .expect("the test hangs")
        })
}

/// A client with the figures that it counts.
struct Tester {
    client: Client,
    registry: Arc<Registry>,
    upstream: Arc<Upstream>,
}

impl Tester {
    /// A tester of an upstream with these endpoints, its bounds changed by `change`.
    fn new(endpoints: &[String], change: impl FnOnce(&mut UpstreamConfig)) -> Self {
        Tester::named(endpoints, &Names::default(), change)
    }

    /// The same with names that somebody keeps.
    fn named(
        endpoints: &[String],
        names: &Names,
        change: impl FnOnce(&mut UpstreamConfig),
    ) -> Self {
        let endpoints = endpoints.iter().map(|text| text.parse().unwrap()).collect();
        let mut config = UpstreamConfig::new("main", endpoints);
        change(&mut config);
        let registry = Arc::new(Registry::new());
        Tester {
            client: Client::new(registry.clone(), 0),
            registry,
            upstream: Upstream::new(config, names).unwrap(),
        }
    }

    async fn send(&self, method: Method, body: Body) -> Result<Sent, SendError> {
        let request = Request::builder()
            .method(method)
            .uri("/path?query")
            .header("host", "front.test")
            .body(body)
            .unwrap();
        self.client.send(&self.upstream, request, None).await
    }

    async fn get(&self) -> Result<Sent, SendError> {
        self.send(Method::GET, Body::Empty).await
    }

    /// A `GET` whose answer is read to its end.
    async fn get_text(&self) -> String {
        text(self.get().await.unwrap()).await.unwrap()
    }

    /// Whether a figure stands at a value.
    fn counted(&self, line: &str) -> bool {
        self.registry.encode().lines().any(|held| held == line)
    }
}

async fn text(sent: Sent) -> Result<String, BodyError> {
    let bytes = sent.response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

/// A listener and what it is called.
async fn listen(scheme: &str) -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("{scheme}://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// An address where nobody listens.
async fn nobody(scheme: &str) -> String {
    listen(scheme).await.1
}

async fn accept(listener: &TcpListener) -> TcpStream {
    listener.accept().await.unwrap().0
}

/// A request's head as it stands on the wire.
async fn head<T: AsyncRead + Unpin>(socket: &mut T) -> String {
    try_head(socket).await.unwrap()
}

/// The same from a client that may have left.
async fn try_head<T: AsyncRead + Unpin>(socket: &mut T) -> std::io::Result<String> {
    let mut held = Vec::new();
    while !held.ends_with(b"\r\n\r\n") {
        held.push(socket.read_u8().await?);
    }
    Ok(String::from_utf8(held).unwrap())
}

async fn say(socket: &mut TcpStream, words: &str) {
    socket.write_all(words.as_bytes()).await.unwrap();
}

/// A whole response with a length.
fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Waits until the other side has closed, and says what it sent before.
async fn closed(socket: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = socket.read_to_end(&mut rest).await;
    rest
}

/// A body that sends some bytes and then waits for ever, or ends with an error.
struct Script(Vec<Result<Bytes, BodyError>>);

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        if self.0.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(Some(self.0.remove(0).map(http_body::Frame::data)))
    }
}

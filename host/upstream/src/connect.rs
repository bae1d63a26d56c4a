//! New connections: name, socket, TLS, protocol. Keeps none, and bounds nothing in time; the caller does.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper::rt::{Executor, Read, Write};
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_core::body::Body;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::endpoint::{Endpoint, Scheme};
use crate::error::{Failure, SendErrorKind, chain};
use crate::pool::Http1;
use crate::tls;
use crate::upstream::Target;

/// The most that is buffered of one connection's input, a response's head included.
const MAX_BUFFER: usize = 128 * 1024;
/// What an HTTP/2 upstream may send of one response before it is read.
const STREAM_WINDOW: u32 = 256 * 1024;
/// What it may send of all of them.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// After how long a silent HTTP/2 connection is asked whether it lives, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);

/// A new connection.
#[derive(Debug)]
pub(crate) enum Channel {
    /// For one request at a time.
    Http1(Http1),
    /// For many.
    Http2(http2::SendRequest<Body>),
}

/// Connects to an endpoint. `http1` keeps HTTP/2 out of what TLS offers.
pub(crate) async fn open(target: &Target, http1: bool) -> Result<Channel, Failure> {
    let socket = dial(target.endpoint()).await?;
    let Some(tls) = &target.tls else {
        let io = TokioIo::new(socket);
        return match target.endpoint().scheme() {
            Scheme::H2c => start_http2(io).await,
            Scheme::Http | Scheme::Https => start_http1(io).await,
        };
    };
    let config = if http1 { &tls.http1 } else { &tls.any };
    let stream = TlsConnector::from(config.clone())
        .connect(tls.server_name.clone(), socket)
        .await
        .map_err(|error| Failure::new(SendErrorKind::Tls, chain(&error)))?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(tls::H2);
    let io = TokioIo::new(stream);
    if is_http2 {
        start_http2(io).await
    } else {
        start_http1(io).await
    }
}

/// Tries a name's addresses one after the other.
async fn dial(endpoint: &Endpoint) -> Result<TcpStream, Failure> {
    let port = endpoint.port();
    let connected = match endpoint.address() {
        Some(address) => TcpStream::connect(SocketAddr::new(address, port)).await,
        None => {
            let addresses = tokio::net::lookup_host((endpoint.host(), port))
                .await
                .map_err(|error| Failure::new(SendErrorKind::Dns, error))?;
            let mut last = None;
            for address in addresses {
                match TcpStream::connect(address).await {
                    Ok(socket) => {
                        last = Some(Ok(socket));
                        break;
                    }
                    Err(error) => last = Some(Err(error)),
                }
            }
            last.ok_or_else(|| Failure::new(SendErrorKind::Dns, "the name has no addresses"))?
        }
    };
    let no_delay = |socket: TcpStream| -> io::Result<TcpStream> {
        socket.set_nodelay(true)?;
        Ok(socket)
    };
    connected
        .and_then(no_delay)
        .map_err(|error| Failure::new(SendErrorKind::Connect, error))
}

async fn start_http1<T>(io: T) -> Result<Channel, Failure>
where
    T: Read + Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_BUFFER)
        .handshake::<_, Body>(io)
        .await
        .map_err(|error| Failure::new(SendErrorKind::Connect, chain(&error)))?;
    let driver = tokio::task::spawn_local(async move {
        // Whoever waits for the response is told as well.
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(error = %chain(&error), "a connection to an upstream broke");
        }
    });
    Ok(Channel::Http1(Http1 {
        sender,
        driver: driver.abort_handle(),
    }))
}

async fn start_http2<T>(io: T) -> Result<Channel, Failure>
where
    T: Read + Write + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(OnThisWorker)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .handshake::<_, Body>(io)
        .await
        .map_err(|error| Failure::new(SendErrorKind::Connect, chain(&error)))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %chain(&error), "a connection to an upstream broke");
        }
    });
    Ok(Channel::Http2(sender))
}

/// Runs hyper's own tasks on the worker that they belong to.
#[derive(Clone, Copy, Debug)]
struct OnThisWorker;

impl<F> Executor<F> for OnThisWorker
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

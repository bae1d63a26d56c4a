//! New connections: address, socket, TLS, protocol. Keeps none and decides nothing about a second attempt.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::endpoint::Scheme;
use crate::error::{Failure, SendErrorKind, chain};
use crate::http1::{Http1, Io};
use crate::http2::Http2;
use crate::metrics::{Figures, OpenConnection};
use crate::names::Origin;
use crate::pool::Age;
use crate::tls;
use crate::upstream::Target;

/// After how long the system asks a silent peer whether it lives, how often it asks, and how many times.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// A new connection.
#[derive(Debug)]
pub(crate) enum Channel {
    /// For one request at a time.
    Http1(Box<Http1>),
    /// For many.
    Http2(Rc<Http2>),
}

/// Connects to an endpoint before `until`. `http1` keeps HTTP/2 out of what TLS offers.
pub(crate) async fn open(
    target: &Target,
    http1: bool,
    figures: &Figures,
    until: Instant,
) -> Result<Channel, Failure> {
    let (socket, origin) = dial(target, until).await?;
    let open = figures.opened();
    let Some(tls) = &target.tls else {
        return if target.endpoint().scheme() == Scheme::H2c {
            shared(socket, target, open, Age::new(origin)).await
        } else {
            let io = Io::Plain(socket);
            Ok(Channel::Http1(Box::new(Http1::new(
                io,
                open,
                Age::new(origin),
            ))))
        };
    };
    let config = if http1 { &tls.http1 } else { &tls.any };
    let stream = TlsConnector::from(config.clone())
        .connect(tls.server_name.clone(), socket)
        .await
        .map_err(|error| Failure::new(SendErrorKind::Tls, chain(&error)))?;
    if stream.get_ref().1.alpn_protocol() == Some(tls::H2) {
        return shared(stream, target, open, Age::new(origin)).await;
    }
    let io = Io::Tls(Box::new(stream));
    Ok(Channel::Http1(Box::new(Http1::new(
        io,
        open,
        Age::new(origin),
    ))))
}

async fn shared<T>(
    io: T,
    target: &Target,
    open: OpenConnection,
    age: Age,
) -> Result<Channel, Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let connection = Http2::start(io, open, age, target.head().bytes).await?;
    Ok(Channel::Http2(Rc::new(connection)))
}

/// Tries an endpoint's addresses one after the other. Says which of its name's it was, if it has one.
async fn dial(target: &Target, until: Instant) -> Result<(TcpStream, Option<Origin>), Failure> {
    let endpoint = target.endpoint();
    let Some(name) = &target.name else {
        // A host without a name is an address.
        let address = endpoint
            .address()
            .map(|it| SocketAddr::new(it, endpoint.port()));
        let (socket, _) = dial_all(address.as_slice(), until).await?;
        return Ok((socket, None));
    };
    let found = match tokio::time::timeout_at(until, name.addresses()).await {
        Ok(found) => found.map_err(|reason| Failure::new(SendErrorKind::Dns, reason))?,
        Err(_) => {
            let reason = "no answer to the first question for the name yet";
            return Err(Failure::new(SendErrorKind::Dns, reason));
        }
    };
    let found = found.into_iter();
    let addresses: Vec<_> = found
        .map(|it| SocketAddr::new(it, endpoint.port()))
        .collect();
    let (socket, address) = dial_all(&addresses, until).await?;
    Ok((socket, Some(Origin::new(name.clone(), address.ip()))))
}

/// Each address has its share of the time that is left, so that one that does not answer can't use up all of it.
async fn dial_all(
    addresses: &[SocketAddr],
    until: Instant,
) -> Result<(TcpStream, SocketAddr), Failure> {
    let mut last = Failure::new(SendErrorKind::Dns, "the name has no addresses");
    for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let rest = until.saturating_duration_since(Instant::now());
        let share = rest / u32::try_from(left).unwrap_or(u32::MAX);
        last = match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => match prepare(&socket) {
                Ok(()) => return Ok((socket, *address)),
                Err(error) => Failure::new(SendErrorKind::Connect, error),
            },
            Ok(Err(error)) => Failure::new(SendErrorKind::Connect, error),
            Err(_) => Failure::new(SendErrorKind::ConnectTimedOut, address),
        };
    }
    Err(last)
}

fn prepare(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let probes = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_EVERY)
        .with_retries(PROBES);
    SockRef::from(socket).set_tcp_keepalive(&probes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_refuses() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refusing = gone.local_addr().unwrap();
        drop(gone);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        let (socket, _) = dial_all(&[refusing, open], until).await.unwrap();
        assert_eq!(socket.peer_addr().unwrap(), open);
        assert!(socket.nodelay().unwrap());
        assert!(SockRef::from(&socket).keepalive().unwrap());
        let error = dial_all(&[refusing], until).await.unwrap_err();
        assert!(matches!(error.kind, SendErrorKind::Connect));
        let error = dial_all(&[], until).await.unwrap_err();
        assert!(matches!(error.kind, SendErrorKind::Dns));
    }
}

//! Listening sockets: found to be free, and opened once for each worker on the same address, so that the kernel
//! spreads connections over the workers. It accepts nothing.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::inherited;

/// Connections that may wait to be accepted; the kernel has a bound of its own.
const BACKLOG: i32 = 4096;

/// What is spoken on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocols {
    /// HTTP in the clear.
    Http,
    /// HTTP under TLS.
    Https,
    /// The admin pages.
    Admin,
}

/// An address that can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}: {}", cause(.error))]
pub(crate) struct ListenError {
    address: SocketAddr,
    error: io::Error,
}

impl Protocols {
    /// The name in log and admin pages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Protocols::Http => "http",
            Protocols::Https => "https",
            Protocols::Admin => "admin",
        }
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Finds out whether an address can be had, and gives it back. Two processes that share an address would split its
/// traffic without anyone noticing, so this asks for it alone.
///
/// # Errors
/// It is taken, not allowed, or not an address of this machine.
pub(crate) fn probe(address: SocketAddr) -> Result<(), ListenError> {
    if inherited::find(address).is_some() {
        return Ok(());
    }
    match bound(address, false) {
        Ok(_) => Ok(()),
        Err(error) => Err(ListenError { address, error }),
    }
}

/// Opens an address `count` times. Port 0 is chosen once, for all of them. A socket that was passed to the process for
/// this address is taken instead.
///
/// # Errors
/// See [`probe`].
pub(crate) fn open(
    address: SocketAddr,
    count: usize,
) -> Result<(SocketAddr, Vec<TcpListener>), ListenError> {
    let wrong = |error| ListenError { address, error };
    if let Some(socket) = inherited::find(address) {
        return shared_by(socket, count).map_err(wrong);
    }
    // Nobody may sit on a fixed port already; a port that the kernel chooses is free.
    if address.port() != 0 {
        probe(address)?;
    }
    let shared = count > 1;
    let first = bound(address, shared).map_err(wrong)?;
    let actual = first
        .local_addr()
        .map_err(wrong)?
        .as_socket()
        .unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(bound(actual, shared).map_err(wrong)?);
    }
    // All are bound before one listens: a connection that comes in between goes to somebody who will accept it.
    let listening = sockets.into_iter().map(|socket| {
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from(socket))
    });
    let listeners = listening.collect::<io::Result<_>>().map_err(wrong)?;
    Ok((actual, listeners))
}

/// One socket that listens already, for all workers: they take turns as they are at leisure.
fn shared_by(socket: &TcpListener, count: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    socket.set_nonblocking(true)?;
    let sockets = (0..count).map(|_| socket.try_clone());
    Ok((socket.local_addr()?, sockets.collect::<io::Result<_>>()?))
}

/// Gives a socket to the runtime of this thread.
///
/// # Errors
/// The runtime can't take it.
pub(crate) fn into_tokio(
    socket: TcpListener,
    address: SocketAddr,
) -> Result<tokio::net::TcpListener, ListenError> {
    tokio::net::TcpListener::from_std(socket).map_err(|error| ListenError { address, error })
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Connections of an earlier process that wind down must not hold up a restart.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // `[::]` leaves `0.0.0.0` to its own line of the configuration.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The cause in words that name a remedy.
fn cause(error: &io::Error) -> String {
    let help = match error.kind() {
        io::ErrorKind::AddrInUse => "another program, or another tidegate, listens there",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the privilege CAP_NET_BIND_SERVICE; choose a higher one"
        }
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has this address",
        _ => return error.to_string(),
    };
    format!("{error}; {help}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: &str = "127.0.0.1:0";

    #[test]
    fn one_port_is_chosen_for_all_workers() {
        let (address, listeners) = open(ANY.parse().unwrap(), 3).unwrap();
        assert_ne!(address.port(), 0);
        for listener in &listeners {
            assert_eq!(listener.local_addr().unwrap(), address);
        }
        assert_eq!(listeners.len(), 3);
    }

    #[test]
    fn a_second_copy_is_refused_though_the_port_could_be_shared() {
        let (address, _listeners) = open(ANY.parse().unwrap(), 2).unwrap();
        for refused in [probe(address).unwrap_err(), open(address, 2).unwrap_err()] {
            let text = refused.to_string();
            assert!(text.contains(&address.to_string()), "{text}");
            assert!(text.contains("another"), "{text}");
        }
    }

    #[test]
    fn an_address_that_was_given_back_can_be_had_again_at_once() {
        let (address, listeners) = open(ANY.parse().unwrap(), 1).unwrap();
        // A connection that this side closes first lingers in the kernel.
        let client = std::net::TcpStream::connect(address).unwrap();
        listeners[0].set_nonblocking(false).unwrap();
        let (served, _) = listeners[0].accept().unwrap();
        drop(served);
        drop(client);
        drop(listeners);
        probe(address).unwrap();
        open(address, 2).unwrap();
    }

    #[test]
    fn a_foreign_address_is_named() {
        let text = probe("192.0.2.1:1".parse().unwrap())
            .unwrap_err()
            .to_string();
        assert!(text.starts_with("can't listen on 192.0.2.1:1: "), "{text}");
    }
}

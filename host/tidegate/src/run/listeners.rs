//! Which addresses are open, and which have to be opened or closed when the configuration changes. Sockets are opened
//! on the control thread and handed to the workers; nothing is accepted here.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::server::ProducesTickets;

use super::inherited;
use super::listen::{self, ListenError, Protocols};
use super::tls::{self, Certificates, Shown, TlsError};
use super::worker::Crew;
use crate::config::checked::Server;

/// Why an address can't be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The socket.
    #[error("{0}")]
    Listen(#[from] ListenError),
    /// TLS on it.
    #[error("{0}")]
    Tls(#[from] TlsError),
}

/// One address of the configuration. With port 0 the same may stand there several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    protocols: Protocols,
    address: SocketAddr,
    turn: usize,
}

/// An address as it is wanted.
struct Wanted {
    key: Key,
    shown: Option<Shown>,
}

#[derive(Debug)]
struct Open {
    key: Key,
    /// By this the workers know it.
    number: u64,
    address: SocketAddr,
    certificates: Option<Arc<Certificates>>,
}

/// All addresses of the workers.
#[derive(Debug)]
pub(crate) struct Listeners {
    open: Vec<Open>,
    last: u64,
    tickets: Arc<dyn ProducesTickets>,
}

/// Finds out early whether the addresses can be had, before anything that takes long.
///
/// # Errors
/// The first that can't.
pub(crate) fn probe(server: &Server) -> Result<(), ListenError> {
    let tls = server.tls.iter().map(|listener| listener.listen);
    let all = server.listen.iter().copied().chain(tls).chain(server.admin);
    let all: Vec<SocketAddr> = all.collect();
    for address in inherited::unused(&all) {
        tracing::warn!(
            %address,
            "a listening socket was passed for an address that is not configured; connections to it wait without end"
        );
    }
    for address in all {
        listen::probe(address)?;
    }
    Ok(())
}

impl Listeners {
    /// None yet.
    ///
    /// # Errors
    /// The system has no randomness for TLS.
    pub(crate) fn new() -> Result<Self, TlsError> {
        Ok(Listeners {
            open: Vec::new(),
            last: 0,
            tickets: tls::tickets()?,
        })
    }

    /// Opens what is wanted and not open, closes what is not wanted any more, and shows the certificates that are
    /// wanted. What can't be opened holds nothing else up.
    pub(crate) fn follow(&mut self, server: &Server, crew: &Crew) -> Vec<OpenError> {
        let wanted = wanted(server);
        self.open.retain(|open| {
            let stays = wanted.iter().any(|wanted| wanted.key == open.key);
            if !stays {
                crew.close(open.number);
                tracing::info!(kind = %open.key.protocols, address = %open.address, "listening no more");
            }
            stays
        });
        let mut errors = Vec::new();
        for wanted in wanted {
            let known = self.open.iter().find(|open| open.key == wanted.key);
            match known {
                Some(open) => {
                    if let (Some(certificates), Some(shown)) = (&open.certificates, wanted.shown) {
                        certificates.replace(shown);
                    }
                }
                None => match self.add(wanted, crew) {
                    Ok(open) => self.open.push(open),
                    Err(error) => errors.push(error),
                },
            }
        }
        errors
    }

    fn add(&mut self, wanted: Wanted, crew: &Crew) -> Result<Open, OpenError> {
        let Wanted { key, shown } = wanted;
        let (certificates, config) = match shown {
            Some(shown) => {
                let certificates = Certificates::new(shown);
                let tickets = Arc::clone(&self.tickets);
                let config = tls::server_config(Arc::clone(&certificates), tickets)?;
                (Some(certificates), Some(config))
            }
            None => (None, None),
        };
        let (address, sockets) = listen::open(key.address, crew.len())?;
        self.last += 1;
        crew.open(self.last, sockets, config.as_ref());
        tracing::info!(kind = %key.protocols, %address, "listening");
        Ok(Open {
            key,
            number: self.last,
            address,
            certificates,
        })
    }

    /// Where something listens.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (Protocols, SocketAddr)> {
        self.open
            .iter()
            .map(|open| (open.key.protocols, open.address))
    }
}

fn wanted(server: &Server) -> Vec<Wanted> {
    let clear = server.listen.iter().map(|address| Wanted {
        key: key(Protocols::Http, *address),
        shown: None,
    });
    let secure = server.tls.iter().map(|listener| Wanted {
        key: key(Protocols::Https, listener.listen),
        shown: Some(Shown {
            keys: listener
                .identities
                .iter()
                .map(|identity| Arc::clone(&identity.certified))
                .collect(),
            refuse_unknown: server.refuse_unknown_names,
        }),
    });
    let mut all: Vec<Wanted> = Vec::new();
    for mut wanted in clear.chain(secure) {
        while all.iter().any(|other| other.key == wanted.key) {
            wanted.key.turn += 1;
        }
        all.push(wanted);
    }
    all
}

fn key(protocols: Protocols, address: SocketAddr) -> Key {
    Key {
        protocols,
        address,
        turn: 0,
    }
}

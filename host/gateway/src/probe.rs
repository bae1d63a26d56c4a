//! What the fuzz targets and the benchmarks reach of this crate's inside. No part of its interface: it changes with what
//! stands behind it, and decides nothing itself.

use std::net::IpAddr;

use http::header::{HeaderMap, HeaderValue};
use http::{Method, request};
use tidegate_core::exchange::{PathParameters, RequestHead};
use tidegate_core::survey::Survey;

use crate::forwarded::{self, Hop};
use crate::h1_guard::{Guard, Seen};
use crate::head;
use crate::pattern::PathPattern;
use crate::route::{Conflict, RouteSpec, Router};
use crate::settings::{Limits, Settings};

/// What the guard of HTTP/1.1 framing says of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framed {
    /// The number of the request that the last byte belongs to.
    pub request: u64,
    /// Where the bytes end.
    pub place: Place,
}

/// Where bytes end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Between two requests.
    Between,
    /// In a head.
    Head,
    /// In a body or its framing.
    Body,
    /// Behind a head, at this offset, that asks for another protocol.
    Upgrade(usize),
    /// At a fault, by its name.
    Fault(String),
}

/// Shows bytes to a guard, piece by piece.
pub fn framed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Framed {
    let mut guard = Guard::new(limits);
    let mut offset = 0;
    for piece in pieces {
        match guard.inspect(piece) {
            Seen::Clear => offset += piece.len(),
            Seen::Upgrade(kept) => {
                return Framed {
                    request: guard.request(),
                    place: Place::Upgrade(offset + kept),
                };
            }
            Seen::Fault { request, fault, .. } => {
                return Framed {
                    request,
                    place: Place::Fault(format!("{fault:?}")),
                };
            }
        }
    }
    let place = if guard.is_between() {
        Place::Between
    } else if guard.is_in_head() {
        Place::Head
    } else {
        Place::Body
    };
    Framed {
        request: guard.request(),
        place,
    }
}

/// Routes, compiled.
#[derive(Debug)]
pub struct Routes(Router);

impl Routes {
    /// Compiles them.
    ///
    /// # Errors
    /// Routes that nothing tells apart.
    pub fn new(specs: Vec<RouteSpec>) -> Result<Self, Vec<Conflict>> {
        Router::new(specs).map(Self)
    }

    /// The route of a request, `path` in normal form and `host` in lower case without port.
    pub fn find(
        &self,
        host: &str,
        path: &str,
        method: &Method,
        fields: &HeaderMap,
    ) -> Option<&RouteSpec> {
        let index = self.0.find(host, path, method, fields)?;
        self.0.routes().get(index)
    }
}

/// What a pattern's names stand for in a path.
pub fn parameters(pattern: &PathPattern, path: &str) -> PathParameters {
    pattern.parameters(path)
}

/// A request as it was admitted and as it goes on.
#[derive(Debug)]
pub struct Passed {
    /// Who the client is.
    pub client: IpAddr,
    /// What routes and filters see.
    pub head: RequestHead,
    /// The fields for the upstream.
    pub sent: HeaderMap,
}

/// Reads a request's head and adds our hop to it, as is done on the way to an upstream.
///
/// # Errors
/// The name of what is wrong with the head.
pub fn pass(
    mut parts: request::Parts,
    peer: IpAddr,
    secure: bool,
    settings: &Settings,
) -> Result<Passed, String> {
    let seen = Survey::of(&parts.headers);
    let hop = Hop::new(peer);
    let trusted = &settings.trusted_proxies;
    let client = if forwarded::is_trusted(peer, trusted) {
        forwarded::client_address(peer, &parts.headers, trusted)
    } else {
        forwarded::strip_untrusted(&mut parts.headers, seen);
        hop.peer
    };
    let reader = head::Reader::new(secure);
    let incoming =
        head::read(&mut parts, seen, &reader, settings).map_err(|fault| format!("{fault:?}"))?;
    let head = incoming.head;
    let authority = head.authority.as_ref();
    let host = authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let mut sent = head.fields.clone();
    hop.append(&mut sent, &head.scheme, host.as_ref());
    Ok(Passed { client, head, sent })
}

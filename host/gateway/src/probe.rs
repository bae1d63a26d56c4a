//! What the fuzz targets and the benchmarks reach of this crate's inside. No part of its interface: it changes with what
//! stands behind it, and decides nothing itself.

use std::net::IpAddr;

use bytes::BytesMut;
use http::header::{HeaderMap, HeaderValue};
use http::{Method, request};
use tidegate_core::exchange::{PathParameters, RequestHead};
use tidegate_core::http1::framing::{Framing, Piece};
use tidegate_core::survey::Survey;

use crate::answer::ClientFault;
use crate::forwarded::{self, Hop};
use crate::h1;
use crate::h1::parse::{Head, Parser};
use crate::head;
use crate::pattern::PathPattern;
use crate::route::{Conflict, RouteSpec, Router};
use crate::settings::{Limits, Settings};

/// What is known of the bytes of an HTTP/1 connection.
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
    /// At a fault, by its name.
    Fault(String),
}

/// Reads requests from bytes that come piece by piece.
pub fn framed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Framed {
    let mut reader = Requests::new(limits);
    for piece in pieces {
        if let Err(fault) = reader.feed(piece) {
            return Framed {
                request: reader.request(),
                place: Place::Fault(format!("{fault:?}")),
            };
        }
    }
    let place = if reader.is_in_body() {
        Place::Body
    } else if reader.is_in_head() {
        Place::Head
    } else {
        Place::Between
    };
    Framed {
        request: reader.request(),
        place,
    }
}

/// Reads one request after another as a connection does, without one.
#[derive(Debug)]
pub(crate) struct Requests {
    parser: Parser,
    read: BytesMut,
    /// The body that is under way.
    body: Option<Framing>,
    /// The heads and the bytes of bodies that came.
    pub(crate) heads: Vec<Head>,
    pub(crate) bodies: Vec<u8>,
}

impl Requests {
    pub(crate) fn new(limits: &Limits) -> Self {
        Requests {
            parser: Parser::new(limits),
            read: BytesMut::new(),
            body: None,
            heads: Vec::new(),
            bodies: Vec::new(),
        }
    }

    pub(crate) fn is_in_body(&self) -> bool {
        self.body.is_some()
    }

    pub(crate) fn is_in_head(&self) -> bool {
        self.body.is_none() && self.parser.has_begun(&self.read)
    }

    /// The number of the request that the next byte belongs to, counted from 0.
    pub(crate) fn request(&self) -> u64 {
        self.heads.len() as u64 - u64::from(self.body.is_some())
    }

    /// Takes more bytes.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<(), ClientFault> {
        self.read.extend_from_slice(piece);
        loop {
            if let Some(framing) = &mut self.body {
                match framing.next(&mut self.read).map_err(h1::parse::fault)? {
                    Piece::More => return Ok(()),
                    Piece::Data(data) => self.bodies.extend_from_slice(&data),
                    Piece::End(_) => self.body = None,
                }
                continue;
            }
            let Some(end) = self.parser.advance(&self.read)? else {
                return Ok(());
            };
            let bytes = self.read.split_to(end).freeze();
            let mut head = self.parser.take(&bytes, None);
            if let Some(fault) = head.fault {
                return Err(fault);
            }
            let framing = std::mem::replace(&mut head.framing, Framing::Length(0));
            self.body = (!framing.is_over()).then_some(framing);
            self.heads.push(head);
        }
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

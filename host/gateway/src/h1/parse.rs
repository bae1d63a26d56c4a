//! A request's head out of a connection's bytes (RFC 9112 sections 2 to 6), judged line by line as it comes. What could be read
//! in two ways (RFC 9112 section 11.2) is refused, and what is wrong with a line is said before the next one has come. Reads
//! no socket.

use std::ops::Range;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version, request};
use memchr::memchr;
use tidegate_core::http1::framing::{Framing, FramingError};
use tidegate_core::http1::{line, spare};

use crate::answer::ClientFault;
use crate::settings::Limits;

/// The longest method, in bytes.
const MAX_METHOD: usize = 32;

/// A request's head.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) parts: request::Parts,
    /// How the body is framed that follows.
    pub(crate) framing: Framing,
    /// Whether the client wants to send another request on this connection (RFC 9112 section 9.3).
    pub(crate) keeps: bool,
    /// Whether it sends the body only when it is asked to (RFC 9110 section 10.1.1).
    pub(crate) expects: bool,
    /// Why the request can't be served. The parts are then what could be read.
    pub(crate) fault: Option<ClientFault>,
}

/// What is known of a head of which not all has come. Positions are those in the bytes that it is shown, from the head's first.
#[derive(Debug)]
pub(crate) struct Parser {
    bounds: Bounds,
    known: Known,
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Bounds {
    head: usize,
    fields: usize,
    target: usize,
}

#[derive(Debug, Default)]
struct Known {
    /// Where the line begins that is not judged yet.
    at: usize,
    /// Up to where its end was looked for.
    searched: usize,
    line: Option<RequestLine>,
    length: Option<u64>,
    chunked: bool,
    expects: bool,
    closes: bool,
    keeps: bool,
}

#[derive(Debug)]
struct RequestLine {
    method: Range<usize>,
    target: Range<usize>,
    is_10: bool,
}

#[derive(Debug)]
struct Field {
    name: Range<usize>,
    value: Range<usize>,
}

impl Parser {
    pub(crate) fn new(limits: &Limits) -> Self {
        Parser {
            bounds: Bounds {
                head: limits.max_head,
                fields: limits.max_fields,
                target: limits.max_target,
            },
            known: Known::default(),
            fields: Vec::new(),
        }
    }

    /// Whether a head has begun, in bytes of which this is the rest that is not taken: empty lines are none (RFC 9112 section
    /// 2.2).
    pub(crate) fn has_begun(&self, bytes: &[u8]) -> bool {
        self.known.line.is_some()
            || bytes
                .get(self.known.at..)
                .is_some_and(|rest| !matches!(rest, [] | b"\r"))
    }

    /// Goes on in bytes that begin with the head, of which more have come. Says where it ends, if it is whole.
    ///
    /// # Errors
    /// What is wrong with it. Nothing more can be read from the connection then.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, ClientFault> {
        loop {
            let known = &mut self.known;
            let (start, from) = (known.at, known.searched.max(known.at));
            let fresh = bytes.get(from..).unwrap_or_default();
            let Some(end) = memchr(b'\n', fresh).map(|end| from + end) else {
                known.searched = bytes.len();
                self.check_bounds(bytes.len() - start)?;
                return Ok(None);
            };
            self.check_bounds(end + 1 - start)?;
            let line = bytes.get(start..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").ok_or(ClientFault::Head)?;
            if !line.is_empty() {
                self.judge(start, line)?;
            }
            self.known.at = end + 1;
            if line.is_empty() && self.known.line.is_some() {
                return Ok(Some(end + 1));
            }
        }
    }

    /// How many of the bytes that it was shown are whole lines.
    pub(crate) fn judged(&self) -> usize {
        self.known.at
    }

    /// Makes the head of bytes that are [`judged`](Self::judged), and begins anew. `fault` is what is wrong with it.
    pub(crate) fn take(&mut self, bytes: &Bytes, fault: Option<ClientFault>) -> Head {
        let known = std::mem::take(&mut self.known);
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.version = match &known.line {
            Some(line) if line.is_10 => Version::HTTP_10,
            _ => Version::HTTP_11,
        };
        let read = known.read(bytes, &self.fields, &mut parts);
        self.fields.clear();
        let keeps = match parts.version {
            Version::HTTP_10 => known.keeps && !known.closes,
            _ => !known.closes,
        };
        let fault = fault.or(read.err());
        let framing = match (known.chunked, known.length) {
            _ if fault.is_some() => Framing::Length(0),
            (true, _) => Framing::chunked(),
            (false, length) => Framing::Length(length.unwrap_or(0)),
        };
        Head {
            expects: known.expects && parts.version == Version::HTTP_11 && !framing.is_over(),
            keeps: keeps && fault.is_none(),
            parts,
            framing,
            fault,
        }
    }

    /// Gives memory back.
    pub(crate) fn trim(&mut self) {
        self.fields.shrink_to(16);
    }

    /// Checks that the lines so far and so many bytes more are not too much.
    fn check_bounds(&self, more: usize) -> Result<(), ClientFault> {
        if self.known.line.is_none() && more > self.bounds.target + MAX_METHOD + 12 {
            return Err(ClientFault::TargetTooLong);
        }
        if self.known.at + more > self.bounds.head {
            return Err(ClientFault::HeadTooLarge);
        }
        Ok(())
    }

    /// Judges a whole line that begins at `start`, without its line end.
    fn judge(&mut self, start: usize, line: &[u8]) -> Result<(), ClientFault> {
        if self.known.line.is_none() {
            self.known.line = Some(request_line(start, line, self.bounds.target)?);
            return Ok(());
        }
        if self.fields.len() >= self.bounds.fields {
            return Err(ClientFault::TooManyFields);
        }
        let (name, value) = line::split(line).ok_or(ClientFault::Head)?;
        self.known.field(name, value)?;
        // A value's place from its end: what was trimmed there is white space.
        let behind = line.get(name.len() + 1..).unwrap_or_default();
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let before = behind.iter().take_while(|byte| blank(byte)).count();
        let value_start = start + name.len() + 1 + if value.is_empty() { 0 } else { before };
        self.fields.push(Field {
            name: start..start + name.len(),
            value: value_start..value_start + value.len(),
        });
        Ok(())
    }
}

impl Known {
    /// Looks closer at a field that is about the connection or the body.
    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), ClientFault> {
        match name.len() {
            6 if name.eq_ignore_ascii_case(b"expect") => {
                self.expects = value.eq_ignore_ascii_case(b"100-continue");
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for token in value.split(|byte| *byte == b',') {
                    let token = token.trim_ascii();
                    self.closes |= token.eq_ignore_ascii_case(b"close");
                    self.keeps |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() || self.chunked {
                    return Err(ClientFault::Framing);
                }
                self.length = Some(length(value).ok_or(ClientFault::Framing)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let is_10 = self.line.as_ref().is_some_and(|line| line.is_10);
                if self.length.is_some() || self.chunked || is_10 {
                    return Err(ClientFault::Framing);
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(ClientFault::Coding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts what was judged into a request's parts.
    fn read(
        &self,
        bytes: &Bytes,
        fields: &[Field],
        parts: &mut request::Parts,
    ) -> Result<(), ClientFault> {
        let Some(line) = &self.line else {
            // Only a head that is refused has none, and it needs a name in the log.
            parts.method = Method::from_bytes(b"-").unwrap_or_default();
            return Ok(());
        };
        let method = bytes.get(line.method.clone()).unwrap_or_default();
        parts.method = Method::from_bytes(method).map_err(|_| ClientFault::UnknownMethod)?;
        parts.uri = Uri::from_maybe_shared(bytes.slice(line.target.clone()))
            .map_err(|_| ClientFault::Path)?;
        parts.headers = spare::take();
        for field in fields {
            let name = bytes.get(field.name.clone()).unwrap_or_default();
            let name = HeaderName::from_bytes(name).map_err(|_| ClientFault::Head)?;
            let value = HeaderValue::from_maybe_shared(bytes.slice(field.value.clone()))
                .map_err(|_| ClientFault::Head)?;
            let appended = parts.headers.try_append(name, value);
            appended.map_err(|_| ClientFault::TooManyFields)?;
        }
        Ok(())
    }
}

/// What is wrong with a request whose body is no body.
pub(crate) fn fault(error: FramingError) -> ClientFault {
    match error {
        FramingError::Chunk | FramingError::Extensions => ClientFault::Framing,
        FramingError::Trailer => ClientFault::Head,
        FramingError::TooManyTrailers => ClientFault::HeadTooLarge,
    }
}

/// A decimal number below 2^63, and nothing else.
fn length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(digits).ok()?.parse::<u64>().ok()?;
    (number < 1 << 63).then_some(number)
}

/// Checks a request line (RFC 9112 section 3) that begins at `start`.
fn request_line(start: usize, line: &[u8], max_target: usize) -> Result<RequestLine, ClientFault> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(ClientFault::Head);
    };
    if method.is_empty() || !method.iter().copied().all(line::is_token) {
        return Err(ClientFault::Head);
    }
    if method.len() > MAX_METHOD {
        return Err(ClientFault::UnknownMethod);
    }
    if target.len() > max_target {
        return Err(ClientFault::TargetTooLong);
    }
    check_target(method, target)?;
    let is_10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(ClientFault::Version);
        }
        _ => return Err(ClientFault::Head),
    };
    let behind = start + method.len() + 1;
    Ok(RequestLine {
        method: start..start + method.len(),
        target: behind..behind + target.len(),
        is_10,
    })
}

/// Checks a target's form and characters. A fragment has no place in it, and would be dropped in silence.
fn check_target(method: &[u8], target: &[u8]) -> Result<(), ClientFault> {
    let form = match target {
        [b'/', ..] => true,
        b"*" => method == b"OPTIONS",
        _ => method == b"CONNECT" || is_absolute(target),
    };
    // No `#`, and none of `<`, `>`, `` ` `` and the like.
    let known = |byte: u8| matches!(byte, b'!' | b'"' | b'$'..=b';' | b'=' | b'?'..=b'_' | b'a'..=b'~' | 0x80..);
    if form && target.iter().copied().all(known) {
        Ok(())
    } else {
        Err(ClientFault::Path)
    }
}

/// Whether a target begins with a scheme that is ours.
fn is_absolute(target: &[u8]) -> bool {
    [&b"http://"[..], b"https://"].iter().any(|scheme| {
        target
            .get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    })
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;

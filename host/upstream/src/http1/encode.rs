//! A request as it stands on the wire (RFC 9112 sections 3 and 7.1). Writes to no socket.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use http::{HeaderValue, Request};
use http_body::Body as _;
use tidegate_core::body::Body;

use crate::error::{Failure, SendErrorKind};

/// A piece up to this size goes out in one buffer with what stands around it.
const SMALL: usize = 1024;

/// How a request's body is framed, and how much of it is still to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frames {
    Length(u64),
    Chunked,
}

/// Bytes that are to be written.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    before: Vec<u8>,
    data: Bytes,
    after: &'static [u8],
    /// How much of `before` is written.
    sent: usize,
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.before.len() && self.data.is_empty() && self.after.is_empty()
    }

    /// What is still to be written, in order.
    pub(super) fn slices(&self) -> [&[u8]; 3] {
        let before = self.before.get(self.sent..).unwrap_or_default();
        [before, &self.data, self.after]
    }

    /// So much of it is written.
    pub(super) fn advance(&mut self, mut written: usize) {
        let here = written.min(self.before.len() - self.sent);
        self.sent += here;
        written -= here;
        let here = written.min(self.data.len());
        let _ = self.data.split_to(here);
        written -= here;
        let here = written.min(self.after.len());
        self.after = self.after.get(here..).unwrap_or_default();
        if self.is_empty() {
            self.before.clear();
            self.sent = 0;
        }
    }

    /// Forgets what is not written.
    pub(super) fn clear(&mut self) {
        *self = Outgoing::default();
    }

    /// Adds a head. Nothing but heads and small pieces are there yet.
    ///
    /// # Errors
    /// The fields say something else of the body than the body does.
    pub(super) fn head(&mut self, request: &mut Request<Body>) -> Result<Frames, Failure> {
        let frames = frames(request)?;
        let out = &mut self.before;
        out.reserve(512);
        out.extend_from_slice(request.method().as_str().as_bytes());
        out.push(b' ');
        let target = request.uri().path_and_query();
        let target = target.map_or("/", |target| target.as_str());
        out.extend_from_slice(target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        fields(out, request.headers());
        Ok(frames)
    }

    /// Adds a piece of the body.
    ///
    /// # Errors
    /// It is more than was announced.
    pub(super) fn piece(&mut self, frames: &mut Frames, data: Bytes) -> Result<(), &'static str> {
        if data.is_empty() {
            return Ok(());
        }
        let mut end: &'static [u8] = b"";
        match frames {
            Frames::Length(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or("the body is longer than its Content-Length")?;
            }
            Frames::Chunked => {
                push_hex(&mut self.before, data.len());
                self.before.extend_from_slice(b"\r\n");
                end = b"\r\n";
            }
        }
        if data.len() <= SMALL {
            self.before.extend_from_slice(&data);
            self.before.extend_from_slice(end);
        } else {
            self.data = data;
            self.after = end;
        }
        Ok(())
    }

    /// Adds the end of the body.
    ///
    /// # Errors
    /// It is less than was announced.
    pub(super) fn end(
        &mut self,
        frames: Frames,
        trailers: Option<&HeaderMap>,
    ) -> Result<(), &'static str> {
        match frames {
            Frames::Length(0) => Ok(()),
            Frames::Length(_) => Err("the body is shorter than its Content-Length"),
            Frames::Chunked if self.data.is_empty() => {
                self.before.extend_from_slice(b"0\r\n");
                match trailers {
                    Some(trailers) => fields(&mut self.before, trailers),
                    None => self.before.extend_from_slice(b"\r\n"),
                }
                Ok(())
            }
            Frames::Chunked => {
                // Trailers come by themselves, when the data is written.
                self.after = b"\r\n0\r\n\r\n";
                Ok(())
            }
        }
    }

    /// Whether a further piece can be put behind what is to be written, of which there are fewer bytes than `limit`.
    pub(super) fn takes_more(&self, limit: usize) -> bool {
        self.data.is_empty() && self.before.len() - self.sent < limit
    }
}

/// How the body will be framed, with the field that says so put in where it is missing.
fn frames(request: &mut Request<Body>) -> Result<Frames, Failure> {
    let exact = request.body().size_hint().exact();
    let empty = request.body().is_end_stream();
    let fields = request.headers_mut();
    if empty || exact.is_some() {
        fields.remove(TRANSFER_ENCODING);
    } else if fields.contains_key(TRANSFER_ENCODING) {
        return Ok(Frames::Chunked);
    }
    let announced = match fields.get(CONTENT_LENGTH) {
        Some(value) => {
            let length = value.to_str().ok().and_then(|text| text.parse().ok());
            Some(length.ok_or_else(|| failure("its Content-Length is no number"))?)
        }
        None => None,
    };
    match (announced, exact) {
        (Some(length), Some(exact)) if length != exact => {
            Err(failure("its Content-Length is not its body's"))
        }
        (Some(length), _) => Ok(Frames::Length(length)),
        // Whoever expects a body of some methods wants to be told that there is none; nobody does of others.
        (None, _) if empty => Ok(Frames::Length(0)),
        (None, Some(exact)) => {
            fields.insert(CONTENT_LENGTH, HeaderValue::from(exact));
            Ok(Frames::Length(exact))
        }
        (None, None) => {
            fields.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            Ok(Frames::Chunked)
        }
    }
}

fn failure(detail: &'static str) -> Failure {
    Failure::new(SendErrorKind::InvalidResponse, detail)
}

/// Fields and the empty line behind them.
fn fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn push_hex(out: &mut Vec<u8>, number: usize) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = u32::try_from(number >> (place * 4) & 0xF).unwrap_or_default();
        out.push(char::from_digit(digit, 16).map_or(b'0', |digit| digit as u8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(outgoing: &mut Outgoing) -> String {
        let mut all = Vec::new();
        while !outgoing.is_empty() {
            // One byte at a time.
            let first = outgoing.slices().into_iter().flatten().next().copied();
            all.push(first.unwrap());
            outgoing.advance(1);
        }
        String::from_utf8(all).unwrap()
    }

    fn request(fields: &[(&'static str, &'static str)], body: Body) -> Request<Body> {
        let mut request = Request::post("/a?b").body(body).unwrap();
        for (name, value) in fields {
            let value = HeaderValue::from_static(value);
            request.headers_mut().append(*name, value);
        }
        request
    }

    #[test]
    fn a_body_that_is_at_hand_has_a_length() {
        let mut outgoing = Outgoing::default();
        let mut frames = outgoing
            .head(&mut request(&[("host", "h")], Body::full("body")))
            .unwrap();
        assert_eq!(frames, Frames::Length(4));
        outgoing.piece(&mut frames, Bytes::from("body")).unwrap();
        outgoing.end(frames, None).unwrap();
        let expected = "POST /a?b HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody";
        assert_eq!(written(&mut outgoing), expected);
        // None for a body that is not there, unless the client said so.
        for (fields, line) in [
            (&[][..], ""),
            (&[("content-length", "0")], "content-length: 0\r\n"),
            (&[("transfer-encoding", "chunked")], ""),
        ] {
            let frames = outgoing.head(&mut request(fields, Body::Empty)).unwrap();
            assert_eq!(frames, Frames::Length(0));
            let expected = format!("POST /a?b HTTP/1.1\r\n{line}\r\n");
            assert_eq!(written(&mut outgoing), expected);
        }
    }

    #[test]
    fn pieces_small_and_large_are_chunks() {
        let mut outgoing = Outgoing::default();
        let mut frames = Frames::Chunked;
        for size in [1, 15, 16, 255, SMALL, SMALL + 1, 0x12345] {
            let data = Bytes::from(vec![b'x'; size]);
            outgoing.piece(&mut frames, data).unwrap();
            let text = written(&mut outgoing);
            let (length, rest) = text.split_once("\r\n").unwrap();
            assert_eq!(length, format!("{size:x}"));
            assert_eq!(rest.len(), size + 2);
        }
        outgoing.piece(&mut frames, Bytes::new()).unwrap();
        assert!(outgoing.is_empty(), "an empty chunk would be the last");
        outgoing.end(frames, None).unwrap();
        assert_eq!(written(&mut outgoing), "0\r\n\r\n");
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("sum"),
            HeaderValue::from_static("1"),
        )]);
        outgoing.end(frames, Some(&trailers)).unwrap();
        assert_eq!(written(&mut outgoing), "0\r\nsum: 1\r\n\r\n");
        outgoing
            .piece(&mut frames, Bytes::from(vec![b'x'; SMALL + 1]))
            .unwrap();
        assert!(!outgoing.takes_more(usize::MAX));
        outgoing.end(frames, None).unwrap();
        assert!(written(&mut outgoing).ends_with("xx\r\n0\r\n\r\n"));
    }

    #[test]
    fn what_is_announced_is_what_is_sent() {
        let mut outgoing = Outgoing::default();
        let long = &[("content-length", "5")];
        let failed = outgoing.head(&mut request(long, Body::full("body")));
        assert!(failed.is_err());
        assert!(outgoing.head(&mut request(long, Body::Empty)).is_err());
        let mut frames = Frames::Length(3);
        assert!(outgoing.piece(&mut frames, Bytes::from("body")).is_err());
        assert!(outgoing.end(frames, None).is_err());
    }
}

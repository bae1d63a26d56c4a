//! Bytes that are to be written: a head, and pieces of a body with what stands around them (RFC 9112 section 7.1). Writes to
//! no socket.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// A piece up to this size goes out in one buffer with what stands around it.
const SMALL: usize = 1024;

/// How a body is framed, and how much of it is still to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// So many bytes.
    Length(u64),
    /// Chunks, and trailers behind them.
    Chunked,
    /// Whatever comes, until the connection ends.
    UntilClose,
}

/// Bytes that are to be written.
#[derive(Debug, Default)]
pub struct Outgoing {
    before: Vec<u8>,
    data: Bytes,
    after: &'static [u8],
    /// How much of `before` is written.
    sent: usize,
}

impl Outgoing {
    pub fn is_empty(&self) -> bool {
        self.sent == self.before.len() && self.data.is_empty() && self.after.is_empty()
    }

    /// What is still to be written, in order.
    pub fn slices(&self) -> [&[u8]; 3] {
        let before = self.before.get(self.sent..).unwrap_or_default();
        [before, &self.data, self.after]
    }

    /// So much of it is written.
    pub fn advance(&mut self, mut written: usize) {
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
    pub fn clear(&mut self) {
        *self = Outgoing::default();
    }

    /// Where a head is added. Nothing but heads and small pieces may be there yet.
    pub fn heads(&mut self) -> &mut Vec<u8> {
        &mut self.before
    }

    /// Adds a piece of the body.
    ///
    /// # Errors
    /// It is more than was announced.
    pub fn piece(&mut self, frames: &mut Frames, data: Bytes) -> Result<(), &'static str> {
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
            Frames::UntilClose => {}
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
    pub fn end(
        &mut self,
        frames: Frames,
        trailers: Option<&HeaderMap>,
    ) -> Result<(), &'static str> {
        match frames {
            Frames::Length(0) | Frames::UntilClose => Ok(()),
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
    pub fn takes_more(&self, limit: usize) -> bool {
        self.data.is_empty() && self.after.is_empty() && self.before.len() - self.sent < limit
    }
}

/// Writes fields and the empty line behind them.
pub fn fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a field's line.
pub fn field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
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
            HeaderName::from_static("sum"),
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
        let mut frames = Frames::Length(3);
        assert!(outgoing.piece(&mut frames, Bytes::from("body")).is_err());
        assert!(outgoing.end(frames, None).is_err());
    }

    #[test]
    fn nothing_comes_between_a_piece_and_what_stands_behind_it() {
        let data = Bytes::from(vec![b'x'; SMALL + 1]);
        let mut outgoing = Outgoing::default();
        let mut frames = Frames::Chunked;
        outgoing.piece(&mut frames, data).unwrap();
        let length: usize = outgoing.slices().iter().map(|slice| slice.len()).sum();
        // As often as not a socket takes all but the last bytes.
        for written in [length - 2, 1] {
            outgoing.advance(written);
            assert!(!outgoing.takes_more(usize::MAX));
        }
        outgoing.advance(1);
        assert!(outgoing.is_empty() && outgoing.takes_more(usize::MAX));
    }

    #[test]
    fn a_body_up_to_the_end_has_nothing_around_it() {
        let mut outgoing = Outgoing::default();
        let mut frames = Frames::UntilClose;
        outgoing.piece(&mut frames, Bytes::from("body")).unwrap();
        outgoing.end(frames, None).unwrap();
        assert_eq!(written(&mut outgoing), "body");
    }
}

//! Follows the framing of HTTP/1.1 requests in the bytes as they come, beside the parser and stricter than it. What could be
//! read in two ways (RFC 9112 section 11.2) is made unreadable before the parser sees the end of the head, so that nothing
//! of it is served; the parser then answers 400 and closes. Copies nothing and keeps a few counters only.
//!
//! It must agree with the parser on where a body ends. Where it can't know any more (an upgrade), it stops looking.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

/// What the guard of a connection and those who serve it tell each other.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    off: AtomicBool,
    violation: AtomicU8,
    ended: AtomicUsize,
}

impl Signals {
    /// What follows is another protocol: the guard looks no more.
    pub(crate) fn stop(&self) {
        self.off.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    /// An exchange has ended.
    pub(crate) fn leave(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// How many exchanges have ended.
    pub(crate) fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }

    pub(crate) fn found(&self, violation: Violation) {
        self.violation.store(violation as u8, Ordering::Relaxed);
    }

    /// What the guard found.
    pub(crate) fn violation(&self) -> Option<Violation> {
        let found = self.violation.load(Ordering::Relaxed);
        Violation::ALL
            .into_iter()
            .find(|violation| *violation as u8 == found)
    }
}

/// Why a request was made unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A line of the head ends without CR, or has a CR or NUL inside.
    Line = 1,
    /// Content-Length with Transfer-Encoding, or either of them twice.
    Framing,
    /// A Content-Length that is no number.
    Length,
    /// A chunk's size line that is not plain.
    Chunk,
}

impl Violation {
    const ALL: [Violation; 4] = [
        Violation::Line,
        Violation::Framing,
        Violation::Length,
        Violation::Chunk,
    ];

    /// The reason in the metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Violation::Line => "framing",
            Violation::Framing => "framing",
            Violation::Length => "framing",
            Violation::Chunk => "framing",
        }
    }
}

/// What the parser gets in place of a violation and all that follows it: it ends a head, so that the parser looks at once,
/// and is no part of any message.
pub(crate) const POISON: &[u8] = b"\0\r\n\r\n";

/// The follower's state.
#[derive(Debug)]
pub(crate) struct Guard {
    state: State,
    head: Head,
    heads: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the head.
    Head,
    /// In a body of this many bytes more.
    Length(u64),
    /// In a chunk's size line: its size so far, its digits, whether an extension has begun, whether a CR was seen.
    Size {
        size: u64,
        digits: u8,
        extension: bool,
        cr: bool,
    },
    /// In a chunk's data.
    Data(u64),
    /// Behind a chunk's data: how much of CRLF is still to come.
    DataEnd(u8),
    /// In the trailers; whether the line is empty so far and whether a CR was seen.
    Trailers { empty: bool, cr: bool },
    /// Not looking any more.
    Off,
}

/// What is known of the head so far.
#[derive(Debug, Default)]
struct Head {
    lines: usize,
    cr: bool,
    /// The beginning of the line; long enough for the names that matter and their values.
    line: Vec<u8>,
    length: Option<u64>,
    lengths: u32,
    codings: u32,
}

/// How much of a line is kept.
const KEPT: usize = 64;

impl Guard {
    pub(crate) fn new() -> Self {
        Guard {
            state: State::Head,
            head: Head::default(),
            heads: 0,
        }
    }

    /// Follows bytes that have come. On a violation, it says which and where: what stands before may go to the parser, and
    /// [`POISON`] in place of the rest.
    pub(crate) fn inspect(&mut self, bytes: &[u8]) -> Result<(), (Violation, usize)> {
        let mut at = 0;
        while at < bytes.len() {
            let Some(rest) = bytes.get(at..) else { break };
            let result = match self.state {
                State::Off => return Ok(()),
                State::Head => self.head(rest),
                State::Length(left) => Ok(self.skip(left, rest.len(), State::Length)),
                State::Data(left) => Ok(self.skip(left, rest.len(), State::Data)),
                _ => self
                    .chunked(rest.first().copied().unwrap_or_default())
                    .map(|()| 1),
            };
            match result {
                Ok(taken) => at += taken.max(1),
                Err(violation) => {
                    self.state = State::Off;
                    return Err((violation, at));
                }
            }
        }
        Ok(())
    }

    /// How many requests have come whole; none if one is on its way.
    pub(crate) fn whole(&self) -> Option<usize> {
        (self.state == State::Head && self.head.lines == 0).then_some(self.heads)
    }

    fn skip(&mut self, left: u64, have: usize, with: fn(u64) -> State) -> usize {
        let taken = left.min(have as u64);
        let left = left - taken;
        self.state = match (left, with(1)) {
            (0, State::Data(_)) => State::DataEnd(2),
            (0, _) => State::Head,
            _ => with(left),
        };
        usize::try_from(taken).unwrap_or(have)
    }

    /// Takes bytes of the head up to the end of a line.
    fn head(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let head = &mut self.head;
        if head.cr {
            if bytes.first() != Some(&b'\n') {
                return Err(Violation::Line);
            }
            head.cr = false;
            self.end_line()?;
            return Ok(1);
        }
        let end = bytes
            .iter()
            .position(|byte| matches!(byte, b'\r' | b'\n' | 0));
        let taken = end.unwrap_or(bytes.len());
        // A fragment is the client's own business (RFC 9112 section 3.2); the parser would cut it off in silence.
        if head.lines == 0 && bytes.iter().take(taken).any(|byte| *byte == b'#') {
            return Err(Violation::Line);
        }
        let room = KEPT.saturating_sub(head.line.len());
        head.line
            .extend_from_slice(bytes.get(..taken.min(room)).unwrap_or_default());
        match end.and_then(|end| bytes.get(end)) {
            None => Ok(taken),
            Some(b'\r') => {
                head.cr = true;
                Ok(taken + 1)
            }
            Some(_) => Err(Violation::Line),
        }
    }

    fn end_line(&mut self) -> Result<(), Violation> {
        let head = &mut self.head;
        if !head.line.is_empty() {
            head.lines += 1;
            if head.lines > 1 {
                head.field()?;
            }
            head.line.clear();
            return Ok(());
        }
        if head.lines == 0 {
            // Empty lines before a request (RFC 9112 section 2.2).
            return Ok(());
        }
        let chunked = head.codings > 0;
        if chunked && head.lengths > 0 {
            return Err(Violation::Framing);
        }
        let length = head.length.unwrap_or(0);
        self.head = Head::default();
        self.heads += 1;
        self.state = match (chunked, length) {
            (true, _) => State::Size {
                size: 0,
                digits: 0,
                extension: false,
                cr: false,
            },
            (false, 0) => State::Head,
            (false, length) => State::Length(length),
        };
        Ok(())
    }

    fn chunked(&mut self, byte: u8) -> Result<(), Violation> {
        self.state = match (self.state, byte) {
            (
                State::Size {
                    size,
                    digits,
                    cr: true,
                    ..
                },
                b'\n',
            ) if digits > 0 => match size {
                0 => State::Trailers {
                    empty: true,
                    cr: false,
                },
                size => State::Data(size),
            },
            (State::Size { cr: true, .. }, _) => return Err(Violation::Chunk),
            (
                State::Size {
                    size,
                    digits,
                    extension,
                    ..
                },
                b'\r',
            ) => State::Size {
                size,
                digits,
                extension,
                cr: true,
            },
            (State::Size { size, digits, .. }, b';') if digits > 0 => State::Size {
                size,
                digits,
                extension: true,
                cr: false,
            },
            (
                State::Size {
                    size,
                    digits,
                    extension: true,
                    ..
                },
                byte,
            ) if byte >= b' ' || byte == b'\t' => State::Size {
                size,
                digits,
                extension: true,
                cr: false,
            },
            (
                State::Size {
                    size,
                    digits,
                    extension: false,
                    ..
                },
                byte,
            ) if digits < 15 => {
                let digit = char::from(byte).to_digit(16).ok_or(Violation::Chunk)?;
                State::Size {
                    size: size * 16 + u64::from(digit),
                    digits: digits + 1,
                    extension: false,
                    cr: false,
                }
            }
            (State::DataEnd(2), b'\r') => State::DataEnd(1),
            (State::DataEnd(1), b'\n') => State::Size {
                size: 0,
                digits: 0,
                extension: false,
                cr: false,
            },
            (
                State::Trailers {
                    empty: true,
                    cr: true,
                },
                b'\n',
            ) => State::Head,
            (
                State::Trailers {
                    empty: false,
                    cr: true,
                },
                b'\n',
            ) => State::Trailers {
                empty: true,
                cr: false,
            },
            (State::Trailers { empty, cr: false }, b'\r') => State::Trailers { empty, cr: true },
            (State::Trailers { cr: false, .. }, byte) if byte != b'\n' && byte != 0 => {
                State::Trailers {
                    empty: false,
                    cr: false,
                }
            }
            _ => return Err(Violation::Chunk),
        };
        Ok(())
    }
}

impl Head {
    /// Reads the line's field, if it is about framing.
    fn field(&mut self) -> Result<(), Violation> {
        let mut parts = self.line.splitn(2, |byte| *byte == b':');
        let (name, value) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        // A name with a space at its end is refused by the parser; here it must not be taken for another name.
        if name.trim_ascii().eq_ignore_ascii_case(b"content-length") {
            self.lengths += 1;
            let digits = value.trim_ascii();
            let number = std::str::from_utf8(digits)
                .ok()
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            self.length = Some(
                number
                    .and_then(|text| text.parse().ok())
                    .ok_or(Violation::Length)?,
            );
        } else if name.trim_ascii().eq_ignore_ascii_case(b"transfer-encoding") {
            self.codings += 1;
        }
        if self.lengths > 1 || self.codings > 1 {
            Err(Violation::Framing)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a stream whole and cut at every byte; all must say the same.
    fn inspect(text: &str) -> Result<bool, Violation> {
        let run = |cut: usize| {
            let mut guard = Guard::new();
            let (one, two) = text.as_bytes().split_at(cut);
            guard
                .inspect(one)
                .and_then(|()| guard.inspect(two))
                .map(|()| guard.state == State::Head)
                .map_err(|(violation, _)| violation)
        };
        let whole = run(0);
        for cut in 1..text.len() {
            assert_eq!(run(cut), whole, "cut at {cut} of {text:?}");
        }
        whole
    }

    #[test]
    fn ordinary_requests_are_followed_to_their_end() {
        for text in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\na\nb\0cGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b\"\r\n\n\n\n\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length:0\r\n\r\n",
        ] {
            assert_eq!(inspect(text), Ok(true), "{text:?}");
        }
        assert_eq!(
            inspect("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc"),
            Ok(false)
        );
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_a_violation() {
        for (text, violation) in [
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Violation::Line),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", Violation::Line),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", Violation::Line),
            ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", Violation::Line),
            ("GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", Violation::Line),
            (
                "POST / HTTP/1.1\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n",
                Violation::Framing,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n",
                Violation::Framing,
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 6\r\nContent-Length: 6\r\n\r\n",
                Violation::Framing,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
                Violation::Framing,
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n",
                Violation::Length,
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n",
                Violation::Length,
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
                Violation::Length,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n",
                Violation::Chunk,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n",
                Violation::Chunk,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n",
                Violation::Chunk,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n",
                Violation::Chunk,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nf0000000000000003\r\n",
                Violation::Chunk,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n",
                Violation::Chunk,
            ),
        ] {
            assert_eq!(inspect(text), Err(violation), "{text:?}");
        }
    }

    #[test]
    fn what_goes_to_the_parser_before_a_violation_is_no_whole_head() {
        let text =
            b"POST / HTTP/1.1\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        let (_, at) = Guard::new().inspect(text).unwrap_err();
        assert!(!text[..at].windows(4).any(|four| four == b"\r\n\r\n"));
    }
}

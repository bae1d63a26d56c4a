//! Follows the framing of HTTP/1.1 requests in the bytes as they come, before the parser and stricter than it. What could
//! be read in two ways (RFC 9112 section 11.2) never reaches the parser. Keeps a few counters and, of a line that comes in
//! pieces, what came of it. Knows no socket.
//!
//! It must agree with the parser on where a body ends: a chunked one behind its trailers, one with a length behind so many
//! bytes, any other at once, whatever the method is.

use memchr::memchr;

use crate::answer::ClientFault;
use crate::settings::Limits;

/// The longest method, in bytes.
const MAX_METHOD: usize = 32;
/// The most bytes of chunk extensions in one body.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// The most bytes of trailers.
const MAX_TRAILERS: usize = 16 * 1024;
/// Hexadecimal digits of a chunk's size.
const MAX_DIGITS: u8 = 15;

/// What became of bytes that were shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// All of them may go on.
    Clear,
    /// So many of them may go on. They end with a head that asks for another protocol, and what follows must wait for
    /// the answer.
    Upgrade(usize),
    /// So many of them may go on, then `tail`, which lets the parser see the request so far as a whole one, and nothing
    /// more. The request must be refused.
    Fault {
        /// The number of the request, counted from 0.
        request: u64,
        /// Bytes that may go on.
        kept: usize,
        /// What is wrong.
        fault: ClientFault,
        /// What follows them.
        tail: &'static [u8],
    },
}

/// The follower's state.
#[derive(Debug)]
pub(crate) struct Guard {
    state: State,
    lines: Lines,
    head: Head,
    bounds: Bounds,
    /// Whole heads so far.
    heads: u64,
}

#[derive(Debug)]
struct Bounds {
    head: usize,
    fields: usize,
    target: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// In a body of this many bytes more.
    Length(u64),
    /// In a chunk's size line.
    Size {
        size: u64,
        digits: u8,
        part: SizePart,
    },
    /// In a chunk's data.
    Data(u64),
    /// Behind a chunk's data: how much of CRLF is still to come.
    DataEnd(u8),
    Trailers,
    /// Not looking any more.
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SizePart {
    Digits,
    Extension,
    /// Behind the CR.
    End,
}

/// Lines of a head or of trailers.
#[derive(Debug, Default)]
struct Lines {
    /// What came of the present line in earlier pieces.
    partial: Vec<u8>,
    /// Whole lines, and bytes with their line ends.
    count: usize,
    bytes: usize,
}

/// What is known of the head so far.
#[derive(Debug, Default)]
struct Head {
    http_1_0: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

/// What a step took.
enum Step {
    Taken(usize),
    Upgrade(usize),
    Fault(ClientFault, &'static [u8]),
}

impl Guard {
    pub(crate) fn new(limits: &Limits) -> Self {
        Guard {
            state: State::Head,
            lines: Lines::default(),
            head: Head::default(),
            bounds: Bounds {
                head: limits.max_head,
                fields: limits.max_fields,
                target: limits.max_target,
            },
            heads: 0,
        }
    }

    /// Follows bytes that have come.
    pub(crate) fn inspect(&mut self, bytes: &[u8]) -> Seen {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let step = match self.state {
                State::Off => return Seen::Clear,
                State::Head | State::Trailers => self.line(rest),
                State::Length(left) => Step::Taken(self.skip(left, rest.len(), State::Length)),
                State::Data(left) => Step::Taken(self.skip(left, rest.len(), State::Data)),
                State::Size { .. } | State::DataEnd(_) => self.chunk(rest),
            };
            match step {
                Step::Taken(taken) => at += taken,
                Step::Upgrade(taken) => return Seen::Upgrade(at + taken),
                Step::Fault(fault, tail) => {
                    let request = self.request();
                    self.state = State::Off;
                    return Seen::Fault {
                        request,
                        kept: at,
                        fault,
                        tail,
                    };
                }
            }
        }
        Seen::Clear
    }

    /// Looks no more.
    pub(crate) fn stop(&mut self) {
        self.state = State::Off;
    }

    /// The number of the request that the next byte belongs to, counted from 0.
    pub(crate) fn request(&self) -> u64 {
        match self.state {
            State::Head | State::Off => self.heads,
            _ => self.heads.saturating_sub(1),
        }
    }

    /// Whether no byte of a next request has come.
    pub(crate) fn is_between(&self) -> bool {
        self.state == State::Head && self.lines.count == 0 && self.lines.partial.is_empty()
    }

    /// Whether a head has begun and not ended.
    pub(crate) fn is_in_head(&self) -> bool {
        self.state == State::Head && !self.is_between()
    }

    /// Whether a body is under way.
    pub(crate) fn is_in_body(&self) -> bool {
        !matches!(self.state, State::Head | State::Off)
    }

    /// What lets the parser see a head that is not whole as a whole one.
    pub(crate) fn tail(&self) -> &'static [u8] {
        self.tail_behind(&self.lines.partial)
    }

    /// The same behind the beginning of a line. Trailers get none: their request has begun, and must not look whole.
    fn tail_behind(&self, partial: &[u8]) -> &'static [u8] {
        match self.state {
            State::Trailers => b"",
            _ => tail(self.lines.count, partial),
        }
    }

    fn skip(&mut self, left: u64, have: usize, with: fn(u64) -> State) -> usize {
        let taken = left.min(have as u64);
        self.state = match (left - taken, with(0)) {
            (0, State::Data(_)) => State::DataEnd(2),
            (0, _) => State::Head,
            (left, _) => with(left),
        };
        usize::try_from(taken).unwrap_or(have)
    }

    /// Takes the rest of a line of the head or the trailers, or all there is of it.
    fn line(&mut self, rest: &[u8]) -> Step {
        let mut line = std::mem::take(&mut self.lines.partial);
        let Some(end) = memchr(b'\n', rest) else {
            let fault = self.over_bounds(line.len() + rest.len());
            let tail = self.tail_behind(&line);
            line.extend_from_slice(rest);
            self.lines.partial = line;
            return match fault {
                Some(fault) => Step::Fault(fault, tail),
                None => Step::Taken(rest.len()),
            };
        };
        let tail = self.tail_behind(&line);
        let piece = rest.get(..end).unwrap_or_default();
        let whole = if line.is_empty() {
            piece
        } else {
            line.extend_from_slice(piece);
            &line
        };
        let judged = match self.over_bounds(whole.len() + 1) {
            Some(fault) => Err(fault),
            None => self.judge(whole),
        };
        match judged {
            Err(fault) => Step::Fault(fault, tail),
            Ok(true) => Step::Upgrade(end + 1),
            Ok(false) => Step::Taken(end + 1),
        }
    }

    /// Whether the lines so far and so many bytes more are too much.
    fn over_bounds(&self, more: usize) -> Option<ClientFault> {
        let bytes = self.lines.bytes + more;
        if self.state == State::Trailers {
            return (bytes > MAX_TRAILERS).then_some(ClientFault::HeadTooLarge);
        }
        if self.lines.count == 0 && more > self.bounds.target + MAX_METHOD + 12 {
            return Some(ClientFault::TargetTooLong);
        }
        (bytes > self.bounds.head).then_some(ClientFault::HeadTooLarge)
    }

    /// Judges a whole line without its LF. Says whether it ends a head that asks for another protocol.
    fn judge(&mut self, line: &[u8]) -> Result<bool, ClientFault> {
        let line = line.strip_suffix(b"\r").ok_or(ClientFault::Head)?;
        self.lines.bytes += line.len() + 2;
        if line.is_empty() {
            return Ok(self.end_lines());
        }
        if self.state == State::Trailers {
            self.lines.count += 1;
            split(line)?;
        } else if self.lines.count == 0 {
            self.head.http_1_0 = request_line(line, self.bounds.target)?;
            self.lines.count = 1;
        } else {
            if self.lines.count > self.bounds.fields {
                return Err(ClientFault::TooManyFields);
            }
            self.head.field(line)?;
            self.lines.count += 1;
        }
        Ok(false)
    }

    /// An empty line ends a head or trailers; before a request it means nothing (RFC 9112 section 2.2).
    fn end_lines(&mut self) -> bool {
        if self.state == State::Trailers {
            self.lines = Lines::default();
            self.state = State::Head;
            return false;
        }
        if self.lines.count == 0 {
            return false;
        }
        self.lines = Lines::default();
        self.heads += 1;
        let head = std::mem::take(&mut self.head);
        self.state = match (head.chunked, head.length) {
            (true, _) => State::Size {
                size: 0,
                digits: 0,
                part: SizePart::Digits,
            },
            (false, None | Some(0)) => State::Head,
            (false, Some(length)) => State::Length(length),
        };
        head.upgrade && self.state == State::Head
    }

    /// Takes one byte of a chunk's framing.
    fn chunk(&mut self, rest: &[u8]) -> Step {
        let byte = rest.first().copied().unwrap_or_default();
        let next = match self.state {
            State::DataEnd(2) if byte == b'\r' => Some(State::DataEnd(1)),
            State::DataEnd(1) if byte == b'\n' => Some(State::Size {
                size: 0,
                digits: 0,
                part: SizePart::Digits,
            }),
            State::Size { size, digits, part } => self.size(size, digits, part, byte),
            _ => None,
        };
        match next {
            Some(next) => {
                self.state = next;
                Step::Taken(1)
            }
            None => Step::Fault(ClientFault::Framing, b""),
        }
    }

    fn size(&mut self, size: u64, digits: u8, part: SizePart, byte: u8) -> Option<State> {
        let with = |part| State::Size { size, digits, part };
        match (part, byte) {
            (SizePart::End, b'\n') if size == 0 => {
                // The bound holds for all extensions of a body together.
                self.lines = Lines::default();
                Some(State::Trailers)
            }
            (SizePart::End, b'\n') => Some(State::Data(size)),
            (SizePart::End, _) => None,
            (_, b'\r') if digits > 0 => Some(with(SizePart::End)),
            (SizePart::Digits, b';') if digits > 0 => Some(with(SizePart::Extension)),
            (SizePart::Extension, byte) if !is_control(byte) => {
                self.lines.bytes += 1;
                (self.lines.bytes <= MAX_EXTENSIONS).then(|| with(SizePart::Extension))
            }
            (SizePart::Digits, byte) if digits < MAX_DIGITS => {
                let digit = char::from(byte).to_digit(16)?;
                Some(State::Size {
                    size: size * 16 + u64::from(digit),
                    digits: digits + 1,
                    part: SizePart::Digits,
                })
            }
            _ => None,
        }
    }
}

impl Head {
    /// Takes a line's field, and looks closer if it is about framing.
    fn field(&mut self, line: &[u8]) -> Result<(), ClientFault> {
        let (name, value) = split(line)?;
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() || self.chunked {
                    return Err(ClientFault::Framing);
                }
                self.length = Some(length(value).ok_or(ClientFault::Framing)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.length.is_some() || self.chunked || self.http_1_0 {
                    return Err(ClientFault::Framing);
                }
                if !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(ClientFault::Coding);
                }
                self.chunked = true;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = !self.http_1_0,
            _ => {}
        }
        Ok(())
    }
}

/// A decimal number below 2^63, and nothing else.
fn length(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(digits).ok()?.parse::<u64>().ok()?;
    (number < 1 << 63).then_some(number)
}

/// Name and value of a field's line: a token, a colon right behind it, and no control character but tabs.
fn split(line: &[u8]) -> Result<(&[u8], &[u8]), ClientFault> {
    let colon = line.iter().position(|byte| !is_token(*byte));
    let (name, rest) = line
        .split_at_checked(colon.unwrap_or(0))
        .ok_or(ClientFault::Head)?;
    match rest {
        [b':', value @ ..] if !name.is_empty() && !value.iter().copied().any(is_control) => {
            Ok((name, value))
        }
        _ => Err(ClientFault::Head),
    }
}

/// Checks a request line (RFC 9112 section 3) and says whether it is HTTP/1.0.
fn request_line(line: &[u8], max_target: usize) -> Result<bool, ClientFault> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(ClientFault::Head);
    };
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Err(ClientFault::Head);
    }
    if method.len() > MAX_METHOD {
        return Err(ClientFault::UnknownMethod);
    }
    if target.len() > max_target {
        return Err(ClientFault::TargetTooLong);
    }
    check_target(method, target)?;
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(ClientFault::Version)
        }
        _ => Err(ClientFault::Head),
    }
}

/// Checks a target's form and characters. A fragment has no place in it, and the parser would drop it in silence.
fn check_target(method: &[u8], target: &[u8]) -> Result<(), ClientFault> {
    let form = match target {
        [b'/', ..] => true,
        b"*" => method == b"OPTIONS",
        _ => method == b"CONNECT" || is_absolute(target),
    };
    // What the parser takes (it knows no `<`, `>`, `` ` `` and the like), and no `#`.
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

/// What makes a whole head of so many whole lines and the beginning of another.
fn tail(lines: usize, partial: &[u8]) -> &'static [u8] {
    match (lines, partial) {
        (0, []) => b"- / HTTP/1.1\r\n\r\n",
        (0, [b'\r']) => b"\n- / HTTP/1.1\r\n\r\n",
        (_, []) => b"\r\n",
        (_, [b'\r']) => b"\n",
        (_, [.., b'\r']) => b"\n\r\n",
        (0, _) => match partial.iter().filter(|byte| **byte == b' ').count() {
            0 => b" / HTTP/1.1\r\n\r\n",
            1 if partial.ends_with(b" ") => b"/ HTTP/1.1\r\n\r\n",
            1 => b" HTTP/1.1\r\n\r\n",
            _ => version_tail(partial),
        },
        (_, _) if partial.contains(&b':') => b"\r\n\r\n",
        (_, _) => b":\r\n\r\n",
    }
}

/// What makes a whole head of a request line that ends in its version. One that is none is left to the parser to refuse.
fn version_tail(line: &[u8]) -> &'static [u8] {
    const VERSION: &[u8] = b"HTTP/1.1\r\n\r\n";
    let begun = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    let rest = VERSION.strip_prefix(begun);
    rest.filter(|rest| rest.len() >= 4).unwrap_or(b"\r\n\r\n")
}

/// What may stand in a token (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            #[expect(clippy::cast_possible_truncation, reason = "below 256")]
            let it = byte as u8;
            #[expect(clippy::indexing_slicing, reason = "below 256")]
            {
                table[byte] = it.is_ascii_alphanumeric()
                    || matches!(
                        it,
                        b'!' | b'#'
                            | b'$'
                            | b'%'
                            | b'&'
                            | b'\''
                            | b'*'
                            | b'+'
                            | b'-'
                            | b'.'
                            | b'^'
                            | b'_'
                            | b'`'
                            | b'|'
                            | b'~'
                    );
            }
            byte += 1;
        }
        table
    };
    TOKEN.get(usize::from(byte)).copied().unwrap_or_default()
}

/// What may not stand in a value (RFC 9110 section 5.5): control characters but the tab.
fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7F
}

#[cfg(test)]
#[path = "h1_guard_tests.rs"]
mod tests;

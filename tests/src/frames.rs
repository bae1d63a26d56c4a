//! A client of HTTP/2 that sends frames as they are told to be, right or wrong (RFC 9113), and shows the frames that
//! come. Of hpack (RFC 7541) it knows what it takes to say anything and to read a status.

use std::fmt;
use std::net::SocketAddr;

use crate::wire::Wire;

/// What HTTP/2 begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// Of SETTINGS and PING.
pub const ACK: u8 = 1;
/// Of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;
/// Of DATA and HEADERS.
pub const PADDED: u8 = 8;
/// Of HEADERS.
pub const WITH_PRIORITY: u8 = 0x20;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A field: its name and its value.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// What every request needs.
pub const GET: [Field<'static>; 4] = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"h"),
    (b":path", b"/"),
];

/// The same for one with a body.
pub const POST: [Field<'static>; 4] = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"h"),
    (b":path", b"/"),
];

/// A frame that came.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What became of a stream, or of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was answered.
    Answered(u16),
    /// It was reset with this code.
    Reset(u32),
    /// The connection was ended with this code.
    GoAway(u32),
    /// The connection was closed without a word.
    Closed,
}

/// A connection.
#[derive(Debug)]
pub struct Http2 {
    wire: Wire,
    decoder: Decoder,
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// SETTINGS with these values.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in values {
        payload.extend(name.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

/// HEADERS with a whole block.
pub fn headers(flags: u8, stream: u32, fields: &[Field<'_>]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &block(fields))
}

/// WINDOW_UPDATE.
pub fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// RST_STREAM.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// A header block of literal fields without indexing (RFC 7541 section 6.2.2).
pub fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        string(&mut bytes, name);
        string(&mut bytes, value);
    }
    bytes
}

/// A literal field that goes into the dynamic table (RFC 7541 section 6.2.1).
pub fn indexed_literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x40];
    string(&mut bytes, name);
    string(&mut bytes, value);
    bytes
}

/// A string without Huffman coding (RFC 7541 section 5.2).
fn string(bytes: &mut Vec<u8>, text: &[u8]) {
    let length = text.len();
    if length < 127 {
        bytes.push(u8::try_from(length).unwrap());
    } else {
        bytes.push(127);
        let mut rest = length - 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
    }
    bytes.extend(text);
}

impl Frame {
    /// The code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// Whether it ends its stream.
    pub fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "frame {} of stream {}, flags {:#x}, {} bytes",
            self.kind,
            self.stream,
            self.flags,
            self.payload.len()
        )
    }
}

impl Http2 {
    /// Connects, begins and acknowledges.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::with_settings(address, &[]).await
    }

    /// The same with settings of its own.
    pub async fn with_settings(address: SocketAddr, values: &[(u16, u32)]) -> Self {
        let mut connection = Self::silent(address).await;
        connection.begin(values).await;
        connection
    }

    /// Begins, with these settings, and acknowledges.
    ///
    /// # Panics
    /// If the other side does not.
    pub async fn begin(&mut self, values: &[(u16, u32)]) {
        self.send([PREFACE, &settings(values)].concat()).await;
        let first = self.next().await.expect("the other side's settings");
        assert_eq!((first.kind, first.flags & ACK), (SETTINGS, 0), "{first:?}");
        self.send(frame(SETTINGS, ACK, 0, &[])).await;
    }

    /// Connects and sends nothing.
    pub async fn silent(address: SocketAddr) -> Self {
        Self::over(Wire::connect(address).await)
    }

    /// Takes a connection on which nothing was sent.
    pub fn over(wire: Wire) -> Self {
        Http2 {
            wire,
            decoder: Decoder::default(),
        }
    }

    /// Sends bytes; the other side must take them.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes).await;
    }

    /// Sends bytes to somebody who may have closed. Says whether they were taken.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.try_send(bytes).await.is_ok()
    }

    /// Sends a GET of this target.
    pub async fn get(&mut self, stream: u32, target: &str) {
        let mut fields = GET;
        fields[3].1 = target.as_bytes();
        self.send(headers(END_STREAM, stream, &fields)).await;
    }

    /// The next frame; none if the connection ends. A PING is answered.
    pub async fn next(&mut self) -> Option<Frame> {
        let head = self.wire.try_read_exact(9).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let payload = self.wire.try_read_exact(length as usize).await.ok()?;
        if head[3] == PING && head[4] & ACK == 0 {
            // Nobody who waits for the answer has to be told that none comes.
            let _gone = self.wire.try_send(frame(PING, ACK, 0, &payload)).await;
        }
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & (u32::MAX >> 1),
            payload,
        })
    }

    /// Reads until it is clear what becomes of a stream.
    pub async fn fate(&mut self, stream: u32) -> Fate {
        while let Some(frame) = self.next().await {
            if let Some(fate) = self.judge(&frame, stream) {
                return fate;
            }
        }
        Fate::Closed
    }

    /// Reads until the connection ends; streams may be answered or reset meanwhile.
    pub async fn end(&mut self) -> Fate {
        let mut end = Fate::Closed;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                end = Fate::GoAway(frame.code());
            }
        }
        end
    }

    /// Reads the whole answer of a stream, giving window as it goes.
    ///
    /// # Panics
    /// If it breaks off.
    pub async fn answer(&mut self, stream: u32) -> (u16, Vec<u8>) {
        let mut status = None;
        let mut body = Vec::new();
        loop {
            let frame = self.next().await.expect("the connection to go on");
            assert_ne!(frame.kind, GOAWAY, "code {}", frame.code());
            match self.judge(&frame, stream) {
                Some(Fate::Answered(code)) => status = status.or(Some(code)),
                Some(other) => panic!("stream {stream}: {other:?}"),
                None => {}
            }
            if frame.stream != stream {
                continue;
            }
            if frame.kind == DATA {
                body.extend(&frame.payload);
                if let Some(by) = u32::try_from(frame.payload.len()).ok().filter(|by| *by > 0) {
                    let more = [window(0, by), window(stream, by)].concat();
                    self.send(more).await;
                }
            }
            if frame.ends() {
                return (status.expect("a status"), body);
            }
        }
    }

    /// Sends a PING and reads until it is answered: everything before it was taken. Says what happened to the
    /// connection instead, if something did.
    pub async fn sync(&mut self) -> Result<(), Fate> {
        if !self.try_send(frame(PING, 0, 0, b"sync-now")).await {
            return Err(self.end().await);
        }
        while let Some(frame) = self.next().await {
            match frame.kind {
                PING if frame.payload == b"sync-now" => return Ok(()),
                GOAWAY => return Err(Fate::GoAway(frame.code())),
                HEADERS => {
                    self.decoder.status(&frame.payload);
                }
                _ => {}
            }
        }
        Err(Fate::Closed)
    }

    fn judge(&mut self, frame: &Frame, stream: u32) -> Option<Fate> {
        match frame.kind {
            HEADERS => {
                let status = self.decoder.status(&frame.payload);
                (frame.stream == stream).then_some(Fate::Answered(status.unwrap_or(0)))
            }
            RST_STREAM if frame.stream == stream => Some(Fate::Reset(frame.code())),
            GOAWAY => Some(Fate::GoAway(frame.code())),
            _ => None,
        }
    }
}

/// Reads header blocks, of which it understands `:status`.
#[derive(Debug, Default)]
struct Decoder {
    /// The dynamic table, the newest first: a status, or none for every other field.
    table: Vec<Option<u16>>,
}

impl Decoder {
    /// The status in a block.
    fn status(&mut self, block: &[u8]) -> Option<u16> {
        let mut bytes = block;
        let mut status = None;
        while let Some(first) = bytes.first().copied() {
            let found = match first {
                0x80.. => {
                    let index = integer(&mut bytes, 7);
                    self.indexed(index)
                }
                0x40.. => {
                    let field = literal(&mut bytes, 6);
                    self.table.insert(0, field);
                    field
                }
                0x20.. => {
                    integer(&mut bytes, 5);
                    None
                }
                _ => literal(&mut bytes, 4),
            };
            status = status.or(found);
        }
        status
    }

    fn indexed(&self, index: usize) -> Option<u16> {
        match index {
            8..=14 => Some([200, 204, 206, 304, 400, 404, 500][index - 8]),
            62.. => self.table.get(index - 62).copied().flatten(),
            _ => None,
        }
    }
}

/// A literal field, if it is `:status`, which is named by an index of the static table.
fn literal(bytes: &mut &[u8], prefix: u8) -> Option<u16> {
    let index = integer(bytes, prefix);
    if index == 0 {
        text(bytes);
    }
    let (huffman, value) = text(bytes);
    if !(8..=14).contains(&index) {
        return None;
    }
    if huffman {
        digits(&value)
    } else {
        String::from_utf8_lossy(&value).parse().ok()
    }
}

/// A number (RFC 7541 section 5.1).
fn integer(bytes: &mut &[u8], prefix: u8) -> usize {
    let most = (1_usize << prefix) - 1;
    let mut number = usize::from(bytes[0]) & most;
    *bytes = &bytes[1..];
    if number == most {
        let mut shift = 0;
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            number += usize::from(byte & 127) << shift;
            shift += 7;
            if byte < 128 {
                break;
            }
        }
    }
    number
}

fn text(bytes: &mut &[u8]) -> (bool, Vec<u8>) {
    let huffman = bytes[0] & 0x80 != 0;
    let length = integer(bytes, 7);
    let (value, rest) = bytes.split_at(length);
    *bytes = rest;
    (huffman, value.to_vec())
}

/// Digits in Huffman's code (RFC 7541 appendix B): five bits for 0 to 2, six for the others.
fn digits(bytes: &[u8]) -> Option<u16> {
    let bit = |at: usize| -> Option<u16> {
        bytes
            .get(at / 8)
            .map(|byte| u16::from(byte >> (7 - at % 8) & 1))
    };
    let mut number = 0;
    let mut at = 0;
    for _ in 0..3 {
        let mut code = 0;
        for _ in 0..5 {
            code = code << 1 | bit(at)?;
            at += 1;
        }
        let digit = if code < 3 {
            code
        } else {
            code = code << 1 | bit(at)?;
            at += 1;
            code.checked_sub(0b01_1001)? + 3
        };
        number = number * 10 + digit;
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_however_it_is_written() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.status(&[0x88]), Some(200));
        assert_eq!(decoder.status(b"\x48\x03403"), Some(403));
        assert_eq!(decoder.status(&[0xbe]), Some(403));
        // "302" is 64 02 in Huffman's code (RFC 7541 appendix C.6.1).
        assert_eq!(decoder.status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
        assert_eq!(decoder.status(&[0xbf]), Some(403));
    }

    #[test]
    fn a_long_string_says_its_length() {
        let bytes = block(&[(b"a", &[b'x'; 300])]);
        assert_eq!(&bytes[..6], [0, 1, b'a', 127, 0xad, 1]);
        assert_eq!(bytes.len(), 306);
    }
}

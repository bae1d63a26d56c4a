//! A body's bytes out of a connection's (RFC 9112 sections 6 and 7): by length, in chunks, or to the end. Reads no socket.

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::line;

/// The most bytes of chunk extensions in one body.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// The most bytes of trailers.
const MAX_TRAILERS: usize = 16 * 1024;
/// The most trailers.
const MAX_TRAILER_FIELDS: usize = 64;
/// The most digits of a chunk's size: below 2^60.
const MAX_DIGITS: u8 = 15;

/// How a body is framed, and how much of it is still to come.
#[derive(Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks, and trailers behind them.
    Chunked(Chunked),
    /// All that comes.
    UntilClose,
}

/// Where in its chunks a body is.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunked {
    at: At,
    /// Bytes of extensions so far.
    extensions: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum At {
    /// In a size line, behind so many digits.
    Size {
        size: u64,
        digits: u8,
    },
    Extension(u64),
    /// Behind the CR of a size line.
    SizeEnd(u64),
    Data(u64),
    DataEnd,
    /// Behind the CR that follows data.
    DataEndLine,
    Trailers,
    Over,
}

/// Why bytes are no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    /// What stands around the data of a chunk is not what must stand there.
    Chunk,
    /// The extensions of all chunks together are over 16 KiB.
    Extensions,
    /// A trailer's line is none.
    Trailer,
    /// More than 64 trailers, or more than 16 KiB of them.
    TooManyTrailers,
}

impl FramingError {
    /// What is wrong, for a log.
    pub const fn text(self) -> &'static str {
        match self {
            FramingError::Chunk => "the chunks are not valid",
            FramingError::Extensions => "the chunk extensions are too long",
            FramingError::Trailer => "a trailer is not valid",
            FramingError::TooManyTrailers => "too many trailers",
        }
    }
}

/// What a look at the bytes brings.
#[derive(Debug)]
pub enum Piece {
    /// More bytes are needed.
    More,
    /// Some of the body.
    Data(Bytes),
    /// The end; with trailers, if there are any.
    End(Option<HeaderMap>),
}

impl Framing {
    /// A body in chunks, at its beginning.
    pub fn chunked() -> Self {
        Framing::Chunked(Chunked {
            at: At::Size { size: 0, digits: 0 },
            extensions: 0,
        })
    }

    /// Whether nothing is to come.
    pub fn is_over(&self) -> bool {
        match self {
            Framing::Length(left) => *left == 0,
            Framing::Chunked(chunked) => chunked.at == At::Over,
            Framing::UntilClose => false,
        }
    }

    /// The length, if it is known.
    pub fn exact(&self) -> Option<u64> {
        match self {
            Framing::Length(left) => Some(*left),
            Framing::Chunked(_) | Framing::UntilClose => None,
        }
    }

    /// Takes the next piece out of what was read.
    ///
    /// # Errors
    /// The framing is broken.
    pub fn next(&mut self, read: &mut BytesMut) -> Result<Piece, FramingError> {
        match self {
            Framing::Length(0) => Ok(Piece::End(None)),
            Framing::Length(left) => Ok(take(read, left)),
            Framing::Chunked(chunked) => chunked.next(read),
            Framing::UntilClose => {
                let mut all = u64::MAX;
                Ok(take(read, &mut all))
            }
        }
    }
}

/// Takes up to so many bytes.
fn take(read: &mut BytesMut, left: &mut u64) -> Piece {
    if read.is_empty() {
        return Piece::More;
    }
    let here = usize::try_from(*left).map_or(read.len(), |left| left.min(read.len()));
    *left -= here as u64;
    Piece::Data(read.split_to(here).freeze())
}

impl Chunked {
    fn next(&mut self, read: &mut BytesMut) -> Result<Piece, FramingError> {
        loop {
            match &mut self.at {
                At::Data(left) => {
                    let piece = take(read, left);
                    if *left == 0 {
                        self.at = At::DataEnd;
                    }
                    return Ok(piece);
                }
                At::Trailers => {
                    let trailers = trailers(read)?;
                    if !matches!(trailers, Piece::More) {
                        self.at = At::Over;
                    }
                    return Ok(trailers);
                }
                At::Over => return Ok(Piece::End(None)),
                _ => {}
            }
            let Some(&byte) = read.first() else {
                return Ok(Piece::More);
            };
            read.advance(1);
            self.step(byte)?;
        }
    }

    /// One byte of what stands around the data.
    fn step(&mut self, byte: u8) -> Result<(), FramingError> {
        self.at = match (&self.at, byte) {
            (At::Size { size, digits }, _) if byte.is_ascii_hexdigit() && *digits < MAX_DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                At::Size {
                    size: size << 4 | u64::from(digit),
                    digits: digits + 1,
                }
            }
            (At::Size { size, digits: 1.. }, b'\r') => At::SizeEnd(*size),
            (At::Size { size, digits: 1.. }, b';') => At::Extension(*size),
            (At::Extension(size), b'\r') => At::SizeEnd(*size),
            (At::Extension(size), _) if !line::is_control(byte) => {
                self.extensions += 1;
                if self.extensions > MAX_EXTENSIONS {
                    return Err(FramingError::Extensions);
                }
                At::Extension(*size)
            }
            (At::SizeEnd(0), b'\n') => At::Trailers,
            (At::SizeEnd(size), b'\n') => At::Data(*size),
            (At::DataEnd, b'\r') => At::DataEndLine,
            (At::DataEndLine, b'\n') => At::Size { size: 0, digits: 0 },
            _ => return Err(FramingError::Chunk),
        };
        Ok(())
    }
}

/// The trailers, once they are whole. Lines are judged as they come, so that what is none is not waited for.
fn trailers(read: &mut BytesMut) -> Result<Piece, FramingError> {
    let mut fields: Option<HeaderMap> = None;
    let mut at = 0;
    let mut count = 0;
    while let Some(rest) = read.get(at..)
        && let Some(length) = rest.iter().position(|byte| *byte == b'\n')
    {
        let line = rest.get(..length).and_then(|line| line.strip_suffix(b"\r"));
        let line = line.ok_or(FramingError::Trailer)?;
        at += length + 1;
        if at > MAX_TRAILERS {
            return Err(FramingError::TooManyTrailers);
        }
        if line.is_empty() {
            read.advance(at);
            return Ok(Piece::End(fields));
        }
        let (name, value) = line::split(line).ok_or(FramingError::Trailer)?;
        let name = HeaderName::from_bytes(name).map_err(|_| FramingError::Trailer)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| FramingError::Trailer)?;
        fields.get_or_insert_default().append(name, value);
        count += 1;
        if count > MAX_TRAILER_FIELDS {
            return Err(FramingError::TooManyTrailers);
        }
    }
    if read.len() > MAX_TRAILERS {
        return Err(FramingError::TooManyTrailers);
    }
    Ok(Piece::More)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything out of bytes that come in pieces of a size, and what is left behind the end.
    fn decode(
        mut framing: Framing,
        bytes: &[u8],
        size: usize,
    ) -> Result<(Vec<u8>, Option<HeaderMap>, usize), &'static str> {
        let mut read = BytesMut::new();
        let mut pieces = bytes.chunks(size);
        let mut body = Vec::new();
        loop {
            match framing.next(&mut read).map_err(FramingError::text)? {
                Piece::More => match pieces.next() {
                    Some(piece) => read.extend_from_slice(piece),
                    None => return Err("truncated"),
                },
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::End(trailers) => {
                    assert!(framing.is_over());
                    let left = read.len() + pieces.map(<[u8]>::len).sum::<usize>();
                    return Ok((body, trailers, left));
                }
            }
        }
    }

    #[test]
    fn chunks_are_the_same_however_they_come() {
        let bytes = b"4\r\nwiki\r\n5;a=b;c=\"d\"\r\npedia\r\n00\r\nSum: 1\r\nsum: 2\r\n\r\nrest";
        for size in 1..bytes.len() {
            let (body, trailers, left) = decode(Framing::chunked(), bytes, size).unwrap();
            assert_eq!((&*body, left), (&b"wikipedia"[..], 4));
            assert_eq!(trailers.unwrap().get_all("sum").iter().count(), 2);
        }
        let (body, trailers, left) = decode(Framing::chunked(), b"0\r\n\r\n", 1).unwrap();
        assert!(body.is_empty() && trailers.is_none() && left == 0);
    }

    #[test]
    fn chunks_that_could_be_read_in_two_ways_are_refused() {
        for bytes in [
            &b"\r\n"[..],
            b"0x3\r\nabc\r\n",
            b"+3\r\nabc\r\n",
            b"-1\r\n",
            b"3_0\r\n",
            b" 3\r\nabc\r\n",
            b"3 \r\nabc\r\n",
            b"3\nabc\r\n",
            b"3;a\nb\r\nabc\r\n",
            b"3\r\nabcXX0\r\n",
            b"3\r\nabc\n0\r\n",
            b"f0000000000000003\r\n",
            b"0\r\na b: c\r\n\r\n",
            b"0\r\n: c\r\n\r\n",
        ] {
            assert!(decode(Framing::chunked(), bytes, 3).is_err(), "{bytes:?}");
        }
        let long = [b"1;", &[b'x'; MAX_EXTENSIONS + 1][..], b"\r\na\r\n"].concat();
        assert!(decode(Framing::chunked(), &long, 1024).is_err());
        let many = [b"0\r\n", b"a: b\r\n".repeat(65).as_slice(), b"\r\n"].concat();
        assert!(decode(Framing::chunked(), &many, 1024).is_err());
        let wide = [b"0\r\na: ", &[b'x'; MAX_TRAILERS][..]].concat();
        assert!(decode(Framing::chunked(), &wide, 1024).is_err());
    }

    #[test]
    fn a_length_is_met_exactly() {
        let (body, _, left) = decode(Framing::Length(4), b"bodyrest", 3).unwrap();
        assert_eq!((&*body, left), (&b"body"[..], 4));
        assert_eq!(decode(Framing::Length(4), b"bod", 3), Err("truncated"));
        assert!(!Framing::UntilClose.is_over());
    }
}

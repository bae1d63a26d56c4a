//! A body's bytes out of a connection's (RFC 9112 sections 6 and 7): by length, in chunks, or to the end. Strict: whatever two
//! readers could read in two ways is refused. Reads no socket.

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use httparse::Status;

use super::parse::Invalid;

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
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    Chunked(Chunked),
    /// All that comes.
    UntilClose,
}

/// Where in its chunks a body is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunked {
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

/// What a look at the bytes brings.
#[derive(Debug)]
pub(super) enum Piece {
    /// More bytes are needed.
    More,
    Data(Bytes),
    /// The end; with trailers, if there are any.
    End(Option<HeaderMap>),
}

impl Framing {
    pub(super) fn chunked() -> Self {
        Framing::Chunked(Chunked {
            at: At::Size { size: 0, digits: 0 },
            extensions: 0,
        })
    }

    /// Whether nothing is to come.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Framing::Length(left) => *left == 0,
            Framing::Chunked(chunked) => chunked.at == At::Over,
            Framing::UntilClose => false,
        }
    }

    /// The length, if it is known.
    pub(crate) fn exact(&self) -> Option<u64> {
        match self {
            Framing::Length(left) => Some(*left),
            Framing::Chunked(_) | Framing::UntilClose => None,
        }
    }

    /// Takes the next piece out of what was read.
    ///
    /// # Errors
    /// The framing is broken.
    pub(super) fn next(&mut self, read: &mut BytesMut) -> Result<Piece, Invalid> {
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
    fn next(&mut self, read: &mut BytesMut) -> Result<Piece, Invalid> {
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
    fn step(&mut self, byte: u8) -> Result<(), Invalid> {
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
            (At::Extension(size), _) if byte != b'\n' && byte != 0 => {
                self.extensions += 1;
                if self.extensions > MAX_EXTENSIONS {
                    return Err("the chunk extensions are too long");
                }
                At::Extension(*size)
            }
            (At::SizeEnd(0), b'\n') => At::Trailers,
            (At::SizeEnd(size), b'\n') => At::Data(*size),
            (At::DataEnd, b'\r') => At::DataEndLine,
            (At::DataEndLine, b'\n') => At::Size { size: 0, digits: 0 },
            _ => return Err("the chunks are not valid"),
        };
        Ok(())
    }
}

/// The trailers, once they are whole.
fn trailers(read: &mut BytesMut) -> Result<Piece, Invalid> {
    if read.starts_with(b"\r\n") {
        read.advance(2);
        return Ok(Piece::End(None));
    }
    let mut slots = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    match httparse::parse_headers(read, &mut slots) {
        Ok(Status::Complete((length, headers))) => {
            let mut fields = HeaderMap::with_capacity(headers.len());
            for header in headers {
                let name = HeaderName::from_bytes(header.name.as_bytes());
                let value = HeaderValue::from_bytes(header.value);
                let (Ok(name), Ok(value)) = (name, value) else {
                    return Err("a trailer is not valid");
                };
                fields.append(name, value);
            }
            read.advance(length);
            Ok(Piece::End(Some(fields)))
        }
        Ok(Status::Partial) if read.len() < MAX_TRAILERS => Ok(Piece::More),
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => Err("too many trailers"),
        Err(_) => Err("the trailers are not valid"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything out of bytes that come in pieces of a size, and what is left behind the end.
    fn decode(
        mut framing: Framing,
        bytes: &[u8],
        size: usize,
    ) -> Result<(Vec<u8>, Option<HeaderMap>, usize), Invalid> {
        let mut read = BytesMut::new();
        let mut pieces = bytes.chunks(size);
        let mut body = Vec::new();
        loop {
            match framing.next(&mut read)? {
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

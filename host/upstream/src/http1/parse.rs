//! A response's head from its bytes (RFC 9112 sections 4 and 5): status, fields, how the body is framed, and whether the
//! connection lives on. What is no HTTP/1 is refused. Reads no socket.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use httparse::{Header, ParserConfig, Status};
use tidegate_core::http1::framing::Framing;
use tidegate_core::http1::spare;
use tidegate_core::survey::Survey;

use crate::message;
use crate::upstream::HeadBounds;

/// A response's head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) fields: HeaderMap,
    /// Which of the fields that mean something to a proxy it has.
    pub(super) seen: Survey,
    /// Whether it is of HTTP/1.1, not 1.0.
    pub(super) is_11: bool,
}

/// What was read so far is no response.
pub(super) type Invalid = &'static str;

/// Where the head ends that `bytes` begin with. `searched` bytes were searched before.
pub(super) fn end_of_head(bytes: &[u8], searched: usize) -> Option<usize> {
    // The end may have begun in what was searched.
    let from = searched.saturating_sub(2);
    let fresh = bytes.get(from..)?;
    memchr::memchr_iter(b'\n', fresh).find_map(|at| {
        let end = from + at + 1;
        let rest = bytes.get(end..)?;
        if rest.starts_with(b"\n") {
            Some(end + 1)
        } else if rest.starts_with(b"\r\n") {
            Some(end + 2)
        } else {
            None
        }
    })
}

/// Looks whether bytes can be the beginning of a head of so many fields at the most.
///
/// # Errors
/// They can't.
pub(super) fn begins(bytes: &[u8], fields: usize) -> Result<(), Invalid> {
    let mut slots = [const { MaybeUninit::<Header<'_>>::uninit() }; HeadBounds::MOST_FIELDS];
    parsed(bytes, first(&mut slots, fields)).map(drop)
}

/// Reads a head of so many fields at the most.
///
/// # Errors
/// It is none.
pub(super) fn head(bytes: &Bytes, fields: usize) -> Result<Head, Invalid> {
    let mut slots = [const { MaybeUninit::<Header<'_>>::uninit() }; HeadBounds::MOST_FIELDS];
    let (status, response) = parsed(bytes, first(&mut slots, fields))?;
    if status.is_partial() {
        return Err("the head is not valid");
    }
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or("the status is no number from 100 to 999")?;
    let mut fields = spare::take();
    for header in response.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let name = name.map_err(|_| "a field's name is not valid")?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(header.value));
        let value = value.map_err(|_| "a field's value is not valid")?;
        fields.append(name, value);
    }
    Ok(Head {
        status,
        seen: Survey::of(&fields),
        fields,
        is_11: response.version == Some(1),
    })
}

/// The first so many, or all.
fn first<T>(all: &mut [T], count: usize) -> &mut [T] {
    let count = count.min(all.len());
    all.split_at_mut(count).0
}

fn parsed<'h, 'b>(
    bytes: &'b [u8],
    slots: &'h mut [MaybeUninit<Header<'b>>],
) -> Result<(Status<usize>, httparse::Response<'h, 'b>), Invalid> {
    let mut response = httparse::Response::new(&mut []);
    let parsed =
        ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, slots);
    match parsed {
        Ok(status) => Ok((status, response)),
        Err(httparse::Error::TooManyHeaders) => Err("too many fields"),
        Err(httparse::Error::Version) => Err("not HTTP/1.0 or HTTP/1.1"),
        Err(httparse::Error::Status) => Err("the status line is not valid"),
        Err(_) => Err("the head is not valid"),
    }
}

impl Head {
    /// Whether it only announces the response (RFC 9110 section 15.2).
    pub(super) fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }

    /// How the body is framed (RFC 9112 section 6.3).
    ///
    /// # Errors
    /// It could be read in two ways, or in none.
    pub(super) fn framing(&self, method: &Method) -> Result<Framing, Invalid> {
        let framed = Survey::CONTENT_LENGTH.and(Survey::TRANSFER_ENCODING);
        let length = if self.seen.has(framed) {
            message::check_framing(&self.fields)?
        } else {
            None
        };
        let chunked = self.seen.has(Survey::TRANSFER_ENCODING);
        if chunked && !self.is_11 {
            return Err("Transfer-Encoding stands in HTTP/1.0");
        }
        let bodiless = *method == Method::HEAD
            || self.status.is_informational()
            || matches!(
                self.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        if bodiless {
            return Ok(Framing::Length(0));
        }
        if chunked {
            return Ok(Framing::chunked());
        }
        Ok(length.map_or(Framing::UntilClose, Framing::Length))
    }

    /// Whether the upstream keeps the connection (RFC 9112 section 9.3).
    pub(super) fn keeps_alive(&self) -> bool {
        if !self.seen.has(Survey::CONNECTION) {
            return self.is_11;
        }
        let has = |option: &str| {
            self.fields.get_all(CONNECTION).iter().any(|value| {
                let text = value.to_str().unwrap_or_default();
                text.split(',')
                    .any(|token| token.trim().eq_ignore_ascii_case(option))
            })
        };
        !has("close") && (self.is_11 || has("keep-alive"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Head {
        assert_eq!(end_of_head(text.as_bytes(), 0), Some(text.len()));
        head(&Bytes::copy_from_slice(text.as_bytes()), 256).unwrap()
    }

    #[test]
    fn a_head_is_read_to_its_end_and_no_further() {
        let head = whole("HTTP/1.1 200 OK\r\nA: b\r\nA: c\r\n\r\n");
        assert_eq!(head.status, StatusCode::OK);
        assert_eq!(head.fields.get_all("a").iter().count(), 2);
        whole("HTTP/1.0 404\r\n\r\n");
        for text in [
            "HTTP/1.1 200 OK\r\na: b\r\n\r\nbody",
            "HTTP/1.1 200 OK\n\nbody",
        ] {
            let bytes = text.as_bytes();
            let length = bytes.len() - 4;
            for cut in 0..length {
                assert_eq!(end_of_head(&bytes[..cut], 0), None, "{cut}");
                assert_eq!(end_of_head(bytes, cut), Some(length), "{cut}");
                begins(&bytes[..cut], 256).unwrap();
            }
        }
    }

    #[test]
    fn what_is_no_head_is_refused_as_soon_as_it_can_be() {
        for text in [
            "SSH-2.0",
            "HTTP/2",
            "HTTP/1.1 2x",
            "\r\n<",
            "HTTP/1.1 200 OK\r\na b:",
        ] {
            assert!(begins(text.as_bytes(), 256).is_err(), "{text}");
        }
        for text in ["\r\n\r\n", "HTTP/1.1 099 Low\r\n\r\n"] {
            assert!(head(&Bytes::from_static(text.as_bytes()), 256).is_err());
        }
    }

    #[test]
    fn bodies_are_framed_as_the_head_says() {
        let framing = |text: &str, method| whole(text).framing(&method).unwrap();
        let length = "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n";
        assert_eq!(framing(length, Method::GET), Framing::Length(12));
        assert_eq!(framing(length, Method::HEAD), Framing::Length(0));
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(framing(chunked, Method::GET), Framing::chunked());
        let bare = "HTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(framing(bare, Method::GET), Framing::UntilClose);
        for none in ["204 No Content", "304 Not Modified"] {
            let text = format!("HTTP/1.1 {none}\r\ncontent-length: 5\r\n\r\n");
            assert_eq!(framing(&text, Method::GET), Framing::Length(0));
        }
        let old = whole("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        assert!(old.framing(&Method::GET).is_err());
    }

    #[test]
    fn connections_live_on_as_their_version_says_unless_a_field_says_otherwise() {
        for (version, connection, expected) in [
            ("1.1", "", true),
            ("1.1", "connection: x, Close\r\n", false),
            ("1.0", "", false),
            ("1.0", "connection: Keep-Alive\r\n", true),
            ("1.0", "connection: keep-alive, close\r\n", false),
        ] {
            let text = format!("HTTP/{version} 200 OK\r\n{connection}\r\n");
            assert_eq!(whole(&text).keeps_alive(), expected, "{text}");
        }
    }
}

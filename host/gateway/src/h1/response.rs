//! A response on its way out: its head as it stands on the wire (RFC 9112 sections 4 and 6), then its body as it comes. Knows no
//! exchange.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use http::header::{self, HeaderMap};
use http::{Response, StatusCode, Version};
use http_body::Body as _;
use tidegate_core::body::Body;
use tidegate_core::clock;
use tidegate_core::http1::outgoing::{self, Frames, Outgoing};

use super::link::Link;

/// How much of a body is gathered before it is written.
const GATHER: usize = 16 * 1024;

/// What decides on the form of a response besides the response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) version: Version,
    /// Whether the request was HEAD.
    pub(super) is_head: bool,
    /// Whether the connection is to go on.
    pub(super) keeps: bool,
}

/// A response's head is written. Says how the body is framed, and whether the connection goes on behind it.
pub(super) fn head(out: &mut Outgoing, response: &Response<Body>, asked: Asked) -> (Frames, bool) {
    let status = response.status();
    let is_11 = asked.version == Version::HTTP_11;
    let line: &[u8] = if is_11 { b"HTTP/1.1 " } else { b"HTTP/1.0 " };
    let out = out.heads();
    out.reserve(512);
    out.extend_from_slice(line);
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut keeps = asked.keeps;
    let (mut announced, mut has_connection, mut has_date) = (None, false, false);
    for (name, value) in response.headers() {
        if *name == header::CONTENT_LENGTH {
            // Whoever set it has set a number.
            announced = Some(value.to_str().map_or(0, |text| text.parse().unwrap_or(0)));
        } else if *name == header::CONNECTION {
            has_connection = true;
            keeps &= !value.as_bytes().eq_ignore_ascii_case(b"close");
        } else if *name == header::DATE {
            has_date = true;
        }
        outgoing::field(out, name, value);
    }
    let bodiless = asked.is_head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let frames = match (bodiless, announced, response.body().size_hint().exact()) {
        (true, ..) => Frames::Length(0),
        (false, Some(length), _) => Frames::Length(length),
        (false, None, Some(length)) => {
            out.extend_from_slice(b"content-length: ");
            let mut digits = [0; 20];
            out.extend_from_slice(decimal(length, &mut digits));
            out.extend_from_slice(b"\r\n");
            Frames::Length(length)
        }
        (false, None, None) if is_11 => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Frames::Chunked
        }
        (false, None, None) => {
            keeps = false;
            Frames::UntilClose
        }
    };
    if !has_connection {
        match (keeps, is_11) {
            (false, true) => out.extend_from_slice(b"connection: close\r\n"),
            (true, false) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            _ => {}
        }
    }
    if !has_date {
        date(out);
    }
    out.extend_from_slice(b"\r\n");
    (frames, keeps)
}

/// A number's digits.
fn decimal(mut number: u64, space: &mut [u8; 20]) -> &[u8] {
    let mut at = space.len();
    for digit in space.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        at -= 1;
        if number == 0 {
            break;
        }
    }
    space.get(at..).unwrap_or_default()
}

/// Writes a Date field (RFC 9110 section 6.6.1: whoever forwards a response without one adds it).
fn date(out: &mut Vec<u8>) {
    /// The length of a date as HTTP writes it.
    const LENGTH: usize = 29;
    /// How late the date may be.
    const AGE: Duration = Duration::from_millis(500);
    thread_local! {
        static DATE: Cell<Option<(Instant, [u8; LENGTH])>> = const { Cell::new(None) };
    }
    let now = clock::turn();
    let known = DATE
        .get()
        .filter(|(since, _)| now.saturating_duration_since(*since) < AGE);
    let text = match known {
        Some((_, text)) => text,
        None => {
            let text = httpdate::fmt_http_date(SystemTime::now());
            let Ok(text) = <[u8; LENGTH]>::try_from(text.as_bytes()) else {
                return;
            };
            DATE.set(Some((now, text)));
            text
        }
    };
    out.extend_from_slice(b"date: ");
    out.extend_from_slice(&text);
    out.extend_from_slice(b"\r\n");
}

/// A response whose head is on its way.
#[derive(Debug)]
pub(super) struct Sending {
    /// None once all of it is gathered.
    body: Option<Body>,
    frames: Frames,
    broken: bool,
}

/// How a response left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Whole,
    /// It broke off: the client must not take it for whole.
    Broken,
    /// The client is gone.
    Gone,
}

impl Sending {
    pub(super) fn new(body: Body, frames: Frames, out: &mut Outgoing) -> Self {
        let ended = body.is_end_stream();
        Sending {
            broken: ended && out.end(frames, None).is_err(),
            body: (!ended).then_some(body),
            frames,
        }
    }

    /// Sends what can be sent.
    pub(super) fn poll(&mut self, link: &Link, cx: &mut Context<'_>) -> Poll<Left> {
        loop {
            let waits = self.gather(link, cx);
            let mut wire = link.wire.borrow_mut();
            match wire.poll_write(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(Left::Gone),
                Poll::Ready(Ok(())) if self.body.is_none() => {
                    return Poll::Ready(if self.broken {
                        Left::Broken
                    } else {
                        Left::Whole
                    });
                }
                Poll::Ready(Ok(())) if !waits => {}
                Poll::Ready(Ok(())) | Poll::Pending => {
                    return link.poll_ahead(&mut wire, cx).map(|()| Left::Gone);
                }
            }
        }
    }

    /// Puts what there is of the body behind what is to be written. Says whether there was no more.
    fn gather(&mut self, link: &Link, cx: &mut Context<'_>) -> bool {
        while let Some(body) = &mut self.body {
            if !link.wire.borrow().out.takes_more(GATHER) {
                return false;
            }
            // The body may read the request's: the wire is not held meanwhile.
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                return true;
            };
            let ended = body.is_end_stream();
            let out = &mut link.wire.borrow_mut().out;
            let put = match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
                Some(Ok(Ok(data))) => match out.piece(&mut self.frames, data) {
                    Ok(()) if !ended => continue,
                    Ok(()) => out.end(self.frames, None),
                    Err(detail) => Err(detail),
                },
                Some(Ok(Err(frame))) => {
                    let trailers: Option<HeaderMap> = frame.into_trailers().ok();
                    out.end(self.frames, trailers.as_ref())
                }
                None => out.end(self.frames, None),
                // Who made the body knows why.
                Some(Err(_)) => Err("the body broke off"),
            };
            self.broken = put.is_err();
            self.body = None;
        }
        false
    }
}

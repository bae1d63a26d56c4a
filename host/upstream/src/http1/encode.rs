//! A request as it stands on the wire (RFC 9112 section 3). Writes to no socket.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Request};
use http_body::Body as _;
use tidegate_core::body::Body;
use tidegate_core::http1::outgoing::{self, Frames, Outgoing};

use crate::error::{Failure, SendErrorKind};

/// Puts a request's head behind what is to be written.
///
/// # Errors
/// The fields say something else of the body than the body does.
pub(super) fn head(out: &mut Outgoing, request: &mut Request<Body>) -> Result<Frames, Failure> {
    let frames = frames(request)?;
    let out = out.heads();
    out.reserve(512);
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    let target = request.uri().path_and_query();
    let target = target.map_or("/", |target| target.as_str());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    outgoing::fields(out, request.headers());
    Ok(frames)
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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn written(outgoing: &mut Outgoing) -> String {
        let all = outgoing.slices().concat();
        outgoing.clear();
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
        let mut frames = head(
            &mut outgoing,
            &mut request(&[("host", "h")], Body::full("body")),
        )
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
            let frames = head(&mut outgoing, &mut request(fields, Body::Empty)).unwrap();
            assert_eq!(frames, Frames::Length(0));
            let expected = format!("POST /a?b HTTP/1.1\r\n{line}\r\n");
            assert_eq!(written(&mut outgoing), expected);
        }
    }

    #[test]
    fn what_is_announced_is_what_there_is() {
        let mut outgoing = Outgoing::default();
        let long = &[("content-length", "5")];
        assert!(head(&mut outgoing, &mut request(long, Body::full("body"))).is_err());
        assert!(head(&mut outgoing, &mut request(long, Body::Empty)).is_err());
    }
}

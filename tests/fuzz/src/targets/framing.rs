//! The guard of HTTP/1.1 framing: what it says of bytes must not depend on the pieces in which they come.

use tidegate_gateway::Limits;
use tidegate_gateway::probe::{self, Framed, Place};

use super::fingerprint;
use crate::Target;
use crate::source::Source;

/// Arbitrary bytes in arbitrary pieces.
pub const TARGET: Target = Target {
    name: "framing",
    fuzz,
    dictionary: &[
        "\r\n",
        "\n",
        "\r",
        "\r\n\r\n",
        "GET / HTTP/1.1\r\n",
        "POST /a HTTP/1.0\r\n",
        "HTTP/1.1",
        "HTTP/2.0",
        "Host: a\r\n",
        "Content-Length: ",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\n",
        "0\r\n\r\n",
        "5\r\nabcde\r\n",
        "fffffffffffffff",
        ";a=b",
        "9223372036854775808",
        "+5",
        " ",
        "\t",
        ":",
        "\0",
        "OPTIONS * HTTP/1.1\r\n",
        "CONNECT a:1 HTTP/1.1\r\n",
        "http://a/b",
        "#",
        "X: y\r\n",
    ],
};

/// The first two bytes choose bounds and pieces, the others come from the client.
pub fn fuzz(data: &[u8]) -> u64 {
    let mut source = Source::new(data);
    let (bounds, pieces) = (source.byte(), source.byte());
    let mut limits = Limits::default();
    if bounds % 2 == 1 {
        limits.max_head = 64 + usize::from(bounds);
        limits.max_target = 8 + usize::from(bounds / 8);
        limits.max_fields = 1 + usize::from(bounds % 16);
    }
    let bytes = source.rest();
    let whole = framed([bytes], &limits);
    let single = framed(bytes.chunks(1), &limits);
    assert_eq!(single, whole, "byte by byte and at once");
    for size in [2, 3, 7, usize::from(pieces) + 1] {
        assert_eq!(
            framed(bytes.chunks(size), &limits),
            whole,
            "in pieces of {size} and at once"
        );
    }
    let (one, two) = bytes.split_at(usize::from(pieces).min(bytes.len()));
    assert_eq!(
        framed([one, two], &limits),
        whole,
        "cut at {pieces} and at once"
    );
    // What was read stays read: more bytes behind a fault change nothing.
    if matches!(whole.place, Place::Fault(_)) {
        let more = [bytes, b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"].concat();
        let after = framed([more.as_slice()], &limits);
        // A line that was cut off may turn out to have had another fault at its end.
        assert_eq!(after.request, whole.request, "more bytes behind the end");
    }
    fingerprint((whole.request.min(3), whole.place))
}

/// What was read. Of a line that is over two bounds, the one that is told may be either: in pieces the lower bound is
/// met first.
fn framed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Framed {
    let mut said = probe::framed(pieces, limits);
    if let Place::Fault(fault) = &mut said.place
        && matches!(fault.as_str(), "HeadTooLarge" | "TargetTooLong")
    {
        *fault = "over a bound".to_owned();
    }
    said
}

//! HTTP/1.1 as it stands on the wire (RFC 9112), for both sides of the proxy: lines, how bodies are framed, and bytes that are
//! to be written. Strict: what two readers could read in two ways is refused. Opens no socket and knows no head.

pub mod framing;
pub mod line;
pub mod outgoing;
pub mod spare;

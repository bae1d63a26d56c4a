//! One connection: requests read, answers written, never blocking. It must not know of other connections.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use memchr::memmem;

/// Room for a head, or for a piece of a body, in bytes.
const BUFFER: usize = 32 * 1024;

/// Whole responses, made once.
pub(crate) struct Answers {
    sized: Vec<(Vec<u8>, Arc<[u8]>)>,
    posted: Arc<[u8]>,
    refused: Arc<[u8]>,
}

impl Answers {
    /// Answers of these sizes, in bytes.
    pub(crate) fn new(sizes: &[usize]) -> Self {
        let sized = sizes.iter().map(|size| {
            (
                format!("GET /size/{size} ").into_bytes(),
                response("200 OK", &vec![b'x'; *size]),
            )
        });
        Answers {
            sized: sized.collect(),
            posted: response("200 OK", &[b'x'; 128]),
            refused: response("501 Not Implemented", b""),
        }
    }
}

fn response(status: &str, body: &[u8]) -> Arc<[u8]> {
    let mut text = format!(
        "HTTP/1.1 {status}\r\nserver: bench\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-type: text/plain\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    text.extend_from_slice(body);
    text.into()
}

/// What becomes of a connection for now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It waits for bytes, or for room to write.
    Wait,
    /// It is over.
    Close,
}

/// A client's connection.
pub(crate) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// Bytes of `input` that were read and not used.
    filled: usize,
    /// Bytes of a request's body that are still to come; its answer is due behind them.
    body: Option<usize>,
    /// What is being written, and how much of it has been.
    output: Option<(Arc<[u8]>, usize)>,
    /// Whether the connection ends behind what is being written.
    last: bool,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Connection {
            stream,
            input: vec![0; BUFFER],
            filled: 0,
            body: None,
            output: None,
            last: false,
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.output.is_some()
    }

    /// Reads once or writes on, and answers every request that is whole.
    pub(crate) fn go_on(&mut self, answers: &Answers, served: &mut u64) -> Next {
        if self.output.is_none() {
            let room = self.input.get_mut(self.filled..).unwrap_or_default();
            match self.stream.read(room) {
                Ok(0) => return Next::Close,
                Ok(read) => self.filled += read,
                Err(error) if waits(&error) => return Next::Wait,
                Err(_) => return Next::Close,
            }
        }
        loop {
            match self.write() {
                Ok(true) if self.last => return Next::Close,
                Ok(true) => {}
                Ok(false) => return Next::Wait,
                Err(_) => return Next::Close,
            }
            if !self.take_request(answers, served) {
                return Next::Wait;
            }
        }
    }

    /// Writes what is due. Says whether all of it went.
    fn write(&mut self) -> std::io::Result<bool> {
        while let Some((answer, at)) = &mut self.output {
            let rest = answer.get(*at..).unwrap_or_default();
            if rest.is_empty() {
                self.output = None;
                break;
            }
            match self.stream.write(rest) {
                Ok(written) => *at += written,
                Err(error) if waits(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Uses what was read. Says whether an answer became due.
    fn take_request(&mut self, answers: &Answers, served: &mut u64) -> bool {
        let input = self.input.get(..self.filled).unwrap_or_default();
        let mut used = 0;
        if self.body.is_none() {
            let Some(end) = memmem::find(input, b"\r\n\r\n") else {
                if self.filled == self.input.len() {
                    self.last = true;
                    self.filled = 0;
                    self.output = Some((Arc::clone(&answers.refused), 0));
                    return true;
                }
                return false;
            };
            used = end + 4;
            let head = input.get(..used).unwrap_or_default();
            self.last = field(head, b"connection")
                .is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
            let length = field(head, b"content-length").and_then(number);
            let known = answers
                .sized
                .iter()
                .find(|(line, _)| head.starts_with(line));
            if let Some((_, answer)) = known {
                *served += 1;
                self.output = Some((Arc::clone(answer), 0));
            } else if head.starts_with(b"GET /count ") {
                let text = served.to_string();
                self.output = Some((response("200 OK", text.as_bytes()), 0));
            } else if let (true, Some(length)) = (head.starts_with(b"POST "), length) {
                self.body = Some(length);
            } else {
                self.last = true;
                self.output = Some((Arc::clone(&answers.refused), 0));
            }
        }
        if let Some(left) = self.body {
            let taken = left.min(self.filled - used);
            used += taken;
            self.body = (left > taken).then_some(left - taken);
            if self.body.is_none() {
                *served += 1;
                self.output = Some((Arc::clone(&answers.posted), 0));
            }
        }
        self.input.copy_within(used..self.filled, 0);
        self.filled -= used;
        self.output.is_some()
    }
}

fn waits(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// The value of a head's field.
fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    memmem::find_iter(head, b"\r\n").find_map(|at| {
        let line = head.get(at + 2..)?;
        let (start, rest) = line.split_at_checked(name.len())?;
        let value = rest
            .strip_prefix(b":")
            .filter(|_| start.eq_ignore_ascii_case(name))?;
        let end = memmem::find(value, b"\r\n")?;
        Some(value.get(..end)?.trim_ascii())
    })
}

fn number(value: &[u8]) -> Option<usize> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What comes back when `pieces` arrive one by one, and the answers counted.
    fn exchange(pieces: &[&[u8]]) -> (String, u64) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut connection = Connection::new(listener.accept().unwrap().0);
        let answers = Answers::new(&[128]);
        let mut served = 0;
        for piece in pieces {
            client.write_all(piece).unwrap();
            // The stream blocks here, and so waits for the piece.
            if connection.go_on(&answers, &mut served) == Next::Close {
                break;
            }
        }
        drop(connection);
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        (text, served)
    }

    #[test]
    fn requests_are_answered_one_after_the_other() {
        let (text, served) = exchange(&[
            b"GET /size/128 HTTP/1.1\r\nhost: a\r\n\r\nGET /size/128 HTTP/1.1\r\nho",
            b"st: a\r\n\r\n",
        ]);
        assert_eq!(served, 2);
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2);
        assert!(text.ends_with(&"x".repeat(128)));
    }

    #[test]
    fn a_body_is_read_before_it_is_answered() {
        let head = b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n01234";
        assert_eq!(exchange(&[head]), (String::new(), 0));
        assert_eq!(exchange(&[head, b"56789"]).1, 1);
    }

    #[test]
    fn the_count_is_told_and_not_counted() {
        let (text, served) = exchange(&[
            b"GET /size/128 HTTP/1.1\r\n\r\nGET /count HTTP/1.1\r\nConnection: close\r\n\r\n",
        ]);
        assert_eq!(served, 1);
        assert!(text.ends_with("\r\n\r\n1"), "{text}");
    }

    #[test]
    fn what_it_does_not_know_spoils_the_measurement() {
        let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for request in [&b"GET /other HTTP/1.1\r\n\r\n"[..], chunked] {
            let (text, served) = exchange(&[request]);
            assert!(text.starts_with("HTTP/1.1 501"), "{text}");
            assert_eq!(served, 0);
        }
    }
}

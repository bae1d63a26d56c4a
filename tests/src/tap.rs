//! An upstream that answers every request with the same bytes and writes down every byte that it was sent: what
//! arrived is compared as it stood on the wire.

use std::sync::{Arc, Mutex};

use crate::upstream::Scripted;
use crate::wait::until;

/// What every request is answered with unless the test says otherwise.
pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What came on one connection.
type Record = Arc<Mutex<Vec<u8>>>;

/// An upstream that is listened to.
#[derive(Debug)]
pub struct Tap {
    script: Scripted,
    connections: Arc<Mutex<Vec<Record>>>,
}

/// A request as it stood on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// The first line.
    pub line: String,
    /// Names in lower case, values as they were, in their order.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body, and whether it came in chunks.
    pub body: Vec<u8>,
    pub chunked: bool,
    /// The trailer section without its empty line.
    pub trailers: String,
}

impl Raw {
    /// All values of a field, as text.
    pub fn all(&self, name: &str) -> Vec<String> {
        let found = self.fields.iter().filter(|(found, _)| found == name);
        found
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    }

    /// The fields that the proxy does not add itself, in their order, as `name: value`.
    pub fn own_fields(&self) -> Vec<String> {
        const ADDED: [&str; 6] = [
            "x-request-id",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "forwarded",
            "host",
        ];
        let own = self
            .fields
            .iter()
            .filter(|(name, _)| !ADDED.contains(&&**name));
        own.map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
            .collect()
    }

    fn take(rest: &mut &[u8]) -> Self {
        let shown = String::from_utf8_lossy(rest).into_owned();
        let end = rest
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap_or_else(|| panic!("a head without end: {shown:?}"));
        let head = &rest[..end];
        *rest = &rest[end + 4..];
        let mut lines = Vec::new();
        for line in split_lines(head) {
            assert!(
                !line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)),
                "a line with a line's end in it: {shown:?}"
            );
            lines.push(line);
        }
        let line = String::from_utf8_lossy(lines[0]).into_owned();
        let parts: Vec<&str> = line.split(' ').collect();
        assert!(parts.len() == 3 && parts[2] == "HTTP/1.1", "{line:?}");
        let fields: Vec<(String, Vec<u8>)> = lines[1..]
            .iter()
            .map(|line| {
                let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
                let name = std::str::from_utf8(&line[..colon]).expect("a name");
                assert!(
                    !name.is_empty()
                        && name.bytes().all(|byte| byte.is_ascii_alphanumeric()
                            || byte == b'-'
                            || byte == b'_'),
                    "{name:?} is no name"
                );
                let value = line[colon + 1..].strip_prefix(b" ").expect("a space");
                (name.to_ascii_lowercase(), value.to_vec())
            })
            .collect();
        let mut raw = Raw {
            line,
            fields,
            body: Vec::new(),
            chunked: false,
            trailers: String::new(),
        };
        let (lengths, codings) = (raw.all("content-length"), raw.all("transfer-encoding"));
        assert_eq!(raw.all("host").len(), 1, "{shown:?}");
        match (&lengths[..], &codings[..]) {
            ([], []) => {}
            ([length], []) => {
                let length: usize = length.parse().expect("a length");
                raw.body = rest
                    .get(..length)
                    .unwrap_or_else(|| panic!("a body that is cut off: {shown:?}"))
                    .to_vec();
                *rest = &rest[length..];
            }
            ([], [coding]) => {
                assert_eq!(coding, "chunked");
                raw.chunked = true;
                raw.take_chunks(rest);
            }
            _ => panic!("two framings: {shown:?}"),
        }
        raw
    }

    fn take_chunks(&mut self, rest: &mut &[u8]) {
        loop {
            let size = take_line(rest);
            assert!(
                !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit),
                "{:?} is no size",
                String::from_utf8_lossy(size)
            );
            let size = usize::from_str_radix(std::str::from_utf8(size).unwrap(), 16).unwrap();
            if size == 0 {
                break;
            }
            self.body.extend(&rest[..size]);
            *rest = &rest[size..];
            assert_eq!(take_line(rest), b"", "behind a chunk");
        }
        loop {
            let line = take_line(rest);
            if line.is_empty() {
                return;
            }
            self.trailers += &format!("{}\r\n", String::from_utf8_lossy(line));
        }
    }
}

fn take_line<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest
        .windows(2)
        .position(|window| window == b"\r\n")
        .unwrap_or_else(|| panic!("a line without end: {:?}", String::from_utf8_lossy(rest)));
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    line
}

fn split_lines(mut head: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some(at) = head.windows(2).position(|window| window == b"\r\n") {
        lines.push(&head[..at]);
        head = &head[at + 2..];
    }
    lines.push(head);
    lines
}

impl Tap {
    /// Answers each request with [`OK`].
    pub async fn start() -> Self {
        Self::answering(OK).await
    }

    /// Answers each request with these bytes.
    pub async fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Arc<Vec<u8>> = Arc::new(bytes.into());
        let connections: Arc<Mutex<Vec<Record>>> = Arc::default();
        let all = Arc::clone(&connections);
        let script = Scripted::start(move |_, mut wire| {
            let bytes = Arc::clone(&bytes);
            let record = Record::default();
            all.lock().unwrap().push(Arc::clone(&record));
            wire.record(record);
            async move {
                loop {
                    wire.try_read_message().await?;
                    wire.try_send(&*bytes).await?;
                }
            }
        })
        .await;
        Tap {
            script,
            connections,
        }
    }

    /// As an endpoint.
    pub fn url(&self) -> String {
        self.script.url()
    }

    /// What came on each connection, as text.
    pub fn connections(&self) -> Vec<String> {
        let connections = self.connections.lock().unwrap();
        connections
            .iter()
            .map(|record| String::from_utf8_lossy(&record.lock().unwrap()).into_owned())
            .collect()
    }

    /// Everything that came, on whatever connection.
    pub fn all(&self) -> String {
        self.connections().concat()
    }

    /// Every request that came, read more strictly than any server does.
    ///
    /// # Panics
    /// If the bytes are not requests from the first to the last.
    pub fn requests(&self) -> Vec<Raw> {
        let connections = self.connections.lock().unwrap();
        let mut requests = Vec::new();
        for record in connections.iter() {
            let bytes = record.lock().unwrap();
            let mut rest = &**bytes;
            while !rest.is_empty() {
                requests.push(Raw::take(&mut rest));
            }
        }
        requests
    }

    /// Forgets what came so far. What comes from now on is written down again.
    pub fn forget(&self) {
        for record in self.connections.lock().unwrap().iter() {
            record.lock().unwrap().clear();
        }
    }

    /// Waits until something came, and it holds this.
    pub async fn got(&self, part: &str) {
        until(&format!("{part:?} to arrive"), async || {
            self.all().contains(part)
        })
        .await;
    }
}

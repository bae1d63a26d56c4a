//! A connection in bytes, for either end: what is sent is sent as it stands, what comes is shown as it came. It
//! knows just enough HTTP/1.1 to find where a message ends.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::Tls;
use crate::wait::{patience, within};

/// How the other side ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In good order.
    Closed,
    /// With a reset.
    Reset,
}

/// One message as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// First line and fields, with the empty line.
    pub head: String,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// The trailer section of a chunked body, without the empty line.
    pub trailers: String,
}

/// A connection, plain or with TLS around the bytes.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    buffer: Vec<u8>,
    record: Option<Arc<Mutex<Vec<u8>>>>,
}

/// What carries the bytes.
#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Secure(Box<Tls>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(stream) => stream,
            Stream::Secure(tls) => tls.0.get_ref().0,
        }
    }

    async fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(piece).await,
            Stream::Secure(tls) => tls.0.read(piece).await,
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.write_all(bytes).await,
            Stream::Secure(tls) => {
                tls.0.write_all(bytes).await?;
                tls.0.flush().await
            }
        }
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.shutdown().await,
            Stream::Secure(tls) => tls.0.shutdown().await,
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {:?}", self.head, self.text(), self.trailers)
    }
}

impl Message {
    /// The first line.
    pub fn first_line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// A response's status.
    ///
    /// # Panics
    /// If the first line is no status line.
    pub fn status(&self) -> u16 {
        self.first_line()
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5))
            .and_then(|digits| digits.parse().ok())
            .unwrap_or_else(|| panic!("no status line: {:?}", self.head))
    }

    /// All values of a field, in their order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        fields(&self.head)
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn fields(head: &str) -> impl Iterator<Item = (&str, &str)> {
    head.split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
}

impl Wire {
    /// Connects to a server.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(address))
            .await
            .unwrap_or_else(|error| panic!("no connection to {address}: {error}"));
        Self::over(stream)
    }

    /// Takes a connection that stands.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::of(Stream::Plain(stream))
    }

    /// Takes a TLS connection whose handshake is done.
    pub fn over_tls(tls: Tls) -> Self {
        Self::of(Stream::Secure(Box::new(tls)))
    }

    fn of(stream: Stream) -> Self {
        Wire {
            stream,
            buffer: Vec::new(),
            record: None,
        }
    }

    /// Writes everything that comes from now on down, too.
    pub fn record(&mut self, record: Arc<Mutex<Vec<u8>>>) {
        self.record = Some(record);
    }

    /// This side's address.
    pub fn local(&self) -> SocketAddr {
        self.stream.tcp().local_addr().unwrap()
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// If the other side does not take them.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes)
            .await
            .expect("the other side takes bytes");
    }

    /// Sends bytes to somebody who may have closed already.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within(
            "the other side to read",
            self.stream.write_all(bytes.as_ref()),
        )
        .await
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub async fn finish(&mut self) {
        let _gone_already = self.stream.shutdown().await;
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let _gone_already = self.stream.tcp().set_zero_linger();
    }

    /// Reads some bytes into the buffer; says whether there were any.
    async fn more(&mut self) -> io::Result<bool> {
        let mut piece = [0; 16 * 1024];
        let count = within("bytes", self.stream.read(&mut piece)).await?;
        self.buffer.extend_from_slice(&piece[..count]);
        if let Some(record) = &self.record {
            record.lock().unwrap().extend_from_slice(&piece[..count]);
        }
        Ok(count > 0)
    }

    /// Reads up to and with a pattern.
    ///
    /// # Errors
    /// If the connection ends before.
    pub async fn try_read_until(&mut self, pattern: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.buffer, pattern) {
                let rest = self.buffer.split_off(at + pattern.len());
                return Ok(std::mem::replace(&mut self.buffer, rest));
            }
            if !self.more().await? {
                let got = String::from_utf8_lossy(&self.buffer);
                return Err(io::Error::other(format!(
                    "the connection ended after {got:?}"
                )));
            }
        }
    }

    /// Reads up to and with a pattern, as text.
    ///
    /// # Panics
    /// If the connection ends before.
    pub async fn read_until(&mut self, pattern: &str) -> String {
        let bytes = self
            .try_read_until(pattern.as_bytes())
            .await
            .unwrap_or_else(|error| panic!("no {pattern:?}: {error}"));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads a head with its empty line.
    pub async fn read_head(&mut self) -> String {
        self.read_until("\r\n\r\n").await
    }

    /// Reads exactly so many bytes.
    ///
    /// # Panics
    /// If the connection ends before.
    pub async fn read_exact(&mut self, count: usize) -> Vec<u8> {
        self.try_read_exact(count).await.expect("more bytes")
    }

    /// Reads exactly so many bytes.
    ///
    /// # Errors
    /// If the connection ends before.
    pub async fn try_read_exact(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.buffer.split_off(count);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Reads one whole message with a body of either framing.
    ///
    /// # Errors
    /// If the connection ends before the message does.
    pub async fn try_read_message(&mut self) -> io::Result<Message> {
        let head = self.try_read_until(b"\r\n\r\n").await?;
        let mut message = Message {
            head: String::from_utf8_lossy(&head).into_owned(),
            body: Vec::new(),
            trailers: String::new(),
        };
        if message.field("transfer-encoding").is_some() {
            while let Some(chunk) = self.try_read_chunk().await? {
                message.body.extend(chunk);
            }
            message.trailers = self.read_trailers().await?;
        } else if let Some(length) = message.field("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            while self.buffer.len() < length {
                if !self.more().await? {
                    return Err(io::Error::other("the body is cut off"));
                }
            }
            let rest = self.buffer.split_off(length);
            message.body = std::mem::replace(&mut self.buffer, rest);
        }
        Ok(message)
    }

    /// Reads one whole message with a body of either framing.
    ///
    /// # Panics
    /// If the connection ends before the message does.
    pub async fn read_message(&mut self) -> Message {
        self.try_read_message().await.expect("a whole message")
    }

    /// Reads a message that can have no body, whatever its fields say.
    pub async fn read_bare(&mut self) -> Message {
        Message {
            head: self.read_head().await,
            body: Vec::new(),
            trailers: String::new(),
        }
    }

    /// Reads one chunk; none for the last one, of which the trailer section is still to come.
    ///
    /// # Errors
    /// If the connection ends before, or what comes is no chunk.
    pub async fn try_read_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.try_read_until(b"\r\n").await?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let size = line.trim_end().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16)
            .map_err(|_| io::Error::other(format!("no chunk size: {line:?}")))?;
        if size == 0 {
            return Ok(None);
        }
        while self.buffer.len() < size + 2 {
            if !self.more().await? {
                return Err(io::Error::other("a chunk is cut off"));
            }
        }
        let rest = self.buffer.split_off(size + 2);
        let mut chunk = std::mem::replace(&mut self.buffer, rest);
        chunk.truncate(size);
        Ok(Some(chunk))
    }

    async fn read_trailers(&mut self) -> io::Result<String> {
        let mut trailers = String::new();
        loop {
            let line = self.try_read_until(b"\r\n").await?;
            if line == b"\r\n" {
                return Ok(trailers);
            }
            trailers += &String::from_utf8_lossy(&line);
        }
    }

    /// Reads until the other side ends the connection. Gives all that came, and how it ended.
    pub async fn read_to_end(&mut self) -> (Vec<u8>, End) {
        let end = loop {
            match self.more().await {
                Ok(true) => {}
                Ok(false) => break End::Closed,
                Err(_) => break End::Reset,
            }
        };
        (std::mem::take(&mut self.buffer), end)
    }

    /// As [`read_to_end`](Self::read_to_end), as text.
    pub async fn rest(&mut self) -> String {
        let (bytes, _) = self.read_to_end().await;
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// As [`rest`](Self::rest), for a connection that may stay open though it should not: then the text says so at
    /// its end.
    pub async fn rest_or_open(&mut self) -> String {
        let open = tokio::time::timeout(patience() / 10, self.rest()).await;
        open.unwrap_or_else(|_| {
            let came = std::mem::take(&mut self.buffer);
            format!("{} (still open)", String::from_utf8_lossy(&came))
        })
    }

    /// Whether something has come that was not read yet.
    pub async fn has_something(&self) -> bool {
        let mut byte = [0];
        let look = self.stream.tcp().peek(&mut byte);
        !self.buffer.is_empty()
            || tokio::time::timeout(Duration::ZERO, look)
                .await
                .is_ok_and(|seen| seen.is_ok())
    }

    /// Whether nothing comes for a moment. For what must not happen there is no condition to wait for.
    pub async fn stays_silent(&mut self, moment: Duration) -> bool {
        self.buffer.is_empty()
            && tokio::time::timeout(moment, self.stream.tcp().peek(&mut [0]))
                .await
                .is_err()
    }
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes
        .windows(pattern.len())
        .position(|window| window == pattern)
}

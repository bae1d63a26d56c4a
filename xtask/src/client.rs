//! A client for one HTTP/1.1 connection, kept open over many requests. It reads only what demo
//! and bench get.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the proxy.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .with_context(|| format!("no connection to {address}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
            address,
        })
    }

    /// Sends a GET and waits for the whole answer.
    pub(crate) fn get(&mut self, path: &str, fields: &[(&str, &str)]) -> Result<Response> {
        let mut head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        self.stream.get_mut().write_all(head.as_bytes())?;
        read_response(&mut self.stream).with_context(|| format!("no good answer to GET {path}"))
    }
}

/// One request on a connection of its own.
pub(crate) fn get_once(
    address: SocketAddr,
    path: &str,
    fields: &[(&str, &str)],
) -> Result<Response> {
    Client::connect(address)?.get(path, fields)
}

impl Response {
    /// The value of a field, of which the name is in lower case.
    pub(crate) fn field(&self, wanted: &str) -> Option<&str> {
        let mut same = self.fields.iter().filter(|(name, _)| name == wanted);
        same.next().map(|(_, value)| value.as_str())
    }
}

fn read_response(reader: &mut impl std::io::BufRead) -> Result<Response> {
    let first = read_line(reader)?;
    let status = first
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|digits| digits.parse().ok())
        .with_context(|| format!("no status line: {first:?}"))?;
    let mut fields = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else {
            bail!("no field: {line:?}");
        };
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut response = Response {
        status,
        fields,
        body: String::new(),
    };
    response.body = read_body(reader, &response)?;
    Ok(response)
}

fn read_body(reader: &mut impl std::io::BufRead, response: &Response) -> Result<String> {
    let mut body = Vec::new();
    if let Some(length) = response.field("content-length") {
        let length: u64 = length.parse()?;
        reader.take(length).read_to_end(&mut body)?;
        if body.len() as u64 != length {
            bail!("the body ended after {} of {length} bytes", body.len());
        }
    } else if response.field("transfer-encoding").is_some() {
        loop {
            let size = u64::from_str_radix(&read_line(reader)?, 16)?;
            let before = body.len() as u64;
            reader.take(size).read_to_end(&mut body)?;
            if body.len() as u64 - before != size {
                bail!("a chunk ended early");
            }
            read_line(reader)?;
            if size == 0 {
                break;
            }
        }
    }
    Ok(String::from_utf8(body)?)
}

fn read_line(reader: &mut impl std::io::BufRead) -> Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        bail!("the connection was closed");
    }
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &str) -> Result<Response> {
        read_response(&mut bytes.as_bytes())
    }

    #[test]
    fn both_framings_are_read() {
        for rest in [
            "Content-Length: 3\r\n\r\nabc",
            "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        ] {
            let response = read(&format!("HTTP/1.1 200 OK\r\nX-A: b\r\n{rest}")).unwrap();
            assert_eq!((response.status, response.body.as_str()), (200, "abc"));
            assert_eq!(response.field("x-a"), Some("b"));
        }
    }

    #[test]
    fn a_cut_answer_is_no_answer() {
        for cut in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        ] {
            assert!(read(cut).is_err(), "{cut:?}");
        }
    }
}

//! The demo's upstream: a small HTTP/1.1 server that answers with what it was asked, as JSON. It keeps
//! connections open, takes bodies of both framings, and is good for nothing else.

use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

/// Starts the server on a port that the kernel chooses; it runs as long as the program.
pub(super) fn start() -> Result<SocketAddr> {
    let listener =
        TcpListener::bind("127.0.0.1:0").context("can't open a port for the demo's upstream")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // A broken connection is its client's loss.
            thread::spawn(move || drop(serve(&connection)));
        }
    });
    Ok(address)
}

/// One request as the server read it.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    method: String,
    target: String,
    /// In lower case and in their order.
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

fn serve(connection: &TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection);
    let mut writer = connection;
    while let Some(request) = read_request(&mut reader)? {
        writer.write_all(&answer(&request))?;
    }
    Ok(())
}

/// Reads the next request; none at the connection's end.
fn read_request(reader: &mut impl io::BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    };
    let mut fields = Vec::new();
    while let Some((name, value)) = read_field(reader)? {
        fields.push((name, value));
    }
    let body = read_body(reader, &fields)?;
    Ok(Some(Request {
        method,
        target,
        fields,
        body,
    }))
}

fn read_field(reader: &mut impl io::BufRead) -> io::Result<Option<(String, String)>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let field = line.split_once(':');
    Ok(field.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())))
}

fn read_body(reader: &mut impl io::BufRead, fields: &[(String, String)]) -> io::Result<Vec<u8>> {
    let value = |wanted: &str| {
        let mut same = fields.iter().filter(|(name, _)| name == wanted);
        same.next().map(|(_, value)| value.as_str())
    };
    let mut body = Vec::new();
    if value("transfer-encoding").is_some() {
        while read_chunk(reader, &mut body)? {}
    } else if let Some(length) = value("content-length") {
        let length = length.parse().map_err(io::Error::other)?;
        reader.take(length).read_to_end(&mut body)?;
    }
    Ok(body)
}

/// Reads a chunk; says whether it was not the last one.
fn read_chunk(reader: &mut impl io::BufRead, body: &mut Vec<u8>) -> io::Result<bool> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let size = line.split(';').next().unwrap_or_default().trim();
    let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
    reader.take(size).read_to_end(body)?;
    if size == 0 {
        while read_field(reader)?.is_some() {}
        return Ok(false);
    }
    reader.read_line(&mut line)?;
    Ok(true)
}

fn answer(request: &Request) -> Vec<u8> {
    let mut fields = Map::new();
    for (name, value) in &request.fields {
        let text = match fields.get(name) {
            Some(Value::String(before)) => format!("{before}, {value}"),
            _ => value.clone(),
        };
        fields.insert(name.clone(), Value::String(text));
    }
    let seen = json!({
        "method": request.method,
        "path": request.target,
        "headers": fields,
        "body-bytes": request.body.len(),
    });
    let mut text = format!("{seen:#}\n");
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nServer: echo\r\n\r\n",
        text.len()
    );
    if request.method == "HEAD" {
        text.clear();
    }
    (head + &text).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(bytes: &str) -> Vec<Request> {
        let mut reader = bytes.as_bytes();
        std::iter::from_fn(|| read_request(&mut reader).unwrap()).collect()
    }

    #[test]
    fn requests_follow_one_another_on_a_connection() {
        let requests = read_all(concat!(
            "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
            "POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1;x=y\r\nf\r\n0\r\nT: 1\r\n\r\n",
            "GET /c HTTP/1.1\r\n\r\n",
        ));
        let bodies: Vec<&[u8]> = requests.iter().map(|request| &*request.body).collect();
        assert_eq!(bodies, [b"abc", b"def", b"".as_slice()]);
        assert_eq!(requests[2].target, "/c");
    }

    #[test]
    fn the_answer_tells_what_was_asked() {
        let request = &read_all("GET /x?y=z HTTP/1.1\r\nX-A: 1\r\nX-A: 2\r\n\r\n")[0];
        let answer = String::from_utf8(answer(request)).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["path"], "/x?y=z");
        assert_eq!(body["headers"]["x-a"], "1, 2");
    }
}

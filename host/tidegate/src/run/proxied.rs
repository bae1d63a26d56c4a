//! The PROXY protocol, versions 1 and 2: a head before everything else, in which a balancer says whose connection it
//! passes on. Reads it to its last byte and not further, bounded in size; knows no sockets' addresses and trusts nobody
//! by itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The first bytes of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest head of version 1, with its end of line.
const LONGEST_LINE: usize = 107;
/// The shortest head of version 1: `PROXY UNKNOWN` and its end of line.
const SHORTEST_LINE: usize = 15;
/// What version 2 begins with: signature, command, family, length.
const FIXED: usize = 16;
/// The most bytes that may follow those: addresses and additions. Senders add some hundred, certificates included.
const MOST: usize = 4096;

/// Why a connection can't be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeadError {
    /// It does not begin with a head of either version.
    #[error("it does not begin with a PROXY head")]
    Absent,
    /// It does, but the head is not as it must be.
    #[error("its PROXY head is malformed")]
    Malformed,
    /// The head is longer than any that makes sense.
    #[error("its PROXY head is too long")]
    TooLong,
    /// It broke off.
    #[error("it broke off in its PROXY head: {0}")]
    Io(#[from] io::Error),
}

impl HeadError {
    /// For figures.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            HeadError::Absent => "absent",
            HeadError::Malformed => "malformed",
            HeadError::TooLong => "too-long",
            HeadError::Io(_) => "closed",
        }
    }
}

/// Reads the head of a connection and gives the client's address; none: the balancer speaks for itself, or does not know.
///
/// # Errors
/// See [`HeadError`]: the connection must be closed without a word.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<SocketAddr>, HeadError> {
    let mut begin = [0; SHORTEST_LINE];
    stream.read_exact(&mut begin).await?;
    if begin.starts_with(&SIGNATURE) {
        return second(stream, &begin).await;
    }
    if !begin.starts_with(b"PROXY ") {
        return Err(HeadError::Absent);
    }
    let mut line = begin.to_vec();
    // A byte at a time: what follows is not ours, and there are fewer than a hundred.
    while !line.ends_with(b"\r\n") {
        if line.len() == LONGEST_LINE {
            return Err(HeadError::TooLong);
        }
        line.push(stream.read_u8().await?);
    }
    first(&line)
}

/// Version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 1234 80`.
fn first(line: &[u8]) -> Result<Option<SocketAddr>, HeadError> {
    let text = std::str::from_utf8(line).map_err(|_| HeadError::Malformed)?;
    let text = text.strip_suffix("\r\n").ok_or(HeadError::Malformed)?;
    let mut words = text.split(' ').skip(1);
    let family = words.next();
    // What follows is to be ignored.
    if family == Some("UNKNOWN") {
        return Ok(None);
    }
    let mut word = || words.next().ok_or(HeadError::Malformed);
    let (source, target, port, target_port) = (word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(HeadError::Malformed);
    }
    let address = |text: &str| -> Result<IpAddr, HeadError> {
        let address = match family {
            Some("TCP4") => text.parse().map(IpAddr::V4).ok(),
            Some("TCP6") => text.parse().map(IpAddr::V6).ok(),
            _ => None,
        };
        address.ok_or(HeadError::Malformed)
    };
    let number = |text: &str| -> Result<u16, HeadError> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| plain);
        number.ok_or(HeadError::Malformed)
    };
    address(target)?;
    number(target_port)?;
    Ok(Some(SocketAddr::new(address(source)?, number(port)?)))
}

/// Version 2, in binary; `begin` is what was read of it.
async fn second(
    stream: &mut (impl AsyncRead + Unpin),
    begin: &[u8; SHORTEST_LINE],
) -> Result<Option<SocketAddr>, HeadError> {
    let [.., command, family, high] = *begin;
    let low = stream.read_u8().await?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MOST {
        return Err(HeadError::TooLong);
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    let (source, additions) = match family {
        // TCP over IPv4: two addresses, two ports.
        0x11 => {
            let (ends, additions) = rest.split_first_chunk::<12>().ok_or(HeadError::Malformed)?;
            let [a, b, c, d, _, _, _, _, high, low, ..] = *ends;
            let address = Ipv4Addr::new(a, b, c, d).into();
            let port = u16::from_be_bytes([high, low]);
            (Some(SocketAddr::new(address, port)), additions)
        }
        // TCP over IPv6.
        0x21 => {
            let (ends, additions) = rest.split_first_chunk::<36>().ok_or(HeadError::Malformed)?;
            let (source, after) = ends.split_first_chunk::<16>().ok_or(HeadError::Malformed)?;
            let ports = after.get(16..).and_then(|it| it.first_chunk::<2>());
            let port = u16::from_be_bytes(*ports.ok_or(HeadError::Malformed)?);
            let address = IpAddr::V6(Ipv6Addr::from(*source));
            (Some(SocketAddr::new(address, port)), additions)
        }
        // A socket of the balancer's machine has no address that means anything here.
        0x31 => {
            let (_, additions) = rest
                .split_first_chunk::<216>()
                .ok_or(HeadError::Malformed)?;
            (None, additions)
        }
        // Unknown, which is followed by anything.
        0x00 => (None, &[][..]),
        _ => return Err(HeadError::Malformed),
    };
    check_additions(additions)?;
    match command {
        // The balancer itself, such as to see whether we live.
        0x20 => Ok(None),
        0x21 => Ok(source),
        _ => Err(HeadError::Malformed),
    }
}

/// Additions are a kind, a length and as many bytes, to the very end.
fn check_additions(mut rest: &[u8]) -> Result<(), HeadError> {
    while let Some(([_, high, low], after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        rest = after.get(length..).ok_or(HeadError::Malformed)?;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(HeadError::Malformed)
    }
}

/// Version 2 begins with as many bytes as version 1 has at least, and one.
const _: () = assert!(FIXED == SHORTEST_LINE + 1);

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of these bytes, and what is left of them.
    async fn read_all(bytes: &[u8]) -> (Result<Option<SocketAddr>, HeadError>, Vec<u8>) {
        let mut rest = bytes;
        let found = read(&mut rest).await;
        (found, rest.to_vec())
    }

    fn version_2(command: u8, family: u8, length: u16, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    const FOUR: [u8; 12] = [203, 0, 113, 9, 192, 0, 2, 1, 0x30, 0x39, 0, 80];

    #[tokio::test]
    async fn a_head_is_read_to_its_last_byte() {
        let six = "2001:db8::9".parse::<Ipv6Addr>().unwrap();
        let mut ends = six.octets().to_vec();
        ends.extend(six.octets());
        ends.extend([0x30, 0x39, 0, 80]);
        let mut added = FOUR.to_vec();
        added.extend([1, 0, 2, b'h', b'2', 4, 0, 0]);
        for (head, expected) in [
            (
                b"PROXY TCP4 203.0.113.9 192.0.2.1 12345 80\r\n".to_vec(),
                Some("203.0.113.9:12345"),
            ),
            (
                b"PROXY TCP6 2001:db8::9 2001:db8::1 12345 80\r\n".to_vec(),
                Some("[2001:db8::9]:12345"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN whatever 1 2\r\n".to_vec(), None),
            (version_2(0x21, 0x11, 12, &FOUR), Some("203.0.113.9:12345")),
            (version_2(0x21, 0x11, 20, &added), Some("203.0.113.9:12345")),
            (
                version_2(0x21, 0x21, 36, &ends),
                Some("[2001:db8::9]:12345"),
            ),
            (version_2(0x20, 0x11, 12, &FOUR), None),
            (version_2(0x20, 0x00, 0, &[]), None),
            (version_2(0x21, 0x00, 3, b"abc"), None),
            (version_2(0x21, 0x31, 216, &[0; 216]), None),
        ] {
            let mut bytes = head.clone();
            bytes.extend(b"GET / HTTP/1.1\r\n");
            let (found, rest) = read_all(&bytes).await;
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(found.unwrap(), expected, "{head:?}");
            assert_eq!(rest, b"GET / HTTP/1.1\r\n", "{head:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_head_is_refused() {
        let mut long = b"PROXY UNKNOWN ".to_vec();
        long.resize(200, b'x');
        let mut wrong_length = FOUR.to_vec();
        wrong_length.extend([1, 0, 9, b'h', b'2']);
        let mut too_short = FOUR.to_vec();
        too_short.extend([1, 0]);
        let malformed: Vec<Vec<u8>> = [
            "PROXY TCP4 2001:db8::9 192.0.2.1 1 80\r\n",
            "PROXY TCP6 203.0.113.9 192.0.2.1 1 80\r\n",
            "PROXY TCP4 203.0.113.9 192.0.2.1 1 80 9\r\n",
            "PROXY TCP4 203.0.113.9 192.0.2.1 1\r\n",
            "PROXY TCP4 203.0.113.9 192.0.2.1 65536 80\r\n",
            "PROXY TCP4 203.0.113.9 192.0.2.1 +1 80\r\n",
            "PROXY TCP4 203.0.113.9  192.0.2.1 1 80\r\n",
            "PROXY TCP4 203.0.113.009 192.0.2.1 1 80\r\n",
            "PROXY tcp4 203.0.113.9 192.0.2.1 1 80\r\n",
            "PROXY TCP4 203.0.113.9 192.0.2.1 1 80\n\r\n",
        ]
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .chain([
            version_2(0x11, 0x11, 12, &FOUR),
            version_2(0x22, 0x11, 12, &FOUR),
            version_2(0x21, 0x12, 12, &FOUR),
            version_2(0x21, 0x11, 11, &FOUR[..11]),
            version_2(0x21, 0x21, 12, &FOUR),
            version_2(0x21, 0x11, 17, &wrong_length),
            version_2(0x21, 0x11, 14, &too_short),
        ])
        .collect();
        for head in malformed {
            let (found, _) = read_all(&head).await;
            assert!(
                matches!(found, Err(HeadError::Malformed)),
                "{head:?}: {found:?}"
            );
        }
        for (head, reason) in [
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), "absent"),
            (b"\r\n\r\n\0\r\nQUIX\n\x21\x11\0".to_vec(), "absent"),
            (
                b"proxy TCP4 203.0.113.9 192.0.2.1 1 80\r\n".to_vec(),
                "absent",
            ),
            (long, "too-long"),
            (version_2(0x21, 0x11, u16::MAX, &FOUR), "too-long"),
            (b"PROXY TCP4 203".to_vec(), "closed"),
            (b"PROXY TCP4 203.0.113.9".to_vec(), "closed"),
            (version_2(0x21, 0x11, 12, &FOUR[..6]), "closed"),
            (Vec::new(), "closed"),
        ] {
            let (found, _) = read_all(&head).await;
            assert_eq!(found.unwrap_err().reason(), reason, "{head:?}");
        }
    }
}

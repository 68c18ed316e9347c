//! The PROXY protocol, versions 1 and 2: a load balancer's word on whom it serves, before anything else.
//!
//! Exactly the header is read and nothing behind it. Its length is bounded, and what is not valid ends the connection: what
//! follows would be somebody's with a wrong address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, its line end included.
const LINE_MAX: usize = 107;
/// The longest header of version 2, after its length: addresses and what a load balancer adds.
const BLOCK_MAX: usize = 4096;

/// Why a connection of a load balancer is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("failed to read the PROXY header: {0}")]
    Io(#[from] io::Error),
    #[error("no PROXY header came first: turn proxyProtocol off, or on in the load balancer")]
    Missing,
    #[error("the PROXY header is malformed")]
    Malformed,
}

/// Reads the header. `None`: the load balancer speaks for itself, or does not know.
pub(super) async fn read_header(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<SocketAddr>, ProxyError> {
    // Both versions are longer than this.
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == *SIGNATURE {
        read_block(stream).await
    } else if start.starts_with(b"PROXY ") {
        read_line(stream, &start).await
    } else {
        Err(ProxyError::Missing)
    }
}

async fn read_block(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, ProxyError> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if length > BLOCK_MAX {
        return Err(ProxyError::Malformed);
    }
    let mut block = vec![0; length];
    stream.read_exact(&mut block).await?;
    parse_block(head[0], head[1], &block).ok_or(ProxyError::Malformed)
}

fn parse_block(version_and_command: u8, family: u8, block: &[u8]) -> Option<Option<SocketAddr>> {
    match version_and_command {
        0x20 => return Some(None), // LOCAL: a health check
        0x21 => {}
        _ => return None,
    }
    match family {
        0x11 => {
            let &[a, b, c, d, _, _, _, _, high, low, ..] = block else { return None };
            (block.len() >= 12).then_some(())?;
            Some(Some((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])).into()))
        }
        0x21 => {
            let address: [u8; 16] = block.get(..16)?.try_into().ok()?;
            let port = block.get(..36)?[32..34].try_into().ok()?;
            Some(Some((Ipv6Addr::from(address), u16::from_be_bytes(port)).into()))
        }
        // Not TCP, or not known.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => Some(None),
        _ => None,
    }
}

async fn read_line(
    stream: &mut (impl AsyncRead + Unpin),
    start: &[u8],
) -> Result<Option<SocketAddr>, ProxyError> {
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        // Byte by byte: what comes behind the line is not ours. Few bytes, once a connection.
        line.push(stream.read_u8().await?);
        if line.len() > LINE_MAX {
            return Err(ProxyError::Malformed);
        }
    }
    let line = std::str::from_utf8(&line[..line.len() - 2]).map_err(|_| ProxyError::Malformed)?;
    parse_line(line).ok_or(ProxyError::Malformed)
}

fn parse_line(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let [source, target, source_port, target_port] = [(); 4].map(|()| words.next());
    let (source, target): (IpAddr, IpAddr) = (source?.parse().ok()?, target?.parse().ok()?);
    let (source_port, _): (u16, u16) = (port(source_port?)?, port(target_port?)?);
    let is_right = match family {
        "TCP4" => source.is_ipv4() && target.is_ipv4(),
        "TCP6" => source.is_ipv6() && target.is_ipv6(),
        _ => false,
    };
    (is_right && words.next().is_none()).then(|| Some((source, source_port).into()))
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(version: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[version, family], &length, payload].concat()
    }

    /// What comes of a header that MQTT follows: an address, `none`, or what is wrong; and that nothing more is read.
    #[track_caller]
    fn check(header: &[u8], expected: &str) {
        let stream = [header, b"MQTT"].concat();
        let mut stream = stream.as_slice();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let found = match runtime.block_on(read_header(&mut stream)) {
            Ok(Some(address)) => address.to_string(),
            Ok(None) => "none".to_owned(),
            Err(ProxyError::Io(_)) => "end".to_owned(),
            Err(ProxyError::Missing) => "missing".to_owned(),
            Err(ProxyError::Malformed) => "malformed".to_owned(),
        };
        assert_eq!(found, expected, "{}", header.escape_ascii());
        if !["end", "missing", "malformed"].contains(&expected) {
            assert_eq!(stream, b"MQTT");
        }
    }

    #[test]
    fn headers_of_version_1() {
        check(b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 1883\r\n", "192.0.2.1:56324");
        check(b"PROXY TCP6 2001:db8::1 ::1 1 1883\r\n", "[2001:db8::1]:1");
        check(b"PROXY UNKNOWN\r\n", "none");
        check(b"PROXY UNKNOWN ff ff 1 2\r\n", "none");
        for wrong in [
            "PROXY TCP4 192.0.2.1 10.0.0.1 56324\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 56324 1883 1\r\n",
            "PROXY TCP4 192.0.2.1  10.0.0.1 56324 1883\r\n",
            "PROXY TCP4 192.0.2.256 10.0.0.1 56324 1883\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 65536 1883\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 +1 1883\r\n",
            "PROXY TCP4 2001:db8::1 ::1 1 1883\r\n",
            "PROXY TCP6 192.0.2.1 10.0.0.1 1 1883\r\n",
            "PROXY TCP5 192.0.2.1 10.0.0.1 1 1883\r\n",
            "PROXY tcp4 192.0.2.1 10.0.0.1 1 1883\r\n",
        ] {
            check(wrong.as_bytes(), "malformed");
        }
        check(format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_MAX)).as_bytes(), "malformed");
    }

    #[test]
    fn headers_of_version_2() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0xdc, 4, 7, 91];
        check(&block(0x21, 0x11, &v4), "192.0.2.1:56324");
        check(&block(0x21, 0x11, &[&v4[..], &[4, 0, 1, 0]].concat()), "192.0.2.1:56324");
        check(&block(0x20, 0x00, &[]), "none");
        check(&block(0x20, 0x11, &v4), "none");
        check(&block(0x21, 0x00, b"whatever"), "none");
        let v6 = [Ipv6Addr::LOCALHOST.octets(), Ipv6Addr::UNSPECIFIED.octets()].concat();
        check(&block(0x21, 0x21, &[&v6[..], &[0, 1, 7, 91]].concat()), "[::1]:1");
        check(&block(0x21, 0x11, &v4[..11]), "malformed");
        check(&block(0x21, 0x21, &v6), "malformed");
        check(&block(0x11, 0x11, &v4), "malformed");
        check(&block(0x22, 0x11, &v4), "malformed");
        check(&block(0x21, 0x41, &v4), "malformed");
        check(&block(0x21, 0x11, &[0; BLOCK_MAX + 1]), "malformed");
    }

    #[test]
    fn what_is_no_header_is_not_taken_for_one() {
        check(b"\x10\x1a\0\x04MQTT\x05\x02\0\0\0", "missing");
        check(b"GET /mqtt HTTP/1.1\r\n", "missing");
        check(b"PROXY", "end");
        check(b"PROXY TCP4 192.0.2.1 10.0", "end");
    }
}

//! A WebSocket over a pipe that is as narrow as it can be.

use std::future::poll_fn;

use tokio::io::{DuplexStream, duplex};

use super::*;

const MASK: [u8; 4] = [1, 2, 3, 4];
const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    let masked = payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]);
    [first, 0x80 | payload.len() as u8].into_iter().chain(MASK).chain(masked).collect()
}

/// The server's frames: kind and payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        assert_eq!(first & 0xf0, 0x80, "whole messages, no reserved bits");
        let (length, rest) = match length {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize, &rest[8..]),
            short => (usize::from(*short), rest),
        };
        all.push((first & 0x0f, rest[..length].to_vec()));
        bytes = &rest[length..];
    }
    all
}

/// An open WebSocket and its client's end.
fn open(width: usize) -> (WebSocket<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(width);
    (WebSocket::new(ours, Vec::new()), theirs)
}

async fn read(socket: &mut WebSocket<DuplexStream>) -> Vec<u8> {
    let mut buffer = [0; 64];
    let mut space = ReadBuf::new(&mut buffer);
    poll_fn(|cx| socket.poll_read(cx, &mut space)).await.unwrap();
    space.filled().to_vec()
}

async fn write(socket: &mut WebSocket<DuplexStream>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let count = poll_fn(|cx| socket.poll_write(cx, bytes)).await.unwrap();
        bytes = &bytes[count..];
    }
    poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();
}

fn site() -> Site {
    Site { path: "/mqtt".to_owned(), origins: None }
}

#[tokio::test]
async fn a_handshake_may_come_byte_by_byte_with_data_behind_it() {
    let (ours, mut theirs) = duplex(64);
    let stream = [REQUEST.as_bytes(), &frame(0x82, b"early")].concat();
    let client = async {
        for byte in stream {
            theirs.write_all(&[byte]).await.unwrap();
        }
        let mut response = [0; 24];
        theirs.read_exact(&mut response).await.unwrap();
        assert_eq!(&response, b"HTTP/1.1 101 Switching P");
        let mut rest = Vec::new();
        while !rest.ends_with(b"\r\n\r\n") {
            rest.push(theirs.read_u8().await.unwrap());
        }
        theirs
    };
    let server = async {
        let mut socket = WebSocket::accept(ours, &site()).await.unwrap();
        let mut got = Vec::new();
        while got.len() < 5 {
            got.extend(read(&mut socket).await);
        }
        assert_eq!(got, b"early");
    };
    tokio::join!(server, client);
}

#[tokio::test]
async fn a_bad_request_is_answered_and_refused() {
    let (ours, mut theirs) = duplex(64);
    let client = async {
        theirs.write_all(REQUEST.replace("mqtt HTTP", "other HTTP").as_bytes()).await.unwrap();
        let mut response = String::new();
        theirs.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 404 ") && response.ends_with("is at /mqtt\n"), "{response}");
    };
    let here = site();
    let (opened, ()) = tokio::join!(WebSocket::accept(ours, &here), client);
    assert!(matches!(opened, Err(OpenError::Refused(status)) if status.contains("404")));

    let (ours, theirs) = duplex(64);
    drop(theirs);
    assert!(matches!(WebSocket::accept(ours, &site()).await, Err(OpenError::Left)));
}

#[tokio::test]
async fn packets_span_frames_and_frames_hold_packets() {
    let (mut socket, mut client) = open(1024);
    let stream = [frame(0x02, b"a"), frame(0x00, b""), frame(0x80, b"bc"), frame(0x82, b"de")].concat();
    client.write_all(&stream).await.unwrap();
    assert_eq!(read(&mut socket).await, b"abcde");
}

#[tokio::test]
async fn a_ping_is_answered_between_frames_even_if_nothing_else_is_written() {
    let (mut socket, mut client) = open(1024);
    client.write_all(&[frame(0x89, b"one"), frame(0x89, b"two"), frame(0x82, b"x")].concat()).await.unwrap();
    assert_eq!(read(&mut socket).await, b"x");
    // The next read answers before it waits.
    assert!(tokio::time::timeout(std::time::Duration::from_millis(1), read(&mut socket)).await.is_err());
    drop(socket);
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(frames(&bytes), [(10, b"two".to_vec())]);
}

#[tokio::test]
async fn an_answer_never_lands_within_a_frame() {
    let (mut socket, mut client) = open(8);
    let long: Vec<u8> = (0..400_u32).map(|n| n as u8).collect();
    let server = async {
        // The frame is begun, and the pipe is full: only then comes the ping.
        let first = poll_fn(|cx| socket.poll_write(cx, &long)).await.unwrap();
        assert_eq!(read(&mut socket).await, b"x");
        write(&mut socket, &long[first..]).await;
        drop(socket);
    };
    let peer = async {
        client.write_all(&frame(0x89, b"p")[..7]).await.unwrap();
        client.write_all(&frame(0x82, b"x")).await.unwrap();
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        bytes
    };
    let ((), bytes) = tokio::join!(server, peer);
    assert_eq!(frames(&bytes), [(2, long.clone()), (10, b"p".to_vec())]);
}

#[tokio::test]
async fn a_close_is_answered_and_nothing_follows_it() {
    let (mut socket, mut client) = open(1024);
    client
        .write_all(&[frame(0x82, b"x"), frame(0x88, b"\x03\xe8"), frame(0x82, b"late")].concat())
        .await
        .unwrap();
    assert_eq!(read(&mut socket).await, b"x");
    assert_eq!(read(&mut socket).await, b"", "the end");
    write(&mut socket, b"too late").await;
    poll_fn(|cx| socket.poll_end(cx)).await.unwrap();
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(frames(&bytes), [(8, 1000_u16.to_be_bytes().to_vec())]);
}

#[tokio::test]
async fn an_offender_is_told_and_not_read_any_further() {
    for (offence, status) in [(vec![0x82, 1, b'x'], 1002_u16), (frame(0x81, b"text"), 1003)] {
        let (mut socket, mut client) = open(1024);
        client.write_all(&[offence, frame(0x82, b"more")].concat()).await.unwrap();
        assert_eq!(read(&mut socket).await, b"", "the end");
        poll_fn(|cx| socket.poll_end(cx)).await.unwrap();
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(frames(&bytes), [(8, status.to_be_bytes().to_vec())]);
    }
}

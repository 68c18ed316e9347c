//! What strangers reach before MQTT, and what they show to get in, as functions of bytes.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::core::Grants;
use super::tokens::Tokens;
use super::websocket::{Site, WebSocket};
use super::{proxy, scram};
use crate::settings::Jwt;

/// A client that has said all that it will say: it is read in pieces, and what it is told is kept.
struct Stranger<'a> {
    says: &'a [u8],
    piece: usize,
    hears: Vec<u8>,
}

impl<'a> Stranger<'a> {
    fn new(says: &'a [u8], piece: usize) -> Stranger<'a> {
        Stranger { says, piece: piece.max(1), hears: Vec::new() }
    }
}

impl AsyncRead for Stranger<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context, space: &mut ReadBuf) -> Poll<io::Result<()>> {
        let (now, later) = self.says.split_at(self.says.len().min(self.piece).min(space.remaining()));
        space.put_slice(now);
        self.says = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stranger<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.hears.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The end of a future that never has to wait.
fn run<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("nothing here waits"),
    }
}

/// A PROXY header: what it says, and how much was left behind it. `None`: it is none.
pub fn proxy_header(says: &[u8], piece: usize) -> Option<(Option<SocketAddr>, usize)> {
    let mut stranger = Stranger::new(says, piece);
    let found = run(proxy::read_header(&mut stranger)).ok()?;
    Some((found, stranger.says.len()))
}

/// A WebSocket, from its request to its end: the payload that comes out, and what the client is told.
pub fn web_socket(says: &[u8], piece: usize) -> (Vec<u8>, Vec<u8>) {
    let site = Site { path: "/mqtt".to_owned(), origins: Some(vec!["https://a".to_owned()]) };
    let mut stranger = Stranger::new(says, piece);
    let mut payload = Vec::new();
    if let Ok(mut socket) = run(WebSocket::accept(&mut stranger, &site)) {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut space = [0; 4096];
        loop {
            let mut space = ReadBuf::new(&mut space);
            match socket.poll_read(cx, &mut space) {
                Poll::Ready(Ok(())) if !space.filled().is_empty() => payload.extend_from_slice(space.filled()),
                Poll::Ready(_) => break,
                Poll::Pending => panic!("nothing here waits"),
            }
        }
    }
    (payload, stranger.hears)
}

const KEY: [u8; 32] = [7; 32];

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
    let jwks = format!(r#"{{"keys": [{{"kty": "oct", "k": "{}"}}]}}"#, URL_SAFE_NO_PAD.encode(KEY));
    let claim = |name: &str| name.to_owned();
    let jwt = Jwt {
        jwks,
        username_claim: claim("sub"),
        issuer: None,
        audience: Some(claim("mqtt")),
        acl_claim: Some(claim("acl")),
    };
    Tokens::new(&jwt).unwrap_or_else(|error| panic!("{error}"))
});

/// A token of whatever bytes: true if it opens anything.
pub fn token(says: &[u8]) -> bool {
    super::tokens::looks_like_token(says) & TOKENS.verify(says, 0).is_some()
}

/// A token that is signed by the right key, with claims of whatever bytes: user name and rules.
pub fn signed_token(claims: &[u8], now_s: u64) -> Option<(String, Option<Grants>)> {
    use hmac::{Hmac, KeyInit, Mac};
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", encode(br#"{"alg": "HS256"}"#), encode(claims));
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&KEY).expect("any length will do");
    mac.update(message.as_bytes());
    let token = format!("{message}.{}", encode(&mac.finalize().into_bytes()));
    let found = TOKENS.verify(token.as_bytes(), now_s)?;
    Some((found.username, found.grants))
}

/// A login by SCRAM, in two messages, by somebody who does not know the password: the challenge, and true if it opens anything.
pub fn scram_login(first: &[u8], last: &[u8]) -> (Option<String>, bool) {
    const SECRET: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                          wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    let secret_of = |name: &str| (name == "user").then(|| SECRET.to_owned());
    let begun = scram::begin(first, &[7; 18], &[9; 32], secret_of, |_| scram::Face::default());
    let Some(begun) = begun else { return (None, scram::finish(last, "", secret_of).is_some()) };
    (Some(begun.message), scram::finish(last, &begun.context, secret_of).is_some())
}

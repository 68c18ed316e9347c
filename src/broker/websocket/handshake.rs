//! The HTTP request that begins a WebSocket, and the answer to it (RFC 6455, 4.2), pure.
//!
//! Refusals are HTTP answers whose text says what to change: whoever reads it has a client to configure.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The largest request: browsers send cookies and more.
pub(super) const REQUEST_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;
/// What is appended to a client's key (1.3).
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The subprotocols of MQTT [MQTT-6.0.0-3], and what clients of 3.1 say.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// What a request leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is more to come.
    Incomplete,
    /// The WebSocket is open: the answer, and how long the request was.
    Open(String, usize),
    /// It is not: the answer, then the end.
    Refused(String),
}

/// Where a WebSocket is opened, and by whom.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Site {
    pub(in crate::broker) path: String,
    /// The web pages whose scripts may; none: all. Who is no browser says no origin, or any that it likes.
    pub(in crate::broker) origins: Option<Vec<String>>,
}

/// Answers a request, as far as it came.
pub(super) fn answer(request: &[u8], site: &Site) -> Answer {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(request) {
        Ok(httparse::Status::Complete(length)) if length <= REQUEST_BYTES_MAX => length,
        Ok(httparse::Status::Partial) if request.len() < REQUEST_BYTES_MAX => return Answer::Incomplete,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            return refused("431 Request Header Fields Too Large", "", "the request's headers are too large");
        }
        Err(_) => return refused("400 Bad Request", "", "this is no HTTP request"),
    };
    match check(&parsed, site) {
        Ok((key, subprotocol)) => Answer::Open(opened(key, subprotocol), length),
        Err(refusal) => refusal,
    }
}

/// The client's key, and the subprotocol to speak.
fn check<'a>(request: &httparse::Request<'_, 'a>, site: &Site) -> Result<(&'a str, &'static str), Answer> {
    let asked = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
    if asked != site.path {
        let text = format!("there is nothing here; MQTT over WebSocket is at {}", site.path);
        return Err(refused("404 Not Found", "", &text));
    }
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(refused("405 Method Not Allowed", "Allow: GET\r\n", "use GET and HTTP/1.1"));
    }
    if !is_invited(request, site) {
        let text = "this web page may not connect: its origin is not in allowedOrigins";
        return Err(refused("403 Forbidden", "", text));
    }
    if !has_token(request, "upgrade", "websocket") || !has_token(request, "connection", "upgrade") {
        let text = "this is MQTT over WebSocket: connect with an MQTT client";
        return Err(refused("426 Upgrade Required", "Upgrade: websocket\r\nConnection: Upgrade\r\n", text));
    }
    if header(request, "sec-websocket-version") != Some("13") {
        let more = "Sec-WebSocket-Version: 13\r\n";
        return Err(refused("426 Upgrade Required", more, "the version of WebSocket must be 13"));
    }
    if header(request, "host").is_none() {
        return Err(refused("400 Bad Request", "", "Host is missing, or there twice"));
    }
    let key = header(request, "sec-websocket-key");
    let is_key = |key: &&str| STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16);
    let Some(key) = key.filter(is_key) else {
        return Err(refused("400 Bad Request", "", "Sec-WebSocket-Key is missing or not 16 bytes in base64"));
    };
    let spoken = |name: &&&str| tokens(request, "sec-websocket-protocol").any(|one| one == **name);
    // [MQTT-6.0.0-4]
    let Some(subprotocol) = SUBPROTOCOLS.iter().find(spoken) else {
        let text = "the subprotocol is missing: send Sec-WebSocket-Protocol: mqtt";
        return Err(refused("400 Bad Request", "", text));
    };
    Ok((key, subprotocol))
}

/// True unless a web page asks that is not named.
fn is_invited(request: &httparse::Request<'_, '_>, site: &Site) -> bool {
    let is_said = request.headers.iter().any(|header| header.name.eq_ignore_ascii_case("origin"));
    match &site.origins {
        Some(origins) if is_said => header(request, "origin")
            .is_some_and(|origin| origins.iter().any(|one| one.eq_ignore_ascii_case(origin))),
        _ => true,
    }
}

/// The value of a header that is there once.
fn header<'a>(request: &httparse::Request<'_, 'a>, name: &str) -> Option<&'a str> {
    let mut values = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    let value = values.next()?.value;
    std::str::from_utf8(value).ok().map(str::trim).filter(|_| values.next().is_none())
}

/// What a list in a header, which may be there several times, names.
fn tokens<'a>(request: &httparse::Request<'_, 'a>, name: &str) -> impl Iterator<Item = &'a str> {
    let named = request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    let texts = named.filter_map(|header| std::str::from_utf8(header.value).ok());
    texts.flat_map(|text| text.split(',')).map(str::trim)
}

fn has_token(request: &httparse::Request<'_, '_>, name: &str, token: &str) -> bool {
    tokens(request, name).any(|one| one.eq_ignore_ascii_case(token))
}

fn opened(key: &str, subprotocol: &str) -> String {
    // No secret hangs on it: the hash shows that whoever answers speaks WebSocket.
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(KEY_SUFFIX.as_bytes());
    let accept = STANDARD.encode(hash.finish());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    )
}

fn refused(status: &str, more: &str, text: &str) -> Answer {
    let length = text.len() + 1;
    let connection = if more.contains("Connection:") { "" } else { "Connection: close\r\n" };
    Answer::Refused(format!(
        "HTTP/1.1 {status}\r\n{more}{connection}Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\n\r\n{text}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of the RFC.
    const GOOD: &str = "GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat, mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

    #[track_caller]
    fn check(request: &str, status: &str) {
        check_at(&Site { path: "/mqtt".to_owned(), origins: None }, request, status);
    }

    #[track_caller]
    fn check_at(site: &Site, request: &str, status: &str) {
        match answer(request.as_bytes(), site) {
            Answer::Refused(text) => {
                assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
                let (_, body) = text.split_once("\r\n\r\n").unwrap();
                assert!(text.contains(&format!("Content-Length: {}\r\n", body.len())));
            }
            Answer::Open(text, length) => {
                assert_eq!((status, length), ("101", request.len()));
                assert!(text.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{text}");
            }
            Answer::Incomplete => assert_eq!(status, "more"),
        }
    }

    // [MQTT-6.0.0-4]
    #[test]
    fn requests_are_answered() {
        check(GOOD, "101");
        check(&GOOD.replace("/mqtt HTTP", "/mqtt?token=x HTTP"), "101");
        check(&GOOD.replace("chat, mqtt", "mqttv3.1"), "101");
        check(&GOOD.replace("websocket\r\n", "WebSocket\r\n").replace("Upgrade\r\n", "upgrade\r\n"), "101");
        check(&GOOD.replace("chat, mqtt", "chat"), "400");
        check(&GOOD.replace("chat, mqtt", "MQTT"), "400");
        check(&GOOD.replace("Host: a\r\n", ""), "400");
        check(&GOOD.replace("Sec-WebSocket-Protocol: chat, mqtt\r\n", ""), "400");
        check(&GOOD.replace("/mqtt", "/other"), "404");
        check(&GOOD.replace("GET", "POST"), "405");
        check(&GOOD.replace("HTTP/1.1", "HTTP/1.0"), "405");
        check(&GOOD.replace("Upgrade: websocket\r\n", ""), "426");
        check(&GOOD.replace("Version: 13", "Version: 8"), "426");
        check(&GOOD.replace("ZQ==", "ZWE="), "400");
        check(&GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), "400");
        check("\x10\x0e\0\x04MQTT\x05", "400");
        check("GET /mqtt HTTP/1.1\r\nHost: a\r\n", "more");
        check("", "more");
        for length in 1..GOOD.len() {
            check(&GOOD[..length], "more");
        }
    }

    #[test]
    fn web_pages_are_let_in_by_their_origin() {
        let origins = Some(vec!["https://app.example".to_owned(), "http://localhost:8080".to_owned()]);
        let site = Site { path: "/mqtt".to_owned(), origins };
        let from = |origin: &str| GOOD.replace("Host: a", &format!("Host: a\r\nOrigin: {origin}"));
        check_at(&site, &from("https://app.example"), "101");
        check_at(&site, &from("HTTPS://APP.example"), "101");
        check_at(&site, &from("http://localhost:8080"), "101");
        for stranger in [
            "https://app.example.evil.example",
            "http://app.example",
            "https://app.example:444",
            "null",
            "",
            "https://app.example\r\nOrigin: https://evil.example",
        ] {
            check_at(&site, &from(stranger), "403");
        }
        check_at(&site, GOOD, "101");
        check(&from("https://evil.example"), "101");
        check_at(&Site { origins: Some(Vec::new()), ..site }, &from("https://app.example"), "403");
    }

    #[test]
    fn requests_are_bounded() {
        let header = |length: usize| GOOD.replace("Host: a", &format!("Host: {}", "a".repeat(length)));
        check(&header(REQUEST_BYTES_MAX - GOOD.len()), "101");
        check(&header(REQUEST_BYTES_MAX), "431");
        check(&header(2 * REQUEST_BYTES_MAX)[..REQUEST_BYTES_MAX], "431");
        check(&GOOD.replace("Host: a", &"A: b\r\n".repeat(HEADERS_MAX + 1)), "431");
    }
}

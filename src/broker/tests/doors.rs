//! The doors on real sockets: WebSocket, PROXY protocol, certificates, limits.

use super::*;
use crate::settings::{
    AccessRule, Action, Authorization, CertificateName, Effect, ListenerLimits, Principals, ProxyProtocol,
};

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

async fn dial(broker: &Broker, name: &str) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port(broker, name))).await.expect("it listens")
}

/// Opens a WebSocket, and gives a stream whose bytes travel in its frames.
async fn upgrade(mut stream: Box<dyn Stream>) -> Client {
    stream.write_all(REQUEST.as_bytes()).await.expect("it is open");
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n") {
        response.push(stream.read_u8().await.expect("an answer"));
    }
    assert!(response.starts_with(b"HTTP/1.1 101 "), "{}", response.escape_ascii());
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::task::spawn_local(carry(stream, far));
    Client { stream: Box::new(near), unread: Vec::new() }
}

/// Puts bytes into frames of all sizes, and takes them out of frames.
async fn carry(stream: Box<dyn Stream>, far: tokio::io::DuplexStream) {
    let (mut from_broker, mut to_broker) = tokio::io::split(stream);
    let (mut from_client, mut to_client) = tokio::io::split(far);
    let out = async {
        let mut buffer = vec![0; 1000];
        let mut turn = 0;
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            for piece in buffer[..count].chunks(1 + turn % 300) {
                turn += 7;
                let mut frame = vec![0x82, 0xfe, 0, 0, 9, 8, 7, 6];
                if piece.len() < 126 {
                    frame = vec![0x82, 0x80 | piece.len() as u8, 9, 8, 7, 6];
                } else {
                    frame[2..4].copy_from_slice(&(piece.len() as u16).to_be_bytes());
                }
                frame.extend(piece.iter().enumerate().map(|(at, byte)| byte ^ [9, 8, 7, 6][at % 4]));
                if to_broker.write_all(&frame).await.is_err() {
                    return;
                }
            }
        }
    };
    let back = async {
        while let Ok(0x82) = from_broker.read_u8().await {
            let length = match from_broker.read_u8().await {
                Ok(126) => from_broker.read_u16().await.map(u64::from),
                Ok(127) => from_broker.read_u64().await,
                short => short.map(u64::from),
            };
            let mut payload = vec![0; length.expect("a length") as usize];
            from_broker.read_exact(&mut payload).await.expect("as long as announced");
            to_client.write_all(&payload).await.expect("the test reads");
        }
        to_client.shutdown().await.expect("the test reads");
    };
    tokio::join!(out, back);
}

fn ws_settings() -> Settings {
    let mut settings = plain_settings();
    settings.listeners.push(Listener::new("ws", Protocol::Ws, 0));
    settings
}

#[test]
fn messages_of_all_sizes_cross_between_a_web_socket_and_tcp() {
    run(|| async {
        let broker = Broker::start(&ws_settings());
        let mut a = upgrade(Box::new(dial(&broker, "ws").await)).await;
        a.hello("a", None).await;
        assert_eq!(a.hear().await, "CONNACK Success");
        a.subscribe("t/+", QoS::AtLeastOnce).await;
        let mut b = Client::connect(&broker, "b").await;
        b.subscribe("back", QoS::AtMostOnce).await;
        for size in [0, 1, 100, 200, 70_000, 1 << 20] {
            let payload = vec![b'x'; size];
            b.send(&[publish("t/1", QoS::AtMostOnce, &payload)]).await;
            assert_eq!(a.hear().await.len(), "t/1=".len() + size);
            a.send(&[publish("back", QoS::AtMostOnce, &payload)]).await;
            assert_eq!(b.hear().await.len(), "back=".len() + size);
        }
        a.send(&[Packet::PingReq, Packet::PingReq]).await;
        assert_eq!((a.hear().await, a.hear().await), ("PingResp".to_owned(), "PingResp".to_owned()));
        a.stream.write_all(b"\xff\xff").await.expect("it is open");
        assert_eq!(a.hear().await, "DISCONNECT MalformedPacket");
        assert_eq!(a.hear().await, "the end");
    });
}

#[test]
fn a_port_serves_another_protocol_at_once() {
    run(|| async {
        let broker = Broker::start(&ws_settings());
        let mut settings = ws_settings();
        (settings.listeners[0].port, settings.listeners[1].port) =
            (port(&broker, "ws"), port(&broker, "mqtt"));
        broker.apply_settings(&settings);
        upgrade(Box::new(dial(&broker, "ws").await)).await;
        Client::connect(&broker, "b").await;
    });
}

#[test]
fn web_pages_that_are_not_invited_hear_so() {
    run(|| async {
        let mut settings = ws_settings();
        settings.listeners[1].allowed_origins = Some(vec!["https://app.example".to_owned()]);
        let broker = Broker::start(&settings);
        for (origin, expected) in [("https://app.example", "101"), ("https://other.example", "403")] {
            let mut stream = dial(&broker, "ws").await;
            let request = REQUEST.replace("Host: a", &format!("Host: a\r\nOrigin: {origin}"));
            stream.write_all(request.as_bytes()).await.expect("it is open");
            let mut status = [0; 12];
            stream.read_exact(&mut status).await.expect("an answer");
            assert_eq!(status.escape_ascii().to_string(), format!("HTTP/1.1 {expected}"), "{origin}");
        }
    });
}

#[test]
fn a_web_socket_over_tls_names_its_client_by_certificate() {
    run(|| async {
        let papers = Papers::new();
        let mut tls = papers.server_tls(ClientAuth::Require);
        tls.username_from = Some(CertificateName::Dns);
        let mut settings = plain_settings();
        settings.authentication.anonymous = false;
        settings.listeners.push(Listener::new("mqtts", Protocol::Wss, 0).with_tls(tls.clone()));
        let filters = vec!["${username}/#".to_owned()];
        let (principals, action, effect) = (Principals::default(), Action::All, Effect::Allow);
        settings.authorization = Some(Authorization {
            rules: vec![AccessRule { principals, action, filters, effect }],
            ..Default::default()
        });
        let broker = Broker::start(&settings);
        let mut a = upgrade(papers.open(&broker, true).await.stream).await;
        a.hello("a", None).await;
        assert_eq!(a.hear().await, "CONNACK Success");
        a.subscribe("client/x", QoS::AtMostOnce).await;
        a.send(&[publish("other", QoS::AtLeastOnce, b"")]).await;
        assert_eq!(a.hear().await, "PUBACK 1 NotAuthorized");

        // The certificate has no such name: nobody gets in, whatever CONNECT says.
        tls.username_from = Some(CertificateName::Email);
        settings.listeners[1].tls = Some(tls);
        broker.apply_settings(&settings);
        let mut stream = papers.open(&broker, true).await.stream;
        let _ = stream.write_all(REQUEST.as_bytes()).await; // it may be closed already
        assert!(stream.read_u8().await.is_err());
        a.subscribe("client/y", QoS::AtMostOnce).await;
    });
}

#[test]
fn a_load_balancer_says_who_the_client_is_if_it_is_trusted() {
    run(|| async {
        let mut settings = plain_settings();
        let trusted = |cidr: &str| Some(ProxyProtocol { trusted_cidrs: vec![cidr.to_owned()] });
        settings.listeners[0].proxy_protocol = trusted("127.0.0.0/8");
        let principals = Principals { cidrs: vec!["192.0.2.0/24".to_owned()], ..Principals::default() };
        let (action, effect) = (Action::All, Effect::Allow);
        let rule = AccessRule { principals, action, filters: vec!["#".to_owned()], effect };
        settings.authorization = Some(Authorization { rules: vec![rule], ..Default::default() });
        let broker = Broker::start(&settings);
        for (header, expected) in [
            (&b"PROXY TCP4 192.0.2.7 10.0.0.1 5 1883\r\n"[..], "PUBACK 1 NoMatchingSubscribers"),
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 5 1883\r\n", "PUBACK 1 NotAuthorized"),
            (
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\0\x05\x07\x5b",
                "PUBACK 1 NoMatchingSubscribers",
            ),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "PUBACK 1 NotAuthorized"),
        ] {
            let mut client = Client::open(&broker).await;
            client.stream.write_all(header).await.expect("it is open");
            client.hello("a", None).await;
            assert_eq!(client.hear().await, "CONNACK Success");
            client.send(&[publish("t", QoS::AtLeastOnce, b"")]).await;
            assert_eq!(client.hear().await, expected, "{}", header.escape_ascii());
        }
        for header in [&b""[..], b"PROXY TCP9 a b c d\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"] {
            let mut client = Client::open(&broker).await;
            let _ = client.stream.write_all(header).await;
            client.hello("a", None).await;
            assert_eq!(client.hear().await, "the end");
        }
        settings.listeners[0].proxy_protocol = trusted("10.0.0.0/8");
        broker.apply_settings(&settings);
        let mut client = Client::open(&broker).await;
        let mut bytes = b"PROXY TCP4 192.0.2.7 10.0.0.1 5 1883\r\n".to_vec();
        connect("a", None).encode(Version::V5, &mut bytes);
        let _ = client.stream.write_all(&bytes).await; // it may be closed already
        assert_eq!(client.hear().await, "the end");
    });
}

#[test]
fn a_load_balancer_speaks_before_tls_and_before_a_web_socket() {
    run(|| async {
        let papers = Papers::new();
        let tls = papers.server_tls(ClientAuth::None);
        let mut settings = ws_settings();
        settings.listeners.push(listener("mqtts", Some(tls.clone())));
        settings.listeners.push(Listener::new("wss", Protocol::Wss, 0).with_tls(tls));
        for listener in &mut settings.listeners {
            listener.proxy_protocol = Some(ProxyProtocol { trusted_cidrs: vec!["127.0.0.0/8".to_owned()] });
        }
        let principals = Principals { cidrs: vec!["192.0.2.0/24".to_owned()], ..Principals::default() };
        let (action, effect) = (Action::All, Effect::Allow);
        let rule = AccessRule { principals, action, filters: vec!["#".to_owned()], effect };
        settings.authorization = Some(Authorization { rules: vec![rule], ..Default::default() });
        let broker = Broker::start(&settings);
        for name in ["ws", "mqtts", "wss"] {
            for (header, expected) in [
                (&b"PROXY TCP4 192.0.2.7 10.0.0.1 5 1883\r\n"[..], "PUBACK 1 NoMatchingSubscribers"),
                (b"PROXY TCP4 203.0.113.7 10.0.0.1 5 1883\r\n", "PUBACK 1 NotAuthorized"),
                (
                    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\0\x05\x07\x5b",
                    "PUBACK 1 NoMatchingSubscribers",
                ),
            ] {
                let mut stream = dial(&broker, name).await;
                stream.write_all(header).await.expect("it is open");
                let stream: Box<dyn Stream> = match name {
                    "ws" => Box::new(stream),
                    _ => papers.secure(stream, false).await.stream,
                };
                let mut client = match name {
                    "mqtts" => Client { stream, unread: Vec::new() },
                    _ => upgrade(stream).await,
                };
                client.hello("a", None).await;
                assert_eq!(client.hear().await, "CONNACK Success", "{name}");
                client.send(&[publish("t", QoS::AtLeastOnce, b"")]).await;
                assert_eq!(client.hear().await, expected, "{name}");
            }
        }
    });
}

#[test]
fn who_takes_too_long_to_come_in_is_put_out() {
    run(|| async {
        let papers = Papers::new();
        let mut settings = ws_settings();
        settings.limits.connect_timeout_s = 60;
        settings.listeners.push(listener("mqtts", Some(papers.server_tls(ClientAuth::None))));
        let trusted_cidrs = vec!["127.0.0.1/32".to_owned()];
        settings.listeners[0].proxy_protocol = Some(ProxyProtocol { trusted_cidrs });
        for listener in &mut settings.listeners {
            listener.limits.handshake_s_max = Some(1);
        }
        let broker = Broker::start(&settings);
        for (name, beginning) in [
            ("mqtt", &b"PROXY TCP4 1"[..]),
            ("ws", b"GET /mqtt HT"),
            ("mqtts", b"\x16\x03\x01\x02\0\x01"),
            ("mqtts", b""),
        ] {
            let mut stream = dial(&broker, name).await;
            stream.write_all(beginning).await.expect("it is open");
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            assert_eq!(rest, b"", "{name}");
        }
        for figures in broker.door_figures().0 {
            assert_eq!(
                figures.refused[2],
                ("timeout", if figures.name == "mqtts" { 2 } else { 1 }),
                "{figures:?}"
            );
        }
        let stream = dial(&broker, "ws").await;
        let mut a = upgrade(Box::new(stream)).await;
        a.hello("a", None).await;
        assert_eq!(a.hear().await, "CONNACK Success");
    });
}

#[test]
fn each_listener_has_its_own_bounds() {
    run(|| async {
        let mut settings = ws_settings();
        settings.listeners[0].limits = ListenerLimits { connections_max: Some(2), ..Default::default() };
        let broker = Broker::start(&settings);
        let first = Client::connect(&broker, "a").await;
        let _second = Client::connect(&broker, "b").await;
        let mut third = Client::open(&broker).await;
        assert_eq!(third.hear().await, "the end");
        let mut elsewhere = upgrade(Box::new(dial(&broker, "ws").await)).await;
        elsewhere.hello("c", None).await;
        assert_eq!(elsewhere.hear().await, "CONNACK Success");
        drop(first);
        while broker.levels().connections > 2 {
            tokio::task::yield_now().await;
        }
        Client::connect(&broker, "d").await;

        // What one second allows comes at once, what is more has to wait.
        settings.listeners[0].limits = ListenerLimits { connects_per_s_max: Some(4), ..Default::default() };
        broker.apply_settings(&settings);
        let start = std::time::Instant::now();
        for n in 0..7 {
            Client::connect(&broker, &format!("e{n}")).await;
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(450), "{took:?}");
        let (figures, _) = broker.door_figures();
        assert_eq!((figures[0].name.as_str(), figures[0].refused[0]), ("mqtt", ("full", 1)));
        assert!(figures[0].paced >= 2 && figures[0].accepted >= 11, "{figures:?}");
        assert_eq!((figures[1].accepted, figures[1].connections), (1, 1));
    });
}

#[test]
fn a_user_keeps_the_client_id_and_wrong_passwords_take_their_time() {
    run(|| async {
        let mut settings = plain_settings();
        settings.authentication.anonymous = false;
        for name in ["ann", "bob"] {
            settings
                .authentication
                .users
                .push(User { name: name.to_owned(), secret: format!("plain:{name}") });
        }
        let broker = Broker::start(&settings);
        let login = async |id: &str, name: &str, password: &str| {
            let mut client = Client::open(&broker).await;
            client.hello(id, Some((name, password))).await;
            let heard = client.hear().await;
            (client, heard)
        };
        let (_ann, heard) = login("dev", "ann", "ann").await;
        assert_eq!(heard, "CONNACK Success");
        assert_eq!(login("dev", "bob", "bob").await.1, "CONNACK ClientIdentifierNotValid");
        let start = std::time::Instant::now();
        for (name, password) in [("ann", "bob"), ("nobody", "ann")] {
            assert_eq!(login("x", name, password).await.1, "CONNACK BadUserNameOrPassword");
        }
        assert!(start.elapsed() >= Duration::from_millis(300));
        assert_eq!(login("x", "bob", "bob").await.1, "CONNACK Success");
    });
}

#[test]
fn who_is_sent_away_and_sends_on_is_not_read_for_long() {
    run(|| async {
        let broker = Broker::start(&plain_settings());
        let mut a = Client::connect(&broker, "a").await;
        a.hello("a", None).await; // a second CONNECT
        assert_eq!(a.hear().await, "DISCONNECT ProtocolError");
        let piece = vec![0; 1 << 20];
        let mut taken = 0;
        while a.stream.write_all(&piece).await.is_ok() {
            taken += 1;
        }
        assert!(taken < 64 + 32, "{taken} MiB were taken");
        assert!(taken > 8, "{taken} MiB: a packet that is too large would find nobody");
    });
}

//! The shell on real sockets: a broker and its clients on one thread, on free ports of the loopback.

mod doors;
mod access;
mod logins;
mod shards;
mod turns;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Broker;
use super::core::PART_BYTES;
use super::core::tests::world::render_all;
use crate::mqtt::{
    Connect, Limits, Packet, PacketId, Properties, Publish, QoS, Subscribe, SubscribeFiltersBuf,
    SubscribeOptions, Version, decode,
};
use crate::settings::{ClientAuth, Listener, Protocol, ServerTls, Settings, User};

/// Nothing here takes long; what hangs is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    let done = local.block_on(&runtime, async { tokio::time::timeout(PATIENCE, test()).await });
    done.expect("the test is done in time");
}

fn plain_settings() -> Settings {
    let mut settings = Settings::new("test");
    settings.shards = Some(1);
    settings.authentication.anonymous = true;
    settings.listeners.push(listener("mqtt", None));
    settings
}

fn listener(name: &str, tls: Option<ServerTls>) -> Listener {
    let protocol = if tls.is_some() { Protocol::Mqtts } else { Protocol::Mqtt };
    Listener { tls, ..Listener::new(name, protocol, 0) }
}

fn port(broker: &Broker, name: &str) -> u16 {
    let reports = broker.listeners();
    let report = reports.iter().find(|report| report.name == name).expect("the listener is there");
    assert_eq!(report.error, None);
    report.port
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

struct Client {
    stream: Box<dyn Stream>,
    unread: Vec<u8>,
}

impl Client {
    async fn open(broker: &Broker) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port(broker, "mqtt"))).await.expect("it listens");
        Client { stream: Box::new(stream), unread: Vec::new() }
    }

    async fn connect(broker: &Broker, client_id: &str) -> Client {
        let mut client = Client::open(broker).await;
        client.hello(client_id, None).await;
        assert_eq!(client.hear().await, "CONNACK Success");
        client
    }

    async fn hello(&mut self, client_id: &str, user: Option<(&str, &str)>) {
        self.send(&[connect(client_id, user)]).await;
    }

    async fn send(&mut self, packets: &[Packet<'_>]) {
        let mut bytes = Vec::new();
        packets.iter().for_each(|packet| packet.encode(Version::V5, &mut bytes));
        self.stream.write_all(&bytes).await.expect("it is open");
    }

    async fn subscribe(&mut self, filter: &str, qos: QoS) {
        let mut filters = SubscribeFiltersBuf::default();
        filters.push(filter, SubscribeOptions::at(qos)).expect("valid");
        let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
        self.send(&[Packet::Subscribe(Subscribe { packet_id, properties, filters: filters.as_filters() })])
            .await;
        assert_eq!(self.hear().await, format!("SUBACK [{}]", qos as u8));
    }

    /// The next packet as a line; `the end` at the end of the stream.
    async fn hear(&mut self) -> String {
        loop {
            if let Ok(Some((_, length))) = decode(&self.unread, Version::V5, &Limits::default()) {
                let line = render_all(&self.unread[..length], Version::V5).remove(0);
                self.unread.drain(..length);
                return line;
            }
            match self.stream.read_buf(&mut self.unread).await {
                Ok(0) | Err(_) => return "the end".to_owned(),
                Ok(_) => {}
            }
        }
    }
}

fn connect<'a>(client_id: &'a str, user: Option<(&'a str, &'a str)>) -> Packet<'a> {
    Packet::Connect(Connect {
        username: user.map(|(name, _)| name),
        password: user.map(|(_, password)| password.as_bytes()),
        ..Connect::new(client_id)
    })
}

fn publish<'a>(topic: &'a str, qos: QoS, payload: &'a [u8]) -> Packet<'a> {
    let packet_id = (qos != QoS::AtMostOnce).then_some(PacketId::MIN);
    let properties = Properties::EMPTY;
    Packet::Publish(Publish { dup: false, qos, retain: false, topic, packet_id, properties, payload })
}

// [MQTT-4.2.0-1]
#[test]
fn messages_cross_from_socket_to_socket() {
    run(|| async {
        let broker = Broker::start(&plain_settings());
        let mut a = Client::connect(&broker, "a").await;
        let mut b = Client::connect(&broker, "b").await;
        b.subscribe("t/+", QoS::AtLeastOnce).await;
        a.send(&[publish("t/1", QoS::AtLeastOnce, b"one"), publish("t/2", QoS::AtMostOnce, b"two")]).await;
        assert_eq!(b.hear().await, "t/1=one q1 #1");
        assert_eq!(b.hear().await, "t/2=two");
        assert_eq!(a.hear().await, "PUBACK 1");
        assert_eq!(broker.counters().received, 2);
    });
}

#[test]
fn a_broker_waits_for_no_large_page() {
    run(|| async {
        let _broker = Broker::start(&plain_settings());
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
        assert!(status.contains("THP_enabled:\t0\n"), "{status}");
    });
}

#[test]
fn a_large_message_crosses_whole_and_small_ones_after_it() {
    run(|| async {
        let broker = Broker::start(&plain_settings());
        let mut a = Client::connect(&broker, "a").await;
        let mut b = Client::connect(&broker, "b").await;
        b.subscribe("t", QoS::AtMostOnce).await;
        let large = vec![b'x'; 3 << 20];
        let sending = async {
            a.send(&[publish("t", QoS::AtMostOnce, &large), publish("t", QoS::AtMostOnce, b"small")]).await;
        };
        let (_, first) = tokio::join!(sending, b.hear());
        assert_eq!(first.len(), large.len() + 2);
        assert_eq!(b.hear().await, "t=small");
    });
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_and_gets_the_rest_when_it_reads() {
    run(|| async {
        let broker = Broker::start(&plain_settings());
        let mut slow = Client::connect(&broker, "slow").await;
        slow.subscribe("t", QoS::AtLeastOnce).await;
        let mut a = Client::connect(&broker, "a").await;
        let payload = vec![b'x'; 100_000];
        for _ in 0..200 {
            a.send(&[publish("t", QoS::AtLeastOnce, &payload)]).await;
            assert_eq!(a.hear().await, "PUBACK 1");
        }
        // It acknowledges nothing: the window of 1,000 is wide enough.
        for n in 1..=200 {
            assert!(slow.hear().await.ends_with(&format!("x q1 #{n}")));
        }
    });
}

#[test]
fn a_packet_that_is_never_finished_is_not_kept_when_memory_is_short() {
    run(|| async {
        let broker = Broker::start(&plain_settings());
        let mut idle = Client::connect(&broker, "idle").await;
        let mut a = Client::connect(&broker, "a").await;
        let mut bytes = Vec::new();
        publish("t", QoS::AtMostOnce, &[b'x'; 1 << 20]).encode(Version::V5, &mut bytes);
        a.stream.write_all(&bytes[..=PART_BYTES]).await.expect("it is open");
        let has_part = || broker.inner.shard.wires.borrow().values().any(|wire| wire.has_part.get());
        while !has_part() {
            tokio::task::yield_now().await;
        }
        let mut short = plain_settings();
        short.limits.memory_bytes_max = 1;
        broker.apply_settings(&short);
        assert_eq!(a.hear().await, "DISCONNECT ServerBusy");
        assert_eq!(a.hear().await, "the end");
        idle.send(&[Packet::PingReq]).await;
        assert_eq!(idle.hear().await, "PingResp");
    });
}

/// Two shards read a CONNECT before any core knows of the connection.
#[test]
fn a_connect_that_is_never_finished_is_not_kept_when_memory_is_short() {
    for shards in [1, 2] {
        run(|| async move {
            let mut settings = Settings { shards: Some(shards), ..plain_settings() };
            settings.limits.connect_timeout_s = 60;
            let broker = Broker::start(&settings);
            let mut beginning = b"\x10\x80\x80\x20\x00\x04MQTT\x05".to_vec(); // 512 KiB are to come
            beginning.resize(PART_BYTES + 1, 0);
            let mut early = Client::open(&broker).await;
            early.stream.write_all(&beginning).await.expect("it is open");
            let mut short = settings.clone();
            short.limits.memory_bytes_max = 1;
            broker.apply_settings(&short);
            assert_eq!(early.hear().await, "the end");
            let mut late = Client::open(&broker).await;
            late.stream.write_all(&beginning).await.expect("it is open");
            assert_eq!(late.hear().await, "the end");
            let ended: Vec<_> = broker.counters().ended.iter().filter(|(_, count)| *count > 0).collect();
            assert_eq!(ended, [("memory", 2)], "{shards} shards");
        });
    }
}

#[test]
fn a_bad_packet_is_answered_and_the_socket_closed() {
    run(|| async {
        let broker = Broker::start(&plain_settings());
        let mut a = Client::connect(&broker, "a").await;
        a.stream.write_all(b"\xff\xff\xff\xff\xff").await.expect("it is open");
        assert_eq!(a.hear().await, "DISCONNECT MalformedPacket");
        assert_eq!(a.hear().await, "the end");
        let mut b = Client::connect(&broker, "b").await;
        b.send(&[Packet::PingReq]).await;
        assert_eq!(b.hear().await, "PingResp");
        drop(a);
        while broker.levels().connections > 1 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn who_sends_too_much_hears_so_though_it_is_sending_still() {
    run(|| async {
        let mut settings = plain_settings();
        settings.limits.packet_bytes_max = 1_024;
        let broker = Broker::start(&settings);
        let mut a = Client::connect(&broker, "a").await;
        a.send(&[publish("t", QoS::AtMostOnce, &vec![b'x'; 8 << 20])]).await;
        assert_eq!(a.hear().await, "DISCONNECT PacketTooLarge");
        assert_eq!(a.hear().await, "the end");
    });
}

#[test]
fn what_follows_connect_at_once_is_heard_when_the_user_is_let_in() {
    run(|| async {
        let hashed = "$7$101$MDEyMzQ1Njc4OWFi$bGJdXfn6P9jmSY0ZCpIaCSkQ1XayfQBMBwplxxuT8e+N6cR6JaUl22kyOezT4vgFZzRNUODVbwJMCRIfFS1o8A==";
        let user = |name: &str, secret: &str| User { name: name.to_owned(), secret: secret.to_owned() };
        let mut settings = plain_settings();
        settings.authentication.users = vec![user("ann", hashed), user("bob", "plain:correct horse")];
        let broker = Broker::start(&settings);
        for name in ["ann", "bob"] {
            let mut a = Client::open(&broker).await;
            let mut bytes = Vec::new();
            connect(name, Some((name, "correct horse"))).encode(Version::V5, &mut bytes);
            Packet::PingReq.encode(Version::V5, &mut bytes);
            a.stream.write_all(&bytes).await.expect("it is open");
            assert_eq!(a.hear().await, "CONNACK Success", "{name}");
            assert_eq!(a.hear().await, "PingResp", "{name}");
        }
    });
}

#[test]
fn a_client_that_asks_without_listening_is_answered_once_it_listens() {
    run(|| async {
        let broker = Broker::start(&plain_settings());
        let mut a = Client::connect(&broker, "a").await;
        let pings = [0xc0, 0x00].repeat(32 * 1024);
        let mut sent = 0;
        let mut refusals = 0;
        // Until nobody takes more: the buffers are full, and the broker does not read.
        while refusals < 1_000 {
            let wrote =
                poll_fn(|cx| Poll::Ready(Pin::new(&mut a.stream).poll_write(cx, &pings[sent % 2..]))).await;
            match wrote {
                Poll::Ready(count) => (sent, refusals) = (sent + count.expect("it is open"), 0),
                Poll::Pending => refusals += 1,
            }
            assert!(sent < 256 << 20, "it reads on and on");
            tokio::task::yield_now().await;
        }
        let mut answers = vec![0; sent / 2 * 2];
        a.stream.read_exact(&mut answers).await.expect("it is answered");
        assert!(answers.chunks(2).all(|answer| answer == [0xd0, 0x00]));
    });
}

#[test]
fn passwords_are_checked_and_who_is_barred_later_is_sent_away() {
    run(|| async {
        let mut settings = plain_settings();
        let user = |name: &str, secret: &str| User { name: name.to_owned(), secret: secret.to_owned() };
        // "correct horse", with few rounds.
        let hashed = "$7$101$MDEyMzQ1Njc4OWFi$bGJdXfn6P9jmSY0ZCpIaCSkQ1XayfQBMBwplxxuT8e+N6cR6JaUl22kyOezT4vgFZzRNUODVbwJMCRIfFS1o8A==";
        settings.authentication.users = vec![user("ann", hashed), user("bob", "plain:secret")];
        let broker = Broker::start(&settings);
        let cases = [
            ("ann", "correct horse", "CONNACK Success"),
            ("ann", "wrong", "CONNACK BadUserNameOrPassword"),
            ("bob", "secret", "CONNACK Success"),
            ("bob", "wrong", "CONNACK BadUserNameOrPassword"),
            ("eve", "secret", "CONNACK BadUserNameOrPassword"),
        ];
        let mut inside = Vec::new();
        for (name, password, expected) in cases {
            let mut client = Client::open(&broker).await;
            client.hello(&format!("{name}-{password}"), Some((name, password))).await;
            assert_eq!(client.hear().await, expected, "{name} with {password}");
            inside.push(client);
        }
        let mut anonymous = Client::connect(&broker, "anonymous").await;

        settings.authentication.users.remove(0);
        broker.apply_settings(&settings);
        assert_eq!(inside[0].hear().await, "DISCONNECT NotAuthorized");
        settings.authentication.users[0].secret = "plain:changed".to_owned();
        broker.apply_settings(&settings);
        assert_eq!(inside[2].hear().await, "DISCONNECT NotAuthorized");
        settings.authentication.anonymous = false;
        broker.apply_settings(&settings);
        assert_eq!(anonymous.hear().await, "DISCONNECT NotAuthorized");
    });
}

#[test]
fn listeners_come_and_go_while_clients_stay() {
    run(|| async {
        let mut settings = plain_settings();
        let broker = Broker::start(&settings);
        let first_port = port(&broker, "mqtt");
        let mut a = Client::connect(&broker, "a").await;

        settings.listeners.push(listener("second", None));
        broker.apply_settings(&settings);
        assert_eq!(port(&broker, "mqtt"), first_port);
        assert_ne!(port(&broker, "second"), first_port);

        settings.listeners.remove(0);
        broker.apply_settings(&settings);
        assert_eq!(broker.listeners().len(), 1);
        tokio::task::yield_now().await; // the old listener's task ends
        assert!(TcpStream::connect(("127.0.0.1", first_port)).await.is_err());
        a.send(&[Packet::PingReq]).await;
        assert_eq!(a.hear().await, "PingResp");
    });
}

#[test]
fn a_port_that_is_taken_is_named_in_the_report() {
    run(|| async {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut settings = plain_settings();
        settings.listeners[0].port = taken.local_addr().expect("it is bound").port();
        let broker = Broker::start(&settings);
        let error = broker.listeners()[0].error.clone().expect("it cannot bind");
        assert!(error.starts_with("failed to bind 127.0.0.1 port"), "{error}");
        drop(taken); // and it tries again by itself
        broker.listener_bound().await;
        assert_eq!(broker.listeners()[0].error, None);
        Client::connect(&broker, "a").await;
    });
}

#[test]
fn there_are_no_more_connections_than_allowed() {
    run(|| async {
        let mut settings = plain_settings();
        settings.limits.connections_max = 1;
        let broker = Broker::start(&settings);
        let a = Client::connect(&broker, "a").await;
        let mut b = Client::open(&broker).await;
        assert_eq!(b.hear().await, "the end");
        drop(a);
        while broker.levels().connections > 0 {
            tokio::task::yield_now().await;
        }
        Client::connect(&broker, "c").await;
    });
}

#[test]
fn clients_hear_that_the_broker_stops() {
    run(|| async {
        let broker = Broker::start(&plain_settings());
        let mut a = Client::connect(&broker, "a").await;
        tokio::join!(broker.shutdown(), async {
            assert_eq!(a.hear().await, "DISCONNECT ServerShuttingDown");
            assert_eq!(a.hear().await, "the end");
        });
        assert_eq!(broker.levels().connections, 0);
    });
}

#[test]
fn links_are_woken_by_interest() {
    run(|| async {
        let broker = Broker::start(&plain_settings());
        broker.with_core(|core| core.peer_open("eu"));
        let mut a = Client::connect(&broker, "a").await;
        a.subscribe("t", QoS::AtMostOnce).await;
        broker.port_events().await;
        assert!(broker.with_core(|core| core.poll_port_event()).is_some());
    });
}

/// An authority, a server certificate and a client certificate.
struct Papers {
    ca_pem: String,
    server: (String, String),
    client: (String, String),
}

impl Papers {
    fn new() -> Papers {
        Papers::of("localhost")
    }

    fn of(server: &str) -> Papers {
        let mut params = CertificateParams::new(Vec::new()).expect("valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        let leaf = |name: &str| {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec![name.to_owned()]).expect("valid");
            let certificate = params.signed_by(&key, &ca).expect("a leaf");
            (certificate.pem(), key.serialize_pem())
        };
        Papers { ca_pem: ca.pem(), server: leaf(server), client: leaf("client") }
    }

    fn server_tls(&self, client_auth: ClientAuth) -> ServerTls {
        ServerTls {
            client_auth,
            client_ca_pem: (client_auth != ClientAuth::None).then(|| self.ca_pem.clone()),
            ..ServerTls::new(&self.server.0, &self.server.1)
        }
    }

    async fn open(&self, broker: &Broker, with_certificate: bool) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port(broker, "mqtts"))).await.expect("it listens");
        self.secure(stream, with_certificate).await
    }

    /// Begins TLS on a stream.
    async fn secure(&self, stream: TcpStream, with_certificate: bool) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).expect("PEM")).expect("a CA");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_root_certificates(roots);
        let config = if with_certificate {
            let chain = vec![CertificateDer::from_pem_slice(self.client.0.as_bytes()).expect("PEM")];
            let key = PrivateKeyDer::from_pem_slice(self.client.1.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(chain, key).expect("a certificate")
        } else {
            builder.with_no_client_auth()
        };
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake");
        Client { stream: Box::new(stream), unread: Vec::new() }
    }
}

#[test]
fn tls_carries_small_and_large_messages() {
    run(|| async {
        let papers = Papers::new();
        let mut settings = plain_settings();
        settings.listeners.push(listener("mqtts", Some(papers.server_tls(ClientAuth::None))));
        let broker = Broker::start(&settings);
        let mut a = papers.open(&broker, false).await;
        a.hello("a", None).await;
        assert_eq!(a.hear().await, "CONNACK Success");
        a.subscribe("t", QoS::AtMostOnce).await;
        let mut b = Client::connect(&broker, "b").await;
        let large = vec![b'x'; 1 << 20];
        let sending = async {
            b.send(&[publish("t", QoS::AtMostOnce, b"small"), publish("t", QoS::AtMostOnce, &large)]).await;
        };
        let (_, first) = tokio::join!(sending, a.hear());
        assert_eq!(first, "t=small");
        assert_eq!(a.hear().await.len(), large.len() + 2);
        a.stream.write_all(b"\xff\xff").await.expect("it is open");
        assert_eq!(a.hear().await, "DISCONNECT MalformedPacket");
        assert_eq!(a.hear().await, "the end");
    });
}

#[test]
fn client_certificates_are_asked_for_as_the_settings_say() {
    let cases = [
        (ClientAuth::Request, false, "CONNACK Success"),
        (ClientAuth::Request, true, "CONNACK Success"),
        (ClientAuth::Require, false, "the end"),
        (ClientAuth::Require, true, "CONNACK Success"),
    ];
    for (client_auth, with_certificate, expected) in cases {
        run(|| async move {
            let papers = Papers::new();
            let mut settings = plain_settings();
            settings.listeners.push(listener("mqtts", Some(papers.server_tls(client_auth))));
            let broker = Broker::start(&settings);
            let mut a = papers.open(&broker, with_certificate).await;
            a.hello("a", None).await;
            assert_eq!(a.hear().await, expected, "{client_auth:?}, {with_certificate}");
        });
    }
}

#[test]
fn a_changed_certificate_is_used_on_the_same_port_and_a_bad_one_is_reported() {
    run(|| async {
        let (old, new) = (Papers::new(), Papers::new());
        let mut settings = plain_settings();
        settings.listeners.push(listener("mqtts", Some(old.server_tls(ClientAuth::None))));
        let broker = Broker::start(&settings);
        let first_port = port(&broker, "mqtts");
        old.open(&broker, false).await;
        settings.listeners[1].tls = Some(new.server_tls(ClientAuth::None));
        broker.apply_settings(&settings);
        assert_eq!(port(&broker, "mqtts"), first_port);
        new.open(&broker, false).await;
        settings.listeners[1].tls =
            Some(ServerTls { key_pem: "nonsense".to_owned(), ..new.server_tls(ClientAuth::None) });
        broker.apply_settings(&settings);
        let error = broker.listeners()[1].error.clone().expect("it is reported");
        assert!(error.contains("private key"), "{error}");
        settings.listeners[1].tls = Some(new.server_tls(ClientAuth::None));
        broker.apply_settings(&settings);
        assert_eq!(port(&broker, "mqtts"), first_port);
    });
}

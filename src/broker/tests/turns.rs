//! What a client that is in waits for while many come, shake hands, go, bring or take much at the same moment: not for all of them.
//!
//! The crowd's sockets are the test's own, and block: the system takes what they do while the broker, on the same thread, does
//! not run. So all of it is there when it does, and how far it got when the bystander is answered is a count.

use std::io::{ErrorKind, Read, Write};

use rustls::ClientConnection;

use super::super::socket::PIECE;
use super::*;
use crate::mqtt::{Properties, PropertiesBuf, Property};

/// Two turns of those who come and go: the bystander's packet is read in one and answered in the next, with some room.
const BETWEEN: usize = 96;
/// The same for handshakes, a step each.
const HANDSHAKES_BETWEEN: usize = 12;
/// The same for large messages for many, and the first of all, which nobody saw coming.
const LOADS_BETWEEN: u64 = 6;
/// And for what readers take: pieces, 1 MiB in each of three turns.
const PIECES_BETWEEN: usize = 3 * 16;
/// And for messages that go to many: 1 MiB to send in each of three turns.
const MADE_BETWEEN: u64 = 3 << 20;
/// So many take what is published, …
const READERS: usize = 30;
/// … and are behind by so much: half of what may wait.
const BEHIND: usize = 2 << 20;

fn open(broker: &Broker, name: &str, first: &[u8]) -> std::net::TcpStream {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port(broker, name))).expect("it listens");
    stream.write_all(first).expect("it is open");
    stream
}

fn hello(client_id: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    connect(client_id, None).encode(Version::V5, &mut bytes);
    bytes
}

/// Sends a ping, and lets the broker run until it is answered.
async fn ping(bystander: &mut Client) {
    bystander.send(&[Packet::PingReq]).await;
    assert_eq!(bystander.hear().await, "PingResp");
}

#[test]
fn who_is_here_does_not_wait_for_all_who_come_or_go() {
    run(|| async {
        let broker = Broker::start(&plain_settings());
        let mut bystander = Client::connect(&broker, "bystander").await;
        ping(&mut bystander).await;
        let crowd: Vec<_> = (0..500).map(|n| open(&broker, "mqtt", &hello(&format!("c{n}")))).collect();
        let accepted = || broker.door_figures().0[0].accepted as usize - 1;
        ping(&mut bystander).await;
        assert!(accepted() <= BETWEEN, "{} of 500 came first", accepted());
        while broker.levels().sessions < 501 {
            tokio::task::yield_now().await;
        }

        drop(crowd);
        ping(&mut bystander).await;
        let gone = 501 - broker.levels().connections;
        assert!(gone <= BETWEEN, "{gone} of 500 went first");
        while broker.levels().connections > 1 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn who_is_here_does_not_wait_for_all_who_bring_much_for_many() {
    run(|| async {
        let broker = Broker::start(&plain_settings());
        let mut bystander = Client::connect(&broker, "bystander").await;
        let mut readers = Vec::new();
        for n in 0..20 {
            let mut reader = Client::connect(&broker, &format!("r{n}")).await;
            reader.subscribe("much", QoS::AtMostOnce).await;
            readers.push(reader);
        }
        let mut message = Vec::new();
        publish("much", QoS::AtMostOnce, &[b'x'; 60_000]).encode(Version::V5, &mut message);
        let mut crowd: Vec<_> = (0..20).map(|n| open(&broker, "mqtt", &hello(&format!("c{n}")))).collect();
        while broker.levels().sessions < 41 {
            tokio::task::yield_now().await;
        }
        crowd.iter_mut().for_each(|stream| stream.write_all(&message).expect("it is open"));
        let mut before = 0;
        while before < 20 {
            ping(&mut bystander).await;
            let now = broker.counters().received;
            assert!(now - before <= LOADS_BETWEEN, "{} of 20 came first", now - before);
            before = now;
        }
    });
}

#[test]
fn who_is_here_does_not_wait_for_all_that_one_brings_for_many() {
    run(|| async {
        let broker = Broker::start(&plain_settings());
        let mut bystander = Client::connect(&broker, "bystander").await;
        let mut readers = Vec::new();
        for n in 0..100 {
            let mut reader = Client::connect(&broker, &format!("r{n}")).await;
            reader.subscribe("much", QoS::AtMostOnce).await;
            readers.push(reader);
        }
        let mut bytes = hello("c");
        publish("much", QoS::AtMostOnce, &[b'x'; 1_000]).encode(Version::V5, &mut bytes);
        let mut publisher = open(&broker, "mqtt", &bytes);
        while broker.counters().received < 1 {
            tokio::task::yield_now().await;
        }
        // Now it is known to bring much for many.
        let message = bytes.split_off(hello("c").len());
        publisher.write_all(&message.repeat(1_000)).expect("it is open");
        let mut before = 1;
        while before < 1_001 {
            ping(&mut bystander).await;
            let now = broker.counters().received;
            assert!((now - before) * 100_000 <= MADE_BETWEEN, "{} of 1,000 came first", now - before);
            before = now;
        }
    });
}

/// So many who subscribe to `much` and read when the test does, without waiting.
async fn readers(broker: &Broker, count: usize) -> Vec<std::net::TcpStream> {
    let mut filters = SubscribeFiltersBuf::default();
    filters.push("much", SubscribeOptions::at(QoS::AtMostOnce)).expect("valid");
    let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
    let subscribe = Packet::Subscribe(Subscribe { packet_id, properties, filters: filters.as_filters() });
    let readers = (0..count).map(|n| {
        let mut first = hello(&format!("r{n}"));
        subscribe.encode(Version::V5, &mut first);
        let stream = open(broker, "mqtt", &first);
        stream.set_nonblocking(true).expect("it is open");
        stream
    });
    let readers = readers.collect();
    while broker.levels().subscriptions < count {
        tokio::task::yield_now().await;
    }
    readers
}

/// Reads all there is, and counts it.
fn take(readers: &mut [std::net::TcpStream], space: &mut [u8]) -> usize {
    let mut taken = 0;
    for stream in readers {
        while let Ok(count @ 1..) = stream.read(space) {
            taken += count;
        }
    }
    taken
}

/// How much waits for all of them.
fn waiting(broker: &Broker) -> usize {
    let shard = &broker.inner.shard;
    shard.wires.borrow().keys().map(|&id| shard.core.borrow().waiting(id)).sum()
}

#[test]
fn who_is_here_does_not_wait_for_all_who_take_much() {
    run(|| async {
        let broker = Broker::start(&plain_settings());
        let mut bystander = Client::connect(&broker, "bystander").await;
        let mut readers = readers(&broker, 10).await;
        // Nobody reads, until no buffer takes any more.
        let mut publisher = Client::connect(&broker, "publisher").await;
        let dropped = || broker.counters().dropped_slow;
        while dropped() < 100 {
            publisher.send(&[publish("much", QoS::AtMostOnce, &[b'x'; 60_000])]).await;
            ping(&mut publisher).await;
        }
        let waiting = || waiting(&broker);
        let mut space = vec![0; 1 << 20];
        let mut take = || take(&mut readers, &mut space);
        assert!(waiting() > 10 * (4 << 20) && take() > 0);
        while waiting() > 10 * PIECE {
            ping(&mut bystander).await;
            let taken = take();
            assert!(taken <= PIECES_BETWEEN * PIECE, "{taken} bytes went first");
        }
        while waiting() > 0 {
            ping(&mut bystander).await;
            take();
        }
    });
}

/// 1 MiB of what waited in each of three turns, with the part that was begun last.
const PUMPED_BETWEEN: u64 = 7 << 19;

#[test]
fn who_is_here_does_not_wait_for_all_that_waited_for_who_comes_back() {
    run(|| async {
        let broker = Broker::start(&plain_settings());
        let mut bystander = Client::connect(&broker, "bystander").await;
        let mut properties = PropertiesBuf::new();
        properties.push(Property::SessionExpiryInterval(100));
        let hello = |n| {
            let (client_id, mut bytes) = (format!("r{n}"), Vec::new());
            let properties = properties.as_properties();
            let connect = Connect { clean_start: false, properties, ..Connect::new(&client_id) };
            Packet::Connect(connect).encode(Version::V5, &mut bytes);
            bytes
        };
        let mut filters = SubscribeFiltersBuf::default();
        filters.push("much", SubscribeOptions::at(QoS::AtLeastOnce)).expect("valid");
        let (packet_id, none) = (PacketId::MIN, Properties::EMPTY);
        let subscribe = Subscribe { packet_id, properties: none, filters: filters.as_filters() };
        for n in 0..64 {
            let mut first = hello(n);
            Packet::Subscribe(subscribe).encode(Version::V5, &mut first);
            drop(open(&broker, "mqtt", &first));
        }
        while broker.levels().subscriptions < 64 || broker.levels().connections > 1 {
            tokio::task::yield_now().await;
        }
        let mut publisher = Client::connect(&broker, "publisher").await;
        for _ in 0..40 {
            publisher.send(&[publish("much", QoS::AtLeastOnce, &[b'x'; 60_000])]).await;
            publisher.hear().await;
        }

        let mut crowd: Vec<_> = (0..64).map(|n| open(&broker, "mqtt", &hello(n))).collect();
        crowd.iter().for_each(|stream| stream.set_nonblocking(true).expect("it is open"));
        let appended = || broker.inner.shard.core.borrow().appended();
        let (mut made, mut taken, mut space) = (appended(), 0, vec![0; 1 << 20]);
        while taken < 64 * 40 * 60_000 {
            ping(&mut bystander).await;
            let now = take(&mut crowd, &mut space);
            assert!(now <= PIECES_BETWEEN * PIECE, "{now} bytes were taken first");
            taken += now;
            let before = std::mem::replace(&mut made, appended());
            assert!(made - before <= PUMPED_BETWEEN, "{} bytes were put into buffers first", made - before);
        }
    });
}

#[test]
fn who_only_reads_gets_all_that_waited() {
    run(|| async {
        let broker = Broker::start(&plain_settings());
        let mut properties = PropertiesBuf::new();
        properties.push(Property::SessionExpiryInterval(100));
        let properties = properties.as_properties();
        let hello = || Packet::Connect(Connect { clean_start: false, properties, ..Connect::new("reader") });
        let mut away = Client::open(&broker).await;
        away.send(&[hello()]).await;
        away.hear().await;
        away.subscribe("much", QoS::AtLeastOnce).await;
        drop(away);
        let mut publisher = Client::connect(&broker, "publisher").await;
        for _ in 0..150 {
            publisher.send(&[publish("much", QoS::AtLeastOnce, &[b'x'; 60_000])]).await;
            publisher.hear().await;
        }
        drop(publisher);
        // Nobody else is here, and it acknowledges nothing: what is left to do is known from its reading alone.
        let mut reader = Client::open(&broker).await;
        reader.send(&[hello()]).await;
        assert_eq!(reader.hear().await, "CONNACK Success present");
        for n in 0..150 {
            assert!(reader.hear().await.starts_with("much=xxx"), "message {n}");
        }
    });
}

#[test]
fn who_is_here_does_not_wait_for_who_brings_for_many_and_for_nobody_in_turn() {
    run(|| async {
        let broker = Broker::start(&plain_settings());
        let mut bystander = Client::connect(&broker, "bystander").await;
        let _readers = readers(&broker, 100).await;
        let several = |topic, count| {
            let mut message = Vec::new();
            publish(topic, QoS::AtMostOnce, &[b'x'; 1_000]).encode(Version::V5, &mut message);
            message.repeat(count)
        };
        let mut publisher = open(&broker, "mqtt", &[hello("c"), several("much", 1)].concat());
        while broker.counters().sent < 100 {
            tokio::task::yield_now().await;
        }
        publisher
            .write_all(&[several("much", 64), several("none", 16)].concat().repeat(15))
            .expect("it is open");
        let mut before = broker.counters();
        while before.received < 1 + 80 * 15 {
            ping(&mut bystander).await;
            let now = broker.counters();
            let made = (now.sent + now.dropped_slow - before.sent - before.dropped_slow) * 1_000;
            assert!(made <= MADE_BETWEEN, "{made} bytes came first");
            before = now;
        }
    });
}

#[test]
fn who_was_behind_catches_up_while_a_publisher_goes_on() {
    run(|| async {
        let broker = Broker::start(&plain_settings());
        let mut bystander = Client::connect(&broker, "bystander").await;
        let mut readers = readers(&broker, READERS).await;
        let mut message = Vec::new();
        publish("much", QoS::AtMostOnce, &[b'x'; 1_000]).encode(Version::V5, &mut message);
        let stream = message.repeat(64);
        let mut publisher = open(&broker, "mqtt", &hello("publisher"));
        publisher.set_nonblocking(true).expect("it is open");
        let mut sent = 0;
        // As much as the system takes.
        let mut publish = || {
            while let Ok(count) = publisher.write(&stream[sent % message.len()..]) {
                sent += count;
            }
        };
        let (waiting, counters) = (|| waiting(&broker), || broker.counters());
        while waiting() < READERS * BEHIND {
            publish();
            ping(&mut bystander).await;
        }
        assert_eq!(counters().dropped_slow, 0);
        // Now they read all there is, and the publisher goes on.
        let (before, mut turns) = (counters().received, 0);
        let mut space = vec![0; 1 << 20];
        while waiting() > READERS * PIECE {
            publish();
            ping(&mut bystander).await;
            take(&mut readers, &mut space);
            assert_eq!(counters().dropped_slow, 0, "{turns} pings, {} wait", waiting());
            turns += 1;
        }
        let made = (counters().received - before) * (READERS * message.len()) as u64;
        assert!(made > turns << 20, "{made} bytes in {turns} pings: that is no load");
    });
}

#[test]
fn who_is_here_does_not_wait_for_all_handshakes() {
    run(|| async {
        let papers = Papers::new();
        let mut settings = plain_settings();
        settings.listeners.push(listener("mqtts", Some(papers.server_tls(ClientAuth::None))));
        let broker = Broker::start(&settings);
        let mut bystander = Client::connect(&broker, "bystander").await;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(papers.ca_pem.as_bytes()).expect("PEM")).expect("a CA");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
        let config = Arc::new(config);
        let hello = || {
            let name = ServerName::try_from("localhost").expect("a name");
            let mut bytes = Vec::new();
            let mut session = ClientConnection::new(Arc::clone(&config), name).expect("a session");
            session.write_tls(&mut bytes).expect("a ClientHello");
            bytes
        };
        let mut crowd: Vec<_> = (0..60).map(|_| open(&broker, "mqtts", &hello())).collect();
        for stream in &crowd {
            stream.set_nonblocking(true).expect("it is open");
        }
        let mut count_answered = || {
            crowd.retain_mut(|stream| match stream.read(&mut [0; 4_096]) {
                Ok(count) => count == 0,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            });
            60 - crowd.len()
        };
        let mut before = 0;
        while before < 60 {
            ping(&mut bystander).await;
            let now = count_answered();
            assert!(now - before <= HANDSHAKES_BETWEEN, "{} of 60 shook hands first", now - before);
            before = now;
        }
    });
}

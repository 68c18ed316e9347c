//! Several shards on real threads.

use std::rc::Rc;

use super::*;
use crate::broker::core::{Core, Fault, Place};
use crate::mqtt::{Ack, PropertiesBuf, Property};
use crate::store::{Durability, Store};

fn settings(shards: u8) -> Settings {
    Settings { shards: Some(shards), ..plain_settings() }
}

/// A client id that is at home on this shard.
fn name_on(shard: u8, shards: usize) -> String {
    let place = Place::new(0, shards);
    let mut names = (0..).map(|n| format!("client-{n}"));
    names.find(|name| place.home_of(name) == shard).expect("some name is at home there")
}

#[test]
fn there_is_one_for_each_core_unless_the_settings_say_otherwise() {
    run(|| async {
        let broker = Broker::start(&Settings { shards: None, ..plain_settings() });
        let cores = std::thread::available_parallelism().expect("Linux tells").get();
        assert_eq!(broker.shards(), cores);
    });
}

#[test]
fn every_shard_knows_how_much_memory_the_node_may_hold() {
    run(|| async {
        let broker = Broker::start(&settings(3));
        let marks = |broker: Broker| async move { broker.with_each_core(|core| core.memory_mark()).await };
        let mark = broker.memory_mark();
        assert!(mark > 0, "the machine tells");
        assert_eq!(marks(broker.clone()).await, [mark; 3]);
        let mut changed = settings(3);
        changed.limits.memory_bytes_max = 1 << 40;
        broker.apply_settings(&changed);
        while marks(broker.clone()).await != [1 << 40; 3] {}
    });
}

#[test]
fn messages_cross_from_every_shard_to_every_shard() {
    run(|| async {
        let broker = Broker::start(&settings(3));
        assert_eq!(broker.shards(), 3);
        for (from, to) in (0..9).map(|n| (n / 3, n % 3)) {
            let mut a = Client::connect(&broker, &name_on(from, 3)).await;
            let mut b = Client::connect(&broker, &format!("{}x", name_on(to, 3))).await;
            b.subscribe("t/+", QoS::AtLeastOnce).await;
            a.send(&[publish("t/1", QoS::AtLeastOnce, b"one")]).await;
            assert_eq!(a.hear().await, "PUBACK 1");
            assert_eq!(b.hear().await, "t/1=one q1 #1");
        }
        broker.refresh().await;
        assert_eq!(broker.counters().received, 9);
    });
}

#[test]
fn what_is_published_behind_a_subscribe_is_read_though_nothing_is_found() {
    run(|| async {
        let broker = Broker::start(&settings(2));
        let mut client = Client::connect(&broker, &name_on(0, 2)).await;
        let mut filters = SubscribeFiltersBuf::default();
        filters.push("t/+", SubscribeOptions::at(QoS::AtMostOnce)).expect("valid");
        for _ in 0..300 {
            let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
            let subscribe = Subscribe { packet_id, properties, filters: filters.as_filters() };
            client.send(&[Packet::Subscribe(subscribe), publish("t/1", QoS::AtMostOnce, b"one")]).await;
            assert_eq!(client.hear().await, "SUBACK [0]");
            assert_eq!(client.hear().await, "t/1=one");
        }
    });
}

#[test]
fn a_client_keeps_its_session_wherever_it_comes_in() {
    run(|| async {
        let broker = Broker::start(&settings(2));
        let mut clients = Vec::new();
        for shard in 0..2 {
            let name = name_on(shard, 2);
            let mut first = Client::connect(&broker, &name).await;
            let mut second = Client::connect(&broker, &name).await;
            assert_eq!(first.hear().await, "DISCONNECT SessionTakenOver");
            second.send(&[Packet::PingReq]).await;
            assert_eq!(second.hear().await, "PingResp");
            clients.push(second);
        }
        let sessions = broker.with_each_core(|core| core.levels().sessions).await;
        assert_eq!(sessions, [1, 1]);
    });
}

#[test]
fn who_has_no_name_gets_one_and_who_speaks_no_mqtt_is_sent_away() {
    run(|| async {
        let broker = Broker::start(&settings(2));
        let mut nameless = Vec::new();
        for _ in 0..4 {
            let mut client = Client::open(&broker).await;
            client.hello("", None).await;
            assert_eq!(client.hear().await, "CONNACK Success");
            nameless.push(client);
        }
        let sessions = broker.with_each_core(|core| core.levels().sessions).await;
        assert_eq!(sessions, [2, 2], "each shard in turn");
        let mut stranger = Client::open(&broker).await;
        stranger.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("it is open");
        while stranger.hear().await != "the end" {}
    });
}

#[test]
fn tls_goes_along_to_another_shard() {
    run(|| async {
        let papers = Papers::new();
        let tls = listener("mqtts", Some(papers.server_tls(ClientAuth::None)));
        let broker = Broker::start(&Settings { listeners: vec![tls], ..settings(2) });
        for shard in 0..2 {
            let mut client = papers.open(&broker, false).await;
            client.hello(&name_on(shard, 2), None).await;
            assert_eq!(client.hear().await, "CONNACK Success");
            client.subscribe("t", QoS::AtMostOnce).await;
            let payload = vec![b'x'; 100_000];
            client.send(&[publish("t", QoS::AtMostOnce, &payload)]).await;
            assert!(client.hear().await.starts_with("t=xxx"));
        }
    });
}

#[test]
fn settings_reach_every_shard_and_so_does_the_end() {
    run(|| async {
        let broker = Broker::start(&settings(2));
        let mut clients =
            [Client::connect(&broker, &name_on(0, 2)).await, Client::connect(&broker, &name_on(1, 2)).await];
        let mut closed = settings(2);
        closed.authentication.anonymous = false;
        broker.apply_settings(&closed);
        for client in &mut clients {
            assert_eq!(client.hear().await, format!("DISCONNECT {:?}", Fault::NotAuthorized.reason_code()));
        }
        broker.apply_settings(&settings(2));
        let mut last = Client::connect(&broker, &name_on(1, 2)).await;
        tokio::join!(broker.shutdown(), async {
            assert_eq!(last.hear().await, "DISCONNECT ServerShuttingDown");
            assert_eq!(last.hear().await, "the end");
        });
    });
}

#[test]
fn a_shard_that_is_stuck_keeps_none_from_hearing_how_short_memory_is() {
    run(|| async {
        let broker = Broker::start(&settings(2));
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (free, is_free) = std::sync::mpsc::channel::<()>();
        let (to_block, here) = (broker.clone(), name_on(0, 2));
        tokio::task::spawn_local(async move {
            let block = move |_: &mut Core| {
                begun.send(()).expect("the test waits");
                is_free.recv()
            };
            to_block.with_core_of(1, block).await
        });
        has_begun.await.expect("it begins");
        for (mark, answer) in [(1, "CONNACK ServerBusy"), (1 << 40, "CONNACK Success")] {
            let mut changed = settings(2);
            changed.limits.memory_bytes_max = mark;
            broker.apply_settings(&changed);
            loop {
                let mut client = Client::open(&broker).await;
                client.hello(&here, None).await;
                if client.hear().await == answer {
                    break;
                }
            }
        }
        free.send(()).expect("it waits");
    });
}

#[test]
fn links_see_the_interest_of_every_shard() {
    run(|| async {
        let broker = Broker::start(&settings(2));
        broker.with_core(|core| core.peer_open("eu"));
        let mut away = Client::connect(&broker, &name_on(1, 2)).await;
        away.subscribe("t", QoS::AtMostOnce).await;
        broker.port_events().await;
        assert!(broker.with_core(|core| core.poll_port_event()).is_some());
        assert_eq!(broker.with_core(|core| core.interests().count()), 1);
    });
}

#[test]
fn links_and_timers_wait_until_all_know_what_all_want() {
    run(|| async {
        let folder = tempfile::TempDir::new().expect("a temporary folder");
        let broker = Broker::start(&settings(3));
        broker.ready().await; // nothing is stored
        let (mut store, found) = Store::open(folder.path(), Durability::Interval).expect("it is empty");
        broker.use_store(&mut store, found);
        let mut early = Box::pin(broker.ready());
        let is_ready = poll_fn(|cx| Poll::Ready(early.as_mut().poll(cx).is_ready())).await;
        assert!(!is_ready, "other threads cannot have said so already");
        early.await;
    });
}

/// A client with a session that outlives its connection.
async fn lasting(broker: &Broker, name: &str) -> (Client, bool) {
    let mut client = Client::open(broker).await;
    let mut properties = PropertiesBuf::new();
    properties.push(Property::SessionExpiryInterval(3_600));
    let Packet::Connect(first) = connect(name, None) else { unreachable!("it is a CONNECT") };
    let properties = properties.as_properties();
    client.send(&[Packet::Connect(Connect { clean_start: false, properties, ..first })]).await;
    let answer = client.hear().await;
    assert!(answer.starts_with("CONNACK Success"), "{answer}");
    (client, answer.ends_with("present"))
}

/// What waits for a client, all of it acknowledged.
async fn take_all(client: &mut Client) -> Vec<String> {
    client.send(&[Packet::PingReq]).await;
    let mut lines = Vec::new();
    loop {
        match client.hear().await {
            line if line == "PingResp" => break,
            line => lines.push(line),
        }
    }
    for line in &lines {
        let (_, id) = line.split_once(" q1 #").expect("all are of QoS 1");
        let id = id.split(' ').next().and_then(|id| id.parse().ok()).and_then(PacketId::new);
        client.send(&[Packet::PubAck(Ack::success(id.expect("a packet id")))]).await;
    }
    client.send(&[Packet::PingReq]).await;
    assert_eq!(client.hear().await, "PingResp");
    lines
}

#[test]
fn a_restart_with_another_number_of_shards_loses_nothing() {
    run(|| async {
        let folder = tempfile::TempDir::new().expect("a temporary folder");
        let names: Vec<String> = (0..8).map(|n| format!("client-{n}")).collect();
        for (life, shards) in [1, 3, 2, 1, 4].into_iter().enumerate() {
            let (mut store, found) = Store::open(folder.path(), Durability::Interval).expect("it opens");
            let broker = Broker::start(&settings(shards));
            broker.use_store(&mut store, found);
            let mut shared = 0;
            for name in &names {
                let (mut client, is_present) = lasting(&broker, name).await;
                assert_eq!(is_present, life > 0, "{name} in life {life}");
                if life == 0 {
                    client.subscribe("q/+", QoS::ExactlyOnce).await;
                    client.subscribe("$share/g/s/+", QoS::AtLeastOnce).await;
                } else {
                    let lines = take_all(&mut client).await;
                    let own = lines.iter().filter(|line| line.starts_with(&format!("q/{}=", life - 1)));
                    assert_eq!(own.count(), 20, "{name} in life {life}: {lines:?}");
                    shared += lines.iter().filter(|line| line.starts_with("s/")).count();
                }
                let mut seen = Client::connect(&broker, &format!("{name}-looks")).await;
                seen.subscribe("r/+", QoS::AtMostOnce).await;
                for n in 0..life * 8 {
                    let line = seen.hear().await;
                    assert!(line.ends_with(" retain"), "{n} of {life}: {line}");
                }
            }
            assert_eq!(shared, if life > 0 { 20 } else { 0 }, "life {life}");
            let mut publisher = Client::connect(&broker, "publisher").await;
            for n in 0..20 {
                let payload = n.to_string();
                for topic in [format!("q/{life}"), format!("s/{n}")] {
                    publisher.send(&[publish(&topic, QoS::AtLeastOnce, payload.as_bytes())]).await;
                    assert_eq!(publisher.hear().await, "PUBACK 1");
                }
            }
            for n in 0..8 {
                let Packet::Publish(plain) = publish("", QoS::AtLeastOnce, b"kept") else {
                    unreachable!("it is a PUBLISH")
                };
                let topic = format!("r/{life}-{n}");
                publisher.send(&[Packet::Publish(Publish { retain: true, topic: &topic, ..plain })]).await;
                assert_eq!(publisher.hear().await, "PUBACK 1 NoMatchingSubscribers");
            }
            broker.shutdown().await;
            drop((broker, store));
        }
    });
}

#[test]
fn a_panic_in_any_task_of_a_shard_is_the_end_of_the_shard() {
    for lost in [0, 1] {
        run(|| async move {
            let broker = Broker::start(&settings(2));
            let mut client = Client::connect(&broker, &name_on(0, 2)).await;
            let fail =
                |shard: &Rc<crate::broker::shard::Shard>| drop(shard.spawn(async { panic!("on purpose") }));
            match (lost, &broker.inner.shard.mesh) {
                (1, Some(mesh)) => mesh.on_one(1, fail).await.expect("it is there"),
                _ => fail(&broker.inner.shard),
            }
            client.send(&[Packet::PingReq]).await;
            broker.shard_lost().await;
        });
    }
}

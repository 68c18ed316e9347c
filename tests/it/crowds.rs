//! A bystander among hostile crowds, in small: how fast it is served is for `make soak`, that it is served is for here.

use std::net::SocketAddr;
use std::process::Command;

use mqlink::settings::{Listener, Protocol, Settings};

use crate::admin::{Node, put};
use crate::clients::{Kind, Paho, Post, Who};
use crate::harness::{Certificates, MQLINK, free_port, get, settings, until};

const CONNECTIONS: usize = 300;
/// What is to happen while the bystander is served.
const PHASES: [&str; 11] = [
    "nobody else",
    "all connect",
    "all are there",
    "all ping at once",
    "readers that do not read",
    "sockets that say nothing, or half a word",
    "half of all go and come back at once",
    "TLS handshakes",
    "giant topics, filters and messages",
    "searches for retained messages",
    "all go at once",
];

/// Two free ports, one above the other.
fn two_ports() -> u16 {
    let mut below = free_port();
    loop {
        match free_port() {
            port if port == below + 1 => return below,
            port => below = port,
        }
    }
}

/// The system's table of open files grows while a shard waits, unless it is large from the start.
#[test]
fn there_is_room_for_all_before_anybody_comes() {
    let node = crate::harness::Node::start(settings());
    let of = |file: &str, name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", node.pid())).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("Linux tells");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(usize::MAX)
    };
    let wanted = of("limits", "Max open files").min(100_000);
    assert!(of("status", "FDSize:") >= wanted, "{} of {wanted}", of("status", "FDSize:"));
}

#[test]
fn a_bystander_is_served_whatever_crowds_do() {
    let certificates = Certificates::new();
    for shards in [1, 2] {
        let mut settings = Settings { shards: Some(shards), ..settings() };
        settings.listeners[0].port = two_ports();
        let secure = Listener::new("mqtts", Protocol::Mqtts, settings.listeners[0].port + 1);
        settings.listeners.push(secure.with_tls(certificates.server()));
        let node = Node::start_with(settings);
        let output = Command::new(MQLINK)
            .args(["bench", "--soak", &format!("localhost:{}", node.port), "--seconds", "1", "--cafile"])
            .arg(certificates.ca())
            .args(["--connections", &CONNECTIONS.to_string()])
            .output()
            .expect("the binary is built");
        let table = String::from_utf8_lossy(&output.stdout);
        let said = format!("{shards} shards: {table}{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}");
        let rows: Vec<Vec<&str>> =
            table.lines().skip(2).map(|line| line.split('|').map(str::trim).collect()).collect();
        assert_eq!(rows.iter().map(|row| row[1]).collect::<Vec<_>>(), PHASES, "{said}");
        for row in &rows {
            assert_eq!((row[2], row[3]), ("200", "0"), "{}: {said}", row[1]);
        }
        let open: Vec<_> = rows.iter().map(|row| row[9].parse::<usize>().expect("a number")).collect();
        assert_eq!(open[2..10], [CONNECTIONS; 8], "{said}");
        assert_eq!(open[10], 0, "{said}");

        // The crowds did what they are there for.
        let probes = SocketAddr::from(([127, 0, 0, 1], node.probes));
        let figure = |name: &str| -> Option<u64> {
            let page = get(probes, "/metrics")?;
            page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        for (name, least) in [
            ("mqlink_messages_dropped_total{reason=\"slow\"}", 1),
            ("mqlink_listener_accepted_total{listener=\"mqtts\"}", 20),
            ("mqlink_connections_opened_total", CONNECTIONS as u64 * 3 / 2),
            ("mqlink_messages_sent_total", 20 * CONNECTIONS as u64),
            ("mqlink_retained_messages", CONNECTIONS as u64),
        ] {
            // They are counted once a second.
            until(&format!("{name} of {least}; {said}"), || figure(name).filter(|&count| count >= least));
        }
    }
}

#[test]
fn a_node_short_of_memory_takes_nobody_in_and_serves_those_who_are() {
    let mut settings = settings();
    let node = Node::start_with(settings.clone());
    let who = Who::at(node.port);
    let mut here = Paho.subscribe(&who.clone().named("here"), "t", 1);
    let (_, mut peer) = Paho.connect(&who.clone().named("peer"));
    let knock = || Paho.connect(&who.clone().named("knocks")).0;
    let set_mark = |settings: &mut Settings, bytes| {
        settings.limits.memory_bytes_max = bytes;
        let answer = put(&node, &serde_json::to_value(&*settings).expect("settings are JSON"));
        assert!(answer.contains("200 OK"), "{answer}");
    };
    set_mark(&mut settings, 1 << 20); // it holds more already
    until("a refusal", || (knock() == 0x89).then_some(()));
    assert_eq!(peer.subscribe("more", 1), 0x97);
    assert!(node.log().contains("memory: load shedding"));
    set_mark(&mut settings, 0);
    until("a welcome", || (knock() == 0).then_some(()));
    Paho.publish(&who.clone().named("speaks"), &[Post::new("t", "still here", 1)]);
    assert_eq!(here.next().payload, "still here");
}

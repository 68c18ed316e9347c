//! A running node seen by who runs it: sessions, kick, retained messages, log, metrics, `$SYS`; and no secret in any of it.
//! The pages of docs/ that list metrics and `$SYS` topics are held to what a node serves.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output};

use mqlink::settings::{
    AccessRule, Action, Authorization, Credentials, Dial, Effect, Jwt, Link, LinkListener, Listener,
    Principals, Protocol, Settings,
};
use serde_json::json;
use tempfile::TempDir;

use crate::clients::{Kind, Mosquitto, Paho, Post, Rumqttc, Who};
use crate::harness::{Certificates, Clusters, MQLINK, SettingsExt, Up, free_port, settings, until};
use crate::scram;

/// A node that logs everything into a file.
pub(crate) struct Node {
    child: Child,
    folder: TempDir,
    pub(crate) port: u16,
    pub(crate) probes: u16,
}

const PASSWORD: &str = "s3cret-of-alice";
const WRONG: &str = "s3cret-of-mallory";
const PAYLOAD: &str = "s3cret-in-a-message";
const WILL: &str = "s3cret-in-a-will";

impl Node {
    fn start() -> Node {
        Node::start_with(settings().users(&[("alice", &format!("plain:{PASSWORD}"))]))
    }

    pub(crate) fn start_with(settings: Settings) -> Node {
        Node::start_by(Command::new(MQLINK), settings)
    }

    /// Starts it through a command that ends by becoming it.
    fn start_by(mut command: Command, settings: Settings) -> Node {
        let folder = TempDir::new().expect("a temporary folder");
        let probes = free_port();
        let port = settings.listeners[0].port;
        let config = folder.path().join("settings.json");
        std::fs::write(&config, serde_json::to_vec(&settings).expect("settings are JSON")).expect("writable");
        let log = File::create(folder.path().join("log")).expect("writable");
        let child = command
            .args(["--log", "trace", "--log-json", "broker", "--config"])
            .arg(&config)
            .arg("--admin-socket")
            .arg(folder.path().join("admin.sock"))
            .args(["--probe-listen", &format!("127.0.0.1:{probes}")])
            .stderr(log)
            .spawn()
            .expect("the binary is built");
        let node = Node { child, folder, port, probes };
        until("the listener", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        node
    }

    fn who(&self, client_id: &str) -> Who {
        Who::at(self.port).named(client_id).login("alice", PASSWORD)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(MQLINK);
        command.arg("admin").arg("--socket").arg(self.socket()).args(arguments);
        command.output().expect("the binary is built")
    }

    #[track_caller]
    pub(crate) fn answer(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("output is text")
    }

    /// What a scraper gets.
    pub(crate) fn scrape(&self) -> String {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.probes)).expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: node\r\n\r\n").expect("it is open");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("text");
        page.split_once("\r\n\r\n").expect("a head and a body").1.to_owned()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("it is there")
    }

    /// The fields of a line whose message begins so, and of which one is this.
    fn logged(&self, message: &str, field: &str, value: &str) -> serde_json::Value {
        let is_meant = |fields: &serde_json::Value| {
            fields["message"].as_str().is_some_and(|said| said.starts_with(message)) && fields[field] == value
        };
        until(message, || {
            let log = self.log();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            lines.map(|line| line["fields"].clone()).find(is_meant)
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn where_a_listener_listens_is_logged_and_why_it_does_not() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port();
    let mut settings = settings();
    let mut second = settings.listeners[0].clone();
    (second.name, second.port) = ("second".to_owned(), port);
    settings.listeners.push(second);
    let first = settings.listeners[0].name.clone();
    let node = Node::start_with(settings);
    let listens = node.logged("listens", "listener", &first);
    assert_eq!(listens["address"], format!("127.0.0.1:{}", node.port));
    let failed = node.logged("failed to listen", "listener", "second");
    assert_eq!(failed["port"], port);
    assert!(failed["error"].as_str().is_some_and(|error| error.contains("in use")), "{failed}");
    drop(taken);
    node.logged("listens", "listener", "second");
    assert_eq!(node.log().matches("failed to listen").count(), 1, "it is said once");
}

#[test]
fn clients_are_listed_and_kicked() {
    let node = Node::start();
    let mut sub = Paho.subscribe(&node.who("watcher"), "plant/#", 1);
    let table = node.answer(&["clients"]);
    let line = table.lines().find(|line| line.starts_with("watcher ")).expect("the client is listed");
    assert!(line.contains("alice") && line.contains("5.0"), "{line}");

    assert_eq!(
        node.answer(&["kick", "watcher"]),
        "the connection ends; the session stays as long as its client asked for\n"
    );
    let why = sub.gone();
    assert!(why.contains("Administrative action"), "{why}");
    until("an empty list", || (node.answer(&["clients"]).lines().count() == 1).then_some(()));

    let output = node.ask(&["kick", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no client `nobody` is known"));
}

#[test]
fn a_drained_node_sends_its_clients_elsewhere() {
    let node = Node::start();
    let mut sub = Paho.subscribe(&node.who("watcher"), "plant/#", 1);
    let long = "other.example:1883 ".repeat(3_600);
    for wrong in ["", "nonsense", "a\u{1}b:1883", "a:1883  b:1883", long.trim_end()] {
        let output = node.ask(&["drain", "--server", wrong]);
        assert_eq!(output.status.code(), Some(1), "{:.40}", wrong);
        assert!(String::from_utf8_lossy(&output.stderr).contains("is neither host:port"), "{output:?}");
    }
    node.answer(&["drain", "--server", "other.example:1883 [::1]:1883"]);
    let why = sub.gone();
    assert!(why.contains("Use another server"), "{why}");
    until("closed listeners", || std::net::TcpStream::connect(("127.0.0.1", node.port)).err());
}

/// Each connection is a file, and a process may have so many: beyond that nobody gets in, and all else works on.
#[test]
fn a_node_whose_files_are_used_up_still_answers_who_manages_it() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 400; exec \"$@\"", "sh", MQLINK]);
    let node = Node::start_by(command, settings());
    let mut sub = Paho.subscribe(&Who::at(node.port).named("early"), "t", 1);
    let crowd: Vec<_> = (0..500).map(|_| std::net::TcpStream::connect(("127.0.0.1", node.port))).collect();
    until("those that are closed at once", || {
        let page = node.scrape();
        let full = page
            .lines()
            .find(|line| line.starts_with("mqlink_listener_refused_total{") && line.contains("full"));
        full.and_then(|line| line.split(' ').nth(1)?.parse::<u64>().ok()).filter(|&count| count >= 200)
    });
    let probes = std::net::SocketAddr::from(([127, 0, 0, 1], node.probes));
    assert!(crate::harness::get(probes, "/livez").expect("an answer").starts_with("HTTP/1.1 200 "));
    assert!(node.answer(&["clients"]).contains("early "));
    assert_eq!(sub.subscribe("u", 1), 1);
    drop(crowd);
    Paho.publish(&Who::at(node.port).named("late"), &[Post::new("t", "room again", 1)]);
    assert_eq!(sub.next().payload, "room again");
}

#[test]
fn retained_messages_are_listed_by_topic() {
    let node = Node::start();
    Mosquitto.publish(&node.who("p"), &[Post::new("plant/1", PAYLOAD, 1).retained()]);
    let table = node.answer(&["retained", "plant/#"]);
    assert!(table.lines().any(|line| line.split_whitespace().take(3).eq(["plant/1", "1", "19"])), "{table}");
    assert_eq!(node.answer(&["retained", "other/#"]).lines().count(), 1);
}

#[test]
fn sys_topics_are_there_for_who_names_them() {
    let node = Node::start();
    let mut sub = Rumqttc.subscribe(&node.who("s"), "$SYS/broker/version", 0);
    let heard = sub.next();
    assert_eq!((heard.topic.as_str(), heard.retain), ("$SYS/broker/version", true));
    assert!(heard.payload.starts_with("mqlink "), "{}", heard.payload);
}

#[test]
fn nothing_that_a_node_says_of_itself_holds_a_secret() {
    let node = Node::start();
    let mut sub = Paho.subscribe(&node.who("watcher"), "plant/#", 1);
    Paho.publish(&node.who("p"), &[Post::new("plant/1", PAYLOAD, 1).retained()]);
    assert_eq!(sub.next().payload, PAYLOAD);
    let mut intruder = Command::new("mosquitto_pub");
    let port = node.port.to_string();
    let refused =
        intruder.args(["-p", &port, "-V", "5", "-u", "alice", "-P", WRONG, "-t", "t", "-m", "x"]).output();
    assert!(!refused.expect("it is installed").status.success());

    assert_eq!(node.answer(&["log"]), "trace\n");
    let mut said = String::new();
    for question in [
        &["sessions", "-o", "json"][..],
        &["retained"],
        &["metrics"],
        &["log", "debug"],
        &["kick", "watcher"],
    ] {
        said += &node.answer(question);
    }
    assert!(node.ask(&["log", "=!"]).status.code() == Some(1), "that is no filter");
    let log = until("the kick in the log", || {
        Some(node.log()).filter(|log| log.contains("an administrator kicks"))
    });
    for secret in [PASSWORD, WRONG, PAYLOAD] {
        assert!(!said.contains(secret), "an answer holds {secret}");
        assert!(!log.contains(secret), "the log holds {secret}");
    }
    assert!(log.contains("watcher"), "the log names clients");
}

#[test]
fn the_metrics_page_lists_what_a_node_serves() {
    let mut settings = settings().users(&[("alice", &format!("plain:{PASSWORD}"))]);
    settings.link_listener = Some(LinkListener { port: free_port(), tls: None });
    settings.links = vec![Link { dial: Dial::In, ..Link::new("mqtt/us-eu", "eu") }];
    let node = Node::start_with(settings);
    Paho.publish(&node.who("p"), &[Post::new("t", "x", 1)]);
    let page = until("counted figures", || {
        Some(node.scrape()).filter(|page| page.contains("mqlink_messages_received_total 1\n"))
    });
    assert!(page.contains("mqlink_listener_accepted_total{listener=\"mqtt\"} "), "{page}");
    assert!(page.contains("mqlink_connections_opened_total 1\n"), "{page}");
    let mut served = BTreeSet::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        let mut samples = page.lines().filter_map(|line| line.strip_prefix(name));
        let sample = samples.find(|rest| rest.starts_with(['{', ' '])).unwrap_or_else(|| panic!("no {name}"));
        let labels = sample.split('"').step_by(2).filter_map(|part| part.strip_suffix('='));
        let labels: Vec<_> = labels.map(|label| label.trim_start_matches(['{', ','])).collect();
        served.insert(format!("| `{name}` | {kind} | {} |", labels.join(", ")));
    }
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).expect("docs");
    let rows = text.lines().filter(|line| line.starts_with("| `mqlink_"));
    let listed: BTreeSet<String> =
        rows.map(|row| row.split_inclusive('|').take(4).collect::<String>().trim().to_owned()).collect();
    assert_eq!(served, listed);
}

/// The reasons that a node counts by, against those of docs/metrics.md; docs/limits.md names no others.
#[test]
fn the_metrics_page_lists_every_reason() {
    let mut settings = settings();
    settings.link_listener = Some(LinkListener { port: free_port(), tls: None });
    settings.links = vec![Link { dial: Dial::In, ..Link::new("mqtt/us-eu", "eu") }];
    let node = Node::start_with(settings);
    let page =
        until("counted figures", || Some(node.scrape()).filter(|page| page.contains("reason=\"lost\"")));
    let served: BTreeSet<(String, String)> = page
        .lines()
        .filter_map(|line| {
            let (family, labels) = line.split_once('{')?;
            let (_, reason) = labels.split_once("reason=\"")?;
            Some((family.to_owned(), reason.split('"').next()?.to_owned()))
        })
        .collect();
    let text = |page| {
        std::fs::read_to_string(format!("{}/docs/{page}.md", env!("CARGO_MANIFEST_DIR"))).expect("docs")
    };
    let reasons = text("metrics").split_once("## Reasons").expect("a chapter").1.to_owned();
    let mut listed = BTreeSet::new();
    for row in reasons.lines().filter(|line| line.starts_with("| of `mqlink_")) {
        let words: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        listed.insert((words[0].to_owned(), words[1].to_owned()));
    }
    assert_eq!(listed, served);
    let limits = text("limits");
    let named = limits.split("| `mqlink_").skip(1).filter_map(|rest| rest.split_once("`, "));
    let named: BTreeSet<_> = named
        .map(|(family, rest)| {
            (format!("mqlink_{family}"), rest.split([' ', '|']).next().unwrap_or_default().to_owned())
        })
        .collect();
    assert!(named.len() > 5 && named.is_subset(&served), "{:?}", named.difference(&served));
}

#[test]
fn the_metrics_page_lists_the_sys_topics_and_they_come_as_often_as_the_settings_say() {
    let mut settings = settings().users(&[("alice", &format!("plain:{PASSWORD}"))]);
    settings.monitoring.sys_interval_s = 1;
    let node = Node::start_with(settings);
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).expect("docs");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `$SYS/"));
    let mut listed: BTreeSet<String> =
        rows.map(|row| format!("$SYS/{}", row.split('`').next().expect("a topic"))).collect();
    let all = listed.clone();
    assert!(all.len() > 5);
    let mut sub = Rumqttc.subscribe(&node.who("s"), "$SYS/#", 0);
    let mut uptimes = 0;
    while !listed.is_empty() || uptimes < 4 {
        let heard = sub.next();
        uptimes += usize::from(heard.topic == "$SYS/broker/uptime");
        assert!(all.contains(&heard.topic), "{} is not listed", heard.topic);
        listed.remove(&heard.topic);
    }
}

#[test]
fn all_retained_messages_are_listed_page_by_page() {
    let node = Node::start();
    let posts: Vec<Post> = (0..2_500).map(|n| Post::new(&format!("many/{n}"), "x", 1).retained()).collect();
    Rumqttc.publish(&node.who("p"), &posts);
    let table = node.answer(&["retained", "many/#", "--limit", "5000"]);
    let topics: BTreeSet<&str> = table.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(topics.len(), 2_501, "each once, and the head");
    assert!(node.answer(&["retained", "--limit", "7"]).ends_with("or a higher --limit\n"));
    assert_eq!(node.answer(&["retained", "many/77"]).lines().count(), 2);
    let output = node.ask(&["retained", "many/#/x"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("is no topic filter"));
}

#[test]
fn clients_are_logged_with_id_and_peer() {
    let node = Node::start();
    let (code, connection) = Paho.connect(&node.who("visitor"));
    assert_eq!(code, 0);
    drop(connection);
    let _refused = Paho.connect(&Who::at(node.port).named("intruder").login("alice", WRONG));
    let find = |message: &str, field: &str, value: &str| node.logged(message, field, value);
    let entry = find("a client is in", "client", "visitor");
    assert!(entry["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{entry}");
    assert_eq!(entry["user"], "alice");
    // One that the client does not end in order is lost; both say whose it was.
    find("a connection ", "client", "visitor");
    let refused = find("a connection ends", "reason", "the user name or the password is wrong");
    assert!(refused["peer"].is_string() && refused["user"] == "alice", "{refused}");
    assert_eq!(refused["client"], "intruder");
    let (code, _) = Paho.connect(&Who::at(node.port).named("nameless"));
    assert_eq!(code, 0x87);
    assert_eq!(find("a connection ends", "client", "nameless")["reason"], "not authorized");
}

#[test]
fn what_the_rules_deny_is_logged() {
    let filters = vec!["mine/#".to_owned()];
    let principals = Principals::default();
    let rule = AccessRule { principals, action: Action::All, filters, effect: Effect::Allow };
    let mut settings = settings().users(&[("alice", &format!("plain:{PASSWORD}"))]);
    settings.authorization = Some(Authorization { rules: vec![rule], ..Authorization::default() });
    let node = Node::start_with(settings);
    Rumqttc.publish(&node.who("sender"), &[Post::new("yours/1", "x", 1), Post::new("mine/1", "x", 1)]);
    let denied = node.logged("not authorized", "at", "yours/1");
    assert_eq!((&denied["client"], &denied["deed"]), (&json!("sender"), &json!("Publish")));
    assert!(denied["user"] == "alice" && denied["peer"].is_string(), "{denied}");
    let log = node.log();
    assert!(!log.contains("mine/1") && !log.contains("there are no rules"), "{log}");
}

#[test]
fn a_node_that_knows_its_clients_and_has_no_rules_says_so() {
    let node = Node::start();
    until("the warning", || node.log().contains("there are no rules: ").then_some(()));
}

#[test]
fn a_level_that_is_changed_changes_what_is_logged() {
    let node = Node::start();
    let visit = |id: &str| drop(Paho.connect(&node.who(id)));
    node.answer(&["log", "info"]);
    visit("unseen");
    until("its end", || (!node.answer(&["clients"]).contains("unseen")).then_some(()));
    node.answer(&["log", "mqlink::broker=debug"]);
    visit("seen");
    node.logged("a client is in", "client", "seen");
    assert!(!node.log().contains("unseen"));
}

#[test]
fn the_node_of_a_cluster_is_found_by_its_name() {
    let up = Up::start_kept(Clusters::default().cluster("us-east").cluster("eu-west"));
    up.ready();
    let mut sub = Paho.subscribe(&up.at("us-east").named("watcher"), "plant/#", 1);
    let admin = |arguments: &[&str]| {
        let mut command = Command::new(MQLINK);
        command.arg("admin").arg("--data").arg(up.data()).args(arguments);
        command.output().expect("the binary is built")
    };
    let text = |output: &Output| {
        let both = [&output.stdout[..], &output.stderr].concat();
        String::from_utf8(both).expect("output is text")
    };
    let clients = text(&admin(&["--cluster", "us-east", "clients"]));
    assert!(clients.lines().any(|line| line.starts_with("watcher ")), "{clients}");
    let other = text(&admin(&["--cluster", "mqtt/eu-west", "clients"]));
    assert!(!other.contains("watcher"), "{other}");
    assert!(admin(&["--cluster", "us-east", "kick", "watcher"]).status.success());
    sub.gone();
    let unknown = admin(&["--cluster", "mars", "clients"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown).contains("there is no cluster mars; there are: "), "{}", text(&unknown));
    let unnamed = admin(&["clients"]);
    assert_eq!(unnamed.status.code(), Some(2));
    assert!(text(&unnamed).contains("--cluster NAME"), "{}", text(&unnamed));
}

const HASHED: &str = "bGJdXfn6P9jmSY0ZCpIaCSkQ1XayfQBMBwplxxuT8e";
const LINK_PASSWORD: &str = "s3cret-of-a-link";
const JWKS_SECRET: &str = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s";
const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiAiYW5uIiwgImV4cCI6IDQxMDI0NDQ4MDB9.7fKG5_aSwr7CH9co8Zu3tJVUT287YUo_aQ7x5EGzFus";

const SCRAM: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                     wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

/// Every kind of secret that a node may hold or be shown, and every way in, with all that is logged anywhere in the process.
#[test]
fn no_log_holds_a_secret_whatever_comes_in() {
    let certificates = Certificates::new();
    let hashed = format!("$7$101$MDEyMzQ1Njc4OWFi${HASHED}+N6cR6JaUl22kyOezT4vgFZzRNUODVbwJMCRIfFS1o8A==");
    let mut settings =
        settings().users(&[("alice", &format!("plain:{PASSWORD}")), ("bob", &hashed), ("carol", SCRAM)]);
    settings = settings.tls(certificates.server());
    settings.listeners.push(Listener::new("ws", Protocol::Ws, free_port()));
    settings.listeners.push(Listener::new("wss", Protocol::Wss, free_port()).with_tls(certificates.server()));
    settings.authentication.jwt = Some(Jwt {
        jwks: format!(r#"{{"keys": [{{"kty": "oct", "alg": "HS256", "k": "{JWKS_SECRET}"}}]}}"#),
        username_claim: "sub".to_owned(),
        issuer: None,
        audience: None,
        acl_claim: Some("acl".to_owned()),
    });
    settings.link_listener = Some(LinkListener { port: free_port(), tls: None });
    let credentials = || Credentials { username: "us".to_owned(), password: LINK_PASSWORD.to_owned() };
    let mut link =
        Link { server: Some(format!("127.0.0.1:{}", free_port())), ..Link::new("mqtt/us-eu", "eu") };
    link.credentials = Some(credentials());
    link.inbound.credentials = Some(credentials());
    settings.links = vec![link];
    let (ws, wss, mqtts) =
        (settings.listeners[2].port, settings.listeners[3].port, settings.listeners[1].port);
    let link_port = settings.link_listener.as_ref().expect("set above").port;
    let node = Node::start_with(settings.clone());
    let ca = certificates.ca();
    let at = |port: u16, secure: bool, path: bool| {
        let who = Who::at(port);
        let who = if secure { who.trusting(&ca) } else { who };
        if path { who.path("/mqtt") } else { who }
    };
    for (n, who) in
        [at(node.port, false, false), at(mqtts, true, false), at(ws, false, true), at(wss, true, true)]
            .into_iter()
            .enumerate()
    {
        for (m, (user, password)) in [
            ("alice", PASSWORD),
            ("bob", "correct horse"),
            ("", TOKEN),
            ("alice", WRONG),
            ("us", LINK_PASSWORD),
            ("nobody", TOKEN),
        ]
        .into_iter()
        .enumerate()
        .filter(|(m, _)| *m < 3 || n == 0 || n == 3)
        // refusals take their time
        {
            let who = who.clone().named(&format!("c{n}-{m}")).login(user, password);
            let who = who.will(Post::new("last/words", WILL, 1));
            let (code, connection) = Paho.connect(&who);
            assert_eq!(code == 0, m < 3, "{user} at {n}: {code}");
            drop(connection);
            if code == 0 {
                Paho.publish(&who, &[Post::new("t", PAYLOAD, 1)]);
            }
        }
    }
    let (proof, counter_proof, code) = scram::login(node.port, "carol", "pencil");
    let (wrong_proof, _, wrong_code) = scram::login(node.port, "carol", "crayon");
    assert_eq!((code, wrong_code), (0, 0x87));
    let alice = at(node.port, false, false).named("keeps").login("alice", PASSWORD);
    Paho.publish(&alice, &[Post::new("kept", PAYLOAD, 1).retained()]);
    // A client's password does not open the link listener, and what is no packet hurts nobody.
    for bytes in [PASSWORD.as_bytes(), LINK_PASSWORD.as_bytes(), b"\x10\x80\x80\x80\x80\x01"] {
        for port in [node.port, mqtts, ws, wss, link_port] {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
            let _ = stream.write_all(bytes);
        }
    }
    // Settings that are refused, and new ones.
    let (_, _watcher) =
        Paho.connect(&at(node.port, false, false).named("watcher").login("bob", "correct horse"));
    let mut document = serde_json::to_value(&settings).expect("settings are JSON");
    document["authentication"]["users"][0]["secret"] = PASSWORD.into();
    let refused = put(&node, &document);
    assert!(refused.contains("422") && refused.contains("users[0].secret"), "{refused}");
    document["authentication"]["users"][0]["secret"] = format!("plain:{PAYLOAD}").into();
    let taken = put(&node, &document);
    assert!(taken.contains("200 OK"), "{taken}");
    node.answer(&["kick", "watcher"]);
    let mut status = std::os::unix::net::UnixStream::connect(node.socket()).expect("it listens");
    status.write_all(b"GET /v1/status HTTP/1.1\r\nHost: node\r\n\r\n").expect("it is open");
    let mut snapshot = String::new();
    while !snapshot.contains("\"snapshot\"") {
        let mut piece = [0; 64 * 1024];
        let count = status.read(&mut piece).expect("it is open");
        snapshot += &String::from_utf8_lossy(&piece[..count]);
    }
    let retained = node.answer(&["retained", "-o", "json"]);
    assert!(retained.contains("\"kept\""), "{retained}");
    let more =
        [snapshot, retained, node.answer(&["sessions"]), node.answer(&["metrics"]), node.answer(&["drain"])];
    let log = until("the kick in the log", || {
        Some(node.log()).filter(|log| log.contains("an administrator kicks"))
    });
    let key_line = certificates.server().key_pem.lines().nth(1).expect("a key").to_owned();
    let said = [refused, taken, node.scrape(), more.concat()].concat();
    for secret in [
        PASSWORD,
        WRONG,
        PAYLOAD,
        WILL,
        HASHED,
        &SCRAM[SCRAM.len() - 20..],
        LINK_PASSWORD,
        JWKS_SECRET,
        TOKEN,
        "correct horse",
        "pencil",
        "crayon",
        &proof,
        &counter_proof,
        &wrong_proof,
        key_line.as_str(),
    ] {
        let line = log
            .lines()
            .find(|line| line.contains(secret))
            .map(|line| line.chars().take(300).collect::<String>());
        assert_eq!(line, None, "the log holds {secret}");
        assert!(!said.contains(secret), "an answer holds {secret}");
    }
    assert!(log.lines().count() > 100, "it was a short log");
}

/// Puts a document, and returns the whole answer.
pub(crate) fn put(node: &Node, document: &serde_json::Value) -> String {
    let body = document.to_string();
    let mut stream = std::os::unix::net::UnixStream::connect(node.socket()).expect("it listens");
    let head = format!("PUT /v1/settings HTTP/1.0\r\nHost: node\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
}

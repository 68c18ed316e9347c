use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{LocalSet, spawn_local};

use super::document::Document;
use super::shard::{Shard, Start, base_report};
use crate::admin::{Vitals, bind_tcp, serve_probes};
use crate::settings::{Pieces, Settings, User};
use crate::testing::logged;

/// Nothing here takes long; what hangs is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// The broker's first thread asks all others each second what they counted: what stands shows, whichever it is.
#[test]
fn a_node_of_which_any_shard_stands_still_is_not_alive_until_it_turns_again() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        let settings = Settings { shards: Some(2), ..Settings::new("solo") };
        let document = Document { settings, unknown_fields: Vec::new() };
        let (reports, watched) = watch::channel(Arc::new(base_report("solo-0", 1)));
        let start = Start { node: "solo-0".to_owned(), incarnation: 1, document, store: None };
        let shard = Shard::start(start, reports).await;
        let broker = shard.broker.clone();
        let vitals = Arc::new(Vitals::within(Duration::from_secs(2)));
        let (_commands, taken) = mpsc::channel(1);
        let (_stop, stopped) = oneshot::channel();
        let own = Arc::clone(&vitals);
        spawn_local(async move { shard.run(&own, taken, stopped).await });
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(serve_probes(listener, watched, vitals));
        let livez = async || {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer.split_once("\r\n\r\n").unwrap().1.to_owned()
        };
        assert_eq!(livez().await, "ok\n");
        let (free, is_free) = std::sync::mpsc::channel::<()>();
        spawn_local(async move { broker.with_core_of(1, move |_| is_free.recv()).await });
        while !livez().await.starts_with("the broker's thread stands for ") {}
        free.send(()).unwrap();
        while livez().await != "ok\n" {}
    };
    LocalSet::new().block_on(&runtime, async { tokio::time::timeout(PATIENCE, test).await }).unwrap();
}

/// Runs a node's first thread here, in memory and with one shard.
fn with_shard(test: impl AsyncFnOnce(Shard)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = Settings { shards: Some(1), ..Settings::new("solo") };
    let start = Start {
        node: "solo-0".to_owned(),
        incarnation: 1,
        document: Document { settings, unknown_fields: Vec::new() },
        store: None,
    };
    let (reports, _watched) = watch::channel(Arc::new(base_report("solo-0", 1)));
    LocalSet::new().block_on(&runtime, async { test(Shard::start(start, reports).await).await });
}

#[test]
fn what_waits_for_the_next_start_or_has_no_effect_is_told() {
    let log = |more: &'static str| {
        let apply = async move |mut shard: Shard| {
            shard.apply(format!(r#"{{"cluster": "solo"{more}}}"#).into()).await.unwrap();
        };
        logged(|| with_shard(apply)).1
    };
    let (shards, durability) = ("shards is another number now", "storage.durability has no effect");
    let cases = [
        (r#", "shards": 1"#, [false, false]),
        ("", [true, false]),
        (r#", "shards": 2"#, [true, false]),
        (r#", "shards": 1, "storage": {"durability": "Always"}"#, [false, true]),
    ];
    for (more, told) in cases {
        let log = log(more);
        assert_eq!([shards, durability].map(|what| log.contains(what)), told, "{more}: {log}");
    }
}

#[test]
fn a_thread_with_clients_goes_on_while_settings_are_read() {
    with_shard(async |mut shard: Shard| {
        let settings = Settings { shards: Some(1), ..Settings::new("solo") };
        let turned = Rc::new(Cell::new(0));
        let turns = Rc::clone(&turned);
        spawn_local(async move {
            loop {
                turns.set(turns.get() + 1);
                tokio::task::yield_now().await;
            }
        });
        let json = serde_json::to_vec(&settings).unwrap();
        let applied = shard.apply(json.into()).await.unwrap();
        assert_eq!(applied.settings_hash, settings.hash());
        assert!(turned.get() > 0, "nobody else had a turn");
    });
}

#[track_caller]
fn check(json: &str, expected: &str) {
    let error = Document::parse(json.as_bytes()).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{error}");
}

#[test]
fn a_node_takes_checked_documents_only() {
    let link = |topics: &str| {
        format!(
            r#"{{"cluster": "us", "links": [{{"id": "a/b", "peer": "eu", "dial": "In", "topics": {topics}}}]}}"#
        )
    };
    check(&link(r##"["a/+", "#"]"##), "");
    check(
        &link(r##"["a", "b/#/c"]"##),
        "the settings are invalid: links[0].topics[1]: `b/#/c` is no topic filter: ",
    );
    check(r#"{"cluster": "us", "schema": 2}"#, "the settings are invalid: schema: is 2");
    check("[]", "failed to parse the settings document");
}

#[test]
fn unknown_fields_do_not_hinder() {
    let document = Document::parse(br#"{"cluster": "us", "colour": 1}"#).unwrap();
    assert_eq!(document.unknown_fields, ["colour"]);
}

#[test]
fn a_file_without_end_is_no_document() {
    let error = Document::read(&["/dev/zero".into()]).unwrap_err().to_string();
    assert!(error.contains("failed to read /dev/zero: it is larger than"), "{error}");

    let dir = tempfile::tempdir().unwrap();
    let large = format!("{{{}}}", " ".repeat(5 * 1_024 * 1_024));
    let files = ["a", "b"].map(|name| dir.path().join(name));
    files.iter().for_each(|file| std::fs::write(file, &large).unwrap());
    let error = Document::read(&files).unwrap_err().to_string();
    assert!(error.ends_with("bytes, together with the files before it"), "{error}");
}

#[test]
fn a_document_may_lie_in_several_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let read = |paths: &[&str]| {
        Document::read(&paths.iter().map(|path| dir.path().join(path)).collect::<Vec<PathBuf>>())
    };
    let none = read(&[""]).unwrap_err().to_string();
    assert!(none.contains("there is no *.json in it"), "{none}");

    // As a mounted Secret looks: the names lead through a hidden directory.
    std::fs::create_dir(dir.path().join("..data.json")).unwrap();
    write(
        "..data.json/users.json",
        r#"{"authentication": {"users": [{"name": "ann", "secret": "plain:a"}]}}"#,
    );
    std::os::unix::fs::symlink("..data.json/users.json", dir.path().join("users.json")).unwrap();
    write("base.json", r#"{"cluster": "us", "colour": 1}"#);
    write("links.json", r#"{"links": [{"id": "a/b", "peer": "eu", "dial": "In", "topics": ["a"]}]}"#);
    write(".hidden.json", "no JSON");
    write("README", "no JSON");
    let whole = read(&[""]).unwrap();
    assert_eq!(whole.settings.authentication.users[0].name, "ann");
    assert_eq!(
        (whole.settings.links[0].peer.as_str(), &whole.unknown_fields[..]),
        ("eu", &["colour".to_owned()][..])
    );
    assert_eq!(read(&["base.json", "links.json", "users.json"]).unwrap(), whole);

    let twice = read(&["", "links.json"]).unwrap_err().to_string();
    assert!(twice.contains("links[1].id: `a/b` is used twice"), "{twice}");
    let gone = read(&["base.json", "gone.json"]).unwrap_err().to_string();
    assert!(gone.contains("failed to read") && gone.contains("gone.json"), "{gone}");
}

#[test]
fn pieces_of_two_renderings_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let write = |settings: &Settings, files: &[&str]| {
        for (name, json) in Pieces::of(settings).named() {
            if files.contains(&name) {
                std::fs::write(dir.path().join(name), json).unwrap();
            }
        }
    };
    let mut settings = Settings::new("us");
    write(&settings, &["base.json", "users.json", "links.json"]);
    assert_eq!(Document::read(&[dir.path().into()]).unwrap().settings, settings);
    settings.authentication.users = vec![User { name: "ann".into(), secret: "plain:a".into() }];
    write(&settings, &["users.json"]);
    let mixed = Document::read(&[dir.path().into()]).unwrap_err();
    assert!(mixed.is_passing() && mixed.to_string().contains("base.json and users.json"), "{mixed}");
    write(&settings, &["base.json"]);
    assert_eq!(Document::read(&[dir.path().into()]).unwrap().settings, settings);
    std::fs::remove_file(dir.path().join("links.json")).unwrap();
    assert!(Document::read(&[dir.path().into()]).unwrap_err().is_passing(), "one is missing");
}

//! The protocol between both sides, without a broker: on the socket here, over TLS and the probes next door.

mod probes;
mod tls;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot, watch};

use super::*;
use crate::settings::Settings;
use crate::settings::report::{LinkReport, NodeReport, Verdict, VerdictStatus};

fn link(id: &str, status: VerdictStatus) -> LinkReport {
    LinkReport { id: id.into(), connected: Verdict::new(status, "", ""), ..LinkReport::default() }
}

fn report(connections: u64, links: &[LinkReport]) -> NodeReport {
    NodeReport { node: "us-0".into(), connections, links: links.to_vec(), ..NodeReport::default() }
}

#[test]
fn lines_lead_from_any_report_to_any_other() {
    use VerdictStatus::{False, True};
    let reports = [
        report(0, &[]),
        report(1, &[link("a", True)]),
        report(1, &[link("a", False), link("b", True)]),
        report(2, &[link("b", True), link("c", True)]),
        report(2, &[link("b", True)]),
    ];
    for before in &reports {
        for after in &reports {
            let lines = StatusLine::between(before, after);
            assert_eq!(lines.is_empty(), before == after);
            let mut mirror = before.clone();
            lines.into_iter().for_each(|line| line.apply_to(&mut mirror));
            assert_eq!(&mirror, after);
        }
    }
}

/// A node without a broker: takes every document that names a cluster, and counts refreshes as connections.
struct Fake {
    routes: Routes,
    reports: Arc<watch::Sender<Arc<NodeReport>>>,
    commands: Arc<AtomicUsize>,
}

impl Fake {
    fn new(beat: Duration) -> Self {
        let (reports, watched) = watch::channel(Arc::new(report(0, &[])));
        let (reports, commands) = (Arc::new(reports), Arc::new(AtomicUsize::new(0)));
        let (sender, mut taken) = mpsc::channel(1);
        let (own, count) = (Arc::downgrade(&reports), Arc::clone(&commands));
        tokio::spawn(async move {
            while let Some(command) = taken.recv().await {
                count.fetch_add(1, Relaxed);
                match command {
                    Command::Apply(document, reply) => drop(reply.send(apply(&document))),
                    Command::Ask(Question::Kick(kick), reply) => {
                        let done = serde_json::json!({ "done": kick.client_id });
                        reply.send(if kick.forget { Ok(done) } else { Err("it stays".to_owned()) }).unwrap();
                    }
                    Command::Ask(..) => drop(command),
                    Command::Refresh(reply) => {
                        own.upgrade().unwrap().send_modify(|report| Arc::make_mut(report).connections += 1);
                        reply.send(()).unwrap();
                    }
                }
            }
        });
        Self { routes: routes(watched, sender, Arc::new(Vitals::new()), beat), reports, commands }
    }
}

/// Such a node behind a socket.
struct FakeNode {
    client: Client,
    reports: Arc<watch::Sender<Arc<NodeReport>>>,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
    _home: TempDir,
}

impl FakeNode {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("admin.sock");
        let listener = bind(&path).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let Fake { routes, reports, .. } = Fake::new(Duration::from_millis(20));
        let served = tokio::spawn(serve(listener, routes, stopped));
        Self { client: Client::new(path), reports, stop, served, _home: home }
    }
}

fn apply(document: &[u8]) -> Result<Applied, String> {
    let parsed = crate::settings::parse(document).map_err(|error| error.to_string())?;
    Ok(Applied { settings_hash: parsed.settings.hash(), unknown_fields: parsed.unknown_fields })
}

#[tokio::test]
async fn settings_are_answered_with_their_hash_or_the_reason() {
    let node = FakeNode::start();
    let settings = Settings::new("us");
    let applied = node.client.put_settings(&settings).await.unwrap();
    assert_eq!(applied, Applied { settings_hash: settings.hash(), unknown_fields: Vec::new() });

    let refused = node.client.put_document(Bytes::from_static(b"{}")).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(error) if error.contains("cluster")), "{refused}");

    let unknown = Bytes::from_static(br#"{"cluster": "us", "colour": 1}"#);
    assert_eq!(node.client.put_document(unknown).await.unwrap().unknown_fields, ["colour"]);
}

#[tokio::test]
async fn questions_are_answered_or_refused_with_the_reason() {
    let node = FakeNode::start();
    let kick = |forget| Kick { client_id: "a".to_owned(), forget };
    assert_eq!(node.client.kick(kick(true)).await.unwrap().done, "a");
    let refused = node.client.kick(kick(false)).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(error) if error == "it stays"), "{refused}");
    // Who gives no answer is stopping.
    assert!(node.client.log(Log::default()).await.is_err());
    assert!(node.client.metrics().await.unwrap().contains("mqlink_uptime_seconds"));
}

#[tokio::test]
async fn a_document_beyond_the_limit_is_refused() {
    let node = FakeNode::start();
    let document = Bytes::from(vec![b' '; DOCUMENT_BYTES_MAX + 1]);
    assert!(node.client.put_document(document).await.is_err());
    node.client.healthz().await.unwrap();
}

#[tokio::test]
async fn a_stream_begins_fresh_and_goes_on_with_changes() {
    let node = FakeNode::start();
    let mut stream = node.client.status().await.unwrap();
    assert_eq!(stream.next().await.unwrap(), Some(StatusLine::Snapshot(report(1, &[]).into())));

    let changed = link("a", VerdictStatus::True);
    node.reports.send_replace(Arc::new(report(1, std::slice::from_ref(&changed))));
    assert_eq!(next_change(&mut stream).await, StatusLine::Link(changed.into()));

    node.reports.send_replace(Arc::new(report(1, &[])));
    assert_eq!(next_change(&mut stream).await, StatusLine::Unlinked("a".into()));
}

async fn next_change(stream: &mut StatusStream) -> StatusLine {
    loop {
        match stream.next().await.unwrap().unwrap() {
            StatusLine::Beat(_) => {}
            line => return line,
        }
    }
}

#[tokio::test]
async fn silence_is_broken_by_beats() {
    let node = FakeNode::start();
    let mut stream = node.client.status().await.unwrap();
    stream.next().await.unwrap();
    assert_eq!(stream.next().await.unwrap(), Some(StatusLine::Beat(1)));
    assert_eq!(stream.next().await.unwrap(), Some(StatusLine::Beat(2)));
}

#[tokio::test]
async fn of_too_many_streams_the_oldest_ends() {
    let node = FakeNode::start();
    let mut streams = Vec::new();
    for _ in 0..SUBSCRIBERS_MAX {
        streams.push(node.client.status().await.unwrap());
    }
    let mut newest = node.client.status().await.unwrap();
    assert!(matches!(newest.next().await, Ok(Some(StatusLine::Snapshot(_)))));
    let mut oldest = streams.remove(0);
    while let Ok(Some(_)) = oldest.next().await {}
    assert!(matches!(streams[0].next().await, Ok(Some(StatusLine::Snapshot(_)))));
}

#[tokio::test]
async fn half_a_line_is_no_sign_of_life() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("dripping.sock");
    let listener = bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        let mut drip = tokio::time::interval(Duration::from_millis(5));
        loop {
            drip.tick().await;
            if socket.write_all(b"1\r\n \r\n").await.is_err() {
                return;
            }
        }
    });
    let patience = Patience { silence: Duration::from_millis(50), ..Patience::default() };
    let mut stream = Client::new(path).with_patience(patience).status().await.unwrap();
    assert!(matches!(stream.next().await, Err(ClientError::Silent(..))));
}

#[tokio::test]
async fn a_line_longer_than_asked_for_is_not_read() {
    let node = FakeNode::start();
    let mut stream = node.client.clone().with_answer_max(64).status().await.unwrap();
    let error = stream.next().await.unwrap_err().to_string();
    assert!(error.contains("too long"), "{error}");
}

#[tokio::test]
async fn streams_end_when_the_node_stops() {
    let node = FakeNode::start();
    let mut stream = node.client.status().await.unwrap();
    stream.next().await.unwrap();
    let FakeNode { client, reports, stop, served, .. } = node;
    stop.send(()).unwrap();
    drop(reports);
    while let Ok(Some(_)) = stream.next().await {}
    drop((stream, client));
    served.abort();
}

#[tokio::test]
async fn the_socket_is_ours_alone_and_outlives_nobody() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("admin.sock");
    let listener = bind(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(bind(&path).unwrap_err().to_string().contains("another process serves it"));
    drop(listener);
    bind(&path).unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(bind(&file).unwrap_err().to_string().contains("another kind"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let long = bind(&home.path().join("l".repeat(110))).unwrap_err().to_string();
    assert!(long.contains("a socket's may have 107; choose a shorter one"), "{long}");
}

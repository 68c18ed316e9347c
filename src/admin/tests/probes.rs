//! The probes: what they answer, and that nothing else is behind their port.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::admin::metrics::render;
use crate::admin::probes::check_ready;
use crate::settings::inventory::{Figures, ListenerFigures};
use crate::settings::report::ListenerReport;

fn loaded() -> NodeReport {
    let listener = ListenerReport { name: "mqtt".into(), port: 1_883, error: None };
    NodeReport { settings_hash: "ab".into(), listeners: vec![listener], ..report(0, &[]) }
}

fn with_closed_listener() -> NodeReport {
    let mut report = loaded();
    report.listeners[0].error = Some("address in use".into());
    report
}

#[track_caller]
fn check(checked: Result<(), String>, expected: &str) {
    assert_eq!(checked.err().unwrap_or_default(), expected);
}

#[test]
fn a_node_is_ready_once_it_serves_and_until_it_drains() {
    check(check_ready(&loaded(), false, false), "");
    check(check_ready(&NodeReport::default(), false, false), "no settings are loaded yet");
    check(check_ready(&with_closed_listener(), false, false), "listener mqtt: address in use");
    check(check_ready(&with_closed_listener(), false, true), "");
    check(check_ready(&loaded(), true, true), "the node drains");
}

#[test]
fn links_never_count_for_readiness() {
    let links = vec![link("mqtt/us-eu", VerdictStatus::False), link("mqtt/us-ap", VerdictStatus::Unknown)];
    check(check_ready(&NodeReport { links, ..loaded() }, false, false), "");
}

/// The families of a page as rows of docs/metrics.md.
fn families(page: &str) -> Vec<String> {
    let mut rows = Vec::new();
    let mut help = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let sample =
                page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('{')).unwrap_or_default();
            // `a="1",b="2"} 3`: every other piece between quotes is a name.
            let labels = sample.split('"').step_by(2).filter_map(|part| part.strip_suffix('='));
            let labels: Vec<_> = labels.map(|label| label.trim_start_matches(',')).collect();
            rows.push(format!("| `{name}` | {kind} | {} | {help} |", labels.join(", ")));
        }
    }
    rows
}

#[test]
fn the_documentation_names_every_metric_that_is_served() {
    let report = NodeReport { links: vec![link("mqtt/us-eu", VerdictStatus::True)], ..loaded() };
    let one = ListenerFigures { refused: vec![("full", 0)], ..ListenerFigures::default() };
    let figures = Figures {
        dropped: vec![("slow", 0)],
        ended: vec![("lost", 0)],
        subscriptions_refused: vec![("quota", 0)],
        listeners: vec![one],
        ..Figures::default()
    };
    let served = families(&render(&report, &figures, 0));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let documented: Vec<_> = text.lines().filter(|line| line.starts_with("| `mqlink_")).collect();
    let page = served.join("\n");
    assert_eq!(documented, served, "docs/metrics.md should have these rows:\n{page}");
}

#[test]
fn metrics_name_links_and_escape_what_users_named() {
    let mut report = NodeReport { version: "1.2.3".into(), connections: 7, ..with_closed_listener() };
    report.listeners[0].name = "a\"b\\c\n".into();
    let mut us_eu = link("mqtt/us-eu", VerdictStatus::True);
    us_eu.counters.sent.dropped.overflow = 3;
    report.links.push(us_eu);
    let text = render(&report, &Figures::default(), 0);
    for line in [
        r#"mqlink_node_info{node="us-0",version="1.2.3"} 1"#,
        "mqlink_connections 7",
        r#"mqlink_listener_up{listener="a\"b\\c\n"} 0"#,
        r#"mqlink_link_connected{link="mqtt/us-eu"} 1"#,
        r#"mqlink_link_dropped_total{link="mqtt/us-eu",direction="sent",reason="overflow"} 3"#,
        "# TYPE mqlink_link_dropped_total counter",
    ] {
        assert!(text.lines().any(|has| has == line), "{line}\n{text}");
    }
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_port_answers_probes_and_nothing_else() {
    let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (reports, watched) = watch::channel(Arc::new(NodeReport::default()));
    let vitals = Arc::new(Vitals::new());
    tokio::spawn(serve_probes(listener, watched, Arc::clone(&vitals)));
    assert!(ask(address, "GET /livez").await.starts_with("HTTP/1.1 200"));
    let unready = ask(address, "GET /readyz").await;
    assert!(
        unready.starts_with("HTTP/1.1 503") && unready.ends_with("no settings are loaded yet\n"),
        "{unready}"
    );

    reports.send_replace(Arc::new(loaded()));
    assert!(ask(address, "GET /readyz").await.starts_with("HTTP/1.1 200"));
    reports.send_replace(Arc::new(with_closed_listener()));
    assert!(ask(address, "GET /readyz").await.starts_with("HTTP/1.1 200"));
    assert!(ask(address, "GET /metrics").await.contains("mqlink_listener_up{listener=\"mqtt\"} 0\n"));
    vitals.drain();
    assert!(ask(address, "GET /readyz").await.ends_with("the node drains\n"));

    for request in ["GET /v1/status", "PUT /v1/settings", "GET /v1/settings", "GET /v1/healthz", "GET /"] {
        let answer = ask(address, request).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{request}: {answer}");
    }
}

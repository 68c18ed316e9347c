//! A report as Prometheus reads it. Pure.
//!
//! Names of links and listeners are the only labels that users choose; their number is bounded by the settings.
//! docs/metrics.md lists the families, and a test holds it to what is served.

use std::fmt::{Display, Write};

use crate::settings::inventory::{Figures, ListenerFigures};
use crate::settings::report::{LinkReport, NodeReport, VerdictStatus};

/// The text exposition format, version 0.0.4.
pub(super) fn render(report: &NodeReport, figures: &Figures, uptime_s: u64) -> String {
    let mut page = Page::default();
    page.family("mqlink_node_info", "gauge", "The node and its version.");
    page.sample(&[("node", &report.node), ("version", &report.version)], 1);
    let levels = [
        ("mqlink_connections", "Client connections open.", report.connections),
        ("mqlink_sessions", "Sessions held, connected or not.", report.sessions),
        ("mqlink_subscriptions", "Subscriptions held.", report.subscriptions),
        ("mqlink_retained_messages", "Retained messages held.", report.retained),
        (
            "mqlink_settings_refused",
            "The last settings pushed are not in force.",
            report.refused.is_some().into(),
        ),
        (
            "mqlink_store_failed",
            "What must be stored is refused, because the store failed.",
            report.store_trouble.is_some().into(),
        ),
    ];
    page.levels(&levels);
    page.family("mqlink_listener_up", "gauge", "The listener accepts connections.");
    for listener in &report.listeners {
        page.sample(&[("listener", &listener.name)], listener.error.is_none().into());
    }
    render_figures(figures, uptime_s, &mut page);
    render_links(&report.links, &mut page);
    page.text
}

fn render_figures(figures: &Figures, uptime_s: u64, page: &mut Page) {
    page.family("mqlink_uptime_seconds", "gauge", "The time since the node started.");
    page.sample(&[], uptime_s);
    page.family("mqlink_messages_received_total", "counter", "PUBLISH packets from clients.");
    page.sample(&[], figures.received);
    page.family("mqlink_messages_sent_total", "counter", "PUBLISH packets handed to connections of clients.");
    page.sample(&[], figures.sent);
    page.family(
        "mqlink_messages_dropped_total",
        "counter",
        "Messages that a client missed or was refused, by reason.",
    );
    page.by_reason(&figures.dropped);
    page.family("mqlink_connections_opened_total", "counter", "Connections let in: CONNECT was accepted.");
    page.sample(&[], figures.opened);
    page.family("mqlink_connections_ended_total", "counter", "Connections that ended, by reason.");
    page.by_reason(&figures.ended);
    page.family("mqlink_subscriptions_refused_total", "counter", "Subscriptions refused, by reason.");
    page.by_reason(&figures.subscriptions_refused);
    let levels = [
        ("mqlink_queued_messages", "Messages that wait for sessions.", figures.queued),
        ("mqlink_queued_bytes", "Bytes of these, counted for each session.", figures.queued_bytes),
        ("mqlink_inflight_messages", "Messages sent to clients and not acknowledged.", figures.in_flight),
        (
            "mqlink_logins_waiting",
            "Clients that wait for their password to be hashed.",
            figures.logins_waiting,
        ),
    ];
    page.levels(&levels);
    render_listeners(&figures.listeners, page);
}

fn render_listeners(listeners: &[ListenerFigures], page: &mut Page) {
    type Read = fn(&ListenerFigures) -> u64;
    let families: &[(&str, &str, &str, Read)] = &[
        ("mqlink_listener_connections", "gauge", "Connections open, handshakes included.", |one| {
            one.connections
        }),
        ("mqlink_listener_accepted_total", "counter", "Connections accepted.", |one| one.accepted),
        ("mqlink_listener_paced_total", "counter", "Times that the next one waited for the rate.", |one| {
            one.paced
        }),
    ];
    for (name, kind, help, read) in families {
        page.family(name, kind, help);
        for one in listeners {
            page.sample(&[("listener", &one.name)], read(one));
        }
    }
    page.family("mqlink_listener_refused_total", "counter", "Connections closed before MQTT, by reason.");
    for one in listeners {
        for (reason, value) in &one.refused {
            page.sample(&[("listener", &one.name), ("reason", reason)], *value);
        }
    }
}

fn render_links(links: &[LinkReport], page: &mut Page) {
    type Read = fn(&LinkReport) -> u64;
    let families: &[(&str, &str, &str, Read)] = &[
        ("mqlink_link_connected", "gauge", "Probes cross in both directions.", |link| {
            (link.connected.status == VerdictStatus::True).into()
        }),
        ("mqlink_link_routes_synced", "gauge", "Both directions are synced.", |link| {
            (link.routes_synced.status == VerdictStatus::True).into()
        }),
        ("mqlink_link_connections", "gauge", "Connections open and past the handshake.", |link| {
            link.connections.open.into()
        }),
        ("mqlink_link_queued_messages", "gauge", "Messages that wait for the peer.", |link| {
            link.counters.sent.queued
        }),
        ("mqlink_link_inflight_messages", "gauge", "Messages sent and not acknowledged.", |link| {
            link.counters.sent.in_flight
        }),
        ("mqlink_link_matched_total", "counter", "Messages that matched a route of the peer.", |link| {
            link.counters.sent.matched
        }),
        ("mqlink_link_acknowledged_total", "counter", "Messages that the peer acknowledged.", |link| {
            link.counters.sent.acknowledged
        }),
        ("mqlink_link_received_total", "counter", "Messages that arrived from the peer.", |link| {
            link.counters.received.received
        }),
        (
            "mqlink_link_delivered_total",
            "counter",
            "Messages from the peer with a subscriber here.",
            |link| link.counters.received.delivered,
        ),
    ];
    for (name, kind, help, read) in families {
        page.family(name, kind, help);
        for link in links {
            page.sample(&[("link", &link.id)], read(link));
        }
    }
    page.family("mqlink_link_dropped_total", "counter", "Messages given up, by direction and reason.");
    for link in links {
        for (direction, reason, value) in drops(link) {
            page.sample(&[("link", &link.id), ("direction", &direction), ("reason", &reason)], value);
        }
    }
}

fn drops(link: &LinkReport) -> [(&'static str, &'static str, u64); 9] {
    let (sent, received) = (&link.counters.sent.dropped, &link.counters.received.dropped);
    [
        ("sent", "expired", sent.expired),
        ("sent", "overflow", sent.overflow),
        ("sent", "refused", sent.refused),
        ("sent", "oversize", sent.oversize),
        ("sent", "disconnected", sent.disconnected),
        ("received", "not_wanted", received.not_wanted),
        ("received", "disabled", received.disabled),
        ("received", "no_route", received.no_route),
        ("received", "duplicate", received.duplicate),
    ]
}

/// A page of metrics that is being written.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    family: String,
}

impl Page {
    /// The page so far.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Begins a family; the samples that follow belong to it.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.family = name.to_owned();
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// Writes one sample of the family.
    pub fn sample(&mut self, labels: &[(&str, &dyn Display)], value: u64) {
        let labels: Vec<_> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let family = std::mem::take(&mut self.family);
        self.write(format_args!("{family}{labels} {value}\n"));
        self.family = family;
    }

    fn levels(&mut self, levels: &[(&str, &str, u64)]) {
        for (name, help, value) in levels {
            self.family(name, "gauge", help);
            self.sample(&[], *value);
        }
    }

    fn by_reason(&mut self, values: &[(&'static str, u64)]) {
        for (reason, value) in values {
            self.sample(&[("reason", reason)], *value);
        }
    }

    fn write(&mut self, what: std::fmt::Arguments<'_>) {
        self.text.write_fmt(what).expect("a String takes all text");
    }
}

fn escape(label: &dyn Display) -> String {
    label.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

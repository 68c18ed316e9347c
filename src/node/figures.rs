//! What a node counts, as metrics and as `$SYS` topics.
//!
//! `$SYS/broker/…` is the node that a client is connected to: each of a cluster's nodes has its own. The values are retained,
//! looked at as often as the settings say, and published where they changed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::settings::inventory::Figures;

/// What the broker counted, by name: a counter that is new there is wanted here.
pub(super) fn figures(broker: &Broker) -> Figures {
    let (counters, levels) = (broker.counters(), broker.levels());
    let dropped = vec![
        ("slow", counters.dropped_slow),
        ("queue_full", counters.dropped_queue_full),
        ("node_queue_full", counters.dropped_node_queue_full),
        ("oversize", counters.dropped_oversize),
        ("expired", counters.dropped_expired),
        ("not_authorized", counters.dropped_not_authorized),
        ("payload_format", counters.dropped_payload_format),
        ("retained_full", counters.dropped_retained_full),
        ("store_down", counters.dropped_store_down),
        ("shed_slow", counters.shed_slow),
        ("shed_queued", counters.shed_queued),
        ("shed_retained", counters.shed_retained),
    ];
    let (listeners, waiting) = broker.door_figures();
    Figures {
        received: counters.received,
        sent: counters.sent,
        dropped,
        opened: counters.opened,
        ended: counters.ended.iter().collect(),
        subscriptions_refused: vec![
            ("quota", counters.subscriptions_over_quota),
            ("not_authorized", counters.subscriptions_not_authorized),
            ("memory", counters.subscriptions_shed),
        ],
        queued: levels.queued as u64,
        queued_bytes: levels.queued_bytes as u64,
        in_flight: levels.in_flight as u64,
        logins_waiting: waiting as u64,
        listeners,
    }
}

/// The `$SYS` topics.
#[derive(Default)]
pub(super) struct System {
    born: Option<Instant>,
    last_at: Option<Instant>,
    last: HashMap<&'static str, String>,
}

impl System {
    /// Publishes what changed, when it is time; takes it all back when it no longer is to.
    pub(super) fn publish(&mut self, broker: &Broker, every_s: u16, now: Instant) {
        let every = Duration::from_secs(every_s.into());
        if every.is_zero() {
            self.last_at = None;
            let gone = self.last.drain().map(|(topic, _)| topic);
            return gone
                .for_each(|topic| broker.with_core(|core| core.publish_own(topic, String::new(), now)));
        }
        if self.last_at.is_some_and(|at| now < at + every) {
            return;
        }
        self.last_at = Some(now);
        let uptime = now.duration_since(*self.born.get_or_insert(now));
        for (topic, value) in values(broker, uptime) {
            if self.last.get(topic) != Some(&value) {
                broker.with_core(|core| core.publish_own(topic, value.clone(), now));
                self.last.insert(topic, value);
            }
        }
    }
}

fn values(broker: &Broker, uptime: Duration) -> [(&'static str, String); 9] {
    let (levels, figures) = (broker.levels(), figures(broker));
    let dropped: u64 = figures.dropped.iter().map(|(_, count)| count).sum();
    [
        ("$SYS/broker/version", format!("mqlink {}", env!("CARGO_PKG_VERSION"))),
        ("$SYS/broker/uptime", format!("{} seconds", uptime.as_secs())),
        ("$SYS/broker/clients/connected", levels.connections.to_string()),
        ("$SYS/broker/clients/total", levels.sessions.to_string()),
        ("$SYS/broker/subscriptions/count", levels.subscriptions.to_string()),
        ("$SYS/broker/retained messages/count", levels.retained.to_string()),
        ("$SYS/broker/publish/messages/received", figures.received.to_string()),
        ("$SYS/broker/publish/messages/sent", figures.sent.to_string()),
        ("$SYS/broker/publish/messages/dropped", dropped.to_string()),
    ]
}

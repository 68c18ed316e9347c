//! What a node counts, as metrics and as `$SYS` topics.
//!
//! `$SYS/broker/…` is the node that a client is connected to: each of a cluster's nodes has its own. The values are retained,
//! looked at every [`EVERY`], and published where they changed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::broker::core::Counters;
use crate::settings::inventory::Figures;

/// The time between two looks.
const EVERY: Duration = Duration::from_secs(10);

/// What the broker counted, by name: a counter that is new there is wanted here.
pub(super) fn figures(counters: &Counters) -> Figures {
    let dropped = vec![
        ("slow", counters.dropped_slow),
        ("queue_full", counters.dropped_queue_full),
        ("oversize", counters.dropped_oversize),
        ("expired", counters.dropped_expired),
        ("not_authorized", counters.dropped_not_authorized),
        ("payload_format", counters.dropped_payload_format),
        ("retained_full", counters.dropped_retained_full),
        ("store_down", counters.dropped_store_down),
        ("shed_slow", counters.shed_slow),
        ("shed_queued", counters.shed_queued),
        ("shed_new", counters.shed_new),
    ];
    Figures { received: counters.received, sent: counters.sent, dropped }
}

/// The `$SYS` topics.
#[derive(Default)]
pub(super) struct System {
    born: Option<Instant>,
    due: Option<Instant>,
    last: HashMap<&'static str, String>,
}

impl System {
    /// Publishes what changed, when it is time.
    pub(super) fn publish(&mut self, broker: &Broker, now: Instant) {
        if self.due.is_some_and(|due| now < due) {
            return;
        }
        self.due = Some(now + EVERY);
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
    let (levels, figures) = (broker.levels(), figures(&broker.counters()));
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

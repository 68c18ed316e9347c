//! What the operator says of itself, to the kubelet and to scrapers: `/livez`, `/readyz`, `/metrics`, in plain HTTP.
//!
//! - `/livez`: it answers. Loop and answers share one thread, so a loop that stands still does not answer.
//! - `/readyz`: it operates, or waits until another one no longer does. It is not ready while there is no API server or no
//!   definition when it starts, or no Lease to be had.
//! - `/metrics`: counts. Labels are kinds, never names.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::events::Tally;
use crate::admin::{Page, serve_open};

/// What the operator counts, shared between the loop and who asks.
#[derive(Clone, Debug, Default)]
pub struct Vitals(Arc<Counts>);

/// How far the operator has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// It looks for the API server and the definitions.
    #[default]
    Begins,
    /// It cannot have the Lease, nor does it see who has it.
    Waits,
    /// Another operator has the Lease.
    StandsBy,
    /// It waits for the watches to tell their lists.
    Learns,
    /// It decides.
    Operates,
}

#[derive(Debug, Default)]
struct Counts {
    phase: Mutex<Phase>,
    /// By kind, and whether they were done.
    writes: Mutex<BTreeMap<(&'static str, bool), u64>>,
    /// By kind.
    objects: Mutex<BTreeMap<&'static str, u64>>,
    decisions: AtomicU64,
    deciding_us: AtomicU64,
    interruptions: AtomicU64,
    leads: AtomicU64,
    events: Arc<Tally>,
}

impl Vitals {
    /// Answers on a port until dropped.
    pub async fn serve(self, listener: TcpListener) -> Infallible {
        let routes = Router::new()
            .route("/livez", get(get_livez))
            .route("/readyz", get(get_readyz))
            .route("/metrics", get(get_metrics))
            .with_state(self);
        serve_open(listener, routes).await
    }

    /// Whether it leads.
    #[cfg(test)]
    pub(super) fn leads(&self) -> bool {
        matches!(self.phase(), Phase::Learns | Phase::Operates)
    }

    pub(super) fn enter(&self, phase: Phase) {
        *self.0.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        if phase == Phase::Learns {
            self.0.leads.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn decided(&self, took: Duration) {
        self.0.decisions.fetch_add(1, Relaxed);
        self.0.deciding_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn wrote(&self, kind: &'static str, is_done: bool) {
        let mut writes = self.0.writes.lock().unwrap_or_else(PoisonError::into_inner);
        *writes.entry((kind, is_done)).or_default() += 1;
    }

    pub(super) fn holds(&self, kind: &'static str, count: usize) {
        let mut objects = self.0.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.insert(kind, u64::try_from(count).unwrap_or(u64::MAX));
    }

    pub(super) fn interrupted(&self) {
        self.0.interruptions.fetch_add(1, Relaxed);
    }

    pub(super) fn events(&self) -> Arc<Tally> {
        Arc::clone(&self.0.events)
    }

    fn phase(&self) -> Phase {
        *self.0.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readiness(&self) -> Response {
        match self.phase() {
            Phase::Begins => {
                let why = "the API server, or the definitions of what to operate, are not there yet\n";
                (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
            }
            Phase::Waits => {
                let why = "the Lease cannot be had, and nobody is seen to hold it; the log says why\n";
                (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
            }
            Phase::StandsBy => "ok: another operator leads\n".into_response(),
            Phase::Learns => "ok: leads, and lists what is there\n".into_response(),
            Phase::Operates => "ok: leads\n".into_response(),
        }
    }

    fn render(&self) -> String {
        let counts = &*self.0;
        let mut page = Page::default();
        page.family("mqlink_operator_info", "gauge", "The operator's version.");
        page.sample(&[("version", &env!("CARGO_PKG_VERSION"))], 1);
        let leads = matches!(self.phase(), Phase::Learns | Phase::Operates);
        let singles = [
            ("mqlink_operator_leads", "gauge", "Whether this operator has the Lease.", u64::from(leads)),
            (
                "mqlink_operator_terms_total",
                "counter",
                "Times that it began to lead.",
                counts.leads.load(Relaxed),
            ),
            ("mqlink_operator_decisions_total", "counter", "Decisions made.", counts.decisions.load(Relaxed)),
            (
                "mqlink_operator_deciding_microseconds_total",
                "counter",
                "Time spent in decisions.",
                counts.deciding_us.load(Relaxed),
            ),
            (
                "mqlink_operator_watch_interruptions_total",
                "counter",
                "Watches that began again.",
                counts.interruptions.load(Relaxed),
            ),
            ("mqlink_operator_events_total", "counter", "Events told.", counts.events.told.load(Relaxed)),
            (
                "mqlink_operator_events_lost_total",
                "counter",
                "Events that were too many, or could not be told.",
                counts.events.lost.load(Relaxed),
            ),
        ];
        for (name, type_, help, value) in singles {
            page.family(name, type_, help);
            page.sample(&[], value);
        }
        page.family("mqlink_operator_objects", "gauge", "Objects that are operated.");
        for (kind, count) in &*counts.objects.lock().unwrap_or_else(PoisonError::into_inner) {
            page.sample(&[("kind", kind)], *count);
        }
        page.family("mqlink_operator_writes_total", "counter", "Writes, by kind and how they ended.");
        for ((kind, is_done), count) in &*counts.writes.lock().unwrap_or_else(PoisonError::into_inner) {
            let result = if *is_done { "done" } else { "failed" };
            page.sample(&[("kind", kind), ("result", &result)], *count);
        }
        page.into_text()
    }
}

async fn get_livez() -> &'static str {
    "ok\n"
}

async fn get_readyz(State(vitals): State<Vitals>) -> Response {
    vitals.readiness()
}

async fn get_metrics(State(vitals): State<Vitals>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], vitals.render()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_ready_when_it_leads_or_stands_by() {
        let vitals = Vitals::default();
        assert_eq!(vitals.readiness().status(), StatusCode::SERVICE_UNAVAILABLE);
        vitals.enter(Phase::Waits);
        assert_eq!(vitals.readiness().status(), StatusCode::SERVICE_UNAVAILABLE);
        for phase in [Phase::StandsBy, Phase::Learns, Phase::Operates] {
            vitals.enter(phase);
            assert_eq!(vitals.readiness().status(), StatusCode::OK, "{phase:?}");
        }
    }

    #[test]
    fn counts_are_told() {
        let vitals = Vitals::default();
        vitals.enter(Phase::Learns);
        vitals.wrote("Secret", true);
        vitals.wrote("Secret", true);
        vitals.wrote("Service", false);
        vitals.holds("ClusterLink", 7);
        vitals.decided(Duration::from_millis(3));
        let page = vitals.render();
        for line in [
            "mqlink_operator_leads 1",
            "mqlink_operator_objects{kind=\"ClusterLink\"} 7",
            "mqlink_operator_writes_total{kind=\"Secret\",result=\"done\"} 2",
            "mqlink_operator_writes_total{kind=\"Service\",result=\"failed\"} 1",
            "mqlink_operator_deciding_microseconds_total 3000",
        ] {
            assert!(page.lines().any(|it| it == line), "no {line} in\n{page}");
        }
    }
}

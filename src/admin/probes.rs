//! What the kubelet and a scraper ask, in plain HTTP, open to everybody who reaches the port: nothing else may ever be served here.
//!
//! - `/livez`: the broker's thread turns.
//! - `/readyz`: settings are loaded, all listeners came up, and the node does not drain. Once ready, a node stays so until it
//!   drains: a mistake in settings that are pushed later must not take all pods of a cluster out of their Services at once; it shows
//!   in the status. What links do never counts.
//! - `/metrics`: numbers of the node and its links, without names of topics, clients or users.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::crowd::Crowd;
use super::{http, metrics};
use crate::settings::inventory::Figures;
use crate::settings::report::NodeReport;

/// The broker's thread turns each second; silent for so long it does not come back.
const STILL_MAX: Duration = Duration::from_secs(30);
/// Connections at a time. Beyond that the oldest gives way.
const CONNECTIONS_MAX: usize = 64;
/// The life of a connection: probes are short.
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// The pause after a failure to accept: out of file descriptors, most likely.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// What a node says of itself beside its report.
#[derive(Debug)]
pub struct Vitals {
    born: Instant,
    still_max: Duration,
    /// Of the last turn, since birth.
    turned_ms: AtomicU64,
    drains: AtomicBool,
    figures: Mutex<Figures>,
}

impl Vitals {
    /// Those of a node that starts.
    pub fn new() -> Self {
        Self::within(STILL_MAX)
    }

    /// Those of a node whose broker's thread may be silent for so long.
    pub fn within(still_max: Duration) -> Self {
        Self {
            born: Instant::now(),
            still_max,
            turned_ms: AtomicU64::new(0),
            drains: AtomicBool::new(false),
            figures: Mutex::default(),
        }
    }

    /// The broker's thread turned.
    pub fn turn(&self) {
        self.turned_ms.store(self.age_ms(), Relaxed);
    }

    /// The node counted.
    pub fn count(&self, figures: Figures) {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }

    fn figures(&self) -> Figures {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The node is about to end, or takes no more clients.
    pub fn drain(&self) {
        self.drains.store(true, Relaxed);
    }

    /// Why the node should be started again, if so; while it drains the broker's thread need not turn.
    fn check_alive(&self) -> Result<(), String> {
        let still = Duration::from_millis(self.age_ms().saturating_sub(self.turned_ms.load(Relaxed)));
        match self.drains.load(Relaxed) || still <= self.still_max {
            true => Ok(()),
            false => Err(format!("the broker's thread stands for {} s", still.as_secs())),
        }
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Default for Vitals {
    fn default() -> Self {
        Self::new()
    }
}

/// Serves the probes until dropped.
pub async fn serve_probes(
    listener: TcpListener,
    reports: watch::Receiver<Arc<NodeReport>>,
    vitals: Arc<Vitals>,
) -> Infallible {
    let node = Node { reports, vitals, was_ready: Arc::new(AtomicBool::new(false)) };
    let routes = Router::new()
        .route("/livez", get(get_livez))
        .route("/readyz", get(get_readyz))
        .route("/metrics", get(get_metrics))
        .with_state(node);
    serve_open(listener, routes).await
}

/// Serves what everybody may ask until dropped: a bounded number of short connections.
pub async fn serve_open(listener: TcpListener, routes: Router) -> Infallible {
    let mut connections = Crowd::new(CONNECTIONS_MAX);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => connections.admit(timeout(CONNECTION_MAX, http::serve(tcp, routes.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "the port for probes failed to accept");
                    sleep(EXHAUSTED).await;
                }
            },
            Some(_) = connections.next() => {}
        }
    }
}

#[derive(Clone)]
struct Node {
    reports: watch::Receiver<Arc<NodeReport>>,
    vitals: Arc<Vitals>,
    was_ready: Arc<AtomicBool>,
}

async fn get_livez(State(node): State<Node>) -> Response {
    answer(node.vitals.check_alive())
}

async fn get_readyz(State(node): State<Node>) -> Response {
    let drains = node.vitals.drains.load(Relaxed);
    let checked = check_ready(&node.reports.borrow(), drains, node.was_ready.load(Relaxed));
    node.was_ready.fetch_or(checked.is_ok(), Relaxed);
    answer(checked)
}

async fn get_metrics(State(node): State<Node>) -> Response {
    metrics_page(&node.reports, &node.vitals)
}

/// What a scraper reads.
pub(super) fn metrics_page(reports: &watch::Receiver<Arc<NodeReport>>, vitals: &Vitals) -> Response {
    let uptime_s = vitals.born.elapsed().as_secs();
    let text = metrics::render(&reports.borrow(), &vitals.figures(), uptime_s);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn answer(checked: Result<(), String>) -> Response {
    match checked {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response(),
    }
}

/// Why a node should get no clients, if so.
pub(super) fn check_ready(report: &NodeReport, drains: bool, was_ready: bool) -> Result<(), String> {
    if drains {
        return Err("the node drains".to_owned());
    }
    if was_ready {
        return Ok(());
    }
    if report.settings_hash.is_empty() {
        return Err("no settings are loaded yet".to_owned());
    }
    let closed =
        report.listeners.iter().find_map(|listener| Some((&listener.name, listener.error.as_ref()?)));
    match closed {
        Some((name, error)) => Err(format!("listener {name}: {error}")),
        None => Ok(()),
    }
}

//! The node's side of the protocol.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use http_body_util::channel::{Channel, Sender};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::crowd::Crowd;
use super::probes::{Vitals, metrics_page};
use super::{DOCUMENT_BYTES_MAX, Question, SUBSCRIBERS_MAX, StatusLine};
use crate::settings::report::NodeReport;

/// What the protocol asks of the node.
#[derive(Debug)]
pub enum Command {
    /// Run on this JSON document from now on, and answer what came of it.
    Apply(Bytes, oneshot::Sender<Result<Applied, String>>),
    /// Put a report of this moment into the watch channel, then answer.
    Refresh(oneshot::Sender<()>),
    /// Answer a question with a JSON object, or say why not.
    Ask(Question, oneshot::Sender<Result<Value, String>>),
}

/// What a node answers to settings that it took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// The hash of what it runs now.
    pub settings_hash: String,
    /// Paths of the fields that it does not know.
    pub unknown_fields: Vec<String>,
}

#[derive(Clone)]
struct Node {
    reports: watch::Receiver<Arc<NodeReport>>,
    commands: mpsc::Sender<Command>,
    subscribers: Arc<Mutex<Crowd<()>>>,
    vitals: Arc<Vitals>,
    beat: Duration,
}

/// What the protocol answers, whoever asks; a door decides who may.
#[derive(Clone)]
pub struct Routes(pub(super) Router);

/// The protocol of one node, for all its doors together; streams end when `reports` closes.
///
/// `beat` is [`BEAT`](super::BEAT) but in tests.
pub fn routes(
    reports: watch::Receiver<Arc<NodeReport>>,
    commands: mpsc::Sender<Command>,
    vitals: Arc<Vitals>,
    beat: Duration,
) -> Routes {
    let subscribers = Arc::new(Mutex::new(Crowd::new(SUBSCRIBERS_MAX)));
    let node = Node { reports, commands, subscribers, vitals, beat };
    let routes = Router::new()
        .route("/v1/settings", put(put_settings))
        .route("/v1/status", get(get_status))
        .route("/v1/healthz", get(get_healthz))
        .route("/v1/metrics", get(get_metrics))
        .route("/v1/ask", post(post_ask))
        .layer(DefaultBodyLimit::max(DOCUMENT_BYTES_MAX))
        .with_state(node);
    Routes(routes)
}

/// Serves the protocol to who may open the socket, until `stop` resolves or the listener fails.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: UnixListener,
    routes: Routes,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, routes.0).with_graceful_shutdown(stop).await
}

async fn put_settings(State(node): State<Node>, document: Bytes) -> Response {
    let (reply, answer) = oneshot::channel();
    if node.commands.send(Command::Apply(document, reply)).await.is_err() {
        return stopping();
    }
    match answer.await {
        Ok(Ok(applied)) => Json(applied).into_response(),
        Ok(Err(error)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, error),
        Err(_) => stopping(),
    }
}

async fn post_ask(State(node): State<Node>, question: Bytes) -> Response {
    let question = match serde_json::from_slice(&question) {
        Ok(question) => question,
        Err(error) => {
            let error = format!("this is no question: {error}; docs/admin.md lists them");
            return refuse(StatusCode::BAD_REQUEST, error);
        }
    };
    let (reply, answer) = oneshot::channel();
    if node.commands.send(Command::Ask(question, reply)).await.is_err() {
        return stopping();
    }
    match answer.await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(error)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, error),
        Err(_) => stopping(),
    }
}

async fn get_metrics(State(node): State<Node>) -> Response {
    metrics_page(&node.reports, &node.vitals)
}

async fn get_healthz(State(node): State<Node>) -> Response {
    let name = node.reports.borrow().node.clone();
    Json(serde_json::json!({ "node": name })).into_response()
}

async fn get_status(State(node): State<Node>) -> Response {
    let (reply, refreshed) = oneshot::channel();
    if node.commands.send(Command::Refresh(reply)).await.is_err() || refreshed.await.is_err() {
        return stopping();
    }
    let (lines, body) = Channel::<Bytes, Infallible>::new(1);
    let mut subscribers = node.subscribers.lock().expect("nobody panics while holding it");
    subscribers.forget_ended();
    subscribers.admit(stream(node.reports, node.beat, lines));
    drop(subscribers);
    ([("content-type", "application/x-ndjson")], Body::new(body)).into_response()
}

/// Sends lines until the subscriber is gone or the node stops.
async fn stream(mut reports: watch::Receiver<Arc<NodeReport>>, beat: Duration, mut lines: Sender<Bytes>) {
    let mut beats = 0;
    let mut beat = tokio::time::interval(beat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat.tick().await;
    let mut last = Arc::clone(&reports.borrow_and_update());
    let mut text = encode(&[StatusLine::Snapshot(Box::new(NodeReport::clone(&last)))]);
    loop {
        if !text.is_empty() && lines.send_data(text).await.is_err() {
            return;
        }
        text = tokio::select! {
            changed = reports.changed() => {
                if changed.is_err() {
                    return;
                }
                let next = Arc::clone(&reports.borrow_and_update());
                let text = encode(&StatusLine::between(&last, &next));
                last = next;
                text
            }
            _ = beat.tick() => {
                beats += 1;
                encode(&[StatusLine::Beat(beats)])
            }
        };
    }
}

fn encode(lines: &[StatusLine]) -> Bytes {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line).expect("a report holds nothing that JSON cannot");
        text.push(b'\n');
    }
    text.into()
}

fn stopping() -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping".to_owned())
}

pub(super) fn refuse(status: StatusCode, error: String) -> Response {
    (status, Json(serde_json::json!({ "error": error }))).into_response()
}

//! How a running `mqlink up` answers `mqlink status`: one JSON document on a Unix socket in its directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::timeout;

use super::home::Home;
use super::picture::{Picture, node_name};
use super::table;
use crate::admin::{BindError, Client, ClientError};
use crate::api::cluster::MqttClusterStatus;
use crate::api::link::ClusterLinkStatus;
use crate::settings::report::{LinkCounters, LinkReport, NodeReport};

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Everything that `mqlink up` knows, for programs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Whether everything is Ready.
    pub ready: bool,
    /// The tables, as a person reads them.
    pub table: String,
    /// The clusters.
    pub clusters: Vec<Cluster>,
    /// The links.
    pub links: Vec<Link>,
}

/// A cluster and its node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its status, as on Kubernetes.
    pub status: MqttClusterStatus,
    /// The node's name.
    pub node: String,
    /// The node's process, while it lives.
    pub pid: Option<u32>,
    /// Where the node serves the admin protocol.
    pub socket: Option<PathBuf>,
    /// What the node says.
    pub report: Option<NodeReport>,
}

/// A link and its halves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its status, as on Kubernetes.
    pub status: ClusterLinkStatus,
    /// What each cluster's node says of its half.
    pub halves: Vec<Half>,
}

/// One cluster's half of a link.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Half {
    /// The cluster, as `namespace/name`.
    pub cluster: String,
    /// What its node says, counters included.
    pub report: LinkReport,
}

impl Status {
    pub(super) fn of(picture: &Picture, now: Timestamp) -> Self {
        let clusters = picture.clusters.iter().map(|(key, status)| {
            let seen = picture.nodes.get(key).cloned().unwrap_or_default();
            Cluster {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                status: status.clone(),
                node: node_name(key),
                pid: seen.pid,
                socket: picture.sockets.get(key).cloned(),
                report: seen.report,
            }
        });
        let links = picture.links.iter().map(|(key, status)| {
            let half = |(cluster, report): (&crate::plan::Key, &LinkReport)| Half {
                cluster: cluster.to_string(),
                report: report.clone(),
            };
            Link {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                status: status.clone(),
                halves: picture.link_reports(key).map(half).collect(),
            }
        });
        Self {
            ready: table::all_ready(picture),
            table: table::render(picture, now),
            clusters: clusters.collect(),
            links: links.collect(),
        }
    }
}

impl Status {
    /// What each half of each link has sent and received since its node started, as a table.
    pub fn crossings(&self) -> String {
        let head = [
            "LINK",
            "HALF",
            "MATCHED",
            "ACKNOWLEDGED",
            "WAITING",
            "DROPPED",
            "RECEIVED",
            "DELIVERED",
            "DISCARDED",
        ];
        let mut rows = vec![table::row(head)];
        for (link, half) in
            self.links.iter().flat_map(|link| link.halves.iter().map(move |half| (link, half)))
        {
            let LinkCounters { sent, received, .. } = half.report.counters;
            let numbers = [
                sent.matched,
                sent.acknowledged,
                sent.queued + sent.in_flight,
                sent.dropped.total(),
                received.received,
                received.delivered,
                received.dropped.total(),
            ];
            let mut cells = vec![link.name.clone(), half.cluster.clone()];
            cells.extend(numbers.map(|number| number.to_string()));
            rows.push(cells);
        }
        table::align(&rows)
    }
}

/// Serves the latest status in the background, for as long as the process lives.
pub(super) fn serve(home: &Home, latest: watch::Receiver<Arc<Status>>) -> Result<(), BindError> {
    let listener: UnixListener = crate::admin::bind(&Home::status_socket(home.root()))?;
    let routes = Router::new().route("/v1/up", get(answer)).with_state(latest);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "failed to serve mqlink status");
        }
    });
    Ok(())
}

async fn answer(State(latest): State<watch::Receiver<Arc<Status>>>) -> axum::Json<Status> {
    let status = Arc::clone(&latest.borrow());
    axum::Json(Status::clone(&status))
}

/// Asks the `mqlink up` that uses a directory.
///
/// # Errors
/// When there is none, or it does not answer.
pub async fn ask(root: &Path) -> Result<Status, ClientError> {
    let client = Client::new(Home::status_socket(root));
    let silent = |_| Err(ClientError::Broken(format!("it is silent for {} s", ANSWER_MAX.as_secs())));
    timeout(ANSWER_MAX, client.get("/v1/up")).await.unwrap_or_else(silent)
}

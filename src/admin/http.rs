//! HTTP on one accepted connection, with bounds.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};

/// How long a client may take to say what it wants.
const HEADER_MAX: Duration = Duration::from_secs(5);
/// How many header lines a request may have; ours have three, the kubelet's as many.
const HEADERS_MAX: usize = 32;

/// Serves the routes until the connection ends.
pub(super) async fn serve(io: impl AsyncRead + AsyncWrite + Unpin, routes: Router) {
    let done = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(routes))
        .await;
    if let Err(error) = done {
        tracing::debug!(%error, "a connection to the admin protocol or the probes broke");
    }
}

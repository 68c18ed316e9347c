//! The protocol over TLS: who may speak it, and for how long.
//!
//! A handshake needs a client certificate of a trusted authority; then its one URI must be the operator's. Everybody else who
//! comes so far is told with 403 what is wrong, whatever was asked, and nothing of the request reaches the node.
//!
//! A connection lives no longer than the certificate that opened it, and ends when other authorities are trusted than then:
//! who is still welcome comes back at once.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, sleep, timeout};
use tokio_rustls::server::TlsStream;

use super::crowd::Crowd;
use super::http;
use super::server::{Routes, refuse};
use super::socket::notice_vanished;
use super::trust::{Material, Trust};
use crate::pki::{Inspection, Role, inspect_der};

/// How long a socket may take until it is known who it is; also, how long a refusal may take to be read.
const GREETING_MAX: Duration = Duration::from_secs(5);
/// Sockets of which is not known yet who they are. Beyond that the oldest gives way.
const GREETINGS_MAX: usize = 128;
/// Connections of the operator: its streams and requests. Beyond that the oldest gives way.
const CONNECTIONS_MAX: usize = 64;
/// The pause after a failure to accept: out of file descriptors, most likely.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Serves the protocol over TLS until dropped; looks after the certificates' files each `look`.
pub async fn serve_tls(listener: TcpListener, mut trust: Trust, routes: Routes, look: Duration) {
    let mut greetings = Crowd::new(GREETINGS_MAX);
    let mut connections = Crowd::new(CONNECTIONS_MAX);
    let mut looks = tokio::time::interval(look);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => greetings.admit(timeout(GREETING_MAX, greet(tcp, trust.watch()))),
                Err(error) => {
                    tracing::warn!(%error, "the admin port failed to accept");
                    sleep(EXHAUSTED).await;
                }
            },
            Some(greeted) = greetings.next() => {
                if let Ok(Ok(Some(operator))) = greeted {
                    connections.admit(operator.serve(routes.0.clone()));
                }
            }
            Some(_) = connections.next() => {}
            _ = looks.tick() => trust.look(),
        }
    }
}

/// A connection that may do everything.
struct Operator {
    stream: TlsStream<TcpStream>,
    /// For as long as its certificate is good.
    life: Duration,
    /// What let it in, and what would now.
    admitted_by: Arc<Material>,
    trust: watch::Receiver<Arc<Material>>,
}

/// Finds out who somebody is; who is not the operator is told so.
async fn greet(tcp: TcpStream, trust: watch::Receiver<Arc<Material>>) -> Option<Operator> {
    if let Err(error) = notice_vanished(&tcp) {
        tracing::debug!(%error, "a socket that vanishes is not noticed");
    }
    let material = Arc::clone(&trust.borrow());
    let stream = match material.acceptor.accept(tcp).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "refused a handshake on the admin port");
            return None;
        }
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let shown = shown.and_then(|certificate| inspect_der(certificate).ok())?;
    match check_role(&shown) {
        Ok(()) => {
            let life = Duration::try_from(shown.not_after.duration_since(Timestamp::now())).ok()?;
            Some(Operator { stream, life, admitted_by: material, trust })
        }
        Err(why) => {
            tracing::warn!(why, "refused a client of the admin port");
            http::serve(stream, Router::new().fallback(|| async { refuse(StatusCode::FORBIDDEN, why) }))
                .await;
            None
        }
    }
}

/// Why the holder of a certificate may not manage a node, if so.
fn check_role(shown: &Inspection) -> Result<(), String> {
    let wanted = Role::Operator;
    match shown.role() {
        Some(role) if role == wanted => Ok(()),
        Some(role) => Err(format!("this certificate is for {role}; only {wanted} may manage a node")),
        None => {
            Err(format!("this certificate states no role; its one URI must be {wanted} to manage a node"))
        }
    }
}

impl Operator {
    async fn serve(self, routes: Router) {
        let Self { stream, life, admitted_by, mut trust } = self;
        tokio::select! {
            () = http::serve(stream, routes) => {}
            () = sleep(life) => tracing::debug!("a connection ends with its certificate"),
            // It resolves with an error when the port closes, which ends the connection as well.
            _ = trust.wait_for(|now| !now.trusts_as(&admitted_by)) => {
                tracing::debug!("a connection ends as other authorities are trusted");
            }
        }
    }
}

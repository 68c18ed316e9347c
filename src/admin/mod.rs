//! The admin protocol: settings in, status stream out, between a node and who manages it.
//!
//! HTTP/1.1. `PUT /v1/settings` replaces the settings document (200: applied; 422: refused, with the reason in
//! `error`; what ran before runs on). `GET /v1/status` streams JSON lines: a snapshot, then what changes, and a beat
//! every [`BEAT`], so that silence means that nobody is there. `GET /v1/healthz` answers while the process serves,
//! `GET /v1/metrics` with what a scraper reads, and `POST /v1/ask` [questions](Question): who is connected, and the like.
//!
//! [`routes`] is the node's side, [`Client`] the manager's. Between them is a door: a Unix socket ([`serve`]), or a port with TLS
//! in pods ([`serve_tls`]). Neither side knows what a broker is: the node gives [`routes`] the latest report in a watch
//! channel and takes [`Command`]s. [`serve_probes`] is apart: what everybody may know, on a port of its own.
//!
//! Invariants:
//! - A slow subscriber costs one report: it gets the difference between what it last got and what is now, never a backlog.
//! - At most [`SUBSCRIBERS_MAX`] subscribers, of whom the oldest gives way; a peer that vanished is noticed within seconds;
//!   documents of at most [`DOCUMENT_BYTES_MAX`], one change of settings at a time.
//! - Who may open the socket may do everything: it is made with mode 0600 ([`bind`]). Over TLS, only the operator may do
//!   anything, by the role in its certificate; and the client shows itself to nobody but the node that it means.

mod line;
mod crowd;
mod http;
mod socket;
mod server;
mod trust;
mod listen;
mod metrics;
mod probes;
mod dial;
mod client;
mod ask;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use ask::{Done, Drain, Kick, Log, Question};
pub use client::{Client, ClientError, Patience, StatusStream};
pub use dial::{NodeName, Pass};
pub use line::StatusLine;
pub use listen::serve_tls;
pub use metrics::Page;
pub use probes::{Vitals, serve_open, serve_probes};
pub use server::{Applied, Command, Routes, routes, serve};
pub use socket::{BindError, bind, bind_tcp};
pub use trust::{Trust, TrustError};

/// The time between two beats of a status stream.
pub const BEAT: Duration = Duration::from_secs(5);

/// The time between two looks at the files that TLS stands on; the kubelet itself takes up to a minute to bring new ones.
pub const LOOK: Duration = Duration::from_secs(5);

/// Status streams served at a time; beyond that the oldest ends: who asked for it may have vanished without a word.
pub const SUBSCRIBERS_MAX: usize = 32;

/// How long a peer over TCP may leave unanswered what is sent to it: three beats.
const VANISHED: Duration = Duration::from_secs(15);

/// The largest settings document taken: three times what Kubernetes can hold of one cluster's users and links.
pub const DOCUMENT_BYTES_MAX: usize = 8 * 1_024 * 1_024;

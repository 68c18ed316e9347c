//! The admin protocol: settings in, status stream out, between a node and who manages it.
//!
//! HTTP/1.1, on a Unix socket. `PUT /v1/settings` replaces the settings document (200: applied; 422: refused, with the reason in
//! `error`; what ran before runs on). `GET /v1/status` streams JSON lines: a snapshot, then what changes, and a beat
//! every [`BEAT`], so that silence means that nobody is there. `GET /v1/healthz` answers while the process serves.
//!
//! [`serve`] is the node's side, [`Client`] the manager's. Neither knows what a broker is: the node gives [`serve`] the
//! latest report in a watch channel and takes [`Command`]s.
//!
//! Invariants:
//! - A slow subscriber costs one report: it gets the difference between what it last got and what is now, never a backlog.
//! - At most [`SUBSCRIBERS_MAX`] subscribers, documents of at most [`DOCUMENT_BYTES_MAX`], one change of settings at a time.
//! - Who may open the socket may do everything: it is made with mode 0600 ([`bind`]).

mod line;
mod socket;
mod server;
mod client;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use client::{Client, ClientError, StatusStream};
pub use line::StatusLine;
pub use server::{Applied, Command, serve};
pub use socket::{BindError, bind};

/// The time between two beats of a status stream.
pub const BEAT: Duration = Duration::from_secs(5);

/// Status streams served at a time.
pub const SUBSCRIBERS_MAX: usize = 32;

/// The largest settings document taken: three times what Kubernetes can hold of one cluster's users and links.
pub const DOCUMENT_BYTES_MAX: usize = 8 * 1_024 * 1_024;

//! The manifests without Kubernetes: `mqlink up`.
//!
//! [`up`] reads the very manifests that Kubernetes would get, makes the plan that the operator would make, and applies it to
//! processes: one `mqlink broker` child per cluster, on 127.0.0.1. It manages its nodes as the operator does, over the
//! admin protocol, and says of them what a status would say. `mqlink status` asks it.
//!
//! It knows nothing of brokers and links but their settings and reports, and nothing of Kubernetes but its manifests.
//!
//! Invariants: no child outlives this process, kill -9 included; a mistake in a manifest changes nothing that runs;
//! an edit restarts no node; what is secret is in files of mode 0600 in a directory of mode 0700.

pub mod manifest;
mod home;
mod ports;
mod child;
mod picture;
mod table;
mod screen;
mod status;
mod up;

pub use status::{Cluster, Half, Link, Status, ask};
pub(crate) use table::{align, plain};
pub use up::{Ended, Options, UpError, up};

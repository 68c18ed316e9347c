//! End to end: mqlink as `config/` installs it on a real Kubernetes, seen as a user sees it: kubectl, MQTT clients, conditions.
//!
//! Each test has a namespace of its own. Nothing sleeps: what is expected is awaited by a watch, or by the client that hears it.
//! A test that fails says where it left status, events and logs. Not part of `cargo test`: `make e2e` runs these, and
//! docs/e2e.md says how on a cluster of your own.

mod process;
mod scene;
mod report;
mod clients;

mod regions;
mod edits;
mod consent;
mod halves;
mod walls;
mod users;
mod doors;
mod pods;
mod nodes;
mod deletion;
mod quiet;
mod namespaces;
mod hostile;

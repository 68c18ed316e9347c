//! mqlink: linked MQTT clusters, on Kubernetes and without it.
//!
//! One idea at two scales: *interest goes out, matching messages come in*. The shards of a broker and the clusters of a
//! link each tell their peers which topic filters they want, and get only the messages that match.
//!
//! Read on in this order; imports run only upwards in this list (`tests/tidy` keeps that):
//!
//! - [`mqtt`]: packets, frames, topic filters. No sockets, no time.
//! - [`store`]: what must survive a restart, behind one small interface.
//! - [`settings`]: the document a broker runs on, and the report it answers with.
//! - [`pki`]: certificates, pure.
//! - [`broker`]: sessions, subscriptions, routing: a pure core, and the sockets around it.
//! - [`link`]: routes out, matching messages in: a pure state machine, and the transport around it.
//! - [`api`]: the custom resources `MqttCluster` and `ClusterLink`.
//! - [`plan`]: manifests and reports in; settings, credentials and conditions out. Pure.
//! - [`admin`]: settings in, status stream out, between a node and who manages it.
//! - [`node`]: one broker process: broker, links and admin, wired.
//! - [`local`]: the manifests without Kubernetes: `mqlink up`.
//! - [`operator`]: the manifests on Kubernetes: `mqlink operator`.
//! - [`mod@bench`]: the load generator, for any MQTT broker.
//! - [`cli`]: the commands.

pub mod mqtt;
pub mod store;
pub mod settings;
pub mod pki;
pub mod broker;
pub mod link;
pub mod api;
pub mod plan;
pub mod admin;
pub mod node;
pub mod local;
pub mod operator;
pub mod bench;
pub mod cli;
#[cfg(test)]
mod testing;

//! Links to other clusters: routes go out, matching messages come in.
//!
//! A [`machine::Link`] is one link as one node sees it: pure, no socket, no clock. It is made of four parts, none of
//! which knows the connection that carries it: [`route_sender`], [`route_receiver`], [`forwarder`] and [`acceptor`].
//! [`native`] is how two of our own clusters say it to each other (docs/link-protocol.md, byte by byte);
//! docs/link-dialects.md shows how another dialect maps onto the same parts. Around the machine lies `transport`:
//! the link listener, dialling, TLS, and the only tokio in this module.
//!
//! Of the broker it knows `broker::port` alone; of Kubernetes nothing.

pub mod violation;
pub mod refusal;
pub mod backoff;
pub mod digest;
pub mod filter_tree;
pub mod interest;
pub mod probe;
pub mod native;
pub mod route_sender;
pub mod route_receiver;
pub mod forwarder;
pub mod room;
pub mod acceptor;
pub mod gate;
pub mod machine;
pub mod transport;
#[cfg(test)]
mod simulation;

//! What tests of several modules share: a look at what is logged, and a real Kubernetes API server, started once per test process.
//!
//! It is no part of the program, and knows the custom resources but nothing of who reconciles them. A test that finds no
//! server at hand abstains.

mod log;
mod relay;
mod server;

pub(crate) use log::logged;
pub(crate) use relay::Relay;
pub(crate) use server::{Server, send, url};

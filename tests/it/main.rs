//! The built `mqlink` with real clients: what a user would see, by counts and generous bounds.
//!
//! Each case brings up its own brokers on free ports; nothing sleeps, everything waits for what it expects, and
//! what must *not* happen is shown by a marker that went the same way and arrived.

mod clients;
mod harness;
// The same server as in the library's own tests.
#[path = "../../src/testing/server.rs"]
#[expect(dead_code, reason = "the library's tests need more of it")]
mod server;
// And the same network.
#[path = "../../src/testing/relay.rs"]
mod relay;

use mqlink::api;

mod broker;
mod access;
mod doors;
mod scram;
mod kept;
mod disks;
mod link;
mod traffic;
mod death;
mod edits;
mod up;
mod settings;
mod pod;
mod cli;
mod admin;
mod leaving;
mod crowds;
mod bench;
mod image;
mod operator;

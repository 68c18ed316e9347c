//! The built `mqlink` with real clients: what a user would see, by counts and generous bounds.
//!
//! Each case brings up its own brokers on free ports; nothing sleeps, everything waits for what it expects, and
//! what must *not* happen is shown by a marker that went the same way and arrived.

mod clients;
mod harness;

mod broker;
mod access;
mod doors;
mod kept;
mod link;
mod traffic;
mod death;
mod edits;
mod up;
mod settings;
mod pod;
mod cli;
mod admin;
mod crowds;
mod image;

//! The codec's sources, compiled alone, so that fuzzing it does not build the rest of mqlink.
//!
//! `cargo fuzz run packet`, or without cargo-fuzz: `fuzz/run packet SECONDS`.

#[path = "../src/mqtt/mod.rs"]
pub mod mqtt;

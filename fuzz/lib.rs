//! The pure sources, compiled alone, so that fuzzing them does not build the rest of mqlink.
//!
//! `cargo fuzz run codec`, or without cargo-fuzz: `fuzz/run codec SECONDS`.

#[path = "../src/mqtt/mod.rs"]
pub mod mqtt;
#[path = "../src/store/mod.rs"]
pub mod store;
#[path = "../src/settings/mod.rs"]
pub mod settings;
#[path = "."]
pub mod broker {
    //! The broker without its sockets.
    #[path = "../src/broker/core/mod.rs"]
    pub mod core;
}

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
    #[path = "doors.rs"]
    pub mod doors;
    #[path = "../src/broker/proxy.rs"]
    mod proxy;
    #[path = "../src/broker/scram.rs"]
    #[expect(dead_code, reason = "passwords are not for fuzzing")]
    mod scram;
    #[path = "../src/broker/tokens.rs"]
    #[expect(dead_code, reason = "nor is what follows a login")]
    mod tokens;
    #[path = "../src/broker/websocket/mod.rs"]
    #[expect(dead_code, reason = "nor what the broker says of itself")]
    mod websocket;
}

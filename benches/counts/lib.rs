//! The pure parts of mqlink, as they are, without the rest.

#![allow(missing_docs, dead_code, reason = "it is mqlink's source, seen from another place")]

#[path = "../../src/mqtt/mod.rs"]
pub mod mqtt;
#[path = "../../src/settings/mod.rs"]
pub mod settings;
/// What the core knows of the store: names and changes, no disk.
#[path = "../../src/store"]
pub mod store {
    mod batch;
    mod op;
    mod partition;
    pub use batch::*;
    pub use op::*;
    pub use partition::*;
}
/// The broker's pure core.
#[path = "../../src/broker"]
pub mod broker {
    pub mod core;
}

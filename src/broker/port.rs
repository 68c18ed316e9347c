//! The one thing that links see of the broker: peers as recipients and origins, and what local subscribers want.
//!
//! The methods are on [`Core`]: `peer_open`, `peer_close`, `peer_route_add`, `peer_route_delete`, `peer_deliver`,
//! `interests` and `poll_port_event`.

pub use super::core::{Core, Interest, PeerId, PortEvent};

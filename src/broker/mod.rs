//! The broker: a pure [`core`] that knows MQTT, and the sockets, timers and passwords around it.

pub mod core;
pub mod port;

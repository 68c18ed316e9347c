//! `mqlink pub` and `mqlink sub`: a complete MQTT client, so that a newcomer needs no other.
//!
//! Built on rumqttc, on purpose not on our own codec: a second implementation at the other end of the wire. Its own TLS
//! feature drags in an old certificate library, so TLS runs in a bridge of ours ([`tls`]) and rumqttc speaks through it.
//! Option letters are those of the mosquitto clients where they mean the same.

mod args;
mod tls;
mod session;
mod format;
mod publish;
mod subscribe;
#[cfg(test)]
mod tests;

pub(super) use publish::PubArgs;
pub(super) use subscribe::SubArgs;

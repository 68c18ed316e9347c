//! An application message on its own, off the packet that brought it.

use super::{PropertiesBuf, Publish, QoS};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An application message: what is queued, retained, forwarded and delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// A valid Topic Name, never empty: aliases are resolved before.
    pub topic: Arc<str>,
    /// Whatever the publisher sent.
    pub payload: Bytes,
    /// The QoS it was published with.
    pub qos: QoS,
    /// The RETAIN flag it was published with.
    pub retain: bool,
    /// Forwardable ones only: no alias, no subscription identifiers, no expiry.
    pub properties: PropertiesBuf,
    /// When it stops being of use; the remaining time is sent along as Message Expiry Interval.
    pub expires_at: Option<Instant>,
}

impl Message {
    /// The message of a PUBLISH, copied; `topic` stands for the packet's, which may be an alias.
    pub fn from_publish(packet: &Publish<'_>, topic: Arc<str>, now: Instant) -> Message {
        let expiry = packet.properties.message_expiry_interval();
        Message {
            topic,
            payload: Bytes::copy_from_slice(packet.payload),
            qos: packet.qos,
            retain: packet.retain,
            properties: packet.properties.forwardable(),
            expires_at: expiry.and_then(|s| now.checked_add(Duration::from_secs(s.into()))),
        }
    }

    /// Tells whether the message is of no use any more.
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// The Message Expiry Interval to send along: what remains, in whole seconds, rounded up. [MQTT-3.3.2-6]
    pub fn expiry_s(&self, now: Instant) -> Option<u32> {
        let left = self.expires_at?.saturating_duration_since(now);
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        Some(u32::try_from(seconds).unwrap_or(u32::MAX))
    }
}

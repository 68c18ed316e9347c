//! What clients are told besides reason codes: reasons in words, and another server to go to.
//!
//! Words are for people who look at a client's log, so nothing depends on them: they are left out where a client does not
//! want them or has no room for them, and in 3.1.1, which has no place for them.

use std::time::Instant;

use super::{ConnectionId, Core, Fault};
use crate::mqtt::{Ack, Packet, PropertiesBuf, Property, QoS, ReasonCode, SubAck, Version};

/// What a reason string costs besides its text, at most: its id and length, and a property length.
const REASON_BYTES: usize = 3 + 4;

/// Where clients are sent to. [MQTT 5.0, 4.11]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The server or servers, as a client understands them: `host:port`, separated by spaces. None: the client knows.
    pub server: Option<String>,
    /// From now on, not only for now.
    pub is_permanent: bool,
}

impl Redirect {
    fn fault(&self) -> Fault {
        if self.is_permanent { Fault::ServerMoved } else { Fault::UseAnotherServer }
    }
}

impl Core {
    /// Sends clients elsewhere from now on, or no longer. Who is connected stays until [`Core::drain`].
    pub fn set_redirect(&mut self, redirect: Option<Redirect>) {
        self.redirect = redirect;
    }

    /// Ends up to `count` connections by a redirect. Returns how many are left.
    pub fn drain(&mut self, count: usize, now: Instant) -> usize {
        let fault = self.redirect.as_ref().map_or(Fault::ServerShuttingDown, Redirect::fault);
        let is_open = |id: &ConnectionId| self.wires.get(*id).is_some_and(|connection| connection.is_open());
        let open: Vec<_> = self.wires.ids().filter(is_open).collect();
        open.iter().take(count).for_each(|&id| self.close(id, fault, now));
        open.len().saturating_sub(count)
    }

    /// Refuses whoever comes while clients are sent elsewhere.
    pub(super) fn check_redirect(&self) -> Result<(), Fault> {
        self.redirect.as_ref().map_or(Ok(()), |redirect| Err(redirect.fault()))
    }

    /// The properties of the CONNACK or DISCONNECT that ends a connection. Their packet is `bare` bytes without.
    /// [MQTT-3.2.2-19] [MQTT-3.14.2-3]
    pub(super) fn farewell(&self, id: ConnectionId, fault: Fault, bare: usize) -> PropertiesBuf {
        let mut properties = PropertiesBuf::new();
        let Some(connection) = self.wires.get(id).filter(|connection| connection.version == Version::V5)
        else {
            return properties;
        };
        let mut room = connection.packet_bytes_max.saturating_sub(bare + REASON_BYTES);
        let is_redirect = matches!(fault, Fault::UseAnotherServer | Fault::ServerMoved);
        let server = self.redirect.as_ref().filter(|_| is_redirect).and_then(|to| to.server.as_deref());
        if let Some(server) = server.filter(|server| server.len() <= room) {
            properties.push(Property::ServerReference(server));
            room = room.saturating_sub(server.len() + REASON_BYTES);
        }
        let reason = fault.to_string();
        if reason.len() <= room {
            properties.push(Property::ReasonString(&reason));
        }
        properties
    }

    /// Why something was refused, for an answer of `bare` bytes. [MQTT-3.1.2-29] [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.9.2-1]
    fn reason_string(&self, id: ConnectionId, reason: ReasonCode, bare: usize) -> PropertiesBuf {
        let mut properties = PropertiesBuf::new();
        let connection = self.wires.get(id);
        let room = connection
            .filter(|connection| connection.version == Version::V5 && !connection.is_incurious)
            .map_or(0, |connection| connection.packet_bytes_max.saturating_sub(bare + REASON_BYTES));
        if let Some(text) = explain(reason).filter(|text| text.len() <= room) {
            properties.push(Property::ReasonString(text));
        }
        properties
    }

    /// Sends a PUBACK or PUBREC that refuses a message.
    pub(super) fn reply_refusal(&mut self, id: ConnectionId, ack: Ack, qos: QoS) {
        const BARE: usize = 5;
        let told = self.reason_string(id, ack.reason, BARE);
        // Five bytes: who takes fewer takes no PUBLISH, and sends none.
        let ack = Ack { properties: told.as_properties(), ..ack };
        let packet = if qos == QoS::ExactlyOnce { Packet::PubRec(ack) } else { Packet::PubAck(ack) };
        let _ = self.reply(id, &packet);
    }

    /// Sends a SUBACK, once what was changed since `before` is safe, and why the first filter that was refused was. [MQTT-3.8.4-1]
    pub(super) fn reply_suback(&mut self, id: ConnectionId, ack: SubAck, before: u64) -> Result<(), Fault> {
        const HEADER: usize = 7;
        let refused = ack.reasons.iter().filter_map(|&code| ReasonCode::from_u8(code));
        let told = match refused.into_iter().find(|reason| reason.is_error()) {
            Some(reason) => self.reason_string(id, reason, HEADER + ack.reasons.len()),
            None => PropertiesBuf::new(),
        };
        let ack = SubAck { properties: told.as_properties(), ..ack };
        self.reply_once_safe(id, &Packet::SubAck(ack), before)
    }
}

fn explain(reason: ReasonCode) -> Option<&'static str> {
    Some(match reason {
        ReasonCode::NotAuthorized => "not allowed: ask whoever runs the broker, or use another topic",
        ReasonCode::QuotaExceeded => "a limit of this broker is reached: use less, or have it raised",
        ReasonCode::TopicFilterInvalid => {
            "no filter that this broker takes: it may have 128 levels, and a shared one is $share/NAME/FILTER, NAME without + and #"
        }
        ReasonCode::PayloadFormatInvalid => {
            "the payload is not UTF-8, though its format indicator says so: leave the indicator out"
        }
        _ => return None,
    })
}

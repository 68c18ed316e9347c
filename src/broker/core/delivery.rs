//! Messages on their way out: encoded once per class, handed to as many recipients as there are.
//!
//! A class is (version, QoS, RETAIN). QoS 0 goes through buffers that are kept from message to message, so it costs no
//! allocation; QoS 1 and 2 need a frame that lives until the client answers, shared by all recipients of the class, and
//! its memory is used again. The class that a message came in is not even encoded.
//! Recipients with subscription identifiers get a frame of their own.

use std::sync::Arc;
use std::time::Instant;

use super::recipients::Grant;
use crate::mqtt::{
    Blocks, Frame, Limits, Message, Packet, PacketId, Properties, PropertiesBuf, Property, Publish, QoS,
    SharedFilter, Version, decode, encode_publish,
};

/// A message for one session, until it is answered for.
#[derive(Clone)]
pub(super) struct Delivery {
    pub(super) frame: Frame,
    pub(super) expires_at: Option<Instant>,
    /// The shared group that chose this session.
    pub(super) group: Option<Arc<SharedFilter>>,
}

/// A message on its way to several recipients.
pub(super) struct Outgoing<'a> {
    /// As it came in, without what must not be passed on.
    pub(super) publish: Publish<'a>,
    pub(super) expires_at: Option<Instant>,
    /// The packet that brought it and its version, if what must not be passed on was not in it: what goes out is the same, but
    /// for packet id, DUP and maybe RETAIN, and need not be encoded.
    pub(super) packet: Option<(Version, &'a [u8])>,
}

impl<'a> Outgoing<'a> {
    /// Where its topic ends in such a packet: at QoS 1 and 2 the packet id follows, in version 5 an empty list of properties.
    #[inline]
    pub(super) fn topic_end(&self, version: Version, packet: &[u8]) -> usize {
        let id = if self.publish.qos == QoS::AtMostOnce { 0 } else { 2 };
        packet.len() - self.publish.payload.len() - usize::from(version == Version::V5) - id
    }

    /// The packet that brought it, if one of this version and QoS did.
    #[inline]
    fn as_it_came(&self, version: Version, qos: QoS) -> Option<&'a [u8]> {
        let (came_in, packet) = self.packet?;
        (came_in == version && self.publish.qos == qos).then_some(packet)
    }
}

const CLASSES: usize = 4;

/// The encodings of the message at hand.
#[derive(Default)]
pub(super) struct Encoder {
    bytes: [Vec<u8>; CLASSES],
    is_encoded: [bool; CLASSES],
    /// By QoS and class; few are, and nearly always one.
    frames: Vec<((QoS, usize), Frame)>,
    /// The message is for one recipient: nobody asks for its frame again.
    is_for_one: bool,
    blocks: Blocks,
}

impl Encoder {
    /// Forgets the last message.
    #[inline]
    pub(super) fn begin(&mut self, is_for_one: bool) {
        self.is_for_one = is_for_one;
        self.is_encoded = [false; CLASSES];
        while let Some((_, frame)) = self.frames.pop() {
            self.blocks.take_back(frame);
        }
    }

    /// Has the memory of a message that its client answered for.
    #[inline]
    pub(super) fn take_back(&mut self, delivery: Delivery) {
        self.blocks.take_back(delivery.frame);
    }

    /// The message at QoS 0.
    #[inline]
    pub(super) fn bytes<'a>(
        &'a mut self,
        outgoing: &Outgoing<'a>,
        version: Version,
        retain: bool,
    ) -> &'a [u8] {
        if let Some(packet) = outgoing.as_it_came(version, QoS::AtMostOnce)
            && outgoing.publish.retain == retain
        {
            return packet;
        }
        let class = class(version, retain);
        if !self.is_encoded[class] {
            self.bytes[class].clear();
            encode_publish(&at(&outgoing.publish, QoS::AtMostOnce, retain), version, &mut self.bytes[class]);
            self.is_encoded[class] = true;
        }
        &self.bytes[class]
    }

    /// The message as a frame that can be kept.
    #[inline]
    pub(super) fn frame(
        &mut self,
        outgoing: &Outgoing,
        version: Version,
        qos: QoS,
        retain: bool,
        grant: &Grant,
    ) -> Frame {
        if let (Some(identifiers), Version::V5) = (&grant.identifiers, version) {
            return frame_with_identifiers(&at(&outgoing.publish, qos, retain), identifiers);
        }
        let name = (qos, class(version, retain));
        if let Some((_, frame)) = self.frames.iter().find(|(other, _)| *other == name) {
            return frame.clone();
        }
        let frame = match outgoing.as_it_came(version, qos) {
            Some(packet) => self.blocks.copy(packet, outgoing.topic_end(version, packet), retain),
            None => self.blocks.encode(&at(&outgoing.publish, qos, retain), version),
        };
        if !self.is_for_one {
            self.frames.push((name, frame.clone()));
        }
        frame
    }
}

fn class(version: Version, retain: bool) -> usize {
    usize::from(version == Version::V5) * 2 + usize::from(retain)
}

fn at<'a>(publish: &Publish<'a>, qos: QoS, retain: bool) -> Publish<'a> {
    Publish { dup: false, qos, retain, packet_id: None, ..*publish }
}

/// Encodes a message for a recipient that named its subscriptions. [MQTT-3.3.4-3]
fn frame_with_identifiers(publish: &Publish, identifiers: &[u32]) -> Frame {
    let mut properties = PropertiesBuf::default();
    publish.properties.iter().for_each(|property| properties.push(property));
    identifiers.iter().for_each(|&id| properties.push(Property::SubscriptionIdentifier(id)));
    Frame::publish(&Publish { properties: properties.as_properties(), ..*publish }, Version::V5)
}

/// Writes the properties that are passed on, with the expiry that is left. [MQTT-3.3.2-6]
pub(super) fn pass_on(properties: Properties, expiry_s: Option<u32>, into: &mut PropertiesBuf) {
    into.clear();
    if !properties.is_empty() {
        into.extend_from(properties.forwardable().as_properties());
    }
    if let Some(left) = expiry_s {
        into.push(Property::MessageExpiryInterval(left));
    }
}

/// Calls `then` with a kept message as the PUBLISH that it is now.
pub(super) fn with_outgoing<T>(message: &Message, now: Instant, then: impl FnOnce(&Outgoing) -> T) -> T {
    let mut properties = message.properties.clone();
    if let Some(left) = message.expiry_s(now) {
        properties.push(Property::MessageExpiryInterval(left));
    }
    let publish = Publish {
        dup: false,
        qos: message.qos,
        retain: message.retain,
        topic: &message.topic,
        packet_id: None,
        properties: properties.as_properties(),
        payload: &message.payload,
    };
    then(&Outgoing { publish, expires_at: message.expires_at, packet: None })
}

/// Reads a frame back and hands it on as a PUBLISH.
pub(super) fn with_publish<T>(frame: &Frame, version: Version, then: impl FnOnce(Publish) -> T) -> T {
    let mut bytes = Vec::with_capacity(frame.len());
    let id = (frame.qos() != QoS::AtMostOnce).then_some(PacketId::MIN);
    frame.append_to(&mut bytes, id, false);
    let limits = Limits { packet_bytes_max: usize::MAX, ..Limits::default() };
    match decode(&bytes, version, &limits) {
        Ok(Some((Packet::Publish(publish), _))) => then(publish),
        other => unreachable!("a frame that we encoded is a PUBLISH, not {other:?}"),
    }
}

impl Delivery {
    /// The same message with the expiry that is left; `None` if it is over.
    pub(super) fn aged(&self, version: Version, now: Instant) -> Option<Frame> {
        let Some(expires_at) = self.expires_at else { return Some(self.frame.clone()) };
        let left = expires_at.checked_duration_since(now).filter(|left| !left.is_zero())?;
        // Rounded up: what has time left is sent with at least one second of it.
        let left = u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        Some(with_publish(&self.frame, version, |publish| {
            let mut properties = PropertiesBuf::default();
            publish.properties.iter().for_each(|property| match property {
                Property::MessageExpiryInterval(_) => properties.push(Property::MessageExpiryInterval(left)),
                other => properties.push(other),
            });
            Frame::publish(&Publish { properties: properties.as_properties(), ..publish }, version)
        }))
    }

    /// Encodes the message again, for a client that came back with another version.
    pub(super) fn translate(&mut self, from: Version, to: Version) {
        if from != to {
            self.frame = with_publish(&self.frame, from, |publish| Frame::publish(&publish, to));
        }
    }
}

//! A session as one value: what another shard, another node or a later process needs to go on where this one stopped.
//!
//! Points in time become durations that are left; messages become PUBLISH packets of version 5, whatever the client
//! speaks. An import trusts nothing: what does not decode is refused as a whole.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::access::{Principal, Traits};
use super::delivery::{Delivery, with_publish};
use super::ring::Slot;
use super::session::{Session, Subscription, SubscriptionKey, Will};
use super::{Core, SessionId};
use crate::mqtt::{
    self, Frame, Message, Packet, PacketId, QoS, SharedFilter, Version, decode, parse_subscription,
};
use crate::store::Partition;

/// A session, off its broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedSession {
    /// Whose it is.
    pub client_id: String,
    /// The user whose it is; none: anyone's.
    #[serde(default)]
    pub owner: Option<String>,
    /// What rules go by besides; none: not known, until its client comes.
    #[serde(default)]
    pub traits: Option<Traits>,
    /// How long it outlives a connection, in seconds.
    pub expiry_s: u32,
    /// How long it still has, if nobody is connected.
    pub ends_in_ms: Option<u64>,
    /// What it is subscribed to.
    pub subscriptions: Vec<ExportedSubscription>,
    /// What its client has not answered, oldest first.
    pub in_flight: Vec<ExportedInFlight>,
    /// What waits behind that, oldest first.
    pub queue: Vec<ExportedMessage>,
    /// QoS 2 messages of its client that are not released.
    pub received: Vec<PacketId>,
    /// What is published when it ends or its will's delay is over.
    pub will: Option<ExportedWill>,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedSubscription {
    /// The filter as the client wrote it, `$share/…` included.
    pub filter: String,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Without the client's own messages.
    pub no_local: bool,
    /// RETAIN as published.
    pub retain_as_published: bool,
    /// The subscription identifier.
    pub identifier: Option<NonZeroU32>,
}

/// A message that was sent and not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedInFlight {
    /// The id it was sent with.
    pub packet_id: PacketId,
    /// The message; `None` when it is with the client and PUBREL was sent.
    pub message: Option<ExportedMessage>,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedMessage {
    /// A PUBLISH of version 5.
    pub packet: Vec<u8>,
    /// What is left of its life.
    pub expires_in_ms: Option<u64>,
    /// The shared subscription that chose this session, `$share/…`: if it ends, another member gets the message.
    #[serde(default)]
    pub shared: Option<String>,
}

/// A will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedWill {
    /// A PUBLISH of version 5.
    pub packet: Vec<u8>,
    /// Its delay.
    pub delay_s: u32,
    /// Its message's life, from its publication on.
    pub expiry_s: Option<u32>,
    /// When it is due, if nobody is connected.
    pub due_in_ms: Option<u64>,
}

/// An exported session that cannot be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// There is one already.
    #[error("the client id has a session here")]
    Exists,
    /// It holds something that is not valid.
    #[error("the exported session holds a packet or a filter that is not valid")]
    Invalid,
}

impl Core {
    /// The clients that have a session in this partition.
    pub fn clients_of(&self, partition: Partition) -> impl Iterator<Item = &str> {
        let home = move |session: &&Session| session.partition == partition;
        self.sessions.iter().map(|(_, session)| session).filter(home).map(|session| &*session.client_id)
    }

    /// Copies a session out.
    pub fn export_session(&self, client_id: &str, now: Instant) -> Option<ExportedSession> {
        let id = self.session_of(client_id)?;
        let session = &self.sessions[id as usize];
        let version = session.version;
        let in_flight = session.ring.iter().map(|(packet_id, slot)| ExportedInFlight {
            packet_id,
            message: match slot {
                Slot::Sent(delivery) => Some(export_message(delivery, version, now)),
                Slot::Released | Slot::Done => None,
            },
        });
        let mut received: Vec<_> = session.received.iter().flat_map(|all| all.iter().copied()).collect();
        received.sort_unstable();
        let mut subscriptions: Vec<_> = self.subscriptions_of(id).map(export_subscription).collect();
        subscriptions.sort_by(|a, b| a.filter.cmp(&b.filter));
        Some(ExportedSession {
            client_id: session.client_id.to_string(),
            owner: session.owner.as_deref().map(str::to_owned),
            traits: session.who.as_ref().map(|who| who.traits()),
            expiry_s: session.expiry_s,
            ends_in_ms: session.ends_at.map(|at| left_ms(at, now)),
            subscriptions,
            in_flight: in_flight.collect(),
            queue: session.queue.iter().map(|delivery| export_message(delivery, version, now)).collect(),
            received,
            will: session.will.as_ref().map(|will| export_will(will, session.will_at, now)),
        })
    }

    /// Takes a session in, as one that nobody is connected to.
    ///
    /// # Errors
    /// If there is one for the client id, or if anything in it is not valid; then nothing has changed.
    pub fn import_session(&mut self, exported: &ExportedSession, now: Instant) -> Result<(), ImportError> {
        if self.session_of(&exported.client_id).is_some() {
            return Err(ImportError::Exists);
        }
        let id = self.import_session_at(exported, (0, 0), now)?;
        self.note_session(id);
        Ok(())
    }

    /// As [`Core::import_session`], for one whose messages have ordinals: that of its oldest, and the one behind what is in
    /// flight. It takes the place of one that the client has already.
    pub(super) fn import_session_at(
        &mut self,
        exported: &ExportedSession,
        ordinals: (u64, u64),
        now: Instant,
    ) -> Result<SessionId, ImportError> {
        let parsed = Parsed::of(exported, now).ok_or(ImportError::Invalid)?;
        if let Some(older) = self.session_of(&exported.client_id) {
            self.remove_session(older);
        }
        let id = self.new_session(&exported.client_id.as_str().into(), Version::V5);
        self.fill(id, exported, parsed, ordinals, now);
        Ok(id)
    }

    fn fill(
        &mut self,
        id: SessionId,
        exported: &ExportedSession,
        parsed: Parsed,
        (head, next): (u64, u64),
        now: Instant,
    ) {
        self.sessions[id as usize].expiry_s = exported.expiry_s;
        for (key, subscription) in parsed.subscriptions {
            let is_new = self.subscription(id, &key).is_none();
            self.put_subscription(id, key, subscription, is_new);
        }
        let session = &mut self.sessions[id as usize];
        session.owner = exported.owner.as_deref().map(Into::into);
        let kept = |traits| Principal::kept(session.owner.clone(), session.client_id.clone(), traits);
        session.who = exported.traits.as_ref().map(kept).map(Rc::new);
        self.access.has_grants |= session.who.as_ref().is_some_and(|who| who.has_grants());
        let ends_in = exported.ends_in_ms.unwrap_or(u64::from(exported.expiry_s) * 1000);
        session.ends_at = now.checked_add(Duration::from_millis(ends_in));
        session.ring.begin_at(head);
        for (packet_id, delivery) in parsed.in_flight {
            session.ring.restore(packet_id, delivery.map_or(Slot::Released, Slot::Sent));
        }
        while session.ring.end() < next {
            session.ring.skip();
        }
        self.in_flight += session.ring.open();
        session.tail = session.ring.end();
        for delivery in parsed.queue {
            session.tail += u64::from(delivery.frame.qos() != QoS::AtMostOnce);
            session.enqueue(delivery);
        }
        if !exported.received.is_empty() {
            session.received = Some(Box::new(exported.received.iter().copied().collect()));
        }
        session.will = parsed.will.map(Box::new);
        let will_in_ms =
            exported.will.as_ref().map(|will| will.due_in_ms.unwrap_or(u64::from(will.delay_s) * 1000));
        session.will_at = will_in_ms.and_then(|ms| now.checked_add(Duration::from_millis(ms)));
        self.arm_session(id, now);
    }
}

/// What an import makes of a value before it changes anything.
struct Parsed {
    subscriptions: Vec<(SubscriptionKey, Subscription)>,
    /// Without a message: released.
    in_flight: Vec<(PacketId, Option<Delivery>)>,
    queue: Vec<Delivery>,
    will: Option<Will>,
}

/// The shared groups of a session's messages, by their text: each is kept once.
type Groups<'a> = HashMap<&'a str, Arc<SharedFilter>>;

impl Parsed {
    fn of(exported: &ExportedSession, now: Instant) -> Option<Parsed> {
        let mut ids = HashSet::new();
        if !exported.in_flight.iter().all(|one| ids.insert(one.packet_id)) {
            return None;
        }
        let will = match &exported.will {
            Some(will) => Some(import_will(will, now)?),
            None => None,
        };
        let mut groups = Groups::new();
        let in_flight = exported.in_flight.iter().map(|one| import_in_flight(one, &mut groups, now));
        let in_flight = in_flight.collect::<Option<_>>()?;
        let queue = exported.queue.iter().map(|message| import_message(message, &mut groups, now));
        let queue = queue.collect::<Option<_>>()?;
        let subscriptions = exported.subscriptions.iter().map(import_subscription).collect::<Option<_>>()?;
        Some(Parsed { subscriptions, in_flight, queue, will })
    }
}

fn export_subscription((key, how): (SubscriptionKey, Subscription)) -> ExportedSubscription {
    ExportedSubscription {
        filter: match key.shared() {
            Some(shared) => shared.to_string(),
            None => key.filter.as_str().to_owned(),
        },
        qos: how.qos as u8,
        no_local: how.no_local,
        retain_as_published: how.retain_as_published,
        identifier: how.identifier,
    }
}

fn export_message(delivery: &Delivery, version: Version, now: Instant) -> ExportedMessage {
    let frame = with_publish(&delivery.frame, version, |publish| Frame::publish(&publish, Version::V5));
    ExportedMessage {
        packet: bytes_of(&frame),
        expires_in_ms: delivery.expires_at.map(|at| left_ms(at, now)),
        shared: delivery.group.as_ref().map(|shared| shared.to_string()),
    }
}

fn import_subscription(exported: &ExportedSubscription) -> Option<(SubscriptionKey, Subscription)> {
    let (group, filter) = parse_subscription(&exported.filter).ok()?;
    let subscription = Subscription {
        qos: QoS::from_u8(exported.qos)?,
        no_local: exported.no_local,
        retain_as_published: exported.retain_as_published,
        identifier: exported.identifier,
    };
    Some((SubscriptionKey { filter, group }, subscription))
}

fn import_message<'a>(
    exported: &'a ExportedMessage,
    groups: &mut Groups<'a>,
    now: Instant,
) -> Option<Delivery> {
    let frame = read_packet(&exported.packet, |publish| Frame::publish(publish, Version::V5))?;
    let expires_at = exported.expires_in_ms.and_then(|ms| now.checked_add(Duration::from_millis(ms)));
    let group = match exported.shared.as_deref() {
        Some(text) => Some(import_group(text, groups)?),
        None => None,
    };
    Some(Delivery { frame, expires_at, group })
}

fn import_group<'a>(text: &'a str, groups: &mut Groups<'a>) -> Option<Arc<SharedFilter>> {
    if let Some(known) = groups.get(text) {
        return Some(Arc::clone(known));
    }
    let group = Arc::new(SharedFilter::parse(text).ok()?);
    groups.insert(text, Arc::clone(&group));
    Some(group)
}

fn import_in_flight<'a>(
    exported: &'a ExportedInFlight,
    groups: &mut Groups<'a>,
    now: Instant,
) -> Option<(PacketId, Option<Delivery>)> {
    let message = match &exported.message {
        Some(message) => Some(import_message(message, groups, now)?),
        None => None,
    };
    Some((exported.packet_id, message))
}

fn export_will(will: &Will, due: Option<Instant>, now: Instant) -> ExportedWill {
    let message = &will.message;
    let publish = mqtt::Publish {
        dup: false,
        qos: message.qos,
        retain: message.retain,
        topic: &message.topic,
        packet_id: None,
        properties: message.properties.as_properties(),
        payload: &message.payload,
    };
    ExportedWill {
        packet: bytes_of(&Frame::publish(&publish, Version::V5)),
        delay_s: will.delay_s,
        expiry_s: will.expiry_s,
        due_in_ms: due.map(|at| left_ms(at, now)),
    }
}

fn import_will(exported: &ExportedWill, now: Instant) -> Option<Will> {
    let message =
        read_packet(&exported.packet, |publish| Message::from_publish(publish, publish.topic.into(), now))?;
    Some(Will { message, delay_s: exported.delay_s, expiry_s: exported.expiry_s })
}

pub(super) fn bytes_of(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len());
    frame.append_to(&mut bytes, Some(PacketId::MIN), false);
    bytes
}

fn read_packet<T>(bytes: &[u8], then: impl FnOnce(&mqtt::Publish) -> T) -> Option<T> {
    match decode(bytes, Version::V5, &mqtt::Limits::default()) {
        Ok(Some((Packet::Publish(publish), length))) if length == bytes.len() => {
            (!publish.topic.is_empty()).then(|| then(&publish))
        }
        _ => None,
    }
}

fn left_ms(at: Instant, now: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX)
}

//! From what a store found to sessions and retained messages, at a start.
//!
//! A session comes back by the same value that takes it to another shard. Nobody is connected: who was when the broker went
//! has lost the connection now. Of a session that was connected, whatever was sent before that connection and as much as its
//! client takes may have been sent, and goes out as repetitions with the packet ids they had.

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::{Duration, Instant};

use super::records::{
    Answered, MessageRecord, ProgressRecord, SessionRecord, SubscriptionRecord, WillRecord,
};
use crate::broker::core::export::{
    ExportedInFlight, ExportedMessage, ExportedSession, ExportedSubscription, ExportedWill, bytes_of,
};
use crate::broker::core::ring::{self, id_of};
use crate::broker::core::{Core, ImportError};
use crate::mqtt::{self, Frame, Message, Packet, Version, decode};
use crate::store::{Op, StoredSession};

/// Something that was stored cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Its record is not one.
    #[error("its {0} cannot be read")]
    Unreadable(&'static str),
    /// The session's value is refused.
    #[error("the session of `{0}` cannot be taken in: {1}")]
    Refused(String, ImportError),
}

impl Core {
    /// Takes back a session that was stored, as one that nobody is connected to. Those of a partition come in the order of their
    /// numbers: of two that a client has, the first ended and the broker died before the store heard so.
    ///
    /// # Errors
    /// If it cannot be read; then nothing has changed, here or on disk.
    pub fn restore_session(&mut self, stored: &StoredSession, now: Instant) -> Result<(), RestoreError> {
        let record = SessionRecord::decode(&stored.session).ok_or(RestoreError::Unreadable("record"))?;
        let progress = match &stored.progress {
            Some(bytes) => ProgressRecord::decode(bytes).ok_or(RestoreError::Unreadable("progress"))?,
            None => ProgressRecord::default(),
        };
        let was_connected = record.ends_at_ms.is_none();
        let client_id = record.client_id.clone();
        let found = Found::of(stored, &record, &progress).ok_or(RestoreError::Unreadable("message"))?;
        let (is_whole, next) = (found.is_whole, found.next);
        let exported = self.exported(stored, record, progress.received, found)?;
        let id = self
            .import_session_at(&exported, (progress.head, next), now)
            .map_err(|error| RestoreError::Refused(client_id, error))?;
        let session = &mut self.sessions[id as usize];
        session.number = NonZeroU64::new(stored.key.number);
        session.safe_until = session.tail;
        if !is_whole {
            self.ledger.push(Op::End { key: stored.key });
            self.note_whole(id);
        } else if was_connected {
            self.note_session(id);
        }
        // The rules may be others than when it subscribed.
        if let Some(who) = self.sessions[id as usize].who.clone() {
            self.drop_denied(id, &who);
        }
        Ok(())
    }

    /// Takes back a retained message. One whose time is over goes.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn restore_retained(&mut self, topic: &str, value: &[u8], now: Instant) -> Result<(), RestoreError> {
        let unreadable = RestoreError::Unreadable("retained message");
        let record = MessageRecord::decode(value).ok_or(unreadable.clone())?;
        let read = |publish: &mqtt::Publish| {
            let said_s = publish.properties.message_expiry_interval();
            (Message::from_publish(publish, publish.topic.into(), now), said_s)
        };
        let (message, said_s) =
            read_packet(&record.packet, record.version, read).ok_or(unreadable.clone())?;
        let left = record.expires_at_ms.map(|ms| Duration::from_millis(self.left_ms(ms, said_s)));
        let expires_at = left.and_then(|left| now.checked_add(left));
        if &*message.topic != topic {
            return Err(unreadable);
        }
        let message = Message { expires_at, ..message };
        if message.is_expired(now) {
            self.write_retained(&message.topic, now);
            return Ok(());
        }
        // It found room when it came; fewer may be allowed now, but those are kept.
        self.retained.put(message, usize::MAX, usize::MAX, now);
        Ok(())
    }

    fn exported(
        &self,
        stored: &StoredSession,
        record: SessionRecord,
        received: Vec<mqtt::PacketId>,
        found: Found,
    ) -> Result<ExportedSession, RestoreError> {
        let subscriptions = stored.subscriptions.iter().map(|(filter, value)| subscription(filter, value));
        let message =
            |record: MessageRecord| self.exported_message(record).ok_or(RestoreError::Unreadable("message"));
        let in_flight = found.in_flight.into_iter().map(|(ordinal, record)| {
            let message = record.map(message).transpose();
            message.map(|message| ExportedInFlight { packet_id: id_of(ordinal), message })
        });
        let in_flight = in_flight.collect::<Result<_, RestoreError>>()?;
        Ok(ExportedSession {
            client_id: record.client_id,
            owner: record.owner,
            traits: record.traits,
            expiry_s: record.expiry_s,
            ends_in_ms: record.ends_at_ms.map(|ms| self.left_ms(ms, Some(record.expiry_s))),
            subscriptions: subscriptions
                .collect::<Option<_>>()
                .ok_or(RestoreError::Unreadable("subscription"))?,
            in_flight,
            queue: found.queue.into_iter().map(message).collect::<Result<_, _>>()?,
            received,
            will: record.will.map(|will| self.exported_will(will)),
        })
    }

    fn exported_message(&self, record: MessageRecord) -> Option<ExportedMessage> {
        let packet = match record.version {
            Version::V5 => record.packet,
            Version::V3 => {
                let translate = |publish: &mqtt::Publish| bytes_of(&Frame::publish(publish, Version::V5));
                read_packet(&record.packet, Version::V3, translate)?
            }
        };
        let said_s = |packet: &[u8]| {
            read_packet(packet, Version::V5, |publish| publish.properties.message_expiry_interval())?
        };
        let expires_in_ms = record.expires_at_ms.map(|ms| self.left_ms(ms, said_s(&packet)));
        Some(ExportedMessage { packet, expires_in_ms, shared: record.shared })
    }

    fn exported_will(&self, will: WillRecord) -> ExportedWill {
        let WillRecord { packet, delay_s, expiry_s, due_at_ms } = will;
        ExportedWill {
            packet,
            delay_s,
            expiry_s,
            due_in_ms: due_at_ms.map(|ms| self.left_ms(ms, Some(delay_s))),
        }
    }

    /// What is left until a wall time. The clock may be behind what it was: it is no more than was said at first.
    fn left_ms(&self, wall_ms: u64, said_s: Option<u32>) -> u64 {
        let said_ms = said_s.map_or(u64::MAX, |s| u64::from(s) * 1000);
        wall_ms.saturating_sub(self.ledger.moment.1).min(said_ms)
    }
}

/// A session's messages, sorted out.
struct Found {
    /// Without a message: released.
    in_flight: Vec<(u64, Option<MessageRecord>)>,
    queue: Vec<MessageRecord>,
    /// The ordinal behind what was in flight.
    next: u64,
    /// The queue has no gap: its ordinals are what they would be given.
    is_whole: bool,
}

impl Found {
    fn of(stored: &StoredSession, record: &SessionRecord, progress: &ProgressRecord) -> Option<Found> {
        let answered: HashMap<u64, Answered> = progress.answered.iter().copied().collect();
        let since = match record.ends_at_ms {
            Some(_) => 0,
            None => ring::longest(record.window as usize) as u64,
        };
        let sent = record.sent.max(progress.head + since);
        // What was answered may have no message any more, and its ordinal is used up all the same.
        let behind_answered = answered.keys().map(|ordinal| ordinal + 1).max();
        let next = progress.head.max(behind_answered.unwrap_or(0));
        let mut found = Found { in_flight: Vec::new(), queue: Vec::new(), next, is_whole: true };
        let mut last = None;
        for (ordinal, bytes) in stored.messages.iter().filter(|(ordinal, _)| *ordinal >= progress.head) {
            if last.replace(*ordinal).is_some_and(|last| last >= *ordinal) {
                return None;
            }
            let message = MessageRecord::decode(bytes)?;
            if *ordinal >= sent {
                found.is_whole &= *ordinal == found.next + found.queue.len() as u64;
                found.queue.push(message);
                continue;
            }
            match answered.get(ordinal) {
                None => found.in_flight.push((*ordinal, Some(message))),
                Some(Answered::Released) => found.in_flight.push((*ordinal, None)),
                Some(Answered::Done) => {}
            }
            found.next = found.next.max(ordinal + 1);
        }
        found.add_released(progress);
        // No more are ever in flight: then each has a packet id of its own.
        (found.next - progress.head <= ring::IDS as u64).then_some(found)
    }
}

impl Found {
    /// What is released needs no message, and may have none on disk.
    fn add_released(&mut self, progress: &ProgressRecord) {
        let released = progress.answered.iter().filter(|(_, how)| *how == Answered::Released);
        for &(ordinal, _) in released {
            if let Err(at) = self.in_flight.binary_search_by_key(&ordinal, |(ordinal, _)| *ordinal) {
                self.in_flight.insert(at, (ordinal, None));
            }
        }
    }
}

fn subscription(filter: &str, value: &[u8]) -> Option<ExportedSubscription> {
    let SubscriptionRecord { qos, no_local, retain_as_published, identifier } =
        SubscriptionRecord::decode(value)?;
    Some(ExportedSubscription {
        filter: filter.to_owned(),
        qos: qos as u8,
        no_local,
        retain_as_published,
        identifier: NonZeroU32::new(identifier),
    })
}

fn read_packet<T>(bytes: &[u8], version: Version, then: impl FnOnce(&mqtt::Publish) -> T) -> Option<T> {
    match decode(bytes, version, &mqtt::Limits { packet_bytes_max: usize::MAX, ..mqtt::Limits::default() }) {
        Ok(Some((Packet::Publish(publish), length))) if length == bytes.len() => Some(then(&publish)),
        _ => None,
    }
}

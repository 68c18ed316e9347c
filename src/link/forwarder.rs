//! The forwarder: messages for one peer, in order, bounded in bytes and in age.
//!
//! A message waits in the queue until it is sent; QoS 0 is then done, anything above is in flight until the peer
//! has taken over its position. Positions are given when a message is first sent and have no gaps; after a
//! reconnect everything in flight above the peer's position goes again. The balance
//! `matched = acknowledged + queued + in_flight + dropped` holds after every call. What is in flight is bounded in
//! number and in bytes.
//!
//! What is dropped, and why: QoS 0 without a connection (`disconnected`); what waited too long or expired
//! (`expired`); the oldest of the queue when a new message does not fit (`overflow`), never what is in flight;
//! what is larger than the peer takes (`oversize`).

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::mqtt::{Message, QoS};
use crate::settings::Forwarding;
use crate::settings::report::SentCounters;

use super::violation::Violation;

/// What an entry costs beside its topic, properties and payload: the message itself, three allocations, its place.
const ENTRY_BYTES: usize = 208;
/// Bytes in flight from which on no more follow: what is in flight is not given up when memory is short.
const IN_FLIGHT_BYTES: usize = 16 * 1024 * 1024;

/// A message on its way out.
#[derive(Debug)]
pub struct Outgoing {
    /// The message.
    pub message: Rc<Message>,
    /// Its position; None at QoS 0.
    pub position: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    message: Rc<Message>,
    at: Instant,
}

impl Entry {
    fn bytes(&self) -> usize {
        size(&self.message) + ENTRY_BYTES
    }
}

/// The size of what a message carries.
pub fn size(message: &Message) -> usize {
    message.topic.len() + message.properties.as_properties().as_bytes().len() + message.payload.len()
}

/// The queue of one peer.
#[derive(Debug)]
pub struct Forwarder {
    queue: VecDeque<Entry>,
    /// Position `acknowledged_to + 1` and on.
    in_flight: VecDeque<Entry>,
    /// How many of `in_flight` were sent on this connection.
    sent_here: usize,
    acknowledged_to: u64,
    /// Of all entries, and of those in flight.
    bytes: usize,
    in_flight_bytes: usize,
    limits: Forwarding,
    /// While the peer can take messages: the largest it takes.
    online: Option<usize>,
    counters: SentCounters,
}

impl Forwarder {
    /// An empty queue.
    pub fn new(limits: Forwarding) -> Forwarder {
        Forwarder {
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            sent_here: 0,
            acknowledged_to: 0,
            bytes: 0,
            in_flight_bytes: 0,
            limits,
            online: None,
            counters: SentCounters::default(),
        }
    }

    /// The bounds changed; they hold for what comes next.
    pub fn handle_limits(&mut self, limits: Forwarding) {
        self.limits = limits;
    }

    /// A message matched a route of the peer.
    pub fn handle_message(&mut self, message: Rc<Message>, now: Instant) {
        self.counters.matched += 1;
        if message.qos == QoS::AtMostOnce && self.online.is_none() {
            self.counters.dropped.disconnected += 1;
            return;
        }
        let entry = Entry { message, at: now };
        let bytes = entry.bytes();
        if bytes > self.bytes_max() {
            self.counters.dropped.overflow += 1;
            return;
        }
        let excess = (self.bytes + bytes).saturating_sub(self.bytes_max());
        if self.shed(excess) < excess {
            self.counters.dropped.overflow += 1;
            return;
        }
        self.bytes += bytes;
        self.queue.push_back(entry);
    }

    /// The bytes of everything that waits or is in flight.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes of what waits, and could be shed.
    pub fn queued_bytes(&self) -> usize {
        self.bytes - self.in_flight_bytes
    }

    /// Drops the oldest of the queue, so many bytes or more; tells how many.
    pub fn shed(&mut self, bytes: usize) -> usize {
        let before = self.bytes;
        while before - self.bytes < bytes
            && let Some(oldest) = self.queue.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.counters.dropped.overflow += 1;
        }
        before - self.bytes
    }

    fn bytes_max(&self) -> usize {
        usize::try_from(self.limits.queue_bytes_max).unwrap_or(usize::MAX)
    }

    /// The peer can take messages, and has taken over everything up to `position`.
    ///
    /// # Errors
    /// [`Violation::MessagesAckAhead`] when that was never sent, [`Violation::MessagesAckBehind`] when what follows
    /// is not here any more. A peer that holds nothing at all takes whatever comes first.
    pub fn handle_connected(&mut self, position: u64, message_bytes_max: usize) -> Result<(), Violation> {
        if position > 0 && position < self.acknowledged_to {
            return Err(Violation::MessagesAckBehind);
        }
        self.sent_here = self.in_flight.len();
        self.handle_acknowledged(position)?;
        self.sent_here = 0;
        self.drop_oversize(message_bytes_max);
        self.online = Some(message_bytes_max);
        Ok(())
    }

    /// The peer may take less than when a message was sent, and holds nothing of what is left in flight: what it
    /// would never take goes, and what comes after it moves up.
    fn drop_oversize(&mut self, message_bytes_max: usize) {
        let before = self.in_flight.len();
        self.in_flight.retain(|entry| size(&entry.message) <= message_bytes_max);
        self.counters.dropped.oversize += (before - self.in_flight.len()) as u64;
        let left = self.in_flight.iter().map(Entry::bytes).sum();
        self.bytes -= std::mem::replace(&mut self.in_flight_bytes, left) - left;
    }

    /// The peer cannot take messages any more. QoS 0 does not wait for the next time.
    pub fn handle_disconnected(&mut self) {
        if self.online.take().is_none() {
            return;
        }
        let (bytes, dropped) = (&mut self.bytes, &mut self.counters.dropped.disconnected);
        self.queue.retain(|entry| {
            let keep = entry.message.qos != QoS::AtMostOnce;
            if !keep {
                *bytes -= entry.bytes();
                *dropped += 1;
            }
            keep
        });
    }

    /// The peer has taken over everything up to `position`.
    ///
    /// # Errors
    /// [`Violation::MessagesAckAhead`] when that was not sent on this connection.
    pub fn handle_acknowledged(&mut self, position: u64) -> Result<(), Violation> {
        if position > self.acknowledged_to + self.sent_here as u64 {
            return Err(Violation::MessagesAckAhead);
        }
        while self.acknowledged_to < position {
            let entry = self.in_flight.pop_front().expect("what was sent is in flight");
            self.bytes -= entry.bytes();
            self.in_flight_bytes -= entry.bytes();
            self.acknowledged_to += 1;
            self.sent_here -= 1;
            self.counters.acknowledged += 1;
        }
        Ok(())
    }

    /// The size of the next message that may be sent now. Drops what may not be sent at all.
    pub fn next_size(&mut self, now: Instant) -> Option<usize> {
        let largest = self.online?;
        if let Some(again) = self.in_flight.get(self.sent_here) {
            return Some(size(&again.message));
        }
        loop {
            let next = self.queue.front()?;
            let bytes = size(&next.message);
            if self.is_over(next, now) || next.message.is_expired(now) {
                self.counters.dropped.expired += 1;
            } else if bytes > largest {
                self.counters.dropped.oversize += 1;
            } else if next.message.qos != QoS::AtMostOnce && self.is_full() {
                return None;
            } else {
                return Some(bytes);
            }
            let dropped = self.queue.pop_front().expect("it was just looked at");
            self.bytes -= dropped.bytes();
        }
    }

    /// The position that the next message above QoS 0 gets.
    pub fn next_position(&self) -> u64 {
        self.acknowledged_to + self.sent_here as u64 + 1
    }

    /// The first position that was sent on this connection and is not acknowledged.
    pub fn first_sent(&self) -> Option<u64> {
        (self.sent_here > 0).then_some(self.acknowledged_to + 1)
    }

    /// Takes the message whose size `next_size` gave.
    pub fn take_next(&mut self) -> Option<Outgoing> {
        let again = self.in_flight.get(self.sent_here).map(|entry| entry.message.clone());
        let message = match again {
            Some(message) => message,
            None => {
                let entry = self.queue.pop_front()?;
                let message = entry.message.clone();
                if message.qos == QoS::AtMostOnce {
                    self.bytes -= entry.bytes();
                    self.counters.acknowledged += 1;
                    self.counters.sent += 1;
                    return Some(Outgoing { message, position: None });
                }
                self.in_flight_bytes += entry.bytes();
                self.in_flight.push_back(entry);
                message
            }
        };
        self.counters.sent += 1;
        let position = Some(self.next_position());
        self.sent_here += 1;
        Some(Outgoing { message, position })
    }

    fn is_full(&self) -> bool {
        self.in_flight.len() >= self.limits.max_inflight as usize || self.in_flight_bytes >= IN_FLIGHT_BYTES
    }

    fn is_over(&self, entry: &Entry, now: Instant) -> bool {
        entry.at + self.age_max() <= now
    }

    fn age_max(&self) -> Duration {
        Duration::from_secs(u64::from(self.limits.queue_age_s_max))
    }

    /// Drops what has waited too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        while self.queue.front().is_some_and(|entry| self.is_over(entry, now)) {
            let entry = self.queue.pop_front().expect("it was just looked at");
            self.bytes -= entry.bytes();
            self.counters.dropped.expired += 1;
        }
    }

    /// When the oldest message of the queue will have waited too long.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.queue.front().map(|entry| entry.at + self.age_max())
    }

    /// The counters of this moment.
    pub fn counters(&self) -> SentCounters {
        SentCounters {
            queued: self.queue.len() as u64,
            in_flight: self.in_flight.len() as u64,
            ..self.counters
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload_len: usize) -> Rc<Message> {
        Rc::new(Message {
            topic: topic.into(),
            payload: vec![b'x'; payload_len].into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: crate::mqtt::PropertiesBuf::new(),
            expires_at: None,
        })
    }

    fn send_all(forwarder: &mut Forwarder, now: Instant) -> Vec<(String, Option<u64>)> {
        std::iter::from_fn(|| {
            forwarder.next_size(now)?;
            forwarder.take_next().map(|next| (next.message.topic.to_string(), next.position))
        })
        .collect()
    }

    #[test]
    fn what_a_peer_takes_no_more_is_not_sent_to_it_again() {
        let now = Instant::now();
        let mut forwarder = Forwarder::new(Forwarding::default());
        forwarder.handle_connected(0, 1 << 20).expect("nothing was sent yet");
        for (topic, len) in [("a", 1), ("large", 5000), ("b", 1), ("c", 1)] {
            forwarder.handle_message(message(topic, len), now);
        }
        assert_eq!(send_all(&mut forwarder, now).len(), 4);
        forwarder.handle_disconnected();
        forwarder.handle_connected(1, 1000).expect("one was taken over");
        let again = send_all(&mut forwarder, now);
        assert_eq!(again, [("b".to_owned(), Some(2)), ("c".to_owned(), Some(3))]);
        forwarder.handle_acknowledged(3).expect("they were sent");
        let counters = forwarder.counters();
        assert_eq!((counters.acknowledged, counters.dropped.oversize, counters.in_flight), (3, 1, 0));
        assert_eq!((forwarder.bytes(), forwarder.queued_bytes()), (0, 0));
    }

    #[test]
    fn what_is_in_flight_is_bounded_in_bytes_and_what_waits_can_be_shed() {
        let now = Instant::now();
        let mut forwarder = Forwarder::new(Forwarding::default());
        forwarder.handle_connected(0, 1 << 24).expect("nothing was sent yet");
        for number in 0..100 {
            forwarder.handle_message(message(&number.to_string(), 1 << 20), now);
        }
        let sent = send_all(&mut forwarder, now).len();
        assert_eq!(sent, 16, "16 MiB are in flight");
        let before = forwarder.bytes();
        let shed = forwarder.shed(10_000_000);
        assert!((10_000_000..12_000_000).contains(&shed), "{shed}");
        assert_eq!(before - forwarder.bytes(), shed);
        assert_eq!(forwarder.counters().dropped.overflow, 10);
        assert_eq!(forwarder.shed(usize::MAX), before - shed - forwarder.bytes());
        assert_eq!((forwarder.queued_bytes(), forwarder.counters().in_flight), (0, 16));
        assert!(forwarder.bytes() > 16 << 20, "what is in flight stays");
    }
}

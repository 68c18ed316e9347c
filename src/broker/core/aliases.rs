//! Topic aliases that we give: a topic goes out once, a number of two bytes from then on.
//!
//! Only for clients that ask for it, and only where it saves bytes. The table is as large as client and settings both
//! allow, and bounded in bytes. Once it is full a topic has to come twice while an older one does not come at all before it
//! gets the older one's alias: topics that are seen once must not push out those that return.
//!
//! Invariants: every slot's topic is in `by_topic` under the slot's number; `bytes` is the sum over the slots.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::mqtt::TopicAlias;

/// How many bytes of topics one connection may have behind our aliases.
const BYTES_MAX: usize = 256 * 1024;
/// A topic this short costs less than the property that stands for it.
const TOPIC_BYTES_MIN: usize = 4;

/// The aliases of one connection, in our direction. [MQTT-3.3.2-7]
pub(super) struct Aliases {
    max: usize,
    bytes: usize,
    by_topic: HashMap<Arc<str>, u16, foldhash::fast::RandomState>,
    slots: Vec<Slot>,
    /// Where the search for an alias to reuse goes on.
    hand: usize,
}

struct Slot {
    topic: Arc<str>,
    /// It came since the hand passed by.
    is_used: bool,
}

impl Aliases {
    /// A table of at most `max` aliases.
    pub(super) fn new(max: u16) -> Aliases {
        Aliases { max: usize::from(max), bytes: 0, by_topic: HashMap::default(), slots: Vec::new(), hand: 0 }
    }

    /// The alias to send a topic with, if with any. [MQTT-3.1.2-26] [MQTT-3.3.2-8] [MQTT-3.3.2-11]
    pub(super) fn get(&mut self, topic: &str) -> Option<TopicAlias> {
        if let Some(&alias) = self.by_topic.get(topic) {
            self.slots[usize::from(alias) - 1].is_used = true;
            return Some(TopicAlias { alias, is_known: true });
        }
        if topic.len() < TOPIC_BYTES_MIN || topic.len() + self.bytes > BYTES_MAX {
            return None;
        }
        let at = if self.slots.len() < self.max { self.slots.len() } else { self.vacate()? };
        let topic: Arc<str> = topic.into();
        let alias = at as u16 + 1;
        self.bytes += topic.len();
        self.by_topic.insert(Arc::clone(&topic), alias);
        let slot = Slot { topic, is_used: false };
        if at < self.slots.len() {
            self.slots[at] = slot;
        } else {
            self.slots.push(slot);
        }
        Some(TopicAlias { alias, is_known: false })
    }

    /// Frees the slot at the hand, unless its topic came since the hand was there last.
    fn vacate(&mut self) -> Option<usize> {
        let at = self.hand;
        let count = self.slots.len();
        let slot = self.slots.get_mut(at)?;
        self.hand = (at + 1) % count;
        if std::mem::replace(&mut slot.is_used, false) {
            return None;
        }
        self.bytes -= slot.topic.len();
        self.by_topic.remove(&slot.topic);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(aliases: &mut Aliases, topic: &str, expected: Option<(u16, bool)>) {
        assert_eq!(aliases.get(topic).map(|given| (given.alias, given.is_known)), expected, "{topic}");
    }

    #[test]
    fn a_topic_that_returns_keeps_its_alias_against_those_that_come_once() {
        let mut aliases = Aliases::new(2);
        check(&mut aliases, "plant/a", Some((1, false)));
        check(&mut aliases, "plant/b", Some((2, false)));
        check(&mut aliases, "plant/a", Some((1, true)));
        check(&mut aliases, "plant/c", None);
        check(&mut aliases, "plant/c", Some((2, false)));
        check(&mut aliases, "plant/b", Some((1, false)));
        assert_eq!(aliases.bytes, 2 * "plant/b".len());
    }

    #[test]
    fn what_saves_nothing_and_what_costs_too_much_has_no_alias() {
        let mut aliases = Aliases::new(u16::MAX);
        check(&mut aliases, "a/b", None);
        check(&mut aliases, "a/bc", Some((1, false)));
        for n in 0..5 {
            let topic = format!("{n}{}", "x".repeat(60_000));
            check(&mut aliases, &topic, (n < 4).then_some((n + 2, false)));
        }
        check(&mut Aliases::new(0), "plant/a", None);
    }
}

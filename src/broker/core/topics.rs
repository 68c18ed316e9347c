//! A bounded memory of who gets which topic, for messages that come from elsewhere than a connection of this shard.
//!
//! One place per hash: a topic that falls on another's place takes it. What was remembered before the routes changed is
//! worked out anew.

use std::hash::BuildHasher;
use std::rc::Rc;

use foldhash::fast::RandomState;

use super::publish::REMEMBERED_BYTES_MAX;
use super::recipients::Recipients;
use super::routes::Routes;

/// How many topics are remembered.
const PLACES: usize = 1_024;
/// How many recipients are worth remembering: for more, finding them costs little beside serving them.
const RECIPIENTS_MAX: usize = 256;

struct Known {
    topic: Rc<str>,
    generation: u64,
    recipients: Rc<Recipients>,
}

impl Known {
    #[inline]
    fn is(&self, topic: &str) -> bool {
        std::ptr::eq(&*self.topic, topic) || *self.topic == *topic
    }
}

/// Recipients by topic.
#[derive(Default)]
pub(super) struct Topics {
    /// Empty until the first topic comes.
    places: Vec<Option<Known>>,
    hasher: RandomState,
    /// Where the last one is: most come many at a time.
    last: usize,
}

impl Topics {
    /// The topic that was asked for last, if it is remembered.
    #[inline]
    pub(super) fn last(&self) -> Option<Rc<str>> {
        self.places.get(self.last)?.as_ref().map(|known| Rc::clone(&known.topic))
    }

    /// Who gets this topic. What it takes to find out adds to `looked_at`.
    pub(super) fn recipients(
        &mut self,
        topic: &str,
        routes: &Routes,
        looked_at: &mut usize,
    ) -> Rc<Recipients> {
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || None);
        }
        let generation = routes.generation();
        let is_it = |known: &&Known| known.generation == generation && known.is(topic);
        if let Some(known) = self.places[self.last].as_ref().filter(is_it) {
            return Rc::clone(&known.recipients);
        }
        let at = self.hasher.hash_one(topic) as usize % PLACES;
        self.last = at;
        if let Some(known) = self.places[at].as_ref().filter(is_it) {
            return Rc::clone(&known.recipients);
        }
        let recipients = Rc::new(routes.matches(topic));
        *looked_at += recipients.looked_at;
        if recipients.extent() <= RECIPIENTS_MAX && topic.len() <= REMEMBERED_BYTES_MAX {
            let known = Known { topic: topic.into(), generation, recipients: Rc::clone(&recipients) };
            self.places[at] = Some(known);
        }
        recipients
    }
}

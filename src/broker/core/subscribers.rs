//! The sessions that subscribe to one filter, each once.
//!
//! Few are searched; of many it is noted where each is, so that a crowd that comes or goes together costs each of them the
//! same. Order is of no meaning.
//!
//! Invariant: `places`, if it is there, has each session of `list` with its place.

use std::ops::Deref;

use hashbrown::HashMap;

use super::SessionId;
use super::recipients::Subscriber;

/// Up to how many are searched.
const SEARCHED_MAX: usize = 64;

/// A filter's subscribers.
#[derive(Default)]
pub(super) struct Subscribers {
    list: Vec<Subscriber>,
    places: Option<Box<HashMap<SessionId, u32, foldhash::fast::RandomState>>>,
}

impl Deref for Subscribers {
    type Target = [Subscriber];

    fn deref(&self) -> &[Subscriber] {
        &self.list
    }
}

impl Subscribers {
    pub(super) fn get(&self, session: SessionId) -> Option<&Subscriber> {
        self.place(session).map(|at| &self.list[at])
    }

    /// Adds or replaces.
    pub(super) fn put(&mut self, who: Subscriber) {
        if let Some(at) = self.place(who.session) {
            self.list[at] = who;
            return;
        }
        let at = self.list.len() as u32;
        self.list.push(who);
        match &mut self.places {
            Some(places) => drop(places.insert(who.session, at)),
            None if self.list.len() > SEARCHED_MAX => {
                self.places = Some(Box::new(self.list.iter().map(|one| one.session).zip(0..).collect()));
            }
            None => {}
        }
    }

    /// Removes. True if it was there.
    pub(super) fn take(&mut self, session: SessionId) -> bool {
        let Some(at) = self.place(session) else { return false };
        self.list.swap_remove(at);
        if self.list.len() <= SEARCHED_MAX / 2 {
            self.places = None;
        }
        if let Some(places) = &mut self.places {
            places.remove(&session);
            if let Some(moved) = self.list.get(at) {
                places.insert(moved.session, at as u32);
            }
        }
        true
    }

    fn place(&self, session: SessionId) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(&session).map(|&at| at as usize),
            None => self.list.iter().position(|one| one.session == session),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::QoS;

    fn who(session: SessionId, qos: QoS) -> Subscriber {
        Subscriber { session, identifier: None, qos, no_local: false, retain_as_published: false }
    }

    #[test]
    fn many_are_found_as_few_are() {
        let mut subscribers = Subscribers::default();
        for round in 0..3 {
            (0..500).for_each(|session| subscribers.put(who(session * 7 % 500, QoS::AtMostOnce)));
            (0..500).for_each(|session| subscribers.put(who(session, QoS::AtLeastOnce)));
            assert_eq!(subscribers.len(), 500, "round {round}");
            assert!(subscribers.iter().all(|one| one.qos == QoS::AtLeastOnce));
            for session in (0..500).map(|n| n * 13 % 500) {
                assert!(subscribers.take(session));
                assert!(!subscribers.take(session));
                assert!(subscribers.iter().all(|one| one.session != session));
            }
            assert!(subscribers.is_empty() && subscribers.places.is_none());
        }
    }
}

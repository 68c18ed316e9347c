//! Writes that wait for their turn.
//!
//! Statuses go before objects: they are what people read, and there is at most one for each object. Namespaces take turns, and
//! each has only so many writes under way: where they hang, because of a webhook there, they hold up nobody elsewhere.
//! Pure, and what it costs to take one grows with the namespaces that have something to write, not with what they have.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Included, Unbounded};

use super::write::Write;

/// Writes of one namespace at a time: a third of all and less.
const PLACES_MAX: usize = 6;

/// Writes that have not begun, and how many have. At most one for each object and its status.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Namespaces with writes that wait or are under way.
    lanes: BTreeMap<String, Lane>,
    /// The namespace that had the last turn.
    last: String,
}

#[derive(Debug, Default)]
struct Lane {
    statuses: VecDeque<Write>,
    objects: VecDeque<Write>,
    under_way: usize,
}

impl Queue {
    /// Writes to begin when it is their turn.
    pub(super) fn extend(&mut self, writes: impl IntoIterator<Item = Write>) {
        for write in writes {
            let lane = self.lanes.entry(write.id().namespace.clone()).or_default();
            match write {
                Write::Status { .. } => lane.statuses.push_back(write),
                _ => lane.objects.push_back(write),
            }
        }
    }

    /// The next one to begin, if there is room for it: a status, else an object. It is under way until it [`Queue::ended`].
    pub(super) fn take(&mut self) -> Option<Write> {
        let status = || self.turn(|lane| !lane.statuses.is_empty());
        let namespace = status().or_else(|| self.turn(|lane| !lane.objects.is_empty()))?;
        let lane = self.lanes.get_mut(&namespace)?;
        self.last = namespace;
        lane.under_way += 1;
        lane.statuses.pop_front().or_else(|| lane.objects.pop_front())
    }

    /// One of this namespace is under way no longer.
    pub(super) fn ended(&mut self, namespace: &str) {
        let Some(lane) = self.lanes.get_mut(namespace) else { return };
        lane.under_way = lane.under_way.saturating_sub(1);
        if lane.under_way == 0 && lane.is_empty() {
            self.lanes.remove(namespace);
        }
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.values().all(Lane::is_empty)
    }

    /// The first namespace after the last one that has room, and something of this kind.
    fn turn(&self, waits: fn(&Lane) -> bool) -> Option<String> {
        let later = self.lanes.range::<str, _>((Excluded(&*self.last), Unbounded));
        let mut lanes = later.chain(self.lanes.range::<str, _>((Unbounded, Included(&*self.last))));
        let (namespace, _) = lanes.find(|(_, lane)| lane.under_way < PLACES_MAX && waits(lane))?;
        Some(namespace.clone())
    }
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.statuses.is_empty() && self.objects.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::operator::build::{Kind, ObjectId};

    fn id(kind: Kind, namespace: &str, name: &str) -> ObjectId {
        ObjectId { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn objects(namespace: &str, count: usize) -> impl Iterator<Item = Write> {
        (0..count).map(move |number| {
            let id = id(Kind::Service, namespace, &number.to_string());
            Write::Delete { id, uid: String::new() }
        })
    }

    fn status(namespace: &str) -> Write {
        Write::Status { id: id(Kind::MqttCluster, namespace, "s"), body: Value::Null, news: None }
    }

    /// What begins next, as `namespace/name`, until there is no room.
    fn begin(queue: &mut Queue, most: usize) -> String {
        let begun = std::iter::from_fn(|| queue.take()).take(most);
        let names = begun.map(|write| format!("{}/{}", write.id().namespace, write.id().name));
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn namespaces_take_turns_and_one_where_writes_hang_holds_up_nobody() {
        let mut queue = Queue::default();
        queue.extend(objects("a", 8).chain(objects("b", 2)));
        assert_eq!(begin(&mut queue, 99), "a/0 b/0 a/1 b/1 a/2 a/3 a/4 a/5");
        queue.extend(objects("b", 1).chain([status("a")]).chain(objects("c", 2)));
        assert_eq!(begin(&mut queue, 2), "b/0 c/0");
        queue.ended("a");
        assert_eq!(begin(&mut queue, 99), "a/s c/1", "a status first, where there is room");
        assert!(!queue.is_empty(), "two of a wait");
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut queue = Queue::default();
        queue.extend(objects("a", 1).chain([status("b")]));
        assert_eq!(begin(&mut queue, 99), "b/s a/0");
        assert!(queue.is_empty());
        ["a", "b", "c"].iter().for_each(|namespace| queue.ended(namespace));
        assert!(queue.lanes.is_empty());
    }
}

//! Remembers what was written, so that nothing is written twice while the watch has not shown it yet, nor again and again
//! where the server keeps something in other words; and when to try again what failed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::build::{Kind, ObjectId};

const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The least time between two writes of one status.
const STATUS_CALM: Duration = Duration::from_secs(1);

/// What is known of the writes of each object: the object itself, and its status.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<(ObjectId, Part), Entry>,
}

/// What of an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Object,
    Status,
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// Of what was last written.
    content: u64,
    /// Of the object as it was seen before that.
    version: Option<String>,
    failures: u32,
    /// Not to be written before.
    not_before: Instant,
    /// The object was seen while this was under way.
    is_outdated: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    UnderWay,
    Done,
    Failed,
    /// For what it is: another try is worth something once it is to be something else, or came or went meanwhile.
    Refused,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Done,
    /// The next try may do.
    Failed,
    /// What was to be written is wrong.
    Refused,
}

impl Ledger {
    /// Whether to write now what differs from what is seen; if so it counts as under way.
    pub(super) fn begins(
        &mut self,
        id: &ObjectId,
        part: Part,
        content: &Value,
        version: Option<&str>,
        now: Instant,
    ) -> bool {
        let content = hash(content);
        let before = self.entries.get(&(id.clone(), part));
        let wait = before.is_some_and(|entry| match entry.state {
            State::UnderWay => true,
            State::Done if entry.content == content && entry.version.as_deref() == version => true,
            State::Refused => entry.content == content && entry.version.is_some() == version.is_some(),
            State::Done | State::Failed => now < entry.not_before,
        });
        if wait {
            return false;
        }
        let failures = before.map_or(0, |entry| entry.failures);
        let version = version.map(str::to_owned);
        let entry =
            Entry { state: State::UnderWay, content, version, failures, not_before: now, is_outdated: false };
        self.entries.insert((id.clone(), part), entry);
        true
    }

    /// Notes how a write ended, and returns how often it failed in a row.
    pub(super) fn ended(&mut self, id: &ObjectId, part: Part, end: End, now: Instant) -> u32 {
        let key = (id.clone(), part);
        let Some(entry) = self.entries.get_mut(&key) else { return 0 };
        if end == End::Refused {
            (entry.state, entry.failures, entry.not_before) = (State::Refused, 1, now);
            return entry.failures;
        }
        if end == End::Failed {
            let wait = RETRY_MIN * 2u32.saturating_pow(entry.failures.min(16));
            entry.not_before = now + wait.min(RETRY_MAX);
            (entry.state, entry.failures) = (State::Failed, entry.failures.saturating_add(1));
            return entry.failures;
        }
        let calm = match part {
            Part::Object => Duration::ZERO,
            Part::Status => STATUS_CALM,
        };
        (entry.state, entry.failures, entry.not_before) = (State::Done, 0, now + calm);
        if entry.is_outdated {
            self.entries.remove(&key);
        }
        0
    }

    /// Notes that an object was seen anew: what was written before may be gone again.
    pub(super) fn seen(&mut self, id: &ObjectId) {
        if let Some(entry) = self.entries.get_mut(&(id.clone(), Part::Object)) {
            entry.is_outdated = true;
            if entry.state == State::Done {
                self.entries.remove(&(id.clone(), Part::Object));
            }
        }
    }

    /// The same of all objects of a kind.
    pub(super) fn seen_all(&mut self, kind: Kind) {
        let ids = self.entries.keys().filter(|(id, _)| id.kind == kind).map(|(id, _)| id.clone());
        ids.collect::<Vec<_>>().iter().for_each(|id| self.seen(id));
    }

    /// How many objects are being written, statuses apart.
    pub(super) fn objects_under_way(&self) -> usize {
        let is_it = |(key, entry): &(&(ObjectId, Part), &Entry)| {
            key.1 == Part::Object && entry.state == State::UnderWay
        };
        self.entries.iter().filter(is_it).count()
    }

    /// When something that waits may be written; forgets what waits for nothing.
    pub(super) fn next(&mut self, now: Instant) -> Option<Instant> {
        let waits = self.entries.values().filter(|entry| entry.state != State::UnderWay);
        waits.map(|entry| entry.not_before).filter(|time| *time > now).min()
    }

    /// Forgets objects that are neither there nor wanted.
    pub(super) fn retain(&mut self, keep: impl Fn(&ObjectId) -> bool) {
        self.entries.retain(|(id, _), entry| entry.state == State::UnderWay || keep(id));
    }
}

fn hash(content: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.to_string().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Written {
        ledger: Ledger,
        id: ObjectId,
        now: Instant,
    }

    impl Written {
        fn new() -> Written {
            let id = ObjectId { kind: Kind::Service, namespace: "a".to_owned(), name: "b".to_owned() };
            Written { ledger: Ledger::default(), id, now: Instant::now() }
        }

        fn begins(&mut self, part: Part, content: i32, version: &str) -> bool {
            self.ledger.begins(&self.id, part, &json!(content), Some(version), self.now)
        }

        fn ended(&mut self, part: Part, is_done: bool) {
            let end = if is_done { End::Done } else { End::Failed };
            self.ledger.ended(&self.id, part, end, self.now);
        }
    }

    #[test]
    fn what_is_under_way_is_not_written_again() {
        let mut written = Written::new();
        assert!(written.begins(Part::Object, 1, "v1"));
        assert!(!written.begins(Part::Object, 2, "v2"));
        written.ended(Part::Object, true);
        assert!(written.begins(Part::Object, 2, "v2"));
    }

    #[test]
    fn what_the_server_keeps_in_other_words_is_written_once() {
        let mut written = Written::new();
        assert!(written.begins(Part::Object, 1, "v1"));
        written.ended(Part::Object, true);
        assert!(!written.begins(Part::Object, 1, "v1"));
        written.ledger.seen(&written.id);
        assert!(written.begins(Part::Object, 1, "v1"));
    }

    #[test]
    fn what_failed_is_tried_again_later_and_later() {
        let mut written = Written::new();
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert!(written.begins(Part::Object, 1, "v1"));
            written.ended(Part::Object, false);
            assert!(!written.begins(Part::Object, 1, "v1"));
            let next = written.ledger.next(written.now).expect("it waits");
            waits.push(next - written.now);
            written.now = next;
        }
        assert_eq!(waits[0], RETRY_MIN);
        assert!(waits.is_sorted());
        assert_eq!(waits.last(), Some(&RETRY_MAX));
    }

    #[test]
    fn a_status_is_written_at_most_once_a_second() {
        let mut written = Written::new();
        assert!(written.begins(Part::Status, 1, "v1"));
        written.ended(Part::Status, true);
        assert!(!written.begins(Part::Status, 2, "v2"));
        assert_eq!(written.ledger.next(written.now), Some(written.now + STATUS_CALM));
        written.now += STATUS_CALM;
        assert!(written.begins(Part::Status, 2, "v2"));
    }

    #[test]
    fn what_came_and_went_meanwhile_is_written_again() {
        let mut written = Written::new();
        let begins = |written: &mut Written| {
            written.ledger.begins(&written.id, Part::Object, &json!(1), None, written.now)
        };
        // It was seen, and seen to be gone, before the answer came.
        assert!(begins(&mut written));
        written.ledger.seen(&written.id);
        written.ended(Part::Object, true);
        assert!(begins(&mut written));
        written.ended(Part::Object, true);
        assert!(!begins(&mut written), "it will be seen");
        // It was never seen: the watch was interrupted, and the next list does not have it.
        written.ledger.seen_all(Kind::Secret);
        assert!(!begins(&mut written), "this was another list");
        written.ledger.seen_all(Kind::Service);
        assert!(begins(&mut written));
    }

    #[test]
    fn what_was_refused_waits_until_it_is_something_else() {
        let mut written = Written::new();
        assert!(written.begins(Part::Object, 1, "v1"));
        written.ledger.ended(&written.id, Part::Object, End::Refused, written.now);
        written.now += RETRY_MAX * 100;
        assert!(!written.begins(Part::Object, 1, "v1"));
        written.ledger.seen(&written.id);
        assert!(!written.begins(Part::Object, 1, "v2"), "its own status moves its version");
        assert_eq!(written.ledger.next(written.now), None);
        assert!(written.begins(Part::Object, 2, "v2"));
        written.ledger.ended(&written.id, Part::Object, End::Refused, written.now);
        let is_gone = written.ledger.begins(&written.id, Part::Object, &json!(2), None, written.now);
        assert!(is_gone, "what cannot be changed may be made anew");
    }

    #[test]
    fn an_object_that_nobody_wants_is_forgotten() {
        let mut written = Written::new();
        assert!(written.begins(Part::Object, 1, "v1"));
        written.ledger.retain(|_| false);
        assert!(!written.begins(Part::Object, 1, "v1"), "it is under way");
        written.ended(Part::Object, true);
        written.ledger.retain(|_| false);
        assert!(written.begins(Part::Object, 1, "v1"));
    }
}

//! Remembers what was written: nothing is written again that the server keeps in other words, what failed is tried again later
//! and later, and who changes an object of ours again and again does not make us as busy as they are.
//!
//! A version is that of an object in the picture, which takes in the answer to a write at once. So a version that is not the
//! one that the server answered with is somebody else's doing.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::build::ObjectId;
use super::watch::Source;

const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// What was refused for what it is may be taken later, by another version of the server or under other policies.
const REFUSED: Duration = Duration::from_secs(300);
/// The least time between two writes of one status.
const STATUS_CALM: Duration = Duration::from_secs(1);
/// The second repair in a row waits for so long, each one after it twice as long …
const REPAIR_MIN: Duration = Duration::from_millis(500);
/// … up to this. Half of what [`STAYS`] is: a fight that waits is not over.
const REPAIR_MAX: Duration = Duration::from_secs(30);
/// What stayed as it was written for so long is settled: what comes then is no part of a fight before.
const STAYS: Duration = Duration::from_secs(60);
/// From so many repairs in a row on it is a fight.
pub(super) const FIGHT: u32 = 3;

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
    failures: u32,
    /// How often in a row somebody else changed what was written.
    repairs: u32,
    /// Not to be written before.
    not_before: Instant,
    /// Not to be put back, or tried again as it is, before.
    rest_until: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    UnderWay {
        /// What was there before.
        version: Option<String>,
        /// Something newer than the answer may have been seen.
        is_overtaken: bool,
    },
    Done {
        /// What has been there since.
        version: Option<String>,
        at: Instant,
    },
    Failed,
    /// For what it is: another try is worth something at once if it is to be something else, or came or went meanwhile.
    Refused {
        was_there: bool,
    },
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End<'a> {
    /// The server answered with this version, or with none.
    Done(Option<&'a str>),
    /// The next try may do.
    Failed,
    /// What was to be written is wrong.
    Refused,
}

/// What a write that ended means.
pub(super) struct Outcome {
    /// How often it failed in a row.
    pub(super) failures: u32,
    /// Whether what the server answered is what is there, as far as anybody knows.
    pub(super) is_current: bool,
}

impl Ledger {
    /// Whether to write now what differs from what is seen; if so it counts as under way, and this says how often in a row
    /// somebody else changed it.
    pub(super) fn begins(
        &mut self,
        id: &ObjectId,
        part: Part,
        content: &Value,
        version: Option<&str>,
        now: Instant,
    ) -> Option<u32> {
        let content = hash(content);
        let key = (id.clone(), part);
        let (mut failures, mut repairs) = (0, 0);
        if let Some(entry) = self.entries.get_mut(&key) {
            match &entry.state {
                State::UnderWay { .. } => return None,
                State::Done { version: ours, .. }
                    if entry.content == content && ours.as_deref() == version =>
                {
                    return None;
                }
                State::Done { at, .. } if entry.content == content => {
                    repairs = if now < *at + STAYS { entry.repairs.saturating_add(1) } else { 1 };
                    entry.rest_until = *at + pause(repairs);
                    if now < entry.rest_until {
                        return None;
                    }
                }
                State::Refused { was_there }
                    if entry.content == content
                        && *was_there == version.is_some()
                        && now < entry.rest_until =>
                {
                    return None;
                }
                State::Done { .. } | State::Refused { .. } => {}
                State::Failed => (failures, repairs) = (entry.failures, entry.repairs),
            }
            if now < entry.not_before {
                return None;
            }
        }
        let state = State::UnderWay { version: version.map(str::to_owned), is_overtaken: false };
        let entry = Entry { state, content, failures, repairs, not_before: now, rest_until: now };
        self.entries.insert(key, entry);
        Some(repairs)
    }

    /// Notes how a write ended.
    pub(super) fn ended(&mut self, id: &ObjectId, part: Part, end: End<'_>, now: Instant) -> Outcome {
        let nothing = Outcome { failures: 0, is_current: false };
        let Some(entry) = self.entries.get_mut(&(id.clone(), part)) else { return nothing };
        let State::UnderWay { version, is_overtaken } = &mut entry.state else { return nothing };
        let (before, is_current) = (version.take(), !*is_overtaken);
        match end {
            End::Done(answered) => {
                let calm = if part == Part::Status { STATUS_CALM } else { Duration::ZERO };
                let version = answered.map(str::to_owned).or(before);
                (entry.state, entry.failures) = (State::Done { version, at: now }, 0);
                entry.not_before = now + calm;
                Outcome { failures: 0, is_current }
            }
            End::Failed => {
                let wait = RETRY_MIN * 2u32.saturating_pow(entry.failures.min(16));
                entry.not_before = now + wait.min(RETRY_MAX);
                (entry.state, entry.failures) = (State::Failed, entry.failures.saturating_add(1));
                Outcome { failures: entry.failures, is_current: false }
            }
            End::Refused => {
                entry.state = State::Refused { was_there: before.is_some() };
                entry.rest_until = now + REFUSED;
                nothing
            }
        }
    }

    /// Notes that an object is gone: what is answered to a write of before says nothing any more.
    pub(super) fn gone(&mut self, id: &ObjectId) {
        for part in [Part::Object, Part::Status] {
            self.entries.get_mut(&(id.clone(), part)).into_iter().for_each(Entry::overtake);
        }
    }

    /// The same of everything that a list tells: what came and went while nobody watched is not in it.
    pub(super) fn listed(&mut self, source: &Source) {
        let told = self.entries.iter_mut().filter(|((id, _), _)| source.tells_of(id));
        told.for_each(|(_, entry)| entry.overtake());
    }

    /// How many objects are being written, statuses apart.
    pub(super) fn objects_under_way(&self) -> usize {
        let is_it =
            |(key, entry): &(&(ObjectId, Part), &Entry)| key.1 == Part::Object && entry.is_under_way();
        self.entries.iter().filter(is_it).count()
    }

    /// When something that waits may be written.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let waits = self.entries.values().filter(|entry| !entry.is_under_way());
        waits.flat_map(|entry| [entry.not_before, entry.rest_until]).filter(|time| *time > now).min()
    }

    /// Forgets objects that are neither there nor wanted.
    pub(super) fn retain(&mut self, keep: impl Fn(&ObjectId) -> bool) {
        self.entries.retain(|(id, _), entry| entry.is_under_way() || keep(id));
    }
}

impl Entry {
    fn is_under_way(&self) -> bool {
        matches!(self.state, State::UnderWay { .. })
    }

    fn overtake(&mut self) {
        if let State::UnderWay { is_overtaken, .. } = &mut self.state {
            *is_overtaken = true;
        }
    }
}

/// How long what was written last is left to others before it is put back that many times in a row.
fn pause(repairs: u32) -> Duration {
    match repairs.checked_sub(2) {
        Some(more) => (REPAIR_MIN * 2u32.saturating_pow(more.min(16))).min(REPAIR_MAX),
        None => Duration::ZERO,
    }
}

fn hash(content: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operator::build::Kind;

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
            self.repairs(part, content, version).is_some()
        }

        /// Version 0: there is none.
        fn repairs(&mut self, part: Part, content: i32, version: &str) -> Option<u32> {
            let version = Some(version).filter(|version| *version != "0");
            self.ledger.begins(&self.id, part, &json!(content), version, self.now)
        }

        /// Whether the answer counts.
        fn ends(&mut self, part: Part, version: &str) -> bool {
            self.ledger.ended(&self.id, part, End::Done(Some(version)), self.now).is_current
        }
    }

    #[test]
    fn what_is_under_way_is_not_written_again() {
        let mut written = Written::new();
        assert!(written.begins(Part::Object, 1, "1"));
        assert!(!written.begins(Part::Object, 2, "2"));
        assert!(written.ends(Part::Object, "3"));
        assert!(written.begins(Part::Object, 2, "3"));
    }

    #[test]
    fn what_the_server_keeps_in_other_words_is_written_once() {
        let mut written = Written::new();
        assert!(written.begins(Part::Object, 1, "1"));
        written.ends(Part::Object, "2");
        assert!(!written.begins(Part::Object, 1, "2"));
        assert!(written.begins(Part::Object, 1, "3"), "somebody changed it");
    }

    #[test]
    fn what_is_being_deleted_is_deleted_once() {
        let mut written = Written::new();
        assert!(written.begins(Part::Object, 1, "1"));
        written.ledger.ended(&written.id, Part::Object, End::Done(None), written.now);
        assert!(!written.begins(Part::Object, 1, "1"));
    }

    #[test]
    fn what_failed_is_tried_again_later_and_later() {
        let mut written = Written::new();
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert!(written.begins(Part::Object, 1, "1"));
            written.ledger.ended(&written.id, Part::Object, End::Failed, written.now);
            assert!(!written.begins(Part::Object, 1, "1"));
            let next = written.ledger.next(written.now).expect("it waits");
            waits.push(next - written.now);
            written.now = next;
        }
        assert_eq!(waits[0], RETRY_MIN);
        assert!(waits.is_sorted());
        assert_eq!(waits.last(), Some(&RETRY_MAX));
    }

    #[test]
    fn what_somebody_changes_in_a_loop_is_put_back_later_and_later() {
        let mut written = Written::new();
        let mut waits = Vec::new();
        assert!(written.begins(Part::Object, 1, "0"));
        written.ends(Part::Object, "10");
        for count in 1..12 {
            // Somebody changes it at once.
            let (begun, theirs) = (written.now, format!("{count}1"));
            let repairs = written.repairs(Part::Object, 1, &theirs).or_else(|| {
                written.now = written.ledger.next(begun).expect("it waits");
                written.repairs(Part::Object, 1, &theirs)
            });
            assert_eq!(repairs, Some(count));
            waits.push(written.now - begun);
            written.ends(Part::Object, &format!("{count}2"));
        }
        assert_eq!(waits[..3], [Duration::ZERO, REPAIR_MIN, REPAIR_MIN * 2]);
        assert_eq!(waits.last(), Some(&REPAIR_MAX));
        assert!(!written.begins(Part::Object, 1, "999"));
        assert!(written.begins(Part::Object, 2, "999"), "what we want now waits for nobody");
    }

    #[test]
    fn what_stays_for_a_while_is_put_back_at_once() {
        let mut written = Written::new();
        assert!(written.begins(Part::Object, 1, "0"));
        for theirs in ["11", "21", "31"] {
            written.ends(Part::Object, "10");
            written.now += STAYS;
            assert_eq!(written.repairs(Part::Object, 1, theirs), Some(1));
        }
    }

    #[test]
    fn a_status_is_written_at_most_once_a_second() {
        let mut written = Written::new();
        assert!(written.begins(Part::Status, 1, "1"));
        written.ends(Part::Status, "2");
        assert!(!written.begins(Part::Status, 2, "2"));
        assert_eq!(written.ledger.next(written.now), Some(written.now + STATUS_CALM));
        written.now += STATUS_CALM;
        assert!(written.begins(Part::Status, 2, "2"));
    }

    #[test]
    fn an_answer_counts_unless_something_newer_was_seen() {
        let mut written = Written::new();
        let source = |kind| Source { kind, namespace: None };
        assert!(written.begins(Part::Object, 1, "0"));
        written.ledger.gone(&written.id);
        assert!(!written.ends(Part::Object, "1"), "it was seen, and seen to be gone, before the answer came");
        assert!(written.begins(Part::Object, 1, "0"), "so it is made again");
        written.ledger.listed(&source(Kind::Secret));
        assert!(written.ends(Part::Object, "2"), "this was another list");
        assert!(written.begins(Part::Object, 2, "2"));
        written.ledger.listed(&source(Kind::Service));
        assert!(!written.ends(Part::Object, "3"), "it may have gone while nobody watched");
    }

    #[test]
    fn what_was_refused_waits_until_it_is_something_else() {
        let mut written = Written::new();
        assert!(written.begins(Part::Object, 1, "v1"));
        written.ledger.ended(&written.id, Part::Object, End::Refused, written.now);
        assert!(!written.begins(Part::Object, 1, "v1"));
        assert!(!written.begins(Part::Object, 1, "v2"), "its own status moves its version");
        assert!(written.begins(Part::Object, 2, "v2"));
        written.ledger.ended(&written.id, Part::Object, End::Refused, written.now);
        assert!(written.begins(Part::Object, 2, "0"), "what cannot be changed may be made anew");
    }

    #[test]
    fn what_was_refused_is_tried_again_all_the_same() {
        let mut written = Written::new();
        for _ in 0..2 {
            assert!(written.begins(Part::Object, 1, "v1"));
            written.ledger.ended(&written.id, Part::Object, End::Refused, written.now);
            let next = written.ledger.next(written.now).expect("it waits");
            assert_eq!(next, written.now + REFUSED);
            written.now = next;
        }
    }

    #[test]
    fn an_object_that_nobody_wants_is_forgotten() {
        let mut written = Written::new();
        assert!(written.begins(Part::Object, 1, "1"));
        written.ledger.retain(|_| false);
        assert!(!written.begins(Part::Object, 1, "1"), "it is under way");
        written.ends(Part::Object, "1");
        written.ledger.retain(|_| false);
        assert!(written.begins(Part::Object, 1, "1"));
    }
}

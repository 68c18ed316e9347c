//! How changes lie on disk: which key holds what.
//!
//! Three spaces. `Sessions`: partition, number, kind, then for a subscription its filter. `Queues`: partition, number, the
//! ordinal of the first message; the value is a *chunk*, as many messages of the session as one batch brought. `Retained`:
//! partition of the topic, topic. Numbers in keys are big-endian, so that what belongs together lies together.
//!
//! A queue is append, read, truncate. A batch brings a session one chunk, however many messages it gets; truncating drops
//! whole chunks, and what was answered before it was ever written is not written at all. Whatever a batch says twice, it
//! writes once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use sha2::{Digest, Sha256};

use super::{NUMBER_MAX, Op, Partition, SessionKey, Stored, StoredSession};

/// A family of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Space {
    /// Who sessions are.
    Sessions,
    /// What waits for them.
    Queues,
    /// Retained messages.
    Retained,
}

/// All of them.
pub(super) const SPACES: [Space; 3] = [Space::Sessions, Space::Queues, Space::Retained];

/// What one batch writes: the last value of each key, `None` to remove it.
pub(super) type Writes = BTreeMap<(Space, Vec<u8>), Option<Vec<u8>>>;

/// A chunk grows no longer than this: a queue of large messages is truncated in time.
const CHUNK_BYTES_MAX: usize = 256 * 1024;
const IDENTITY: u8 = 0;
const SUBSCRIPTION: u8 = 1;
const PROGRESS: u8 = 2;
/// Partition and number.
const SESSION_KEY_BYTES: usize = 9;
/// The longest topic or filter that is part of its key: keys have 65,535 bytes at most.
const NAME_BYTES_MAX: usize = 32 * 1024;
/// Stands before the hash of a longer one; no topic and no filter begins with it.
const LONG: u8 = 0;

/// A chunk on disk: the ordinals it has.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    first: u64,
    end: u64,
}

/// A chunk that the batch at hand fills.
#[derive(Debug)]
struct Open {
    first: u64,
    end: u64,
    bytes: Vec<u8>,
}

/// Makes writes of ops, and knows where queues are on disk.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// The chunks of each queue, oldest first.
    queues: HashMap<SessionKey, VecDeque<Chunk>>,
    open: HashMap<SessionKey, Open>,
    writes: Writes,
}

impl Layout {
    /// Takes a change into the batch at hand. `keys_below` gives what is on disk below a prefix.
    pub(super) fn take<E>(
        &mut self,
        op: &Op,
        keys_below: impl FnMut(Space, &[u8]) -> Result<Vec<Vec<u8>>, E>,
    ) -> Result<(), E> {
        match op {
            Op::Session { key, value } => {
                self.put(Space::Sessions, below(*key, IDENTITY, b""), Some(value.clone()));
            }
            Op::Subscription { key, filter, value } => {
                let (name, value) = named(filter, value.as_deref());
                self.put(Space::Sessions, below(*key, SUBSCRIPTION, &name), value);
            }
            Op::Progress { key, head, value } => {
                self.put(Space::Sessions, below(*key, PROGRESS, b""), Some(value.clone()));
                self.truncate(*key, *head);
            }
            Op::Append { key, ordinal, value } => self.append(*key, *ordinal, value),
            Op::End { key } => return self.end(*key, keys_below),
            Op::Retain { topic, value } => {
                let (name, value) = named(topic, value.as_deref());
                let key = [&[Partition::of(topic).number()], &name[..]].concat();
                self.put(Space::Retained, key, value);
            }
        }
        Ok(())
    }

    /// The batch at hand, finished; the next begins.
    pub(super) fn finish(&mut self) -> Writes {
        let open = std::mem::take(&mut self.open);
        open.into_iter().for_each(|(key, chunk)| self.close(key, chunk));
        std::mem::take(&mut self.writes)
    }

    fn put(&mut self, space: Space, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.writes.insert((space, key), value);
    }

    fn append(&mut self, key: SessionKey, ordinal: u64, value: &[u8]) {
        let fits = |open: &Open| open.end == ordinal && open.bytes.len() + value.len() <= CHUNK_BYTES_MAX;
        if self.open.get(&key).is_some_and(|open| !fits(open))
            && let Some(full) = self.open.remove(&key)
        {
            self.close(key, full);
        }
        let new = || Open { first: ordinal, end: ordinal, bytes: Vec::new() };
        let open = self.open.entry(key).or_insert_with(new);
        open.end = ordinal + 1;
        open.bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        open.bytes.extend_from_slice(value);
    }

    fn close(&mut self, key: SessionKey, open: Open) {
        let Open { first, end, bytes } = open;
        self.queues.entry(key).or_default().push_back(Chunk { first, end });
        self.put(Space::Queues, queue_key(key, first), Some(bytes));
    }

    fn truncate(&mut self, key: SessionKey, head: u64) {
        if self.open.get(&key).is_some_and(|open| open.end <= head) {
            self.open.remove(&key);
        }
        let Some(queue) = self.queues.get_mut(&key) else { return };
        while let Some(chunk) = queue.front().copied().filter(|chunk| chunk.end <= head) {
            queue.pop_front();
            self.writes.insert((Space::Queues, queue_key(key, chunk.first)), None);
        }
        if queue.is_empty() {
            self.queues.remove(&key);
        }
    }

    fn end<E>(
        &mut self,
        key: SessionKey,
        mut keys_below: impl FnMut(Space, &[u8]) -> Result<Vec<Vec<u8>>, E>,
    ) -> Result<(), E> {
        self.open.remove(&key);
        self.queues.remove(&key);
        let prefix = session_prefix(key);
        for space in [Space::Sessions, Space::Queues] {
            let from = Bound::Included((space, prefix.clone()));
            let in_batch = self.writes.range_mut((from, Bound::Unbounded));
            in_batch
                .take_while(|((of, key), _)| *of == space && key.starts_with(&prefix))
                .for_each(|(_, value)| *value = None);
            let on_disk = keys_below(space, &prefix)?;
            self.writes.extend(on_disk.into_iter().map(|key| ((space, key), None)));
        }
        Ok(())
    }

    /// Notes a key of the queues that is on disk, and its value. Gives what it holds, if it is one of ours.
    pub(super) fn find<'a>(&mut self, key: &[u8], value: &'a [u8]) -> Option<Found<'a>> {
        let (session, ordinal) = split(key)?;
        let first = u64::from_be_bytes(ordinal.try_into().ok()?);
        let messages = (first <= NUMBER_MAX).then(|| messages(value)).flatten()?;
        let chunk = Chunk { first, end: first + messages.len() as u64 };
        self.queues.entry(session).or_default().push_back(chunk);
        Some(Found { session, first, messages })
    }
}

/// A chunk as it was found.
pub(super) struct Found<'a> {
    session: SessionKey,
    first: u64,
    messages: Vec<&'a [u8]>,
}

/// Puts together what lies on disk, key by key in order.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) layout: Layout,
    pub(super) stored: Stored,
    /// What is no key or value of ours, or has no session.
    pub(super) strange: Vec<String>,
}

impl Reading {
    /// Takes one key and its value. Sessions come before queues.
    pub(super) fn take(&mut self, space: Space, key: &[u8], value: &[u8]) {
        let is_known = match space {
            Space::Sessions => self.take_session(key, value),
            Space::Queues => self.take_chunk(key, value),
            Space::Retained => self.take_retained(key, value),
        };
        if is_known.is_none() {
            self.strange.push(format!("{space:?} {}", key.escape_ascii()));
        }
    }

    fn take_session(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let (session, rest) = split(key)?;
        let (&kind, rest) = rest.split_first()?;
        if kind == IDENTITY && rest.is_empty() {
            self.stored.sessions.push(StoredSession {
                key: session,
                session: value.to_vec(),
                subscriptions: Vec::new(),
                progress: None,
                messages: Vec::new(),
            });
            return Some(());
        }
        let last = self.stored.sessions.last_mut().filter(|last| last.key == session)?;
        match kind {
            SUBSCRIPTION => {
                last.subscriptions.push(text_of(rest, value)?);
            }
            PROGRESS if rest.is_empty() => last.progress = Some(value.to_vec()),
            _ => return None,
        }
        Some(())
    }

    fn take_chunk(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let Found { session, first, messages } = self.layout.find(key, value)?;
        let at = self.stored.sessions.binary_search_by_key(&session, |one| one.key).ok()?;
        let messages = (first..).zip(messages.into_iter().map(<[u8]>::to_vec));
        self.stored.sessions[at].messages.extend(messages);
        Some(())
    }

    fn take_retained(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let (_, topic) = key.split_first()?;
        self.stored.retained.push(text_of(topic, value)?);
        Some(())
    }
}

fn messages(mut chunk: &[u8]) -> Option<Vec<&[u8]>> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = chunk.split_first_chunk::<4>() {
        let (message, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        messages.push(message);
        chunk = rest;
    }
    chunk.is_empty().then_some(messages)
}

fn session_prefix(key: SessionKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SESSION_KEY_BYTES + 9);
    bytes.push(key.partition.number());
    bytes.extend_from_slice(&key.number.to_be_bytes());
    bytes
}

fn below(key: SessionKey, kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = session_prefix(key);
    bytes.push(kind);
    bytes.extend_from_slice(rest);
    bytes
}

fn queue_key(key: SessionKey, first: u64) -> Vec<u8> {
    let mut bytes = session_prefix(key);
    bytes.extend_from_slice(&first.to_be_bytes());
    bytes
}

/// What stands for a text in a key, and its value. A long text, for which a key has no room, is in the value.
fn named(text: &str, value: Option<&[u8]>) -> (Vec<u8>, Option<Vec<u8>>) {
    if text.len() <= NAME_BYTES_MAX {
        return (text.as_bytes().to_vec(), value.map(<[u8]>::to_vec));
    }
    let mut name = vec![LONG];
    name.extend_from_slice(&Sha256::digest(text.as_bytes()));
    let length = (text.len() as u32).to_le_bytes();
    let with_text = |value: &[u8]| [&length, text.as_bytes(), value].concat();
    (name, value.map(with_text))
}

fn text_of(name: &[u8], value: &[u8]) -> Option<(String, Vec<u8>)> {
    let (text, value) = match name.first() {
        Some(&LONG) => {
            let (length, rest) = value.split_first_chunk::<4>()?;
            rest.split_at_checked(u32::from_le_bytes(*length) as usize)?
        }
        _ => (name, value),
    };
    Some((std::str::from_utf8(text).ok()?.to_owned(), value.to_vec()))
}

fn split(key: &[u8]) -> Option<(SessionKey, &[u8])> {
    let (&partition, rest) = key.split_first()?;
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let number = Some(u64::from_be_bytes(*number)).filter(|&number| number <= NUMBER_MAX)?;
    Some((SessionKey { partition: Partition(partition), number }, rest))
}

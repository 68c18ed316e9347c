//! Between the core and its store: what was found goes in at the start, and what the store says goes in as it comes.
//!
//! The store's thread calls a listener, which hands the event to a task on this thread; the channel between them holds no
//! more than what the core has under way. What cannot be read is named in the log and left where it is.

use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::core::Place;
use super::shard::Shard;
use crate::store::{Client, Event, Store, Stored};

/// A shard's way to the store, and what the store had of its.
pub(super) struct Kept {
    client: Client,
    events: UnboundedReceiver<Event>,
    stored: Stored,
}

impl Kept {
    /// A way in for one more shard.
    pub(super) fn join(store: &mut Store, stored: Stored) -> Kept {
        let (say, events) = unbounded_channel();
        let client = store.join(Arc::new(move |event| {
            // A shard that is gone needs nothing any more.
            let _ = say.send(event);
        }));
        Kept { client, events, stored }
    }
}

/// What was found, by the shards where it is at home.
pub(super) fn split(stored: Stored, place: Place) -> Vec<Stored> {
    let mut parts: Vec<Stored> = (0..place.count()).map(|_| Stored::default()).collect();
    for session in stored.sessions {
        parts[usize::from(place.home(session.key.partition))].sessions.push(session);
    }
    for (topic, value) in stored.retained {
        parts[usize::from(place.home_of(&topic))].retained.push((topic, value));
    }
    parts
}

/// Has the core keep what must survive, and takes back what was found.
pub(super) fn begin(shard: &Rc<Shard>, kept: Kept) {
    let Kept { client, events, stored } = kept;
    *shard.store.borrow_mut() = Some(client);
    restore(shard, stored);
    let follower = shard.spawn(follow(Rc::clone(shard), events));
    shard.tasks.borrow_mut().push(follower);
}

fn restore(shard: &Rc<Shard>, stored: Stored) {
    let begun = Instant::now();
    let (sessions, retained) = (stored.sessions.len(), stored.retained.len());
    // Numbers are used once: above all that are there, and above those that were there at other times.
    let last = stored.sessions.iter().map(|session| session.key.number).max().unwrap_or(0);
    let first = (last + 1).max(wall_ms() << NUMBERS_PER_MS_BITS);
    shard.with_core(|core| {
        core.use_store(first, begun, wall_ms());
        for session in stored.sessions {
            if let Err(error) = core.restore_session(&session, begun) {
                let (partition, number) = (session.key.partition.number(), session.key.number);
                tracing::error!(partition, number, %error, "a stored session is of no use; it is left where it is");
            }
        }
        for (topic, value) in stored.retained {
            if let Err(error) = core.restore_retained(&topic, &value, begun) {
                tracing::error!(topic, %error, "a stored message is of no use; it is left where it is");
            }
        }
    });
    tracing::info!(sessions, retained, took_ms = begun.elapsed().as_millis(), "took back what was stored");
}

/// More sessions than that do not begin within a millisecond.
const NUMBERS_PER_MS_BITS: u32 = 20;

async fn follow(shard: Rc<Shard>, mut events: UnboundedReceiver<Event>) {
    while let Some(event) = events.recv().await {
        let now = Instant::now();
        shard.with_core(|core| match event {
            Event::Persisted(token) => core.handle_persisted(token, now),
            Event::Down(lost) => core.handle_store_down(&lost, now),
            Event::Up => core.handle_store_up(),
        });
    }
}

/// Milliseconds since 1970.
pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

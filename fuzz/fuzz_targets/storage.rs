//! A disk that holds anything. Journals of any bytes are read to their end; keys and values of any bytes are refused or taken,
//! and what was taken is served, written, and read back as the same.
#![no_main]

use std::io::Cursor;
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use mqlink_fuzz::broker::core::{Core, Effect};
use mqlink_fuzz::settings::Limits;
use mqlink_fuzz::store::{Scan, Shelf, Stored, scan};

const WALL_MS: u64 = 1_800_000_000_000;

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((0, journal)) => read_journal(journal),
        Some((_, keys)) => read_keys(keys),
        None => {}
    }
});

fn read_journal(journal: &[u8]) {
    let scanned = scan(Cursor::new(journal)).expect("memory has no errors");
    if let Scan::Torn(at) | Scan::Damaged(at) = scanned {
        let whole = scan(Cursor::new(&journal[..at as usize])).expect("memory has no errors");
        assert!(matches!(whole, Scan::Whole | Scan::Empty), "what comes before the first mistake is whole");
    }
}

/// Space, length of the key, key, length of the value, value, and so on.
fn read_keys(mut input: &[u8]) {
    let mut shelf = Shelf::default();
    while let [space, key_length, rest @ ..] = input {
        let (key, rest) = rest.split_at(rest.len().min(usize::from(*key_length)));
        let Some((value_length, rest)) = rest.split_first() else { break };
        let (value, rest) = rest.split_at(rest.len().min(usize::from(*value_length)));
        shelf.put(*space, key, value);
        input = rest;
    }
    let (stored, _) = shelf.read_any();
    let now = Instant::now();
    let mut core = Core::new(Limits::default(), true, 1, now);
    let first = stored.sessions.iter().map(|session| session.key.number).max().unwrap_or(0);
    core.use_store(first.saturating_add(1), now, WALL_MS);
    let mut taken = Stored::default();
    for session in stored.sessions {
        if core.restore_session(&session, now).is_ok() {
            taken.sessions.push(session);
        }
    }
    for (topic, value) in stored.retained {
        if core.restore_retained(&topic, &value, now).is_ok() {
            taken.retained.push((topic, value));
        }
    }
    while core.has_work() {
        core.handle_work(now);
    }
    while let Some(effect) = core.poll_effect() {
        if let Effect::Persist(token, batch) = effect {
            shelf.apply(&batch.ops);
            core.handle_persisted(token, now);
        }
    }
    core.handle_timeout(now);
    // Every one is read again; what was mended meanwhile is as good.
    let (after, _) = shelf.read_any();
    let mut again = Core::new(Limits::default(), true, 1, now);
    again.use_store(u64::MAX / 2, now, WALL_MS);
    for session in after.sessions {
        if taken.sessions.iter().any(|one| one.key == session.key) {
            again.restore_session(&session, now).expect("what was taken once is taken again");
        }
    }
}

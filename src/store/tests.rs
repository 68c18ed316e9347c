use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use super::layout::{SPACES, Space};
use super::shelf::Shelf;
use super::twin::{Mood, Twin};
use super::*;

mod damage;

#[test]
fn a_client_id_keeps_its_partition_forever() {
    // Literals on purpose: a change here would orphan stored sessions.
    let known = ["", "a", "sensor-1", "sensor-2", "ünï"].map(|id| Partition::of(id).number());
    assert_eq!(known, [225, 187, 29, 44, 192]);
}

#[test]
fn client_ids_spread_over_all_partitions() {
    let mut seen = [0_u32; PARTITIONS];
    for n in 0..25_600 {
        seen[usize::from(Partition::of(&format!("client-{n}")).number())] += 1;
    }
    assert!(seen.iter().all(|&count| (40..220).contains(&count)), "{seen:?}");
}

const KEY: SessionKey = SessionKey { partition: Partition(7), number: 1 };

fn session() -> Op {
    Op::Session { key: KEY, value: b"who".to_vec() }
}

fn append(ordinal: u64) -> Op {
    Op::Append { key: KEY, ordinal, value: ordinal.to_string().into_bytes() }
}

fn progress(head: u64) -> Op {
    Op::Progress { key: KEY, head, value: head.to_string().into_bytes() }
}

fn subscription(filter: &str, value: Option<&str>) -> Op {
    Op::Subscription {
        key: KEY,
        filter: filter.to_owned(),
        value: value.map(|text| text.as_bytes().to_vec()),
    }
}

fn retain(topic: &str, value: Option<&str>) -> Op {
    Op::Retain { topic: topic.into(), value: value.map(|text| text.as_bytes().to_vec()) }
}

fn ordinals(stored: &Stored) -> Vec<u64> {
    stored.sessions.iter().flat_map(|session| session.messages.iter().map(|(ordinal, _)| *ordinal)).collect()
}

#[test]
fn what_is_written_is_read() {
    let mut shelf = Shelf::default();
    let long = "x/".repeat(20_000);
    shelf.apply(&[
        session(),
        subscription("a/+", Some("1")),
        subscription(&long, Some("2")),
        append(0),
        append(1),
    ]);
    shelf.apply(&[
        append(2),
        progress(0),
        retain("r", Some("3")),
        retain(&long, Some("4")),
        retain("s", Some("5")),
    ]);
    shelf.apply(&[retain("s", None), subscription("a/+", None)]);
    let stored = shelf.read();
    assert_eq!(stored.sessions.len(), 1);
    let found = &stored.sessions[0];
    assert_eq!(
        (found.key, &found.session[..], found.progress.as_deref()),
        (KEY, &b"who"[..], Some(&b"0"[..]))
    );
    assert_eq!(found.subscriptions, [(long.clone(), b"2".to_vec())]);
    assert_eq!(found.messages, [(0, b"0".to_vec()), (1, b"1".to_vec()), (2, b"2".to_vec())]);
    let mut retained = stored.retained;
    retained.sort();
    assert_eq!(retained, [("r".to_owned(), b"3".to_vec()), (long, b"4".to_vec())]);
}

/// Found by the fuzzer of storage: the ordinal behind the chunk did not fit.
#[test]
fn numbers_that_nobody_reaches_are_damage() {
    let chunk = [1, 0, 0, 0, b'x'];
    for (number, ordinal, is_ours) in
        [(1, 0, true), (1, NUMBER_MAX, true), (1, u64::MAX, false), (u64::MAX, 0, false)]
    {
        let mut shelf = Shelf::default();
        let prefix = [&[7][..], &u64::to_be_bytes(number)].concat();
        shelf.put(0, &[&prefix[..], &[0]].concat(), b"who");
        shelf.put(1, &[&prefix[..], &u64::to_be_bytes(ordinal)].concat(), &chunk);
        let (stored, strange) = shelf.read_any();
        assert_eq!(
            (ordinals(&stored).len() == 1, strange.is_empty()),
            (is_ours, is_ours),
            "{number} {ordinal}"
        );
    }
}

/// Found by the fuzzer of storage: two keys for the same thing, of which the later was taken.
#[test]
fn a_key_that_goes_on_is_damage() {
    let prefix = [&[7][..], &u64::to_be_bytes(1)].concat();
    let mut shelf = Shelf::default();
    for (kind, is_longer, value) in
        [(0, false, "who"), (0, true, "who else"), (2, false, "far"), (2, true, "farther")]
    {
        let rest = [kind, b'x'];
        shelf.put(0, &[&prefix[..], &rest[..1 + usize::from(is_longer)]].concat(), value.as_bytes());
    }
    let (stored, strange) = shelf.read_any();
    assert_eq!((stored.sessions.len(), strange.len()), (1, 2));
    assert_eq!(stored.sessions[0].session, b"who");
    assert_eq!(stored.sessions[0].progress.as_deref(), Some(&b"far"[..]));
}

#[test]
fn a_queue_is_written_by_the_batch_and_truncated_by_the_chunk() {
    let mut shelf = Shelf::default();
    shelf.apply(&[session(), progress(0)]);
    let keys = shelf.key_count();
    shelf.apply(&(0..100).map(append).collect::<Vec<_>>());
    shelf.apply(&(100..200).map(append).collect::<Vec<_>>());
    assert_eq!(shelf.key_count(), keys + 2);
    shelf.apply(&[progress(99)]);
    assert_eq!(shelf.key_count(), keys + 2);
    shelf.apply(&[progress(150)]);
    assert_eq!(ordinals(&shelf.read()), (100..200).collect::<Vec<_>>());
    shelf.apply(&[append(200), progress(201)]); // the last one is never written
    assert_eq!(shelf.key_count(), keys);
}

#[test]
fn a_session_that_ends_leaves_nothing_and_may_begin_again_in_the_same_batch() {
    let mut shelf = Shelf::default();
    shelf.apply(&[session(), subscription("a", Some("1")), append(0), append(1)]);
    shelf.apply(&[append(2), Op::End { key: KEY }, session(), append(1)]);
    let stored = shelf.read();
    assert_eq!((ordinals(&stored), stored.sessions[0].subscriptions.len()), (vec![1], 0));
    shelf.apply(&[Op::End { key: KEY }]);
    assert_eq!(shelf.key_count(), 0);
}

fn joined(twin: &Twin, durability: Durability) -> (Store, Client, Receiver<Event>, Stored) {
    let (mut store, stored, strange) = Store::start(twin.opener(), durability).expect("it opens");
    assert!(strange.is_empty(), "{strange:?}");
    let (say, heard) = channel();
    let client = store.join(Arc::new(move |event| drop(say.send(event))));
    (store, client, heard, stored)
}

#[test]
fn always_means_the_disk_and_interval_means_soon() {
    for (durability, syncs) in [(Durability::Interval, 0), (Durability::Always, 1)] {
        let twin = Twin::default();
        let (_store, client, heard, _) = joined(&twin, durability);
        client.persist(Token(1), vec![session()].into());
        assert_eq!((heard.recv(), twin.syncs()), (Ok(Event::Persisted(Token(1))), syncs));
    }
}

#[test]
fn a_journal_that_cannot_be_synced_is_a_failure_of_the_store() {
    let root = tempfile::tempdir().expect("a folder");
    assert!(!disk::fails_to_sync(root.path()), "there is nothing to sync");
    assert!(disk::fails_to_sync(&root.path().join("gone")));
}

#[test]
fn what_was_promised_under_always_survives_the_loss_of_power() {
    for (durability, kept) in [(Durability::Always, vec![0, 1, 2]), (Durability::Interval, vec![])] {
        let twin = Twin::default();
        let (store, client, heard, _) = joined(&twin, durability);
        client.persist(Token(1), vec![session()].into());
        (0..3).for_each(|at| client.persist(Token(2 + at), vec![append(at)].into()));
        while heard.recv() != Ok(Event::Persisted(Token(4))) {}
        twin.lose_power();
        let (_store, _, _, stored) = joined(&twin, durability);
        let found = stored.sessions.first().map(|_| ordinals(&stored)).unwrap_or_default();
        assert_eq!(found, kept, "{durability:?}");
        drop(store);
    }
}

#[test]
fn a_store_that_fails_says_so_gives_back_what_comes_and_comes_back() {
    for mood in [Mood::Full, Mood::FailsAfter] {
        let twin = Twin::default();
        let (store, client, heard, _) = joined(&twin, Durability::Interval);
        client.persist(Token(1), vec![session()].into());
        assert_eq!(heard.recv(), Ok(Event::Persisted(Token(1))));
        twin.set(mood);
        client.persist(Token(2), vec![append(0)].into());
        assert_eq!(heard.recv(), Ok(Event::Down(vec![append(0)])));
        client.persist(Token(3), vec![append(1)].into());
        assert_eq!(heard.recv(), Ok(Event::Down(vec![append(1)])));
        assert!(store.trouble().is_some_and(|why| why.contains("no space is left")));
        twin.set(Mood::Good);
        assert_eq!(heard.recv(), Ok(Event::Up));
        client.persist(Token(4), vec![Op::End { key: KEY }, session(), append(1)].into());
        assert_eq!(heard.recv(), Ok(Event::Persisted(Token(4))));
        assert_eq!(store.trouble(), None);
        drop(store);
        let (_store, _, _, stored) = joined(&twin, Durability::Interval);
        assert_eq!(ordinals(&stored), [1]);
    }
}

#[test]
fn a_sync_that_fails_when_nobody_writes_any_more_is_a_failure_all_the_same() {
    let twin = Twin::default();
    let (_store, client, heard, _) = joined(&twin, Durability::Interval);
    twin.set(Mood::FailsToSync);
    client.persist(Token(1), vec![session()].into());
    assert_eq!(heard.recv(), Ok(Event::Persisted(Token(1))));
    assert_eq!(heard.recv(), Ok(Event::Down(Vec::new())));
    assert_eq!(heard.recv(), Ok(Event::Up));
}

#[test]
fn a_store_that_comes_back_is_read_once_there_is_room_and_only_where_queues_lie() {
    let twin = Twin::default();
    let (_store, client, heard, _) = joined(&twin, Durability::Interval);
    client.persist(Token(1), vec![session(), append(0), retain("r", Some("1"))].into());
    assert_eq!(heard.recv(), Ok(Event::Persisted(Token(1))));
    assert_eq!(twin.reads(), SPACES);
    twin.set(Mood::Tight);
    client.persist(Token(2), vec![append(1)].into());
    assert_eq!(heard.recv(), Ok(Event::Down(vec![append(1)])));
    assert_eq!(heard.recv(), Ok(Event::Up));
    assert_eq!(twin.reads()[SPACES.len()..], [Space::Queues]);
    client.persist(Token(3), vec![progress(1)].into()); // it knows what to truncate
    assert_eq!(heard.recv(), Ok(Event::Persisted(Token(3))));
    let (_store, _, _, stored) = joined(&twin, Durability::Interval);
    assert!(ordinals(&stored).is_empty());
}

#[test]
fn however_many_batches_are_lost_they_are_given_back_at_once() {
    let twin = Twin::default();
    let (say, heard) = channel();
    let (enter, entered) = channel();
    let (go, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let (mut store, ..) = Store::start(twin.opener(), Durability::Interval).expect("it opens");
    let client = store.join(Arc::new(move |event| {
        let _ = enter.send(());
        let _ = wait.lock().expect("nobody panics with it").recv();
        drop(say.send(event));
    }));
    twin.set(Mood::Full);
    let persist = |at| client.persist(Token(1 + at), vec![append(at)].into());
    persist(0);
    entered.recv().expect("it fails");
    (1..100).for_each(persist); // the writer hears nothing of them yet
    drop(go);
    assert_eq!(heard.recv(), Ok(Event::Down(vec![append(0)])));
    assert_eq!(heard.recv(), Ok(Event::Down((1..100).map(append).collect())));
}

fn on_disk(dir: &Path, ops: Vec<Op>) -> Found {
    let (mut store, found) = Store::open(dir, Durability::Always).expect("it opens");
    let (say, heard) = channel();
    let client = store.join(Arc::new(move |event| drop(say.send(event))));
    client.persist(Token(1), ops.into());
    assert_eq!(heard.recv(), Ok(Event::Persisted(Token(1))));
    found
}

#[test]
fn a_disk_gives_back_what_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("a/store");
    on_disk(&dir, vec![session(), append(0), append(1), retain("r", Some("1"))]);
    let found = on_disk(&dir, vec![progress(1), append(2)]);
    assert_eq!((ordinals(&found.stored), found.stored.retained.len()), (vec![0, 1], 1));
    let found = on_disk(&dir, vec![Op::End { key: KEY }]);
    assert_eq!(ordinals(&found.stored), [0, 1, 2]);
    assert_eq!(on_disk(&dir, vec![session()]).stored.sessions.len(), 0);
}

#[test]
fn a_store_of_a_later_version_of_others_or_in_use_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let refused = |dir: &Path| Store::open(dir, Durability::Interval).expect_err("it is refused").to_string();
    let dir = root.path().join("store");
    let open = Store::open(&dir, Durability::Interval).unwrap();
    assert!(refused(&dir).contains("another process uses it"));
    drop(open);
    let marker = dir.join("mqlink-store");
    std::fs::write(&marker, "3\n").unwrap();
    assert!(refused(&dir).contains("it was written in format 3, and this version reads 2"));
    // One of an earlier version is read, and from then on it is no longer for that.
    std::fs::write(&marker, "1\n").unwrap();
    drop(Store::open(&dir, Durability::Interval).unwrap());
    assert_eq!(std::fs::read_to_string(&marker).unwrap(), "2\n");
    let foreign = root.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("theirs"), "").unwrap();
    assert!(refused(&foreign).contains("files that are not ours"));
}

/// The journal of a store that is written to.
fn journal(dir: &Path) -> std::path::PathBuf {
    let files = dir.join("data").read_dir().unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .max()
        .expect("there is one")
}

#[test]
fn a_torn_tail_costs_no_more_than_the_batch_that_it_tore() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    on_disk(&dir, vec![session(), append(0)]);
    let whole = std::fs::read(journal(&dir)).unwrap();
    let end_of = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    let before = end_of(&whole);
    on_disk(&dir, vec![append(1)]);
    let all = std::fs::read(journal(&dir)).unwrap();
    for torn in [before + 1, before + 14, (before + end_of(&all)) / 2, end_of(&all) - 1] {
        std::fs::write(journal(&dir), &all[..torn]).unwrap();
        let (store, found) = Store::open(&dir, Durability::Interval).unwrap();
        assert_eq!(ordinals(&found.stored), [0], "torn at {torn}");
        drop(store);
    }
}

#[test]
fn half_a_message_is_not_written_at_the_end_either() {
    let twin = Twin::default();
    let (store, client, _heard, _) = joined(&twin, Durability::Always);
    let gave = vec![Handed { with: 1, lane: 0, number: 1 }];
    client.persist(Token(1), Batch { ops: vec![session()], gave, took: Vec::new() });
    drop(store);
    let (_store, _client, _heard, stored) = joined(&twin, Durability::Always);
    assert!(stored.sessions.is_empty());
}

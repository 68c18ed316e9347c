//! Files that hold something else than what was written: the broker starts, and says what it set aside.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fjall::{Database, KeyspaceCreateOptions};
use xxhash_rust::xxh3::xxh3_128;

use super::*;
use crate::store::disk;
use crate::store::journal::{Scan, scan, scan_up_to, write_anew};
use crate::testing::logged;

/// In memory, where there is such a place: a disk would be asked thousands of times to sync.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// A store of a few batches, the directory and how many messages each journal position can have.
fn written(root: &Path) -> PathBuf {
    let dir = root.join("store");
    let (mut store, _) = Store::open(&dir, Durability::Always).expect("it opens");
    let (say, heard) = channel();
    let client = store.join(Arc::new(move |event| drop(say.send(event))));
    client.persist(Token(1), vec![session(), subscription("a", Some("1"))].into());
    assert_eq!(heard.recv(), Ok(Event::Persisted(Token(1))));
    for ordinal in 0..4 {
        client.persist(Token(2 + ordinal), vec![append(ordinal), retain("r", Some("x"))].into());
        assert_eq!(heard.recv(), Ok(Event::Persisted(Token(2 + ordinal))));
    }
    drop(store);
    let (store, _) = Store::open(&dir, Durability::Always).expect("it opens"); // the journal has its true length
    drop(store);
    dir
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("writable");
    for entry in from.read_dir().expect("readable").flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().expect("known").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("writable")),
        }
    }
}

fn files_below(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in dir.read_dir().expect("readable").flatten() {
        match entry.file_type().expect("known").is_dir() {
            true => files_below(&entry.path(), into),
            false => into.push(entry.path()),
        }
    }
}

/// What was set aside, file by file.
fn aside(dir: &Path) -> Vec<PathBuf> {
    let names = dir.read_dir().expect("readable").flatten();
    let mut files = Vec::new();
    names
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("damaged-"))
        .for_each(|entry| files_below(&entry.path(), &mut files));
    files
}

fn messages(found: &Found) -> Vec<u64> {
    found.stored.sessions.first().map(|_| ordinals(&found.stored)).unwrap_or_default()
}

#[test]
fn a_journal_of_the_engine_is_whole_to_us() {
    let root = folder();
    let dir = written(root.path());
    let bytes = fs::read(journal(&dir)).expect("readable");
    let scanned = |bytes: &[u8]| scan(Cursor::new(bytes)).expect("memory has no errors");
    assert!(bytes.len() > 200, "the batches are in it");
    assert_eq!(scanned(&bytes), Scan::Whole);
    assert_eq!(scanned(&[&bytes[..], &[0; 100_000]].concat()), Scan::Whole);
    assert!(matches!(scanned(&bytes[..bytes.len() - 1]), Scan::Torn(_)));
}

#[test]
fn a_start_copies_the_journals_and_leaves_nothing_behind() {
    let root = folder();
    let dir = written(root.path());
    let of = |file: &Path| (fs::read(file).expect("readable"), fs::metadata(file).expect("there").ino());
    let mut bytes = of(&journal(&dir)).0;
    bytes.resize(bytes.len() + 200_000, 0); // as the engine takes room
    fs::write(journal(&dir), &bytes).expect("writable");
    let (_, before) = of(&journal(&dir));
    write_anew(&dir.join("data")).expect("it works");
    let (copied, after) = of(&journal(&dir));
    assert!(copied == bytes && before != after);
    let names = dir.join("data").read_dir().expect("readable").flatten().map(|entry| entry.file_name());
    assert!(!names.into_iter().any(|name| name.to_string_lossy().contains("anew")));
    let (_store, found) = Store::open(&dir, Durability::Always).expect("it opens");
    assert_eq!(messages(&found), [0, 1, 2, 3]);
    assert_ne!(of(&journal(&dir)).1, after, "a start copies as well");
}

#[test]
fn a_message_that_looks_like_the_end_of_a_batch_keeps_no_store_down() {
    let root = folder();
    let dir = written(root.path());
    let before = fs::read(journal(&dir)).expect("readable");
    let (store, _) = Store::open(&dir, Durability::Always).expect("it opens");
    drop(store);
    let mut engine = disk::opener(dir.clone())().expect("it opens");
    let looks_like_an_end = b"\x03any sum FJL\x03".repeat(100);
    engine.commit([((Space::Queues, b"key".to_vec()), Some(looks_like_an_end))].into()).expect("written");
    drop(engine);
    let after = fs::read(journal(&dir)).expect("readable");
    let scanned =
        |failed, bytes: &[u8]| scan_up_to(failed, Cursor::new(bytes)).expect("memory has no errors");
    let torn = &after[..before.len() + 1_000];
    let at = before.len() as u64;
    assert_eq!(scanned(0, torn), Scan::Damaged(at)); // at a start nobody knows
    let number =
        (1..1_000).find(|&number| scanned(number + 1, torn) == Scan::Damaged(at)).expect("there is one");
    assert_eq!(scanned(number, torn), Scan::Torn(at));
    let mut damaged = torn.to_vec();
    damaged[before.len() / 2] ^= 0x55; // something that was acknowledged
    assert!(matches!(scanned(number, &damaged), Scan::Damaged(_)));
    fs::write(journal(&dir), torn).expect("writable");
    // The number of the next write is one more than that of the last that was acknowledged.
    let past = Arc::<disk::Past>::default();
    past.next.store(number, Ordering::Relaxed);
    let mut engine = disk::open(&dir, &past).expect("it opens");
    engine.commit([((Space::Retained, b"key".to_vec()), None)].into()).expect("written");
    assert!(past.next.load(Ordering::Relaxed) > number);
}

#[test]
fn a_byte_that_turns_over_in_a_journal_costs_what_came_after_it_and_is_told() {
    let root = folder();
    let dir = written(root.path());
    let bytes = fs::read(journal(&dir)).expect("readable");
    let Scan::Torn(last) = scan(Cursor::new(&bytes[..bytes.len() - 1])).expect("memory") else {
        panic!("the last batch is torn")
    };
    let mut found_so_far = 0;
    for at in (0..bytes.len()).step_by(5) {
        let damaged = root.path().join("damaged");
        copy(&dir, &damaged);
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x55;
        fs::write(journal(&damaged), &bytes).expect("writable");
        let (store, found) = Store::open(&damaged, Durability::Always).expect("it opens");
        let messages = messages(&found);
        // A greater number of the last batch does no harm.
        assert!(messages.len() < 4 || (last + 5..last + 13).contains(&(at as u64)), "byte {at}");
        assert_eq!(
            messages,
            (0..messages.len() as u64).collect::<Vec<_>>(),
            "byte {at}: what was there at a moment"
        );
        found_so_far = found_so_far.max(messages.len());
        let is_all = messages.len() == 4;
        let told =
            is_all || aside(&damaged).iter().any(|file| fs::read(file).is_ok_and(|copy| copy == bytes));
        // Without its end, the last batch is as one that was never finished.
        assert!(told || at as u64 >= last, "byte {at} is lost in silence");
        drop(store);
        fs::remove_dir_all(damaged).expect("it is there");
    }
    assert!(found_so_far >= 3);
}

/// A store with tables besides its journal.
fn with_tables(root: &Path) -> PathBuf {
    let dir = written(root);
    let database = Database::builder(dir.join("data")).open().expect("it opens");
    for name in ["sessions", "queues", "retained"] {
        let keyspace = database.keyspace(name, KeyspaceCreateOptions::default).expect("it is there");
        keyspace.rotate_memtable_and_wait().expect("it is written");
    }
    drop(database);
    dir
}

/// What is done to a file, in words and in deed.
type Harm = (String, Box<dyn Fn(&Path)>);

#[test]
fn whatever_happens_to_a_file_the_store_opens_and_says_what_it_set_aside() {
    let root = folder();
    let dir = with_tables(root.path());
    let mut files = Vec::new();
    files_below(&dir, &mut files);
    assert!(files.len() > 10, "{files:?}");
    let mut wrong = Vec::new();
    for file in files {
        let length = fs::metadata(&file).expect("it is there").len() as usize;
        let name = file.strip_prefix(&dir).expect("it is below").to_owned();
        let places = [0, length / 4, length / 2, length * 3 / 4, length.saturating_sub(1)];
        let mut harms: Vec<Harm> = vec![
            ("removed".to_owned(), Box::new(|file| fs::remove_file(file).expect("it is there"))),
            ("emptied".to_owned(), Box::new(|file| fs::write(file, "").expect("writable"))),
        ];
        for at in places.into_iter().filter(|at| *at < length) {
            let harm = move |file: &Path| {
                let mut bytes = fs::read(file).expect("readable");
                bytes[at] ^= 0x55;
                fs::write(file, bytes).expect("writable");
            };
            harms.push((format!("changed at {at} of {length}"), Box::new(harm)));
        }
        for (what, harm) in harms {
            let damaged = root.path().join("damaged");
            copy(&dir, &damaged);
            harm(&damaged.join(&name));
            let comes = match Store::open(&damaged, Durability::Always) {
                Ok((_, found)) => {
                    let is_whole = messages(&found) == [0, 1, 2, 3] && found.stored.retained.len() == 1;
                    match (is_whole, aside(&damaged).len()) {
                        (true, _) => "is whole".to_owned(),
                        (false, 0) => "is lost in silence".to_owned(),
                        (false, count) => format!("is set aside, {count} files"),
                    }
                }
                Err(error) => error.to_string(),
            };
            println!("{} {what}: {comes}", name.display());
            // Without a marker nobody knows whose it is.
            let is_refused = name == Path::new("mqlink-store") && what == "removed";
            let is_fine = if is_refused {
                comes.contains("not ours")
            } else {
                comes.starts_with("is whole") || comes.contains("aside")
            };
            if !is_fine {
                wrong.push(format!("{} {what}: {comes}", name.display()));
            }
            fs::remove_dir_all(damaged).expect("it is there");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_gone_as_a_whole_is_told_and_a_marker_costs_nothing_else() {
    let root = folder();
    let dir = with_tables(root.path());
    for name in ["data", "data/keyspaces"] {
        let damaged = root.path().join("damaged");
        copy(&dir, &damaged);
        fs::remove_dir_all(damaged.join(name)).expect("it is there");
        let error = disk::opener(damaged.clone())().err().expect("it is damaged").to_string();
        assert!(error.contains(&format!("{name} is gone")), "{error}");
        for _ in 0..2 {
            let (_store, found) = Store::open(&damaged, Durability::Always).expect("it opens");
            assert!(found.stored.sessions.is_empty());
        }
        assert!(!aside(&damaged).is_empty());
        fs::remove_dir_all(damaged).expect("it is there");
    }
    for (marker, harm) in [(&b""[..], false), (b"\xff", false), (b"format", true)] {
        let damaged = root.path().join("damaged");
        copy(&dir, &damaged);
        fs::write(damaged.join("mqlink-store"), marker).expect("writable");
        if harm {
            fs::remove_dir_all(damaged.join("data/keyspaces")).expect("it is there");
        }
        let (_store, found) = Store::open(&damaged, Durability::Always).expect("it opens");
        assert_eq!(messages(&found).is_empty(), harm);
        assert!(aside(&damaged).iter().any(|file| fs::read(file).is_ok_and(|bytes| bytes == marker)));
        fs::remove_dir_all(damaged).expect("it is there");
    }
}

fn sum(file: &Path) -> [u8; 16] {
    xxh3_128(&fs::read(file).expect("readable")).to_le_bytes()
}

/// Puts one sum where another is.
fn replace(file: &Path, before: [u8; 16], after: [u8; 16]) {
    let mut bytes = fs::read(file).expect("readable");
    let at = bytes.windows(16).position(|window| window == before).expect("it is there");
    bytes[at..at + 16].copy_from_slice(&after);
    fs::write(file, bytes).expect("writable");
}

/// Damage under sums that fit: only the engine can find it, when it reads.
#[test]
fn damage_that_only_the_engine_finds_is_told_with_its_folder() {
    let root = folder();
    let dir = with_tables(root.path());
    let mut files = Vec::new();
    files_below(&dir.join("data").join("keyspaces"), &mut files);
    let mut told = 0;
    for table in files.iter().filter(|file| file.parent().is_some_and(|parent| parent.ends_with("tables"))) {
        let damaged = root.path().join("damaged");
        copy(&dir, &damaged);
        let table = damaged.join(table.strip_prefix(&dir).expect("it is below"));
        let keyspace = table.ancestors().nth(2).expect("it is in one");
        let mut bytes = fs::read(&table).expect("readable");
        let before = xxh3_128(&bytes).to_le_bytes();
        bytes[8] ^= 0x55;
        fs::write(&table, &bytes).expect("writable");
        let number = fs::read(keyspace.join("current")).expect("readable")[0];
        let version = keyspace.join(format!("v{number}"));
        let old_version = sum(&version);
        replace(&version, before, xxh3_128(&bytes).to_le_bytes());
        replace(&keyspace.join("current"), old_version, sum(&version));
        let folder = |error: StoreError, folder: &Path| {
            assert!(error.to_string().contains(&folder.display().to_string()), "{error}");
            1
        };
        told += match disk::opener(damaged.clone())() {
            Err(error) => folder(error, &damaged.join("data")),
            Ok(mut disk) => SPACES
                .into_iter()
                .filter_map(|space| disk.read(space, &mut |_, _| {}).err())
                .map(|error| folder(error, keyspace))
                .sum(),
        };
        fs::remove_dir_all(damaged).expect("it is there");
    }
    assert!(told > 0, "nothing of it was found");
}

#[test]
fn damage_that_comes_under_a_running_broker_keeps_the_store_down_until_it_starts_again() {
    let root = folder();
    let dir = written(root.path());
    let twin = Twin::default();
    // A disk that has no room for the next batch, and when it is opened again it is the one that is damaged.
    let (mut first, mut then) = (Some(twin.opener()), disk::opener(dir.clone()));
    let opener = Box::new(move || first.take().map_or_else(&mut then, |mut opener| opener()));
    let (mut store, ..) = Store::start(opener, Durability::Interval).expect("it opens");
    let (say, heard) = channel();
    let client = store.join(Arc::new(move |event| drop(say.send(event))));
    let mut bytes = fs::read(journal(&dir)).expect("readable");
    bytes[100] ^= 0x55;
    fs::write(journal(&dir), bytes).expect("writable");
    twin.set(Mood::Full);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !store.trouble().is_some_and(|why| why.contains("it is damaged")) {
        client.persist(Token(1), vec![append(9)].into());
        assert_eq!(heard.recv(), Ok(Event::Down(vec![append(9)])));
        assert!(Instant::now() < deadline, "{:?}", store.trouble());
    }
    assert!(aside(&dir).is_empty(), "under a running broker nothing is set aside");
    drop(store);
    let (_store, found) = Store::open(&dir, Durability::Always).expect("it opens");
    assert!(messages(&found).len() < 4 && !aside(&dir).is_empty());
}

#[test]
fn what_is_retained_is_kept_where_sessions_are_hurt_and_the_other_way_round() {
    let root = folder();
    let dir = with_tables(root.path());
    // Also something that is in the journal only.
    let found = on_disk(&dir, vec![append(4), retain("later", Some("y"))]);
    assert_eq!((messages(&found), found.stored.retained.len()), (vec![0, 1, 2, 3], 1));
    let folders: Vec<_> = {
        let disk = disk::Disk::open_alone(&dir.join("data")).expect("it opens");
        SPACES.map(|space| disk.folder(space).file_name().expect("it has one").to_owned()).into()
    };
    for (space, folder) in SPACES.into_iter().zip(folders) {
        let damaged = root.path().join("damaged");
        copy(&dir, &damaged);
        let mut files = Vec::new();
        files_below(&damaged.join("data/keyspaces").join(&folder).join("tables"), &mut files);
        let mut bytes = fs::read(&files[0]).expect("readable");
        bytes[10] ^= 0x55;
        fs::write(&files[0], bytes).expect("writable");
        for start in 0..2 {
            let (_store, found) = Store::open(&damaged, Durability::Always).expect("it opens");
            assert!(found.strange.is_empty(), "{:?}", found.strange);
            let all = (found.stored.sessions.len(), messages(&found), found.stored.retained.len());
            let wanted = match space {
                Space::Retained => (1, vec![0, 1, 2, 3, 4], 0),
                Space::Sessions | Space::Queues => (0, vec![], 2),
            };
            assert_eq!(all, wanted, "{space:?}, start {start}");
        }
        assert!(aside(&damaged).iter().any(|file| file.ends_with(files[0].file_name().expect("it has one"))));
        on_disk(&damaged, vec![Op::End { key: KEY }, session(), append(0), retain("r", Some("z"))]);
        fs::remove_dir_all(damaged).expect("it is there");
    }
}

/// Opens a store, and gives what is in it and what was logged.
fn opened(dir: &Path) -> (Found, String) {
    let (opened, log) = logged(|| Store::open(dir, Durability::Always));
    (opened.expect("whatever is there, it opens").1, log)
}

#[test]
fn a_keyspace_that_is_gone_is_told_and_what_does_not_need_it_is_kept() {
    let root = folder();
    let dir = with_tables(root.path());
    let [sessions, queues, retained] = {
        let disk = disk::Disk::open_alone(&dir.join("data")).expect("it opens");
        SPACES.map(|space| disk.folder(space).strip_prefix(&dir).expect("it is below").to_owned())
    };
    let cases = [
        (PathBuf::from("data/keyspaces/0"), "data/keyspaces/0 is gone", (0, 0)),
        (sessions, "keyspace `sessions` is gone", (0, 1)),
        (queues, "keyspace `queues` is gone", (0, 1)),
        (retained, "keyspace `retained` is gone", (4, 0)),
    ];
    for (gone, told, kept) in cases {
        let damaged = root.path().join("damaged");
        copy(&dir, &damaged);
        fs::remove_dir_all(damaged.join(&gone)).expect("it is there");
        let (found, log) = opened(&damaged);
        assert_eq!((messages(&found).len(), found.stored.retained.len()), kept, "{}: {log}", gone.display());
        assert!(log.contains("ERROR") && log.contains(told), "{}: {log}", gone.display());
        assert!(found.strange.is_empty(), "{}: {:?}", gone.display(), found.strange);
        let (_, log) = opened(&damaged);
        assert!(!log.contains("ERROR"), "it is told once: {log}");
        fs::remove_dir_all(damaged).expect("it is there");
    }
}

#[test]
fn a_journal_that_ends_too_early_is_told() {
    let root = folder();
    let new = root.path().join("new");
    (0..2).for_each(|_| assert_eq!(opened(&new).1, "", "nobody wrote, and nothing is lost"));
    let dir = written(root.path());
    assert_eq!(opened(&dir).1, "");
    let whole = fs::read(journal(&dir)).expect("readable");
    let zeros = vec![0; whole.len()];
    let (nothing, torn) = ("0.jnl holds nothing: if anything was", "was not finished");
    for (bytes, told) in [(&whole[..0], nothing), (&zeros, nothing), (&whole[..whole.len() - 1], torn)] {
        fs::write(journal(&dir), bytes).expect("writable");
        let (_, log) = opened(&dir);
        assert!(log.contains("WARN") && log.contains("0.jnl") && log.contains(told), "{log}");
    }
}

#[test]
fn a_store_of_an_earlier_format_opens_on_a_full_disk() {
    let root = folder();
    let dir = written(root.path());
    let (marker, next) = (dir.join("mqlink-store"), dir.join("mqlink-store.next"));
    fs::write(&marker, "1\n").expect("writable");
    std::os::unix::fs::symlink("/dev/full", &next).expect("writable");
    let mut open = disk::opener(dir);
    drop(open().expect("it opens"));
    assert_eq!(fs::read_to_string(&marker).expect("readable"), "1\n");
    fs::remove_file(&next).expect("it is there");
    drop(open().expect("it opens"));
    assert_eq!(fs::read_to_string(&marker).expect("readable"), "2\n", "there is room now");
}

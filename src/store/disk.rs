//! The disk, by fjall: one database per node, a keyspace for each [`Space`], a marker with our format number.
//!
//! A commit is one write batch: fjall's journal holds it whole or, by its checksum, not at all, and it is with the operating
//! system when the call returns. fsync is ours to ask for: at once, or from a thread of its own every [`SYNC_EVERY`], through
//! a second descriptor of the journal, so that nobody waits behind it.
//!
//! fjall refuses everything after the first failed write until it is opened again; so does this, and the writer opens it
//! again. After an fsync that failed Linux goes on to show what the disk never got, and the next fsync has nothing to do: so
//! journals are copied then, and at each start, as nobody knows what the last life saw. What a journal's end lost is dropped by
//! fjall, down to the last whole batch; [`journal`] and [`tables`] see to it that nothing else is. Files that are damaged may make it panic: that is an error here like any other.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::engine::{Engine, Opener, StoreError};
use super::layout::{SPACES, Space, Writes};
use super::{journal, salvage, tables};

/// The format of keys and values; a store with a greater one is of a later version. Whatever is added to them needs a greater one, be it a
/// field of a rule that a token brought: a version that does not know it leaves the whole session where it is.
const FORMAT: u32 = 2;
/// The file that says it.
const MARKER: &str = "mqlink-store";
/// The same, before it is whole.
const MARKER_NEXT: &str = "mqlink-store.next";
/// Begins the name of a directory with what was damaged.
const ASIDE: &str = "damaged-";
/// The folder in there with what is whole of it, until that is complete.
const SALVAGED: &str = "salvaged";
/// The database's folder beside it.
const DATABASE: &str = "data";
/// The keyspaces, in the order in which they are made: those of each [`Space`], and one to try out the disk.
const KEYSPACES: [&str; 4] = ["sessions", "queues", "retained", TRIAL];
const TRIAL: &str = "trial";
/// How long what the operating system has may take to the disk.
const SYNC_EVERY: Duration = Duration::from_millis(500);
/// A keyspace's writes in memory before they become a table.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// Blocks that are kept in memory: nothing is read after the start.
const CACHE_BYTES: u64 = 1 << 20;
/// What is written to see whether it works: a disk that takes so much takes the next batches.
const TRIAL_BYTES: usize = 64 * 1024;

/// Opens the store in a directory, or makes one; again and again.
pub(super) fn opener(dir: PathBuf) -> Opener {
    let past = Arc::<Past>::default();
    Box::new(move || open(&dir, &past))
}

/// What is known of a database from when it was open before.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// The number of the next write; 0 until there was one.
    pub(super) next: AtomicU64,
    /// The disk has what the journals show, but for what no fsync was asked for; as far as is known.
    is_sure: AtomicBool,
}

impl Past {
    fn doubt(&self) {
        self.is_sure.store(false, Ordering::Release);
    }

    fn make_sure(&self, database: &Path) -> io::Result<()> {
        if self.is_sure.load(Ordering::Acquire) {
            return Ok(());
        }
        match journal::write_anew(database) {
            // At a start it is a precaution, and a broker on a full disk has to start; nor is it to try again whenever a write
            // finds no room.
            Err(error) if self.next.load(Ordering::Relaxed) == 0 && is_full(&error) => {}
            result => result?,
        }
        self.is_sure.store(true, Ordering::Release);
        Ok(())
    }
}

pub(super) fn open(dir: &Path, past: &Arc<Past>) -> Result<Box<dyn Engine>, StoreError> {
    let is_new = check_marker(dir)?;
    let database = dir.join(DATABASE);
    let look = || {
        if !is_new && let Some(gone) = journal::missing_of(&database) {
            return Ok(Some(format!("{} is gone", gone.display())));
        }
        past.make_sure(&database)?;
        damage(&database, past.next.load(Ordering::Relaxed))
    };
    if let Some(cause) = with_lock(&database, look)? {
        return Err(StoreError::Damaged { verb: "open", dir: database, cause });
    }
    let disk = guarded("open", &database, || Disk::open(&database, Arc::clone(past), true))?;
    // The database may be new here.
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| from_io("open", dir, &error))?;
    Ok(Box::new(disk))
}

/// What of a database is not as it was written; see [`journal::check`].
fn damage(database: &Path, failed: u64) -> io::Result<Option<String>> {
    if let Some(file) = tables::check(database)? {
        return Ok(Some(format!("{} is not as it was written", file.display())));
    }
    if journal::is_missing(database)? {
        return Ok(Some(format!("{} has no journal", database.display())));
    }
    Ok(journal::check(database, failed)?.map(|damage| {
        format!(
            "{} cannot be read from byte {} on, and more was written behind it",
            damage.file.display(),
            damage.at
        )
    }))
}

/// The file that fjall locks, in the database.
const LOCK: &str = "lock";

/// Looks at a database that nobody uses meanwhile.
fn with_lock<T>(database: &Path, look: impl FnOnce() -> io::Result<T>) -> Result<T, StoreError> {
    let fail = |error: io::Error| from_io("open", database, &error);
    let lock = match File::options().create(true).truncate(false).write(true).open(database.join(LOCK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None, // there is no database yet
        lock => Some(lock.map_err(fail)?),
    };
    match lock.as_ref().map(File::try_lock) {
        Some(Err(TryLockError::WouldBlock)) => return Err(StoreError::InUse(database.to_owned())),
        Some(Err(TryLockError::Error(error))) => return Err(fail(error)),
        Some(Ok(())) | None => {}
    }
    look().map_err(fail)
}

/// Lets the engine at files that may hold anything.
fn guarded<T>(
    verb: &'static str,
    dir: &Path,
    f: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let cause = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the engine gave up");
        Err(StoreError::Damaged { verb, dir: dir.to_owned(), cause: cause.to_owned() })
    })
}

/// Makes sure that the directory is ours and of a format that we know. True if it is from now on.
fn check_marker(dir: &Path) -> Result<bool, StoreError> {
    let marker = dir.join(MARKER);
    let fail = |verb| move |error: io::Error| from_io(verb, dir, &error);
    let text = std::fs::read(&marker).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    match text {
        Ok(text) => match text.parse::<u32>() {
            Ok(FORMAT) => Ok(false),
            // It is read as it is. What is written from now on, only we can read.
            Ok(format) if format < FORMAT => match write_marker(dir) {
                // A broker on a full disk has to start; the first write that finds no room has it opened again.
                Err(error) if is_full(&error) => Ok(false),
                result => result.map(|()| false).map_err(fail("write to")),
            },
            Ok(_) => Err(StoreError::Newer { dir: dir.to_owned(), found: text, known: FORMAT }),
            Err(_) => {
                let cause = format!("{} says no format", marker.display());
                Err(StoreError::Damaged { verb: "open", dir: dir.to_owned(), cause })
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail("make"))?;
            let mut entries = dir.read_dir().map_err(fail("read"))?;
            if entries.any(|entry| !entry.is_ok_and(|entry| is_left_over(&entry.file_name()))) {
                return Err(StoreError::Foreign(dir.to_owned()));
            }
            write_marker(dir).map(|()| true).map_err(fail("write to"))
        }
        Err(error) => Err(fail("read")(error)),
    }
}

fn write_marker(dir: &Path) -> io::Result<()> {
    let next = dir.join(MARKER_NEXT);
    std::fs::write(&next, format!("{FORMAT}\n"))?;
    File::open(&next)?.sync_all()?;
    std::fs::rename(&next, dir.join(MARKER))?;
    File::open(dir)?.sync_all()
}

/// What a directory may hold that is ours and has no marker: we died before it was whole, or set all else aside.
fn is_left_over(name: &OsStr) -> bool {
    name == MARKER_NEXT || name.as_encoded_bytes().starts_with(ASIDE.as_bytes())
}

/// Puts what is damaged out of the way, and says so: the marker or the end of the journals if it is they, else the database, of which what is
/// whole is kept. For a start only: under a running broker most of what is to be kept would be missing then.
pub(super) fn set_aside(dir: &Path, damaged: &StoreError) -> Result<(), StoreError> {
    let database = dir.join(DATABASE);
    let aside = make_aside(dir).map_err(|error| from_io("set aside what is damaged in", dir, &error))?;
    let move_aside = |name: &str| match std::fs::rename(dir.join(name), aside.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    };
    if matches!(check_marker(dir), Err(StoreError::Damaged { .. })) {
        // It says nothing of what lies beside it, which is looked at next.
        let made_anew = std::fs::copy(dir.join(MARKER), aside.join(MARKER)).and_then(|_| write_marker(dir));
        tracing::error!(cause = %damaged, "it is set aside, in {}, and made anew", aside.display());
        return made_anew.map_err(|error| from_io("set aside what is damaged in", dir, &error));
    }
    let is_cut = with_lock(&database, || {
        // Journals are of use with the tables that they go with only.
        if tables::check(&database)?.is_none()
            && let Some(damage) = journal::check(&database, 0)?
        {
            return damage.set_aside(&aside).map(|()| true);
        }
        move_aside(DATABASE).map(|()| false)
    })?;
    let what = if is_cut {
        "it goes back to what it was before the damage, and the rest is set aside"
    } else if salvage(dir, &aside) {
        "what is whole of it is kept, sessions with their messages or what is retained, and all of it is set aside"
    } else {
        move_aside(MARKER).map_err(|error| from_io("set aside what is damaged in", dir, &error))?;
        "all of it is set aside, and a new one begins empty"
    };
    let (from, to) = (dir.display(), aside.display());
    tracing::error!(cause = %damaged, "the store in {from} is damaged: {what}, as {to}");
    Ok(())
}

/// Puts what is whole of a database that was set aside in its place. False if that is nothing.
fn salvage(dir: &Path, aside: &Path) -> bool {
    let salvaged = aside.join(SALVAGED);
    let put_in_place = || -> Result<bool, StoreError> {
        check_marker(dir)?;
        if !salvage::salvage(&aside.join(DATABASE), aside, &salvaged)? {
            return Ok(false);
        }
        let place = std::fs::rename(&salvaged, dir.join(DATABASE)).and_then(|()| File::open(dir)?.sync_all());
        place.map(|()| true).map_err(|error| from_io("write to", dir, &error))
    };
    put_in_place().unwrap_or_else(|error| {
        tracing::error!(%error, "nothing of what is damaged can be kept");
        false
    })
}

/// A directory for what is set aside now.
fn make_aside(dir: &Path) -> io::Result<PathBuf> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut attempt = 1;
    loop {
        let path = dir.join(format!("{ASIDE}{seconds}-{attempt}"));
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 9 => attempt += 1,
            result => return result.map(|()| path),
        }
    }
}

/// A keyspace that is not there, although one that was made after it is.
fn gone(database: &Database) -> Option<&'static str> {
    let last = KEYSPACES.iter().rposition(|name| database.keyspace_exists(name))?;
    KEYSPACES[..last].iter().copied().find(|name| !database.keyspace_exists(name))
}

pub(super) struct Disk {
    dir: PathBuf,
    syncer: Syncer,
    keyspaces: [Keyspace; 3],
    trial: Keyspace,
    database: Database,
    past: Arc<Past>,
}

impl Disk {
    /// A database of which nothing is known, that nobody else opens, and that may lack keyspaces.
    pub(super) fn open_alone(dir: &Path) -> Result<Disk, StoreError> {
        guarded("open", dir, || Disk::open(dir, Arc::default(), false))
    }

    /// Where the keys of a family are.
    pub(super) fn folder(&self, space: Space) -> &Path {
        self.keyspace(space).path()
    }

    fn open(dir: &Path, past: Arc<Past>, is_to_be_whole: bool) -> Result<Disk, StoreError> {
        let fail = |error: fjall::Error| from_fjall("open", dir, error);
        let database =
            Database::builder(dir).cache_size(CACHE_BYTES).worker_threads(1).open().map_err(fail)?;
        let is_new = !database.keyspace_exists(TRIAL);
        if is_to_be_whole && let Some(gone) = gone(&database) {
            let cause = format!("the folder of its keyspace `{gone}` is gone");
            return Err(StoreError::Damaged { verb: "open", dir: dir.to_owned(), cause });
        }
        let keyspace = |name: &str| {
            let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
            database.keyspace(name, options).map_err(fail)
        };
        let [sessions, queues, retained, trial] = KEYSPACES.map(keyspace);
        let trial = trial?;
        if is_new {
            trial.insert("begun", "").map_err(fail)?; // from now on there is no journal without a batch
        }
        Ok(Disk {
            dir: dir.to_owned(),
            syncer: Syncer::start(dir, &past)
                .map_err(|error| from_io("start the thread for", dir, &error))?,
            keyspaces: [sessions?, queues?, retained?],
            trial,
            database,
            past,
        })
    }

    fn keyspace(&self, space: Space) -> &Keyspace {
        let at = SPACES.iter().position(|one| *one == space).expect("every space is in SPACES");
        &self.keyspaces[at]
    }

    fn fail(&self, verb: &'static str) -> impl Fn(fjall::Error) -> StoreError {
        let dir = self.dir.clone();
        move |error| from_fjall(verb, &dir, error)
    }

    fn persist(&self, mode: PersistMode) -> Result<(), StoreError> {
        self.database.persist(mode).map_err(|error| {
            self.past.doubt();
            self.fail("write to")(error)
        })
    }
}

impl Engine for Disk {
    fn commit(&mut self, writes: Writes) -> Result<(), StoreError> {
        self.is_synced()?;
        let mut batch = self.database.batch();
        for ((space, key), value) in writes {
            let keyspace = self.keyspace(space);
            match value {
                Some(value) => batch.insert(keyspace, key, value),
                None => batch.remove(keyspace, key),
            }
        }
        if let Err(error) = batch.commit().map_err(self.fail("write to")) {
            // All else than a write without room may come from an fsync of the engine's own.
            if !matches!(error, StoreError::Full { .. }) {
                self.past.doubt();
            }
            return Err(error);
        }
        self.past.next.store(self.database.visible_seqno(), Ordering::Relaxed);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.persist(PersistMode::SyncData)
    }

    fn sync_soon(&mut self) {
        self.syncer.shared.asked.fetch_add(1, Ordering::AcqRel);
    }

    fn is_synced(&mut self) -> Result<bool, StoreError> {
        self.persist(PersistMode::Buffer)?; // the engine syncs by itself as well, and this tells if that has failed
        let shared = &self.syncer.shared;
        // Before it is asked whether one failed, which is said first.
        let is_done = shared.synced.load(Ordering::Acquire) == shared.asked.load(Ordering::Acquire);
        if shared.has_failed.load(Ordering::Acquire) {
            let cause = "fsync failed".to_owned();
            return Err(StoreError::Io { verb: "write to", dir: self.dir.clone(), cause });
        }
        Ok(is_done)
    }

    fn try_out(&mut self) -> Result<(), StoreError> {
        // Not zeros: some file systems have room for any number of these.
        let noise: Vec<u8> = (0..TRIAL_BYTES).map(|at| (at * 31 % 251) as u8).collect();
        self.trial.insert("noise", noise).map_err(self.fail("write to"))?;
        self.trial.remove("noise").map_err(self.fail("write to"))?;
        self.sync()
    }

    fn keys_below(&mut self, space: Space, prefix: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
        let keys = self.keyspace(space).prefix(prefix).map(|guard| guard.key().map(|key| key.to_vec()));
        keys.collect::<Result<_, _>>().map_err(self.fail("read"))
    }

    fn read(&mut self, space: Space, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        // What only the engine finds damaged has no name but that of its folder.
        let keyspace = self.keyspace(space);
        guarded("read", keyspace.path(), || {
            for guard in keyspace.iter() {
                let read = guard.into_inner();
                let (key, value) = read.map_err(|error| from_fjall("read", keyspace.path(), error))?;
                each(&key, &value);
            }
            Ok(())
        })
    }
}

/// The thread that has the journal reach the disk.
struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    past: Arc<Past>,
    /// Grows with what is to be synced.
    asked: AtomicU64,
    /// How much of that is.
    synced: AtomicU64,
    has_failed: AtomicBool,
    stops: Mutex<bool>,
    stopped: Condvar,
}

impl Syncer {
    fn start(dir: &Path, past: &Arc<Past>) -> io::Result<Syncer> {
        let shared = Arc::new(Shared {
            past: Arc::clone(past),
            asked: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
            stops: Mutex::new(false),
            stopped: Condvar::new(),
        });
        let (theirs, dir) = (Arc::clone(&shared), dir.to_owned());
        let thread =
            std::thread::Builder::new().name("store-sync".to_owned()).spawn(move || theirs.run(&dir))?;
        Ok(Syncer { shared, thread: Some(thread) })
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        *self.shared.stops.lock().expect("nobody panics with it") = true;
        self.shared.stopped.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, dir: &Path) {
        loop {
            let stops = self.stops.lock().expect("nobody panics with it");
            let (stops, _) = self.stopped.wait_timeout(stops, SYNC_EVERY).expect("nobody panics with it");
            let is_last = *stops;
            drop(stops);
            let asked = self.asked.load(Ordering::Acquire);
            // The last time in any case: the engine does so as well when it closes, and keeps to itself that it failed.
            if asked != self.synced.load(Ordering::Acquire) || is_last {
                self.sync(dir);
                self.synced.store(asked, Ordering::Release);
            }
            if is_last {
                return;
            }
        }
    }

    fn sync(&self, dir: &Path) {
        if let Err(error) = sync_journal(dir) {
            tracing::error!(%error, "failed to have {} reach the disk", dir.display());
            self.past.doubt();
            self.has_failed.store(true, Ordering::Release);
        }
    }
}

/// Syncs the newest journal: fjall syncs one itself before it begins the next.
fn sync_journal(dir: &Path) -> io::Result<()> {
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let files = dir.read_dir()?.flatten().map(|entry| entry.path());
    let journals = files.filter(|path| path.extension().is_some_and(|extension| extension == "jnl"));
    match journals.max_by_key(number) {
        Some(newest) => File::open(newest)?.sync_data(),
        None => Ok(()),
    }
}

fn from_io(verb: &'static str, dir: &Path, error: &io::Error) -> StoreError {
    let dir = dir.to_owned();
    match is_full(error) {
        true => StoreError::Full { verb, dir },
        false => StoreError::Io { verb, dir, cause: error.to_string() },
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What the engine says of files that are missing, cut short or in the way is damage, and no trouble of the system.
fn is_of_files(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, InvalidData, InvalidInput, NotFound, UnexpectedEof};
    matches!(error.kind(), AlreadyExists | InvalidData | InvalidInput | NotFound | UnexpectedEof)
}

fn from_fjall(verb: &'static str, dir: &Path, error: fjall::Error) -> StoreError {
    let owned = dir.to_owned();
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error))
            if !is_of_files(&error) =>
        {
            from_io(verb, dir, &error)
        }
        fjall::Error::Locked => StoreError::InUse(owned),
        fjall::Error::InvalidVersion(Some(version)) => {
            StoreError::Newer { dir: owned, found: format!("fjall {version:?}"), known: FORMAT }
        }
        fjall::Error::Poisoned => {
            let cause = "it failed before, and must be opened again".to_owned();
            StoreError::Io { verb, dir: owned, cause }
        }
        error => StoreError::Damaged { verb, dir: owned, cause: error.to_string() },
    }
}

/// True if a syncer has failed by its end.
#[cfg(test)]
pub(super) fn fails_to_sync(dir: &Path) -> bool {
    let syncer = Syncer::start(dir, &Arc::default()).expect("there are threads");
    let shared = Arc::clone(&syncer.shared);
    drop(syncer);
    shared.has_failed.load(Ordering::Acquire)
}

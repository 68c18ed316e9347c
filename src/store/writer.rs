//! The thread that writes: batches of all shards in, one commit for as many as wait, tokens out.
//!
//! Group commit comes by itself: while one commit runs, batches gather, and the next takes them all. The mailbox has no bound
//! of its own; what a shard may have under way is bounded by the shard, which no longer reads its publishers beyond that.
//!
//! When a commit fails the store is down: everybody hears it, with what may be lost, and batches that come are given back.
//! The store is opened again after a pause, under the running broker; when that works and something can be written,
//! everybody hears that it is up.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::batch::{Batch, Waiting, Waitings};
use super::engine::{Engine, Opener, StoreError};
use super::layout::{Layout, Reading, SPACES, Space, Writes};
use super::{Durability, Op, Stored, Token};

/// How many bytes one commit takes, about.
const COMMIT_BYTES_MAX: usize = 4 << 20;
/// Between two attempts to open a store that failed.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Between two looks whether what was written last has reached the disk, while nothing else happens.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a shard hears of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its batches up to this one are as safe as the settings ask for.
    Persisted(Token),
    /// The store failed; these changes may be on disk or not, and those of batches that are still on their way follow.
    Down(Vec<Op>),
    /// It is back.
    Up,
}

/// Who wants to hear of the store. Called on the writer's thread: it must not wait.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

enum Request {
    Join(Listener),
    Batch(Waiting),
    Durability(Durability),
    Stop,
}

/// A store that is open, and the thread behind it. Dropping it writes what is under way and ends the thread.
#[derive(Debug)]
pub struct Store {
    requests: Sender<Request>,
    clients: usize,
    trouble: Trouble,
    thread: Option<JoinHandle<()>>,
}

/// Why a store is down, if it is.
type Trouble = Arc<Mutex<Option<String>>>;

/// One shard's way to the store.
#[derive(Clone, Debug)]
pub struct Client {
    number: usize,
    requests: Sender<Request>,
}

impl Client {
    /// Writes a batch, together or not at all.
    pub fn persist(&self, token: Token, batch: Batch) {
        // A writer that is gone took the process's end with it.
        let _ = self.requests.send(Request::Batch(Waiting { client: self.number, token, batch }));
    }
}

impl Store {
    /// Opens a store and gives out all that is in it, with what could not be made sense of.
    pub(super) fn start(
        mut opener: Opener,
        durability: Durability,
    ) -> Result<(Store, Stored, Vec<String>), StoreError> {
        let mut engine = opener()?;
        let Reading { layout, stored, strange } = read(&mut *engine)?;
        let (requests, taken) = channel();
        let trouble = Trouble::default();
        let writer = Writer {
            opener,
            engine: Some(engine),
            layout,
            durability,
            listeners: Vec::new(),
            waiting: Waitings::default(),
            trouble: Arc::clone(&trouble),
            retry: RETRY_MIN,
            retry_at: Instant::now(),
            is_synced: true,
        };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || writer.run(&taken));
        let thread = thread.map_err(|error| StoreError::Io {
            verb: "start the thread for",
            dir: "the store".into(),
            cause: error.to_string(),
        })?;
        Ok((Store { requests, clients: 0, trouble, thread: Some(thread) }, stored, strange))
    }

    /// A way in for one more shard.
    pub fn join(&mut self, listener: Listener) -> Client {
        let _ = self.requests.send(Request::Join(listener));
        self.clients += 1;
        Client { number: self.clients - 1, requests: self.requests.clone() }
    }

    /// Why what must be stored is refused at present, if it is.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().expect("nobody panics with it").clone()
    }

    /// What an acknowledgement means from now on.
    pub fn set_durability(&self, durability: Durability) {
        let _ = self.requests.send(Request::Durability(durability));
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.requests.send(Request::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read(engine: &mut dyn Engine) -> Result<Reading, StoreError> {
    let mut reading = Reading::default();
    for space in SPACES {
        engine.read(space, &mut |key, value| reading.take(space, key, value))?;
    }
    Ok(reading)
}

struct Writer {
    opener: Opener,
    /// None while the store is down.
    engine: Option<Box<dyn Engine>>,
    layout: Layout,
    durability: Durability,
    listeners: Vec<Listener>,
    waiting: Waitings,
    trouble: Trouble,
    retry: Duration,
    retry_at: Instant,
    /// Nothing is on its way to the disk.
    is_synced: bool,
}

impl Writer {
    fn run(mut self, requests: &Receiver<Request>) {
        loop {
            let is_last = self.gather(requests);
            if self.engine.is_some() {
                // Also the last time: half a message was never acknowledged, and must not be there alone.
                let batches = self.waiting.take_whole();
                self.write(batches);
            } else {
                self.give_back();
            }
            if is_last {
                break;
            }
            if self.engine.is_none() && Instant::now() >= self.retry_at {
                self.reopen();
            }
        }
        if let Some(mut engine) = self.engine
            && let Err(error) = engine.sync()
        {
            tracing::error!(%error, "what was written last may not be on disk");
        }
    }

    /// Waits for a batch, and takes those with it that wait as well. True if nothing comes after them.
    fn gather(&mut self, requests: &Receiver<Request>) -> bool {
        let mut bytes = 0;
        let first = match self.engine {
            Some(_) if self.is_synced => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(_) => requests.recv_timeout(LOOK_EVERY),
            None => requests.recv_timeout(self.retry_at.saturating_duration_since(Instant::now())),
        };
        match first {
            Ok(request) => {
                if self.take(request, &mut bytes) {
                    return true;
                }
            }
            Err(RecvTimeoutError::Timeout) => self.look(),
            Err(RecvTimeoutError::Disconnected) => return true,
        }
        while bytes < COMMIT_BYTES_MAX {
            let Ok(request) = requests.try_recv() else { break };
            if self.take(request, &mut bytes) {
                return true;
            }
        }
        false
    }

    /// Looks whether what was written has reached the disk: it may fail when nobody writes any more.
    fn look(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        match engine.is_synced() {
            Ok(is_synced) => self.is_synced = is_synced,
            Err(error) => self.fail(&error, Vec::new()),
        }
    }

    /// True if it was the last.
    fn take(&mut self, request: Request, bytes: &mut usize) -> bool {
        match request {
            Request::Join(listener) => self.listeners.push(listener),
            Request::Durability(durability) => self.durability = durability,
            Request::Stop => return true,
            Request::Batch(waiting) => {
                *bytes += waiting.batch.ops.iter().map(Op::bytes).sum::<usize>();
                self.waiting.add(waiting);
            }
        }
        false
    }

    fn write(&mut self, batches: Vec<Waiting>) {
        if batches.is_empty() {
            return;
        }
        let Some(engine) = &mut self.engine else { return };
        let mut result = Ok(());
        for op in batches.iter().flat_map(|one| &one.batch.ops) {
            if result.is_ok() {
                result = self.layout.take(op, |space, prefix| engine.keys_below(space, prefix));
            }
        }
        let writes = self.layout.finish();
        let result = result.and_then(|()| commit(&mut **engine, writes, self.durability));
        self.is_synced = false;
        match result {
            Ok(()) => batches.iter().for_each(|one| self.tell(one.client, Event::Persisted(one.token))),
            Err(error) => self.fail(&error, batches),
        }
    }

    fn fail(&mut self, error: &StoreError, batches: Vec<Waiting>) {
        tracing::error!(%error, "the store failed; what must be stored is refused until it is back");
        self.note(Some(error));
        self.engine = None;
        self.layout = Layout::default();
        self.retry = RETRY_MIN;
        self.retry_at = Instant::now() + self.retry;
        let mut lost = self.lost(batches);
        (0..self.listeners.len())
            .for_each(|client| self.tell(client, Event::Down(lost.remove(&client).unwrap_or_default())));
    }

    /// Gives back what is not written.
    fn give_back(&mut self) {
        let lost = self.lost(Vec::new());
        lost.into_iter().for_each(|(client, ops)| self.tell(client, Event::Down(ops)));
    }

    /// What is lost with these batches and all that wait, by client: each looks through all it has for it, so it is told at once.
    fn lost(&mut self, batches: Vec<Waiting>) -> BTreeMap<usize, Vec<Op>> {
        let mut lost: BTreeMap<usize, Vec<Op>> = BTreeMap::new();
        for one in batches.into_iter().chain(self.waiting.take_all()) {
            lost.entry(one.client).or_default().extend(one.batch.ops);
        }
        lost
    }

    fn reopen(&mut self) {
        match self.open() {
            Ok(()) => {
                tracing::info!("the store is back");
                self.note(None);
                (0..self.listeners.len()).for_each(|client| self.tell(client, Event::Up));
            }
            Err(error) => {
                if self.note(Some(&error)) {
                    tracing::error!(%error, "the store is still down");
                }
                self.retry = (self.retry * 2).min(RETRY_MAX);
                self.retry_at = Instant::now() + self.retry;
            }
        }
    }

    /// Notes why the store is down, if it is. True if that is news.
    fn note(&self, error: Option<&StoreError>) -> bool {
        let now = error.map(ToString::to_string);
        let before =
            std::mem::replace(&mut *self.trouble.lock().expect("nobody panics with it"), now.clone());
        before != now
    }

    /// Opens the store again. The broker has what is in it: only where queues lie is read, and only once there is room.
    fn open(&mut self) -> Result<(), StoreError> {
        let mut engine = (self.opener)()?;
        engine.try_out()?;
        let mut layout = Layout::default();
        engine.read(Space::Queues, &mut |key, value| drop(layout.find(key, value)))?;
        (self.layout, self.engine) = (layout, Some(engine));
        Ok(())
    }

    fn tell(&self, client: usize, event: Event) {
        if let Some(listener) = self.listeners.get(client) {
            listener(event);
        }
    }
}

fn commit(engine: &mut dyn Engine, writes: Writes, durability: Durability) -> Result<(), StoreError> {
    if !writes.is_empty() {
        engine.commit(writes)?;
    }
    match durability {
        Durability::Always => engine.sync(),
        Durability::Interval => {
            engine.sync_soon();
            Ok(())
        }
    }
}

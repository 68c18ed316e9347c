//! The thread of broker and links, and what goes in and out of it.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until};

use super::document::Document;
use super::figures::{self, System};
use crate::admin::{Applied, Command, Vitals};
use crate::broker::Broker;
use crate::link::transport::{Identity, Links};
use crate::settings::Durability;
use crate::settings::report::NodeReport;
use crate::store::{self, Found, Store};

/// How often counters and levels are reported, which nobody announces.
const TICK: Duration = Duration::from_secs(1);
/// The least time between two reports of changes: a storm of them costs no more.
const CALM: Duration = Duration::from_millis(50);

/// What a shard begins with.
pub(super) struct Start {
    pub(super) node: String,
    pub(super) incarnation: u64,
    pub(super) document: Document,
    pub(super) store: Option<(Store, Found)>,
}

/// Starts the thread; what is returned resolves when it has ended in order, and fails when it panicked.
pub(super) fn spawn(
    start: Start,
    vitals: Arc<Vitals>,
    commands: mpsc::Receiver<Command>,
    reports: watch::Sender<Arc<NodeReport>>,
    stop: oneshot::Receiver<()>,
) -> io::Result<oneshot::Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ended, end) = oneshot::channel();
    thread::Builder::new().name("shard-0".to_owned()).spawn(move || {
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let shard = Shard::start(start, reports).await;
            shard.run(&vitals, commands, stop).await;
        });
        // Nobody waits any more if the process ends at the same time.
        let _ = ended.send(());
    })?;
    Ok(end)
}

/// What a node says of itself whatever it runs.
pub(super) fn base_report(node: &str, incarnation: u64) -> NodeReport {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    NodeReport { node: node.to_owned(), version, incarnation, ..NodeReport::default() }
}

/// How far a node is that drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    Not,
    /// Its clients are leaving.
    Clients,
    /// They are gone, and so are the links.
    Done,
}

pub(super) struct Shard {
    /// Goes last, when it has taken the broker's last words.
    store: Option<Store>,
    pub(super) broker: Broker,
    links: Links,
    system: System,
    sys_interval_s: u16,
    pub(super) leaving: Leaving,
    /// What does not change by itself; the rest is filled in for each report.
    base: NodeReport,
    cluster: String,
    /// How many threads the settings asked for when the node started.
    shards: Option<u8>,
    reports: watch::Sender<Arc<NodeReport>>,
}

impl Shard {
    pub(super) async fn start(start: Start, reports: watch::Sender<Arc<NodeReport>>) -> Self {
        let Start { node, incarnation, document, store } = start;
        let broker = Broker::start(&document.settings);
        let store = store.map(|(mut store, found)| {
            broker.use_store(&mut store, found);
            store
        });
        broker.ready().await;
        let own = Identity { cluster: document.settings.cluster.clone(), node: node.clone(), incarnation };
        let links = Links::start(broker.clone(), own, incarnation);
        links.apply_settings(&document.settings);
        let base = NodeReport { keeps_state: store.is_some(), ..base_report(&node, incarnation) };
        let cluster = document.settings.cluster.clone();
        let system = System::default();
        let sys_interval_s = document.settings.monitoring.sys_interval_s;
        let (leaving, shards) = (Leaving::Not, document.settings.shards);
        let mut shard =
            Self { store, broker, links, system, sys_interval_s, leaving, base, cluster, shards, reports };
        shard.apply_durability(document.settings.storage.durability);
        shard.note(&document, document.settings.hash());
        shard.publish();
        shard
    }

    pub(super) async fn run(
        mut self,
        vitals: &Vitals,
        mut commands: mpsc::Receiver<Command>,
        mut stop: oneshot::Receiver<()>,
    ) {
        let changed = self.links.changed();
        let mut tick = tokio::time::interval(TICK);
        let mut calm_until = Instant::now();
        let mut is_due = false;
        let mut is_managed = true;
        loop {
            tokio::select! {
                // Also when its sender is gone.
                _ = &mut stop => break,
                command = commands.recv(), if is_managed => match command {
                    Some(command) => self.handle(command, vitals).await,
                    None => is_managed = false,
                },
                () = wait(&changed, is_due) => is_due = true,
                () = self.broker.listener_bound() => is_due = true,
                () = self.broker.shard_lost() => panic!("a shard of the broker ended"),
                () = sleep_until(calm_until), if is_due => {
                    is_due = false;
                    calm_until = Instant::now() + CALM;
                    self.publish();
                }
                _ = tick.tick() => {
                    vitals.turn();
                    self.broker.refresh().await;
                    vitals.count(figures::figures(&self.broker));
                    self.leave_peers().await;
                    self.system.publish(&self.broker, self.sys_interval_s, Instant::now().into_std());
                    self.publish();
                }
            }
        }
        // Clients first: what is acknowledged to them until then still crosses.
        self.broker.shutdown().await;
        self.links.shutdown().await;
        drop(self.store.take()); // returns when everything is written
    }

    /// Links leave a node that drains after its clients: what those published last still crosses.
    async fn leave_peers(&mut self) {
        if self.leaving == Leaving::Clients
            && self.broker.levels().connections == 0
            && self.links.is_drained()
        {
            self.links.shutdown().await;
            self.leaving = Leaving::Done;
            tracing::info!("clients and links have left");
        }
    }

    async fn handle(&mut self, command: Command, vitals: &Vitals) {
        // Who asked may be gone; then nobody needs the answer.
        match command {
            Command::Refresh(reply) => {
                self.broker.refresh().await;
                self.publish();
                let _ = reply.send(());
            }
            Command::Ask(question, reply) => {
                let _ = reply.send(self.answer(question, vitals).await);
            }
            Command::Apply(json, reply) => {
                let applied = self.apply(json).await;
                if let Err(error) = &applied {
                    tracing::error!(error, "refused new settings; the node runs on with what it had");
                }
                self.base.refused = applied.as_ref().err().cloned();
                self.publish();
                let _ = reply.send(applied);
            }
        }
    }

    pub(super) async fn apply(&mut self, json: Bytes) -> Result<Applied, String> {
        // Elsewhere: with thousands of users it takes as long as clients notice.
        let parse = move || Document::parse(&json).map(|document| (document.settings.hash(), document));
        let parsed = tokio::task::spawn_blocking(parse).await.expect("no text makes this panic");
        let (hash, document) = parsed.map_err(|error| error.to_string())?;
        if document.settings.cluster != self.cluster {
            let (new, old) = (&document.settings.cluster, &self.cluster);
            return Err(format!(
                "the cluster is `{new}`, but this node is one of `{old}`; start another node"
            ));
        }
        self.apply_durability(document.settings.storage.durability);
        if document.settings.shards != self.shards {
            tracing::warn!("shards is another number now: in force when the node starts again");
        }
        self.broker.apply_settings(&document.settings);
        if self.leaving != Leaving::Done {
            self.links.apply_settings(&document.settings);
        }
        self.note(&document, hash);
        tracing::info!(settings = self.base.settings_hash, "runs new settings");
        let Document { unknown_fields, .. } = document;
        Ok(Applied { settings_hash: self.base.settings_hash.clone(), unknown_fields })
    }

    fn apply_durability(&self, wanted: Durability) {
        match (&self.store, durability(wanted)) {
            (Some(store), Some(durability)) => store.set_durability(durability),
            (Some(_), None) => {
                tracing::warn!("storage.durability is None now: in force when the node starts again")
            }
            // `Interval` is also what stands there if nobody asked for anything.
            (None, Some(store::Durability::Always)) => {
                tracing::warn!("storage.durability has no effect: this node was started without --data")
            }
            (None, _) => {}
        }
    }

    /// Notes what the node runs from now on.
    fn note(&mut self, document: &Document, hash: String) {
        if !document.unknown_fields.is_empty() {
            tracing::warn!(fields = ?document.unknown_fields, "the settings have fields that this version ignores");
        }
        if document.settings.is_open_to_all_it_knows() {
            tracing::warn!(
                "there are no rules: who is let in may publish and subscribe to everything; set authorization"
            );
        }
        self.sys_interval_s = document.settings.monitoring.sys_interval_s;
        self.base.settings_hash = hash;
        self.base.unknown_fields.clone_from(&document.unknown_fields);
    }

    fn publish(&self) {
        let levels = self.broker.levels();
        let mut listeners = self.broker.listeners();
        listeners.extend(self.links.listener());
        let report = NodeReport {
            listeners,
            connections: levels.connections as u64,
            sessions: levels.sessions as u64,
            subscriptions: levels.subscriptions as u64,
            retained: levels.retained as u64,
            store_trouble: self.store.as_ref().and_then(Store::trouble),
            links: self.links.reports(),
            ..self.base.clone()
        };
        self.reports.send_if_modified(|last| {
            let changes = **last != report;
            if changes {
                *last = Arc::new(report);
            }
            changes
        });
    }
}

/// What the store makes of the settings; none: there is to be no store.
pub(super) fn durability(wanted: Durability) -> Option<store::Durability> {
    match wanted {
        Durability::None => None,
        Durability::Interval => Some(store::Durability::Interval),
        Durability::Always => Some(store::Durability::Always),
    }
}

/// Waits for a change unless one is noted already.
async fn wait(changed: &Notify, is_noted: bool) {
    match is_noted {
        true => std::future::pending().await,
        false => changed.notified().await,
    }
}

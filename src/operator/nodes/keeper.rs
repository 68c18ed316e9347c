//! The task that keeps the connection to one pod.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::{NodeId, Order, Rendering, Sight};
use crate::admin::{Applied, Client, ClientError, NodeName, StatusLine, StatusStream};
use crate::operator::lease::Fence;
use crate::plan::Pushed;

/// The pause before a pod is dialled again; it doubles up to the second.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// A connection that lasted so long broke for a new reason.
const GOOD_LIFE: Duration = Duration::from_secs(30);
/// The pause before settings that were not taken are pushed again; it doubles up to the second.
const PUSH_PAUSE_MIN: Duration = Duration::from_secs(1);
const PUSH_PAUSE_MAX: Duration = Duration::from_secs(60);
/// A node reports at most 20 times a second; this is for so many times as it should say then.
const LINES_A_REPORT: usize = 40;
/// What a node may say in one line, beside what it says of links.
const LINE_BYTES_MIN: usize = 64 * 1_024;
/// What it may say of a link.
const LINK_BYTES_MAX: usize = 4 * 1_024;
/// What of an error is told.
const WHY_CHARS_MAX: usize = 1_024;

/// One pod, and what is to be done there.
pub(super) struct Keeper {
    pub(super) id: Arc<NodeId>,
    pub(super) orders: watch::Receiver<Order>,
    pub(super) tell: mpsc::Sender<(Arc<NodeId>, Sight)>,
    pub(super) dials: Arc<Semaphore>,
    pub(super) pushes: Arc<Semaphore>,
    pub(super) fence: Fence,
}

/// How a connection ended.
enum End {
    /// Nobody wants it any more.
    Unwanted,
    /// The node is to be dialled elsewhere, or with another certificate.
    Moved,
    /// It broke, or is of no use.
    Broken(String),
}

impl Keeper {
    pub(super) async fn keep(mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let born = Instant::now();
            match self.accompany().await {
                End::Unwanted => return,
                End::Moved => continue,
                End::Broken(why) => self.tell(Sight::Unreachable(bounded(&why))).await,
            }
            if born.elapsed() > GOOD_LIFE {
                pause = PAUSE_MIN;
            }
            tokio::select! {
                () = sleep(pause + self.spread(pause)) => pause = (pause * 2).min(PAUSE_MAX),
                ended = moved(&mut self.orders) => match ended {
                    true => pause = PAUSE_MIN,
                    false => return,
                },
            }
        }
    }

    /// One connection: from the dial to its end.
    async fn accompany(&mut self) -> End {
        let order = self.orders.borrow_and_update().clone();
        let client = match self.client(&order) {
            Ok(client) => client,
            Err(why) => return End::Broken(why),
        };
        let dialled = {
            let _permit = self.dials.acquire().await;
            client.status().await
        };
        match dialled {
            Ok(stream) => self.follow(order, client, stream).await,
            Err(error) => End::Broken(error.to_string()),
        }
    }

    fn client(&self, order: &Order) -> Result<Client, String> {
        let NodeId { cluster, node, .. } = &*self.id;
        let name = NodeName {
            namespace: cluster.namespace.clone(),
            cluster: cluster.name.clone(),
            node: node.clone(),
        };
        let client = Client::over_tls(order.address, name, &order.pass).map_err(|error| error.to_string())?;
        Ok(client.with_answer_max(LINE_BYTES_MIN + LINK_BYTES_MAX * order.rendering.links_room()))
    }

    async fn follow(&mut self, mut order: Order, client: Client, mut stream: StatusStream) -> End {
        let mut budget = Budget::new();
        let mut push = Push::default();
        let mut under_way: Option<BoxFuture<'static, Result<Applied, ClientError>>> = None;
        loop {
            let may_push = under_way.is_none() && self.fence.is_open(Instant::now().into());
            if may_push && push.is_due(&order.rendering.hash, Instant::now()) {
                let json = order.rendering.json.clone();
                push.sent.clone_from(&order.rendering.hash);
                under_way = Some(put(client.clone(), json, Arc::clone(&self.pushes)).boxed());
            }
            tokio::select! {
                line = stream.next() => match line {
                    Ok(Some(line)) => {
                        if !budget.allows(order.rendering.links_room()) {
                            return End::Broken("the node says more than a node has to say".to_owned());
                        }
                        if !push.hear(&line) {
                            return End::Broken("the node's first line is no snapshot".to_owned());
                        }
                        self.tell(Sight::Line(line)).await;
                    }
                    Ok(None) => return End::Broken("the node closed its status stream".to_owned()),
                    Err(error) => return End::Broken(error.to_string()),
                },
                done = perform(&mut under_way) => {
                    under_way = None;
                    let pushed = push.note(done, Instant::now());
                    self.tell(Sight::Pushed(pushed)).await;
                }
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        return End::Unwanted;
                    }
                    let next = self.orders.borrow_and_update().clone();
                    // Lines may be as long as there are links: a connection knows one measure.
                    let room = |order: &Order| order.rendering.links_room();
                    if next.address != order.address || next.pass != order.pass || room(&next) != room(&order) {
                        return End::Moved;
                    }
                    push.renew(&order.rendering, &next.rendering);
                    order = next;
                }
                () = push.wait(), if under_way.is_none() => {}
            }
        }
    }

    async fn tell(&self, sight: Sight) {
        // Nobody listens any more while everything ends.
        let _ = self.tell.send((Arc::clone(&self.id), sight)).await;
    }

    /// Up to a quarter more, another for each pod: what broke together does not come back together.
    fn spread(&self, pause: Duration) -> Duration {
        let sum: u32 = self.id.uid.bytes().map(u32::from).sum();
        pause * (sum % 64) / 256
    }
}

/// Resolves with true when the node is to be dialled in another way than before, with false when it is not to be dialled.
async fn moved(orders: &mut watch::Receiver<Order>) -> bool {
    let before = orders.borrow_and_update().clone();
    let moves = |now: &Order| (now.address, &now.pass) != (before.address, &before.pass);
    orders.wait_for(moves).await.is_ok()
}

async fn put(client: Client, json: Bytes, room: Arc<Semaphore>) -> Result<Applied, ClientError> {
    let _permit = room.acquire().await;
    client.put_document(json).await
}

async fn perform<T>(work: &mut Option<BoxFuture<'static, T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// What is known of the settings that the node runs, and when to give it others.
#[derive(Default)]
struct Push {
    /// By its own word; `None` before its first.
    runs: Option<String>,
    /// The hash of what is or was last pushed.
    sent: String,
    /// How the node calls what it took, with the hash that it was sent under.
    taken: Option<(String, String)>,
    failures: u32,
    not_before: Option<Instant>,
}

impl Push {
    fn is_due(&self, wanted: &str, now: Instant) -> bool {
        let Some(runs) = &self.runs else { return false };
        let is_it = |(sent, calls): &(String, String)| sent == wanted && calls == runs;
        runs != wanted
            && !self.taken.as_ref().is_some_and(is_it)
            && self.not_before.is_none_or(|at| at <= now)
    }

    /// Takes in what the node says of its settings; tells whether it may say so.
    fn hear(&mut self, line: &StatusLine) -> bool {
        match line {
            StatusLine::Snapshot(report) | StatusLine::Node(report) => {
                let is_first = self.runs.is_none();
                self.runs = Some(report.settings_hash.clone());
                !is_first || matches!(line, StatusLine::Snapshot(_))
            }
            _ => self.runs.is_some(),
        }
    }

    fn note(&mut self, done: Result<Applied, ClientError>, now: Instant) -> Pushed {
        let settings_hash = self.sent.clone();
        let outcome = match done {
            Ok(applied) => {
                self.failures = 0;
                // What it said before may still be on its way.
                self.not_before = Some(now + PUSH_PAUSE_MIN);
                self.taken = Some((self.sent.clone(), applied.settings_hash.clone()));
                Ok(applied.settings_hash)
            }
            Err(error) => {
                let pause = PUSH_PAUSE_MIN * 2u32.saturating_pow(self.failures.min(16));
                self.not_before = Some(now + pause.min(PUSH_PAUSE_MAX));
                self.failures = self.failures.saturating_add(1);
                Err(bounded(&error.to_string()))
            }
        };
        Pushed { settings_hash, outcome }
    }

    /// Other settings are worth a push at once.
    fn renew(&mut self, before: &Rendering, next: &Rendering) {
        if before.hash != next.hash {
            (self.failures, self.not_before) = (0, None);
        }
    }

    /// Until a push that has to wait may be tried.
    async fn wait(&mut self) {
        match self.not_before {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
        self.not_before = None;
    }
}

/// How many lines a node may say in a second.
struct Budget {
    since: Instant,
    lines: usize,
}

impl Budget {
    fn new() -> Budget {
        Budget { since: Instant::now(), lines: 0 }
    }

    fn allows(&mut self, links: usize) -> bool {
        if self.since.elapsed() > Duration::from_secs(1) {
            *self = Budget::new();
        }
        self.lines += 1;
        self.lines <= LINES_A_REPORT * (links + 2)
    }
}

fn bounded(why: &str) -> String {
    why.chars().take(WHY_CHARS_MAX).collect()
}

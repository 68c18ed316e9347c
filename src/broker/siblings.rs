//! The shards of a node beside the one that the [`Broker`](super::Broker) lives on: a thread each.
//!
//! A shard's runtime, core and connections never leave its thread. What reaches it from outside: mail of other shards, for
//! which a bell rings in its flusher; and orders, in a bounded channel: clients to take in, settings, questions.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread;

use futures::task::AtomicWaker;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;

use super::core::{Counters, Levels, Office, Place, ShardMask, ShardNumber, shards_in};
use super::handover::{Arrival, arrive};
use super::kept::{self, Kept};
use super::shard::{Common, Shard};
use crate::settings::Settings;

/// How many clients may wait to be taken in by a shard before one more is turned away.
const ORDERS_MAX: usize = 4_096;

/// Something to do on a shard's thread.
type Work = Box<dyn FnOnce(&Rc<Shard>) + Send>;

/// What a shard is told.
pub(super) enum Order {
    /// Take a client in.
    Arrive(Box<Arrival>),
    /// Do this, on the shard's thread.
    Do(Work),
}

/// What all shards of a node share.
pub(super) struct Mesh {
    pub(super) place: Place,
    pub(super) office: Arc<Office>,
    bells: Arc<[AtomicWaker]>,
    orders: Vec<mpsc::Sender<Order>>,
    figures: Arc<[Mutex<(Counters, Levels)>]>,
    /// How many shards do not let clients in yet.
    holding: Arc<watch::Sender<usize>>,
    /// Where the last client went that could have gone anywhere.
    last_in_turn: Cell<ShardNumber>,
}

/// The other shards' threads.
pub(super) struct Siblings {
    ends: Vec<oneshot::Receiver<()>>,
}

impl Siblings {
    /// Ready when one has ended, in order or not.
    pub(super) fn poll_one_ended(&mut self, cx: &mut Context) -> Poll<()> {
        let has_ended = |end: &mut oneshot::Receiver<()>| Pin::new(end).poll(cx).is_ready();
        // All are asked: each must know whom to wake.
        match self.ends.iter_mut().map(has_ended).fold(false, |any, has| any | has) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Mesh {
    /// Rings at other shards.
    pub(super) fn ring(&self, whom: ShardMask) {
        shards_in(whom).for_each(|shard| self.bells[usize::from(shard)].wake());
    }

    /// Who is to be woken when others ring here.
    pub(super) fn listen(&self, cx: &Context) {
        self.bells[usize::from(self.place.number())].register(cx.waker());
    }

    /// True if other shards left something here.
    pub(super) fn has_mail(&self) -> bool {
        self.office.has_mail(self.place.number())
    }

    /// A shard for a client that may go anywhere: each in turn.
    pub(super) fn next_in_turn(&self) -> ShardNumber {
        let next = (usize::from(self.last_in_turn.get()) + 1) % self.place.count();
        self.last_in_turn.set(next as ShardNumber);
        next as ShardNumber
    }

    /// Sends a client to its shard; one that is too busy to take it loses it.
    pub(super) fn send(&self, home: ShardNumber, arrival: Arrival) {
        let order = Order::Arrive(Box::new(arrival));
        if self.orders[usize::from(home)].try_send(order).is_err() {
            tracing::debug!(shard = home, "too many clients wait to be taken in; one is turned away");
        }
    }

    /// Has all other shards do something, and waits until they have.
    pub(super) async fn on_others<T: Send + 'static>(
        &self,
        work: impl Fn(&Rc<Shard>) -> T + Send + Clone + 'static,
    ) -> Vec<T> {
        let mut answers = Vec::new();
        for (_, orders) in self.others() {
            let (answer, answered) = oneshot::channel();
            let work = work.clone();
            let order = Order::Do(Box::new(move |shard| drop(answer.send(work(shard)))));
            if orders.send(order).await.is_ok() {
                answers.push(answered);
            }
        }
        let mut done = Vec::new();
        for answer in answers {
            done.extend(answer.await.ok());
        }
        done
    }

    /// Has another shard do something, and waits until it has; `None` if it is gone.
    pub(super) async fn on_one<T: Send + 'static>(
        &self,
        shard: ShardNumber,
        work: impl FnOnce(&Rc<Shard>) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let order = Order::Do(Box::new(move |shard| drop(answer.send(work(shard)))));
        self.orders.get(usize::from(shard))?.send(order).await.ok()?;
        answered.await.ok()
    }

    /// Has another shard take back what was stored of its. It is the first thing that a shard is told.
    pub(super) fn restore(&self, shard: usize, kept: Kept) {
        let work = move |shard: &Rc<Shard>| {
            kept::begin(shard, kept);
            shard.spawn(super::let_clients_in(Rc::clone(shard)));
        };
        if self.orders[shard].try_send(Order::Do(Box::new(work))).is_err() {
            tracing::error!(shard, "a shard is gone");
        }
    }

    /// Has clients wait until every shard has let them in.
    pub(super) fn hold_clients(&self) {
        self.holding.send_replace(self.place.count());
    }

    /// Lets clients in, as far as this shard goes.
    pub(super) fn let_clients_in(&self) {
        self.holding.send_modify(|count| *count = count.saturating_sub(1));
    }

    /// Waits until clients may come in.
    pub(super) async fn clients_may_come(&self) {
        // An error would say that there is no sender; there is one in here.
        let _ = self.holding.subscribe().wait_for(|&count| count == 0).await;
    }

    /// Has all other shards run with new settings.
    pub(super) fn apply(&self, settings: &Settings) {
        let settings = Arc::new(settings.clone());
        self.tell_others(move |shard| shard.apply(&settings));
    }

    /// Has all other shards do something, some time.
    pub(super) fn tell_others(&self, work: impl Fn(&Rc<Shard>) + Send + Clone + 'static) {
        for (shard, orders) in self.others() {
            // Whoever floods the node with connections must not keep orders from it.
            let (orders, order) = (orders.clone(), Order::Do(Box::new(work.clone())));
            tokio::task::spawn_local(async move {
                if orders.send(order).await.is_err() {
                    tracing::error!(shard, "a shard is gone");
                }
            });
        }
    }

    fn others(&self) -> impl Iterator<Item = (usize, &mpsc::Sender<Order>)> {
        let own = usize::from(self.place.number());
        self.orders.iter().enumerate().filter(move |(shard, _)| *shard != own)
    }

    /// Notes what this shard counted and holds, for all to see.
    pub(super) fn note(&self, figures: (Counters, Levels)) {
        *self.lock(usize::from(self.place.number())) = figures;
    }

    /// What the other shards noted last.
    pub(super) fn noted(&self) -> impl Iterator<Item = (Counters, Levels)> {
        let own = usize::from(self.place.number());
        (0..self.place.count()).filter(move |&shard| shard != own).map(|shard| *self.lock(shard))
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, (Counters, Levels)> {
        self.figures[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts all shards but the first, and gives what the first needs; nothing if there is no other.
///
/// # Errors
/// When the system gives no thread or no runtime.
pub(super) fn start(
    count: usize,
    settings: &Settings,
    common: &Common,
) -> io::Result<Option<(Mesh, Siblings)>> {
    if count < 2 {
        return Ok(None);
    }
    let office = Arc::new(Office::new(count));
    let bells: Arc<[AtomicWaker]> = (0..count).map(|_| AtomicWaker::new()).collect();
    let figures: Arc<[Mutex<(Counters, Levels)>]> = (0..count).map(|_| Mutex::default()).collect();
    let holding = Arc::new(watch::Sender::new(0));
    let (orders, inboxes): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(ORDERS_MAX)).unzip();
    let mesh = |own| Mesh {
        place: Place::new(own, count),
        office: Arc::clone(&office),
        bells: Arc::clone(&bells),
        // Only the first accepts and commands; when it is gone the others end.
        orders: if own == 0 { orders.clone() } else { Vec::new() },
        figures: Arc::clone(&figures),
        holding: Arc::clone(&holding),
        last_in_turn: Cell::new(0),
    };
    let settings = Arc::new(settings.clone());
    let mut ends = Vec::new();
    for (own, inbox) in inboxes.into_iter().enumerate().skip(1) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mesh, settings, common) = (mesh(own), Arc::clone(&settings), common.clone());
        let (ended, end) = oneshot::channel();
        thread::Builder::new().name(format!("shard-{own}")).spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, run(mesh, settings, common, inbox));
            // Nobody waits any more if the process ends at the same time.
            let _ = ended.send(());
        })?;
        ends.push(end);
    }
    Ok(Some((mesh(0), Siblings { ends })))
}

/// One shard's life: until there is nobody to give orders, or one of its tasks panics.
async fn run(mesh: Mesh, settings: Arc<Settings>, common: Common, mut orders: mpsc::Receiver<Order>) {
    let shard = super::open_shard(&settings, Some(mesh), common);
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            () = shard.lost.notified() => None,
        };
        match order {
            Some(Order::Arrive(arrival)) => arrive(&shard, *arrival),
            Some(Order::Do(work)) => work(&shard),
            None => return,
        }
    }
}

//! The operator and the nodes in their pods: settings out, status streams in.
//!
//! One task keeps the connection to one pod, ready or not: it dials, pushes the settings whenever the node reports the hash of
//! others, and passes on what the node says. Decisions give [`Order`]s, tasks give [`Sight`]s, and [`Heard`] remembers what of
//! them counts; only tasks touch a socket.
//!
//! What holds:
//! - A task shows itself to the node that it means and to nobody else, whoever has the pod's address by now.
//! - Nothing is waited for without end: dials, answers, lines and silences have their time, lines and streams their size, and
//!   tasks, dials and pushes at the same time their number. Who exceeds it is hung up on and dialled again, slower each time.
//! - What counts of a report is what a condition or a status says: counters and beats wake nobody.
//! - Who does not lead gives no settings to nodes: another one may lead, and know better.
//! - A task ends with its pod. What a task of a pod before this one still says is not heard.

mod gist;
mod heard;
mod keeper;
mod pod;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::lease::Fence;
use crate::admin::{Pass, StatusLine};
use crate::plan::{Key, Pushed};

pub(super) use heard::Heard;
use keeper::Keeper;
pub(super) use pod::Pod;

/// Pods that are followed at a time.
pub(super) const NODES_MAX: usize = 4_096;
/// What nodes say that may wait to be heard.
const SIGHTS_MAX: usize = 256;
/// Connections that are being made at a time: those that nobody answers must leave room for others.
const DIALS_MAX: usize = 256;
/// Links for which there is always room in what a node says.
const LINKS_ROOM_MIN: usize = 16;
/// Settings on their way at a time.
const PUSHES_MAX: usize = 64;

/// One node in one pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeId {
    /// Its cluster.
    pub(super) cluster: Key,
    /// Its name, which is the pod's.
    pub(super) node: String,
    /// The pod's: the next one has the same name.
    pub(super) uid: String,
}

/// What a task should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// Where the node serves the admin protocol.
    pub(super) address: SocketAddr,
    /// What to show there, and whom to trust.
    pub(super) pass: Arc<Pass>,
    /// What the node should run.
    pub(super) rendering: Arc<Rendering>,
}

/// Settings, ready to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rendering {
    /// Their hash.
    pub(super) hash: String,
    /// The whole document.
    pub(super) json: Bytes,
    /// How many links there are in it.
    pub(super) links: usize,
}

impl Rendering {
    /// For how many links there must be room in what the node says: in steps, so that few changes are one.
    fn links_room(&self) -> usize {
        self.links.next_power_of_two().max(LINKS_ROOM_MIN)
    }
}

/// What a task sees.
#[derive(Debug)]
pub(super) enum Sight {
    /// A line of the status stream.
    Line(StatusLine),
    /// The node cannot be asked.
    Unreachable(String),
    /// What became of settings that it was given.
    Pushed(Pushed),
}

/// The tasks.
pub(super) struct Nodes {
    tasks: BTreeMap<NodeId, Task>,
    tell: mpsc::Sender<(Arc<NodeId>, Sight)>,
    dials: Arc<Semaphore>,
    pushes: Arc<Semaphore>,
    fence: Fence,
}

struct Task {
    orders: watch::Sender<Order>,
    handle: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Nodes {
    /// No tasks yet, and what they will see. They give nothing to nodes while the fence is closed.
    pub(super) fn new(fence: Fence) -> (Nodes, mpsc::Receiver<(Arc<NodeId>, Sight)>) {
        let (tell, sights) = mpsc::channel(SIGHTS_MAX);
        let [dials, pushes] = [DIALS_MAX, PUSHES_MAX].map(|permits| Arc::new(Semaphore::new(permits)));
        (Nodes { tasks: BTreeMap::new(), tell, dials, pushes, fence }, sights)
    }

    /// Has one task for each order, and no others.
    pub(super) fn keep(&mut self, orders: &BTreeMap<NodeId, Order>) {
        self.tasks.retain(|id, task| orders.contains_key(id) && !task.handle.is_finished());
        for (id, order) in orders {
            match self.tasks.get(id) {
                Some(task) => drop(task.orders.send_if_modified(|last| {
                    let changes = last != order;
                    if changes {
                        last.clone_from(order);
                    }
                    changes
                })),
                None => drop(self.tasks.insert(id.clone(), self.start(id, order))),
            }
        }
    }

    fn start(&self, id: &NodeId, order: &Order) -> Task {
        let (orders, taken) = watch::channel(order.clone());
        let keeper = Keeper {
            id: Arc::new(id.clone()),
            orders: taken,
            tell: self.tell.clone(),
            dials: Arc::clone(&self.dials),
            pushes: Arc::clone(&self.pushes),
            fence: self.fence.clone(),
        };
        Task { orders, handle: tokio::spawn(keeper.keep()) }
    }
}

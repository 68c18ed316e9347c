//! Links on sockets: the link listener, dialling, TLS, and the tasks around the machines.
//!
//! Everything runs on the shard's thread, in tasks of the broker, so that a panic in one ends the node. The machines decide;
//! here is only what needs a socket, a clock or a task. Of the broker it knows the handle and its port.

mod clock;
mod tls;
mod carrier;
mod outgoing;
mod greeting;
mod socket;
mod resolve;
mod dial;
mod listen;
mod hub;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::broker::Broker;
use crate::settings::Settings;
use crate::settings::report::{LinkReport, ListenerReport};

use self::hub::{Hub, SharedHub};
use self::listen::Listener;
pub use super::machine::Identity;

/// How long a stopping node hands over messages, and how often it looks whether any are left.
const DRAIN_MAX: Duration = Duration::from_secs(3);
const DRAIN_LOOK: Duration = Duration::from_millis(5);
/// How long the last words of links may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// The links of one node; a cheap handle, for the thread it was made on.
#[derive(Clone)]
pub struct Links {
    inner: Rc<Inner>,
}

struct Inner {
    hub: SharedHub,
    /// None when none is wanted.
    listener: RefCell<Option<Listener>>,
    /// Brings the core's events and the machines' timeouts to the hub.
    task: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Links {
    /// Starts without any link; `seed` spreads the delays of diallers. Must be called within a `LocalSet`.
    pub fn start(broker: Broker, own: Identity, seed: u64) -> Links {
        let hub = Hub::new(broker.clone(), own, seed);
        let task = broker.spawn(run(hub.clone(), broker.clone()));
        Links { inner: Rc::new(Inner { hub, listener: RefCell::default(), task }) }
    }

    /// Brings listener and links in line with the settings. What stays the same is not disturbed, and no
    /// connection ends that is still valid.
    pub fn apply_settings(&self, settings: &Settings) {
        self.inner.hub.borrow_mut().apply_settings(settings, Instant::now());
        self.apply_listener(settings);
    }

    fn apply_listener(&self, settings: &Settings) {
        let mut listener = self.inner.listener.borrow_mut();
        let Some(wanted) = &settings.link_listener else {
            *listener = None;
            return;
        };
        match &mut *listener {
            Some(listener) if listener.is_at(&settings.bind, wanted.port) => listener.apply_tls(&wanted.tls),
            _ => *listener = Some(Listener::start(self.inner.hub.clone(), settings, wanted)),
        }
    }

    /// How the links are now, sorted by id.
    pub fn reports(&self) -> Vec<LinkReport> {
        self.inner.hub.borrow().reports(Instant::now())
    }

    /// How the link listener is; None when none is wanted.
    pub fn listener(&self) -> Option<ListenerReport> {
        self.inner.listener.borrow().as_ref().map(Listener::report)
    }

    /// Rings after a report may have changed; counters alone do not ring.
    pub fn changed(&self) -> Rc<Notify> {
        self.inner.hub.borrow().changed.clone()
    }

    /// Whether no peer that is there has messages to come.
    pub fn is_drained(&self) -> bool {
        self.inner.hub.borrow().is_drained(Instant::now())
    }

    /// Hands over what waits for peers that are there, then says Bye on every connection; waits for both within bounds.
    pub async fn shutdown(&self) {
        let drained = async {
            while !self.is_drained() {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        // What a peer does not take over in time is lost with this node's memory.
        let _ = tokio::time::timeout(DRAIN_MAX, drained).await;
        *self.inner.listener.borrow_mut() = None;
        self.inner.hub.borrow_mut().shutdown(Instant::now());
        let ended = self.inner.hub.borrow().ended.clone();
        let silent = async {
            while !self.inner.hub.borrow().is_silent() {
                ended.notified().await;
            }
        };
        // Whoever does not read its Bye in time goes without it.
        let _ = tokio::time::timeout(FAREWELL, silent).await;
    }
}

/// Waits for the core's bell or the next timeout, and pumps.
async fn run(hub: SharedHub, broker: Broker) {
    let wake = hub.borrow().wake.clone();
    loop {
        let next = hub.borrow().poll_timeout();
        hub.borrow_mut().sleeps_until = next;
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = broker.port_events() => {}
            () = wake.notified() => {}
            () = due => {}
        }
        let now = Instant::now();
        let mut hub = hub.borrow_mut();
        // Awake: what `pump` finds to be due next is looked at above.
        hub.sleeps_until = Some(now);
        hub.pump(now);
    }
}

//! What the flusher and a connection's task share: how to write, and who must be woken.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::task::{Context, Waker};

use tokio::net::tcp::OwnedWriteHalf;

/// One open socket, as the rest of the shell sees it.
pub(super) struct Wire {
    /// Plain TCP can be written to at once; what is encrypted is its task's business.
    pub(super) plain: Option<OwnedWriteHalf>,
    /// Whose it is, by a load balancer's word where that counts.
    pub(super) peer: SocketAddr,
    /// The task has to write: the socket was full, or is not plain.
    pub(super) must_write: Cell<bool>,
    /// The core stopped reading, maybe in the midst of what came: the task goes on once something was sent.
    pub(super) is_paused: Cell<bool>,
    /// More than [`PART_BYTES`](super::core::PART_BYTES) lie here that the core did not use yet.
    pub(super) has_part: Cell<bool>,
    /// The core is done with it: send what is left and close.
    pub(super) is_closing: Cell<bool>,
    /// The client is told why it is closed, and may be sending still: read on until it stops.
    pub(super) lingers: Cell<bool>,
    /// The socket failed.
    pub(super) is_broken: Cell<bool>,
    /// The log has its client's name.
    pub(super) is_named: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Wire {
    pub(super) fn new(plain: Option<OwnedWriteHalf>, peer: SocketAddr) -> Wire {
        Wire {
            plain,
            peer,
            must_write: Cell::new(false),
            is_paused: Cell::new(false),
            has_part: Cell::new(false),
            is_closing: Cell::new(false),
            lingers: Cell::new(false),
            is_broken: Cell::new(false),
            is_named: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    /// Remembers whom to wake.
    pub(super) fn watch(&self, cx: &Context) {
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|old| !old.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Wakes the connection's task.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

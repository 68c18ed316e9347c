//! A bounded number of tasks for whoever knocks: when there is no room, the oldest gives way.
//!
//! Strangers may fill a room that refuses the newest; who is honest would stay outside. Where the oldest leaves, somebody
//! who says what is due at once gets through however many others hold their sockets silently.

use std::collections::VecDeque;
use std::future::Future;

use tokio::task::{AbortHandle, JoinError, JoinSet};

/// At most so many tasks; they end when this is dropped.
pub(super) struct Crowd<T> {
    tasks: JoinSet<T>,
    /// In the order in which they came; those that ended are removed when the next comes.
    order: VecDeque<AbortHandle>,
    max: usize,
}

impl<T: Send + 'static> Crowd<T> {
    pub(super) fn new(max: usize) -> Self {
        Self { tasks: JoinSet::new(), order: VecDeque::new(), max }
    }

    /// Starts a task, in place of the oldest if there is no room.
    pub(super) fn admit(&mut self, task: impl Future<Output = T> + Send + 'static) {
        self.order.retain(|task| !task.is_finished());
        while self.order.len() >= self.max {
            let Some(oldest) = self.order.pop_front() else { break };
            oldest.abort();
        }
        self.order.push_back(self.tasks.spawn(task));
    }

    /// Forgets how those ended that did.
    pub(super) fn forget_ended(&mut self) {
        while self.tasks.try_join_next().is_some() {}
    }

    /// How the next of them ended; `None` when there is none.
    ///
    /// # Cancel safety
    /// Safe: no result is lost.
    pub(super) async fn next(&mut self) -> Option<Result<T, JoinError>> {
        self.tasks.join_next().await
    }
}

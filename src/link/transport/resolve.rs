//! Names of peers to addresses, with few threads: what blocks shares them with the hashing of passwords.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::lookup_host;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;

/// Look-ups of all links at once: half of the threads that there are for what blocks, so that passwords find one.
pub(super) const LOOKUPS_MAX: usize = 256;

/// Looks one peer's name up, one look-up at a time: the system's cannot be given up, and holds a thread until it ends. An
/// attempt that finds the last one's still running waits for that.
pub(super) struct Resolver {
    /// Of all links.
    places: Arc<Semaphore>,
    running: Mutex<Option<Running>>,
}

struct Running {
    server: String,
    task: JoinHandle<io::Result<Vec<SocketAddr>>>,
}

impl Resolver {
    pub(super) fn new(places: Arc<Semaphore>) -> Rc<Resolver> {
        Rc::new(Resolver { places, running: Mutex::default() })
    }

    /// The addresses of `host:port`.
    ///
    /// # Cancel safety
    /// Safe: the next call finds the look-up that runs.
    pub(super) async fn resolve(&self, server: &str) -> io::Result<Vec<SocketAddr>> {
        self.resolve_by(server, look_up).await
    }

    async fn resolve_by<F>(&self, server: &str, look_up: impl Fn(String) -> F) -> io::Result<Vec<SocketAddr>>
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        let mut running = self.running.lock().await;
        loop {
            if let Some(last) = &mut *running {
                let found = (&mut last.task).await;
                let last = running.take();
                if last.is_some_and(|last| last.server == server) {
                    return found.map_err(io::Error::other)?;
                }
            }
            let place = self.places.clone().acquire_owned().await.map_err(io::Error::other)?;
            let found = look_up(server.to_owned());
            let task = tokio::spawn(async move {
                let found = found.await;
                drop(place);
                found
            });
            *running = Some(Running { server: server.to_owned(), task });
        }
    }
}

async fn look_up(server: String) -> io::Result<Vec<SocketAddr>> {
    Ok(lookup_host(server).await?.collect())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;

    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_look_up_that_was_given_up_is_waited_for() {
        let resolver = Resolver::new(Arc::new(Semaphore::new(1)));
        let (answer, answered) = oneshot::channel();
        let answered = Cell::new(Some(answered));
        let look_up = |_: String| {
            let answered = answered.take().expect("only one look-up is begun");
            async move { answered.await.map_err(io::Error::other) }
        };
        let first = resolver.resolve_by("peer:1883", look_up).now_or_never();
        assert!(first.is_none(), "nobody answered");

        let address = SocketAddr::from(([192, 0, 2, 1], 1883));
        answer.send(vec![address]).expect("the look-up runs on");
        assert_eq!(resolver.resolve_by("peer:1883", look_up).await.expect("it was answered"), [address]);

        let other = SocketAddr::from(([192, 0, 2, 2], 1883));
        let look_up = |_: String| ready(Ok(vec![other]));
        assert_eq!(resolver.resolve_by("peer:1883", look_up).await.expect("asked anew"), [other]);
    }

    #[tokio::test]
    async fn another_name_is_looked_up_when_the_last_has_ended() {
        let resolver = Resolver::new(Arc::new(Semaphore::new(1)));
        let (answer, answered) = oneshot::channel();
        let answered = Cell::new(Some(answered));
        let slow = |_: String| {
            let answered = answered.take().expect("only one look-up is begun");
            async move { answered.await.map_err(io::Error::other) }
        };
        assert!(resolver.resolve_by("old:1883", slow).now_or_never().is_none());
        let address = SocketAddr::from(([192, 0, 2, 2], 1883));
        let quick = |_: String| ready(Ok(vec![address]));
        assert!(resolver.resolve_by("new:1883", quick).now_or_never().is_none(), "no place is free");
        drop(answer);
        assert_eq!(resolver.resolve_by("new:1883", quick).await.expect("it was answered"), [address]);
    }
}

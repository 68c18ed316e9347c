//! One broker process: broker, links and admin server, wired.
//!
//! Two threads. The *shard* has a runtime of its own with the broker and the links on it, so that nothing of what follows
//! costs a message anything; the main thread serves the admin protocol and waits for signals. Between them run commands
//! one way and reports the other, in a channel of one and a watch.
//!
//! A node runs checked settings only ([`document`]), and takes new ones without a restart. On SIGTERM, SIGINT or the end of
//! standard input (if asked to heed that) links say Bye, clients are told, and the process ends with 0.

pub mod document;
mod shard;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::admin::{self, Command};
use crate::settings::report::NodeReport;
use document::{Document, DocumentError};

/// How long the goodbye to clients and peers may take: the process must end even if who started it is gone.
const GOODBYE_MAX: Duration = Duration::from_secs(10);

/// How to run a node.
#[derive(Clone, Debug)]
pub struct Options {
    /// The settings document to begin with.
    pub config: PathBuf,
    /// The node's name.
    pub node: String,
    /// Where to serve the admin protocol; nowhere when not given.
    pub admin_socket: Option<PathBuf>,
    /// End when standard input does: who started the node holds its other end.
    pub end_with_stdin: bool,
}

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The settings document is bad.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The admin socket cannot be served.
    #[error(transparent)]
    Bind(#[from] admin::BindError),
    /// The system refuses.
    #[error("failed to {0}: {1}")]
    Io(&'static str, io::Error),
    /// The shard's thread is gone.
    #[error("the broker ended unexpectedly; its log says why")]
    Panicked,
    /// The shard's thread does not end.
    #[error("the broker did not say goodbye to clients and peers within {0} s; it ends without")]
    Stuck(u64),
}

/// Runs a node until it is told to end.
///
/// # Errors
/// When it cannot start, or the broker's thread panics.
pub fn run(options: &Options) -> Result<(), NodeError> {
    let document = Document::read(&options.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| NodeError::Io("start the runtime", error))?;
    let done = runtime.block_on(serve(options, document));
    runtime.shutdown_background();
    done
}

async fn serve(options: &Options, document: Document) -> Result<(), NodeError> {
    let listener = options.admin_socket.as_deref().map(admin::bind).transpose()?;
    let identity = shard::Start { node: options.node.clone(), incarnation: now_ms(), document };
    let (report, reports) = watch::channel(Arc::new(NodeReport::default()));
    let (commands, taken) = mpsc::channel(1);
    let (stop, stopped) = oneshot::channel();
    let mut shard = shard::spawn(identity, taken, report, stopped)
        .map_err(|error| NodeError::Io("start the broker's thread", error))?;
    let _admin = listener.map(|listener| tokio::spawn(serve_admin(listener, reports, commands)));
    tokio::select! {
        ended = &mut shard => return ended.map_err(|_| NodeError::Panicked),
        why = told_to_end(options.end_with_stdin) => tracing::info!(why = why?, "the node ends"),
    }
    // A shard that is gone meanwhile shows in the next line.
    let _ = stop.send(());
    match timeout(GOODBYE_MAX, shard).await {
        Ok(ended) => ended.map_err(|_| NodeError::Panicked),
        Err(_) => Err(NodeError::Stuck(GOODBYE_MAX.as_secs())),
    }
}

async fn serve_admin(
    listener: UnixListener,
    reports: watch::Receiver<Arc<NodeReport>>,
    commands: mpsc::Sender<Command>,
) {
    if let Err(error) = admin::serve(listener, reports, commands, admin::BEAT, std::future::pending()).await {
        tracing::error!(%error, "failed to serve the admin protocol; settings can no longer be changed");
    }
}

/// Waits for a signal or the end of standard input, and says which it was.
async fn told_to_end(heed_stdin: bool) -> Result<&'static str, NodeError> {
    let listen = |kind| signal(kind).map_err(|error| NodeError::Io("listen for signals", error));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        () = stdin_ends(heed_stdin) => "standard input ended",
    })
}

/// Resolves at the end of standard input; never when nobody asked. The thread ends with the process.
async fn stdin_ends(heed: bool) {
    if !heed {
        return std::future::pending().await;
    }
    let (ended, end) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut sink = [0; 1_024];
        while !matches!(io::stdin().read(&mut sink), Ok(0) | Err(_)) {}
        drop(ended);
    });
    // It ends by being dropped.
    let _ = end.await;
}

/// The number of this start; greater than those before, as long as the clock goes forward.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

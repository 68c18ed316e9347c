//! One broker process: broker, links and admin server, wired.
//!
//! Two threads. The *shard* has a runtime of its own with the broker and the links on it, so that nothing of what follows
//! costs a message anything; the main thread serves the admin protocol and the probes, and waits for signals. Between them
//! run commands one way and reports the other, in a channel of one and a watch.
//!
//! A node runs checked settings only ([`document`]), and takes new ones without a restart; on SIGHUP those of its files.
//! On SIGTERM, SIGINT or the end of standard input (if asked to heed that) links say Bye, clients are told, and the process ends
//! with 0.

pub mod document;
pub mod log;
mod unsettled;
mod shard;
mod answer;
mod figures;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::admin::{self, Command, Routes, Trust, Vitals};
pub use crate::broker::check_certificates;
use crate::settings::report::NodeReport;
use crate::store::{self, Store, StoreError};
use document::{Document, DocumentError};

/// How long the goodbye to clients and peers may take: the process must end even if who started it is gone.
const GOODBYE_MAX: Duration = Duration::from_secs(10);

/// How to run a node.
#[derive(Clone, Debug)]
pub struct Options {
    /// The settings document to begin with: files, and directories of files.
    pub config: Vec<PathBuf>,
    /// The node's name.
    pub node: String,
    /// The directory that sessions and retained messages are kept in; none: they go with the process.
    pub data: Option<PathBuf>,
    /// Where to serve the admin protocol to who may open the socket.
    pub admin_socket: Option<PathBuf>,
    /// Where to serve the admin protocol over TLS.
    pub admin_port: Option<AdminPort>,
    /// Where to serve liveness, readiness and metrics, in the clear.
    pub probes: Option<SocketAddr>,
    /// End when standard input does: who started the node holds its other end.
    pub end_with_stdin: bool,
}

/// A port for the operator.
#[derive(Clone, Debug)]
pub struct AdminPort {
    /// Where to listen.
    pub address: SocketAddr,
    /// The directory with `tls.crt`, `tls.key` and `ca.crt`.
    pub tls_dir: PathBuf,
}

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The settings document is bad.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A socket or port cannot be listened on.
    #[error(transparent)]
    Bind(#[from] admin::BindError),
    /// What must survive cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificates of the admin port are of no use.
    #[error("failed to serve the admin protocol: {0}")]
    Trust(#[from] admin::TrustError),
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
    run_until(options, told_to_end(options.end_with_stdin))
}

/// The same, where somebody else says when to end, and why.
pub(crate) fn run_until(
    options: &Options,
    end: impl Future<Output = Result<&'static str, NodeError>>,
) -> Result<(), NodeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| NodeError::Io("start the runtime", error))?;
    // Before anything that takes time: who sends one wants the files read again, and not the process ended.
    let hangups = runtime.block_on(async { listen(SignalKind::hangup()) })?;
    let document = match Document::read(&options.config) {
        Err(error) if !may_wait(options, &error) => return Err(error.into()),
        document => document,
    };
    let done = runtime.block_on(serve(options, document, hangups, end));
    runtime.shutdown_background();
    done
}

/// Whether there will be other settings: a node that is operated is told, and is no better dead until then.
fn may_wait(options: &Options, problem: &DocumentError) -> bool {
    options.admin_port.is_some() || problem.is_passing()
}

async fn serve(
    options: &Options,
    document: Result<Document, DocumentError>,
    hangups: Signal,
    end: impl Future<Output = Result<&'static str, NodeError>>,
) -> Result<(), NodeError> {
    let doors = Doors::open(options).await?;
    let vitals = Arc::new(Vitals::new());
    let incarnation = now_ms();
    let (report, reports) = watch::channel(Arc::new(NodeReport::default()));
    let (commands, mut taken) = mpsc::channel(1);
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(follow(hangups, options.config.clone(), commands.clone()));
    let routes = admin::routes(reports.clone(), commands, Arc::clone(&vitals), admin::BEAT);
    doors.serve(routes, reports, &vitals);
    tokio::pin!(end);
    let document = match document {
        Ok(document) => document,
        Err(problem) => {
            let base = shard::base_report(&options.node, incarnation);
            tokio::select! {
                why = &mut end => {
                    tracing::info!(why = why?, "the node ends");
                    return Ok(());
                }
                settled = unsettled::settle(options, problem, &vitals, &mut taken, &report, base) => settled?,
            }
        }
    };
    let store = open_store(options, &document)?;
    let start = shard::Start { node: options.node.clone(), incarnation, document, store };
    let mut shard = shard::spawn(start, Arc::clone(&vitals), taken, report, stopped)
        .map_err(|error| NodeError::Io("start the broker's thread", error))?;
    tokio::select! {
        ended = &mut shard => return ended.map_err(|_| NodeError::Panicked),
        why = &mut end => tracing::info!(why = why?, "the node ends"),
    }
    vitals.drain();
    // A shard that is gone meanwhile shows in the next line.
    let _ = stop.send(());
    match timeout(GOODBYE_MAX, shard).await {
        Ok(ended) => ended.map_err(|_| NodeError::Panicked),
        Err(_) => Err(NodeError::Stuck(GOODBYE_MAX.as_secs())),
    }
}

/// Opens the store, if there is a directory for one and the settings want it.
fn open_store(options: &Options, document: &Document) -> Result<Option<(Store, store::Found)>, StoreError> {
    let Some(dir) = &options.data else { return Ok(None) };
    let Some(durability) = shard::durability(document.settings.storage.durability) else { return Ok(None) };
    Store::open(dir, durability).map(Some)
}

/// Where others may ask the node something; bound before it starts, so that what is wrong shows at once.
struct Doors {
    socket: Option<UnixListener>,
    port: Option<(TcpListener, Trust)>,
    probes: Option<TcpListener>,
}

impl Doors {
    async fn open(options: &Options) -> Result<Self, NodeError> {
        let socket = options.admin_socket.as_deref().map(admin::bind).transpose()?;
        let port = match &options.admin_port {
            Some(port) => Some((admin::bind_tcp(port.address)?, Trust::read(&port.tls_dir)?)),
            None => None,
        };
        let probes = match options.probes {
            Some(address) => Some(admin::bind_tcp(address)?),
            None => None,
        };
        Ok(Self { socket, port, probes })
    }

    /// Serves in tasks that end with the runtime.
    fn serve(self, routes: Routes, reports: watch::Receiver<Arc<NodeReport>>, vitals: &Arc<Vitals>) {
        if let Some(socket) = self.socket {
            tokio::spawn(serve_socket(socket, routes.clone()));
        }
        if let Some((listener, trust)) = self.port {
            tokio::spawn(admin::serve_tls(listener, trust, routes, admin::LOOK));
        }
        if let Some(listener) = self.probes {
            tokio::spawn(admin::serve_probes(listener, reports, Arc::clone(vitals)));
        }
    }
}

async fn serve_socket(listener: UnixListener, routes: Routes) {
    if let Err(error) = admin::serve(listener, routes, std::future::pending()).await {
        tracing::error!(%error, "failed to serve the admin socket; settings can no longer be changed there");
    }
}

fn listen(kind: SignalKind) -> Result<Signal, NodeError> {
    signal(kind).map_err(|error| NodeError::Io("listen for signals", error))
}

/// Reads the files anew on each signal, and has the node take them as if somebody had pushed them.
async fn follow(mut signals: Signal, config: Vec<PathBuf>, commands: mpsc::Sender<Command>) {
    while signals.recv().await.is_some() {
        match Document::text(&config) {
            Ok(json) => {
                let (reply, answer) = oneshot::channel();
                if commands.send(Command::Apply(json.into(), reply)).await.is_err() {
                    return;
                }
                // Log and report say what came of it.
                let _ = answer.await;
            }
            Err(error) => {
                tracing::error!(%error, "failed to read the settings anew; the node runs on with what it had");
            }
        }
    }
}

/// Waits for a signal or the end of standard input, and says which it was.
async fn told_to_end(heed_stdin: bool) -> Result<&'static str, NodeError> {
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

//! One node as a child process: started, managed over its admin socket, restarted when it dies, ended with us.
//!
//! A [`Node`] is a task. It is told the settings that its node should run and tells what it sees, through bounded channels.
//! The child gets a pipe as standard input that nobody writes to: when this process ends, however it ends, the pipe
//! closes and the child ends too.
//!
//! Invariants: at most one child at a time; a child that lived for less than [`GOOD_LIFE`] is started again after a pause
//! that doubles up to [`PAUSE_MAX`]; settings are on disk before a node is told of them.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::admin::{Client, ClientError, StatusLine, StatusStream};
use crate::settings::{Durability, Settings};

const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A node that lived so long died of something new.
const GOOD_LIFE: Duration = Duration::from_secs(30);
/// Between two attempts to reach a node that starts.
const KNOCK: Duration = Duration::from_millis(25);
/// How long a node may take to say goodbye to its clients and peers.
const GOODBYE_MAX: Duration = Duration::from_secs(8);
/// Between two attempts to tell a node its settings.
const PUSH_AGAIN: Duration = Duration::from_secs(2);
/// How long a node may take to apply settings.
const APPLY_MAX: Duration = Duration::from_secs(10);

/// How to start a node.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// The `mqlink` binary.
    pub(super) program: PathBuf,
    /// The node's name.
    pub(super) node: String,
    /// The file that its settings are written to.
    pub(super) config: PathBuf,
    /// Where it keeps what must survive, if its settings want that.
    pub(super) data: PathBuf,
    /// Where it serves the admin protocol.
    pub(super) socket: PathBuf,
    /// Its log filter.
    pub(super) log: String,
}

/// What a node's task sees.
#[derive(Debug)]
pub(super) enum Sight {
    /// A child runs.
    Started(u32),
    /// A line of its status stream.
    Status(StatusLine),
    /// It refuses settings, or cannot be reached; empty: it took them.
    Trouble(String),
    /// A line that it wrote to standard error.
    Said(String),
    /// The child is dead; it will be started again.
    Died(String),
}

/// A node and the task that keeps it.
#[derive(Debug)]
pub(super) struct Node {
    wanted: watch::Sender<Option<Arc<Settings>>>,
    task: JoinHandle<()>,
}

impl Node {
    /// Starts a node with settings; `tell` gets what is seen of it.
    pub(super) fn start<T>(spec: Spec, settings: Arc<Settings>, id: T, tell: mpsc::Sender<(T, Sight)>) -> Self
    where
        T: Clone + Send + Sync + 'static,
    {
        let (wanted, watched) = watch::channel(Some(settings));
        let keeper =
            Keeper { spec, wanted: watched, last_words: String::new(), trouble: String::new(), id, tell };
        Self { wanted, task: tokio::spawn(keeper.keep()) }
    }

    /// Has the node run other settings; nothing happens when they are the same.
    pub(super) fn set(&self, settings: &Arc<Settings>) {
        self.wanted.send_if_modified(|wanted| {
            let changes = wanted.as_ref() != Some(settings);
            if changes {
                *wanted = Some(Arc::clone(settings));
            }
            changes
        });
    }

    /// Ends the node; returns when it is dead.
    pub(super) async fn stop(self) {
        self.wanted.send_replace(None);
        // A task that panicked took its child with it.
        drop(self.task.await);
    }
}

struct Keeper<T> {
    spec: Spec,
    wanted: watch::Receiver<Option<Arc<Settings>>>,
    /// The last line of standard error: why a child died, in its own words.
    last_words: String,
    /// Why it does not run what it should, as it was told; empty: it does.
    trouble: String,
    id: T,
    tell: mpsc::Sender<(T, Sight)>,
}

/// How a child's life ended.
enum End {
    Wanted,
    /// Ended by us: it has to be started otherwise.
    Outdated,
    Died(String),
}

impl<T: Clone> Keeper<T> {
    async fn keep(mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let Some(settings) = self.wanted.borrow_and_update().clone() else { return };
            let born = Instant::now();
            let why = match self.spawn(&settings) {
                Ok(child) => match self.accompany(child, is_kept(&settings)).await {
                    End::Wanted => return,
                    End::Outdated => {
                        self.tell(Sight::Died(
                            "starts again: whether it keeps its state has changed".to_owned(),
                        ))
                        .await;
                        continue;
                    }
                    End::Died(why) => why,
                },
                Err(why) => why,
            };
            self.tell(Sight::Died(why)).await;
            pause = if born.elapsed() > GOOD_LIFE { PAUSE_MIN } else { pause };
            tokio::select! {
                () = sleep(pause) => {}
                () = unwanted(&mut self.wanted) => return,
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn spawn(&self, settings: &Settings) -> Result<Child, String> {
        self.write(settings)?;
        let data = is_kept(settings).then(|| [OsStr::new("--data"), self.spec.data.as_os_str()]);
        Command::new(&self.spec.program)
            .arg("broker")
            .args(["--node", &self.spec.node])
            .arg("--config")
            .arg(&self.spec.config)
            .arg("--admin-socket")
            .arg(&self.spec.socket)
            .args(data.into_iter().flatten())
            .args(["--log", &self.spec.log])
            .arg("--end-with-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            // Ctrl-C in a terminal goes to the whole group: the node waits for our word instead.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("failed to start {}: {error}", self.spec.program.display()))
    }

    fn write(&self, settings: &Settings) -> Result<(), String> {
        crate::local::home::write_private(&self.spec.config, settings).map_err(|error| error.to_string())
    }

    async fn accompany(&mut self, mut child: Child, was_kept: bool) -> End {
        // Held for as long as the child may live: a wait for it would close its standard input first.
        let _lifeline = child.stdin.take();
        let mut stderr = BufReader::new(child.stderr.take().expect("standard error is a pipe")).lines();
        let client = Client::new(&self.spec.socket);
        let mut stream = None;
        self.trouble.clear();
        let mut push = false;
        let mut push_again_at = None;
        self.tell(Sight::Started(child.id().unwrap_or_default())).await;
        loop {
            if push && stream.is_some() {
                push = false;
                push_again_at = (!self.push(&client).await).then(|| Instant::now() + PUSH_AGAIN);
            }
            tokio::select! {
                status = child.wait() => {
                    self.drain(&mut stderr).await;
                    return End::Died(self.describe(status));
                }
                changed = self.wanted.changed() => {
                    let wanted = self.wanted.borrow().clone().filter(|_| changed.is_ok());
                    let end = match wanted {
                        Some(settings) if is_kept(&settings) == was_kept => None,
                        Some(_) => Some(End::Outdated),
                        None => Some(End::Wanted),
                    };
                    if let Some(end) = end {
                        self.end(child, stderr).await;
                        return end;
                    }
                    push = true;
                }
                () = at(push_again_at) => (push, push_again_at) = (true, None),
                line = next_line(&client, &mut stream) => self.tell(Sight::Status(line)).await,
                line = stderr.next_line() => if let Ok(Some(line)) = line { self.said(line).await } else { sleep(KNOCK).await },
            }
        }
    }

    /// Tells the node what it should run now; tells whether that is over, well or by a refusal.
    async fn push(&mut self, client: &Client) -> bool {
        let Some(settings) = self.wanted.borrow_and_update().clone() else { return true };
        let mut is_over = false;
        let trouble = match self.write(&settings) {
            Err(error) => error,
            Ok(()) => match timeout(APPLY_MAX, client.put_settings(&settings)).await {
                Ok(Ok(_)) => {
                    is_over = true;
                    String::new()
                }
                Ok(Err(ClientError::Refused(why))) => {
                    is_over = true;
                    format!("the node refuses its settings: {why}")
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("the node took more than {} s to apply its settings", APPLY_MAX.as_secs()),
            },
        };
        if self.trouble != trouble {
            self.trouble.clone_from(&trouble);
            self.tell(Sight::Trouble(trouble)).await;
        }
        is_over
    }

    async fn end(&mut self, mut child: Child, mut stderr: Lines<BufReader<ChildStderr>>) {
        if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
            // It may be dead already, which is what is wanted.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        // Its pipe must be read meanwhile, or it could block on a full one.
        let goodbye = async {
            tokio::join!(child.wait(), async { while let Ok(Some(_)) = stderr.next_line().await {} }).0
        };
        if timeout(GOODBYE_MAX, goodbye).await.is_err() {
            tracing::warn!(node = self.spec.node, "the node did not end in time and is killed");
            let _ = child.kill().await;
        }
    }

    async fn drain(&mut self, stderr: &mut Lines<BufReader<ChildStderr>>) {
        let rest = async {
            while let Ok(Some(line)) = stderr.next_line().await {
                self.said(line).await;
            }
        };
        // Somebody else may hold the pipe open; the child itself has nothing more to say.
        let _ = timeout(Duration::from_secs(1), rest).await;
    }

    async fn said(&mut self, line: String) {
        self.last_words.clone_from(&line);
        self.tell(Sight::Said(line)).await;
    }

    fn describe(&mut self, status: std::io::Result<ExitStatus>) -> String {
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        match std::mem::take(&mut self.last_words) {
            words if words.is_empty() => status,
            words => format!("{status}: {words}"),
        }
    }

    async fn tell(&self, sight: Sight) {
        // Nobody listens any more while everything ends.
        let _ = self.tell.send((self.id.clone(), sight)).await;
    }
}

/// Whether a node keeps its state: from its start on, or not at all.
fn is_kept(settings: &Settings) -> bool {
    settings.storage.durability != Durability::None
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Resolves once the node is not wanted any more.
async fn unwanted(wanted: &mut watch::Receiver<Option<Arc<Settings>>>) {
    let _ = wanted.wait_for(Option::is_none).await;
}

/// The next line of the status stream, which is opened for as long as it takes.
///
/// # Cancel safety
/// Safe: no line is lost.
async fn next_line(client: &Client, stream: &mut Option<StatusStream>) -> StatusLine {
    loop {
        match stream {
            None => match client.status().await {
                Ok(opened) => *stream = Some(opened),
                Err(_) => sleep(KNOCK).await,
            },
            Some(open) => match open.next().await {
                Ok(Some(line)) => return line,
                Ok(None) | Err(_) => {
                    *stream = None;
                    sleep(KNOCK).await;
                }
            },
        }
    }
}

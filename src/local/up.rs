//! `mqlink up`: brings manifests up, keeps them up, follows their edits, ends everything.
//!
//! One loop over what can happen: a node says something, a file changes, time passes, somebody wants us to end. After each
//! of them the plan is made anew and applied: nodes are started, told their settings, or ended. The plan is made at most
//! once per [`CALM`].

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::child::{Node, Sight, Spec};
use super::home::{Home, HomeError};
use super::manifest::files::{self, ReadError, Text};
use super::manifest::{Manifests, Problem, load};
use super::picture::{Picture, node_name, wanted_ports};
use super::ports::{PortError, Ports};
use super::screen::Screen;
use super::status::{self, Status};
use super::table;
use crate::admin::BindError;
use crate::plan::{Key, Minted};

/// How often the manifests are read; what is read twice alike is taken for whole.
const POLL: Duration = Duration::from_millis(250);
/// The least time between two plans.
const CALM: Duration = Duration::from_millis(50);
/// What nodes say that may wait to be heard.
const SIGHTS_MAX: usize = 256;
/// The file that holds what was minted.
const MINTED: &str = "minted.json";

/// What to bring up, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Manifests: files and directories.
    pub files: Vec<PathBuf>,
    /// Where to keep credentials and settings; nowhere when not given.
    pub data: Option<PathBuf>,
    /// Take free ports where the wanted ones are in use.
    pub free_ports: bool,
    /// How long everything may take to be Ready.
    pub wait: Option<Duration>,
    /// A shell command to run once everything is Ready.
    pub run: Option<String>,
    /// The nodes' log filter.
    pub log: String,
    /// The `mqlink` binary, to run nodes with.
    pub program: PathBuf,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Somebody wanted it to, or everything was Ready and nothing more was asked for.
    Done,
    /// Not everything was Ready in time.
    NotReady,
    /// The command ended with this code.
    Command(u8),
}

/// Why nothing was brought up.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The manifests cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The manifests have mistakes.
    #[error("{}", lines(.0))]
    Manifests(Vec<Problem>),
    /// There is nothing to bring up.
    #[error("the manifests hold no MqttCluster; there is nothing to bring up")]
    Nothing,
    /// Ports cannot be had.
    #[error("{}", lines(.0))]
    Ports(Vec<PortError>),
    /// The directory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The status socket cannot be served.
    #[error(transparent)]
    Status(#[from] BindError),
    /// The command cannot be run.
    #[error("failed to run `{0}`: {1}")]
    Command(String, io::Error),
}

fn lines(problems: &[impl ToString]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Brings everything up, and returns when it is over and all nodes are dead.
///
/// # Errors
/// When it cannot begin; later mistakes are shown, and the last good state stays in force.
pub async fn up(options: Options, end: impl Future<Output = ()>) -> Result<Ended, UpError> {
    let texts = files::read(&options.files)?;
    let manifests = load(&texts, &Manifests::default()).map_err(UpError::Manifests)?;
    if manifests.clusters.is_empty() {
        return Err(UpError::Nothing);
    }
    // Before the ports: another `up` of the same directory has these as well.
    let home = Home::open(options.data.as_deref())?;
    let ports = assign(&manifests, &Ports::new(options.free_ports), &Picture::default())?;
    let (publish, latest) = watch::channel(Arc::new(Status::default()));
    status::serve(&home, latest)?;
    let (tell, sights) = mpsc::channel(SIGHTS_MAX);
    let mut picture = Picture::default();
    picture.minted = home.load(MINTED)?;
    picture.take(manifests, ports);
    let is_live = options.run.is_none() && options.wait.is_none();
    let mut up = Up {
        deadline: options.wait.map(|wait| Instant::now() + wait),
        screen: Screen::new(is_live),
        seen: texts.clone(),
        tried: texts.clone(),
        texts,
        nodes: BTreeMap::new(),
        started: 0,
        home_is_gone: false,
        saved: None,
        complaint: String::new(),
        ending: JoinSet::new(),
        command: None,
        home,
        picture,
        tell,
        publish,
        options,
    };
    up.greet();
    let ended = up.follow(sights, Box::pin(end)).await;
    up.end().await;
    ended
}

fn assign(manifests: &Manifests, before: &Ports, picture: &Picture) -> Result<Ports, UpError> {
    before.assign(&wanted_ports(manifests), &picture.ports_in_use()).map_err(UpError::Ports)
}

struct Up {
    options: Options,
    home: Home,
    picture: Picture,
    screen: Screen,
    /// The manifests in force.
    texts: Vec<Text>,
    /// The manifests as last read: what changed since may be half written.
    seen: Vec<Text>,
    /// The manifests as last taken for whole: in force, or with mistakes that were shown.
    tried: Vec<Text>,
    nodes: BTreeMap<Key, Node>,
    /// Nodes that were ever started.
    started: u64,
    /// The directory was deleted, which was said.
    home_is_gone: bool,
    /// What was minted, as it is on disk; `None` while it is not known to be there.
    saved: Option<Minted>,
    /// Why it could not be saved, as it was shown.
    complaint: String,
    /// Nodes on their way out.
    ending: JoinSet<()>,
    command: Option<Child>,
    deadline: Option<Instant>,
    tell: mpsc::Sender<(Key, Sight)>,
    publish: watch::Sender<Arc<Status>>,
}

impl Up {
    fn greet(&mut self) {
        if self.home.is_ephemeral() {
            self.screen.news("Everything is ephemeral: sessions, retained messages and credentials go with this process (no --data).");
        }
        self.name_moved_ports();
    }

    fn name_moved_ports(&mut self) {
        let moved = self.picture.ports.iter().filter(|(_, port)| port.wanted != port.actual);
        let news: Vec<String> = moved
            .map(|(socket, port)| format!("Port {} is in use: {socket} has {}.", port.wanted, port.actual))
            .collect();
        news.iter().for_each(|line| self.screen.news(line));
    }

    async fn follow(
        &mut self,
        mut sights: mpsc::Receiver<(Key, Sight)>,
        mut end: Pin<Box<impl Future<Output = ()>>>,
    ) -> Result<Ended, UpError> {
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut plan_at = Instant::now();
        let mut is_due = true;
        loop {
            let deadline = self.deadline;
            tokio::select! {
                () = &mut end => return Ok(Ended::Done),
                () = at(is_due.then_some(plan_at)) => {
                    is_due = false;
                    plan_at = Instant::now() + CALM;
                    self.plan();
                    if let Some(ended) = self.heed_readiness()? {
                        return Ok(ended);
                    }
                }
                () = at(deadline) => return Ok(self.give_up()),
                status = ended(&mut self.command) => return Ok(Ended::Command(code(status))),
                sight = sights.recv() => {
                    if let Some((cluster, sight)) = sight {
                        is_due |= self.see(&cluster, sight);
                    }
                }
                _ = poll.tick() => {
                    self.look_after_home();
                    self.read();
                    is_due = true;
                }
            }
        }
    }

    /// Notes what was seen of a node; tells whether a plan could depend on it.
    fn see(&mut self, cluster: &Key, sight: Sight) -> bool {
        if !self.nodes.contains_key(cluster) {
            return false;
        }
        let name = node_name(cluster);
        match sight {
            Sight::Started(pid) => self.picture.started(cluster, pid),
            Sight::Status(line) => self.picture.hear(cluster, line, Instant::now()),
            Sight::Died(why) => {
                self.screen.news(&format!("Node {name} died ({why}); it is started again."));
                self.picture.died(cluster, why);
            }
            Sight::Trouble(why) => {
                if !why.is_empty() {
                    self.screen.news(&format!("Node {name}: {why}"));
                }
                return false;
            }
            Sight::Said(line) => {
                self.screen.news(&format!("{name}: {line}"));
                return false;
            }
        }
        true
    }

    /// Makes the plan, applies it, shows it.
    fn plan(&mut self) {
        let now = Timestamp::now();
        let plan = self.picture.plan(now, Instant::now(), &mut random);
        self.save();
        let gone: Vec<Key> =
            self.nodes.keys().filter(|key| !plan.clusters.contains_key(*key)).cloned().collect();
        for key in gone {
            if let Some(node) = self.nodes.remove(&key) {
                let config = self.config(&key);
                self.ending.spawn(async move {
                    node.stop().await;
                    // There are credentials in it; should the cluster come back, it is written before it is read.
                    let _ = std::fs::remove_file(config);
                });
            }
        }
        while self.ending.try_join_next().is_some() {}
        for (key, settings) in plan.settings {
            let settings = settings.settings;
            match self.nodes.get(&key) {
                Some(node) => node.set(&settings),
                None => {
                    let spec = self.spec(&key);
                    self.picture.sockets.insert(key.clone(), spec.socket.clone());
                    let node = Node::start(spec, settings, key.clone(), self.tell.clone());
                    self.nodes.insert(key, node);
                }
            }
        }
        self.screen.show(&self.picture, now);
        self.publish.send_replace(Arc::new(Status::of(&self.picture, now)));
    }

    /// Says once that the directory is gone: what runs runs on, but nothing can be saved or started in it.
    fn look_after_home(&mut self) {
        let root = self.home.root();
        let is_gone = !root.is_dir();
        if is_gone && !self.home_is_gone {
            let news = format!(
                "The directory {} is gone: a node that dies cannot start again, and mqlink status finds nobody. Stop mqlink up \
                 and start it again.",
                root.display()
            );
            self.screen.news(&news);
        }
        self.home_is_gone = is_gone;
    }

    /// Saves what was minted, until it is saved.
    fn save(&mut self) {
        if self.saved.as_ref() == Some(&self.picture.minted) {
            return;
        }
        match self.home.save(MINTED, &self.picture.minted) {
            Ok(()) => {
                self.saved = Some(self.picture.minted.clone());
                self.complaint.clear();
            }
            Err(error) => {
                let complaint = format!("{error}; credentials are lost with this process until that works.");
                if complaint != self.complaint {
                    self.screen.news(&complaint);
                    self.complaint = complaint;
                }
            }
        }
    }

    /// The file with the settings of a cluster's node.
    fn config(&self, cluster: &Key) -> PathBuf {
        self.home.file(&format!("{}.{}.json", cluster.namespace, node_name(cluster)))
    }

    fn spec(&mut self, cluster: &Key) -> Spec {
        self.started += 1;
        Spec {
            program: self.options.program.clone(),
            node: node_name(cluster),
            config: self.config(cluster),
            data: self.home.file(&format!("{}.{}.store", cluster.namespace, node_name(cluster))),
            socket: self.home.admin_socket(self.started),
            log: self.options.log.clone(),
        }
    }

    /// Does what was to be done once everything is Ready.
    fn heed_readiness(&mut self) -> Result<Option<Ended>, UpError> {
        if self.command.is_some() || !table::all_ready(&self.picture) {
            return Ok(None);
        }
        let is_awaited = self.deadline.take().is_some();
        let Some(line) = &self.options.run else {
            return Ok(is_awaited.then_some(Ended::Done));
        };
        let command = Command::new("sh")
            .args(["-c", line])
            .envs(variables(&self.picture, &self.home))
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| UpError::Command(line.clone(), error))?;
        self.command = Some(command);
        Ok(None)
    }

    fn give_up(&mut self) -> Ended {
        // Who closed it does not want to hear it.
        let _ = write!(io::stderr(), "{}", table::render(&self.picture, Timestamp::now()));
        Ended::NotReady
    }

    /// Takes over the manifests if they changed and are good; shows mistakes once.
    fn read(&mut self) {
        let texts = match files::read(&self.options.files) {
            Ok(texts) => texts,
            // An editor may be about to replace the file: the next look shows it.
            Err(error) => {
                self.seen.clear();
                if !self.tried.is_empty() {
                    self.screen.news(&format!("{error}; what is in force stays."));
                    self.tried.clear();
                }
                return;
            }
        };
        let is_settled = texts == self.seen;
        self.seen.clone_from(&texts);
        if !is_settled || texts == self.tried {
            return;
        }
        self.tried.clone_from(&texts);
        if texts == self.texts {
            return;
        }
        match self.take_over(&texts) {
            Ok(()) => self.texts = texts,
            Err(error) => {
                self.screen.news(&format!("{error}\nThe edit has mistakes; what is in force stays."))
            }
        }
    }

    fn take_over(&mut self, texts: &[Text]) -> Result<(), UpError> {
        let manifests = load(texts, &self.picture.manifests).map_err(UpError::Manifests)?;
        if manifests.clusters.is_empty() {
            return Err(UpError::Nothing);
        }
        let ports = assign(&manifests, &self.picture.ports, &self.picture)?;
        self.screen.news("The manifests changed.");
        self.picture.take(manifests, ports);
        self.name_moved_ports();
        Ok(())
    }

    /// Ends the command and all nodes.
    async fn end(mut self) {
        if let Some(mut command) = self.command.take() {
            // It may be dead already, which is what is wanted.
            let _ = command.kill().await;
        }
        for node in std::mem::take(&mut self.nodes).into_values() {
            self.ending.spawn(node.stop());
        }
        while self.ending.join_next().await.is_some() {}
    }
}

/// What a command gets to know: `MQLINK_<CLUSTER>_<LISTENER>=host:port`, `MQLINK_<CLUSTER>_PID`, `MQLINK_DATA`.
fn variables(picture: &Picture, home: &Home) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::from([("MQLINK_DATA".to_owned(), home.root().display().to_string())]);
    for (key, status) in &picture.clusters {
        let name = |what: &str| {
            let name = format!("mqlink_{}_{what}", key.name).to_uppercase();
            name.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
        };
        for listener in status.listeners.iter().flatten() {
            if let Some(address) = &listener.address {
                variables.insert(name(&listener.name), address.clone());
            }
        }
        if let Some(pid) = picture.nodes.get(key).and_then(|seen| seen.pid) {
            variables.insert(name("pid"), pid.to_string());
        }
    }
    variables
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

async fn ended(command: &mut Option<Child>) -> io::Result<ExitStatus> {
    match command {
        Some(command) => command.wait().await,
        None => std::future::pending().await,
    }
}

/// The exit code of a command; 1 when a signal ended it.
fn code(status: io::Result<ExitStatus>) -> u8 {
    let code = status.ok().and_then(|status| status.code());
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn random(bytes: &mut [u8]) {
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(bytes)
        .expect("the system gives random numbers");
}

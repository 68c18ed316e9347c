//! Hostile crowds and one bystander: `mqlink bench --soak`. It says what a client that does nothing wrong feels meanwhile.
//!
//! Each broker has a bystander and crowds of its own, in processes of their own: what one process may open is limited, and
//! how busy the crowds keep theirs must not be what the bystander feels. All connections of all brokers stay open while the
//! crowds act, on one broker after the other, so that each has the machine that one broker would have; a phase is one kind
//! of act, and its figures are those of all bystanders together.
//!
//! This process only says who does what, a line at a time, and waits for an answer to each.

mod bystander;
mod crowd;

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::Options;
use super::process;
use super::run::BenchError;
use super::target::Endpoint;
use bystander::Felt;

/// How many connections one crowd holds at most.
const CROWD_MAX: usize = 20_000;
/// What lets a process run before others, the best first: crowds must not keep a bystander waiting for the processor.
const AHEAD: [&[&str]; 2] = [&["chrt", "--fifo", "2"], &["nice", "-n", "-10"]];

/// The head of the table.
const HEAD: &str = "| meanwhile | messages | lost | p50 ms | p99 ms | p99.9 ms | most ms | newcomers in after, p50 / most ms \
                    | connections | RSS MiB |\n|---|---|---|---|---|---|---|---|---|---|";

/// What a crowd does; what it did before ends with that.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
enum Act {
    /// All connect.
    Come,
    /// Waits until all connections are there, and leaves it at that.
    Stay,
    /// All send a ping at once.
    Ping,
    Readers,
    Silence,
    Return,
    Handshakes,
    Giants,
    Searches,
    /// All go at once, for good.
    Leave,
}

/// What happens, in this order.
const PHASES: [(&str, Option<Act>); 11] = [
    ("nobody else", None),
    ("all connect", Some(Act::Come)),
    ("all are there", Some(Act::Stay)),
    ("all ping at once", Some(Act::Ping)),
    ("readers that do not read", Some(Act::Readers)),
    ("sockets that say nothing, or half a word", Some(Act::Silence)),
    ("half of all go and come back at once", Some(Act::Return)),
    ("TLS handshakes", Some(Act::Handshakes)),
    ("giant topics, filters and messages", Some(Act::Giants)),
    ("searches for retained messages", Some(Act::Searches)),
    ("all go at once", Some(Act::Leave)),
];

/// What the bystanders felt in one phase.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Phase {
    name: &'static str,
    sent: u64,
    lost: u64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    newcomer_p50_ms: f64,
    newcomer_max_ms: f64,
    /// How many idle connections were open in its midst.
    connections: usize,
    /// Of all brokers, at the end of it; none: their processes are not known.
    rss_kib: Option<u64>,
}

/// What a process of a soak is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) enum Role {
    /// Does nothing wrong, and says what it feels.
    Bystander,
    /// Does what it is told.
    Crowd,
}

/// One process of a soak, as its parent names it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Part {
    role: Role,
    /// Among the crowds.
    number: usize,
    /// The broker's.
    address: String,
}

impl FromStr for Part {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Part, serde_json::Error> {
        serde_json::from_str(text)
    }
}

/// Is one of the processes that a soak consists of.
pub(super) fn be(options: &Options, part: &Part) -> Result<(), BenchError> {
    match part.role {
        Role::Bystander => bystander::run(&part.address),
        Role::Crowd => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|source| BenchError::io("start", "the crowd's runtime", source))?;
            tokio::task::LocalSet::new().block_on(&runtime, crowd::run(options, part))
        }
    }
}

/// Runs all phases against brokers that let anonymous clients in.
///
/// # Errors
/// When a bystander is refused or closed: everybody else may be.
pub(super) fn run(options: &Options) -> Result<Vec<Phase>, BenchError> {
    allow_files();
    let ahead = AHEAD.iter().find(|words| is_allowed(words)).copied().unwrap_or(&[]);
    eprintln!("{} brokers; bystanders run under `{}`", options.soak.len(), ahead.join(" "));
    let share = options.connections.div_ceil(options.soak.len());
    let mut sites = Vec::new();
    for (number, broker) in options.soak.iter().enumerate() {
        sites.push(Site::open(number, broker, share, options, ahead)?);
    }
    println!("{HEAD}");
    let phases =
        PHASES.iter().filter(|(_, act)| !matches!(act, Some(Act::Handshakes)) || options.cafile.is_some());
    phases.map(|&(name, act)| run_phase(name, act, &mut sites, options.measured())).collect()
}

/// As many files as the system lets us have.
fn allow_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        eprintln!("open files: {soft} allowed, raised to {hard}");
        Ok(())
    });
    if let Err(error) = raised {
        eprintln!("open files: the limit stays as it is: {error}");
    }
}

/// True if a program can be run in this way.
fn is_allowed(words: &[&str]) -> bool {
    let run = Command::new(words[0]).args(&words[1..]).arg("true").stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

/// Lets the crowds do something and the bystanders go on meanwhile, one broker after the other.
fn run_phase(
    name: &'static str,
    act: Option<Act>,
    sites: &mut [Site],
    period: Duration,
) -> Result<Phase, BenchError> {
    let mut all = Felt::default();
    for site in &mut *sites {
        if let Some(act) = act {
            site.act(act)?;
        }
        let felt: Felt = site.bystander.ask(&period.as_secs_f64().to_string())?;
        all.sent += felt.sent;
        all.took_us.extend(felt.took_us);
        all.in_us.extend(felt.in_us);
        if act.is_some() {
            site.act(Act::Stay)?;
        }
    }
    let pids: Option<Vec<u32>> = sites.iter().map(|site| site.broker.pid).collect();
    let rss_kib = pids.and_then(|pids| process::resident_kib(&pids).ok());
    let connections = sites.iter().map(|site| site.open).sum();
    Ok(Phase::of(name, all, connections, rss_kib))
}

impl Phase {
    fn of(name: &'static str, felt: Felt, connections: usize, rss_kib: Option<u64>) -> Phase {
        let Felt { sent, took_us, in_us } = felt;
        let lost = sent - took_us.len() as u64;
        let (took, newcomers) = (quantiles(took_us), quantiles(in_us));
        let phase = Phase {
            name,
            sent,
            lost,
            p50_ms: took(0.5),
            p99_ms: took(0.99),
            p999_ms: took(0.999),
            max_ms: took(1.0),
            newcomer_p50_ms: newcomers(0.5),
            newcomer_max_ms: newcomers(1.0),
            connections,
            rss_kib,
        };
        phase.print();
        phase
    }

    fn print(&self) {
        let Phase { name, sent, lost, p50_ms, p99_ms, p999_ms, max_ms, connections, .. } = self;
        let rss = self.rss_kib.map_or_else(|| "–".to_owned(), |kib| format!("{:.0}", kib as f64 / 1024.0));
        println!(
            "| {name} | {sent} | {lost} | {p50_ms:.2} | {p99_ms:.2} | {p999_ms:.2} | {max_ms:.2} | {:.1} / {:.0} | {connections} | {rss} |",
            self.newcomer_p50_ms, self.newcomer_max_ms
        );
    }
}

/// The values below which a share of these lies, in ms.
fn quantiles(mut us: Vec<u64>) -> impl Fn(f64) -> f64 {
    us.sort_unstable();
    move |share| {
        let rank = (us.len() as f64 * share).ceil() as usize;
        us.get(rank.saturating_sub(1)).map_or(f64::NAN, |&us| us as f64 / 1e3)
    }
}

/// A broker with those who are there for it.
struct Site {
    broker: Endpoint,
    bystander: Child,
    crowds: Vec<Child>,
    /// How many idle connections its crowds held when they were last asked.
    open: usize,
}

impl Site {
    fn open(
        number: usize,
        broker: &Endpoint,
        connections: usize,
        options: &Options,
        ahead: &[&str],
    ) -> Result<Site, BenchError> {
        let bystander = Child::start(Role::Bystander, 0, broker, 0, options, ahead)?;
        let count = connections.div_ceil(CROWD_MAX);
        let crowds = (0..count).map(|n| {
            Child::start(Role::Crowd, number * count + n, broker, connections.div_ceil(count), options, &[])
        });
        Ok(Site { broker: broker.clone(), bystander, crowds: crowds.collect::<Result<_, _>>()?, open: 0 })
    }

    /// Has the crowds begin something, and waits until they have.
    fn act(&mut self, act: Act) -> Result<(), BenchError> {
        let word = serde_json::to_string(&act).expect("acts are plain data");
        self.crowds.iter_mut().try_for_each(|crowd| crowd.tell(&word))?;
        let open = self.crowds.iter_mut().map(Child::answer::<usize>).sum::<Result<_, _>>()?;
        self.open = open;
        Ok(())
    }
}

/// A process of this program that does what it is told.
struct Child {
    process: std::process::Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Child {
    fn start(
        role: Role,
        number: usize,
        broker: &Endpoint,
        connections: usize,
        options: &Options,
        ahead: &[&str],
    ) -> Result<Child, BenchError> {
        let failed = |source| BenchError::io("start", "a process of the soak", source);
        let program = std::env::current_exe().map_err(failed)?;
        let mut words = ahead.iter();
        let mut command = Command::new(words.next().map_or(program.as_os_str(), |word| word.as_ref()));
        if !ahead.is_empty() {
            command.args(words).arg(&program);
        }
        let part = Part { role, number, address: broker.address.clone() };
        let part = serde_json::to_string(&part).expect("it is plain data");
        command.args(["bench", "--soak-part", &part, "--connections", &connections.to_string()]);
        if let Some(file) = &options.cafile {
            command.arg("--cafile").arg(file);
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let orders = process.stdin.take().expect("it is piped");
        let answers = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        Ok(Child { process, orders, answers })
    }

    fn tell(&mut self, line: &str) -> Result<(), BenchError> {
        let told = writeln!(self.orders, "{line}");
        told.map_err(|source| BenchError::io("tell", "a process of the soak what to do", source))
    }

    fn answer<T: for<'a> Deserialize<'a>>(&mut self) -> Result<T, BenchError> {
        let line = self.answers.next().and_then(Result::ok).unwrap_or_default();
        let answer = serde_json::from_str(&line).map_err(std::io::Error::other);
        answer.map_err(|source| BenchError::io("hear", "a process of the soak", source))
    }

    fn ask<T: for<'a> Deserialize<'a>>(&mut self, line: &str) -> Result<T, BenchError> {
        self.tell(line)?;
        self.answer()
    }
}

//! The load generator: `mqlink bench`. It measures any MQTT broker by what the broker's processes pay per message.
//!
//! A *scenario* is a shape of load (who publishes to whom, at which QoS, over a link or not); a *target* is a
//! broker, or two linked ones, with the ids of their processes; a *round* runs every scenario against every
//! target once, so that what the machine does meanwhile hits all of them alike. Figures are medians of the rounds.
//!
//! - Closed loop: a publisher has at most a window of messages that are not yet delivered (and, above QoS 0, not yet
//!   acknowledged, at QoS 2 by PUBCOMP). No broker is flooded, none can win by dropping: what is lost is counted.
//! - Open loop: messages are due at a rate, and latency counts from when they were due, not from when the generator came to
//!   send them: a broker that stalls is charged for all that had to wait meanwhile.
//! - CPU time is user and system time of the target's processes from `/proc`, so it needs Linux.
//! - The generator must cost less than what it measures: one thread, batched writes, big reads, frames made once.
//!
//! It knows nothing of our broker but MQTT.

mod target;
mod scenario;
mod process;
mod frame;
mod client;
mod flow;
mod paced;
mod probe;
mod floor;
mod soak;
mod run;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use client::Login;
pub use run::BenchError;
pub use scenario::Scenario;
pub use soak::Part;
pub use target::{Endpoint, Target};

/// What to measure, and for how long.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// A broker as NAME=HOST:PORT@PID, or two linked ones as NAME=HOST:PORT@PID,HOST:PORT@PID; may be repeated. Without @PID
    /// its CPU time and memory are not measured; one that speaks TLS is mqtts://HOST:PORT
    #[arg(
        long = "target",
        required_unless_present_any = ["serve_floor", "soak", "soak_part"],
        value_name = "NAME=HOST:PORT[@PID][,HOST:PORT[@PID]]"
    )]
    pub targets: Vec<Target>,
    /// Be a broker that does as little as a broker can, on this port: a target to compare with
    #[arg(long, value_name = "PORT", conflicts_with = "targets")]
    pub serve_floor: Option<u16>,
    /// A load instead of the built-in ones, as pairs=50,qos=1,window=100 (qos=0, 1 or 2; closed loop: so many messages of a publisher under
    /// way) or fan-out=100,rate=5000 (open loop: so many messages a second, latency from when each was due); also fan-in=N,
    /// offline=N (subscribers that are away), clients=NAME (how client ids begin) and link; may be repeated
    #[arg(long = "scenario", value_name = "WORDS")]
    pub scenarios: Vec<Scenario>,
    /// The user name to connect with
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// The password to connect with; else the variable MQLINK_PASSWORD
    #[arg(long, value_name = "PASSWORD", requires = "user")]
    pub password: Option<String>,
    /// Trust the certificates in this PEM file: for brokers that speak TLS
    #[arg(long, value_name = "FILE")]
    pub cafile: Option<PathBuf>,
    /// Set hostile crowds on a broker of yours that takes anonymous clients, and show what a bystander feels; may be repeated:
    /// then the connections are shared among brokers, and the crowds act on one after the other. With --cafile there is a
    /// listener over TLS one port above each
    #[arg(long, value_name = "HOST:PORT[@PID]", conflicts_with_all = ["targets", "serve_floor"])]
    pub soak: Vec<Endpoint>,
    /// How many connections the crowds of --soak have, all together
    #[arg(long, default_value_t = 100_000)]
    pub connections: usize,
    /// Be one of the processes of a soak
    #[arg(long, hide = true)]
    pub soak_part: Option<Part>,
    /// Only the scenarios whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub only: String,
    /// How many times every scenario meets every target
    #[arg(long, default_value_t = 5, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000))]
    pub rounds: usize,
    /// Seconds that one run measures
    #[arg(long, default_value_t = 3.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// Seconds of load before one run measures
    #[arg(long, default_value_t = 0.5)]
    pub warm_up: f64,
    /// Bytes of a message's payload, at least 16
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub payload: u32,
    /// Writes every run as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes the table as Markdown to this file instead of the terminal
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

impl Options {
    fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn scenarios(&self) -> Vec<Scenario> {
        let all = if self.scenarios.is_empty() { scenario::SCENARIOS } else { &self.scenarios[..] };
        all.iter().filter(|scenario| scenario.name.contains(&self.only)).cloned().collect()
    }

    /// How to connect to brokers of a target.
    fn login(&self, target: &Target) -> Result<Login, BenchError> {
        let name = self.user.clone();
        let password = || self.password.clone().or_else(|| std::env::var("MQLINK_PASSWORD").ok());
        let password = name.as_ref().and_then(|_| password());
        let is_secure = target.broker.tls || target.peer.as_ref().is_some_and(|peer| peer.tls);
        let cafile = match (&self.cafile, is_secure) {
            (None, true) => return Err(BenchError::Untrusted(target.name.clone())),
            (cafile, is_secure) => cafile.as_deref().filter(|_| is_secure),
        };
        let tls = cafile.map(client::tls_trusting).transpose()?;
        Ok(Login { name, password, tls })
    }

    fn warmed(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }
}

/// A run has to last for a while.
fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "expected seconds, from 0.01 to 86400".to_owned())
}

/// Measures what `options` ask for and prints or writes the report.
///
/// # Errors
/// When a file cannot be written, or, after the report, when a target could not be reached or failed otherwise.
pub fn run(options: &Options) -> Result<(), BenchError> {
    if let Some(part) = &options.soak_part {
        return soak::be(options, part);
    }
    if !options.soak.is_empty() {
        return report::write_soak(options, &soak::run(options)?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| BenchError::Io { what: "start the runtime".to_owned(), source })?;
    let local = tokio::task::LocalSet::new();
    if let Some(port) = options.serve_floor {
        return runtime.block_on(local.run_until(floor::serve(port)));
    }
    if options.scenarios().is_empty() {
        return Err(BenchError::Nothing(options.only.clone()));
    }
    let (runs, failures) = runtime.block_on(local.run_until(run::all(options)));
    report::write(options, &runs)?;
    if failures.is_empty() { Ok(()) } else { Err(BenchError::Some(failures)) }
}

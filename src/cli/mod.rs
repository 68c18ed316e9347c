//! The commands: what they are called, what they take, how they fail.
//!
//! Each command parses its arguments, wires the modules that do the work, and ends with a documented exit code. What goes
//! wrong is one line on standard error, `failed to <verb> <object>: cause; what to do`. Results go to standard output, logs
//! to standard error.
//!
//! Exit codes of all commands: 0 done, 1 failed, 2 wrong usage, 3 timed out.

mod up;
mod broker;
mod admin;
mod operator;
mod client;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// MQTT clusters and the links between them.
#[derive(Parser, Debug)]
#[command(name = "mqlink", version, arg_required_else_help = true)]
struct Cli {
    /// What to log to standard error: error, warn, info, debug, trace, or by module as `warn,mqlink::link=debug`
    /// [default: info for broker and operator, else warn].
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Logging")]
    log: Option<String>,
    /// Log JSON lines.
    #[arg(long, global = true, help_heading = "Logging")]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Up(up::UpArgs),
    Status(up::StatusArgs),
    Broker(broker::BrokerArgs),
    Admin(admin::AdminArgs),
    Operator(operator::OperatorArgs),
    /// Print the definitions of MqttCluster and ClusterLink, for kubectl apply.
    #[command(after_help = "Example: mqlink crds | kubectl apply --server-side -f -")]
    Crds,
    Pub(Box<client::PubArgs>),
    Sub(Box<client::SubArgs>),
    /// Measure MQTT brokers side by side: CPU time per message, throughput, latency.
    Bench(Box<crate::bench::Options>),
}

impl Command {
    fn log_default(&self) -> &'static str {
        match self {
            Command::Broker(_) | Command::Operator(_) => "info",
            // What the client library warns of, our own message says.
            Command::Pub(_) | Command::Sub(_) => "warn,rumqttc=off",
            Command::Up(_) | Command::Status(_) | Command::Admin(_) | Command::Crds | Command::Bench(_) => {
                "warn"
            }
        }
    }
}

/// Why a command failed, and its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// The world or the work failed.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// The command was called wrongly.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 2 }
    }

    /// What was awaited did not come in time.
    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 3 }
    }
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = start_log(&cli).and_then(|()| run(cli.command));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { message, code }) => {
            if !message.is_empty() {
                // Who closed it (`2>&1 | head`) does not want to hear it.
                let _ = writeln!(io::stderr(), "mqlink: {}", crate::local::plain(&message));
            }
            ExitCode::from(code)
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(args) => block_on(args.run()),
        Command::Status(args) => block_on(args.run()),
        Command::Broker(args) => args.run(),
        Command::Admin(args) => block_on(args.run()),
        Command::Operator(args) => block_on(args.run()),
        Command::Crds => print(&crate::api::crds()),
        Command::Pub(args) => block_on(args.run()),
        Command::Sub(args) => block_on(args.run()),
        Command::Bench(options) => {
            crate::bench::run(&options).map_err(|error| Failure::new(error.to_string()))
        }
    }
}

fn start_log(cli: &Cli) -> Result<(), Failure> {
    let wanted = cli.log.as_deref().unwrap_or(cli.command.log_default());
    crate::node::log::start(wanted, cli.log_json).map_err(Failure::usage)
}

/// Runs a command on a small runtime of its own. A read of standard input that is under way does not hold its end up.
fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("failed to start the runtime: {error}")))?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

/// Resolves when the process is asked to end, by SIGINT or SIGTERM.
async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Ten years: what is added to a time must stay one.
const DURATION_MAX: Duration = Duration::from_secs(87_600 * 3_600);

/// Parses `500ms`, `30s`, `5m`, `1h`, and bare seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is no duration; expected seconds, or 500ms, 30s, 5m, 1h");
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit_s = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(bad()),
    };
    let number: f64 = number.parse().map_err(|_| bad())?;
    let duration = Duration::try_from_secs_f64(number * unit_s).map_err(|_| bad())?;
    match duration > DURATION_MAX {
        true => Err(format!("`{text}` is too long; expected at most {} h", DURATION_MAX.as_secs() / 3_600)),
        false => Ok(duration),
    }
}

/// Writes to standard output. Whoever reads there may have enough, as `head` has.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("failed to write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

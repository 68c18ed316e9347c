//! `mqlink up` and `mqlink status`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::time::{Instant, sleep};

use super::{Failure, interrupted};
use crate::local::{self, Ended, Options, Status};

/// Run the clusters and links of manifests on this machine, without Kubernetes.
#[derive(Args, Debug)]
#[command(after_help = UP_HELP)]
pub(super) struct UpArgs {
    /// A manifest, or a directory of them; may be given several times. Edits are followed.
    #[arg(short, long = "file", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Keep minted credentials and settings here, in a private directory [default: nowhere].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What to do about ports that are in use: `as-given` fails, `free` takes others and names them.
    #[arg(long, value_enum, default_value_t = PortsArg::AsGiven)]
    ports: PortsArg,
    /// Give everything this time to be Ready: seconds, or 500ms, 30s, 5m. Then end with 0, or name what is not Ready and
    /// end with 3. With --run, the command begins in between.
    #[arg(long, value_name = "TIMEOUT", value_parser = super::parse_duration)]
    wait: Option<Duration>,
    /// Once everything is Ready, run this shell command, and end with its exit code.
    #[arg(long, value_name = "COMMAND")]
    run: Option<String>,
    /// The nodes' log filter.
    #[arg(long, value_name = "LEVEL", default_value = "warn", help_heading = "Logging")]
    node_log: String,
}

const UP_HELP: &str = "\
A command of --run finds in its environment where everything is:
  MQLINK_<CLUSTER>_<LISTENER>   host:port, as MQLINK_US_EAST_MQTT=127.0.0.1:1883
  MQLINK_<CLUSTER>_PID          the process of the cluster's node
  MQLINK_DATA                   the directory that mqlink status asks by default

No node outlives this process, however it ends. What a command of --run leaves behind is its own affair.
A disabled link is not waited for.

Exit codes: 0 ended by SIGTERM or SIGINT, or Ready with --wait; 1 failed; 2 wrong usage; 3 not Ready in time; \
with --run that of the command.

Example: mqlink up -f config/samples/two-regions.yaml --ports free";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PortsArg {
    AsGiven,
    Free,
}

impl UpArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::new(format!("failed to find the own program: {error}")))?;
        let options = Options {
            files: self.files,
            data: self.data,
            free_ports: matches!(self.ports, PortsArg::Free),
            wait: self.wait,
            run: self.run,
            log: self.node_log,
            program,
        };
        match local::up(options, interrupted()).await {
            Ok(Ended::Done | Ended::Command(0)) => Ok(()),
            Ok(Ended::NotReady) => {
                let waited = self.wait.unwrap_or_default();
                Err(Failure::timed_out(format!(
                    "failed to get everything Ready within {waited:?}; see above"
                )))
            }
            Ok(Ended::Command(code)) => Err(Failure { message: String::new(), code }),
            Err(error) => Err(Failure::new(error.to_string())),
        }
    }
}

/// Show what a running `mqlink up --data DIR` knows.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not Ready in time.")]
pub(super) struct StatusArgs {
    /// Its directory; else the variable MQLINK_DATA.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = OutputArg::Table)]
    output: OutputArg,
    /// Wait until everything is Ready, at most this long.
    #[arg(long, value_name = "TIMEOUT", value_parser = super::parse_duration)]
    wait: Option<Duration>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OutputArg {
    /// As kubectl get prints it.
    Table,
    /// The same, and what crossed each half of each link.
    Wide,
    /// Statuses, reports and counters.
    Json,
}

/// Between two looks while waiting.
const LOOK: Duration = Duration::from_millis(100);

impl StatusArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let named = self.data.clone().or_else(|| std::env::var_os("MQLINK_DATA").map(PathBuf::from));
        let root = named.ok_or_else(|| Failure::usage("no directory is named; add --data DIR"))?;
        let deadline = Instant::now() + self.wait.unwrap_or_default();
        loop {
            let asked = local::ask(&root).await;
            let is_ready = asked.as_ref().is_ok_and(|status| status.ready);
            if self.wait.is_some() && !is_ready && Instant::now() < deadline {
                sleep(LOOK).await;
                continue;
            }
            let status = asked.map_err(|error| {
                Failure::new(format!("{error}; is `mqlink up --data {}` running?", root.display()))
            })?;
            self.print(&status)?;
            return match self.wait {
                Some(waited) if !is_ready => {
                    Err(Failure::timed_out(format!("not everything is Ready after {waited:?}")))
                }
                _ => Ok(()),
            };
        }
    }

    fn print(&self, status: &Status) -> Result<(), Failure> {
        super::print(&match self.output {
            OutputArg::Table => status.table.clone(),
            OutputArg::Wide => format!("{}\n{}", status.table, status.crossings()),
            OutputArg::Json => serde_json::to_string_pretty(status).expect("a status is plain data") + "\n",
        })
    }
}

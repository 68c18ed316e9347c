//! `mqlink admin`: who is connected to a running node, and what to do about it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::Failure;
use crate::admin::{Client, ClientError, Drain, Kick, Log};
use crate::local;
use crate::settings::inventory::{RetainedEntry, RetainedQuery, SessionEntry, SessionQuery};

/// Ask a running node, or change what it does: sessions, kick, retained messages, log, drain, metrics.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct AdminArgs {
    /// The node's admin socket, as `mqlink broker --admin-socket` has it.
    #[arg(long, value_name = "PATH", conflicts_with = "cluster", global = true)]
    socket: Option<PathBuf>,
    /// The node of this cluster of a running `mqlink up --data DIR`: NAME or NAMESPACE/NAME.
    #[arg(long, value_name = "NAME", global = true)]
    cluster: Option<String>,
    /// The directory of that `mqlink up`; else the variable MQLINK_DATA.
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = OutputArg::Table, global = true)]
    output: OutputArg,
    #[command(subcommand)]
    command: AdminCommand,
}

const HELP: &str = "\
What is asked goes over the node's admin socket; docs/admin.md has the protocol.

Exit codes: 0 done, 1 failed or refused, 2 wrong usage.

Examples:
  mqlink admin --cluster us-east --data DIR clients
  mqlink admin --socket /run/mqlink/admin.sock kick sensor-7 --forget";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputArg {
    Table,
    Json,
}

#[derive(Subcommand, Debug)]
enum AdminCommand {
    /// List connected clients.
    Clients(ListArgs),
    /// List sessions, also those that nobody is connected to.
    Sessions(ListArgs),
    /// End a client's connection.
    Kick {
        /// Whose.
        client_id: String,
        /// End its session too: subscriptions and messages that wait are gone.
        #[arg(long)]
        forget: bool,
    },
    /// List retained messages: topic, QoS, size.
    Retained {
        /// Those that match this topic filter.
        #[arg(default_value = "#")]
        filter: String,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show what the node logs, or log by another filter from now on.
    Log {
        /// A level as info, or by module as warn,mqlink::broker=debug.
        filter: Option<String>,
    },
    /// Take no more clients, and send those that are here elsewhere; until the node is started again.
    Drain {
        /// Where clients of MQTT 5 are told to go.
        #[arg(long, value_name = "HOST:PORT")]
        server: Option<String>,
        /// For good: they hear Server moved instead of Use another server.
        #[arg(long)]
        permanent: bool,
    },
    /// Print the node's metrics, as Prometheus reads them.
    Metrics,
}

#[derive(Args, Debug)]
struct ListArgs {
    /// Only this client's.
    client_id: Option<String>,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

impl AdminArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = Client::new(self.find().await?);
        let done = match &self.command {
            AdminCommand::Clients(list) => self.list(&client, list, true).await,
            AdminCommand::Sessions(list) => self.list(&client, list, false).await,
            AdminCommand::Kick { client_id, forget } => {
                let kick = Kick { client_id: client_id.clone(), forget: *forget };
                client.kick(kick).await.map(|done| self.say(&done, || format!("{}\n", done.done)))
            }
            AdminCommand::Retained { filter, limit } => self.list_retained(&client, filter, *limit).await,
            AdminCommand::Log { filter } => {
                let log = client.log(Log { filter: filter.clone() }).await;
                log.map(|log| self.say(&log, || format!("{}\n", log.filter.as_deref().unwrap_or_default())))
            }
            AdminCommand::Drain { server, permanent } => {
                let drain = Drain { server: server.clone(), permanent: *permanent };
                let done = client.drain(drain).await;
                done.map(|done| self.say(&done, || format!("{}\n", done.done)))
            }
            AdminCommand::Metrics => client.metrics().await,
        };
        let text = done.map_err(|error| Failure::new(error.to_string()))?;
        super::print(&text)
    }

    /// The socket of the node that is meant.
    async fn find(&self) -> Result<PathBuf, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let Some(name) = &self.cluster else {
            return Err(Failure::usage("no node is named; add --socket PATH, or --cluster NAME --data DIR"));
        };
        let named = self.data.clone().or_else(|| std::env::var_os("MQLINK_DATA").map(PathBuf::from));
        let root = named.ok_or_else(|| Failure::usage("no directory is named; add --data DIR"))?;
        let status = local::ask(&root).await.map_err(|error| {
            Failure::new(format!("{error}; is `mqlink up --data {}` running?", root.display()))
        })?;
        let is_meant = |cluster: &&local::Cluster| {
            cluster.name == *name || format!("{}/{}", cluster.namespace, cluster.name) == *name
        };
        let found: Vec<_> = status.clusters.iter().filter(is_meant).collect();
        let names = || status.clusters.iter().map(|cluster| &*cluster.name).collect::<Vec<_>>().join(", ");
        match &found[..] {
            [one] => one
                .socket
                .clone()
                .ok_or_else(|| Failure::new(format!("cluster {name} has no node; see `mqlink status`"))),
            [] => Err(Failure::new(format!("there is no cluster {name}; there are: {}", names()))),
            _ => Err(Failure::usage(format!("several clusters are called {name}; write NAMESPACE/{name}"))),
        }
    }

    /// As many pages as it takes.
    async fn list(&self, client: &Client, list: &ListArgs, connected: bool) -> Result<String, ClientError> {
        let mut query =
            SessionQuery { connected, client_id: list.client_id.clone(), ..SessionQuery::default() };
        let mut items: Vec<SessionEntry> = Vec::new();
        let is_cut = loop {
            query.limit = list.limit - items.len();
            let page = client.sessions(query.clone()).await?;
            items.extend(page.items);
            match page.next {
                None => break false,
                Some(_) if items.len() >= list.limit => break true,
                next => query.cursor = next,
            }
        };
        items.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        Ok(self.say(&items, || {
            let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
            let seconds = |value: Option<u64>| text(value.map(|s| format!("{s}s")));
            let rows = items.iter().map(|entry| {
                [
                    entry.client_id.clone(),
                    text(entry.username.clone()),
                    text(entry.address.clone()),
                    entry.protocol.clone(),
                    seconds(entry.connected_s),
                    seconds(entry.idle_s),
                    seconds(entry.ends_in_s),
                    entry.subscriptions.to_string(),
                    entry.queued.to_string(),
                    entry.in_flight.to_string(),
                ]
            });
            let head = [
                "CLIENT",
                "USER",
                "ADDRESS",
                "MQTT",
                "CONNECTED",
                "IDLE",
                "ENDS IN",
                "SUBSCRIPTIONS",
                "QUEUED",
                "IN FLIGHT",
            ];
            let more = if is_cut { "there may be more: name a higher --limit\n" } else { "" };
            table(head, rows) + more
        }))
    }

    /// As many pages as it takes.
    async fn list_retained(
        &self,
        client: &Client,
        filter: &str,
        limit: usize,
    ) -> Result<String, ClientError> {
        let mut query = RetainedQuery { filter: filter.to_owned(), ..RetainedQuery::default() };
        let mut items: Vec<RetainedEntry> = Vec::new();
        let is_cut = loop {
            query.limit = limit - items.len();
            let page = client.retained(query.clone()).await?;
            items.extend(page.items);
            match page.next {
                None => break false,
                Some(_) if items.len() >= limit => break true,
                next => query.cursor = next,
            }
        };
        items.sort_by(|a, b| a.topic.cmp(&b.topic));
        Ok(self.say(&items, || {
            let rows = items.iter().map(|entry| {
                let expires = entry.expires_in_s.map_or("-".to_owned(), |s| format!("{s}s"));
                [entry.topic.clone(), entry.qos.to_string(), entry.bytes.to_string(), expires]
            });
            let more = "there may be more: name a narrower filter, or a higher --limit\n";
            table(["TOPIC", "QOS", "BYTES", "EXPIRES"], rows) + if is_cut { more } else { "" }
        }))
    }

    fn say(&self, answer: &impl Serialize, as_text: impl FnOnce() -> String) -> String {
        match self.output {
            OutputArg::Table => as_text(),
            OutputArg::Json => serde_json::to_string_pretty(answer).expect("an answer is plain data") + "\n",
        }
    }
}

/// What clients chose is made plain: it must not move the cursor of who looks.
fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut all = vec![head.map(str::to_owned).to_vec()];
    all.extend(rows.map(|row| row.map(|cell| local::plain(&cell).replace('\n', "\u{fffd}")).to_vec()));
    local::align(&all)
}

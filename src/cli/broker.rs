//! `mqlink broker`: one node.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::node::document::Document;
use crate::node::{self, AdminPort, Options};

const HELP: &str = "\
Settings can be changed while it runs: change the files and send SIGHUP, or PUT the new document to /v1/settings on \
the admin socket, or over TLS with a client certificate of ca.crt whose one URI is mqlink://operator.

Settings from several files: objects merge field by field, lists of the same field follow one another in the order of the \
files (in a directory: by name), any other value is given once or alike. So users and links can lie in files of their own:
  base.json   {\"cluster\": \"us\", \"listeners\": [...]}
  links.json  {\"links\": [...]}
  users.json  {\"authentication\": {\"users\": [...]}}

Exit codes: 0 ended by SIGTERM or SIGINT (or the end of standard input, if asked to), 1 failed, 2 wrong usage.";

/// Run one broker node on a settings document.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct BrokerArgs {
    /// The settings document, JSON: a file, a directory with *.json files, or several of them, which are merged.
    #[arg(long, value_name = "PATH", required = true)]
    config: Vec<PathBuf>,
    /// The node's name, unique in its cluster.
    #[arg(long, value_name = "NAME", default_value = "node-0")]
    node: String,
    /// Keep sessions and retained messages in this directory, unless storage.durability is None; without it they go with
    /// the process.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Serve the admin protocol on this Unix socket; keep it in a private directory.
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// Serve the admin protocol over TLS on this port, to the operator only.
    #[arg(long, value_name = "ADDR:PORT", requires = "admin_tls")]
    admin_listen: Option<SocketAddr>,
    /// The directory with tls.crt, tls.key and ca.crt for --admin-listen; what changes in it is taken up.
    #[arg(long, value_name = "DIR", requires = "admin_listen")]
    admin_tls: Option<PathBuf>,
    /// Serve /livez, /readyz and /metrics on this port, in the clear.
    #[arg(long, value_name = "ADDR:PORT")]
    probe_listen: Option<SocketAddr>,
    /// End when standard input does.
    #[arg(long)]
    end_with_stdin: bool,
    /// Check the document, fields that this version does not know included, and end.
    #[arg(long)]
    check: bool,
}

impl BrokerArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        if self.check {
            return check(&self.config);
        }
        let admin_port =
            self.admin_listen.zip(self.admin_tls).map(|(address, tls_dir)| AdminPort { address, tls_dir });
        let options = Options {
            config: self.config,
            node: self.node,
            data: self.data,
            admin_socket: self.admin_socket,
            admin_port,
            probes: self.probe_listen,
            end_with_stdin: self.end_with_stdin,
        };
        node::run(&options).map_err(|error| Failure::new(error.to_string()))
    }
}

fn check(config: &[PathBuf]) -> Result<(), Failure> {
    let document = Document::read(config).map_err(|error| Failure::new(error.to_string()))?;
    node::check_certificates(&document.settings)
        .map_err(|error| Failure::new(format!("the settings are invalid: {error}")))?;
    let place = config.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    if !document.unknown_fields.is_empty() {
        let fields = document.unknown_fields.join(", ");
        return Err(Failure::new(format!("{place}: {fields}: not known; a node passes over it")));
    }
    super::print(&format!("{place}: ok, cluster {}\n", document.settings.cluster))
}

//! `mqlink broker`: one node.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::node::document::Document;
use crate::node::{self, Options};

/// Run one broker node on a settings document.
#[derive(Args, Debug)]
#[command(
    after_help = "Settings can be changed while it runs: PUT the new document to /v1/settings on the admin socket.\n\n\
                  Exit codes: 0 ended by SIGTERM or SIGINT (or the end of standard input, if asked to), 1 failed, \
                  2 wrong usage."
)]
pub(super) struct BrokerArgs {
    /// The settings document, JSON.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The node's name, unique in its cluster.
    #[arg(long, value_name = "NAME", default_value = "node-0")]
    node: String,
    /// Serve the admin protocol on this Unix socket; keep it in a private directory.
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// End when standard input does.
    #[arg(long)]
    end_with_stdin: bool,
    /// Check the document, name the fields that this version does not know, and end.
    #[arg(long)]
    check: bool,
}

impl BrokerArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { config, node, admin_socket, end_with_stdin, check } = self;
        if check {
            let document = Document::read(&config).map_err(|error| Failure::new(error.to_string()))?;
            let (mut said, file) = (String::new(), config.display());
            for field in &document.unknown_fields {
                said.push_str(&format!("{file}: {field} is not known and ignored\n"));
            }
            said.push_str(&format!("{file}: ok, cluster {}\n", document.settings.cluster));
            return super::print(&said);
        }
        let options = Options { config, node, admin_socket, end_with_stdin };
        node::run(&options).map_err(|error| Failure::new(error.to_string()))
    }
}

//! A node without settings that it can run: it can be asked and pushed to, and is not ready.
//!
//! Pieces that lie in several Secrets are written one after another, and mounted as they come. A node that starts in between
//! waits for the rest, or for its operator, whatever comes first; it never runs a mixture. A node that is operated waits
//! likewise where they are of no use: starting again and again would not make them better, and nobody could push others.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::document::{Document, DocumentError};
use super::{Options, may_wait};
use crate::admin::{Applied, Command, Vitals};
use crate::settings::report::NodeReport;

/// The time between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);

/// Waits for settings: by the files, or by a command.
///
/// # Errors
/// When the files are whole, and of no use to a node that nobody operates.
pub(super) async fn settle(
    options: &Options,
    problem: DocumentError,
    vitals: &Vitals,
    commands: &mut mpsc::Receiver<Command>,
    reports: &watch::Sender<Arc<NodeReport>>,
    base: NodeReport,
) -> Result<Document, DocumentError> {
    tracing::warn!(%problem, "there are no settings to run yet; waiting for others, by file or by the operator");
    let say = |why: String| {
        reports.send_replace(Arc::new(NodeReport { refused: Some(why), ..base.clone() }));
    };
    say(problem.to_string());
    let mut looks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = looks.tick() => {
                vitals.turn();
                match Document::read(&options.config) {
                    Err(error) if may_wait(options, &error) => {}
                    done => return done,
                }
            }
            Some(command) = commands.recv() => {
                if let Some(document) = handle(command, say) {
                    return Ok(document);
                }
            }
        }
    }
}

/// Takes a document that was pushed, if it was one. Who asked may be gone; then nobody needs the answer.
fn handle(command: Command, say: impl Fn(String)) -> Option<Document> {
    match command {
        Command::Refresh(reply) => {
            let _ = reply.send(());
            None
        }
        Command::Ask(_, reply) => {
            let _ = reply.send(Err("the node has no settings yet; push some first".to_owned()));
            None
        }
        Command::Apply(json, reply) => match Document::parse(&json) {
            Ok(document) => {
                let unknown_fields = document.unknown_fields.clone();
                let _ = reply.send(Ok(Applied { settings_hash: document.settings.hash(), unknown_fields }));
                Some(document)
            }
            Err(error) => {
                say(error.to_string());
                let _ = reply.send(Err(error.to_string()));
                None
            }
        },
    }
}

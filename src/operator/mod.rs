//! The manifests on Kubernetes: `mqlink operator`.
//!
//! One loop, as in `mqlink up`: *observe* (watches keep a picture of everything that counts), *decide* (the plan for the
//! whole picture, and what differs from it), *apply* and *publish* (a bounded number of writes at a time; their outcomes
//! come back into the loop). Decisions are synchronous and emit writes as values; only `write` touches the API server.
//!
//! What holds:
//! - Nothing is decided before every watch has delivered its list and every Secret that is named was asked for (for a second),
//!   nor by two operators at a time ([`Lease`]).
//! - What the server answered to a write counts at once; a watch that shows something older is not believed.
//! - Writes are server-side applies by one field manager, of objects that differ from what they should be. An operator that
//!   starts over what another one left writes nothing.
//! - What is minted is kept in Secrets of the objects that it belongs to; losing one means new credentials, not an outage.
//! - A refused spec touches nothing that runs. An object that cannot be read stops no other, and loses nothing that it has.
//! - What a new version of ours restarts, it restarts one cluster at a time.
//! - Deletion needs no finalizer: children are owned by their object, and what lost its owner is swept.
//! - What nodes say is theirs: it is verified whose word it is, bounded, and counts for as long as it is fresh.
//!
//! Does not know what links send.

mod build;
mod nodes;
mod shelf;
mod picture;
mod places;
mod ledger;
mod events;
mod rollout;
mod turn;
mod decide;
mod write;
mod queue;
mod words;
mod watch;
mod image;
mod lease;
mod vitals;
mod run;
#[cfg(test)]
mod tests;

pub use image::own_image;
pub use lease::{Lease, Pace};
pub use run::{OperatorError, Options, run};
pub use vitals::Vitals;
pub use watch::{SILENCE_MAX, Scope};

//! The answers to what is asked of a running node over the admin protocol.

use std::time::Instant;

use serde::Serialize;
use serde_json::Value;

use super::log;
use super::shard::{Leaving, Shard};
use crate::admin::{Done, Drain, Kick, Log, Question, Vitals};
use crate::broker::core::{Core, Kicked, ShardNumber};
use crate::mqtt::Filter;
use crate::settings::inventory::{Listing, RetainedQuery, SessionQuery};
use crate::settings::is_host_port;

/// What is answered while the broker's threads end.
const GONE: &str = "the node is ending";

impl Shard {
    /// Answers, or says why not.
    pub(super) async fn answer(&mut self, question: Question, vitals: &Vitals) -> Result<Value, String> {
        match question {
            Question::Sessions(query) => self.list_sessions(query).await,
            Question::Retained(query) => self.list_retained(query).await,
            Question::Kick(kick) => self.kick(kick).await,
            Question::Drain(drain) => self.drain(drain, vitals),
            Question::Log(Log { filter }) => {
                log::change(filter).map(|filter| to_json(&Log { filter: Some(filter) }))
            }
        }
    }

    /// Shard by shard.
    async fn list_sessions(&self, query: SessionQuery) -> Result<Value, String> {
        let shards = self.broker.shards();
        let (shard, place) = match (&query.client_id, query.cursor.as_deref()) {
            (Some(client_id), _) => (self.broker.home_of(client_id), 0),
            (None, None) => (0, 0),
            (None, Some(cursor)) => parse_cursor(cursor, shards)?,
        };
        let is_one = query.client_id.is_some();
        let page = move |core: &mut Core| core.sessions_from(place, &query, Instant::now());
        let (items, next) = self.broker.with_core_of(shard, page).await.ok_or(GONE)?;
        let next = if is_one { None } else { cursor(shard, next, shards) };
        Ok(to_json(&Listing { items, next }))
    }

    /// Shard by shard, likewise.
    async fn list_retained(&self, query: RetainedQuery) -> Result<Value, String> {
        let filter = &query.filter;
        Filter::parse(filter).map_err(|error| format!("`{filter}` is no topic filter: {error}"))?;
        let shards = self.broker.shards();
        let (shard, place) = query.cursor.as_deref().map_or(Ok((0, 0)), |one| parse_cursor(one, shards))?;
        let page = move |core: &mut Core| core.retained_from(place, &query, Instant::now());
        let (items, next) = self.broker.with_core_of(shard, page).await.ok_or(GONE)?;
        Ok(to_json(&Listing { items, next: cursor(shard, next, shards) }))
    }

    async fn kick(&self, kick: Kick) -> Result<Value, String> {
        let Kick { client_id, forget } = &kick;
        let (id, forget_it) = (client_id.clone(), *forget);
        let kick = move |core: &mut Core| core.kick(&id, forget_it, Instant::now());
        let kicked = self.broker.with_core_of(self.broker.home_of(client_id), kick).await.ok_or(GONE)?;
        let done = match kicked {
            Kicked::Unknown => {
                return Err(format!("no client `{client_id}` is known; `sessions` lists them"));
            }
            Kicked::Away if *forget => "the session ended; nobody was connected",
            Kicked::Away => "nobody was connected; the session stays",
            Kicked::Ends if *forget => "the connection and the session end",
            Kicked::Ends => "the connection ends; the session stays as long as its client asked for",
        };
        tracing::info!(client = client_id, forget, done, "an administrator kicks a client");
        Ok(to_json(&Done { done: done.to_owned() }))
    }

    fn drain(&mut self, drain: Drain, vitals: &Vitals) -> Result<Value, String> {
        let Drain { server, permanent } = drain;
        if !server.as_deref().is_none_or(is_server_reference) {
            return Err(
                "`server` is neither host:port nor several with a space between, in 65,535 bytes together"
                    .to_owned(),
            );
        }
        tracing::info!(server, permanent, "the node drains");
        vitals.drain();
        self.broker.drain(server, permanent);
        if self.leaving == Leaving::Not {
            self.leaving = Leaving::Clients;
        }
        Ok(to_json(&Done {
            done: "no more clients come in, and those that are here are sent elsewhere".to_owned(),
        }))
    }
}

/// What clients are told has to fit into a packet, as text.
fn is_server_reference(servers: &str) -> bool {
    servers.len() <= usize::from(u16::MAX) && servers.split(' ').all(is_host_port)
}

/// Where to go on: in this shard, or in the next.
fn cursor(shard: ShardNumber, place: Option<usize>, shards: usize) -> Option<String> {
    match place {
        Some(place) => Some(format!("{shard}.{place}")),
        None => Some(shard + 1).filter(|&next| usize::from(next) < shards).map(|next| format!("{next}.0")),
    }
}

/// A cursor is `shard.place`.
fn parse_cursor(cursor: &str, shards: usize) -> Result<(ShardNumber, usize), String> {
    let parts = cursor.split_once('.').and_then(|(shard, place)| {
        let shard: ShardNumber = shard.parse().ok()?;
        Some((shard, place.parse().ok()?))
    });
    match parts.filter(|&(shard, _)| usize::from(shard) < shards) {
        Some(parts) => Ok(parts),
        None => Err(format!("`{cursor}` is no cursor of this node; begin without one")),
    }
}

fn to_json(answer: &impl Serialize) -> Value {
    serde_json::to_value(answer).expect("an answer holds nothing that JSON cannot")
}

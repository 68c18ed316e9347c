//! The answers to what is asked of a running node over the admin protocol.

use std::time::Instant;

use serde::Serialize;
use serde_json::Value;

use super::log;
use super::shard::Shard;
use crate::admin::{Done, Drain, Kick, Log, Question, Vitals};
use crate::broker::core::Kicked;
use crate::mqtt::Filter;
use crate::settings::inventory::{Listing, RetainedQuery, SessionQuery};

/// The shard in a cursor, which is `shard.place`: there is one.
const SHARD: &str = "0";

impl Shard {
    /// Answers, or says why not.
    pub(super) fn answer(&self, question: Question, vitals: &Vitals) -> Result<Value, String> {
        match question {
            Question::Sessions(query) => self.list_sessions(&query),
            Question::Retained(query) => self.list_retained(&query),
            Question::Kick(kick) => self.kick(&kick),
            Question::Drain(drain) => Ok(self.drain(drain, vitals)),
            Question::Log(Log { filter }) => {
                log::change(filter).map(|filter| to_json(&Log { filter: Some(filter) }))
            }
        }
    }

    fn list_sessions(&self, query: &SessionQuery) -> Result<Value, String> {
        let place = query.cursor.as_deref().map_or(Ok(0), parse_cursor)?;
        let now = Instant::now();
        let (items, next) = self.broker.with_core(|core| core.sessions_from(place, query, now));
        let next = next.map(|place| format!("{SHARD}.{place}"));
        Ok(to_json(&Listing { items, next, is_cut: false }))
    }

    fn list_retained(&self, query: &RetainedQuery) -> Result<Value, String> {
        let filter = &query.filter;
        Filter::parse(filter).map_err(|error| format!("`{filter}` is no topic filter: {error}"))?;
        let now = Instant::now();
        let (items, is_cut) = self.broker.with_core(|core| core.retained_matching(query, now));
        Ok(to_json(&Listing { items, next: None, is_cut }))
    }

    fn kick(&self, kick: &Kick) -> Result<Value, String> {
        let Kick { client_id, forget } = kick;
        let done = match self.broker.with_core(|core| core.kick(client_id, *forget, Instant::now())) {
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

    fn drain(&self, drain: Drain, vitals: &Vitals) -> Value {
        tracing::info!(server = drain.server, "the node drains");
        vitals.drain();
        self.broker.drain(drain.server);
        to_json(&Done {
            done: "no more clients come in, and those that are here are sent elsewhere".to_owned(),
        })
    }
}

fn parse_cursor(cursor: &str) -> Result<usize, String> {
    let place = cursor.split_once('.').filter(|(shard, _)| *shard == SHARD).map(|(_, place)| place.parse());
    match place {
        Some(Ok(place)) => Ok(place),
        _ => Err(format!("`{cursor}` is no cursor of this node; begin without one")),
    }
}

fn to_json(answer: &impl Serialize) -> Value {
    serde_json::to_value(answer).expect("an answer holds nothing that JSON cannot")
}

//! What may be asked of a running node besides settings and status, and what it answers: `POST /v1/ask`.
//!
//! A question is a JSON object of one field, its name: `{"sessions": {"limit": 10}}`. The answer is an object of its own.

use serde::{Deserialize, Serialize};

use super::{Client, ClientError};
use crate::settings::inventory::{Listing, RetainedEntry, RetainedQuery, SessionEntry, SessionQuery};

/// A question, or something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Question {
    /// List sessions; answered with a [`Listing`] of [`SessionEntry`].
    Sessions(SessionQuery),
    /// List retained messages, without their payloads; answered with a [`Listing`] of [`RetainedEntry`].
    Retained(RetainedQuery),
    /// End a client's connection; answered with [`Done`].
    Kick(Kick),
    /// Log by another filter from now on; answered with [`Log`], also when none is given.
    Log(Log),
    /// Take no more clients, and send those that are here elsewhere, some at a time; answered with [`Done`] at once.
    Drain(Drain),
}

/// Whom to kick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kick {
    /// The client.
    pub client_id: String,
    /// Its session ends with the connection.
    #[serde(default)]
    pub forget: bool,
}

/// What is logged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Log {
    /// A level as `info`, or by module as `warn,mqlink::broker=debug`.
    pub filter: Option<String>,
}

/// How to drain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Drain {
    /// Where clients of MQTT 5 are told to go: `host:port`, several with spaces between; none: they are to know.
    pub server: Option<String>,
    /// They need not come back: they hear Server moved instead of Use another server.
    pub permanent: bool,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// In words.
    pub done: String,
}

impl Client {
    /// A page of the node's sessions.
    ///
    /// # Errors
    /// When the node cannot be reached, or refuses.
    pub async fn sessions(&self, query: SessionQuery) -> Result<Listing<SessionEntry>, ClientError> {
        self.question(&Question::Sessions(query)).await
    }

    /// Some of the node's retained messages.
    ///
    /// # Errors
    /// As [`Client::sessions`].
    pub async fn retained(&self, query: RetainedQuery) -> Result<Listing<RetainedEntry>, ClientError> {
        self.question(&Question::Retained(query)).await
    }

    /// Ends a client's connection.
    ///
    /// # Errors
    /// As [`Client::sessions`]; also when there is no such client.
    pub async fn kick(&self, kick: Kick) -> Result<Done, ClientError> {
        self.question(&Question::Kick(kick)).await
    }

    /// Drains the node.
    ///
    /// # Errors
    /// As [`Client::sessions`].
    pub async fn drain(&self, drain: Drain) -> Result<Done, ClientError> {
        self.question(&Question::Drain(drain)).await
    }

    /// Changes what the node logs, if a filter is given, and tells what it logs.
    ///
    /// # Errors
    /// As [`Client::sessions`]; also when it is no filter.
    pub async fn log(&self, log: Log) -> Result<Log, ClientError> {
        self.question(&Question::Log(log)).await
    }
}

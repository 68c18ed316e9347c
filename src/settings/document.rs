//! The document's types and their defaults.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::access::Authorization;
use super::doors::{Authentication, Listener, ServerTls};

/// The version of the document's shape. A reader refuses other numbers: fields may come, meanings may not change.
pub const SCHEMA: u32 = 1;

/// What one cluster's brokers run on; the same for all its nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// [`SCHEMA`].
    #[serde(default = "schema")]
    pub schema: u32,
    /// The name that links know the cluster by.
    pub cluster: String,
    /// The address that all listeners bind: `127.0.0.1` locally, `::` in pods.
    #[serde(default = "bind")]
    pub bind: String,
    /// Where MQTT clients connect.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// Where linked clusters connect; none: this cluster can only dial.
    #[serde(default)]
    pub link_listener: Option<LinkListener>,
    /// How many shards a node has, a thread each, at most 64; none: one for each core. Read when it starts.
    #[serde(default)]
    pub shards: Option<u8>,
    /// Who may connect.
    #[serde(default)]
    pub authentication: Authentication,
    /// What those may do who connected; none: everything but what is the broker's own.
    #[serde(default)]
    pub authorization: Option<Authorization>,
    /// What one client may cost.
    #[serde(default)]
    pub limits: Limits,
    /// What survives a node's death.
    #[serde(default)]
    pub storage: Storage,
    /// What a node says of itself.
    #[serde(default)]
    pub monitoring: Monitoring,
    /// The linked clusters.
    #[serde(default)]
    pub links: Vec<Link>,
}

impl Settings {
    /// A document with nothing but defaults: no listener, nobody may connect, no link.
    pub fn new(cluster: impl Into<String>) -> Self {
        Self {
            schema: SCHEMA,
            cluster: cluster.into(),
            bind: bind(),
            listeners: Vec::new(),
            link_listener: None,
            shards: None,
            authentication: Authentication::default(),
            authorization: None,
            limits: Limits::default(),
            storage: Storage::default(),
            monitoring: Monitoring::default(),
            links: Vec::new(),
        }
    }

    /// Tells whether clients have to show who they are, and then may do everything.
    pub fn is_open_to_all_it_knows(&self) -> bool {
        let Authentication { anonymous, users, jwt } = &self.authentication;
        let by_token = jwt.as_ref().is_some_and(|jwt| jwt.acl_claim.is_none());
        let by_certificate = |one: &Listener| one.tls.as_ref().is_some_and(|tls| tls.username_from.is_some());
        let asks = !users.is_empty() || by_token || self.listeners.iter().any(by_certificate);
        self.authorization.is_none() && !anonymous && asks
    }
}

/// The port where linked clusters connect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkListener {
    /// The TCP port; never 0.
    pub port: u16,
    /// The server's certificate; none: plaintext.
    #[serde(default)]
    pub tls: Option<ServerTls>,
}

/// What clients may cost; bytes and messages are per session unless the name says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// The largest MQTT packet accepted, header included.
    pub packet_bytes_max: usize,
    /// QoS 1 and 2 messages unacknowledged in each direction (MQTT 5: our Receive Maximum).
    pub inflight_max: u16,
    /// Messages waiting for one session.
    pub queued_messages_max: usize,
    /// Bytes waiting for one session.
    pub queued_bytes_max: usize,
    /// Messages waiting for all sessions of one node; 0: as many as fill the memory that it may hold (`docs/limits.md`).
    pub total_queued_messages_max: usize,
    /// Bytes waiting for all sessions of one node, counted for each; 0: as many as memory allows.
    pub total_queued_bytes_max: usize,
    /// Client connections of one node.
    pub connections_max: usize,
    /// Sessions of one node, connected or not.
    pub sessions_max: usize,
    /// The longest a session may outlive its connection.
    pub session_expiry_s_max: u32,
    /// Subscriptions of one session.
    pub subscriptions_max: usize,
    /// Retained messages of one node.
    pub retained_messages_max: usize,
    /// Bytes of retained messages of one node.
    pub retained_bytes_max: usize,
    /// Topic aliases per connection and direction.
    pub topic_alias_max: u16,
    /// How long an accepted socket may take to its CONNECT.
    pub connect_timeout_s: u16,
    /// The longest keep alive: version 5 clients that want a longer one, or none, are told this one. 65535: theirs.
    pub keep_alive_s_max: u16,
    /// How much memory the process may hold before it sheds load (`docs/limits.md`); 0: three quarters of what there is.
    pub memory_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_bytes_max: 16 * MIB,
            inflight_max: 1_000,
            queued_messages_max: 100_000,
            queued_bytes_max: 64 * MIB,
            total_queued_messages_max: 0,
            total_queued_bytes_max: 0,
            connections_max: 100_000,
            sessions_max: 200_000,
            session_expiry_s_max: 7 * 24 * 3_600,
            subscriptions_max: 10_000,
            retained_messages_max: 1_000_000,
            retained_bytes_max: 1_024 * MIB,
            topic_alias_max: 1_000,
            connect_timeout_s: 10,
            keep_alive_s_max: u16::MAX,
            memory_bytes_max: 0,
        }
    }
}

const MIB: usize = 1_024 * 1_024;

/// What survives a node's death, if the node has a directory to keep it in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Storage {
    /// What an acknowledgement means.
    pub durability: Durability,
}

/// What a node says of itself to MQTT clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Monitoring {
    /// How often `$SYS` topics are published; 0: never.
    pub sys_interval_s: u16,
}

impl Default for Monitoring {
    fn default() -> Self {
        Self { sys_interval_s: 10 }
    }
}

/// What an acknowledgement of a message to a persistent session, or of a retained message, means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// It is in memory, whatever directory the node has.
    None,
    /// The operating system has it, and the disk soon: it survives the death of the node's process.
    #[default]
    Interval,
    /// The disk has it: it survives the loss of power.
    Always,
}

/// One linked cluster, as this side sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// Whose link it is: `namespace/name`, or `namespace/name.half` for one half of a managed link; unique in the document.
    pub id: String,
    /// The peer's cluster name; unique in the document.
    pub peer: String,
    /// [`Link::compute_revision`] as of writing; reported back, so that the writer sees what runs.
    #[serde(default)]
    pub revision: String,
    /// A disabled link holds its place and refuses the peer by name.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Who opens connections.
    #[serde(default)]
    pub dial: Dial,
    /// The topic filters that this side wants to receive; may be empty.
    #[serde(default)]
    pub topics: Vec<String>,
    /// Where to dial, `host:port`; required unless `dial` is `In`.
    #[serde(default)]
    pub server: Option<String>,
    /// How to dial; none: plaintext.
    #[serde(default)]
    pub tls: Option<ClientTls>,
    /// What we present when we dial.
    #[serde(default)]
    pub credentials: Option<Credentials>,
    /// What the peer must present when it dials.
    #[serde(default)]
    pub inbound: Inbound,
    /// How much may be under way.
    #[serde(default)]
    pub forwarding: Forwarding,
    /// What may cross at all, whatever is wanted.
    #[serde(default)]
    pub acl: Acl,
    /// Another one than before: both sides are to tell each other all their routes anew. Reported back once they have.
    // Written only where it is: links without it keep their hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resync: Option<String>,
}

impl Link {
    /// An enabled link with defaults, that wants nothing and dials nowhere.
    pub fn new(id: impl Into<String>, peer: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            peer: peer.into(),
            revision: String::new(),
            enabled: true,
            dial: Dial::default(),
            topics: Vec::new(),
            server: None,
            tls: None,
            credentials: None,
            inbound: Inbound::default(),
            forwarding: Forwarding::default(),
            acl: Acl::default(),
            resync: None,
        }
    }
}

/// Who opens connections between two clusters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dial {
    /// Either side; one connection is kept.
    #[default]
    Both,
    /// We only.
    Out,
    /// The peer only.
    In,
}

/// The client side of TLS.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientTls {
    /// The CAs that the server's certificate must come from, PEM.
    pub ca_pem: String,
    /// The name that the server's certificate must carry.
    pub server_name: String,
    /// Our certificate and the intermediates after it, PEM; together with `key_pem` or not at all.
    #[serde(default)]
    pub certificate_pem: Option<String>,
    /// Our private key, PEM.
    #[serde(default)]
    pub key_pem: Option<String>,
}

/// A user name and its password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The password itself.
    pub password: String,
}

/// What a peer must present when it dials: either suffices, with neither given nobody gets in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Inbound {
    /// A certificate that the link listener trusts and that carries this URI.
    pub uri_san: Option<String>,
    /// A user name and password.
    pub credentials: Option<Credentials>,
}

/// How much a link may have under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Forwarding {
    /// Messages sent and not acknowledged.
    pub max_inflight: u32,
    /// Bytes that may wait for the peer.
    pub queue_bytes_max: u64,
    /// How long a message may wait for the peer.
    pub queue_age_s_max: u32,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self { max_inflight: 1_000, queue_bytes_max: 1_024 * MIB as u64, queue_age_s_max: 3_600 }
    }
}

/// What may cross a link at all, as topic filters. The default is everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Acl {
    /// What we may send, whatever the peer wants.
    pub send: Vec<String>,
    /// What we accept, whatever the peer sends.
    pub accept: Vec<String>,
}

impl Default for Acl {
    fn default() -> Self {
        Self { send: vec!["#".to_owned()], accept: vec!["#".to_owned()] }
    }
}

fn schema() -> u32 {
    SCHEMA
}

fn bind() -> String {
    "127.0.0.1".to_owned()
}

fn yes() -> bool {
    true
}

/// Stands for a value that logs must not show.
pub(super) const HIDDEN: &str = "(hidden)";

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("server_name", &self.server_name).field("key_pem", &HIDDEN).finish()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).field("password", &HIDDEN).finish()
    }
}

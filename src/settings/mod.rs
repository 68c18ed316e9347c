//! The settings document a broker runs on, the [`report`] it answers with, and the [`inventory`] that it shows.
//!
//! One JSON document, the same for all nodes of a cluster, written by whoever manages the cluster (the
//! operator, `mqlink up`, a person) and read by `mqlink broker`. Everything in it is resolved: Secrets,
//! addresses and the remote halves of links are values here, never references.
//!
//! What holds:
//! - A field that this version does not know is ignored, and named ([`parse`] returns the paths).
//! - Every field but `cluster` has a default that is safe: nobody may connect until `authentication` says who.
//! - [`Settings::check`] names every mistake with its field path; nodes run checked documents only.
//! - `Debug` never shows a password or a private key.
//!
//! It knows nothing of brokers and of Kubernetes, reads no file and no clock.

mod access;
mod document;
mod doors;
mod jwks;
mod check;
mod hash;
mod parse;
mod pieces;
mod merge;
mod secret;
mod everywhere;
pub mod report;
pub mod inventory;
#[cfg(test)]
mod tests;

pub use access::{
    AccessRule, Action, Authorization, CLIENT_ID, Cidr, CidrError, Effect, Principals, RULES_MAX, USERNAME,
    has_known_placeholders,
};
pub use check::{Invalid, Problem, is_host_port};
pub use document::{
    Acl, ClientTls, Credentials, Dial, Durability, Forwarding, Inbound, Limits, Link, LinkListener,
    Monitoring, SCHEMA, Settings, Storage,
};
pub use doors::{
    Authentication, CertificateName, CertificatePem, ClientAuth, Jwt, Listener, ListenerLimits, Protocol,
    ProxyProtocol, ServerTls, TlsVersion, User,
};
pub use everywhere::bind_everywhere;
pub use hash::canonical_sha256;
pub use jwks::{KeyKind, KeysError, TokenKey, token_keys};
pub use merge::{MergeError, merge};
pub use parse::{ParseError, Parsed, parse};
pub use pieces::{Pieces, names_others, without_links};
pub use secret::{BCRYPT_COST_MAX, ROUNDS_MAX, SecretKind};

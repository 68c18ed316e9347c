//! Certificates: an authority per cluster, leaves for nodes, links and the operator, bundles with overlap.
//!
//! Pure: the time and the random bytes are arguments, so the same arguments give the same certificates (keys are
//! Ed25519, whose signatures need no further randomness). Where certificates are stored, and who trusts whom, is decided elsewhere.
//!
//! What holds:
//! - **A chain alone gives no role.** What a certificate may be used for stands in its one URI ([`Role`]); a verifier asks
//!   for the URI that it expects, after the chain was verified.
//! - **Trust overlaps.** A new authority is trusted for a while before it signs, and an old one is trusted until the last leaf
//!   that it signed has expired ([`Authorities`]).
//! - `Debug` shows no key.

mod authority;
mod authorities;
mod inspect;
mod role;
#[cfg(test)]
mod tests;

pub use authorities::Authorities;
pub use authority::{Authority, Leaf, LeafRequest, Usage};
pub use inspect::{
    Inspection, Pair, Unreadable, check_authorities, check_pair, fingerprint, inspect, inspect_der,
};
pub use role::Role;

use std::time::Duration;

/// Fills a buffer with random bytes; the caller's generator.
pub type Random<'a> = &'a mut dyn FnMut(&mut [u8]);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Life of an authority.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Life of a leaf.
pub const LEAF_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Life of the operator's own leaf: it is kept in memory alone, so a new one costs nothing.
pub const OPERATOR_LEAF_LIFE: Duration = DAY;
/// How far the clocks of two machines may be apart: certificates are valid from so long before they were made.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);
/// How long a new authority is trusted before it signs: time for every peer to learn of it.
pub const OVERLAP: Duration = DAY;

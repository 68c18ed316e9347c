//! The authorities of one cluster over time: one signs, the newer one is becoming known, the older ones fade.
//!
//! ```text
//! made ──OVERLAP──▶ signs ──────▶ a newer one signs ──LEAF_LIFE──▶ forgotten
//!  └ trusted from here ─────────────────────────────────────────────┘
//! ```
//!
//! The stage of each follows from the dates in the certificates alone, so nothing has to be remembered, and whoever renders
//! the same authorities at the same time comes to the same bundle.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::authority::Authority;
use super::{CLOCK_SKEW, LEAF_LIFE, OVERLAP, Random};

/// The authorities of one cluster, oldest first; never empty once tended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Authorities(Vec<Authority>);

impl Authorities {
    /// Mints the first authority, and a further one when a third of the newest one's life is left; forgets what nobody needs.
    pub fn tend(&mut self, cluster: &str, now: Timestamp, random: Random<'_>) {
        self.0.retain(|authority| authority.says().is_ok_and(|own| now <= own.not_after && own.is_authority));
        let newest = self.0.last().and_then(|authority| authority.says().ok());
        if newest.is_none_or(|newest| newest.wants_renewal(now)) {
            self.0.push(Authority::mint(cluster, now, random));
        }
        while self.0.len() > 1 && signs_since(&self.0[1], now).is_some_and(|since| since > LEAF_LIFE) {
            self.0.remove(0);
        }
    }

    /// The authority that signs now: the newest that has been known for long enough, else the oldest.
    pub fn signer(&self, now: Timestamp) -> Option<&Authority> {
        let known = self.0.iter().rev().find(|authority| signs_since(authority, now).is_some());
        known.or(self.0.first())
    }

    /// The certificates that peers trust, PEM, oldest first.
    pub fn bundle_pem(&self) -> String {
        self.0.iter().map(|authority| authority.certificate_pem.as_str()).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none, as before the first tending.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// For how long an authority may have signed already; `None` while it is only becoming known.
fn signs_since(authority: &Authority, now: Timestamp) -> Option<Duration> {
    let made = authority.says().ok()?.not_before + CLOCK_SKEW;
    let age: SignedDuration = now.duration_since(made);
    Duration::try_from(age).ok()?.checked_sub(OVERLAP)
}

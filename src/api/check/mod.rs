//! Every rule of the API once more, in Rust: for `mqlink up`, where no API server stands in front, and for objects
//! that were stored before a rule was made.
//!
//! One finding says which field, and what to do. A function per kind checks an object alone ([`cluster`], [`link`]), another
//! one a change from an old object to a new one ([`cluster_change`], [`link_change`]).
//!
//! Stays in step with the schema by a table of objects that both must judge alike (`tests.rs`).

mod cluster;
mod fields;
mod link;
#[cfg(test)]
mod tests;

use std::fmt;

pub use cluster::{cluster, cluster_change};
pub use link::{link, link_change};

/// A mistake in an object that its user can put right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The field, as in `spec.topics[2]`.
    pub path: String,
    /// One word for the kind of mistake, fit for a condition.
    pub reason: &'static str,
    /// What is wrong with the field, and what to do.
    pub message: String,
}

impl Finding {
    /// A finding of the most common kind.
    pub fn invalid(path: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding { path: path.into(), reason: "InvalidSpec", message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path, self.message)
    }
}

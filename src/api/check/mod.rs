//! Every rule of the API once more, in Rust: for `mqlink up`, where no API server stands in front, and for objects
//! that were stored before a rule was made.
//!
//! One finding says which field, and what to do. A function per kind checks an object alone ([`cluster`], [`link`]), another
//! one a change from an old object to a new one ([`cluster_change`], [`link_change`]). What is merely redundant is no
//! finding: [`redundant_filters`] names it.
//!
//! Stays in step with the schema by a table of objects that both must judge alike (`tests/`), without exceptions so far. Neither
//! judges quantities in `podTemplate.resources`; only an API server judges the rest of `metadata`.

mod cluster;
mod fields;
mod link;
#[cfg(test)]
mod tests;

use std::fmt;

pub use cluster::{cluster, cluster_change};
pub use link::{link, link_change};

use crate::mqtt::{Filter, union};

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

/// Names the filters of a list that another one of it covers, each with the one that does: they are merged, not refused.
pub fn redundant_filters(filters: &[String]) -> Vec<(String, String)> {
    let parsed: Vec<Filter> = filters.iter().filter_map(|filter| Filter::parse(filter).ok()).collect();
    let needed = union(parsed.iter().cloned());
    let covering = |filter: &Filter| needed.iter().find(|other| other.covers(filter));
    let redundant = parsed.iter().filter(|filter| !needed.contains(filter));
    redundant
        .filter_map(|filter| Some((filter.as_str().to_owned(), covering(filter)?.as_str().to_owned())))
        .collect()
}

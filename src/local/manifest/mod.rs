//! Manifests as files: found, read, understood, checked.
//!
//! [`files`] finds them, [`load`] turns their text into objects or into [`Problem`]s that name file, line, column, field
//! and what is expected. The verdicts are those of an API server: shape, then every rule of [`crate::api`].
//! Whether what an object refers to exists is not looked at here: that is a condition, from the plan.

pub mod files;
mod yaml;
mod secret;
mod load;
#[cfg(test)]
mod tests;

pub use load::{Manifests, Problem, load};

//! Settings documents as a node takes them: parsed, checked, topic filters included.

use std::path::{Path, PathBuf};

use crate::mqtt::Filter;
use crate::settings::{self, Invalid, ParseError, Problem, Settings};

/// A document that a node can run.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// What it says.
    pub settings: Settings,
    /// Paths of the fields that this version does not know.
    pub unknown_fields: Vec<String>,
}

/// Why a document cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The file cannot be read.
    #[error("failed to read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// It is no document.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// It breaks rules.
    #[error("the settings are invalid: {0}")]
    Invalid(#[from] Invalid),
}

impl Document {
    /// Reads a document from a file.
    ///
    /// # Errors
    /// When it is not there, or cannot be run.
    pub fn read(path: &Path) -> Result<Self, DocumentError> {
        let json = std::fs::read(path).map_err(|error| DocumentError::Read(path.to_owned(), error))?;
        Self::parse(&json)
    }

    /// Makes a document of JSON.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn parse(json: &[u8]) -> Result<Self, DocumentError> {
        let settings::Parsed { settings, unknown_fields } = settings::parse(json)?;
        settings.check()?;
        check_filters(&settings)?;
        Ok(Self { settings, unknown_fields })
    }
}

fn check_filters(settings: &Settings) -> Result<(), Invalid> {
    let mut problems = Vec::new();
    for (index, link) in settings.links.iter().enumerate() {
        let lists =
            [("topics", &link.topics), ("acl.send", &link.acl.send), ("acl.accept", &link.acl.accept)];
        for (name, filters) in lists {
            for (at, filter) in filters.iter().enumerate() {
                if let Err(error) = Filter::parse(filter) {
                    let message = format!("`{filter}` is no topic filter: {error}");
                    problems.push(Problem { path: format!("links[{index}].{name}[{at}]"), message });
                }
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Invalid(problems)) }
}

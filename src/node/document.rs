//! Settings documents as a node takes them: parsed, checked, topic filters included.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::admin::DOCUMENT_BYTES_MAX;
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
    Read(PathBuf, io::Error),
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
        let json = read(path).map_err(|error| DocumentError::Read(path.to_owned(), error))?;
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

/// As much as would be taken over the admin protocol.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut json = Vec::new();
    File::open(path)?.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut json)?;
    match json.len() > DOCUMENT_BYTES_MAX {
        true => Err(io::Error::other(format!("it is larger than {DOCUMENT_BYTES_MAX} bytes"))),
        false => Ok(json),
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

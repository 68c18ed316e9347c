//! Settings documents as a node takes them: parsed, checked, topic filters included.
//!
//! On disk a document is a file, or several pieces that [`settings::merge`] puts together: given one by one, or as the
//! `*.json` files of a directory, by name. Hidden files are left out, as a mounted Secret has some that lead to the same content.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::admin::DOCUMENT_BYTES_MAX;
use crate::mqtt::Filter;
use crate::settings::{self, Invalid, MergeError, ParseError, Problem, Settings};

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
    /// A directory has no piece.
    #[error("failed to read {0}: there is no *.json in it")]
    Empty(PathBuf),
    /// The pieces make no document.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// It is no document.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// It breaks rules.
    #[error("the settings are invalid: {0}")]
    Invalid(#[from] Invalid),
}

impl DocumentError {
    /// Whether a later look may find the document whole: its pieces are being replaced.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, DocumentError::Merge(MergeError::Mixed { .. }))
    }
}

impl Document {
    /// Reads a document from files and directories.
    ///
    /// # Errors
    /// When one is not there, or together they cannot be run.
    pub fn read(paths: &[PathBuf]) -> Result<Self, DocumentError> {
        Self::parse(&Self::text(paths)?)
    }

    /// Makes one text of files and directories.
    ///
    /// # Errors
    /// When one is not there, or they do not go together.
    pub(super) fn text(paths: &[PathBuf]) -> Result<Vec<u8>, DocumentError> {
        let files = paths.iter().map(|path| files_of(path)).collect::<Result<Vec<_>, _>>()?.concat();
        let texts = read_files(&files)?;
        match &texts[..] {
            // As it is: then errors name its lines.
            [json] if !settings::names_others(json) => Ok(json.clone()),
            _ => {
                let names = files.iter().map(|path| path.display().to_string());
                Ok(settings::merge(names.zip(texts.iter().map(Vec::as_slice)))?)
            }
        }
    }

    /// Makes a document of JSON.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn parse(json: &[u8]) -> Result<Self, DocumentError> {
        let settings::Parsed { settings, unknown_fields } = settings::parse(json)?;
        // Who has several mistakes is told of all.
        let checked = [settings.check(), check_filters(&settings)];
        let problems: Vec<_> =
            checked.into_iter().filter_map(Result::err).flat_map(|Invalid(all)| all).collect();
        if problems.is_empty() {
            Ok(Self { settings, unknown_fields })
        } else {
            Err(Invalid(problems).into())
        }
    }
}

/// The file itself, or the pieces in a directory, by name.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, DocumentError> {
    let fail = |error| DocumentError::Read(path.to_owned(), error);
    if !std::fs::metadata(path).map_err(fail)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(fail)?;
    let mut pieces: Vec<PathBuf> =
        entries.iter().map(std::fs::DirEntry::path).filter(|path| is_piece(path)).collect();
    pieces.sort();
    if pieces.is_empty() { Err(DocumentError::Empty(path.to_owned())) } else { Ok(pieces) }
}

fn is_piece(path: &Path) -> bool {
    let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !is_hidden && path.extension().is_some_and(|extension| extension == "json")
}

/// As much as would be taken over the admin protocol, of all together.
fn read_files(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, DocumentError> {
    let mut left = DOCUMENT_BYTES_MAX;
    let read = |path: &PathBuf| {
        let json = read_file(path, left).map_err(|error| DocumentError::Read(path.clone(), error))?;
        left -= json.len();
        Ok(json)
    };
    files.iter().map(read).collect()
}

fn read_file(path: &Path, left: usize) -> io::Result<Vec<u8>> {
    let mut json = Vec::new();
    File::open(path)?.take(left as u64 + 1).read_to_end(&mut json)?;
    if json.len() <= left {
        return Ok(json);
    }
    let before = if left < DOCUMENT_BYTES_MAX { ", together with the files before it" } else { "" };
    Err(io::Error::other(format!("it is larger than {DOCUMENT_BYTES_MAX} bytes{before}")))
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
    let rules = settings.authorization.iter().flat_map(|authorization| &authorization.rules);
    for (index, rule) in rules.enumerate() {
        for (at, filter) in rule.filters.iter().enumerate() {
            if let Err(error) = Filter::parse(filter) {
                let path = format!("authorization.rules[{index}].filters[{at}]");
                problems.push(Problem { path, message: format!("`{filter}` is no topic filter: {error}") });
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Invalid(problems)) }
}

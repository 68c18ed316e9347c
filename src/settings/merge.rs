//! One document out of several pieces, so that each may lie in a Secret of its own.
//!
//! A piece is a document of which fields are left out. Objects merge field by field; lists of the same field follow one
//! another, in the order of the pieces; any other value may be given once, or several times alike. So no piece can quietly
//! overrule another, and a list that is too long for one Secret may go on in the next.
//!
//! A piece may name others by their hashes; then these have to be there as they are meant ([`super::Pieces`]).
//!
//! Messages name pieces and paths, never values: they may be secrets.

use serde_json::map::Entry;
use serde_json::{Map, Value};

use super::parse::{typed, without_values};
use super::pieces::{PIECES, hash};

/// Why pieces make no document.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A piece is no JSON object, or a field in it has the wrong type.
    #[error("failed to parse {0}: {1}")]
    Piece(String, String),
    /// A piece is not the one that another means.
    #[error(
        "failed to merge {piece} and {other}: they are of different renderings, one of them is about to be replaced"
    )]
    Mixed {
        /// The one that names the other.
        piece: String,
        /// The other, which may be missing.
        other: String,
    },
    /// Two pieces do not agree.
    #[error("failed to merge {piece}: {path} has another value already; give it once")]
    Conflict {
        /// The later piece.
        piece: String,
        /// The field, as `limits.inflightMax`.
        path: String,
    },
}

/// Makes one JSON document of named pieces.
///
/// # Errors
/// When a piece is bad by itself, or two do not agree.
pub fn merge<'a>(pieces: impl IntoIterator<Item = (String, &'a [u8])>) -> Result<Vec<u8>, MergeError> {
    let pieces: Vec<(String, &[u8])> = pieces.into_iter().collect();
    let mut whole = Map::new();
    for (name, json) in &pieces {
        let name = name.clone();
        let mut piece = read(json).map_err(|error| MergeError::Piece(name.clone(), error))?;
        if let Some(others) = piece.remove(PIECES) {
            check_others(&name, &others, &pieces)?;
        }
        merge_into(&mut whole, piece, "").map_err(|path| MergeError::Conflict { piece: name, path })?;
    }
    Ok(Value::Object(whole).to_string().into_bytes())
}

/// Holds the pieces that one names by their hashes against those that are there, by file name.
fn check_others(name: &str, others: &Value, pieces: &[(String, &[u8])]) -> Result<(), MergeError> {
    for (other, wanted) in others.as_object().into_iter().flatten() {
        let is_it = |(path, _): &&(String, &[u8])| path.rsplit('/').next() == Some(other);
        let found = pieces.iter().find(is_it).map(|(_, json)| hash(json));
        if found.as_deref() != wanted.as_str() || found.is_none() {
            return Err(MergeError::Mixed { piece: name.to_owned(), other: other.clone() });
        }
    }
    Ok(())
}

/// A piece whose fields have the right types: with a `cluster`, it must be a document.
fn read(json: &[u8]) -> Result<Map<String, Value>, String> {
    let piece: Map<String, Value> =
        serde_json::from_slice(json).map_err(|error| without_values(&error.to_string()))?;
    let mut document = piece.clone();
    document.entry("cluster").or_insert_with(|| Value::String(String::new()));
    typed(Value::Object(document))?;
    Ok(piece)
}

/// Fails with the path of what does not agree.
fn merge_into(whole: &mut Map<String, Value>, piece: Map<String, Value>, above: &str) -> Result<(), String> {
    for (name, value) in piece {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        match (whole.entry(name), value) {
            (Entry::Vacant(free), value) => drop(free.insert(value)),
            (Entry::Occupied(mut there), value) => match (there.get_mut(), value) {
                (Value::Object(whole), Value::Object(piece)) => merge_into(whole, piece, &path)?,
                (Value::Array(whole), Value::Array(piece)) => whole.extend(piece),
                (there, value) if *there == value => {}
                _ => return Err(path),
            },
        }
    }
    Ok(())
}

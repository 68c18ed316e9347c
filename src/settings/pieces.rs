//! One document in three pieces, so that users and links may each grow as large as a Secret: `base.json`, `users.json` and
//! `links.json`, for [`super::merge`].
//!
//! The base names the hashes of the other two, so that pieces of two renderings are no document: where they are written one
//! after another, and read by somebody else in between, a mixture would run what nobody ever asked for.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::Settings;

/// The field of a piece that names the hashes of others, by file name.
pub(super) const PIECES: &str = "pieces";

const BASE: &str = "base.json";
const USERS: &str = "users.json";
const LINKS: &str = "links.json";

/// The pieces of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Everything but users and links, and the hashes of these.
    pub base: Vec<u8>,
    /// Who may connect.
    pub users: Vec<u8>,
    /// The linked clusters.
    pub links: Vec<u8>,
}

impl Pieces {
    /// Cuts a document.
    pub fn of(settings: &Settings) -> Pieces {
        let mut whole = serde_json::to_value(settings).expect("settings hold nothing that JSON cannot");
        let users = whole["authentication"]["users"].take();
        let links = whole["links"].take();
        let users = json!({ "authentication": { "users": users } }).to_string();
        let links = json!({ "links": links }).to_string();
        drop(remove(&mut whole["authentication"], "users"));
        drop(remove(&mut whole, "links"));
        whole[PIECES] = json!({ LINKS: hash(links.as_bytes()), USERS: hash(users.as_bytes()) });
        Pieces { base: whole.to_string().into_bytes(), users: users.into_bytes(), links: links.into_bytes() }
    }

    /// The names of the files, base first.
    pub const FILES: [&str; 3] = [BASE, USERS, LINKS];

    /// Each with the name of its file.
    pub fn named(self) -> [(&'static str, Vec<u8>); 3] {
        [(BASE, self.base), (USERS, self.users), (LINKS, self.links)]
    }
}

/// Whether a text is a piece that names others.
pub fn names_others(json: &[u8]) -> bool {
    serde_json::from_slice::<Map<String, Value>>(json).is_ok_and(|piece| piece.contains_key(PIECES))
}

/// A base that means no links: what is left of a document whose links are of another rendering.
pub fn without_links(base: &[u8]) -> Option<Vec<u8>> {
    let mut base: Value = serde_json::from_slice(base).ok()?;
    base.get_mut(PIECES)?.as_object_mut()?.remove(LINKS)?;
    Some(base.to_string().into_bytes())
}

/// The hash of a piece, as others name it.
pub(super) fn hash(piece: &[u8]) -> String {
    Sha256::digest(piece).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn remove(object: &mut Value, field: &str) -> Option<Value> {
    object.as_object_mut()?.remove(field)
}

//! What is whole of a database that is damaged: a new one is made of it.
//!
//! Sessions go with what waits for them, and without either their client begins anew: half of both would break what was
//! promised to it. Retained messages lie apart, and need none of the two. The new database takes its place as a whole or not at
//! all: who dies in the middle begins empty, with all of the old one set aside.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use super::disk::Disk;
use super::engine::{Engine, StoreError};
use super::layout::{Space, Writes};
use super::{journal, tables};

/// What is of use without the rest.
const PARTS: [&[Space]; 2] = [&[Space::Sessions, Space::Queues], &[Space::Retained]];
/// About as much is copied at once.
const COPIED_BYTES: usize = 1 << 20;

/// Makes a new database of what is whole in one that is damaged. What is hurt goes into a folder. False if nothing of use is left.
pub(super) fn salvage(damaged: &Path, into: &Path, new: &Path) -> Result<bool, StoreError> {
    let fail = |error: io::Error| StoreError::Io {
        verb: "salvage",
        dir: damaged.to_owned(),
        cause: error.to_string(),
    };
    if !take_out(damaged, into).map_err(fail)? {
        return Ok(false);
    }
    let folders = damaged.join(tables::KEYSPACES).read_dir().map_err(fail)?;
    let whole =
        folders.map(|entry| Ok(entry?.file_name())).collect::<io::Result<HashSet<_>>>().map_err(fail)?;
    let (mut old, mut new) = (Disk::open_alone(damaged)?, Disk::open_alone(new)?);
    // What was taken out was made anew just now, in another folder.
    let is_whole =
        |old: &Disk, space: &Space| old.folder(*space).file_name().is_some_and(|name| whole.contains(name));
    let mut is_any = false;
    for part in PARTS {
        if part.iter().all(|space| is_whole(&old, space)) {
            part.iter().try_for_each(|space| copy(&mut old, &mut new, *space))?;
            is_any = true;
        }
    }
    new.sync()?;
    Ok(is_any)
}

/// Takes the keyspaces that are hurt out of a database. True if the rest can be opened.
fn take_out(database: &Path, into: &Path) -> io::Result<bool> {
    let is_lost = journal::missing_of(database).is_some() || journal::is_missing(database)?;
    if is_lost || journal::check(database, 0)?.is_some() {
        return Ok(false);
    }
    while let Some(file) = tables::check(database)? {
        let is_keyspace = |path: &&Path| path.parent().is_some_and(|all| all.ends_with(tables::KEYSPACES));
        let Some(keyspace) = file.ancestors().find(is_keyspace).filter(|path| !path.ends_with(tables::NAMES))
        else {
            return Ok(false);
        };
        fs::rename(keyspace, into.join(keyspace.file_name().unwrap_or_default()))?;
    }
    Ok(true)
}

fn copy(old: &mut Disk, new: &mut Disk, space: Space) -> Result<(), StoreError> {
    let (mut writes, mut bytes, mut result) = (Writes::new(), 0, Ok(()));
    old.read(space, &mut |key, value| {
        if result.is_err() {
            return;
        }
        bytes += key.len() + value.len();
        writes.insert((space, key.to_vec()), Some(value.to_vec()));
        if bytes > COPIED_BYTES {
            bytes = 0;
            result = new.commit(std::mem::take(&mut writes));
        }
    })?;
    result?;
    new.commit(writes)
}

//! Whether the engine's tables are whole, looked at before it opens them.
//!
//! A keyspace is a directory: `current` names its version file and that file's checksum, the version file names the tables and
//! theirs. The engine believes the first two unread, deletes a keyspace without `current`, and takes memory by numbers
//! that it has not checked. So this checks all of them, file by file, by the engine's own sums, and names the first one
//! that is not what it was.
//!
//! The format is that of the pinned version of the engine; a test checks files that it has written.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

pub(super) const KEYSPACES: &str = "keyspaces";
/// The keyspace that has the names of the others. It is made before all else.
pub(super) const NAMES: &str = "0";
const CURRENT: &str = "current";
/// The number of the version, its checksum, and the kind of checksum.
const CURRENT_BYTES: usize = 8 + 16 + 1;
/// A version file is some bytes a table.
const VERSION_BYTES_MAX: u64 = 64 << 20;
/// At the end of a version file: magic, version, kind of checksum, checksum, place and length of the table of contents.
const TRAILER_BYTES: usize = 4 + 1 + 1 + 16 + 8 + 8;
const TABLES: &[u8] = b"tables";

/// Finds the first file that is not what it was.
pub(super) fn check(database: &Path) -> io::Result<Option<PathBuf>> {
    let entries = match database.join(KEYSPACES).read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir()
            && let Some(file) = check_keyspace(&path)?
        {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

fn check_keyspace(keyspace: &Path) -> io::Result<Option<PathBuf>> {
    let current = keyspace.join(CURRENT);
    let Some((number, sum)) = read_up_to(&current, CURRENT_BYTES as u64)?.and_then(|bytes| named(&bytes))
    else {
        // One that was never finished has no tables either.
        let is_new =
            !current.exists() && keyspace.join("tables").read_dir().is_ok_and(|mut all| all.next().is_none());
        return Ok((!is_new).then_some(current));
    };
    let version = keyspace.join(format!("v{number}"));
    let bytes = read_up_to(&version, VERSION_BYTES_MAX)?.filter(|bytes| xxh3_128(bytes) == sum);
    let Some(tables) = bytes.as_deref().and_then(tables) else { return Ok(Some(version)) };
    for (number, sum) in tables {
        let table = keyspace.join("tables").join(number.to_string());
        if sum_of(&table)? != Some(sum) {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

/// A file's bytes; none if there is no such file, or it has more.
fn read_up_to(file: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(found) if found.len() > bytes_max => Ok(None),
        Ok(_) => fs::read(file).map(Some),
    }
}

fn sum_of(file: &Path) -> io::Result<Option<u128>> {
    let mut file = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let (mut sum, mut chunk) = (Xxh3::new(), vec![0; 256 * 1024]);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(Some(sum.digest128())),
            Ok(count) => sum.update(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What `current` names: the number of a version, and its sum.
fn named(current: &[u8]) -> Option<(u64, u128)> {
    let mut rest = current;
    let named = (u64::from_le_bytes(take(&mut rest)?), u128::from_le_bytes(take(&mut rest)?));
    (rest == [0]).then_some(named)
}

/// The tables of a version, and their sums.
fn tables(version: &[u8]) -> Option<Vec<(u64, u128)>> {
    let mut rest = section(version, TABLES)?;
    let mut tables = Vec::new();
    let [levels] = take(&mut rest)?;
    for _ in 0..levels {
        let [runs] = take(&mut rest)?;
        for _ in 0..runs {
            for _ in 0..u32::from_le_bytes(take(&mut rest)?) {
                let number = u64::from_le_bytes(take(&mut rest)?);
                let [_kind] = take(&mut rest)?;
                tables.push((number, u128::from_le_bytes(take(&mut rest)?)));
                let _global_number: [u8; 8] = take(&mut rest)?;
            }
        }
    }
    Some(tables)
}

/// A part of a version file, by the table of contents at its end.
fn section<'a>(version: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let mut trailer = version.get(version.len().checked_sub(TRAILER_BYTES)?..)?;
    let _head: [u8; 4 + 1 + 1 + 16] = take(&mut trailer)?;
    let at = usize::try_from(u64::from_le_bytes(take(&mut trailer)?)).ok()?;
    let mut contents = version.get(at..)?;
    let _magic: [u8; 4] = take(&mut contents)?;
    for _ in 0..u32::from_le_bytes(take(&mut contents)?) {
        let at = usize::try_from(u64::from_le_bytes(take(&mut contents)?)).ok()?;
        let length = usize::try_from(u64::from_le_bytes(take(&mut contents)?)).ok()?;
        let name_length = usize::from(u16::from_le_bytes(take(&mut contents)?));
        let (name, rest) = contents.split_at_checked(name_length)?;
        if name == wanted {
            return version.get(at..at.checked_add(length)?);
        }
        contents = rest;
    }
    None
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

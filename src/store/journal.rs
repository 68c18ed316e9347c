//! Whether the engine's journals are whole, looked at before it opens them.
//!
//! A journal is a row of batches. The engine drops what follows the first entry that it cannot read, and says nothing. That is
//! right for a write that the process died in, but a byte that has turned over in the middle would take all behind it along
//! in silence, and one inside a value would make the whole database of no use. So this reads them first, by the engine's own
//! format, and tells a torn end, with no whole batch behind it, from damage. What is damaged is put aside for whoever wants to
//! look at it, and the journals end at the last batch before: what a start finds is what was there at one moment.
//!
//! A batch's sequence number is in none of its checksums: they only grow, so one that is followed by a smaller one is damaged.
//!
//! The format is that of the pinned version of the engine; a test reads a journal that it has written.

use std::fs::{self, File, OpenOptions};
use std::hash::Hasher;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::tables::{KEYSPACES, NAMES};

/// Tags of entries.
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// Behind each batch.
const MAGIC: [u8; 4] = *b"FJL\x03";
/// From the tag of an end to the last byte of it: tag, checksum, magic.
const END_BYTES: usize = 1 + 8 + MAGIC.len();
/// Behind the tag of an item: type, compression, keyspace, lengths of key, value and value as it lies there.
const ITEM_HEAD_BYTES: usize = 1 + 1 + 8 + 2 + 4 + 4;
/// The last file that the engine writes when it makes a database.
const VERSION: &str = "version";
const CHUNK_BYTES: usize = 64 * 1024;
/// What a copy is called until it is whole; the engine looks for `jnl` only.
const COPY: &str = "anew";

/// How a journal is.
#[allow(unreachable_pub, reason = "for fuzzers")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// There is no batch, and nothing else.
    Empty,
    /// Every batch is whole, and nothing follows.
    Whole,
    /// The last write, which begins here, was not finished.
    Torn(u64),
    /// From here on it cannot be read, although something was written behind it.
    Damaged(u64),
}

/// A journal that is damaged.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) file: PathBuf,
    /// Where its last whole batch ends.
    pub(super) at: u64,
    /// The journals behind it.
    later: Vec<PathBuf>,
}

/// Looks for the first damage in a database's journals. `failed` is the number of a write that failed, if one did, and 0 if not.
pub(super) fn check(database: &Path, failed: u64) -> io::Result<Option<Damage>> {
    let mut journals = journals(database)?;
    while !journals.is_empty() {
        let file = journals.remove(0);
        let at = match scan_up_to(failed, BufReader::with_capacity(CHUNK_BYTES, File::open(&file)?))? {
            Scan::Damaged(at) => at,
            // The engine has all of a journal reach the disk before it begins the next.
            Scan::Torn(at) if !journals.is_empty() => at,
            Scan::Torn(at) => {
                let file = file.display();
                tracing::warn!("the last write to {file} was not finished, and is dropped from byte {at} on");
                continue;
            }
            Scan::Empty if !journals.is_empty() => 0,
            Scan::Empty => {
                // Nothing may have been: since it was begun, or ever, in stores of earlier versions.
                tracing::warn!("{} holds nothing: if anything was written there, it is lost", file.display());
                continue;
            }
            Scan::Whole => continue,
        };
        return Ok(Some(Damage { file, at, later: journals }));
    }
    Ok(None)
}

/// Puts a copy in each journal's place and has it reach the disk: what an fsync that failed has left is on no disk, no later
/// fsync looks at it, and to write the same again into the same file does not mend it either.
pub(super) fn write_anew(database: &Path) -> io::Result<()> {
    for journal in journals(database)? {
        let copy = journal.with_extension(COPY);
        let written = write_copy(&journal, &copy).and_then(|()| fs::rename(&copy, &journal));
        if let Err(error) = written {
            let _ = fs::remove_file(&copy); // it takes room, and the next one takes its place anyway
            return Err(error);
        }
        File::open(database)?.sync_all()?;
    }
    Ok(())
}

/// Copies a journal byte by byte: what the system offers for that may let both share what is on the disk.
fn write_copy(journal: &Path, copy: &Path) -> io::Result<()> {
    let (from, mut to) = (File::open(journal)?, File::create(copy)?);
    let (mut chunk, mut length) = (Vec::with_capacity(CHUNK_BYTES), 0);
    while (&from).take(CHUNK_BYTES as u64).read_to_end(&mut chunk)? > 0 {
        // Only zeros: most often the room that the engine takes beforehand, which has no blocks.
        if chunk.iter().any(|byte| *byte != 0) {
            to.seek(SeekFrom::Start(length))?;
            to.write_all(&chunk)?;
        }
        length += chunk.len() as u64;
        chunk.clear();
    }
    to.set_len(length)?;
    to.sync_all()
}

/// What a database that was made has lost as a whole.
pub(super) fn missing_of(database: &Path) -> Option<PathBuf> {
    if !database.join(VERSION).exists() {
        return Some(database.to_owned());
    }
    let keyspaces = database.join(KEYSPACES);
    let names = keyspaces.join(NAMES);
    [keyspaces, names].into_iter().find(|folder| !folder.exists())
}

/// True if a database has no journal at all: it always has the one that it writes to, and reads nothing without.
pub(super) fn is_missing(database: &Path) -> io::Result<bool> {
    Ok(database.join(VERSION).exists() && journals(database)?.is_empty())
}

/// Journals, oldest first.
fn journals(database: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match database.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let number = |path: &Path| -> Option<u64> {
        let is_one = path.extension()? == "jnl";
        is_one.then(|| path.file_stem()?.to_str()?.parse().ok()).flatten()
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        found.extend(number(&path).map(|number| (number, path)));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

impl Damage {
    /// Copies what cannot be read to a directory, and cuts it off.
    pub(super) fn set_aside(&self, to: &Path) -> io::Result<()> {
        let target = |file: &Path| to.join(file.file_name().unwrap_or_default());
        fs::copy(&self.file, target(&self.file))?;
        self.later.iter().try_for_each(|file| fs::rename(file, target(file)))?;
        let cut = OpenOptions::new().write(true).open(&self.file)?;
        cut.set_len(self.at)?;
        cut.sync_all()
    }
}

/// Reads a journal to its end.
#[cfg(any(test, fuzzing))]
#[allow(unreachable_pub, reason = "for fuzzers")]
pub fn scan(journal: impl Read + Seek) -> io::Result<Scan> {
    scan_up_to(0, journal)
}

/// Reads a journal to its end; `failed` is as in [`check`]. What a client has put into a message of a write that failed may look
/// like the end of a batch, and is none.
pub(super) fn scan_up_to(failed: u64, mut journal: impl Read + Seek) -> io::Result<Scan> {
    let (mut whole, mut before, mut number) = (0, 0, 0);
    while let Some(batch) = batch(&mut journal)? {
        if batch.number <= number && whole > 0 {
            return Ok(Scan::Damaged(before));
        }
        (before, number) = (whole, batch.number);
        whole += batch.length;
    }
    journal.seek(SeekFrom::Start(whole))?;
    Ok(match rest(&mut journal)? {
        Rest::Nothing if whole == 0 => Scan::Empty,
        Rest::Nothing => Scan::Whole,
        Rest::Pieces => Scan::Torn(whole),
        Rest::Batches if (1..=number.saturating_add(1)).contains(&failed) => Scan::Torn(whole),
        Rest::Batches => Scan::Damaged(whole),
    })
}

struct Batch {
    number: u64,
    length: u64,
}

/// The batch that begins here; none if there is no whole one.
fn batch(journal: &mut impl Read) -> io::Result<Option<Batch>> {
    let Some([START]) = bytes(journal)? else { return Ok(None) };
    let Some(head) = bytes::<12>(journal)? else { return Ok(None) };
    let (items, number) = head.split_at(4);
    let items = items.iter().rfold(0, |all: u32, byte| all << 8 | u32::from(*byte));
    let number = number.iter().rfold(0, |all: u64, byte| all << 8 | u64::from(*byte));
    let mut length = 1 + head.len() as u64;
    let mut sum = Xxh3::new();
    for _ in 0..items {
        match item(journal, &mut sum)? {
            Some(bytes) => length += bytes,
            None => return Ok(None),
        }
    }
    let Some(end) = bytes::<END_BYTES>(journal)? else { return Ok(None) };
    let is_whole = end[0] == END && end[1..9] == sum.finish().to_le_bytes() && end[9..] == MAGIC;
    Ok(is_whole.then_some(Batch { number, length: length + END_BYTES as u64 }))
}

fn item(journal: &mut impl Read, sum: &mut Xxh3) -> io::Result<Option<u64>> {
    let Some([tag]) = bytes(journal)? else { return Ok(None) };
    sum.update(&[tag]);
    match tag {
        CLEAR => Ok(bytes::<8>(journal)?.map(|keyspace| {
            sum.update(&keyspace);
            1 + 8
        })),
        ITEM => {
            let Some(head) = bytes::<ITEM_HEAD_BYTES>(journal)? else { return Ok(None) };
            sum.update(&head);
            let key = u16::from_le_bytes([head[10], head[11]]);
            let value = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
            let body = u64::from(key) + u64::from(value);
            Ok(sum_up(journal, body, sum)?.then_some(1 + head.len() as u64 + body))
        }
        _ => Ok(None),
    }
}

/// Adds so many bytes to a sum; false if there are not as many.
fn sum_up(journal: &mut impl Read, count: u64, sum: &mut Xxh3) -> io::Result<bool> {
    let mut body = journal.take(count);
    let mut chunk = [0; 4_096];
    loop {
        match body.read(&mut chunk) {
            Ok(0) => return Ok(body.limit() == 0),
            Ok(read) => sum.update(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn bytes<const N: usize>(journal: &mut impl Read) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match journal.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

enum Rest {
    /// Only the zeros of room that the engine takes beforehand.
    Nothing,
    Pieces,
    /// The end of a batch is among it. A torn write may hold one only if a client has put it into a message.
    Batches,
}

fn rest(journal: &mut impl Read) -> io::Result<Rest> {
    let (mut chunk, mut kept) = (vec![0; CHUNK_BYTES], 0);
    let zeros = vec![0; CHUNK_BYTES];
    let mut rest = Rest::Nothing;
    loop {
        let read = journal.read(&mut chunk[kept..])?;
        if read == 0 {
            return Ok(rest);
        }
        let seen = &chunk[..kept + read];
        if seen != &zeros[..seen.len()] {
            if seen.windows(END_BYTES).any(|end| end[0] == END && end[9..] == MAGIC) {
                return Ok(Rest::Batches);
            }
            rest = Rest::Pieces;
        }
        // An end may lie across two chunks.
        let from = seen.len() - seen.len().min(END_BYTES - 1);
        let next = seen.len() - from;
        chunk.copy_within(from..kept + read, 0);
        kept = next;
    }
}

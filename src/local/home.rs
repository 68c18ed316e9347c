//! Where `mqlink up` keeps what must be there for its nodes, and what outlives it.
//!
//! With `--data DIR`: minted credentials, settings and the status socket, in a directory of mode 0700 that one process at
//! a time uses. Without: the same in a temporary directory that goes with the process. The nodes' admin sockets are
//! always in a temporary directory, as the path of a socket may have but 107 bytes. What a process that was killed left
//! there, the next one removes.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

/// The name of the socket that `mqlink status` asks.
const STATUS_SOCKET: &str = "up.sock";
/// How the temporary directories are called.
const RUN_PREFIX: &str = "mqlink-";
/// A younger one may be about to be locked.
const LEFT_AGE_MIN: Duration = Duration::from_secs(60);
/// The file that is locked while the directory is in use; also the sign that it is one of ours.
const LOCK: &str = "lock";

/// The directories of one `mqlink up`.
#[derive(Debug)]
pub(super) struct Home {
    root: PathBuf,
    run: TempDir,
    is_ephemeral: bool,
    /// Hold the locks on `run` and `root`.
    _locks: [File; 2],
}

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The system refuses.
    #[error("failed to {verb} {path}: {cause}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// It was there before, for something else.
    #[error(
        "failed to use {0}: it holds files that are not ours; name a directory of its own with --data, it need not exist"
    )]
    Foreign(PathBuf),
    /// Another process has it.
    #[error("failed to use {0}: another mqlink up uses it; stop that one, or name another --data")]
    InUse(PathBuf),
    /// What is there is not ours.
    #[error("failed to read {path}: {cause}; if it is of another version, name another --data")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: serde_json::Error,
    },
}

fn fail(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    move |cause| HomeError::Io { verb, path: path.to_owned(), cause }
}

impl Home {
    /// Opens or makes a directory; a temporary one when none is named.
    ///
    /// # Errors
    /// When it cannot be made private, or another process uses it.
    pub(super) fn open(data: Option<&Path>) -> Result<Self, HomeError> {
        let run = tempfile::Builder::new()
            .prefix(RUN_PREFIX)
            .tempdir()
            .map_err(fail("make", Path::new("a directory")))?;
        let run_lock = lock(run.path())?;
        sweep(run.path());
        let root = data.map_or_else(|| run.path().join("data"), Path::to_owned);
        if !is_ours(&root).map_err(fail("read", &root))? {
            return Err(HomeError::Foreign(root));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(fail("make", &root))?;
        std::fs::set_permissions(&root, PermissionsExt::from_mode(0o700))
            .map_err(fail("make private", &root))?;
        let root_lock = lock(&root)?;
        Ok(Self { root, run, is_ephemeral: data.is_none(), _locks: [run_lock, root_lock] })
    }

    /// Whether everything here goes with the process.
    pub(super) fn is_ephemeral(&self) -> bool {
        self.is_ephemeral
    }

    /// The directory that stays, or would.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a node's admin socket: short, whatever the node is called.
    pub(super) fn admin_socket(&self, number: u64) -> PathBuf {
        self.run.path().join(format!("{number}.sock"))
    }

    /// The path of the status socket of a directory.
    pub(super) fn status_socket(root: &Path) -> PathBuf {
        root.join(STATUS_SOCKET)
    }

    /// The path of a file that stays.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Reads what [`Home::save`] wrote; the default when there is nothing.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub(super) fn load<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T, HomeError> {
        let path = self.file(name);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|cause| HomeError::Unreadable { path, cause }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
            Err(error) => Err(fail("read", &path)(error)),
        }
    }

    /// Writes a file of mode 0600 in place of the one before, whole or not at all.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(super) fn save(&self, name: &str, value: &impl Serialize) -> Result<(), HomeError> {
        write_private(&self.file(name), value)
    }
}

/// As [`Home::save`], anywhere.
pub(super) fn write_private(path: &Path, value: &impl Serialize) -> Result<(), HomeError> {
    let next = path.with_extension("next");
    let text = serde_json::to_vec_pretty(value).expect("what is saved is plain data");
    let mut file = private().truncate(true).open(&next).map_err(fail("write", &next))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(fail("write", &next))?;
    std::fs::rename(&next, path).map_err(fail("write", path))
}

/// Locks a directory for as long as the file is open.
fn lock(directory: &Path) -> Result<File, HomeError> {
    let path = directory.join(LOCK);
    let lock = private().open(&path).map_err(fail("open", &path))?;
    lock.try_lock().map_err(|_| HomeError::InUse(directory.to_owned()))?;
    Ok(lock)
}

/// Removes what processes of this user that were killed have left beside `own`: there are private keys in it.
fn sweep(own: &Path) {
    let Some(Ok(entries)) = own.parent().map(std::fs::read_dir) else { return };
    for left in entries.flatten().map(|entry| entry.path()).filter(|path| path != own) {
        // What cannot be removed now may be next time.
        let _ = is_left_behind(own, &left).map(|is_left| is_left.then(|| std::fs::remove_dir_all(&left)));
    }
}

fn is_left_behind(own: &Path, path: &Path) -> io::Result<bool> {
    let (ours, theirs) = (std::fs::metadata(own)?, std::fs::symlink_metadata(path)?);
    let is_named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(RUN_PREFIX));
    if !is_named || !theirs.is_dir() || theirs.uid() != ours.uid() {
        return Ok(false);
    }
    let lock = OpenOptions::new().write(true).open(path.join(LOCK))?;
    let age = lock.metadata()?.modified()?.elapsed().unwrap_or_default();
    Ok(age > LEFT_AGE_MIN && lock.try_lock().is_ok())
}

/// Whether a directory may be made private: it is not there yet, is empty, or was used by us before.
fn is_ours(root: &Path) -> io::Result<bool> {
    if root.join(LOCK).exists() {
        return Ok(true);
    }
    match std::fs::read_dir(root) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn what_is_saved_is_private_and_there_again() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("a/b");
        let home = Home::open(Some(&root)).unwrap();
        assert_eq!(mode(&root), 0o700);
        assert_eq!(home.load::<Vec<u8>>("list.json").unwrap(), Vec::<u8>::new());
        home.save("list.json", &[1, 2]).unwrap();
        home.save("list.json", &[3]).unwrap();
        assert_eq!(mode(&root.join("list.json")), 0o600);
        drop(home);
        let home = Home::open(Some(&root)).unwrap();
        assert_eq!(home.load::<Vec<u8>>("list.json").unwrap(), [3]);
        std::fs::write(root.join("list.json"), "no").unwrap();
        assert!(home.load::<Vec<u8>>("list.json").unwrap_err().to_string().contains("another version"));
    }

    #[test]
    fn a_directory_of_others_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("theirs"), "").unwrap();
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let error = Home::open(Some(root.path())).unwrap_err().to_string();
        assert!(error.contains("files that are not ours"), "{error}");
        assert_eq!((mode(root.path()), root.path().join(LOCK).exists()), (0o755, false));
    }

    #[test]
    fn one_process_at_a_time_uses_a_directory() {
        let root = tempfile::tempdir().unwrap();
        let _first = Home::open(Some(root.path())).unwrap();
        let second = Home::open(Some(root.path())).unwrap_err().to_string();
        assert!(second.contains("another mqlink up uses it"), "{second}");
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str, age_s: u64| {
            let path = parent.path().join(name);
            std::fs::create_dir_all(path.join("data")).unwrap();
            let lock = lock(&path).unwrap();
            lock.set_modified(std::time::SystemTime::now() - Duration::from_secs(age_s)).unwrap();
            (path, lock)
        };
        let (own, _own_lock) = make("mqlink-own", 0);
        let (alive, _alive_lock) = make("mqlink-alive", 3_600);
        let [killed, young, other] = [("mqlink-killed", 3_600), ("mqlink-young", 1), ("other", 3_600)]
            .map(|(name, age)| make(name, age).0);
        sweep(&own);
        assert!([&own, &alive, &young, &other].iter().all(|path| path.exists()));
        assert!(!killed.exists());
    }

    #[test]
    fn an_ephemeral_home_leaves_nothing() {
        let home = Home::open(None).unwrap();
        let root = home.root().to_owned();
        assert!(home.is_ephemeral() && root.exists());
        drop(home);
        assert!(!root.exists());
    }
}

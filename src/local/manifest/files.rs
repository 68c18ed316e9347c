//! Which files, and what is in them now.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest file read; Kubernetes refuses a single object beyond 1.5 MiB.
const FILE_BYTES_MAX: u64 = 8 * 1_024 * 1_024;
/// The most files read.
const FILES_MAX: usize = 256;

/// A file as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// As the user named it.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {path}: {cause}")]
pub struct ReadError {
    path: PathBuf,
    cause: io::Error,
}

/// Reads files and, of directories, the `.yaml`, `.yml` and `.json` files directly in them, by name.
///
/// # Errors
/// For the first that cannot be read, that is no UTF-8, that is too large, or that is no file, as a pipe: edits are followed.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Text>, ReadError> {
    let mut files = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => files.extend(list(path).map_err(|cause| ReadError { path: path.clone(), cause })?),
            false => files.push(path.clone()),
        }
    }
    if files.len() > FILES_MAX {
        let cause = io::Error::other(format!("there are more than {FILES_MAX} manifests; name fewer"));
        return Err(ReadError { path: files.swap_remove(FILES_MAX), cause });
    }
    files.into_iter().map(read_file).collect()
}

fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let is_manifest = |path: &PathBuf| {
        let extension = path.extension().unwrap_or_default();
        ["yaml", "yml", "json"].iter().any(|known| extension == *known) && path.is_file()
    };
    let entries: io::Result<Vec<PathBuf>> =
        std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut files: Vec<PathBuf> = entries?.into_iter().filter(is_manifest).collect();
    files.sort();
    Ok(files)
}

fn read_file(path: PathBuf) -> Result<Text, ReadError> {
    let read = || {
        if !std::fs::metadata(&path)?.is_file() {
            return Err(io::Error::other(
                "it is no regular file; save the manifest as one, its edits are followed",
            ));
        }
        let mut text = String::new();
        std::fs::File::open(&path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
        match text.len() as u64 > FILE_BYTES_MAX {
            true => Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes"))),
            false => Ok(text),
        }
    };
    match read() {
        Ok(text) => Ok(Text { path, text }),
        Err(cause) => Err(ReadError { path, cause }),
    }
}

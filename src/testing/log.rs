//! What a test logs.

use std::sync::Arc;

use tracing::subscriber::with_default;

/// Does something on this thread, and gives what was logged at `info` and above.
pub(crate) fn logged<T>(deed: impl FnOnce() -> T) -> (T, String) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let writer = Arc::new(file.reopen().expect("it is there"));
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).finish();
    let done = with_default(log, deed);
    (done, std::fs::read_to_string(file.path()).expect("readable"))
}

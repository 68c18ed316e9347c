//! How many files the process may have open: each connection is one.

use std::fs::File;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::io::fcntl_dupfd_cloexec;

/// What is kept for everything else: storage, links, the admin port and probes work on when no client gets in any more.
const KEPT: usize = 512;

/// Raises the limit as far as the system lets us, and says how many connections there is room for.
pub(super) fn allow() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return usize::MAX };
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::info!(%error, "the limit of open files stays as it is");
            soft
        }
    };
    let connections = room_in(usize::try_from(limit).unwrap_or(usize::MAX));
    tracing::info!(was = soft, limit, connections, "open files");
    connections
}

/// Has the system make its table of our files as large now as so many connections will need. It grows by doubling, and the thread
/// that opens a file too many waits for all processors meanwhile: a shard would serve nobody for milliseconds.
pub(super) fn make_room(connections: usize) {
    let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let last = limit.min((connections.saturating_add(KEPT)) as u64).saturating_sub(1);
    let last = i32::try_from(last).unwrap_or(i32::MAX);
    // The table stays when the file is closed.
    if let Err(error) = File::open("/dev/null").and_then(|file| Ok(fcntl_dupfd_cloexec(file, last)?)) {
        tracing::info!(%error, "the table of open files grows as they come");
    }
}

fn room_in(limit: usize) -> usize {
    limit - KEPT.min(limit / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_before_anybody_comes() {
        let limit = allow();
        make_room(3_000);
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).expect("Linux tells");
        let size: usize = size.trim().parse().expect("a number");
        assert!(size >= limit.min(3_000), "{size} of {limit}");
    }

    #[test]
    fn something_is_kept_of_any_limit() {
        assert_eq!([20_000, 1_024, 8].map(room_in), [19_488, 768, 6]);
        assert_eq!(room_in(usize::MAX), usize::MAX - KEPT);
    }
}

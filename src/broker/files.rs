//! How many files the process may have open: each connection is one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

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

fn room_in(limit: usize) -> usize {
    limit - KEPT.min(limit / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_kept_of_any_limit() {
        assert_eq!([20_000, 1_024, 8].map(room_in), [19_488, 768, 6]);
        assert_eq!(room_in(usize::MAX), usize::MAX - KEPT);
    }
}

//! CPU time and memory of processes, from `/proc`.

use std::time::Duration;

/// Linux counts in `/proc` by hundredths of a second on every architecture (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// User and system time that these processes have used so far, all their threads together.
pub(super) fn used(pids: &[u32]) -> std::io::Result<Duration> {
    let ticks: u64 = pids.iter().map(|pid| ticks(*pid)).sum::<std::io::Result<u64>>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Memory of these processes that is resident now, in KiB.
pub(super) fn resident_kib(pids: &[u32]) -> std::io::Result<u64> {
    pids.iter().map(|pid| rss_kib(*pid)).sum()
}

fn rss_kib(pid: u32) -> std::io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kib.ok_or_else(|| std::io::Error::other(format!("/proc/{pid}/status has no VmRSS")))
}

fn ticks(pid: u32) -> std::io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse(&stat).ok_or_else(|| std::io::Error::other(format!("/proc/{pid}/stat reads {stat}")))
}

/// Fields 14 and 15 (utime, stime). The second field, the name, may hold spaces and parentheses.
fn parse(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 1 0 0 0 123 45 0 0 20 0 1 0 1 1 1";
        assert_eq!(parse(stat), Some(168));
    }

    #[test]
    fn this_process_has_used_some() {
        assert!(used(&[std::process::id()]).is_ok());
        assert!(resident_kib(&[std::process::id()]).is_ok_and(|kib| kib > 100));
    }
}

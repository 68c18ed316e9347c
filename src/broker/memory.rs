//! How much memory the process holds, and how much it may.

use std::fs;
use std::path::Path;

use crate::settings::Limits;

/// Where control groups of version 2 are.
const GROUPS: &str = "/sys/fs/cgroup";

/// Has the system give memory by small pages. To make a large one ready takes up to milliseconds in which a shard serves nobody,
/// and what connections hold is small.
pub(super) fn take_small_pages() {
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::info!(%error, "the system goes on giving large pages");
    }
}

/// Bytes that are in memory now, as the system counts them; nothing where it does not tell.
pub(super) fn resident_bytes() -> Option<usize> {
    bytes_in("/proc/self/status", "VmRSS:")
}

/// Above how many bytes of memory the process takes nothing in; 0 if nothing says.
pub(super) fn mark(limits: &Limits) -> usize {
    if limits.memory_bytes_max == 0 { default_mark() } else { limits.memory_bytes_max }
}

/// Three quarters of what the process may have: of the least limit of its control groups, else of the machine's memory.
fn default_mark() -> usize {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = limit_of(&own, |file| fs::read_to_string(file).ok());
    limit.or_else(machine_bytes).map_or(0, |bytes| bytes / 4 * 3)
}

/// The least limit of a process's group and of those around it. In a container its own group is the root of all that it sees.
fn limit_of(own: &str, read: impl Fn(&Path) -> Option<String>) -> Option<usize> {
    let group = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let root = Path::new(GROUPS);
    let groups = root.join(group);
    let around = groups.ancestors().take_while(|group| group.starts_with(root));
    around.filter_map(|group| read(&group.join("memory.max"))?.trim().parse().ok()).min()
}

fn machine_bytes() -> Option<usize> {
    bytes_in("/proc/meminfo", "MemTotal:")
}

/// The value of a line `Name:   123 kB`.
fn bytes_in(file: &str, name: &str) -> Option<usize> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_measured_in_bytes() {
        let resident = resident_bytes().expect("Linux tells");
        assert!((1 << 20..1 << 40).contains(&resident), "{resident}");
        assert!(default_mark() > resident);
    }

    #[test]
    fn the_least_limit_of_a_group_and_those_around_it_counts() {
        let limit = |own: &str, files: &[(&str, &str)]| {
            let read = |file: &Path| files.iter().find(|(path, _)| Path::new(path) == file);
            limit_of(own, |file| read(file).map(|(_, text)| (*text).to_owned()))
        };
        let (root, slice) = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/system.slice/memory.max");
        let unit = "/sys/fs/cgroup/system.slice/mqlink.service/memory.max";
        let own = "0::/system.slice/mqlink.service\n";
        assert_eq!(limit("0::/\n", &[(root, "4096\n")]), Some(4_096));
        assert_eq!(limit(own, &[(unit, "max\n"), (slice, "8192\n"), (root, "9000\n")]), Some(8_192));
        assert_eq!(limit(own, &[(unit, "100\n"), (slice, "8192\n")]), Some(100));
        assert_eq!(limit(own, &[(unit, "9000\n"), (slice, "8192\n")]), Some(8_192));
        assert_eq!(limit(own, &[(unit, "max\n")]), None);
        assert_eq!(limit("3:memory:/a\n", &[]), None);
    }
}

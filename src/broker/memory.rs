//! How much memory the process holds, and how much it may.

use std::fs;

/// Bytes that are in memory now, as the system counts them; nothing where it does not tell.
pub(super) fn resident_bytes() -> Option<usize> {
    bytes_in("/proc/self/status", "VmRSS:")
}

/// Three quarters of what the process may have: of its container's limit, else of the machine's memory.
pub(super) fn default_mark() -> usize {
    let of_container = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let of_container = of_container.and_then(|text| text.trim().parse::<usize>().ok());
    of_container.or_else(machine_bytes).map_or(0, |bytes| bytes / 4 * 3)
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
}

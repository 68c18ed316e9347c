//! Processes as `/proc` shows them, and signals to them.

use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process that `up` started: its id and its command line.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) arguments: Vec<String>,
}

impl Process {
    /// What follows `name` on the command line.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        let at = self.arguments.iter().position(|argument| argument == name)?;
        self.arguments.get(at + 1).map(String::as_str)
    }
}

/// The children of `parent` that have not ended.
pub(crate) fn children(parent: u32) -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(state, of)| of == parent && state != 'Z'))
        .filter_map(read)
        .collect()
}

fn read(pid: u32) -> Option<Process> {
    let line = std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/cmdline"))).ok()?;
    let arguments = line.split_terminator('\0').map(str::to_owned).collect();
    Some(Process { pid, arguments })
}

/// Whether the process runs: it is neither gone nor a zombie.
pub(crate) fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// State and parent. The name before them may hold anything, also parentheses.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Sends a signal to a process that this run started.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("process ids are small"));
    kill(pid, signal).expect("the process is ours");
}

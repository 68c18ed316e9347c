//! Brings up what a case talks to: one broker from settings, or clusters from a manifest, on free ports.
//!
//! Waiting is always for something: a condition of the status stream, or of a process, within `PATIENCE`.

mod certificates;
mod node;
mod ports;
mod process;
mod status;
mod up;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub(crate) use certificates::Certificates;
pub(crate) use node::{Node, SettingsExt, settings};
pub(crate) use ports::free_port;
pub(crate) use process::{Process, alive, children, signal};
pub(crate) use status::{Status, is_up};
pub(crate) use up::{Clusters, Up};

use crate::clients::PATIENCE;

/// The binary under test.
pub(crate) const MQLINK: &str = env!("CARGO_BIN_EXE_mqlink");

/// What is answered to a GET, head and body, if anything is.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Asks until there is an answer.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

//! The admin protocol's status stream of one node, followed in the background.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use mqlink::admin::StatusLine;
use mqlink::settings::report::{LinkReport, NodeReport, VerdictStatus};

use crate::clients::PATIENCE;

/// The newest report of a node; ends with its node.
#[derive(Clone)]
pub(crate) struct Status {
    latest: Arc<(Mutex<Latest>, Condvar)>,
}

#[derive(Default)]
struct Latest {
    report: Option<NodeReport>,
    ended: bool,
}

impl Status {
    /// Follows the node behind `socket` from now on; None where nobody answers.
    pub(crate) fn follow(socket: &Path) -> Option<Status> {
        let mut stream = UnixStream::connect(socket).ok()?;
        // HTTP/1.0: the body is what comes until the end, without chunks.
        stream.write_all(b"GET /v1/status HTTP/1.0\r\nHost: node\r\n\r\n").ok()?;
        let status = Status { latest: Arc::default() };
        let follower = status.clone();
        std::thread::spawn(move || follower.read(stream));
        Some(status)
    }

    fn read(&self, stream: UnixStream) {
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        for line in lines.filter(|line| line.starts_with('{')) {
            let line: StatusLine = serde_json::from_str(&line).expect("the status stream is JSON lines");
            let mut latest = self.latest.0.lock().expect("nobody panics with it");
            line.apply_to(latest.report.get_or_insert_default());
            self.latest.1.notify_all();
        }
        self.latest.0.lock().expect("nobody panics with it").ended = true;
        self.latest.1.notify_all();
    }

    /// Waits for a report that `holds`, and returns it.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&NodeReport) -> bool) -> NodeReport {
        let deadline = Instant::now() + PATIENCE;
        let mut latest = self.latest.0.lock().expect("nobody panics with it");
        loop {
            match &latest.report {
                Some(report) if holds(report) => return report.clone(),
                report => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    assert!(
                        !latest.ended && left > Duration::ZERO,
                        "waited for {what}; the last report: {report:#?}"
                    );
                    latest = self.latest.1.wait_timeout(latest, left).expect("nobody panics with it").0;
                }
            }
        }
    }
}

/// Every verdict on the link is True.
pub(crate) fn is_up(link: &LinkReport) -> bool {
    [&link.connected, &link.peer_agrees, &link.routes_synced]
        .iter()
        .all(|verdict| verdict.status == VerdictStatus::True)
}

/// Where a node's admin socket is, by its command line.
pub(super) fn socket_of(process: &super::process::Process) -> Option<PathBuf> {
    process.option("--admin-socket").map(PathBuf::from)
}

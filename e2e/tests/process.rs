//! Programs that the tests run: kubectl as a user has it, and the `mqlink` that was built with the tests.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

/// The longest that anything is waited for, unless it is said otherwise.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn is_ok(&self) -> bool {
        self.code == Some(0)
    }
}

/// Runs a program to its end, which must come in time.
pub(crate) async fn run(program: &str, arguments: &[&str], input: &str) -> Ended {
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    let work = async {
        // It may end without reading all.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await
    };
    let ended = timeout(WAIT_MAX * 2, work).await;
    let output = ended
        .unwrap_or_else(|_| panic!("{program} {arguments:?} does not end"))
        .unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A program at work, of which the output is read line by line. It ends with the value.
pub(crate) struct Running {
    what: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    complaints: Lines<BufReader<ChildStderr>>,
}

impl Running {
    /// Starts a program.
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Running {
        let mut command = Command::new(program);
        command.args(arguments).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        Running {
            what: format!("{program} {}", arguments.join(" ")),
            child,
            lines: BufReader::new(stdout).lines(),
            complaints: BufReader::new(stderr).lines(),
        }
    }

    /// The next line, if one comes within a time.
    pub(crate) async fn line_within(&mut self, time: Duration) -> Option<String> {
        let line = timeout(time, self.lines.next_line()).await.ok()?;
        let line = line.unwrap_or_else(|error| panic!("{}: {error}", self.what));
        if line.is_none() {
            let complaints = self.complaints().await;
            panic!("{} ended: {complaints}", self.what);
        }
        line
    }

    /// The next line, which must come.
    pub(crate) async fn line(&mut self) -> String {
        let line = self.line_within(WAIT_MAX).await;
        line.unwrap_or_else(|| panic!("{} says nothing", self.what))
    }

    /// Whether it says this before it ends.
    pub(crate) async fn says(mut self, words: &str) -> bool {
        while let Ok(Some(line)) = self.lines.next_line().await {
            if line.contains(words) {
                return true;
            }
            eprintln!("{}: {line}", self.what);
        }
        false
    }

    /// Waits until it has said on standard error that it is ready.
    pub(crate) async fn ready(&mut self) {
        let ready = timeout(WAIT_MAX, async {
            while let Ok(Some(line)) = self.complaints.next_line().await {
                if line == "ready" {
                    return;
                }
                eprintln!("{}: {line}", self.what);
            }
            panic!("{} ended before it was ready", self.what);
        });
        if ready.await.is_err() {
            panic!("{} does not become ready", self.what);
        }
    }

    /// What it says on standard error before it ends.
    async fn complaints(&mut self) -> String {
        let mut said = Vec::new();
        while let Ok(Ok(Some(line))) = timeout(WAIT_MAX, self.complaints.next_line()).await {
            said.push(line);
        }
        format!("{:?}: {}", self.child.try_wait(), said.join("; "))
    }
}

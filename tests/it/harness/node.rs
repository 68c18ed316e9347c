//! One `mqlink broker` process from a settings document.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command};

use mqlink::settings::{Authentication, Listener, Protocol, ServerTls, Settings, User};
use tempfile::TempDir;

use super::{MQLINK, Status, free_port, until};
use crate::clients::Who;

/// A running broker; killed when dropped.
pub(crate) struct Node {
    child: Child,
    settings: Settings,
    status: Status,
    _folder: TempDir,
}

/// Settings with one MQTT listener on a free port, open to everybody.
pub(crate) fn settings() -> Settings {
    let mut settings = Settings::new("solo");
    settings.bind = "127.0.0.1".to_owned();
    settings.listeners = vec![Listener::new("mqtt", Protocol::Mqtt, free_port())];
    settings.authentication = Authentication { anonymous: true, ..Authentication::default() };
    settings
}

/// What a case changes of [`settings`].
pub(crate) trait SettingsExt {
    fn users(self, users: &[(&str, &str)]) -> Settings;
    fn tls(self, tls: ServerTls) -> Settings;
}

impl SettingsExt for Settings {
    /// Only these may connect.
    fn users(mut self, users: &[(&str, &str)]) -> Settings {
        let user =
            |(name, secret): &(&str, &str)| User { name: (*name).to_owned(), secret: (*secret).to_owned() };
        self.authentication =
            Authentication { users: users.iter().map(user).collect(), ..Authentication::default() };
        self
    }

    /// A second listener, over TLS.
    fn tls(mut self, tls: ServerTls) -> Settings {
        self.listeners.push(Listener::new("mqtts", Protocol::Mqtts, free_port()).with_tls(tls));
        self
    }
}

impl Node {
    /// Starts a broker and waits until its listeners are open.
    #[track_caller]
    pub(crate) fn start(settings: Settings) -> Node {
        Node::start_with(settings, &[])
    }

    /// Starts a broker that keeps what must survive in `data`.
    #[track_caller]
    pub(crate) fn start_kept(settings: Settings, data: &Path) -> Node {
        Node::start_with(settings, &[OsStr::new("--data"), data.as_os_str()])
    }

    /// Starts a broker through a command that ends by becoming it.
    #[track_caller]
    pub(crate) fn start_through(settings: Settings, command: Command, data: &Path) -> Node {
        Node::start_by(settings, command, &[OsStr::new("--data"), data.as_os_str()])
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it says of itself.
    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    /// Kills the broker with SIGKILL; what it was in the middle of stays as it is.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    #[track_caller]
    fn start_with(settings: Settings, arguments: &[&OsStr]) -> Node {
        Node::start_by(settings, Command::new(MQLINK), arguments)
    }

    #[track_caller]
    fn start_by(settings: Settings, mut command: Command, arguments: &[&OsStr]) -> Node {
        let folder = TempDir::new().expect("a temporary folder");
        let (config, socket) = (folder.path().join("settings.json"), folder.path().join("admin.sock"));
        std::fs::write(&config, serde_json::to_vec(&settings).expect("settings are JSON")).expect("writable");
        let mut child = command
            .args(["broker", "--node", "solo-0", "--config"])
            .arg(&config)
            .arg("--admin-socket")
            .arg(&socket)
            .args(arguments)
            .spawn()
            .expect("the binary is built");
        let status = until("the admin socket", || {
            assert!(child.try_wait().expect("our child").is_none(), "the broker ended at once");
            Status::follow(&socket)
        });
        let wanted = settings.listeners.len();
        status.until("open listeners", |report| {
            report.listeners.iter().filter(|listener| listener.error.is_none()).count() >= wanted
        });
        Node { child, settings, status, _folder: folder }
    }

    /// A client of the listener with this name.
    pub(crate) fn at(&self, listener: &str) -> Who {
        let found = self.settings.listeners.iter().find(|candidate| candidate.name == listener);
        Who::at(found.expect("a listener of the settings").port)
    }

    /// A client of the plain listener.
    pub(crate) fn who(&self) -> Who {
        self.at("mqtt")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

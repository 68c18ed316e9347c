//! Which ports the clusters get: what they want, or free ones.
//!
//! A port stays with its listener as long as the listener wants the same one, over restarts of nodes and edits of
//! manifests. Ports are tried out before a node starts; who takes one in between shows in the node's report.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, TcpListener};

/// A listener of a cluster: the cluster as `namespace/name`, and the listener's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    /// `namespace/name`.
    pub cluster: String,
    /// The listener's name; `link` for the link listener.
    pub listener: String,
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listener {} of MqttCluster {}", self.listener, self.cluster)
    }
}

/// A port that a listener wants and the one that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// As the manifest says.
    pub(super) wanted: u16,
    /// As it is.
    pub(super) actual: u16,
}

/// Why a listener cannot have the port that it wants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Another process has it.
    #[error("port {1}, wanted by {0}, is in use; stop who has it, change the port, or run with --ports free")]
    InUse(Socket, u16),
    /// Another cluster of the manifests has it.
    #[error("port {1}, wanted by {0}, is also wanted by {2}; change one of them, or run with --ports free")]
    Twice(Socket, u16, Socket),
    /// The system gives no free port.
    #[error("failed to find a free port for {0}: {1}")]
    NoneFree(Socket, String),
}

/// The ports of all listeners.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports {
    assigned: BTreeMap<Socket, Port>,
    /// Take another port where the wanted one cannot be had.
    free: bool,
}

impl Ports {
    /// No port yet.
    pub(super) fn new(free: bool) -> Self {
        Self { assigned: BTreeMap::new(), free }
    }

    /// The ports as if these were all listeners; nothing else is changed. `ours` are in use by nodes of ours.
    ///
    /// # Errors
    /// Every port that cannot be had.
    pub(super) fn assign(
        &self,
        wanted: &[(Socket, u16)],
        ours: &BTreeSet<u16>,
    ) -> Result<Self, Vec<PortError>> {
        let mut next = Self::new(self.free);
        let mut errors = Vec::new();
        // Who has a port keeps it, whatever the order of the manifests.
        for (socket, port) in wanted {
            if let Some(kept) = self.assigned.get(socket).filter(|kept| kept.wanted == *port) {
                next.assigned.insert(socket.clone(), *kept);
            }
        }
        for (socket, port) in wanted {
            if next.assigned.contains_key(socket) {
                continue;
            }
            match next.choose(ours, socket, *port) {
                Ok(actual) => drop(next.assigned.insert(socket.clone(), Port { wanted: *port, actual })),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(next) } else { Err(errors) }
    }

    fn choose(&self, ours: &BTreeSet<u16>, socket: &Socket, wanted: u16) -> Result<u16, PortError> {
        let error = match self.owner(wanted) {
            Some(other) => PortError::Twice(socket.clone(), wanted, other.clone()),
            // A port that a listener of ours gives up is in use still, but will be free.
            None if ours.contains(&wanted) || is_free(wanted) => return Ok(wanted),
            None => PortError::InUse(socket.clone(), wanted),
        };
        if !self.free {
            return Err(error);
        }
        let found = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        found
            .map(|address| address.port())
            .map_err(|error| PortError::NoneFree(socket.clone(), error.to_string()))
    }

    fn owner(&self, port: u16) -> Option<&Socket> {
        self.assigned.iter().find(|(_, assigned)| assigned.actual == port).map(|(socket, _)| socket)
    }

    /// The port of a listener.
    pub(super) fn get(&self, cluster: &str, listener: &str) -> Option<u16> {
        let socket = Socket { cluster: cluster.to_owned(), listener: listener.to_owned() };
        self.assigned.get(&socket).map(|port| port.actual)
    }

    /// All listeners and their ports.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Socket, Port)> {
        self.assigned.iter().map(|(socket, port)| (socket, *port))
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: BTreeSet<u16> = BTreeSet::new();

    fn socket(cluster: &str, listener: &str) -> Socket {
        Socket { cluster: cluster.to_owned(), listener: listener.to_owned() }
    }

    /// A port that somebody has, for as long as the listener lives.
    fn taken() -> (TcpListener, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    #[test]
    fn wanted_ports_are_given_and_kept() {
        let (listener, port) = taken();
        drop(listener);
        let wanted = [(socket("us", "mqtt"), port)];
        let ports = Ports::new(false).assign(&wanted, &NONE).unwrap();
        let _now_ours = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let ports = ports.assign(&wanted, &NONE).unwrap();
        assert_eq!(ports.get("us", "mqtt"), Some(port));
    }

    #[test]
    fn a_port_in_use_is_refused_by_name_or_replaced() {
        let (_listener, port) = taken();
        let wanted = [(socket("us", "mqtt"), port)];
        let errors = Ports::new(false).assign(&wanted, &NONE).unwrap_err();
        assert_eq!(errors, [PortError::InUse(socket("us", "mqtt"), port)]);
        assert!(errors[0].to_string().contains("--ports free"));
        let ports = Ports::new(true).assign(&wanted, &NONE).unwrap();
        let given = ports.get("us", "mqtt").unwrap();
        assert_ne!(given, port);
        assert_eq!(ports.assign(&wanted, &NONE).unwrap().get("us", "mqtt"), Some(given));
    }

    #[test]
    fn two_listeners_never_get_the_same_port() {
        let (listener, port) = taken();
        drop(listener);
        let wanted = [(socket("eu", "mqtt"), port), (socket("us", "mqtt"), port)];
        let errors = Ports::new(false).assign(&wanted, &NONE).unwrap_err();
        assert_eq!(errors, [PortError::Twice(socket("us", "mqtt"), port, socket("eu", "mqtt"))]);
        let ports = Ports::new(true).assign(&wanted, &NONE).unwrap();
        assert_ne!(ports.get("us", "mqtt"), ports.get("eu", "mqtt"));
    }

    #[test]
    fn a_port_can_move_from_one_listener_to_another() {
        let (listener, port) = taken();
        drop(listener);
        let ports = Ports::new(false).assign(&[(socket("us", "old"), port)], &NONE).unwrap();
        let _still_open = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let ports = ports.assign(&[(socket("us", "new"), port)], &BTreeSet::from([port])).unwrap();
        assert_eq!(ports.get("us", "new"), Some(port));
        assert_eq!(ports.get("us", "old"), None);
    }
}

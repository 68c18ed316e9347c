//! Why a link is refused or ended: one closed list for the wire, the logs and the status.
//!
//! A refusal is a decision, of the peer or of this side, and recovers by itself once the mistake behind it is
//! corrected. What the network does (no route, no answer) is not a refusal.

/// The reason of a `Refuse` or `Bye` frame. The numbers are the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The peer has no half for this cluster.
    UnknownCluster,
    /// The peer has another name than the one it was called by.
    BadClusterName,
    /// The address answers as the dialler itself.
    SelfDialled,
    /// The half of the one who refuses is disabled.
    LinkDisabled,
    /// What was presented is not what the half asks for.
    BadCredentials,
    /// Authenticated, but not for this.
    NotAuthorized,
    /// No common version, or frames that the protocol does not allow.
    ProtocolMismatch,
    /// A newer incarnation of the same node is known.
    OutdatedIncarnation,
    /// Another connection between the same two nodes stays.
    Superseded,
    /// The node stops.
    ShuttingDown,
    /// The half's settings changed so that this connection is not valid any more, or the half is gone.
    Reconfigured,
    /// A reason that this version does not know.
    Other(u64),
}

/// Each reason with its number and its name, once.
const NAMES: [(Reason, u64, &str); 11] = [
    (Reason::UnknownCluster, 1, "UnknownCluster"),
    (Reason::BadClusterName, 2, "BadClusterName"),
    (Reason::SelfDialled, 3, "SelfDialled"),
    (Reason::LinkDisabled, 4, "LinkDisabled"),
    (Reason::BadCredentials, 5, "BadCredentials"),
    (Reason::NotAuthorized, 6, "NotAuthorized"),
    (Reason::ProtocolMismatch, 7, "ProtocolMismatch"),
    (Reason::OutdatedIncarnation, 8, "OutdatedIncarnation"),
    (Reason::Superseded, 9, "Superseded"),
    (Reason::ShuttingDown, 10, "ShuttingDown"),
    (Reason::Reconfigured, 11, "Reconfigured"),
];

impl Reason {
    /// The number on the wire.
    pub fn code(self) -> u64 {
        match self {
            Reason::Other(code) => code,
            known => NAMES.iter().find(|row| row.0 == known).expect("every known reason has a row").1,
        }
    }

    /// The reason that a number on the wire stands for.
    pub fn from_code(code: u64) -> Reason {
        NAMES.iter().find(|row| row.1 == code).map_or(Reason::Other(code), |row| row.0)
    }

    /// The name that status and logs show.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Other(_) => "Refused",
            known => NAMES.iter().find(|row| row.0 == known).expect("every known reason has a row").2,
        }
    }

    /// The reason that begins a text such as `LinkDisabled: the half is disabled`, as a CONNACK carries it.
    pub fn from_text(text: &str) -> Option<Reason> {
        let name = text.split(':').next().unwrap_or_default().trim();
        NAMES.iter().find(|row| row.2 == name).map(|row| row.0)
    }
}

/// A refusal with the words that tell a person what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which one.
    pub reason: Reason,
    /// What was wrong, for a person.
    pub text: String,
}

impl Refusal {
    /// Makes one.
    pub fn new(reason: Reason, text: impl Into<String>) -> Refusal {
        Refusal { reason, text: text.into() }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason.name(), self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_survives_the_wire_and_a_connack() {
        for code in 1..=11 {
            let reason = Reason::from_code(code);
            assert_eq!(reason.code(), code);
            assert_eq!(Reason::from_text(&Refusal::new(reason, "why").to_string()), Some(reason));
        }
        assert_eq!(Reason::from_code(99), Reason::Other(99));
        assert_eq!(Reason::Other(99).name(), "Refused");
        assert_eq!(Reason::from_text("something else"), None);
    }
}

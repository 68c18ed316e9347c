//! Hello: who may be at the other end, and which of two connections stays.

use std::time::{Duration, Instant};

use crate::link::native::{self, Frame, Hello, Refuse};
use crate::link::probe::{Prober, TTL};
use crate::link::refusal::{Reason, Refusal};
use crate::link::route_receiver::Rejected;
use crate::settings::Dial;

use super::connection::{Open, State};
use super::report::Trouble;
use super::{ConnId, Link};

/// The longest that an actor may ask its routes to be kept in silence.
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// A refusal on its way out.
struct Refused {
    refusal: Refusal,
    held: Option<u64>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        Refused { refusal, held: None }
    }
}

impl Link {
    pub(super) fn send_hello(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.iter().find(|c| c.id == conn) else { return };
        let hello = Hello {
            version_min: native::VERSION,
            version_max: native::VERSION,
            cluster: &self.own.cluster,
            target: &self.half.peer,
            node: &self.own.node,
            incarnation: self.own.incarnation,
            index: 0,
            features: native::FEATURES,
            frame_bytes_max: connection.frame_bytes_max as u64,
            ttl_ms: TTL.as_millis() as u64,
        };
        let mut frame = Vec::new();
        Frame::Hello(hello).encode_control(&mut frame);
        self.outputs.push_back(super::Output::Send { conn, frame });
    }

    /// The first frame of a connection.
    pub(super) fn handle_hello(&mut self, conn: ConnId, dialled: bool, hello: &Hello<'_>, now: Instant) {
        if let Err(refused) = self.admit(conn, dialled, hello, now) {
            self.refuse(conn, dialled, &refused, now);
        }
    }

    fn admit(&mut self, conn: ConnId, dialled: bool, hello: &Hello<'_>, now: Instant) -> Result<(), Refused> {
        self.check(dialled, hello)?;
        self.check_rival(conn, dialled, hello)?;
        let kept = Duration::from_secs(u64::from(self.half.forwarding.queue_age_s_max));
        let ttl = Duration::from_millis(hello.ttl_ms).clamp(kept, TTL_MAX.max(kept));
        self.receiver.handle_hello(hello.node, hello.incarnation, ttl).map_err(rejected)?;
        self.end_rivals(conn, now);
        // After the rival's end: it is most often one of the same actor.
        self.receiver.handle_connected(hello.node);
        let known = |node: &str| self.receiver.answer(node).is_some();
        self.acceptor.forget(known);
        self.acceptor.handle_hello(hello.node, hello.incarnation, 0);
        self.establish(conn, dialled, hello, now);
        Ok(())
    }

    /// Everything that can be said of a Hello alone.
    fn check(&self, dialled: bool, hello: &Hello<'_>) -> Result<(), Refusal> {
        let (own, peer) = (&self.own.cluster, &self.half.peer);
        let refuse = |reason, text: String| Err(Refusal::new(reason, text));
        if hello.cluster == own {
            return refuse(Reason::SelfDialled, format!("this address answers as {own}, which dialled it"));
        }
        if hello.target != own {
            let text =
                format!("{} calls this cluster {}, but its name is {own}", hello.cluster, hello.target);
            return refuse(Reason::BadClusterName, text);
        }
        if hello.cluster != peer && dialled {
            let text = format!("this address answers as {}, not as {peer}", hello.cluster);
            return refuse(Reason::BadClusterName, text);
        }
        if hello.cluster != peer {
            let text = format!("the credentials are those of {peer}, not of {}", hello.cluster);
            return refuse(Reason::NotAuthorized, text);
        }
        if hello.version_min > native::VERSION || hello.version_max < native::VERSION {
            let (min, max) = (hello.version_min, hello.version_max);
            let text = format!("versions {min} to {max} are offered, {} is spoken", native::VERSION);
            return refuse(Reason::ProtocolMismatch, text);
        }
        if hello.frame_bytes_max < native::FRAME_BYTES_MIN as u64 {
            return refuse(Reason::ProtocolMismatch, "frames of 128 KiB must be taken".to_owned());
        }
        if !self.half.enabled {
            return refuse(Reason::LinkDisabled, format!("{own} has disabled its half of the link"));
        }
        if !dialled && self.half.dial == Dial::Out {
            return refuse(Reason::NotAuthorized, format!("{own} dials only, and does not accept"));
        }
        Ok(())
    }

    /// Of two connections between the same two nodes the one that the lesser name dialled stays; of two that the
    /// same side dialled, the newer; and always that of a newer incarnation.
    fn check_rival(&self, conn: ConnId, dialled: bool, hello: &Hello<'_>) -> Result<(), Refusal> {
        let Some((rival, open)) = self.open().filter(|(rival, _)| rival.id != conn) else { return Ok(()) };
        let newer = open.node != hello.node || hello.incarnation > open.incarnation;
        let lesser_dialled = dialled == (self.own.cluster < self.half.peer);
        if newer || rival.dialled == dialled || lesser_dialled {
            return Ok(());
        }
        Err(Refusal::new(Reason::Superseded, "another connection between the two nodes stays"))
    }

    fn end_rivals(&mut self, conn: ConnId, now: Instant) {
        if let Some(rival) = self.open().map(|(rival, _)| rival.id).filter(|rival| *rival != conn) {
            self.say_bye(rival, Reason::Superseded, "another connection between the two nodes stays", now);
        }
    }

    fn establish(&mut self, conn: ConnId, dialled: bool, hello: &Hello<'_>, now: Instant) {
        let bytes_max = usize::try_from(hello.frame_bytes_max).unwrap_or(usize::MAX);
        let open = Open {
            node: hello.node.to_owned(),
            incarnation: hello.incarnation,
            message_bytes_max: bytes_max - native::MESSAGE_OVERHEAD_MAX,
            prober: Prober::new(now),
            resumed: false,
            owed: None,
            congested: false,
            routes_ack_due: true,
            messages_ack_due: true,
            settling: None,
            settled: None,
        };
        if !dialled {
            self.send_hello(conn);
        }
        self.send_half(conn);
        if let Some(connection) = self.connections.iter_mut().find(|c| c.id == conn) {
            connection.state = State::Open(Box::new(open));
        }
        self.sender.handle_connected();
        self.forget_trouble();
        self.changed = true;
        self.handle_connection_timeout(conn, now);
    }

    fn refuse(&mut self, conn: ConnId, dialled: bool, refused: &Refused, now: Instant) {
        let Refused { refusal, held } = refused;
        let refuse = Refuse { reason: refusal.reason, text: &refusal.text, held: *held };
        let mut frame = Vec::new();
        Frame::Refuse(refuse).encode_control(&mut frame);
        self.outputs.push_back(super::Output::Send { conn, frame });
        self.outputs.push_back(super::Output::Close { conn });
        self.remove(conn, now);
        if dialled {
            self.dialer.handle_failed(now);
        }
        if shows(refusal.reason) {
            self.note_trouble(dialled, Trouble::refused(refusal.reason, &refusal.text));
        }
    }

    /// The peer ended a connection, with a reason.
    pub(super) fn handle_ended(
        &mut self,
        conn: ConnId,
        reason: Reason,
        text: &str,
        held: Option<u64>,
        now: Instant,
    ) {
        let Some(connection) = self.remove(conn, now) else { return };
        self.outputs.push_back(super::Output::Close { conn });
        if reason == Reason::Superseded && connection.open().is_some() && self.connections.is_empty() {
            // The other connection that stays is not one of ours.
            self.dialer.handle_hopeless(now);
            self.note_trouble(connection.dialled, self.conflict());
            return;
        }
        if connection.dialled || connection.open().is_some() {
            match reason {
                Reason::ProtocolMismatch => self.dialer.handle_hopeless(now),
                _ => self.dialer.handle_failed(now),
            }
        }
        if let (Reason::OutdatedIncarnation, Some(held)) = (reason, held) {
            self.own.incarnation = self.own.incarnation.max(held.saturating_add(1));
            self.dialer.handle_hint();
        }
        if shows(reason) {
            self.note_trouble(connection.dialled, Trouble::refused(reason, text));
        }
    }
}

impl Link {
    fn conflict(&self) -> Trouble {
        let text = format!(
            "another node that calls itself one of {} took the connection to {} over: two clusters have one clusterName",
            self.own.cluster, self.half.peer
        );
        Trouble::new("ClientIdConflict", &text)
    }
}

/// Whether status shows a reason: what repairs itself at once does not.
fn shows(reason: Reason) -> bool {
    !matches!(reason, Reason::Superseded | Reason::OutdatedIncarnation)
}

fn rejected(rejected: Rejected) -> Refused {
    match rejected {
        Rejected::Outdated(held) => Refused {
            refusal: Refusal::new(Reason::OutdatedIncarnation, format!("incarnation {held} is held")),
            held: Some(held),
        },
        Rejected::TooManyActors => {
            Refusal::new(Reason::NotAuthorized, "the cluster has more nodes than a link serves").into()
        }
    }
}

//! One link to one peer cluster, as one node sees it: the four parts and the connection that serves them.
//!
//! Pure: inputs go into `handle_*`, what is to be done comes out of `poll_output`, `now` is an argument and the
//! seed of all randomness comes with `new`. After each `handle_*`, drain `poll_output`, then sleep until
//! `poll_timeout`. In a test the network is a queue and time a number.
//!
//! Several connections may be in their handshake; one at most is open. Of two between the same nodes the one that
//! the cluster of lesser name dialled stays. No part knows which connection serves it: a lost one costs them a
//! `handle_disconnected`, the next one a `handle_connected`, and what is on its way is kept by the parts.

mod output;
mod connection;
mod dialer;
mod batch;
mod handshake;
mod frames;
mod settings;
mod report;
#[cfg(test)]
mod tests;

pub use output::{ConnId, Identity, Output};

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mqtt::{Filter, Message};
use crate::settings::report::PeerHalf;
use crate::settings::{Dial, Link as Half};

use self::batch::Batcher;
use self::connection::{Connection, Open, State};
use self::dialer::{Dialer, Step};
use self::report::Trouble;
use super::acceptor::Acceptor;
use super::forwarder::Forwarder;
use super::native::{self, Frame};
use super::probe::Due;
use super::refusal::{Reason, Refusal};
use super::route_receiver::{RouteChange, RouteReceiver};
use super::route_sender::RouteSender;

/// Connections of one link that may be in their handshake at the same time.
const HANDSHAKES_MAX: usize = 8;
/// Strangers change what status says this often at most.
const STRANGER_PAUSE: Duration = Duration::from_secs(1);

/// One link.
#[derive(Debug)]
pub struct Link {
    half: Half,
    own: Identity,
    /// The incarnation that it was made with: since then its counters count.
    epoch: u64,
    /// The largest frame that this side takes.
    frame_bytes_max: usize,
    sender: RouteSender,
    receiver: RouteReceiver,
    forwarder: Forwarder,
    acceptor: Acceptor,
    connections: Vec<Connection>,
    dialer: Dialer,
    batcher: Batcher,
    peer: Option<PeerHalf>,
    /// Why there is no connection, while there is none: what dialling met, and what those who dialled this side.
    dialled_trouble: Option<Trouble>,
    accepted_trouble: Option<Trouble>,
    /// When a stranger's mistake was last noted.
    stranger_at: Option<Instant>,
    outputs: VecDeque<Output>,
    /// How often it was asked whether something is safe.
    questions: u64,
    changed: bool,
}

impl Link {
    /// A link that has not dialled yet.
    pub fn new(half: Half, own: Identity, frame_bytes_max: usize, seed: u64, now: Instant) -> Link {
        let mut link = Link {
            forwarder: Forwarder::new(half.forwarding),
            half,
            epoch: own.incarnation,
            own,
            frame_bytes_max: frame_bytes_max.max(native::FRAME_BYTES_MIN),
            sender: RouteSender::default(),
            receiver: RouteReceiver::default(),
            acceptor: Acceptor::default(),
            connections: Vec::new(),
            dialer: Dialer::new(seed),
            batcher: Batcher::default(),
            peer: None,
            dialled_trouble: None,
            accepted_trouble: None,
            stranger_at: None,
            outputs: VecDeque::new(),
            questions: 0,
            changed: true,
        };
        link.apply_half(now);
        link.drive(now);
        link
    }

    /// A local subscription came or went. Saying it twice changes nothing.
    pub fn handle_interest(&mut self, filter: Filter, group: Option<Arc<str>>, wanted: bool, now: Instant) {
        self.sender.handle_subscription(filter, group, wanted, now);
    }

    /// A message matched a route of the peer.
    pub fn handle_message(&mut self, message: Rc<Message>, now: Instant) {
        self.forwarder.handle_message(message, now);
    }

    /// The bytes of the messages that wait for the peer or are in flight.
    pub fn held_bytes(&self) -> usize {
        self.forwarder.bytes()
    }

    /// The bytes of those that wait.
    pub fn queued_bytes(&self) -> usize {
        self.forwarder.queued_bytes()
    }

    /// Drops the oldest that wait, so many bytes or more; tells how many.
    pub fn shed(&mut self, bytes: usize) -> usize {
        self.forwarder.shed(bytes)
    }

    /// How much memory the peer's routes take.
    pub fn route_memory(&self) -> usize {
        self.receiver.memory()
    }

    /// How much they may take from now on; what is there stays.
    pub fn handle_route_room(&mut self, bytes: usize) {
        self.receiver.handle_room(bytes);
    }

    /// The core took the message of one `Deliver` for so many recipients.
    pub fn handle_delivered(&mut self, recipients: usize) {
        self.acceptor.handle_delivered(recipients);
    }

    /// All that was delivered before `Settle` with this number is safe.
    pub fn handle_settled(&mut self, number: u64) {
        let open = self.connections.iter_mut().find_map(Connection::open_mut);
        // A connection that is gone asks no more.
        if let Some(open) = open
            && let Some((_, position)) = open.settling.take_if(|(asked, _)| *asked == number)
        {
            open.settled = Some(position);
        }
    }

    /// A connection to the peer is open: dialled by this side, or accepted because the other end presented what
    /// the half asks for.
    pub fn handle_opened(&mut self, conn: ConnId, dialled: bool, now: Instant) {
        if dialled {
            self.dialer.handle_opened();
        }
        let connection = Connection::new(conn, dialled, self.frame_bytes_max, now);
        if self.connections.len() > HANDSHAKES_MAX {
            self.outputs.push_back(Output::Close { conn });
            return;
        }
        self.connections.push(connection);
        if dialled {
            self.send_hello(conn);
        }
        self.drive(now);
    }

    /// The attempt to dial failed. `reason` is the API's word for it.
    pub fn handle_dial_failed(&mut self, reason: &str, message: &str, now: Instant) {
        self.dialer.handle_failed(now);
        self.note_trouble(true, Trouble::new(reason, message));
        self.drive(now);
    }

    /// Somebody used the peer's name without presenting what the half asks for. Says so while there is nothing
    /// better to say, and not more often than once a second.
    pub fn handle_stranger(&mut self, refusal: &Refusal, now: Instant) {
        if self.stranger_at.is_some_and(|at| now < at + STRANGER_PAUSE) {
            return;
        }
        self.stranger_at = Some(now);
        self.note_trouble(false, Trouble::new(refusal.reason.name(), &refusal.text));
    }

    /// The network ended a connection.
    pub fn handle_closed(&mut self, conn: ConnId, why: &str, now: Instant) {
        let Some(connection) = self.remove(conn, now) else { return };
        let trouble = match connection.state {
            State::AwaitHello { .. } => {
                Trouble::new("DialFailed", &format!("{why} before it said Hello: is it a link listener?"))
            }
            State::Open(_) => Trouble::new("ConnectionLost", why),
        };
        if connection.dialled || connection.open().is_some() {
            self.dialer.handle_failed(now);
            self.note_trouble(connection.dialled, trouble);
        }
        self.drive(now);
    }

    /// Bytes came in on a connection, maybe not yet a whole frame.
    pub fn handle_heard(&mut self, conn: ConnId, now: Instant) {
        if let Some(connection) = self.connections.iter_mut().find(|c| c.id == conn) {
            connection.heard_at = now;
        }
    }

    /// More waits to be written to a connection than should, or that is over.
    pub fn handle_congestion(&mut self, conn: ConnId, congested: bool) {
        let open = self.connections.iter_mut().find(|c| c.id == conn).and_then(Connection::open_mut);
        if let Some(open) = open {
            open.congested = congested;
        }
    }

    /// The node stops, or the half is gone: tells the peer why.
    pub fn handle_shutdown(&mut self, reason: Reason, text: &str, now: Instant) {
        self.half.enabled = false;
        for conn in self.connections.iter().map(|c| c.id).collect::<Vec<_>>() {
            self.say_bye(conn, reason, text, now);
        }
        self.drive(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for conn in self.connections.iter().map(|c| c.id).collect::<Vec<_>>() {
            self.handle_connection_timeout(conn, now);
        }
        let mut changes = Vec::new();
        self.receiver.handle_timeout(now, &mut changes);
        self.apply_routes(changes);
        self.forwarder.handle_timeout(now);
        self.changed = true;
        self.drive(now);
    }

    fn handle_connection_timeout(&mut self, conn: ConnId, now: Instant) {
        let Some(connection) = self.connections.iter_mut().find(|c| c.id == conn) else { return };
        let trouble = match &mut connection.state {
            State::AwaitHello { until } if *until > now => return,
            State::AwaitHello { .. } => Trouble::new("DialFailed", "no Hello within the time allowed"),
            State::Open(open) => match open.prober.handle_timeout(now, connection.heard_at) {
                Due::Nothing => return,
                Due::Send(id) => return self.send(conn, &Frame::Probe(native::Probe { id })),
                Due::Lost => Trouble::new("ProbeTimeout", "a probe did not come back within its period"),
            },
        };
        let dialled = connection.dialled;
        let judged = dialled || connection.open().is_some();
        self.remove(conn, now);
        self.outputs.push_back(Output::Close { conn });
        if judged {
            self.dialer.handle_failed(now);
            self.note_trouble(dialled, trouble);
        }
    }

    /// The next thing to do; None when there is nothing until the next input or `poll_timeout`.
    pub fn poll_output(&mut self, now: Instant) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let connection = self.connections.iter_mut().find(|c| c.open().is_some())?;
        let conn = connection.id;
        let open = connection.open_mut().expect("it was found by being open");
        if std::mem::take(&mut open.routes_ack_due) {
            let ack = self.receiver.answer(&open.node)?;
            return Some(control(conn, &Frame::RoutesAck(frames::routes_ack(ack))));
        }
        if let Some(position) = open.settled.take() {
            let ack = native::MessagesAck { position, stream: 0 };
            return Some(control(conn, &Frame::MessagesAck(ack)));
        }
        if open.settling.is_none() && std::mem::take(&mut open.messages_ack_due) {
            self.questions += 1;
            let position = self.acceptor.handle_hello(&open.node, open.incarnation, 0);
            open.settling = Some((self.questions, position));
            return Some(Output::Settle { number: self.questions });
        }
        if open.congested {
            return None;
        }
        if let Some(batch) = self.sender.poll_batch(now) {
            self.changed = true;
            let mut frame = Vec::new();
            let marks = (batch.begin, batch.end);
            native::encode_routes(batch.number, marks, &batch.add, &batch.delete, &mut frame);
            return Some(Output::Send { conn, frame });
        }
        let frame = self.batcher.write(&mut self.forwarder, now)?;
        Some(Output::Send { conn, frame })
    }

    /// When to call `handle_timeout`, or `poll_output` again, without an input.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let congested = self.open().is_some_and(|(_, open)| open.congested);
        let sender = if congested { None } else { self.sender.poll_timeout(now) };
        let parts =
            [sender, self.receiver.poll_timeout(), self.forwarder.poll_timeout(), self.dialer.poll_timeout()];
        let connections = self.connections.iter().map(Connection::poll_timeout);
        parts.into_iter().flatten().chain(connections).min()
    }

    /// Whether a report may say something new since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The half that this link runs.
    pub fn half(&self) -> &Half {
        &self.half
    }

    /// What this side wants of the peer, in ascending order.
    #[cfg(test)]
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &Filter> {
        self.sender.wanted().iter()
    }

    fn open(&self) -> Option<(&Connection, &Open)> {
        self.connections.iter().find_map(|c| c.open().map(|open| (c, open)))
    }

    /// Brings dialling in line with the connections there are.
    fn drive(&mut self, now: Instant) {
        let may = self.half.enabled && self.half.dial != Dial::In && self.half.server.is_some();
        let has = self.connections.iter().any(|c| c.dialled || c.open().is_some());
        match self.dialer.drive(may && !has, now) {
            Step::Nothing => {}
            Step::Dial => self.outputs.push_back(Output::Dial),
            Step::Cancel => self.outputs.push_back(Output::CancelDial),
        }
    }

    /// Forgets a connection; the parts lose it if they had it.
    fn remove(&mut self, conn: ConnId, now: Instant) -> Option<Connection> {
        let index = self.connections.iter().position(|c| c.id == conn)?;
        let connection = self.connections.remove(index);
        if let Some(open) = connection.open() {
            self.sender.handle_disconnected();
            self.forwarder.handle_disconnected();
            self.receiver.handle_disconnected(&open.node, connection.heard_at.min(now));
        }
        self.changed = true;
        Some(connection)
    }

    fn say_bye(&mut self, conn: ConnId, reason: Reason, text: &str, now: Instant) {
        self.send(conn, &Frame::Bye(native::Bye { reason, text }));
        self.outputs.push_back(Output::Close { conn });
        self.remove(conn, now);
    }

    /// Each direction has its own, so that two mistakes do not take turns in status.
    fn note_trouble(&mut self, dialled: bool, trouble: Trouble) {
        if self.open().is_none() {
            let noted = if dialled { &mut self.dialled_trouble } else { &mut self.accepted_trouble };
            self.changed |= noted.as_ref() != Some(&trouble);
            *noted = Some(trouble);
        }
    }

    fn forget_trouble(&mut self) {
        (self.dialled_trouble, self.accepted_trouble) = (None, None);
    }

    fn apply_routes(&mut self, changes: Vec<RouteChange>) {
        self.changed |= !changes.is_empty();
        self.outputs.extend(changes.into_iter().map(|change| match change.served {
            true => Output::RouteAdd(change.filter),
            false => Output::RouteDelete(change.filter),
        }));
    }

    fn send(&mut self, conn: ConnId, frame: &Frame<'_>) {
        self.outputs.push_back(control(conn, frame));
    }
}

fn control(conn: ConnId, frame: &Frame<'_>) -> Output {
    let mut bytes = Vec::with_capacity(64);
    frame.encode_control(&mut bytes);
    Output::Send { conn, frame: bytes }
}

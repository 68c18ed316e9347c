//! Frames into the four parts.

use std::time::Instant;

use crate::link::digest::Digest;
use crate::link::native::{self, FilterList, Frame, Messages, MessagesAck, Routes, RoutesAck};
use crate::link::refusal::Reason;
use crate::link::route_receiver::ReceivedBatch;
use crate::link::route_sender::RouteAnswer;
use crate::link::violation::Violation;
use crate::mqtt::Filter;
use crate::settings::report::PeerHalf;

use super::connection::Connection;
use super::{ConnId, Link, Output, batch};

impl Link {
    /// A frame came in on a connection. Frames of connections that are over count for nothing.
    pub fn handle_frame(&mut self, conn: ConnId, bytes: &[u8], now: Instant) {
        let Some(connection) = self.connections.iter_mut().find(|c| c.id == conn) else { return };
        connection.heard_at = now;
        let (dialled, is_open) = (connection.dialled, connection.open().is_some());
        let done = match native::decode(bytes) {
            Err(violation) => Err(violation),
            Ok(None) => Ok(()),
            Ok(Some(Frame::Hello(_))) if is_open => Err(Violation::SecondHello),
            Ok(Some(Frame::Hello(hello))) => {
                self.handle_hello(conn, dialled, &hello, now);
                Ok(())
            }
            Ok(Some(Frame::Refuse(refuse))) => {
                self.handle_ended(conn, refuse.reason, refuse.text, refuse.held, now);
                Ok(())
            }
            Ok(Some(Frame::Bye(bye))) => {
                self.handle_ended(conn, bye.reason, bye.text, None, now);
                Ok(())
            }
            Ok(Some(_)) if !is_open => Err(Violation::FirstFrameNotHello),
            Ok(Some(frame)) => self.handle_open_frame(conn, frame, now),
        };
        if let Err(violation) = done {
            self.handle_violation(conn, violation, now);
        }
        self.drive(now);
    }

    fn handle_open_frame(&mut self, conn: ConnId, frame: Frame<'_>, now: Instant) -> Result<(), Violation> {
        match frame {
            Frame::Half(half) => {
                self.changed = true;
                self.peer = Some(PeerHalf {
                    cluster: self.half.peer.clone(),
                    enabled: half.enabled,
                    topics: half.topics.into_iter().map(str::to_owned).collect(),
                    nodes: u32::try_from(half.nodes).unwrap_or(u32::MAX),
                });
                Ok(())
            }
            Frame::Routes(routes) => self.handle_routes(conn, &routes),
            Frame::RoutesAck(ack) => {
                self.changed = true;
                self.sender.handle_answer(route_answer(ack), now)
            }
            Frame::Messages(messages) => self.handle_messages(conn, messages, now),
            Frame::MessagesAck(ack) => self.handle_messages_ack(conn, ack),
            Frame::Probe(probe) => {
                self.send(conn, &Frame::ProbeAck(probe));
                Ok(())
            }
            Frame::ProbeAck(probe) => {
                self.handle_probe_ack(conn, probe.id, now);
                Ok(())
            }
            Frame::Hello(_) | Frame::Refuse(_) | Frame::Bye(_) => Ok(()),
        }
    }

    fn handle_routes(&mut self, conn: ConnId, routes: &Routes<'_>) -> Result<(), Violation> {
        let Some(open) = self.connections.iter_mut().find(|c| c.id == conn).and_then(Connection::open_mut)
        else {
            return Ok(());
        };
        let batch = ReceivedBatch {
            number: routes.number,
            begin: routes.begin,
            end: routes.end,
            add: filters(&routes.add)?,
            delete: filters(&routes.delete)?,
        };
        let mut changes = Vec::new();
        let done = self.receiver.handle_batch(&open.node, batch, &mut changes);
        open.routes_ack_due = true;
        self.apply_routes(changes);
        self.changed = true;
        done
    }

    fn handle_messages(
        &mut self,
        conn: ConnId,
        messages: Messages<'_>,
        now: Instant,
    ) -> Result<(), Violation> {
        let Some(connection) = self.connections.iter_mut().find(|c| c.id == conn) else { return Ok(()) };
        let bytes_max = connection.frame_bytes_max;
        let Some(open) = connection.open_mut() else { return Ok(()) };
        let outputs = &mut self.outputs;
        let done = batch::read(&mut self.acceptor, &open.node, messages, bytes_max, now, |message| {
            outputs.push_back(Output::Deliver(message));
        });
        // An earlier frame may have brought what is still to be acknowledged.
        open.messages_ack_due |= done?;
        Ok(())
    }

    fn handle_messages_ack(&mut self, conn: ConnId, ack: MessagesAck) -> Result<(), Violation> {
        let Some(open) = self.connections.iter_mut().find(|c| c.id == conn).and_then(Connection::open_mut)
        else {
            return Ok(());
        };
        if ack.stream != 0 {
            return Err(Violation::MessagesAckAhead);
        }
        if open.resumed {
            return self.forwarder.handle_acknowledged(ack.position);
        }
        open.resumed = true;
        let done = self.forwarder.handle_connected(ack.position, open.message_bytes_max);
        if done.is_err() {
            // The peer and this side remember different lives of this actor: begin a new one.
            self.own.incarnation = self.own.incarnation.saturating_add(1);
        }
        done
    }

    fn handle_probe_ack(&mut self, conn: ConnId, id: u64, now: Instant) {
        let open = self.connections.iter_mut().find(|c| c.id == conn).and_then(Connection::open_mut);
        if let Some(open) = open
            && open.prober.handle_answer(id, now)
        {
            // The peer has read what was sent before the question.
            let before = open.owed.take();
            let owed = open.owes(&self.forwarder);
            open.owed =
                owed.map(|position| before.filter(|(then, _)| *then == position).unwrap_or((position, now)));
            self.changed = true;
            self.dialer.handle_success();
        }
    }

    /// The peer broke the protocol: says which rule, and ends the connection.
    fn handle_violation(&mut self, conn: ConnId, violation: Violation, now: Instant) {
        let text = violation.to_string();
        let Some(connection) = self.connections.iter().find(|c| c.id == conn) else { return };
        let dialled = connection.dialled;
        let judged = dialled || connection.open().is_some();
        self.say_bye(conn, Reason::ProtocolMismatch, &text, now);
        if judged {
            self.dialer.handle_hopeless(now);
            self.note_trouble(dialled, super::Trouble::refused(Reason::ProtocolMismatch, &text));
        }
    }
}

/// The filters of a list, each valid and allowed to cross.
fn filters(list: &FilterList<'_>) -> Result<Vec<Filter>, Violation> {
    let mut filters = Vec::with_capacity(list.len());
    let mut done = Ok(());
    list.for_each(|text| match Filter::parse(text) {
        Ok(filter) if !text.starts_with('$') => filters.push(filter),
        _ => done = Err(Violation::BadFilter),
    });
    done.map(|()| filters)
}

fn route_answer(ack: RoutesAck) -> RouteAnswer {
    RouteAnswer {
        number: ack.number,
        digest: Digest { count: ack.count, sum: ack.digest },
        need_bootstrap: ack.need_bootstrap,
    }
}

/// What is held, as a frame says it.
pub(super) fn routes_ack(answer: RouteAnswer) -> RoutesAck {
    RoutesAck {
        number: answer.number,
        count: answer.digest.count,
        digest: answer.digest.sum,
        need_bootstrap: answer.need_bootstrap,
    }
}

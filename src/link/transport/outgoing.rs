//! What waits to be written to one connection, bounded. Pure.
//!
//! Beyond [`CONGESTED`] the machine sends no more messages. Answers still go, because a peer that reads slowly must
//! have them; a peer that asks and does not read at all is given up once too many wait.

use std::rc::Rc;
use std::task::Waker;

use crate::mqtt::{Packet, Version};

use super::carrier::Carrier;

/// From here on a connection gets no more messages until less is left.
const CONGESTED: usize = 1024 * 1024;
/// So little that the socket may soon idle.
const RELIEVED: usize = 256 * 1024;
/// Answers that may wait beyond what waited when the connection became congested.
const ANSWERS_MAX: usize = 1024 * 1024;

/// The bytes on their way to a socket.
pub(super) struct Outgoing {
    /// Whose connection it is.
    pub(super) link: Rc<str>,
    carrier: Carrier,
    bytes: Vec<u8>,
    /// How many of `bytes` are written.
    written: usize,
    pub(super) waker: Option<Waker>,
    /// Why the connection ends after what was said.
    pub(super) closing: Option<&'static str>,
    /// While it is congested: what may wait at most.
    bound: Option<usize>,
}

impl Outgoing {
    pub(super) fn new(link: Rc<str>) -> Outgoing {
        Outgoing {
            link,
            carrier: Carrier::default(),
            bytes: Vec::new(),
            written: 0,
            waker: None,
            closing: None,
            bound: None,
        }
    }

    /// Appends a frame; true when the connection is congested from now on.
    pub(super) fn say(&mut self, frame: &[u8]) -> bool {
        if self.closing.is_some() {
            return false;
        }
        self.carrier.write(frame, &mut self.bytes);
        self.handle_growth()
    }

    /// Answers a PINGREQ.
    pub(super) fn pong(&mut self) {
        // Congestion shows with the next frame; what counts here is the bound.
        if self.closing.is_none() && self.waiting() < CONGESTED + ANSWERS_MAX {
            Packet::PingResp.encode(Version::V5, &mut self.bytes);
            self.wake();
        }
    }

    fn handle_growth(&mut self) -> bool {
        self.wake();
        let waiting = self.waiting();
        match self.bound {
            Some(bound) => {
                if waiting > bound {
                    self.closing = Some("the peer does not read what it asked for");
                }
                false
            }
            None => {
                self.bound = (waiting > CONGESTED).then_some(waiting + ANSWERS_MAX);
                self.bound.is_some()
            }
        }
    }

    /// Ends the connection after what was said.
    pub(super) fn close(&mut self) {
        self.closing.get_or_insert("closed");
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn waiting(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// What is to be written next.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// So many bytes were written; true when the connection is not congested any more.
    pub(super) fn handle_written(&mut self, len: usize) -> bool {
        self.written += len;
        // A connection that never idles must not keep what it wrote.
        if self.written == self.bytes.len() || self.written >= CONGESTED.max(self.waiting()) {
            self.bytes.drain(..self.written);
            self.written = 0;
            self.bytes.shrink_to(2 * CONGESTED);
        }
        self.waiting() <= RELIEVED && self.bound.take().is_some()
    }

    /// Takes what is left, for the last write.
    pub(super) fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.bytes.split_off(self.written);
        (self.bytes, self.written) = (Vec::new(), 0);
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_never_idles_does_not_keep_what_it_wrote() {
        let mut outgoing = Outgoing::new("l".into());
        let frame = vec![0; 64 * 1024];
        let mut congested = false;
        for _ in 0..1_000 {
            while !congested {
                congested = outgoing.say(&frame);
            }
            congested = !outgoing.handle_written(10_000.min(outgoing.rest().len()));
            assert!(!outgoing.rest().is_empty());
            assert!(outgoing.bytes.capacity() <= 8 * CONGESTED, "{}", outgoing.bytes.capacity());
        }
    }

    #[test]
    fn a_peer_that_asks_and_does_not_read_is_given_up() {
        let mut outgoing = Outgoing::new("l".into());
        let large = 16 * CONGESTED;
        assert!(outgoing.say(&vec![0; large]), "one message may be large");
        let mut answers = 0;
        while outgoing.closing.is_none() {
            assert!(!outgoing.say(&[9, 3, 1, 1, 1]), "it is congested already");
            outgoing.pong();
            answers += 1;
            assert!(answers < 1_000_000);
        }
        assert!(answers > 50_000, "a slow peer has its answers");
        let waiting = outgoing.rest().len();
        assert!(waiting < large + 2 * ANSWERS_MAX, "{waiting}");
        outgoing.say(b"nothing more");
        assert_eq!(outgoing.rest().len(), waiting);
    }

    #[test]
    fn a_peer_that_only_pings_is_not_answered_without_end() {
        let mut outgoing = Outgoing::new("l".into());
        (0..2_000_000).for_each(|_| outgoing.pong());
        assert!(outgoing.rest().len() <= CONGESTED + ANSWERS_MAX + 2);
    }
}

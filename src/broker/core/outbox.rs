//! What a connection has to send, in pieces: what waits is never moved.
//!
//! Where a crowd does not read, all its buffers grow by the same message. If a buffer were one piece, all of them would be moved
//! to a larger one in the same turn, megabytes each, and everybody else would wait for that.

use std::collections::VecDeque;
use std::mem;

/// How much memory a piece takes, and the largest that is kept for others; a packet is never parted.
const PIECE: usize = 64 * 1024;
/// When a piece is long enough: what is kept free is for the packet that exceeds it, so that few pieces grow.
pub const PIECE_FULL: usize = PIECE - 4 * 1024;

/// The bytes that wait, in order.
#[derive(Default)]
pub(super) struct Outbox {
    /// Complete pieces, which go first.
    full: Option<Box<Full>>,
    /// Where the next packet goes. [`Outbox::seal`] has to follow.
    pub(super) open: Vec<u8>,
    /// How many bytes of the first piece are gone already.
    sent: usize,
}

#[derive(Default)]
struct Full {
    pieces: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Outbox {
    /// Begins a new piece if the last is long enough.
    #[inline]
    pub(super) fn seal(&mut self) {
        if self.open.len() > PIECE_FULL {
            self.begin_piece();
        }
    }

    #[cold]
    fn begin_piece(&mut self) {
        let piece = mem::replace(&mut self.open, Vec::with_capacity(PIECE));
        let full = self.full.get_or_insert_default();
        full.bytes += piece.len();
        full.pieces.push_back(piece);
    }

    /// How many bytes fit in the piece that is open.
    #[inline]
    pub(super) fn room(&self) -> usize {
        PIECE.saturating_sub(self.open.len())
    }

    /// How many bytes wait.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.full.as_ref().map_or(0, |full| full.bytes) + self.open.len() - self.sent
    }

    /// The first that wait; empty only if none do.
    #[inline]
    pub(super) fn first(&self) -> &[u8] {
        let full = self.full.as_ref().and_then(|full| full.pieces.front());
        &full.unwrap_or(&self.open)[self.sent..]
    }

    /// The first `count` of [`Outbox::first`] are gone. Gives up a piece that others may use.
    #[inline]
    pub(super) fn remove(&mut self, count: usize) -> Option<Vec<u8>> {
        let is_some_left = count < self.first().len();
        if is_some_left {
            self.sent += count;
            return None;
        }
        self.sent = 0;
        let mut piece = match &mut self.full {
            None => mem::take(&mut self.open),
            Some(full) => {
                let piece = full.pieces.pop_front()?;
                full.bytes -= piece.len();
                piece
            }
        };
        if self.full.as_ref().is_some_and(|full| full.pieces.is_empty()) {
            self.full = None;
            if self.open.is_empty() {
                self.open = Vec::new();
            }
        }
        piece.clear();
        Some(piece).filter(|piece| (1..=PIECE).contains(&piece.capacity()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push(outbox: &mut Outbox, bytes: &[u8]) {
        outbox.open.extend_from_slice(bytes);
        outbox.seal();
    }

    #[test]
    fn what_waits_stays_where_it_is_whatever_comes_after_it() {
        let mut outbox = Outbox::default();
        let packet = [7; 1_000];
        while outbox.waiting() < PIECE {
            push(&mut outbox, &packet);
        }
        let (place, length) = (outbox.first().as_ptr(), outbox.first().len());
        while outbox.waiting() < 4 << 20 {
            let piece = outbox.open.as_ptr();
            push(&mut outbox, &packet);
            assert!(outbox.open.len() <= 1_000 || outbox.open.as_ptr() == piece, "the last piece was moved");
        }
        assert_eq!((outbox.first().as_ptr(), outbox.first().len()), (place, length));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(steps in prop::collection::vec((0usize..200_000, 0usize..200_000), 1..40)) {
            let (mut outbox, mut expected, mut out) = (Outbox::default(), Vec::new(), Vec::new());
            for (n, (comes, goes)) in steps.into_iter().enumerate() {
                let packet = vec![n as u8; comes];
                push(&mut outbox, &packet);
                expected.extend_from_slice(&packet);
                let goes = goes.min(outbox.first().len());
                out.extend_from_slice(&outbox.first()[..goes]);
                let piece = outbox.remove(goes);
                prop_assert!(piece.is_none_or(|piece| piece.is_empty() && piece.capacity() <= PIECE));
                prop_assert_eq!(outbox.waiting(), expected.len() - out.len());
                prop_assert_eq!(outbox.first().is_empty(), outbox.waiting() == 0);
            }
            while !outbox.first().is_empty() {
                let count = outbox.first().len();
                out.extend_from_slice(outbox.first());
                outbox.remove(count);
            }
            prop_assert!(out == expected);
            prop_assert!(outbox.full.is_none() && outbox.open.capacity() == 0);
        }
    }
}

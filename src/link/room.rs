//! How much all links of a node may hold together: messages for peers, and routes of peers.
//!
//! Each half bounds its own queue; a peer's outage must not end the node for all that. They may have a quarter of the
//! memory mark, and while memory is short no more than they held when it became so. Who gives way is not decided here.
//! Pure: bytes in, bytes out.

/// All queues may have this part of the mark, and all routes of peers as much.
const SHARE: usize = 4;
/// And, while memory is short, this part in any case: what only passes through must find room.
const LEAST: usize = 16;

/// The bound of all queues.
#[derive(Debug, Default)]
pub struct Room {
    /// What the queues held when memory became short.
    level: Option<usize>,
}

impl Room {
    /// How many bytes have to go, of so many that are held. A mark of 0 is none.
    pub fn excess(&mut self, held: usize, mark: usize, is_short: bool) -> usize {
        self.level = is_short.then(|| self.level.unwrap_or(held));
        let most = if mark == 0 { usize::MAX } else { mark / SHARE };
        let bound = self.level.map_or(most, |level| level.clamp(mark / LEAST, most));
        held.saturating_sub(bound)
    }
}

/// How much more the routes of peers may take, where those of all take so much. Which peer came first does not count: who finds no
/// room is told so by the end of its connection, and tries again.
pub fn of_routes(mark: usize, taken: usize) -> usize {
    if mark == 0 { usize::MAX } else { (mark / SHARE).saturating_sub(taken) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_have_a_quarter_of_the_mark() {
        let mut room = Room::default();
        assert_eq!(room.excess(250, 1_000, false), 0);
        assert_eq!(room.excess(260, 1_000, false), 10);
        assert_eq!(room.excess(usize::MAX, 0, false), 0, "no mark, no bound");
    }

    #[test]
    fn while_memory_is_short_queues_grow_no_further() {
        let mut room = Room::default();
        assert_eq!(room.excess(100, 1_600, true), 0, "what is there stays");
        assert_eq!(room.excess(110, 1_600, true), 10);
        assert_eq!(room.excess(90, 1_600, true), 0);
        assert_eq!(room.excess(110, 1_600, true), 10);
        assert_eq!(room.excess(110, 1_600, false), 0, "it is over");
        assert_eq!(room.excess(120, 1_600, true), 0);
    }

    #[test]
    fn what_passes_through_finds_room_though_nothing_was_held() {
        let mut room = Room::default();
        assert_eq!(room.excess(0, 1_600, true), 0);
        assert_eq!(room.excess(101, 1_600, true), 1);
    }
}

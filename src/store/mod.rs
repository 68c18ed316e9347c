//! What must survive a restart, behind one small interface.
//!
//! The broker's core never waits for a disk. It emits `Persist(token)` when something has to be safe before it may
//! be acknowledged, and acknowledges when it hears `Persisted(token)`. Who stands behind [`Store`] decides what safe
//! means. [`Memory`] is the twin that answers at once: the core's own state is then the only copy, and a restart
//! begins empty.
//!
//! Everything kept is laid out by [`Partition`], never by thread or core, so that a session can be moved to another
//! shard or another node without rewriting anything.
//!
//! This module knows nothing of MQTT packets, sockets or tasks.

/// How many partitions there are. Part of the layout of stored data: it never changes.
pub const PARTITIONS: usize = 256;

/// The home of a client id: one of [`PARTITIONS`], the same in every process and release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(u8);

impl Partition {
    /// The partition that a client id belongs to.
    pub fn of(client_id: &str) -> Partition {
        // FNV-1a, folded: fixed by its definition and never seeded, because stored data depends on it.
        let hash = client_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let folded = hash ^ (hash >> 32);
        let folded = folded ^ (folded >> 16);
        Partition((folded ^ (folded >> 8)) as u8)
    }

    /// Its number, below [`PARTITIONS`].
    pub fn number(self) -> u8 {
        self.0
    }
}

/// Names one request to persist; the answer carries it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// When a request to persist was fulfilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persisted {
    /// At once: acknowledge now.
    Now,
    /// Later: the store reports the token when it is safe.
    Later,
}

/// Where state goes that must outlive the process.
pub trait Store {
    /// Makes what the core did up to `token` safe, or starts to.
    fn persist(&mut self, token: Token) -> Persisted;
}

/// The twin without a disk: nothing outlives the process, and so nothing has to be waited for.
#[derive(Debug, Default)]
pub struct Memory;

impl Store for Memory {
    fn persist(&mut self, _token: Token) -> Persisted {
        Persisted::Now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_keeps_its_partition_forever() {
        // Literals on purpose: a change here would orphan stored sessions.
        let known = ["", "a", "sensor-1", "sensor-2", "ünï"].map(|id| Partition::of(id).number());
        assert_eq!(known, [225, 187, 29, 44, 192]);
    }

    #[test]
    fn client_ids_spread_over_all_partitions() {
        let mut seen = [0_u32; PARTITIONS];
        for n in 0..25_600 {
            seen[usize::from(Partition::of(&format!("client-{n}")).number())] += 1;
        }
        assert!(seen.iter().all(|&count| (40..220).contains(&count)), "{seen:?}");
    }
}

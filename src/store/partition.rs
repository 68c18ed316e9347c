//! How what is stored is laid out, and how batches of changes are named. Pure.

/// How many partitions there are. Part of the layout of stored data: it never changes.
pub const PARTITIONS: usize = 256;

/// The home of a client id: one of [`PARTITIONS`], the same in every process and release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub(super) u8);

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

/// Names a batch of changes; greater than those before. That it is safe means that all before it are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

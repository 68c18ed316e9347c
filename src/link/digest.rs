//! The order-independent digest of a set of routes.
//!
//! Both sides keep it while routes come and go and compare it at a sequence number. It finds mistakes and lost
//! state, not forgery: whoever speaks on a link is authenticated. Adding and removing a filter undo each other
//! exactly, in any order.

/// A set's digest: the sum, modulo 2^64, of one hash per filter; and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    /// How many filters.
    pub count: u64,
    /// The sum of their hashes.
    pub sum: u64,
}

impl Digest {
    /// Takes a filter in.
    pub fn add(&mut self, filter: &str) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(hash(filter));
    }

    /// Takes a filter out that was in.
    pub fn remove(&mut self, filter: &str) {
        self.count -= 1;
        self.sum = self.sum.wrapping_sub(hash(filter));
    }
}

/// FNV-1a over the bytes, then a finaliser that spreads neighbours over the whole range.
fn hash(filter: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in filter.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let (mut one, mut two) = (Digest::default(), Digest::default());
        ["a", "b", "c"].iter().for_each(|filter| one.add(filter));
        ["c", "a", "x", "b"].iter().for_each(|filter| two.add(filter));
        assert_ne!(one, two);
        two.remove("x");
        assert_eq!(one, two);
    }

    #[test]
    fn the_hash_is_the_specified_one() {
        assert_eq!(hash(""), 0xf52a_15e9_a9b5_e89b);
        assert_ne!(hash("a"), hash("b"));
    }
}

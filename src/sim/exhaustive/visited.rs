//! The set of worlds that were seen, as 128-bit hashes in one table of fixed size: what it may cost is known beforehand.
//!
//! Two worlds with one hash would be taken for one. Among 10^9 worlds the chance that any two share one is below 10^-20.

/// The set.
pub(super) struct Visited {
    slots: Vec<u128>,
    mask: usize,
    len: usize,
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insertion {
    New,
    Known,
    Full,
}

impl Visited {
    /// A set that takes `bytes` of memory at most, as they are used. Pages that are not touched cost nothing.
    pub fn within(bytes: usize) -> Self {
        let slots = (bytes / size_of::<u128>()).max(1024);
        let slots = 1 << slots.ilog2();
        Self { slots: vec![0; slots], mask: slots - 1, len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn insert(&mut self, hash: u128) -> Insertion {
        assert_ne!(hash, 0, "zero marks a free slot");
        #[allow(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
        let mut at = hash as usize & self.mask;
        while self.slots[at] != 0 {
            if self.slots[at] == hash {
                return Insertion::Known;
            }
            at = (at + 1) & self.mask;
        }
        // Beyond this, probing becomes slow.
        if self.len >= self.slots.len() / 16 * 15 {
            return Insertion::Full;
        }
        self.slots[at] = hash;
        self.len += 1;
        Insertion::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hash_is_new_once_and_a_full_set_says_so() {
        let mut visited = Visited::within(16 * 1024);
        // All of them want the same slot.
        let hashes = (1..=960_u128).map(|n| n << 64);
        assert!(hashes.clone().all(|hash| visited.insert(hash) == Insertion::New));
        assert!(hashes.clone().all(|hash| visited.insert(hash) == Insertion::Known));
        assert_eq!((visited.len(), visited.insert(5)), (960, Insertion::Full));
    }
}

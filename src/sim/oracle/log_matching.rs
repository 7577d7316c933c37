//! O2, Log Matching (thesis 3.5): entries with one index and term are one entry, in every log that ever was and in every
//! append ever sent. The chained hash stands for the entry's bytes and for everything before it.
//!
//! It cannot see entries that were in a log only between two observations.

use super::fast::FastMap;
use super::{Outcome, violated};
use wal::{ChainHash, EntryId, NodeId, Term};

pub(super) const NAME: &str = "log_matching";

/// Whether an entry was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sighting {
    First,
    Again,
}

/// Every entry there ever was.
#[derive(Debug, Default)]
pub(super) struct LogMatching {
    /// At index n - 1 the entry that was last seen new at index n: nearly always the only one.
    usual: Vec<Option<(Term, ChainHash)>>,
    /// The others, by index and term.
    others: FastMap<(u64, u64), ChainHash>,
    entries: u64,
}

impl LogMatching {
    /// `witness` has, or sends, `entry`.
    pub(super) fn see(&mut self, entry: EntryId, witness: NodeId) -> Outcome<Sighting> {
        let EntryId { index, term, hash } = entry;
        let Some(at) = index.0.checked_sub(1).and_then(|at| usize::try_from(at).ok()) else {
            return Ok(Sighting::Again); // The origin, before every log.
        };
        if self.usual.len() <= at {
            self.usual.resize(at + 1, None);
        }
        let known = match self.usual[at] {
            Some((usual, known)) if usual == term => Some(known),
            Some(_) => self.others.get(&(index.0, term.0)).copied(),
            None => None,
        };
        let Some(known) = known else {
            self.entries += 1;
            if let Some((former, hash)) = self.usual[at].replace((term, hash)) {
                self.others.insert((index.0, former.0), hash);
            }
            return Ok(Sighting::First);
        };
        violated!(
            known != hash,
            NAME,
            "entry {index} of term {term} is {hash} at node {witness} and {known} elsewhere"
        );
        Ok(Sighting::Again)
    }

    /// Different entries seen.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::entry;
    use super::*;

    #[test]
    fn entries_of_different_terms_may_share_an_index() {
        let mut judge = LogMatching::default();
        for (index, term) in [(1, 1), (2, 1), (2, 3), (2, 1), (4, 3), (3, 3)] {
            judge.see(entry(index, term), NodeId(1)).expect("one entry each");
        }
        assert_eq!(judge.see(entry(2, 1), NodeId(2)), Ok(Sighting::Again));
        assert_eq!(judge.entries(), 5);
    }

    #[test]
    fn one_index_and_term_with_two_hashes_is_two_entries() {
        let mut judge = LogMatching::default();
        judge.see(entry(2, 1), NodeId(1)).expect("the first");
        judge.see(entry(2, 3), NodeId(2)).expect("another term");
        let forged = EntryId { hash: ChainHash(99), ..entry(2, 1) };
        assert_eq!(judge.see(forged, NodeId(3)).expect_err("not the same bytes").oracle, NAME);
    }
}

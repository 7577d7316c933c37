//! The hard state's file: two slots, written in turn, so that a tear of the newer leaves the older whole.
//!
//! A record also carries marks: how much of the log was known flushed, so that a missing tail is noticed, and
//! whether the directory was closed cleanly. Which of the slots counts is decided by [`decide`], a table.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::frame::{u32_at, u64_at, u128_at};
use crate::id::{EntryId, HardState, LogIndex, NodeId, Term};
use crate::sector::{self, BLOCK, BLOCK_U64, Record, Unreadable};
use crate::segment::{Identity, identity_from, identity_into};
use std::time::Duration;

/// The name of the file.
pub const STATE_NAME: &str = "state";
/// Its length: two slots of one block.
pub const STATE_BYTES: usize = 2 * BLOCK;

const MAGIC: [u8; 8] = *b"d-state\0";
const SEQUENCE_AT: usize = 40;
const FIELDS_END: usize = 168;

const _: () = assert!(FIELDS_END <= sector::SECTOR - 16, "the hash covers every field and overlaps none");

/// What a state record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateRecord {
    /// Whose log it is.
    pub identity: Identity,
    /// Dense; also the slot.
    pub sequence: u64,
    /// Hash of the record before.
    pub parent: u128,
    /// Term, vote and promise.
    pub hard_state: HardState,
    /// Newest envelope known flushed.
    pub log_mark: u64,
    /// Newest commit index known, at most the last entry that `log_mark` covers.
    pub commit: LogIndex,
    /// How often the directory was opened.
    pub openings: u64,
    /// Newest segment known durable; zero before the first.
    pub newest_segment: u64,
    /// Oldest segment that belongs to the log.
    pub first_segment: u64,
    /// Closed cleanly: nothing was written after this record.
    pub clean: bool,
    /// What may be missing since a repair.
    pub held: Option<Held>,
    /// The greatest last entry that the log had up to `log_mark`.
    pub peak: Held,
}

/// The end of a log in the order in which Raft compares logs (thesis 3.6.1): term first, then index.
///
/// Of a log that was damaged and repaired it is an upper bound of everything it may ever have acknowledged. A candidate
/// whose last entry is not below it has everything that this replica can have helped to commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Term of the last entry.
    pub term: Term,
    /// Its index; [`Held::ANY_INDEX`] if the damage hides how far the log went in this term.
    pub index: LogIndex,
}

impl Held {
    /// Stands for every index of a term: only a log with an entry of a later term is known to be up to date.
    pub const ANY_INDEX: LogIndex = LogIndex(u64::MAX);
}

impl From<EntryId> for Held {
    fn from(last: EntryId) -> Self {
        Self { term: last.term, index: last.index }
    }
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self { term, index: Self::ANY_INDEX } => write!(f, "any entry up to term {term}"),
            Self { term, index } => write!(f, "entry {index} of term {term}"),
        }
    }
}

impl StateRecord {
    /// The record that a new directory starts from.
    pub(crate) fn initial(identity: Identity) -> Self {
        Self {
            identity,
            sequence: 0,
            parent: 0,
            hard_state: HardState::default(),
            log_mark: 0,
            commit: LogIndex::ZERO,
            openings: 0,
            newest_segment: 0,
            first_segment: 1,
            clean: true,
            held: None,
            peak: Held::default(),
        }
    }

    /// Where in the file it stands.
    #[must_use]
    pub fn offset(&self) -> u64 {
        (self.sequence % 2) * BLOCK_U64
    }

    /// Whether a writer may have made it: asserted of what is written, asked of what is read.
    fn is_possible(&self) -> bool {
        self.hard_state.vote != Some(NodeId::ZERO)
            && nanos(self.hard_state.promise).is_some()
            && self.sequence < u64::MAX
            && self.openings < u64::MAX
            // Segments count from 1.
            && self.first_segment > 0
            && (self.newest_segment == 0 || self.newest_segment >= self.first_segment)
            // A commit mark speaks of what is flushed.
            && (self.log_mark > 0 || self.commit == LogIndex::ZERO)
            // The founders' entry is of term zero; "any index" is of a term that somebody led.
            && self.held.is_none_or(|held| held.term > Term::ZERO || held.index != Held::ANY_INDEX)
    }

    fn record(&self) -> Record {
        assert!(self.is_possible(), "{self:?}");
        let mut record = sector::blank(MAGIC);
        identity_into(&mut record, &self.identity);
        for (at, value) in [
            (SEQUENCE_AT, self.sequence),
            (64, self.hard_state.term.0),
            (72, self.hard_state.vote.map_or(0, |node| node.0)),
            (80, self.log_mark),
            (88, self.commit.0),
            (96, self.openings),
            (104, self.newest_segment),
            (112, self.first_segment),
            (128, self.held.map_or(0, |held| held.term.0)),
            (136, self.held.map_or(0, |held| held.index.0)),
            (144, self.peak.term.0),
            (152, self.peak.index.0),
            (160, nanos(self.hard_state.promise).expect("asserted above")),
        ] {
            record[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        record[48..64].copy_from_slice(&self.parent.to_le_bytes());
        record[120..124].copy_from_slice(&u32::from(self.clean).to_le_bytes());
        record[124..128].copy_from_slice(&u32::from(self.held.is_some()).to_le_bytes());
        sector::seal(&mut record);
        record
    }

    /// The link that the next record carries.
    pub(crate) fn hash(&self) -> u128 {
        sector::hash_of(&self.record())
    }

    /// Writes the slot's block.
    pub fn fill(&self, block: &mut [u8]) {
        sector::fill(&self.record(), block);
    }

    /// The record that follows, equal but for its place; the caller changes what changed.
    pub(crate) fn successor(&self) -> Self {
        let sequence = self.sequence.checked_add(1).expect("a 64-bit counter does not end");
        Self { sequence, parent: self.hash(), clean: false, ..*self }
    }

    fn parse(slot: &[u8]) -> Result<Self, Unreadable> {
        let record = sector::newest(slot, MAGIC, SEQUENCE_AT)?;
        let vote = u64_at(&record, 72);
        let record = Self {
            identity: identity_from(&record),
            sequence: u64_at(&record, SEQUENCE_AT),
            parent: u128_at(&record, 48),
            hard_state: HardState {
                term: Term(u64_at(&record, 64)),
                vote: (vote != 0).then_some(NodeId(vote)),
                promise: Duration::from_nanos(u64_at(&record, 160)),
            },
            log_mark: u64_at(&record, 80),
            commit: LogIndex(u64_at(&record, 88)),
            openings: u64_at(&record, 96),
            newest_segment: u64_at(&record, 104),
            first_segment: u64_at(&record, 112),
            clean: u32_at(&record, 120) == 1,
            held: (u32_at(&record, 124) != 0).then(|| held_at(&record, 128)),
            peak: held_at(&record, 144),
        };
        if record.is_possible() { Ok(record) } else { Err(Unreadable::Damaged) }
    }
}

fn nanos(span: Duration) -> Option<u64> {
    u64::try_from(span.as_nanos()).ok()
}

fn held_at(record: &Record, at: usize) -> Held {
    Held { term: Term(u64_at(record, at)), index: LogIndex(u64_at(record, at + 8)) }
}

/// Which slot counts, or why none does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StateVerdict {
    /// The record in this slot is the newest.
    Newest(usize),
    /// This slot has no whole copy. A tear cannot do that, and what is lost may be a vote.
    Lost(usize),
    /// Neither slot has one.
    BothLost,
    /// Both are whole and neither is the other's successor.
    Fork,
}

/// What is known of the two slots. `follows` is about sequence, place and parent hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateFacts {
    pub whole: [bool; 2],
    /// The record in slot i is the direct successor of the other one, and stands where its sequence belongs.
    pub follows: [bool; 2],
}

/// The table. The rows exclude each other, and the test below walks all combinations.
pub(crate) fn decide(facts: StateFacts) -> StateVerdict {
    match (facts.whole, facts.follows) {
        ([true, true], [true, false]) => StateVerdict::Newest(0),
        ([true, true], [false, true]) => StateVerdict::Newest(1),
        ([true, true], [false, false] | [true, true]) => StateVerdict::Fork,
        ([false, true], _) => StateVerdict::Lost(0),
        ([true, false], _) => StateVerdict::Lost(1),
        ([false, false], _) => StateVerdict::BothLost,
    }
}

/// Why the state cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateProblem {
    /// Another program wrote it.
    Version(u32),
    /// It belongs to another log.
    Foreign(Identity),
    /// A slot is lost, and with it perhaps a vote.
    Damaged {
        /// Where in the file.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// Whose a state file is, from any whole copy in it: for a reader that was not told.
#[must_use]
pub fn owner(file: &[u8]) -> Option<Identity> {
    file.chunks_exact(BLOCK).find_map(|slot| StateRecord::parse(slot).ok()).map(|record| record.identity)
}

/// The newest record in a file's bytes.
///
/// # Errors
/// [`StateProblem`].
pub fn read(file: &[u8], identity: &Identity) -> Result<StateRecord, StateProblem> {
    if file.len() != STATE_BYTES {
        return Err(StateProblem::Damaged {
            offset: file.len() as u64,
            what: "the file is not two blocks long",
        });
    }
    let slots = [StateRecord::parse(&file[..BLOCK]), StateRecord::parse(&file[BLOCK..])];
    for slot in &slots {
        match slot {
            Err(Unreadable::Version(version)) => return Err(StateProblem::Version(*version)),
            Ok(record) if record.identity != *identity => {
                return Err(StateProblem::Foreign(record.identity));
            }
            Ok(_) | Err(Unreadable::Damaged) => {}
        }
    }
    let follows = |slot: usize| match (&slots[slot], &slots[1 - slot]) {
        (Ok(newer), Ok(older)) => {
            older.sequence.checked_add(1) == Some(newer.sequence)
                && newer.sequence % 2 == slot as u64
                && newer.parent == older.hash()
                && newer.hard_state.term >= older.hard_state.term
        }
        _ => false,
    };
    let facts = StateFacts { whole: [slots[0].is_ok(), slots[1].is_ok()], follows: [follows(0), follows(1)] };
    let damaged = |slot: u64, what| Err(StateProblem::Damaged { offset: slot * BLOCK_U64, what });
    match decide(facts) {
        StateVerdict::Newest(slot) => {
            let record = slots[slot].expect("the table names a whole slot");
            assert_eq!(record.identity, *identity, "another's record was refused above");
            assert_eq!(record.offset(), slot as u64 * BLOCK_U64, "a record counts only where it belongs");
            Ok(record)
        }
        StateVerdict::Lost(slot) => {
            damaged(slot as u64, "a slot of the hard state is lost, and with it perhaps a vote")
        }
        StateVerdict::BothLost => damaged(0, "both slots of the hard state are lost"),
        StateVerdict::Fork => damaged(0, "the slots of the hard state do not follow each other"),
    }
}

/// The bytes of a new file: a beginning and its successor, so that both slots are whole from the start.
#[must_use]
pub fn initial_file(identity: Identity) -> (StateRecord, Vec<u8>) {
    let mut file = vec![0; STATE_BYTES];
    let first = StateRecord::initial(identity);
    first.fill(&mut file[..BLOCK]);
    let second = StateRecord { clean: true, ..first.successor() };
    assert_eq!((first.offset(), second.offset()), (0, BLOCK_U64), "one record in each slot");
    second.fill(&mut file[BLOCK..]);
    (second, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClusterId, GroupId};

    fn identity() -> Identity {
        Identity { cluster: ClusterId(5), node: NodeId(2), group: GroupId::FIRST }
    }

    #[test]
    fn every_combination_of_facts_has_one_verdict() {
        let mut rows = std::collections::BTreeMap::new();
        for bits in 0_u8..16 {
            let bit = |at: u8| bits & (1 << at) != 0;
            let facts = StateFacts { whole: [bit(0), bit(1)], follows: [bit(2), bit(3)] };
            let verdict = decide(facts);
            // Served only if both are whole and exactly one follows the other.
            let good = facts.whole == [true, true] && facts.follows[0] != facts.follows[1];
            assert_eq!(matches!(verdict, StateVerdict::Newest(_)), good, "{facts:?}");
            *rows.entry(format!("{verdict:?}")).or_insert(0) += 1;
        }
        assert_eq!(rows.values().sum::<i32>(), 16);
        assert_eq!(rows.len(), 6, "every row is reached: {rows:?}");
    }

    #[test]
    fn slots_alternate_and_a_torn_write_leaves_the_older_or_the_newer() {
        let (mut record, mut file) = initial_file(identity());
        assert_eq!(read(&file, &identity()), Ok(record));
        for term in 1..20 {
            let mut next = record.successor();
            let promise = Duration::from_nanos(u64::MAX - term);
            next.hard_state = HardState { term: Term(term), vote: Some(NodeId(3)), promise };
            assert_ne!(next.offset(), record.offset());
            let mut block = vec![0; BLOCK];
            next.fill(&mut block);
            let at = usize::try_from(next.offset()).expect("small");
            for landed in 0..256_u32 {
                let mut torn = file.clone();
                for sector in (0..8).filter(|sector| landed & (1 << sector) != 0) {
                    let range = sector * sector::SECTOR..(sector + 1) * sector::SECTOR;
                    torn[at..][range.clone()].copy_from_slice(&block[range]);
                }
                assert_eq!(read(&torn, &identity()), Ok(if landed == 0 { record } else { next }));
            }
            file[at..][..BLOCK].copy_from_slice(&block);
            record = next;
        }
    }

    #[test]
    fn a_lost_slot_a_stale_slot_and_a_wrong_length_are_refused() {
        let (first, file) = initial_file(identity());
        let mut stale = file.clone();
        for _ in 0..2 {
            // Two records later, one slot still has what it had before them: a write the disk lied about.
            let next = first.successor().successor();
            let at = usize::try_from(next.offset()).expect("small");
            next.fill(&mut stale[at..][..BLOCK]);
        }
        for slot in 0..2 {
            let mut lost = file.clone();
            lost[slot * BLOCK..][..BLOCK].fill(0);
            assert!(matches!(read(&lost, &identity()), Err(StateProblem::Damaged { .. })));
        }
        assert!(matches!(read(&stale, &identity()), Err(StateProblem::Damaged { .. })));
        for length in 0..STATE_BYTES {
            assert!(read(&file[..length], &identity()).is_err(), "{length}");
        }
        let mut swapped = file[BLOCK..].to_vec();
        swapped.extend_from_slice(&file[..BLOCK]);
        assert!(read(&swapped, &identity()).is_err());
    }
}

//! Opening as a value: what of a directory counts, and what is changed before the log is used, in order.
//!
//! [`open`](crate::open) carries it out on files and a simulator in memory, so both run the same decisions. Each
//! [`Change`] is durable before the next is asked for; a crash between any two of them, or in the middle of one,
//! leaves something that the next opening treats alike.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::damage::{Damage, Damaged};
use crate::id::{HardState, Term};
use crate::journal::{Next, Tail};
use crate::scan::{Cut, Refused, Scanned, SegmentFile, scan};
use crate::segment::Identity;
use crate::segment::{Predecessor, SegmentHeader};
use crate::state::{self, Held, STATE_NAME, StateProblem, StateRecord};
use crate::walk::Blocks;
use std::collections::VecDeque;

/// What an opening depends on beside the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Size of new segments: a multiple of [`BLOCK`](crate::BLOCK).
    pub segment_bytes: u64,
    /// What to do about damage.
    pub damage: Damage,
}

/// Something to make durable before the next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Write this record's block ([`StateRecord::fill`]) at its offset of the state file, and flush it.
    State(StateRecord),
    /// Remove a segment that lies before the first one of the log: dropped, and its file was still there.
    Remove {
        /// The segment's number.
        segment: u64,
    },
    /// Give a segment another name, under which it is kept for people and never read, and flush the directory.
    SetAside {
        /// The segment's number.
        segment: u64,
    },
    /// Keep a copy of this segment for people, if that is cheap. Nothing depends on it.
    Copy {
        /// The segment's number.
        segment: u64,
    },
    /// Give a segment this length; overwrite a range of it with zeros, and flush it.
    Zero {
        /// The segment's number.
        segment: u64,
        /// Where the zeros begin; a multiple of the block.
        from: u64,
        /// Where they end.
        until: u64,
        /// The length of the whole file; a crashed write never changed it.
        length: u64,
    },
    /// Make a segment as for [`Step::Rotate`](crate::pure::Step::Rotate), then [`Opening::handle_made`].
    Make(Next),
}

/// A directory that passed, and what is left to do.
#[derive(Debug)]
pub struct Opening {
    scanned: Scanned,
    tail: Tail,
    changes: VecDeque<Change>,
    was_clean: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Changes of the directory's files.
    Files,
    /// A segment was asked for.
    Making,
    /// The record that says "open" was handed out.
    Opened,
    Done,
}

/// The newest state record in the bytes of the state file.
///
/// # Errors
/// [`Refused`]; a lost slot may have held a vote, so it is refused under every rule.
pub fn read_state(file: &[u8], identity: &Identity) -> Result<StateRecord, Refused> {
    let name = STATE_NAME.to_owned();
    state::read(file, identity).map_err(|problem| match problem {
        StateProblem::Version(found) => Refused::Version { file: name, found },
        StateProblem::Foreign(found) => Refused::Foreign { file: name, found },
        StateProblem::Damaged { offset, what } => Refused::Corrupt { file: name, offset, what: what.into() },
    })
}

impl Opening {
    /// Judges the segments (`files`, ascending by number) under the state record that counts.
    ///
    /// # Errors
    /// [`Refused`]; nothing is to be changed then.
    pub fn decide<B: Blocks>(
        state: StateRecord,
        files: &[SegmentFile<B>],
        rules: Rules,
    ) -> Result<Self, Refused> {
        let (dropped, files) =
            files.split_at(files.partition_point(|file| file.number < state.first_segment));
        assert!(files.is_sorted_by_key(|file| file.number), "files ascend by number");
        let scanned = scan(files, &state, rules.damage)?;
        let mut tail = Tail {
            segments: scanned.segments.clone(),
            offset: scanned.offset,
            sequence: scanned.sequence,
            last: scanned.last,
            peak: scanned.peak,
            commit: scanned.commit,
            state,
            positions: scanned.positions.clone(),
            segment_bytes: rules.segment_bytes,
        };
        let mut changes: VecDeque<_> =
            dropped.iter().map(|file| Change::Remove { segment: file.number }).collect();
        if let Some(Cut { at, until, .. }) = scanned.cut {
            let length = scanned.segments.last().expect("a cut is in a segment").bytes;
            changes.push_back(Change::Zero { segment: at.segment, from: at.offset, until, length });
        }
        if let Some(damaged) = &scanned.damaged {
            assert!(scanned.cut.is_none(), "a log is cut or repaired");
            tail.state = suspect_record(&tail, damaged);
            repair(&tail, damaged, &mut changes);
        }
        if scanned.segments.is_empty() {
            let predecessor = Predecessor::of_new_log(&state.identity);
            changes.push_back(Change::Make(Next { number: 1, bytes: rules.segment_bytes, predecessor }));
        }
        Ok(Self { scanned, tail, changes, was_clean: state.clean, stage: Stage::Files })
    }

    /// The next change; the one before it is durable. `None`: the log may be used.
    ///
    /// # Panics
    /// If the segment that was asked for has not been made.
    pub fn poll_change(&mut self) -> Option<Change> {
        assert_ne!(self.stage, Stage::Making, "one change after the other");
        if let Some(change) = self.changes.pop_front() {
            if let Change::Make(_) = change {
                self.stage = Stage::Making;
            }
            return Some(change);
        }
        if self.stage == Stage::Files {
            self.stage = Stage::Opened;
            self.tail.state = opened_record(&self.tail);
            return Some(Change::State(self.tail.state));
        }
        self.stage = Stage::Done;
        None
    }

    /// The segment asked for is on disk under its name.
    ///
    /// # Panics
    /// If it is another segment.
    pub fn handle_made(&mut self, header: SegmentHeader) {
        assert_eq!(self.stage, Stage::Making, "a segment was asked for");
        assert_eq!(header.identity, self.tail.state.identity, "a segment belongs to its log");
        assert_eq!(header.predecessor.last, self.tail.last, "it begins where the log stands");
        self.tail.segments.push(header);
        self.stage = Stage::Files;
    }

    /// Whose log it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.tail.state.identity
    }

    /// Whether the directory had been closed cleanly.
    #[must_use]
    pub fn was_clean(&self) -> bool {
        self.was_clean
    }

    /// The torn write that the changes cut, if any.
    #[must_use]
    pub fn cut(&self) -> Option<Cut> {
        self.scanned.cut
    }

    #[cfg(test)]
    pub(crate) fn tail(&self) -> &Tail {
        &self.tail
    }

    /// What may be missing of this log, from this repair or an earlier one.
    #[must_use]
    pub fn held(&self) -> Option<Held> {
        self.tail.state.held
    }

    /// The damage that the changes repair, if any.
    #[must_use]
    pub fn damaged(&self) -> Option<&Damaged> {
        self.scanned.damaged.as_ref()
    }

    pub(crate) fn scanned(&self) -> &Scanned {
        &self.scanned
    }

    /// Where the log stands.
    ///
    /// # Panics
    /// If changes are left to do.
    #[must_use]
    pub fn finish(self) -> Tail {
        assert_eq!(self.stage, Stage::Done, "every change is carried out before the log is used");
        assert!(!self.tail.state.clean, "an open directory is not clean");
        self.tail
    }
}

/// What the state file says before anything is repaired: how much of the log counts, and what may be missing. From
/// then on nothing depends on the damaged bytes any more, so they may go.
///
/// Marks never fall but here.
fn suspect_record(tail: &Tail, damaged: &Damaged) -> StateRecord {
    let old = tail.state;
    let record = StateRecord {
        log_mark: tail.sequence,
        commit: tail.commit,
        newest_segment: tail.segments.last().map_or(0, |segment| segment.number),
        held: (!crate::mutant!("held_forgotten")).then_some(damaged.held),
        peak: tail.peak,
        ..old.successor()
    };
    assert_eq!(record.hard_state, old.hard_state, "a repair touches no vote");
    assert!(record.commit <= tail.last.index, "only what is kept is called committed");
    assert!(old.held.is_none_or(|before| before <= damaged.held), "doubt only grows");
    record
}

/// The changes of a repair after its record, in an order in which a crash between any two leaves the same prefix:
/// segments go from the last one down, so that no gap appears, and the rest of the last one kept goes at the end.
fn repair(tail: &Tail, damaged: &Damaged, changes: &mut VecDeque<Change>) {
    assert!(damaged.aside.is_sorted(), "segments ascend");
    changes.push_back(Change::State(tail.state));
    changes.extend(damaged.aside.iter().rev().map(|&segment| Change::SetAside { segment }));
    if let (Some(kept), true) = (tail.segments.last(), damaged.remains) {
        assert!(damaged.aside.iter().all(|&aside| aside > kept.number), "a prefix is kept");
        let (segment, length) = (kept.number, kept.bytes);
        changes.push_back(Change::Copy { segment });
        changes.push_back(Change::Zero { segment, from: tail.offset, until: length, length });
    }
}

/// What the state file says from now on: this log, and open.
fn opened_record(tail: &Tail) -> StateRecord {
    let old = tail.state;
    // The log may know a newer term than the state (its write came first): never lower than either.
    let lowers = crate::mutant!("recovery_lowers_term") && tail.last.term > Term::ZERO;
    let hard_state = if tail.last.term > old.hard_state.term || lowers {
        HardState { term: tail.last.term, vote: None, ..old.hard_state }
    } else {
        old.hard_state
    };
    let record = StateRecord {
        hard_state,
        log_mark: tail.sequence,
        commit: tail.commit,
        openings: old.openings + 1,
        newest_segment: tail.segments.last().map_or(0, |segment| segment.number),
        peak: tail.peak,
        ..old.successor()
    };
    assert_eq!(record.held, old.held, "an opening alone does not make whole");
    assert!(
        record.log_mark >= old.log_mark && record.commit >= old.commit,
        "an open loses nothing that was marked"
    );
    assert!(lowers || record.hard_state.term >= old.hard_state.term, "terms never fall (thesis 3.3)");
    assert!(!record.clean, "an open directory is not clean");
    record
}

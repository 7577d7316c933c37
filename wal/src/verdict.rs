//! Recovery as a table: what the end of a segment means.
//!
//! The walk stops at the first place where the next whole envelope (sequence n) does not stand. Everything
//! known about that place is in [`Facts`]; [`decide`] names the one row of the table that matches. Only
//! [`Verdict::Torn`] ever leads to a cut, and only without any evidence that n was flushed: an
//! acknowledgement needs the flush, so nothing acknowledged is cut. What this table cannot see is written in
//! `FORMAT.md`, "Told apart, and not".

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// What stands from the stopping place to the end of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remainder {
    /// Nothing: the segment is used to its last block.
    Full,
    /// Zeros, as the segment was made.
    Blank,
    /// Something that is not zero.
    Remains,
}

/// Whole envelope headers of this segment's nonce, with sequence n or later, found after the stopping place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Later {
    /// None.
    Nothing,
    /// Some, and all say that n was not yet known flushed: they were in flight together with it.
    InFlightTogether,
    /// One that says n was flushed before it was written, or n itself in the wrong place.
    Flushed,
}

/// The following segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Successor {
    /// There is none: this is the last segment.
    None,
    /// Its header continues exactly here.
    ContinuesHere,
    /// Its header says that the log went on past this place, or ended elsewhere.
    Disagrees,
}

/// Whether a mark outside this segment's remainder (state record) says that n was flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Silent,
    Flushed,
}

/// Everything the verdict depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub remainder: Remainder,
    pub later: Later,
    pub successor: Successor,
    pub mark: Mark,
}

/// The rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// The log ends here and goes on here.
    End,
    /// The last write did not complete: cut it.
    Torn,
    /// The segment ended here; the next one continues.
    Sealed,
    /// A flushed envelope is damaged: a later one was written after its flush.
    DamagedInside,
    /// A flushed envelope is damaged or gone: the state record knows that it was flushed.
    LostTail,
    /// The next segment continues another log than this one.
    MissingBeforeSuccessor,
    /// Facts that no sequence of writes, crashes and single faults produces.
    Contradiction,
}

/// One row for every combination of facts.
pub(crate) fn decide(facts: Facts) -> Verdict {
    use Remainder::{Blank, Full, Remains};
    match (facts.successor, facts.remainder, facts.later, facts.mark) {
        (Successor::None, Blank | Full, Later::Nothing, Mark::Silent) => Verdict::End,
        (Successor::None, Remains, Later::Nothing | Later::InFlightTogether, Mark::Silent) => Verdict::Torn,
        (Successor::None, Remains, Later::Flushed, _) => Verdict::DamagedInside,
        (Successor::None, Blank | Full, Later::Nothing, Mark::Flushed)
        | (Successor::None, Remains, Later::Nothing | Later::InFlightTogether, Mark::Flushed) => {
            Verdict::LostTail
        }
        // The mark may speak of envelopes in the following segments: it says nothing about this place.
        (Successor::ContinuesHere, _, Later::Nothing, _) => Verdict::Sealed,
        (Successor::ContinuesHere, Remains, Later::InFlightTogether | Later::Flushed, _) => {
            Verdict::Contradiction
        }
        (Successor::Disagrees, Remains, Later::Flushed, _) => Verdict::DamagedInside,
        (Successor::Disagrees, Remains, Later::Nothing | Later::InFlightTogether, _)
        | (Successor::Disagrees, Blank | Full, Later::Nothing, _) => Verdict::MissingBeforeSuccessor,
        // A later envelope is not zero, so it cannot stand where all is.
        (_, Blank | Full, Later::InFlightTogether | Later::Flushed, _) => Verdict::Contradiction,
    }
}

impl Verdict {
    /// What an operator reads when it is corruption.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::End => "the end of the log",
            Self::Torn => "a write that did not complete",
            Self::Sealed => "the end of a full segment",
            Self::DamagedInside => "it was flushed, and envelopes written after it follow",
            Self::LostTail => "it was flushed, as the state file knows, and it is the last one known",
            Self::MissingBeforeSuccessor => "the next segment does not continue here",
            Self::Contradiction => "what follows it cannot have been written after it",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn combinations() -> impl Iterator<Item = Facts> {
        let remainders = [Remainder::Full, Remainder::Blank, Remainder::Remains];
        let laters = [Later::Nothing, Later::InFlightTogether, Later::Flushed];
        let successors = [Successor::None, Successor::ContinuesHere, Successor::Disagrees];
        let marks = [Mark::Silent, Mark::Flushed];
        remainders.into_iter().flat_map(move |remainder| {
            laters.into_iter().flat_map(move |later| {
                successors.into_iter().flat_map(move |successor| {
                    marks.into_iter().map(move |mark| Facts { remainder, later, successor, mark })
                })
            })
        })
    }

    /// The rows again, each as its own condition: the table is right if each combination meets exactly one,
    /// the same.
    fn rows(f: Facts) -> Vec<Verdict> {
        let last = f.successor == Successor::None;
        let remains = f.remainder == Remainder::Remains;
        let alone = f.later == Later::Nothing;
        let possible = remains || alone;
        let continues = f.successor == Successor::ContinuesHere;
        let disagrees = f.successor == Successor::Disagrees;
        let inside = f.later == Later::Flushed;
        let conditions = [
            (Verdict::End, last && !remains && alone && f.mark == Mark::Silent),
            (Verdict::Torn, last && remains && !inside && f.mark == Mark::Silent),
            (Verdict::Sealed, continues && alone),
            (Verdict::DamagedInside, !continues && remains && inside),
            (Verdict::LostTail, last && possible && !inside && f.mark == Mark::Flushed),
            (Verdict::MissingBeforeSuccessor, disagrees && possible && !inside),
            (Verdict::Contradiction, !possible || (continues && !alone)),
        ];
        conditions.into_iter().filter_map(|(verdict, met)| met.then_some(verdict)).collect()
    }

    #[test]
    fn every_combination_of_facts_matches_exactly_one_row() {
        let mut reached = BTreeMap::new();
        for facts in combinations() {
            assert_eq!(rows(facts), [decide(facts)], "{facts:?}");
            *reached.entry(decide(facts)).or_insert(0) += 1;
        }
        assert_eq!(reached.values().sum::<i32>(), 54);
        assert_eq!(reached.len(), 7, "every row is reached: {reached:?}");
    }

    #[test]
    fn nothing_with_evidence_of_its_flush_is_cut_or_taken_for_the_end() {
        for facts in combinations() {
            let evidence = facts.later == Later::Flushed
                || facts.mark == Mark::Flushed
                || facts.successor != Successor::None;
            if evidence {
                assert!(!matches!(decide(facts), Verdict::Torn | Verdict::End), "{facts:?}");
            }
        }
    }
}

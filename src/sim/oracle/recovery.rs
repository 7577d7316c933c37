//! O12, recovery finds the truth (FAULTS 1, 42 pitfalls' lower third; Alagappan et al., FAST'18): an undamaged disk gives
//! back everything that was flushed and is never refused; a damaged one gives back a true prefix that reaches the
//! damage (perhaps with what had been superseded since), and says that something is missing or refuses; the hard state is never older than what was flushed.
//!
//! Beyond what was flushed there may be more: a write that was cut off by the crash, in part. Such a write may also have
//! superseded flushed entries; then the entry after the common prefix is of a later term.
//!
//! And what a damaged replica held binds its vote: until it is whole again it elects nobody whose log may lack it.
//!
//! It cannot see damage that the world did not tell of, and takes `damaged_from` for the first entry that may be gone.

use super::seat::kept;
use super::{Outcome, violated};
use crate::raft::message::Candidacy;
use crate::sim::observation::{Truth, Verdict};
use wal::{EntryId, NodeId};

pub(super) const NAME: &str = "recovery";

/// What became of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovered {
    /// All that was flushed is there.
    Everything,
    /// Some of it is gone, and the node knows.
    Repairing,
    /// The log refused to open, with reason.
    Refused,
}

pub(super) fn judge(id: NodeId, verdict: &Verdict, disk: &Truth) -> Outcome<Recovered> {
    let Verdict::Opened { log, hard_state, torn, repairing } = verdict else {
        violated!(disk.damaged_from.is_none(), NAME, "node {id} refuses an undamaged disk: {verdict:?}");
        return Ok(Recovered::Refused);
    };
    let (found, flushed) = (*hard_state, disk.hard_state);
    let voted_otherwise = found.term == flushed.term && flushed.vote.is_some() && found.vote != flushed.vote;
    violated!(
        found.term < flushed.term || voted_otherwise,
        NAME,
        "node {id} recovers {found:?}, flushed was {flushed:?}"
    );
    let kept = kept(&disk.log, log.len(), |at| log.get(at - 1).copied());
    let lost = disk.log.get(kept);
    let superseded = match (log.get(kept), lost) {
        (Some(found), Some(lost)) => found.term > lost.term,
        _ => false,
    };
    // A repair keeps an earlier state of the log: what stands there may have been superseded since.
    let earlier = disk.damaged_from.is_some() && *repairing;
    violated!(
        log.len() > kept && lost.is_some() && !superseded && !earlier,
        NAME,
        "node {id} recovers {:?} where {lost:?} was flushed",
        log.get(kept)
    );
    violated!(
        *repairing && disk.damaged_from.is_none(),
        NAME,
        "node {id} takes an undamaged disk for damaged, after {} of {} entries",
        log.len(),
        disk.log.len()
    );
    if lost.is_none() || superseded {
        return Ok(if *repairing { Recovered::Repairing } else { Recovered::Everything });
    }
    let lost = kept as u64 + 1;
    let of = disk.log.len();
    match disk.damaged_from {
        None => violated!(
            true,
            NAME,
            "node {id} loses entries {lost} to {of}, flushed and undamaged (torn: {torn})"
        ),
        Some(from) => {
            violated!(lost < from.0, NAME, "node {id} loses entry {lost}, the damage begins at {from}");
            violated!(!repairing, NAME, "node {id} loses entries {lost} to {of} in silence (torn: {torn})");
        }
    }
    Ok(Recovered::Repairing)
}

/// A replica that held more than it has votes for a candidate.
pub(super) fn votes(id: NodeId, held: EntryId, candidate: NodeId, candidacy: &Candidacy) -> Outcome {
    let theirs = (candidacy.last_term, candidacy.last_index);
    violated!(
        theirs < (held.term, held.index),
        NAME,
        "node {id} votes for {candidate}, whose log ends at {theirs:?}: before damage its own disk held {held:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::story::{entry, log};
    use super::*;
    use crate::raft::message::{Election, Standing};
    use wal::{HardState, LogIndex, Term};

    fn opened(terms: &[u64], repairing: bool) -> Verdict {
        let hard_state = HardState { term: Term(5), vote: Some(NodeId(1)), ..HardState::default() };
        Verdict::Opened { log: log(terms), hard_state, torn: false, repairing }
    }

    fn disk(terms: &[u64], damaged_from: Option<u64>) -> Truth {
        let hard_state = HardState { term: Term(5), vote: Some(NodeId(1)), ..HardState::default() };
        Truth { hard_state, log: log(terms), commit: LogIndex(0), damaged_from: damaged_from.map(LogIndex) }
    }

    #[test]
    fn an_undamaged_disk_gives_everything_back() {
        let truth = disk(&[1, 1, 3], None);
        let judge = |verdict: &Verdict| judge(NodeId(1), verdict, &truth);
        for fine in [&[1, 1, 3][..], &[1, 1, 3, 3], &[1, 1, 5], &[1, 4]] {
            assert_eq!(judge(&opened(fine, false)), Ok(Recovered::Everything), "{fine:?}");
        }
        for wrong in [&[1, 1][..], &[], &[1, 1, 2], &[1, 0]] {
            assert!(judge(&opened(wrong, false)).is_err(), "{wrong:?}");
        }
        assert!(judge(&opened(&[1, 1, 3], true)).is_err(), "nothing to repair");
        assert!(judge(&Verdict::Refused("no".into())).is_err());
        let Verdict::Opened { log, torn, repairing, .. } = opened(&[1, 1, 3], false) else { return };
        for (term, vote) in [(4, Some(1)), (5, None), (5, Some(2))] {
            let hard_state = HardState { term: Term(term), vote: vote.map(NodeId), ..HardState::default() };
            let verdict = Verdict::Opened { log: log.clone(), hard_state, torn, repairing };
            assert!(judge(&verdict).is_err(), "{hard_state:?}");
        }
    }

    #[test]
    fn a_damaged_disk_says_so_and_gives_a_true_prefix() {
        let truth = disk(&[1, 1, 3, 3], Some(3));
        let judge = |verdict: &Verdict| judge(NodeId(1), verdict, &truth);
        assert_eq!(judge(&Verdict::Refused("why".into())), Ok(Recovered::Refused));
        assert_eq!(judge(&opened(&[1, 1, 3], true)), Ok(Recovered::Repairing));
        assert_eq!(judge(&opened(&[1, 1, 3, 3], false)), Ok(Recovered::Everything));
        assert!(judge(&opened(&[1, 1, 3], false)).is_err(), "in silence");
        assert!(judge(&opened(&[1], true)).is_err(), "more than the damage took");
        assert!(judge(&opened(&[1, 1, 2], false)).is_err(), "what is not there any more, in silence");
    }

    #[test]
    fn what_was_held_binds_the_vote() {
        let candidacy = |last_term, last_index| Candidacy {
            election: Election::Vote,
            last_term: Term(last_term),
            last_index: LogIndex(last_index),
            standing: Standing::Whole,
        };
        votes(NodeId(1), entry(4, 3), NodeId(2), &candidacy(3, 4)).expect("it has as much");
        votes(NodeId(1), entry(4, 3), NodeId(2), &candidacy(4, 1)).expect("it is newer");
        assert!(votes(NodeId(1), entry(4, 3), NodeId(2), &candidacy(3, 3)).is_err());
    }
}

//! O19, "sometimes" marks: rare branches that a campaign must have reached. A judge who never sees a branch taken proves
//! nothing about it.
//!
//! They are recognised from outside: from messages, and from what has changed between two looks at a node. What only the
//! world knows (a segment was begun) it marks itself with [`super::Judges::mark`].

use super::exactly_once::Seen;
use super::seat::Summary;
use super::watch::Heard;
use crate::raft::RoleName;
use crate::raft::message::{AppendOutcome, Appended, Body, Candidacy, Decision, Election, Standing, Vote};
use std::fmt;
use wal::EntryId;

macro_rules! marks {
    ($($(#[$doc:meta])* $name:ident = $label:literal),+ $(,)?) => {
        /// A rare branch.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mark {
            $($(#[$doc])* $name),+
        }

        impl Mark {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// In words.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label),+ }
            }
        }
    };
}

marks! {
    /// A vote was refused because the candidate's log is behind.
    StaleLogRefused = "vote refused: the candidate's log is behind",
    /// A vote was refused because it was given already.
    SecondVoteRefused = "vote refused: it was given to another",
    /// A pre-vote was refused by what was promised to a leader.
    PreVoteRefusedByPromise = "pre-vote refused: a leader was heard",
    /// A suspect node refused a vote that its log would allow.
    SuspectRefusedVote = "vote refused: the voter's memory is not whole",
    /// A candidate did not win and asked again.
    ElectionLost = "candidate without a majority",
    /// An election was won by a transfer.
    TransferElection = "stood for election at a leader's word",
    /// A leader heard of a newer term.
    LeaderDeposed = "leader deposed by a newer term",
    /// A leader stepped down because a quorum was silent.
    QuorumLost = "leader stepped down: a quorum is silent",
    /// Two nodes lead at once, in different terms.
    TwoLeaders = "two leaders at once, in different terms",
    /// A suffix was truncated that a leader contradicts.
    ConflictTruncated = "conflicting suffix truncated",
    /// Entries of several terms were truncated at once.
    TermsTruncated = "several terms truncated at once",
    /// An append was rejected.
    AppendRejected = "append rejected",
    /// A peer acknowledged less than before.
    MatchRegressed = "a peer's match index went back",
    /// Entries of earlier terms were decided with one of the leader's own.
    OldTermDecided = "entries of earlier terms decided with a newer one",
    /// Entries were sent that had left memory.
    FetchedFromDisk = "entries fetched from disk for a peer",
    /// A batch of four commands or more.
    LargeBatch = "four or more commands in one entry",
    /// A follower knew that its leader's process was gone.
    TrulyGone = "leader known to be gone",
    /// A follower was told so of a leader that is there.
    FalselyGone = "leader falsely said to be gone",
    /// A lease read was answered.
    LeaseRead = "lease read served",
    /// A read was not answered.
    ReadRefused = "read not confirmed",
    /// A read outlived the leader it began under.
    ReadAcrossLeaders = "read answered under a later leader",
    /// Leadership was handed over.
    TransferDone = "leadership handed over",
    /// A transfer was given up.
    TransferAbandoned = "transfer given up",
    /// A command was passed to the leader.
    Forwarded = "command forwarded to the leader",
    /// A write whose client heard nothing took effect.
    UnknownTookEffect = "write of unknown outcome took effect",
    /// A write whose client heard nothing did not happen.
    UnknownWithoutEffect = "write of unknown outcome had no effect",
    /// A retry in a session was answered with the first answer.
    SessionRepeated = "session's retry answered again",
    /// A command of a session that is gone was not applied.
    SessionGone = "command of an ended session refused",
    /// A torn tail was cut.
    TornTailCut = "torn tail cut",
    /// Entries beyond those acknowledged survived a crash.
    UnflushedSurvived = "unflushed entries survived a crash",
    /// A log opened empty in a later life.
    EmptyRecovery = "later life begun with an empty log",
    /// Damage was found, and the node waits for repair.
    DamageFound = "damage found, to be repaired",
    /// Damage made a log refuse to open.
    DamageRefused = "damaged log refused",
    /// A damaged log has again all it held.
    DamageRepaired = "damage repaired by peers",
    /// A node whose memory was not whole is whole again.
    BecameWhole = "suspect node became whole",
    /// A majority lost its memory together.
    MemoryLost = "a majority lost its memory together",
    /// A node stopped because logs diverged.
    Diverged = "halted: logs diverged",
    /// A node stopped because its disk failed.
    DiskLatched = "halted: the disk failed",
    /// An idle log marked its end.
    IdleMarked = "idle log marked its end",
    /// The world saw a new segment begun.
    Rotated = "segment rotated",
    /// A transaction's compares held.
    TxnThen = "transaction: what was compared held",
    /// They did not.
    TxnOtherwise = "transaction: what was compared did not hold",
    /// A transaction in a transaction was carried out.
    TxnNested = "transaction inside a transaction",
    /// A transaction that changed something was retried in its session.
    TxnRepeated = "transaction's retry answered again",
    /// A grant was retried in its session.
    GrantRepeated = "grant's retry answered again",
    /// A lease expired.
    LeaseExpired = "lease expired",
    /// A lease expired with keys.
    KeysExpired = "expiry with keys",
    /// A lease expired under another leader than it was last kept alive under.
    ExpiredUnderAnother = "lease expired after a change of leader",
    /// An entry of the store's own let time pass.
    Tick = "entry that only lets time pass",
    /// A lease whose time was over was kept alive.
    KeptOverdue = "lease kept alive whose time was over",
    /// A keep-alive came after the end of its lease.
    KeptTooLate = "keep-alive after its lease had expired",
    /// A put named a lease that was gone.
    AttachRefused = "put to a lease that is gone refused",
    /// A limit of leases was met.
    LeaseLimited = "lease or key refused at a limit of leases",
    /// An expiry left due leases to the next entry.
    ExpirySplit = "expiry split over entries",
    /// A lease was revoked with keys.
    RevokedWithKeys = "lease revoked with its keys",
    /// Clients compacted.
    Compacted = "history compacted by a client",
    /// The past was asked for and not kept.
    PastCompacted = "read of a compacted revision refused",
    /// A batch of a watch had several events.
    BatchOfSeveral = "watch told several changes of one revision",
    /// A watch told a mark.
    ProgressTold = "watch told its progress",
    /// A watch went on.
    WatchResumed = "watch resumed",
    /// A watch went on at another node.
    WatchMoved = "watch resumed on another node",
    /// A watch went on at a node that had not yet come to where it was.
    WatchAhead = "watch resumed on a node that was behind it",
    /// A watch met a compaction.
    WatchCompacted = "watch ended by a compaction",
    /// A watch told what was there before.
    PreviousTold = "watch told a previous value",
    /// A watch was slow, and read on from the history.
    WatchSlow = "watch was behind by many revisions",
}

/// How often each was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks([u64; Mark::ALL.len()]);

impl Default for Marks {
    fn default() -> Self {
        Self([0; Mark::ALL.len()])
    }
}

impl Marks {
    /// One more time, or so many.
    pub(super) fn add(&mut self, mark: Mark, times: u64) {
        self.0[mark as usize] += times;
    }

    fn hit(&mut self, mark: Mark) {
        self.add(mark, 1);
    }

    fn hit_if(&mut self, reached: bool, mark: Mark) {
        self.add(mark, u64::from(reached));
    }

    /// How often.
    #[must_use]
    pub fn count(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }

    /// Those of another run, too.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// What was not reached.
    pub fn missing(&self) -> impl Iterator<Item = Mark> + '_ {
        Mark::ALL.iter().copied().filter(|&mark| self.count(mark) == 0)
    }

    /// A node has changed.
    pub(super) fn changed(&mut self, before: &Summary, now: &Summary, dropped: &[EntryId]) {
        if !dropped.is_empty() {
            self.hit(Mark::ConflictTruncated);
            let (first, last) = (dropped[0].term, dropped[dropped.len() - 1].term);
            self.hit_if(first != last, Mark::TermsTruncated);
        }
        let same_term = before.term == now.term;
        if before.leads() && !now.leads() {
            self.hit(if same_term { Mark::QuorumLost } else { Mark::LeaderDeposed });
            self.hit_if(before.transferring && !same_term, Mark::TransferDone);
        }
        self.hit_if(
            before.leads() && before.transferring && now.leads() && !now.transferring && same_term,
            Mark::TransferAbandoned,
        );
        self.hit_if(
            before.role == RoleName::Candidate && !now.leads() && now.leader.is_none(),
            Mark::ElectionLost,
        );
        self.hit_if(before.regressions < now.regressions, Mark::MatchRegressed);
        self.hit_if(
            before.standing == Standing::Suspect && now.standing == Standing::Whole,
            Mark::BecameWhole,
        );
    }

    /// What the replay of the ledger met.
    pub(super) fn count_store(&mut self, seen: &Seen) {
        for (mark, times) in [
            (Mark::SessionRepeated, seen.repeated),
            (Mark::SessionGone, seen.gone),
            (Mark::TxnThen, seen.then),
            (Mark::TxnOtherwise, seen.otherwise),
            (Mark::TxnNested, seen.nested),
            (Mark::TxnRepeated, seen.repeated_txns),
            (Mark::GrantRepeated, seen.repeated_grants),
            (Mark::LeaseExpired, seen.expired),
            (Mark::KeysExpired, seen.expired_with_keys),
            (Mark::ExpiredUnderAnother, seen.expired_under_another),
            (Mark::Tick, seen.ticks),
            (Mark::KeptOverdue, seen.kept_overdue),
            (Mark::KeptTooLate, seen.kept_too_late),
            (Mark::AttachRefused, seen.attach_refused),
            (Mark::LeaseLimited, seen.limited),
            (Mark::ExpirySplit, seen.split),
            (Mark::RevokedWithKeys, seen.revoked_with_keys),
            (Mark::Compacted, seen.compacted),
        ] {
            self.add(mark, times);
        }
    }

    /// What watches told.
    pub(super) fn count_watches(&mut self, heard: &Heard) {
        for (mark, times) in [
            (Mark::BatchOfSeveral, heard.several),
            (Mark::ProgressTold, heard.marks),
            (Mark::WatchResumed, heard.resumed),
            (Mark::WatchCompacted, heard.compacted),
            (Mark::PreviousTold, heard.previous),
        ] {
            self.add(mark, times);
        }
    }

    /// A vote is refused to a candidate whose question is known.
    pub(super) fn refused(&mut self, voter: &Summary, vote: &Vote, asked: &Candidacy, free: bool) {
        let behind = (asked.last_term, asked.last_index) < (voter.last.term, voter.last.index);
        let whole = voter.standing == Standing::Whole;
        match vote.election {
            Election::PreVote => {
                self.hit_if(!behind && whole && voter.leader.is_some(), Mark::PreVoteRefusedByPromise);
            }
            Election::Vote | Election::Transfer => {
                self.hit_if(!behind && whole && !free, Mark::SecondVoteRefused);
            }
        }
        self.hit_if(behind, Mark::StaleLogRefused);
        self.hit_if(!behind && !whole, Mark::SuspectRefusedVote);
    }

    /// A message leaves.
    pub(super) fn sent(&mut self, body: &Body, first_cached: u64) {
        match body {
            Body::Candidacy(Candidacy { election: Election::Transfer, .. }) => {
                self.hit(Mark::TransferElection)
            }
            Body::Append(append) => {
                let Some(first) = append.frames.first() else { return };
                self.hit_if(first.index().0 < first_cached, Mark::FetchedFromDisk);
            }
            Body::Appended(Appended { outcome: AppendOutcome::Rejected { .. }, .. }) => {
                self.hit(Mark::AppendRejected);
            }
            _ => {}
        }
    }
}

/// Whether a vote says no.
pub(super) fn refuses(vote: &Vote) -> bool {
    vote.decision == Decision::Refused
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Mark::ALL.iter().try_for_each(|&mark| writeln!(f, "{:>12}  {}", self.count(mark), mark.label()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::{entry, log};
    use super::*;
    use wal::{LogIndex, Term};

    fn summary(term: u64, role: RoleName) -> Summary {
        Summary { term: Term(term), role, last: entry(3, 2), ..Summary::default() }
    }

    #[test]
    fn changes_leave_their_marks() {
        let mut marks = Marks::default();
        let leader = summary(2, RoleName::Leader);
        marks.changed(&leader, &summary(2, RoleName::Follower), &[]);
        marks.changed(&leader, &summary(3, RoleName::Follower), &log(&[1, 2]));
        marks.changed(&Summary { transferring: true, ..leader }, &leader, &log(&[2]));
        marks.changed(&summary(2, RoleName::Candidate), &summary(2, RoleName::PreCandidate), &[]);
        let reached = [
            Mark::QuorumLost,
            Mark::LeaderDeposed,
            Mark::TermsTruncated,
            Mark::TransferAbandoned,
            Mark::ElectionLost,
        ];
        assert!(reached.iter().all(|&mark| marks.count(mark) == 1), "{marks}");
        assert_eq!(marks.count(Mark::ConflictTruncated), 2);
        assert_eq!(marks.missing().count(), Mark::ALL.len() - reached.len() - 1);
        let mut twice = marks;
        twice.merge(&marks);
        assert_eq!(twice.count(Mark::QuorumLost), 2);
    }

    #[test]
    fn a_refusal_has_its_reason() {
        let mut marks = Marks::default();
        let voter = summary(2, RoleName::Follower);
        let candidacy = |last_index| Candidacy {
            election: Election::Vote,
            last_term: Term(2),
            last_index: LogIndex(last_index),
            standing: Standing::Whole,
        };
        let vote = Vote { election: Election::Vote, decision: Decision::Refused, standing: Standing::Whole };
        marks.refused(&voter, &vote, &candidacy(2), true);
        marks.refused(&voter, &vote, &candidacy(3), false);
        let suspect = Summary { standing: Standing::Suspect, ..voter };
        marks.refused(&suspect, &vote, &candidacy(3), true);
        let counts = [Mark::StaleLogRefused, Mark::SecondVoteRefused, Mark::SuspectRefusedVote]
            .map(|m| marks.count(m));
        assert_eq!(counts, [1, 1, 1]);
        assert!(refuses(&vote));
    }
}

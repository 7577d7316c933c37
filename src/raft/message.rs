//! What the members of a group say to each other (thesis figure 3.1, and chapters 3.10, 6.4, 9.6).
//!
//! Every message names its sender's term. Appends carry frames as they are; the entry before them stands in the
//! message only because an append may be empty.

use std::time::Duration;
use wal::{EntryId, Frame, LogIndex, Term};

/// No leader states a longer promise, and none is given: the most by which a leader that states nonsense can silence a
/// voter, and the least by which every lease ends. Three of the longest heartbeats that can be configured.
pub const MAX_PROMISE: Duration = Duration::from_secs(30);

/// A message with the term its sender speaks in. A pre-vote request names the term the election would have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender's term.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

impl Message {
    /// The promise that a leader states with it; none if it is no leader's.
    pub(super) fn promise(&self) -> Option<Duration> {
        match self.body {
            Body::Append(Append { promise, .. }) | Body::Heartbeat(Heartbeat { promise, .. }) => {
                Some(promise)
            }
            _ => None,
        }
    }

    /// What an accepting answer to an append says: the last entry, and the probe.
    pub(super) fn acceptance(&self) -> Option<(LogIndex, u64)> {
        match self.body {
            Body::Appended(Appended { outcome: AppendOutcome::Accepted { matched }, probe }) => {
                Some((matched, probe))
            }
            _ => None,
        }
    }
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// RequestVote, in one of its three forms.
    Candidacy(Candidacy),
    /// The answer to one.
    Vote(Vote),
    /// AppendEntries.
    Append(Append),
    /// The answer to one.
    Appended(Appended),
    /// A sign of life that asks for one.
    Heartbeat(Heartbeat),
    /// That sign.
    Alive(Alive),
    /// The leader asks the receiver to stand for election at once (thesis 3.10).
    TimeoutNow,
}

/// What kind of election a candidate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// Would you vote for me? Changes nothing (thesis 9.6).
    PreVote,
    /// The vote.
    Vote,
    /// The vote, with the old leader's consent: the promise to that leader does not stand against it.
    Transfer,
}

/// RequestVote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidacy {
    /// Which kind.
    pub election: Election,
    /// Term of the candidate's last entry.
    pub last_term: Term,
    /// Index of the candidate's last entry.
    pub last_index: LogIndex,
    /// Whether the candidate's memory is whole.
    pub standing: Standing,
}

/// The answer to a candidacy, in the voter's term; a granted pre-vote answers in the term that was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Which kind of election it answers.
    pub election: Election,
    /// The word.
    pub decision: Decision,
    /// Whether the voter's memory is whole.
    pub standing: Standing,
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The vote is given.
    Granted,
    /// It is not.
    Refused,
}

/// Whether a node may lack entries it acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everything acknowledged is there.
    Whole,
    /// It acknowledged from memory (`MemFirst`) and did not stop cleanly: the tail may be missing. It takes no part in
    /// elections until a leader has filled the gap, or until a majority stands as it does (then a majority lost its
    /// memory together, the one case in which `MemFirst` promises nothing; half of an even group is neither, and waits).
    /// "Together" means: each lost it before the one before it had been filled again, whether or not at the same moment.
    Suspect,
    /// Its disk lost what was durable. It does not stand for election, and votes only for logs that have at least what
    /// it held, until a leader has repaired it.
    Damaged,
}

/// AppendEntries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The entry before `frames`.
    pub previous: EntryId,
    /// The entries, in order; may be empty.
    pub frames: Vec<Frame>,
    /// The leader's commit index.
    pub commit: LogIndex,
    /// The newest probe of the leader; the receiver's answer repeats it.
    pub probe: u64,
    /// As in [`Heartbeat`]: the answer counts for the lease, too.
    pub promise: Duration,
}

/// The answer to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// What became of it.
    pub outcome: AppendOutcome,
    /// The probe of the append.
    pub probe: u64,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The sender holds the leader's log up to `matched`, as durably as the group promises.
    Accepted {
        /// The last entry known to be the same.
        matched: LogIndex,
    },
    /// The entry before the append is not in the sender's log.
    Rejected {
        /// Index of that entry.
        previous: LogIndex,
        /// The last index at which the logs can agree, as far as the sender knows.
        hint: LogIndex,
        /// The sender's term at the hint.
        hint_term: Term,
    },
}

/// A leader's sign of life, and the question of a read round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Number of this probe.
    pub probe: u64,
    /// The leader's commit index.
    pub commit: LogIndex,
    /// For how long the leader relies on the receiver's voting for nobody else, from when it hears this. Whoever would keep
    /// to it for longer by itself does so; zero leaves it at that.
    pub promise: Duration,
}

/// The answer: the sender recognised the leader when it saw this probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alive {
    /// The probe that is answered.
    pub probe: u64,
}

//! O7, exactly once (thesis 6.3): every command that clients asked for is in the ledger at most once in effect, one whose
//! client was told that it did not and will not happen is never there, every try of a call in a session is told the same,
//! and each is told what a replay of the ledger says.
//!
//! The replay is `model`'s. A command without a value of its own and outside of a session (a delete, a word about a lease)
//! has no name: its answer must be that of some command of the ledger with the same bytes, and nobody sees that it happened
//! twice.

use super::fast::{FastMap, Mixed};
use super::model::{Done, How, Model, Stand, Told};
use super::{Outcome, violated};
use crate::kv::{LeaseError, LeaseLimits};
use crate::sim::observation::{Ask, CallId};
use std::hash::Hasher;
use wal::{Frame, Term};

pub(super) const NAME: &str = "exactly_once";

/// A call that writes, as its command is found in the ledger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) call: CallId,
    pub(super) ask: Ask,
    pub(super) session: Option<(u64, u64)>,
    /// Its bytes, see [`digest`].
    pub(super) command: u64,
}

/// A command's bytes as a number. Two commands with one number make the judge less strict, not wrong.
pub(super) fn digest(command: &[u8]) -> u64 {
    let mut hasher = Mixed::default();
    hasher.write(command);
    hasher.finish()
}

/// What the ledger makes of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Its command is there and came to that.
    There,
    /// Not yet.
    Missing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Asked,
    Denied,
    Done(Told),
}

/// The ledger, replayed once.
#[derive(Debug, Default)]
pub(super) struct ExactlyOnce {
    model: Model,
    /// After each entry of the ledger.
    stands: Vec<Stand>,
    values: FastMap<u64, Fate>,
    in_sessions: FastMap<(u64, u64), Told>,
    /// What commands without a name were told, by their bytes.
    nameless: FastMap<u64, Vec<Told>>,
    pub(super) seen: Seen,
    /// The term in which each lease was last granted or kept alive.
    refreshed: FastMap<u64, Term>,
    /// Kept for its memory.
    done: Vec<Done>,
}

impl ExactlyOnce {
    /// What there may be of leases.
    pub(super) fn limit(&mut self, leases: LeaseLimits) {
        self.model.limit(leases);
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// How the store stands after the entry at `position`.
    pub(super) fn stand_at(&self, position: usize) -> Option<Stand> {
        self.stands.get(position).copied()
    }

    /// The next entry of the ledger.
    pub(super) fn decide(&mut self, entry: &Frame) -> Outcome {
        let mut done = std::mem::take(&mut self.done);
        self.model.apply(entry, |one| done.push(one));
        for one in done.drain(..) {
            self.seen.note(&one);
            self.note_leases(&one, entry.term());
            self.note(one)?;
        }
        self.done = done;
        self.stands.push(self.model.stand());
        Ok(())
    }

    fn note_leases(&mut self, done: &Done, term: Term) {
        match done.told {
            Told::Granted { lease, .. } | Told::Kept { lease, .. } => {
                self.refreshed.insert(lease, term);
            }
            Told::PutAttached { lease, .. } | Told::SwappedAttached { lease, .. } if lease != 0 => {
                self.refreshed.entry(lease).or_insert(term);
            }
            _ => {}
        }
        for (lease, _) in &done.expired {
            let former = self.refreshed.remove(lease);
            self.seen.expired_under_another += u64::from(former.is_some_and(|former| former != term));
        }
    }

    fn note(&mut self, done: Done) -> Outcome {
        if done.how != How::Applied {
            return Ok(());
        }
        if let Some(command) = done.nameless {
            self.nameless.entry(digest(&command)).or_default().push(done.told);
            return Ok(());
        }
        if let Some(session) = done.session {
            self.in_sessions.insert(session, done.told.clone());
        }
        let Some(value) = done.value else { return Ok(()) };
        let fate = self.values.insert(value, Fate::Done(done.told.clone()));
        violated!(fate.is_none(), NAME, "value {value} is written, which nobody asked for");
        violated!(
            fate == Some(Fate::Denied),
            NAME,
            "value {value} is written ({:?}), and its client was told that it never will be",
            done.told
        );
        violated!(
            matches!(fate, Some(Fate::Done(_))),
            NAME,
            "the command with value {value} happened twice: {fate:?}, then {:?}",
            done.told
        );
        Ok(())
    }

    /// A client asks.
    pub(super) fn ask(&mut self, asked: &Asked) -> Outcome {
        let Some(value) = asked.ask.value() else { return Ok(()) };
        let former = self.values.insert(value, Fate::Asked);
        violated!(former.is_some(), NAME, "value {value} is asked for by two calls: the run is no proof");
        Ok(())
    }

    /// A client was told that its call did not and will not happen.
    pub(super) fn deny(&mut self, asked: &Asked) -> Outcome {
        let Some(value) = asked.ask.value() else { return Ok(()) };
        let fate = self.values.insert(value, Fate::Denied);
        violated!(
            matches!(fate, Some(Fate::Done(_))),
            NAME,
            "call {} was told that it did not happen, and it did: {fate:?}",
            asked.call.0
        );
        Ok(())
    }

    /// What a call was told, against the ledger.
    pub(super) fn answered(&self, asked: &Asked, told: &Told) -> Outcome<Found> {
        let known = match (asked.session, asked.ask.value()) {
            (Some(session), _) => self.in_sessions.get(&session),
            (None, Some(value)) => match self.values.get(&value) {
                Some(Fate::Done(told)) => Some(told),
                _ => None,
            },
            (None, None) => {
                let known = self.nameless.get(&asked.command);
                let there = known.is_some_and(|known| known.contains(told));
                return Ok(if there { Found::There } else { Found::Missing });
            }
        };
        let Some(known) = known else { return Ok(Found::Missing) };
        violated!(known != told, NAME, "call {} was told {told:?}, the ledger says {known:?}", asked.call.0);
        Ok(Found::There)
    }

    /// Whether a call's command is in the ledger, as far as it has a name.
    pub(super) fn happened(&self, asked: &Asked) -> Option<bool> {
        match (asked.session, asked.ask.value()) {
            (Some(session), _) => Some(self.in_sessions.contains_key(&session)),
            (None, Some(value)) => Some(matches!(self.values.get(&value), Some(Fate::Done(_)))),
            (None, None) => None,
        }
    }
}

/// What was met on the way, for the marks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) repeated: u64,
    pub(super) gone: u64,
    pub(super) then: u64,
    pub(super) otherwise: u64,
    pub(super) nested: u64,
    pub(super) repeated_txns: u64,
    pub(super) repeated_grants: u64,
    pub(super) expired: u64,
    pub(super) expired_under_another: u64,
    pub(super) expired_with_keys: u64,
    pub(super) ticks: u64,
    pub(super) kept_overdue: u64,
    pub(super) kept_too_late: u64,
    pub(super) revoked_with_keys: u64,
    pub(super) compacted: u64,
    pub(super) attach_refused: u64,
    pub(super) limited: u64,
    pub(super) split: u64,
}

impl Seen {
    fn note(&mut self, done: &Done) {
        let repeated = done.how == How::Repeated;
        self.repeated += u64::from(repeated);
        self.gone += u64::from(done.how == How::SessionGone);
        self.kept_overdue += u64::from(done.overdue);
        self.kept_too_late += u64::from(done.too_late);
        self.expired += done.expired.len() as u64;
        self.split += u64::from(done.more_due);
        match &done.told {
            Told::Txn { came, .. } if repeated => self.repeated_txns += u64::from(came.changed()),
            Told::Txn { came, .. } => {
                self.then += u64::from(came.held);
                self.otherwise += u64::from(!came.held);
                self.nested += u64::from(came.depth() > 1);
            }
            Told::Granted { .. } => self.repeated_grants += u64::from(repeated),
            Told::Revoked { keys, .. } => self.revoked_with_keys += u64::from(*keys > 0),
            Told::Compacted { .. } => self.compacted += 1,
            Told::LeaseRefused(error) => {
                let limit =
                    matches!(error, LeaseError::TooManyLeases { .. } | LeaseError::TooManyKeys { .. });
                self.limited += u64::from(limit);
                self.attach_refused += u64::from(!limit && done.value.is_some());
            }
            Told::Expired { leases, keys, .. } => {
                self.ticks += u64::from(*leases == 0);
                self.expired_with_keys += u64::from(*keys > 0);
            }
            _ => {}
        }
    }
}

/// All tries of one call.
#[derive(Clone, Debug, Default)]
pub(super) struct Tries {
    first: Option<Told>,
}

impl Tries {
    /// One of them is told something; a refusal is no answer of the store to the command.
    pub(super) fn hear(&mut self, call: CallId, told: &Told) -> Outcome {
        if *told == Told::Other {
            return Ok(());
        }
        let first = self.first.get_or_insert_with(|| told.clone());
        violated!(first != told, NAME, "call {} was told {first:?}, and for another try {told:?}", call.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{frame, once, open, put};
    use super::*;

    fn asked(call: u64, value: u64, session: Option<(u64, u64)>) -> Asked {
        Asked { call: CallId(call), ask: Ask::Put { key: 1, value }, session, command: 0 }
    }

    #[test]
    fn a_retry_in_a_session_is_told_the_same() {
        let mut judge = ExactlyOnce::default();
        let ask = asked(1, 7, Some((1, 1)));
        judge.ask(&ask).expect("new");
        let told = Told::Put { revision: 2 };
        assert_eq!(judge.answered(&ask, &told), Ok(Found::Missing));
        let command = once(1, 1, &put(1, 7));
        judge.decide(&frame(0, &[open(100), command.clone(), command])).expect("once in effect");
        assert_eq!(judge.answered(&ask, &told), Ok(Found::There));
        assert!(judge.answered(&ask, &Told::Put { revision: 3 }).is_err());
        assert_eq!((judge.seen.repeated, judge.stand_at(0).map(|stand| stand.revision)), (1, Some(2)));
        let mut tries = Tries::default();
        tries.hear(ask.call, &told).expect("the first");
        tries.hear(ask.call, &told).expect("the same");
        assert!(tries.hear(ask.call, &Told::Put { revision: 3 }).is_err());
    }

    #[test]
    fn what_happens_twice_or_was_denied_or_never_asked_for_is_a_violation() {
        let mut judge = ExactlyOnce::default();
        judge.ask(&asked(1, 7, None)).expect("new");
        judge.decide(&frame(0, &[put(1, 7)])).expect("once");
        assert!(judge.decide(&frame(0, &[put(1, 7)])).is_err(), "twice");
        let mut judge = ExactlyOnce::default();
        judge.ask(&asked(1, 7, None)).expect("new");
        judge.deny(&asked(1, 7, None)).expect("not there");
        assert!(judge.decide(&frame(0, &[put(1, 7)])).is_err(), "denied");
        assert!(ExactlyOnce::default().decide(&frame(0, &[put(1, 7)])).is_err(), "never asked for");
    }
}

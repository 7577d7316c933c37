//! O7, exactly once (thesis 6.3): every command that clients asked for is in the ledger at most once in effect, one whose
//! client was told that it did not and will not happen is never there, every try of a call in a session is told the same,
//! and each is told what a replay of the ledger says.
//!
//! The replay is `model`'s. It cannot see a plain delete that happened twice, the second time without effect.

use super::fast::FastMap;
use super::model::{Done, How, Model, Told, Version, number};
use super::{Outcome, violated};
use crate::kv::{Presence, Reply};
use crate::sim::observation::{Ask, CallId};
use wal::Frame;

pub(super) const NAME: &str = "exactly_once";

/// A store's reply as the model would have said it.
pub(super) fn told(reply: &Reply) -> Told {
    match reply {
        Reply::Put { revision } => Told::Put { revision: revision.0 },
        Reply::Deleted { revision, before } => {
            Told::Deleted { revision: revision.0, present: *before == Presence::Present }
        }
        Reply::Swapped { revision } => Told::Swapped { revision: revision.0 },
        Reply::NotSwapped { revision, current } => {
            let current = current.as_ref().map(|current| Version {
                revision: current.modify_revision.0,
                value: Some(number(&current.value)),
                created: current.create_revision.0,
                count: current.version,
            });
            Told::NotSwapped { revision: revision.0, current }
        }
        _ => Told::Other,
    }
}

/// A call that writes, as its command is found in the ledger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) call: CallId,
    pub(super) ask: Ask,
    pub(super) session: Option<(u64, u64)>,
}

impl Asked {
    fn value(&self) -> Option<u64> {
        match self.ask {
            Ask::Put { value, .. } | Ask::Swap { value, .. } => Some(value),
            Ask::Delete { .. } | Ask::Get { .. } | Ask::Transfer { .. } => None,
        }
    }
}

/// What the ledger makes of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Its command is there and came to that.
    There,
    /// Not yet.
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    revisions: Vec<u64>,
    values: FastMap<u64, Fate>,
    in_sessions: FastMap<(u64, u64), Told>,
    pub(super) repeated: u64,
    pub(super) gone: u64,
    /// Kept for its memory.
    done: Vec<Done>,
}

impl ExactlyOnce {
    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// The revision after the entry at `position`.
    pub(super) fn revision_at(&self, position: usize) -> Option<u64> {
        self.revisions.get(position).copied()
    }

    /// The next entry of the ledger.
    pub(super) fn decide(&mut self, entry: &Frame) -> Outcome {
        let mut done = std::mem::take(&mut self.done);
        self.model.apply(entry, |one| done.push(one));
        for one in done.drain(..) {
            self.note(one)?;
        }
        self.done = done;
        self.revisions.push(self.model.revision());
        Ok(())
    }

    fn note(&mut self, done: Done) -> Outcome {
        match done.how {
            How::Applied => {}
            How::Repeated => {
                self.repeated += 1;
                return Ok(());
            }
            How::SessionGone => {
                self.gone += 1;
                return Ok(());
            }
            How::Refused => return Ok(()),
        }
        if let Some(session) = done.session {
            self.in_sessions.insert(session, done.told);
        }
        let Some(value) = done.value else { return Ok(()) };
        let fate = self.values.insert(value, Fate::Done(done.told));
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
        let Some(value) = asked.value() else { return Ok(()) };
        let former = self.values.insert(value, Fate::Asked);
        violated!(former.is_some(), NAME, "value {value} is asked for by two calls: the run is no proof");
        Ok(())
    }

    /// A client was told that its call did not and will not happen.
    pub(super) fn deny(&mut self, asked: &Asked) -> Outcome {
        let Some(value) = asked.value() else { return Ok(()) };
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
    pub(super) fn answered(&self, asked: &Asked, told: Told) -> Outcome<Found> {
        let known = match (asked.session, asked.value()) {
            (Some(session), _) => self.in_sessions.get(&session).copied(),
            (None, Some(value)) => match self.values.get(&value) {
                Some(Fate::Done(told)) => Some(*told),
                _ => None,
            },
            (None, None) => self.plain_delete(asked.ask, told),
        };
        let Some(known) = known else { return Ok(Found::Missing) };
        violated!(known != told, NAME, "call {} was told {told:?}, the ledger says {known:?}", asked.call.0);
        Ok(Found::There)
    }

    /// Whether a call's command is in the ledger, as far as it has a name.
    pub(super) fn happened(&self, asked: &Asked) -> Option<bool> {
        match (asked.session, asked.value()) {
            (Some(session), _) => Some(self.in_sessions.contains_key(&session)),
            (None, Some(value)) => Some(matches!(self.values.get(&value), Some(Fate::Done(_)))),
            (None, None) => None,
        }
    }

    /// A delete outside a session has no name: its place is where it says.
    fn plain_delete(&self, ask: Ask, told: Told) -> Option<Told> {
        let (Ask::Delete { key }, Told::Deleted { revision, present }) = (ask, told) else {
            return Some(Told::Other);
        };
        if self.model.revision() < revision {
            return None;
        }
        let absent = self.model.at(key, revision).is_none();
        let own = !present || self.model.changed(revision) == Some(key);
        Some(if absent && own { told } else { Told::Other })
    }
}

/// All tries of one call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tries {
    first: Option<Told>,
}

impl Tries {
    /// One of them is told something; a refusal is no answer of the store to the command.
    pub(super) fn hear(&mut self, call: CallId, told: Told) -> Outcome {
        if told == Told::Other {
            return Ok(());
        }
        let first = *self.first.get_or_insert(told);
        violated!(first != told, NAME, "call {} was told {first:?}, and for another try {told:?}", call.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{frame, once, open, put};
    use super::*;

    fn asked(call: u64, value: u64, session: Option<(u64, u64)>) -> Asked {
        Asked { call: CallId(call), ask: Ask::Put { key: 1, value }, session }
    }

    #[test]
    fn a_retry_in_a_session_is_told_the_same() {
        let mut judge = ExactlyOnce::default();
        let ask = asked(1, 7, Some((1, 1)));
        judge.ask(&ask).expect("new");
        let told = Told::Put { revision: 2 };
        assert_eq!(judge.answered(&ask, told), Ok(Found::Missing));
        let command = once(1, 1, &put(1, 7));
        judge.decide(&frame(0, &[open(100), command.clone(), command])).expect("once in effect");
        assert_eq!(judge.answered(&ask, told), Ok(Found::There));
        assert!(judge.answered(&ask, Told::Put { revision: 3 }).is_err());
        assert_eq!((judge.repeated, judge.revision_at(0)), (1, Some(2)));
        let mut tries = Tries::default();
        tries.hear(ask.call, told).expect("the first");
        tries.hear(ask.call, told).expect("the same");
        assert!(tries.hear(ask.call, Told::Put { revision: 3 }).is_err());
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

//! O6, linearizability (Herlihy and Wing 1990; thesis 6.4), by the order of revisions, for every call and while it
//! happens: an answer names its place in the one order of changes; the place is not before anything that was answered
//! before the call was made (real time), and what was seen there is what a replay of the ledger holds there.
//!
//! Transactions take one place with all they do; what they read on the way `exactly_once` compares. Of reads of ranges and of
//! past states the place is judged here, the content by `past`.
//!
//! Reads by lease are held to the same. An eventual read is held to less: what it saw is a decided state, and a client
//! that asks one life of a node again sees no older one. `search` judges the same calls without believing revisions.
//!
//! Changes that nobody ever heard the answer of are in the ledger or not; `exactly_once` looks at them.

use super::fast::FastMap;
use super::model::{Model, number};
use super::{Outcome, violated};
use crate::sim::client::key_bytes;
use crate::sim::observation::{CallId, ClientId};
use wal::NodeId;

pub(super) const NAME: &str = "linearizability";

/// The revision that every call made now must come to, at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Floor(pub(super) u64);

/// What a read saw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) call: CallId,
    pub(super) key: u64,
    pub(super) value: Option<u64>,
    pub(super) revision: u64,
}

/// Where an eventual read was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Glance {
    pub(super) client: ClientId,
    pub(super) at: NodeId,
    /// The node's life when the read was made.
    pub(super) since: u64,
    /// The node's life when it was answered.
    pub(super) until: u64,
}

/// The order.
#[derive(Debug, Default)]
pub(super) struct Linearizability {
    floor: Floor,
    glances: FastMap<(u64, u64), (u64, u64)>,
}

impl Linearizability {
    /// A call is made.
    pub(super) fn floor(&self) -> Floor {
        self.floor
    }

    /// A call that began at `floor` has its answer, at `revision`; `own` says that the revision is the call's own.
    pub(super) fn answer(&mut self, call: CallId, floor: Floor, (revision, own): (u64, bool)) -> Outcome {
        violated!(
            revision < floor.0 || (own && revision == floor.0),
            NAME,
            "call {} is answered at revision {revision}, {} had been answered before it was made",
            call.0,
            floor.0
        );
        self.floor.0 = self.floor.0.max(revision);
        Ok(())
    }

    /// An eventual read.
    pub(super) fn glance(&mut self, call: CallId, glance: Glance, revision: u64) -> Outcome {
        let Glance { client, at, since, until } = glance;
        let former = self.glances.insert((client.0, at.0), (since, revision));
        if let Some((life, newest)) = former {
            violated!(
                life == until && revision < newest,
                NAME,
                "call {} sees revision {revision} of node {at}, its client saw {newest} there before",
                call.0
            );
        }
        Ok(())
    }
}

/// Compares a read with the replay; false if the replay has not come that far.
pub(super) fn replay(model: &Model, seen: Seen) -> Outcome<bool> {
    let Seen { call, key, value, revision } = seen;
    if model.revision() < revision {
        return Ok(false);
    }
    let held = model.at(&key_bytes(key), revision).map(|item| number(&item.value));
    violated!(
        held != value,
        NAME,
        "call {} sees {value:?} under key {key} at revision {revision}, the ledger has {held:?} there",
        call.0
    );
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{frame, put};
    use super::*;

    #[test]
    fn later_calls_come_later_in_the_order() {
        let mut judge = Linearizability::default();
        let early = judge.floor();
        judge.answer(CallId(1), early, (5, true)).expect("the first");
        judge.answer(CallId(2), early, (3, false)).expect("it overlapped");
        let floor = judge.floor();
        judge.answer(CallId(3), floor, (5, false)).expect("it sees the write");
        assert!(judge.answer(CallId(4), floor, (4, false)).is_err(), "a stale read");
        assert!(judge.answer(CallId(5), floor, (5, true)).is_err(), "a write in the past");
    }

    #[test]
    fn a_read_sees_what_was_there() {
        let mut model = Model::default();
        model.apply(&frame(0, &[put(1, 7), put(1, 8)]), |_| ());
        let seen = Seen { call: CallId(1), key: 1, value: Some(7), revision: 2 };
        assert_eq!(replay(&model, seen), Ok(true));
        assert_eq!(replay(&model, Seen { revision: 4, ..seen }), Ok(false));
        assert!(replay(&model, Seen { value: Some(8), ..seen }).is_err());
        assert!(replay(&model, Seen { value: None, ..seen }).is_err());
    }

    #[test]
    fn an_eventual_reader_does_not_go_back_within_a_life() {
        let mut judge = Linearizability::default();
        let glance = Glance { client: ClientId(1), at: NodeId(2), since: 1, until: 1 };
        judge.glance(CallId(1), glance, 9).expect("the first");
        judge.glance(CallId(2), Glance { client: ClientId(2), ..glance }, 4).expect("another client");
        judge.glance(CallId(3), Glance { until: 2, ..glance }, 4).expect("another life");
        judge.glance(CallId(4), glance, 8).expect("newer than the last");
        assert!(judge.glance(CallId(5), glance, 7).is_err());
    }
}

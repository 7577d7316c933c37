//! The calls of a run, and what was answered before the judges could know it: a client of the leader may hear of a
//! decision while the leader is still at it.

use super::exactly_once::{Asked, Tries};
use super::linearizability::Floor;
use super::model::Told;
use crate::sim::observation::{Ask, CallId, ClientId, Instant, Read};

/// One call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) id: CallId,
    pub(super) client: ClientId,
    pub(super) ask: Ask,
    pub(super) session: Option<(u64, u64)>,
    /// Its command as a number.
    pub(super) command: u64,
    pub(super) invoked: Instant,
    pub(super) floor: Floor,
    /// The newest term with a leader when it was made.
    pub(super) led_by: u64,
    pub(super) ended: Option<Instant>,
    pub(super) told: Option<Told>,
    /// What a read saw, and at which revision.
    pub(super) saw: Option<(Option<u64>, u64)>,
    /// What a read of more than that saw.
    pub(super) read: Option<Box<Read>>,
    pub(super) refused: bool,
    pub(super) tries: Tries,
}

impl Call {
    pub(super) fn asked(&self) -> Asked {
        Asked { call: self.id, ask: self.ask, session: self.session, command: self.command }
    }
}

/// All of them, by number: the world counts them.
#[derive(Debug, Default)]
pub(super) struct Calls {
    first: u64,
    calls: Vec<Option<Call>>,
    open: u64,
    /// Answered and not yet found in the ledger.
    pub(super) early: Vec<CallId>,
}

impl Calls {
    pub(super) fn begin(&mut self, call: Call) {
        if self.calls.is_empty() {
            self.first = call.id.0;
        }
        let Some(at) = self.position(call.id) else { return };
        if self.calls.len() <= at {
            self.calls.resize(at + 1, None);
        }
        self.calls[at] = Some(call);
        self.open += 1;
    }

    fn position(&self, id: CallId) -> Option<usize> {
        usize::try_from(id.0.checked_sub(self.first)?).ok()
    }

    pub(super) fn get(&mut self, id: CallId) -> Option<&mut Call> {
        let at = self.position(id)?;
        self.calls.get_mut(at)?.as_mut()
    }

    pub(super) fn end(&mut self, id: CallId, at: Instant) -> Option<&mut Call> {
        self.open = self.open.saturating_sub(1);
        let call = self.get(id)?;
        call.ended = Some(at);
        Some(call)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().flatten()
    }

    /// A call that has not ended.
    pub(super) fn open(&self) -> Option<CallId> {
        (self.open > 0).then(|| self.iter().find(|call| call.ended.is_none()).map(|call| call.id))?
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn call(client: u64, ask: Ask, invoked: u64) -> Call {
        Call {
            id: CallId(invoked),
            client: ClientId(client),
            ask,
            session: None,
            command: 0,
            invoked: Instant(invoked),
            floor: Floor(0),
            led_by: 0,
            ended: None,
            told: None,
            saw: None,
            read: None,
            refused: false,
            tries: Tries::default(),
        }
    }

    #[test]
    fn a_call_is_open_until_it_ends() {
        let mut calls = Calls::default();
        calls.begin(call(1, Ask::Delete { key: 1 }, 5));
        calls.begin(call(1, Ask::Delete { key: 1 }, 7));
        assert_eq!(calls.open(), Some(CallId(5)));
        calls.end(CallId(5), Instant(9)).expect("it is there");
        assert_eq!(calls.open(), Some(CallId(7)));
        calls.end(CallId(7), Instant(9)).expect("it is there");
        assert_eq!((calls.open(), calls.iter().count()), (None, 2));
    }
}

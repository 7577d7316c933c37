//! What is told to whom of the clients: what they asked, what they were told.

use super::calls::Call;
use super::exactly_once::{Found, Tries, digest};
use super::linearizability::{Glance, Seen, replay};
use super::model::Told;
use super::{Judges, Mark, Outcome, Sight, durable_acknowledgements, past, search, violated};
use crate::kv;
use crate::sim::observation::{Answer, Ask, CallId, ClientId, Level};
use wal::NodeId;

impl Judges {
    pub(super) fn invoke(
        &mut self,
        client: ClientId,
        id: CallId,
        (ask, command): (Ask, &[u8]),
        session: Option<(u64, u64)>,
    ) -> Outcome {
        let call = Call {
            id,
            client,
            ask,
            session,
            command: digest(command),
            invoked: self.now,
            floor: self.order.floor(),
            led_by: self.newest_leader.0,
            ended: None,
            told: None,
            saw: None,
            read: None,
            refused: false,
            tries: Tries::default(),
        };
        self.counts.operations += 1;
        let asked = call.asked();
        self.calls.begin(call);
        self.once.ask(&asked)
    }

    /// One try of a call is told something.
    pub(super) fn reply(&mut self, id: CallId, reply: &kv::Reply) -> Outcome {
        let Some(call) = self.calls.get(id) else { return Ok(()) };
        let told = Told::of(reply);
        let asked = call.asked();
        if self.sight != Sight::NoDecisions {
            call.tries.hear(id, &told)?;
            if told != Told::Other && self.sight == Sight::Whole {
                self.once.answered(&asked, &told)?;
            }
        }
        Ok(())
    }

    /// A call ends.
    pub(super) fn answer(&mut self, id: CallId, answer: &Answer) -> Outcome {
        let Some(call) = self.calls.end(id, self.now) else { return Ok(()) };
        match answer {
            Answer::Written(reply) => {
                call.told = Some(Told::of(reply));
                let call = call.clone();
                self.counts.writes += 1;
                self.written(&call)
            }
            Answer::Saw { value, revision, at } => {
                call.saw = Some((*value, *revision));
                let call = call.clone();
                self.saw(&call, (*revision, *at))
            }
            Answer::Read(read) => {
                call.read = Some(Box::new(read.clone()));
                let call = call.clone();
                self.counts.ranges += 1;
                self.saw(&call, (read.revision, read.at))
            }
            Answer::Transferred => Ok(()),
            Answer::Refused => {
                call.refused = true;
                let asked = call.asked();
                self.counts.refused += 1;
                self.counts.marks.add(Mark::ReadRefused, u64::from(asked.ask.level().is_some()));
                if self.sight == Sight::NoDecisions { Ok(()) } else { self.once.deny(&asked) }
            }
            Answer::Unknown => {
                self.counts.unknown += 1;
                Ok(())
            }
        }
    }

    fn written(&mut self, call: &Call) -> Outcome {
        if self.sight == Sight::NoDecisions {
            return Ok(());
        }
        if let Some(place) = call.told.as_ref().and_then(Told::place) {
            self.order.answer(call.id, call.floor, place)?;
        }
        if !self.is_found(call)? {
            self.calls.early.push(call.id);
        }
        Ok(())
    }

    fn saw(&mut self, call: &Call, (revision, at): (u64, NodeId)) -> Outcome {
        let Some(level) = call.ask.level() else { return Ok(()) };
        match level {
            Level::Linearizable => self.counts.linearizable_reads += 1,
            Level::Lease => self.counts.lease_reads += 1,
            Level::Eventual => self.counts.eventual_reads += 1,
        }
        if self.sight == Sight::NoDecisions {
            return Ok(());
        }
        if level == Level::Eventual {
            let at = self.seat_of(at);
            let seat = &self.seats[at];
            let since = if seat.began <= call.invoked { seat.life } else { u64::MAX };
            let glance = Glance { client: call.client, at: seat.id, since, until: seat.life };
            self.order.glance(call.id, glance, revision)?;
        } else {
            self.order.answer(call.id, call.floor, (revision, false))?;
            self.counts.marks.add(Mark::LeaseRead, u64::from(level == Level::Lease));
            let later = call.led_by < self.newest_leader.0;
            self.counts.marks.add(Mark::ReadAcrossLeaders, u64::from(later));
        }
        if !self.is_found(call)? {
            self.calls.early.push(call.id);
        }
        Ok(())
    }

    /// Compares an answer with the ledger; false if the ledger has not come that far.
    fn is_found(&self, call: &Call) -> Outcome<bool> {
        if self.sight != Sight::Whole {
            return Ok(true);
        }
        if let Some(read) = &call.read {
            return past::judge(self.once.model(), self.terms.changes, (call.id, call.ask), read);
        }
        match (call.ask, &call.told, call.saw) {
            (Ask::Get { key, .. }, _, Some((value, revision))) => {
                replay(self.once.model(), Seen { call: call.id, key, value, revision })
            }
            (_, Some(Told::Other) | None, _) => Ok(true),
            (_, Some(told), _) => Ok(self.once.answered(&call.asked(), told)? == Found::There),
        }
    }

    /// The ledger has grown: answers that came before it are compared now.
    pub(super) fn judge_early(&mut self) -> Outcome {
        if self.calls.early.is_empty() {
            return Ok(());
        }
        let mut early = std::mem::take(&mut self.calls.early);
        let mut failed = Ok(());
        early.retain(|&id| {
            let Some(call) = self.calls.get(id).map(|call| call.clone()) else { return false };
            match self.is_found(&call) {
                Ok(found) => !found,
                Err(violation) => {
                    failed = Err(violation);
                    false
                }
            }
        });
        self.calls.early = early;
        failed
    }

    /// What is asked of all calls once no more come.
    pub(super) fn judge_calls(&mut self) -> Outcome {
        if self.sight == Sight::NoDecisions {
            return Ok(());
        }
        if self.sight == Sight::Whole
            && let Some(&id) = self.calls.early.first()
        {
            let call = self.calls.get(id);
            violated!(
                true,
                durable_acknowledgements::NAME,
                "a client was told what no ledger holds: {call:?}, at revision {} of {}",
                self.once.model().revision(),
                self.ledger.len()
            );
        }
        for call in self.calls.iter() {
            let unknown = call.told.is_none() && call.saw.is_none() && call.read.is_none() && !call.refused;
            if unknown && call.ask.value().is_some() {
                let happened = self.once.happened(&call.asked()) == Some(true);
                let mark = if happened { Mark::UnknownTookEffect } else { Mark::UnknownWithoutEffect };
                self.counts.marks.add(mark, 1);
            }
        }
        let searched = search::judge(self.calls.iter())?;
        self.counts.searched_keys += searched.keys;
        self.counts.searched_operations += searched.operations;
        self.counts.skipped_keys += searched.skipped;
        Ok(())
    }
}

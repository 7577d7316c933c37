//! The whole cluster: three nodes, the messages on the way, and what has happened that no node need remember.

use super::Scope;
use super::local::{Event, Flush, Hang, NAMINGS, NODES};
use super::marks::Marks;
use super::tables::{Facts, Input, Lane, LocalId, MessageId, Parcel, Tables, What};
use crate::raft::RoleName;
use wal::{EntryId, Term};

/// The most terms a scope may have.
pub(super) const MAX_TERMS: usize = 5;

/// A state of everything.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct World {
    pub locals: [LocalId; NODES],
    /// Ascending.
    pub messages: Vec<MessageId>,
    pub proposals: u8,
    pub crashes: u8,
    /// Who led each term (place + 1).
    pub leaders: [u8; MAX_TERMS],
    /// What has ever been decided, as a number of a history.
    pub decided: u32,
}

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Action {
    pub place: usize,
    pub input: Input,
}

/// A world after an action.
#[derive(Debug)]
pub(super) enum Successor {
    /// Nothing has changed.
    Same,
    World,
    /// A property does not hold.
    Broken(String),
}

impl Clone for World {
    fn clone(&self) -> Self {
        Self { messages: self.messages.clone(), ..*self }
    }

    fn clone_from(&mut self, other: &Self) {
        let mut messages = std::mem::take(&mut self.messages);
        messages.clone_from(&other.messages);
        *self = Self { messages, ..*other };
    }
}

impl World {
    pub fn founded(tables: &mut Tables) -> Result<Self, String> {
        let mut locals = [0; NODES];
        for (place, local) in locals.iter_mut().enumerate() {
            let founded = super::local::Local::founded(place, tables.terms)?;
            *local = tables.keep_local(founded);
        }
        let decided = tables.facts(locals[0]).decided;
        Ok(Self { locals, messages: Vec::new(), proposals: 0, crashes: 0, leaders: [0; MAX_TERMS], decided })
    }

    /// Everything that can happen, in an order that depends on nothing else.
    pub fn actions(&self, scope: &Scope, tables: &Tables, into: &mut Vec<Action>) {
        into.clear();
        for place in 0..NODES {
            let local = tables.local(self.locals[place]);
            let facts = tables.facts(self.locals[place]);
            let mut offer = |event| {
                if local.can(event) {
                    into.push(Action { place, input: Input::event(event) });
                }
            };
            if facts.term.0 < scope.terms {
                offer(Event::Campaigns);
            }
            if scope.waiting {
                offer(Event::Waits);
            }
            if self.proposals < scope.commands {
                offer(Event::Proposes);
            }
            if scope.sending_again {
                offer(Event::SendsAgain);
            }
            if scope.refusals {
                // A refusal names its sender's term, once that is on disk.
                let mut heard = [Term::ZERO; NODES];
                for other in (0..NODES).filter(|&other| other != place) {
                    let spoken = tables.facts(self.locals[other]).saved;
                    if !heard.contains(&spoken) {
                        heard[other] = spoken;
                        offer(Event::HearsOf(spoken));
                    }
                }
            }
            offer(Event::Flushes);
            if facts.hangs || self.crashes < scope.crashes {
                offer(Event::Crashes);
            }
        }
        for &message in &self.messages {
            into.push(Action { place: usize::from(tables.parcel(message).to), input: Input::hears(message) });
        }
        if scope.flush == Flush::UntilItHangs && self.crashes < scope.crashes {
            for n in 0..into.len() {
                let Action { place, input } = into[n];
                if input.what != What::Event(Event::Crashes) {
                    into.push(Action { place, input: Input { hang: Hang::Now, ..input } });
                }
            }
        }
    }

    /// What follows from an action, in `next`, whose room is used again.
    pub fn after(
        &self,
        action: Action,
        scope: &Scope,
        tables: &mut Tables,
        next: &mut Self,
        marks: &mut Marks,
    ) -> Successor {
        let Action { place, input } = action;
        let before = self.locals[place];
        let outcome = match tables.step(before, input) {
            Ok(outcome) => outcome,
            Err(why) => return Successor::Broken(why),
        };
        // With nothing to flush, a disk hangs later.
        let hangs_early = input.hang == Hang::Now && !tables.facts(outcome.local).unflushed;
        let quiet = || tables.sends(outcome).iter().all(|message| self.messages.contains(message));
        let consumes = !scope.repeats && matches!(input.what, What::Hears(_));
        if hangs_early || (outcome.local == before && !consumes && quiet()) {
            return Successor::Same;
        }
        next.clone_from(self);
        next.locals[place] = outcome.local;
        marks.add(outcome.marks);
        next.crashes += u8::from(input.hang == Hang::Now);
        match input.what {
            What::Event(Event::Proposes) => next.proposals += 1,
            What::Event(Event::Crashes) if !tables.facts(before).hangs => next.crashes += 1,
            What::Hears(message) if !scope.repeats => next.messages.retain(|&other| other != message),
            _ => {}
        }
        if next.crashes != self.crashes
            && next.crashes == scope.crashes
            && let Err(why) = next.spare(tables)
        {
            return Successor::Broken(why);
        }
        for &message in tables.sends(outcome) {
            next.post(message, scope, tables);
        }
        match next.bury(place, tables).and_then(|()| next.record(place, tables)) {
            Ok(()) => Successor::World,
            Err(why) => Successor::Broken(why),
        }
    }

    /// No crash is left: what only restarts read tells states apart no longer.
    fn spare(&mut self, tables: &mut Tables) -> Result<(), String> {
        for place in 0..NODES {
            let hangs = tables.facts(self.locals[place]).hangs;
            if !hangs && tables.local(self.locals[place]).can(Event::IsSpared) {
                self.locals[place] = tables.step(self.locals[place], Input::event(Event::IsSpared))?.local;
            }
        }
        Ok(())
    }

    fn post(&mut self, message: MessageId, scope: &Scope, tables: &Tables) {
        let Err(_) = self.messages.binary_search(&message) else { return };
        if scope.only_newest {
            let new = tables.parcel(message);
            let same = |&other: &MessageId| {
                let old: &Parcel = tables.parcel(other);
                (old.from, old.to, old.lane) == (new.from, new.to, new.lane)
            };
            if let Some(at) = self.messages.iter().position(same) {
                let old = tables.parcel(self.messages[at]);
                // An acceptance says all that a lower one of the same term says.
                if old.term == new.term && new.accepted.is_some() && old.accepted >= new.accepted {
                    return;
                }
                self.messages.remove(at);
            }
        }
        let at = self.messages.binary_search(&message).unwrap_or_else(|at| at);
        self.messages.insert(at, message);
    }

    /// Takes messages away that can never do anything again.
    fn bury(&mut self, changed: usize, tables: &mut Tables) -> Result<(), String> {
        let mut kept = 0;
        for at in 0..self.messages.len() {
            let message = self.messages[at];
            let (to, from) =
                (usize::from(tables.parcel(message).to), usize::from(tables.parcel(message).from));
            if (to == changed || from == changed) && self.is_dead(message, to, tables)? {
                continue;
            }
            self.messages[kept] = message;
            kept += 1;
        }
        self.messages.truncate(kept);
        Ok(())
    }

    /// Whether a message does nothing now (the core is asked) and never will, because of what the receiver has on disk.
    fn is_dead(&self, message: MessageId, to: usize, tables: &mut Tables) -> Result<bool, String> {
        let at = self.locals[to];
        let parcel = tables.parcel(message);
        let &Facts { role, on_disk, .. } = tables.facts(at);
        let over = on_disk.term > parcel.term
            || (on_disk.term == parcel.term
                && match parcel.lane {
                    Lane::Candidacy => on_disk.vote.is_some(),
                    Lane::Vote => role != RoleName::Candidate,
                    Lane::Appended => role != RoleName::Leader,
                    Lane::Append | Lane::Heartbeat | Lane::TimeoutNow => false,
                });
        if !over {
            return Ok(false);
        }
        let regrant = parcel.lane == Lane::Candidacy;
        let outcome = match tables.step(at, Input::hears(message)) {
            Ok(outcome) => outcome,
            // It is found when the message is delivered.
            Err(_) => return Ok(false),
        };
        Ok(outcome.local == at && (regrant || tables.sends(outcome).is_empty()))
    }

    /// Notes who leads and what is decided; both must agree with what was noted before.
    fn record(&mut self, place: usize, tables: &Tables) -> Result<(), String> {
        let facts = tables.facts(self.locals[place]);
        if facts.role == RoleName::Leader {
            let term = facts.term.0;
            let mark = u8::try_from(place + 1).expect("three nodes");
            let slot = &mut self.leaders[usize::try_from(term - 1).expect("few terms")];
            if *slot != 0 && *slot != mark {
                return Err(format!(
                    "election safety: nodes {slot} and {mark} both lead in term {term} (thesis 3.2)"
                ));
            }
            *slot = mark;
        }
        if facts.decided == self.decided {
            return Ok(());
        }
        let known = &tables.history(self.decided).entries;
        let theirs = &tables.history(facts.decided).entries;
        let common = known.len().min(theirs.len());
        if known[common - 1] != theirs[common - 1] {
            return Err(format!(
                "state machine safety: node {} decides {}, where {} was decided before (thesis 3.6.3)",
                place + 1,
                name(theirs[common - 1]),
                name(known[common - 1]),
            ));
        }
        if theirs.len() > common {
            self.decided = facts.decided;
        }
        Ok(())
    }

    /// Checks what must hold in every state.
    pub fn check(&self, tables: &Tables, marks: &mut Marks) -> Result<(), String> {
        let facts = self.locals.map(|id| tables.facts(id));
        let decided = tables.history(self.decided);
        let last = *decided.entries.last().expect("the founding entry is decided");
        let holders = tables.disks_with(&facts, last);
        if holders * 2 <= NODES {
            return Err(format!("durability: {} is decided, and on {holders} of 3 disks", name(last)));
        }
        for (place, this) in facts.iter().enumerate() {
            let log = &tables.history(this.log).entries;
            if this.role == RoleName::Leader
                && this.term > last.term
                && log.get(decided.entries.len() - 1) != Some(&last)
            {
                return Err(format!(
                    "leader completeness: node {} leads in term {} without {}, which is decided (thesis 3.6.3)",
                    place + 1,
                    this.term,
                    name(last)
                ));
            }
            for other in &facts[..place] {
                let theirs = &tables.history(other.log).entries;
                let common = log.len().min(theirs.len());
                // The same entry at the common end vouches for all before it.
                if log[common - 1] == theirs[common - 1] {
                    continue;
                }
                if let Some((ours, _)) =
                    log.iter().zip(theirs).find(|(ours, theirs)| ours.term == theirs.term && ours != theirs)
                {
                    return Err(format!("log matching: two logs differ in {} (thesis 3.5)", name(*ours)));
                }
            }
        }
        marks.note_state(&facts, decided, self.proposals, tables);
        Ok(())
    }

    /// One hash for all worlds that differ only by the names of their nodes.
    pub fn canonical(&self, tables: &Tables) -> u128 {
        let mut sums = [0_u128; NAMINGS.len()];
        let locals = self.locals.iter().map(|&local| tables.local_hashes(local));
        for hashes in locals.chain(self.messages.iter().map(|&message| tables.parcel_hashes(message))) {
            for (sum, hash) in sums.iter_mut().zip(hashes) {
                *sum = sum.wrapping_add(*hash);
            }
        }
        let mut least = u128::MAX;
        for (naming, sum) in NAMINGS.iter().zip(sums) {
            let mut facts = u128::from(self.decided) << 64 | u128::from(self.proposals) << 8;
            facts |= u128::from(self.crashes);
            for (term, &leader) in self.leaders.iter().enumerate() {
                let named = if leader == 0 { 0 } else { naming[usize::from(leader) - 1] + 1 };
                facts |= u128::from(named) << (16 + 4 * term);
            }
            // Spread, so that the facts do not meet the sum of the rest halfway.
            let facts = facts.wrapping_add(1).wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645);
            least = least.min(sum.wrapping_add(facts ^ facts >> 64));
        }
        // Zero marks a free place in the set of the visited.
        least.max(1)
    }

    /// Packs it for the queue.
    pub fn pack(&self, into: &mut Vec<u8>) {
        for local in self.locals {
            into.extend_from_slice(&local.to_le_bytes());
        }
        into.extend_from_slice(&self.decided.to_le_bytes());
        into.extend_from_slice(&self.leaders);
        into.extend_from_slice(&[
            self.proposals,
            self.crashes,
            u8::try_from(self.messages.len()).expect("fewer messages than that"),
        ]);
        for message in &self.messages {
            into.extend_from_slice(&message.to_le_bytes());
        }
    }

    /// Unpacks what [`pack`](Self::pack) packed, and says how many bytes that were.
    pub fn unpack(&mut self, bytes: &[u8]) -> usize {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        self.locals = [word(0), word(4), word(8)];
        self.decided = word(12);
        self.leaders = bytes[16..16 + MAX_TERMS].try_into().expect("as long");
        let [proposals, crashes, messages] = bytes[16 + MAX_TERMS..19 + MAX_TERMS] else {
            unreachable!("three bytes")
        };
        (self.proposals, self.crashes) = (proposals, crashes);
        let start = 19 + MAX_TERMS;
        self.messages.clear();
        self.messages.extend((0..usize::from(messages)).map(|n| word(start + 4 * n)));
        start + 4 * usize::from(messages)
    }
}

/// An entry as people write it: index/term.
pub(super) fn name(entry: EntryId) -> String {
    format!("entry {}/{}", entry.index, entry.term)
}

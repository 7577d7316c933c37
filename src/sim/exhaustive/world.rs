//! The whole cluster: three nodes, the messages on the way, and what has happened that no node need remember.

use super::Scope;
use super::local::{Event, Flush, Hang, NAMINGS, NODES};
use super::marks::Marks;
use super::tables::{Input, Lane, LocalId, MessageId, Parcel, Tables, What};
use crate::raft::RoleName;
use wal::{EntryId, Term};

/// The most terms a scope may have.
pub(super) const MAX_TERMS: usize = 5;

/// A state of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    World(World),
    /// A property does not hold.
    Broken(String),
}

impl World {
    pub fn founded(tables: &mut Tables) -> Result<Self, String> {
        let mut locals = [0; NODES];
        for (place, local) in locals.iter_mut().enumerate() {
            let founded = super::local::Local::founded(place, tables.terms)?;
            *local = tables.keep_local(founded);
        }
        let founding = tables.local(locals[0]).log.clone();
        let decided = tables.keep_decided(&founding);
        Ok(Self { locals, messages: Vec::new(), proposals: 0, crashes: 0, leaders: [0; MAX_TERMS], decided })
    }

    /// Everything that can happen, in an order that depends on nothing else.
    pub fn actions(&self, scope: &Scope, tables: &Tables, into: &mut Vec<Action>) {
        into.clear();
        for place in 0..NODES {
            let local = tables.local(self.locals[place]);
            let mut offer = |event| {
                if local.can(event) {
                    into.push(Action { place, input: Input::event(event) });
                }
            };
            if local.raft.term().0 < scope.terms {
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
                    let spoken = tables.local(self.locals[other]).raft.hard_states().1.term;
                    if !heard.contains(&spoken) {
                        heard[other] = spoken;
                        offer(Event::HearsOf(spoken));
                    }
                }
            }
            offer(Event::Flushes);
            if local.hangs || self.crashes < scope.crashes {
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

    /// What follows from an action.
    pub fn after(&self, action: Action, scope: &Scope, tables: &mut Tables, marks: &mut Marks) -> Successor {
        let Action { place, input } = action;
        let before = self.locals[place];
        let outcome = match tables.step(before, input) {
            Ok(outcome) => outcome.clone(),
            Err(why) => return Successor::Broken(why.clone()),
        };
        let mut next = self.clone();
        next.locals[place] = outcome.local;
        if input.hang == Hang::Now {
            // With nothing to flush, it hangs later.
            if !tables.local(outcome.local).unflushed {
                return Successor::Same;
            }
            next.crashes += 1;
        }
        match input.what {
            What::Event(Event::Proposes) => next.proposals += 1,
            What::Event(Event::Crashes) if !tables.local(before).hangs => next.crashes += 1,
            What::Hears(message) if !scope.repeats => next.messages.retain(|&other| other != message),
            _ => {}
        }
        marks.note_step(tables.local(before), tables.local(outcome.local), input.what, tables);
        if next.crashes != self.crashes && next.crashes == scope.crashes {
            if let Err(why) = next.spare(tables) {
                return Successor::Broken(why);
            }
        }
        for &message in &outcome.sends {
            next.post(message, scope, tables);
        }
        if next.messages == self.messages && next.locals == self.locals && next.crashes == self.crashes {
            return Successor::Same;
        }
        if let Err(why) = next.bury(place, tables).and_then(|()| next.record(place, tables)) {
            return Successor::Broken(why);
        }
        Successor::World(next)
    }

    /// No crash is left: what only restarts read tells states apart no longer.
    fn spare(&mut self, tables: &mut Tables) -> Result<(), String> {
        for place in 0..NODES {
            let local = tables.local(self.locals[place]);
            if !local.hangs && local.can(Event::IsSpared) {
                let spared = tables.step(self.locals[place], Input::event(Event::IsSpared));
                self.locals[place] = spared.clone()?.local;
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
        let local = tables.local(at);
        let role = local.raft.role();
        let on_disk = local.disk.hard;
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
        Ok(outcome.local == at && (regrant || outcome.sends.is_empty()))
    }

    /// Notes who leads and what is decided; both must agree with what was noted before.
    fn record(&mut self, place: usize, tables: &mut Tables) -> Result<(), String> {
        let local = tables.local(self.locals[place]);
        if local.raft.role() == RoleName::Leader {
            let term = local.raft.term().0;
            let mark = u8::try_from(place + 1).expect("three nodes");
            let slot = &mut self.leaders[usize::try_from(term - 1).expect("few terms")];
            if *slot != 0 && *slot != mark {
                return Err(format!(
                    "election safety: nodes {slot} and {mark} both lead in term {term} (thesis 3.2)"
                ));
            }
            *slot = mark;
        }
        let commit = usize::try_from(local.raft.commit().0).expect("short logs");
        let history = &tables.decided[self.decided as usize];
        let common = commit.min(history.len());
        let theirs = &local.log[..commit];
        if theirs[common - 1] != history[common - 1] {
            return Err(format!(
                "state machine safety: node {} decides {} at {common}, where {} was decided before (thesis 3.6.3)",
                place + 1,
                name(theirs[common - 1]),
                name(history[common - 1]),
            ));
        }
        if commit > history.len() {
            let theirs = theirs.to_vec();
            self.decided = tables.keep_decided(&theirs);
        }
        Ok(())
    }

    /// Checks what must hold in every state.
    pub fn check(&self, tables: &Tables, marks: &mut Marks) -> Result<(), String> {
        let locals = self.locals.map(|id| tables.local(id));
        let history = &tables.decided[self.decided as usize];
        let last = *history.last().expect("the founding entry is decided");
        let holders = locals.iter().filter(|local| local.disk.holds(last)).count();
        if holders * 2 <= NODES {
            return Err(format!("durability: {} is decided, and on {holders} disks only", name(last)));
        }
        for (place, local) in locals.iter().enumerate() {
            let at = usize::try_from(last.index.0).expect("short logs") - 1;
            if local.raft.role() == RoleName::Leader
                && local.raft.term() > last.term
                && local.log.get(at) != Some(&last)
            {
                return Err(format!(
                    "leader completeness: node {} leads in term {} without {}, which is decided (thesis 3.6.3)",
                    place + 1,
                    local.raft.term(),
                    name(last)
                ));
            }
            for other in &locals[..place] {
                for (ours, theirs) in local.log.iter().zip(&other.log) {
                    if ours.term == theirs.term && ours.hash != theirs.hash {
                        return Err(format!("log matching: two logs differ in {} (thesis 3.5)", name(*ours)));
                    }
                }
            }
        }
        marks.note_state(&locals, history, self.proposals);
        Ok(())
    }

    /// One hash for all worlds that differ only by the names of their nodes.
    pub fn canonical(&self, tables: &Tables) -> u128 {
        let mut least = u128::MAX;
        for (n, naming) in NAMINGS.iter().enumerate() {
            let mut sum = 0_u128;
            for &local in &self.locals {
                sum = sum.wrapping_add(tables.kept(local).hashes[n]);
            }
            for &message in &self.messages {
                sum = sum.wrapping_add(tables.parcel(message).hashes[n]);
            }
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

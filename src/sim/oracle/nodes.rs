//! What is told to whom of the nodes: how they changed, what they said, what their disks gave back.

use super::durable_acknowledgements::{self, Copies};
use super::equal_digests::State;
use super::log_matching::Sighting;
use super::recovery::{self, Recovered};
use super::seat::Summary;
use super::sometimes::refuses;
use super::state_machine_safety::{Decider, position};
use super::wire_tap::{self, Leaving};
use super::{Judges, Mark, Outcome, Sight, monotony};
use crate::kv::Store;
use crate::node::{Message, Node};
use crate::raft::message::{Body, Candidacy, Election, Standing, Vote};
use crate::raft::{self, Durability};
use crate::sim::observation::{Truth, Verdict};
use std::ops::Range;
use wal::{Frame, LogIndex, NodeId};

/// A batch of so many commands is a large one.
const LARGE_BATCH: u32 = 4;

impl Judges {
    pub(super) fn recover(&mut self, id: NodeId, verdict: &Verdict, disk: &Truth) -> Outcome {
        self.counts.recoveries += 1;
        let recovered = recovery::judge(id, verdict, disk)?;
        let at = self.seat_of(id);
        let seat = &mut self.seats[at];
        seat.flush(disk);
        let marks = &mut self.counts.marks;
        match recovered {
            Recovered::Everything => {}
            Recovered::Repairing | Recovered::Refused => {
                self.counts.damaged += 1;
                let refused = recovered == Recovered::Refused;
                marks.add(if refused { Mark::DamageRefused } else { Mark::DamageFound }, 1);
                if disk.log.len() > seat.lost.len() {
                    seat.lost.clone_from(&disk.log);
                }
                let last = disk.log.last().copied();
                seat.held = seat.held.into_iter().chain(last).max_by_key(|held| (held.term, held.index));
            }
        }
        if let Verdict::Opened { log, hard_state, torn, .. } = verdict {
            marks.add(Mark::TornTailCut, u64::from(*torn));
            let survived = log.len() > disk.log.len();
            marks.add(Mark::UnflushedSurvived, u64::from(survived));
            marks.add(Mark::EmptyRecovery, u64::from(log.is_empty() && seat.life > 0));
            for &entry in log {
                self.matching.see(entry, id)?;
            }
            // What the disk gave is what it holds from now on.
            seat.flushed.log.clone_from(log);
            seat.flushed.hard_state = *hard_state;
            seat.flushed.commit = disk.commit.min(LogIndex(log.len() as u64));
            seat.log.clone_from(log);
        }
        Ok(())
    }

    pub(super) fn start(&mut self, node: &Node<Store>) -> Outcome {
        let config = node.raft().config();
        self.election_timeout = self.election_timeout.max(config.election_timeout);
        let at = self.seat_of(config.id);
        let seat = &mut self.seats[at];
        seat.life += 1;
        seat.began = self.now;
        seat.up = true;
        seat.candidacy = None;
        let now = Summary::of(node);
        monotony::begins(seat.id, seat.flushed.hard_state, seat.flushed.log.last(), &now)?;
        seat.suspect = self.durability == Durability::MemFirst && now.standing == Standing::Suspect;
        seat.seen = Summary { term: now.term, standing: now.standing, ..Summary::default() };
        // A life that ended in the middle of a turn may have left entries on the disk that nobody looked at.
        for frame in node.raft().log().cached() {
            self.keep_body(frame);
        }
        self.count_memories();
        self.change(at, node, now)
    }

    fn keep_body(&mut self, frame: &Frame) {
        if frame.index().0 > self.ledger.len() as u64 {
            let led = self.time.led();
            self.bodies.entry((frame.index().0, frame.term().0)).or_insert_with(|| (frame.clone(), led));
        }
    }

    /// Looks at a node and its disk; which seat is its.
    pub(super) fn look(&mut self, node: &Node<Store>, disk: &Truth) -> Outcome<usize> {
        let at = self.seat_of(node.raft().config().id);
        let seat = &mut self.seats[at];
        if seat.flushed.hard_state != disk.hard_state {
            monotony::votes(seat.id, seat.flushed.hard_state, disk.hard_state)?;
        }
        let (held, commit) = (seat.flushed.log.len(), seat.flushed.commit);
        if let Some(kept) = seat.flush(disk) {
            monotony::drops(seat.id, commit, kept..held)?;
        }
        let now = Summary::of(node);
        if now.leads() {
            self.time.lead((seat.id, seat.life), self.now, self.terms.longest_step);
        }
        if seat.seen != now {
            if !now.leads() {
                self.time.follow(seat.id);
            }
            monotony::lives(seat.id, &seat.seen, &now)?;
            self.change(at, node, now)?;
        }
        Ok(at)
    }

    /// A node has changed.
    fn change(&mut self, at: usize, node: &Node<Store>, now: Summary) -> Outcome {
        self.counts.changes += 1;
        let seat = &mut self.seats[at];
        let before = std::mem::replace(&mut seat.seen, now);
        let id = seat.id;
        seat.dropped.clear();
        if seat.log.last() != Some(&now.last) {
            let kept = seat.follow(node.raft().log());
            monotony::truncates(id, before.commit, kept)?;
            for &entry in &seat.log[kept..] {
                if self.matching.see(entry, id)? == Sighting::First
                    && let Some(frame) = node.raft().log().frame(entry.index)
                {
                    let large = frame.command_count() >= LARGE_BATCH;
                    self.counts.marks.add(Mark::LargeBatch, u64::from(large));
                    let led = self.time.led();
                    self.bodies.insert((entry.index.0, entry.term.0), (frame.clone(), led));
                }
            }
        }
        self.counts.marks.changed(&before, &now, &seat.dropped);
        if now.standing == Standing::Whole {
            seat.suspect = false;
            let repaired = seat.held.take().is_some();
            self.counts.marks.add(Mark::DamageRepaired, u64::from(repaired));
        }
        if now.leads() && (!before.leads() || before.term != now.term) {
            self.election.claim(now.term, id)?;
            self.newest_leader = self.newest_leader.max(now.term);
            if self.sight != Sight::NoDecisions {
                self.ledger.lead(Decider { id, term: now.term, log: &self.seats[at].log })?;
            }
            let rivals = self.seats.iter().filter(|seat| seat.up && seat.seen.leads()).count();
            self.counts.marks.add(Mark::TwoLeaders, u64::from(rivals > 1));
        }
        if now.leads() {
            self.note_leader(at);
        }
        if self.sight == Sight::NoDecisions {
            return Ok(());
        }
        if now.commit != before.commit {
            let decider = Decider { id, term: now.term, log: &self.seats[at].log };
            let new = self.ledger.decide(decider, now.commit)?;
            self.decided(id, new)?;
        }
        if now.applied != before.applied {
            let machine = node.machine();
            let state = State {
                digest: machine.digest(),
                revision: machine.revision().0,
                keys: machine.len() as u64,
                leases: machine.leases() as u64,
            };
            let replayed = position(now.applied)
                .filter(|_| self.sight == Sight::Whole)
                .and_then(|position| self.once.stand_at(position));
            self.digests.see(id, now.applied, state, replayed)?;
        }
        Ok(())
    }

    /// Entries at these positions of the ledger are new there.
    fn decided(&mut self, id: NodeId, new: Range<usize>) -> Outcome {
        let Some(last) = new.clone().next_back() else { return Ok(()) };
        let entry = self.ledger.entries()[last];
        // The founders are decided by being founders. What holds an entry holds those before it.
        if self.durability == Durability::DiskFirst && last > 0 {
            let disks = self.seats.iter().map(|seat| Copies { flushed: &seat.flushed.log, lost: &seat.lost });
            durable_acknowledgements::decided(id, entry, last, disks)?;
        }
        let older = new.start > 0 && self.ledger.entries()[new.start].term < entry.term;
        self.counts.marks.add(Mark::OldTermDecided, u64::from(older));
        for position in new {
            let entry = self.ledger.entries()[position];
            let body = self.bodies.remove(&(entry.index.0, entry.term.0));
            match body {
                Some((frame, seen)) if self.sight == Sight::Whole => {
                    self.time.decide(&frame, seen, self.terms.fastest_ppm)?;
                    self.once.decide(&frame)?;
                }
                Some(_) => {}
                None => {
                    self.counts.blind += 1;
                    self.sight = Sight::NoReplay;
                }
            }
        }
        self.judge_early()
    }

    pub(super) fn tap(&mut self, at: usize, node: &Node<Store>, to: NodeId, message: &Message) -> Outcome {
        self.counts.messages += 1;
        let Message::Raft(message) = message else {
            let forwarded = matches!(message, Message::Forward(_));
            self.counts.marks.add(Mark::Forwarded, u64::from(forwarded));
            return Ok(());
        };
        let seat = &self.seats[at];
        let from = seat.id;
        wire_tap::tap(Leaving {
            from,
            to,
            message,
            disk: seat.flushed.hard_state,
            flushed: &seat.flushed.log,
            log: &seat.log,
            leased: matches!(message.body, Body::TimeoutNow) && node.raft().lease().is_some(),
            reached: node.raft().hard_states().0,
            durability: self.durability,
        })?;
        let raft::Message { term, body } = message;
        self.counts.marks.sent(body, node.raft().log().first_cached().0);
        match body {
            Body::Candidacy(candidacy) => self.seats[at].candidacy = Some((*term, *candidacy)),
            Body::Append(append) => {
                self.election.claim(*term, from)?;
                self.matching.see(append.previous, from)?;
                for frame in &append.frames {
                    self.matching.see(frame.id(), from)?;
                }
            }
            Body::Heartbeat(_) | Body::TimeoutNow => self.election.claim(*term, from)?,
            Body::Vote(vote) => self.vote(at, to, *term, vote)?,
            Body::Appended(_) | Body::Alive(_) => {}
        }
        Ok(())
    }

    /// A vote leaves; what it answers is known if the candidate's question was heard.
    fn vote(&mut self, at: usize, to: NodeId, term: wal::Term, vote: &Vote) -> Outcome {
        let candidate = self.seat_of(to);
        let Some((_, asked)) = self.seats[candidate].candidacy else { return Ok(()) };
        let seat = &self.seats[at];
        if refuses(vote) {
            let free = seat.flushed.hard_state.vote.is_none_or(|vote| vote == to);
            self.counts.marks.refused(&seat.seen, vote, &asked, free);
            return Ok(());
        }
        let real = vote.election != Election::PreVote;
        let in_term = self.seats[candidate].candidacy.is_some_and(|(asked, _)| asked == term);
        let Candidacy { election, .. } = asked;
        if let (Some(held), true) = (seat.held, real && in_term && election != Election::PreVote) {
            recovery::votes(seat.id, held, to, &asked)?;
        }
        Ok(())
    }
}

//! Elections: who may ask, who may answer yes, and what becomes of the asker (thesis 3.4, 3.6.1, 4.2.3, 9.6).
//!
//! A candidate first asks whether it could win (pre-vote) and raises its term only then, so a node that was cut off
//! does not disturb a working group. A voter that has heard from a leader within the promise (the thesis's minimum election timeout) refuses both:
//! that refusal is the other half of the leader's lease.

use super::message::{Body, Candidacy, Decision, Election, Message, Standing, Vote};
use super::quorum::{Ballot, Tally};
use super::time::Count;
use super::timer::Timer;
use super::{FOUNDING, Leading, MAX_PROMISE, Mono, Now, Raft, Role, Votes, progress::Progress, read::Probes};
use std::collections::BTreeMap;
use std::time::Duration;
use wal::{EntryId, FrameBuilder, FrameHead, HardState, NodeId, Term};

impl Raft {
    /// The rules about terms that hold for every message (thesis figure 3.1, "Rules for Servers"). Returns whether the
    /// message is to be handled.
    pub(super) fn admit(&mut self, now: Now, from: NodeId, message: &Message) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        match (message.term.cmp(&self.hard.term), &message.body) {
            // Asking about a term changes nothing.
            (_, Body::Candidacy(Candidacy { election: Election::PreVote, .. }))
                if !wal::mutant!("prevote_raises_term") =>
            {
                true
            }
            (Greater, Body::Vote(Vote { election: Election::PreVote, decision: Decision::Granted, .. }))
                if !wal::mutant!("prevote_grant_taken_for_a_term") =>
            {
                true
            }
            (Greater, Body::Candidacy(candidacy)) => {
                // Thesis 4.2.3: a server that hears from a leader does not even take over the term.
                if candidacy.election == Election::Vote && self.is_promised(now) {
                    return false;
                }
                self.become_follower(now, message.term, None);
                true
            }
            (Greater, Body::Append(_) | Body::Heartbeat(_)) => {
                self.become_follower(now, message.term, Some(from));
                true
            }
            (Greater, _) => {
                self.become_follower(now, message.term, None);
                true
            }
            (Equal, Body::Append(_) | Body::Heartbeat(_)) => {
                // Election Safety (thesis 3.2): a second leader of one term is no leader.
                if self.leader.is_some_and(|leader| leader != from) {
                    self.counters.malformed += 1;
                    return false;
                }
                if self.leader.is_none() || !matches!(self.role, Role::Follower) {
                    self.become_follower(now, message.term, Some(from));
                }
                true
            }
            (Equal, _) => true,
            // A leader of the past learns its term is over; without this, a node that pre-vote keeps at a higher term
            // could never be reached again.
            (Less, Body::Append(_) | Body::Heartbeat(_) | Body::Candidacy(_))
                if !wal::mutant!("past_leader_not_told") =>
            {
                self.send(from, self.vote(Election::Vote, Decision::Refused));
                false
            }
            (Less, _) => false,
        }
    }

    /// Whether this node has told a leader, by hearing from it, that it will not vote for another yet.
    fn is_promised(&self, now: Now) -> bool {
        if matches!(self.role, Role::Leader(_)) {
            return true; // It steps down by itself once a quorum is silent.
        }
        self.promised_until.is_some_and(|until| now.mono < until) && !wal::mutant!("vote_while_promised")
    }

    fn vote(&self, election: Election, decision: Decision) -> Body {
        Body::Vote(Vote { election, decision, standing: self.standing() })
    }

    pub(super) fn handle_candidacy(&mut self, now: Now, from: NodeId, term: Term, candidacy: Candidacy) {
        self.note_standing(from, candidacy.standing);
        let last = self.log.last();
        // Thesis 3.6.1: the candidate's log must be at least as up to date as the voter's.
        let up_to_date = (candidacy.last_term, candidacy.last_index) >= (last.term, last.index)
            || wal::mutant!("vote_for_stale_log");
        match candidacy.election {
            Election::PreVote => {
                let grant = term > self.hard.term
                    && up_to_date
                    && !self.is_promised(now)
                    && self.may_vote_for(&candidacy);
                if grant {
                    // No promise: it leaves at once, in the term that was asked about.
                    let body = self.vote(Election::PreVote, Decision::Granted);
                    self.outputs.push_back(super::Output::Send { to: from, message: Message { term, body } });
                } else {
                    self.send(from, self.vote(Election::PreVote, Decision::Refused));
                }
            }
            Election::Vote | Election::Transfer => {
                assert_eq!(term, self.hard.term, "admitted in this term");
                let free = match self.hard.vote {
                    Some(other) => other == from || wal::mutant!("vote_twice"),
                    None => self.leader.is_none(),
                };
                // A promise counts in this term too: after a restart the term is known, the leader is not.
                let promised = candidacy.election == Election::Vote
                    && self.hard.vote != Some(from)
                    && self.is_promised(now);
                let grant = free && up_to_date && !promised && self.may_vote_for(&candidacy);
                if grant {
                    assert_ne!(from, self.config.id, "a candidate does not ask itself");
                    assert!(
                        !matches!(self.role, Role::Leader(_) | Role::Candidate(_))
                            || wal::mutant!("vote_twice"),
                        "whoever stands has voted for itself"
                    );
                    self.hard.vote = Some(from);
                    self.restart_election_timer(now);
                }
                let decision = if grant { Decision::Granted } else { Decision::Refused };
                self.send(from, self.vote(candidacy.election, decision));
            }
        }
    }

    pub(super) fn handle_vote(&mut self, now: Now, from: NodeId, vote: Vote) {
        self.note_standing(from, vote.standing);
        let votes = match (&mut self.role, vote.election) {
            (Role::PreCandidate(votes), Election::PreVote)
            | (Role::Candidate(votes), Election::Vote | Election::Transfer) => votes,
            _ => return,
        };
        votes.entry(from).or_insert(vote.decision);
        self.count_votes(now);
    }

    pub(super) fn election_timed_out(&mut self, now: Now) {
        self.restart_election_timer(now);
        self.stand_again_soon(now);
        let voter = self.membership().is_voter(self.config.id);
        if !voter || matches!(self.role, Role::Leader(_)) {
            return;
        }
        self.leader = None;
        if self.is_damaged() && !wal::mutant!("suspect_stands") {
            // Others are as able to lead; if none can win without this node's vote, it has to wait for one it may give.
            self.role = Role::Follower;
            return;
        }
        if wal::mutant!("no_prevote") {
            return self.campaign(now, Election::Vote);
        }
        self.role = Role::PreCandidate(Votes::new());
        let message = Message { term: self.hard.term.next(), body: self.candidacy(Election::PreVote) };
        for peer in 0..self.peers.len() {
            let output = super::Output::Send { to: self.peers[peer], message: message.clone() };
            self.outputs.push_back(output);
        }
        self.count_votes(now);
    }

    fn candidacy(&self, election: Election) -> Body {
        let EntryId { index, term, .. } = self.log.last();
        Body::Candidacy(Candidacy { election, last_term: term, last_index: index, standing: self.standing() })
    }

    /// Raises the term and asks for votes; the requests ride on the write of this node's own.
    pub(super) fn campaign(&mut self, now: Now, election: Election) {
        assert!(
            election == Election::Transfer
                || self.membership().is_sole_voter(self.config.id)
                || self.promised_until.is_none_or(|until| until <= now.mono),
            "nobody stands against its own promise"
        );
        // It is over, or void: a restart need not outwait what is longer than its own. A leader hears none that would say so.
        self.hard.promise = self.hard.promise.min(self.config.promise);
        self.counters.elections += 1;
        self.enter(self.hard.term.next(), Some(self.config.id));
        self.role = Role::Candidate(Votes::new());
        self.restart_election_timer(now);
        let body = self.candidacy(election);
        for peer in 0..self.peers.len() {
            self.send(self.peers[peer], body.clone());
        }
        assert!(self.saved != self.hard, "a new term is not on disk yet");
        assert!(self.membership().is_voter(self.config.id), "only voters stand");
    }

    /// Counts an election, this node's own ballot included: in a pre-vote its willingness, in a vote what the disk
    /// holds.
    pub(super) fn count_votes(&mut self, now: Now) {
        let own = match &self.role {
            Role::PreCandidate(_) => self.may_stand(),
            Role::Candidate(_) => {
                (self.saved == self.hard || wal::mutant!("own_vote_before_durable")) && self.may_stand()
            }
            Role::Follower | Role::Leader(_) => return,
        };
        let (Role::PreCandidate(votes) | Role::Candidate(votes)) = &self.role else { return };
        let tally = self.membership().tally(|id| match votes.get(&id) {
            _ if id == self.config.id => {
                if own {
                    Ballot::Granted
                } else {
                    Ballot::Unknown
                }
            }
            None => Ballot::Unknown,
            Some(Decision::Granted) => Ballot::Granted,
            Some(Decision::Refused) => Ballot::Refused,
        });
        match (tally, &self.role) {
            (Tally::Won, Role::PreCandidate(_)) => self.campaign(now, Election::Vote),
            (Tally::Won, Role::Candidate(_)) => self.become_leader(now),
            (Tally::Lost, _) => self.role = Role::Follower,
            _ => {}
        }
    }

    fn become_leader(&mut self, now: Now) {
        assert!(self.membership().is_voter(self.config.id), "only voters lead");
        self.counters.leaderships += 1;
        self.leader = Some(self.config.id);
        assert!(!self.is_damaged(), "a damaged node does not stand for election");
        if self.standing() != Standing::Whole {
            // Elected by whole memories, or by a majority that lost theirs together: nothing better will come.
            self.become_whole();
        }
        assert_eq!(self.hard.vote, Some(self.config.id), "a leader voted for itself");
        assert!(self.draft.frames.is_empty(), "a candidate takes no entries");
        let last = self.log.last();
        assert!(last.term < self.hard.term, "nobody has led in this term before");
        // The first leader of all has no time to go on from.
        let since_1970 = if last.index == FOUNDING { now.wall_ms } else { self.log.last_timestamp() };
        let clock = Count::starting(since_1970, now.mono, self.config.heartbeat);
        let progress = self
            .peers
            .iter()
            .map(|&peer| (peer, Progress::unknown(last.index.next())))
            .collect::<BTreeMap<_, _>>();
        self.role = Role::Leader(Box::new(Leading {
            progress,
            term_start: last.index.next(),
            since: now.mono,
            clock,
            probes: Probes::default(),
            transfer: None,
            lease_revoked: false,
        }));
        self.timers.clear(Timer::Election);
        self.timers.clear(Timer::Silence);
        self.timers.set(Timer::Heartbeat, now.mono.after(self.config.heartbeat));
        self.timers.set(Timer::QuorumContact, now.mono.after(self.config.election_timeout));
        // Thesis 6.4: only an entry of its own term tells a leader what is committed.
        let head = self.head(now);
        self.append_own(FrameBuilder::noop(head));
    }

    /// What the next entry of this leader starts from.
    pub(super) fn head(&mut self, now: Now) -> FrameHead {
        self.count_time(now);
        let Role::Leader(leading) = &self.role else { unreachable!("only a leader makes entries") };
        let mut timestamp_ms = leading.clock.timestamp();
        if wal::mutant!("wall_clock_is_log_time") {
            timestamp_ms = now.wall_ms.max(self.log.last_timestamp());
        }
        assert!(timestamp_ms >= self.log.last_timestamp(), "timestamps never fall along a log");
        FrameHead { group: self.config.group, term: self.hard.term, previous: self.log.last(), timestamp_ms }
    }

    /// A leader counts the time that it leads, with every input.
    pub(super) fn count_time(&mut self, now: Now) {
        if let Role::Leader(leading) = &mut self.role {
            leading.clock.note(now.mono);
        }
    }

    /// The timestamp that an entry would have now, if this node leads.
    #[must_use]
    pub fn timestamp(&self, now: Now) -> Option<u64> {
        let Role::Leader(leading) = &self.role else { return None };
        Some(leading.clock.at(now.mono).timestamp())
    }

    /// When an entry would have this timestamp, in milliseconds since 1970, if this node leads until then without a pause.
    #[must_use]
    pub fn when_timestamp(&self, timestamp_ms: u64) -> Option<Mono> {
        let Role::Leader(leading) = &self.role else { return None };
        Some(leading.clock.when(timestamp_ms))
    }

    /// Begins a term. Nobody leads it yet, and nothing is agreed with who will. Whoever loses its leader and hears it again
    /// within the term has not lost what they agreed on: the leader does not send it twice.
    fn enter(&mut self, term: Term, vote: Option<NodeId>) {
        self.hard = HardState { term, vote, ..self.hard };
        self.leader = None;
        self.gone = None;
        if !wal::mutant!("agreed_with_any_leader") {
            self.agreed = wal::LogIndex::ZERO;
        }
    }

    /// Follows `leader` (or nobody yet) in `term`.
    pub(super) fn become_follower(&mut self, now: Now, term: Term, leader: Option<NodeId>) {
        assert!(term >= self.hard.term, "terms never fall");
        if term > self.hard.term || wal::mutant!("step_down_forgets_vote") {
            self.enter(term, None);
        }
        assert!(self.leader.is_none() || leader.is_none() || self.leader == leader, "one leader per term");
        self.leader = leader;
        self.role = Role::Follower;
        for timer in [Timer::Heartbeat, Timer::QuorumContact, Timer::Transfer, Timer::CommitNotice] {
            self.timers.clear(timer);
        }
        self.restart_election_timer(now);
    }

    /// The leader has been heard: wait for it again, and keep to it for as long as its lease may rely on, which is what it
    /// states. Nobody is heard to have heard it before the disk knows for how long that is: a restart must outwait it.
    pub(super) fn note_leader_contact(&mut self, now: Now, stated: Duration) {
        assert!(stated <= MAX_PROMISE, "checked when it came");
        let promise = if wal::mutant!("stated_promise_ignored") {
            self.config.promise
        } else {
            stated.max(self.config.promise)
        };
        // Invariant: constant in a term, its leader states one. So a record on the disk that is equal to this one is it.
        self.hard.promise = promise;
        self.promised_until = Some(now.mono.after(promise));
        self.note_leader_is_there(now);
        self.restart_election_timer(now);
    }

    /// What a leader may still rely on that this node heard in a former life.
    pub(super) fn remembered_promise(&self) -> Duration {
        if wal::mutant!("stated_promise_forgotten") {
            return self.config.promise;
        }
        self.hard.promise.max(self.config.promise)
    }

    /// Nobody stands against its own promise, which may be longer than what it would wait by itself.
    pub(super) fn restart_election_timer(&mut self, now: Now) {
        let timeout = self.config.election_timeout;
        let span = self.random.between_once_and_twice(timeout);
        let mut promised = self.promised_until.map_or(Duration::ZERO, |until| until.since(now.mono));
        if wal::mutant!("stands_against_its_promise") {
            promised = Duration::ZERO;
        }
        self.timers.set(Timer::Election, now.mono.after(span + promised.saturating_sub(timeout)));
    }
}

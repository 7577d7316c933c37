//! The loop: what both drivers turn.
//!
//! A turn takes what has come in (the log's completions, datagrams, callers' submissions, timeouts), hands it to the
//! node, and executes what the node wants done, once: one plan to the disk, one pass over the socket, one delivery to
//! the waiting callers. Then it says how long the driver may sleep. Each step is bounded, so none starves another; what
//! exceeds a bound is taken in the next turn, which then follows at once.
//!
//! It decides nothing: the node does. It is where promises are kept that the node cannot keep alone: a write's messages
//! are freed only by the log's proof, and after the first failure of the log nothing leaves this process any more.

use super::clock;
use super::disk::Disk;
use super::door::Answer;
use super::mailbox::{Address, Wakes};
use super::network::{Done, Network};
use super::shared::{Failure, Outcome, Shared, Submission};
use super::store::SharedStore;
use super::tuner::Tuning;
use crate::api::{Counters, Leadership, Member, Status, StopReason};
use crate::kv::{CommandError, Revision};
use crate::node::{self, Input, Node, Output, Reply, RequestError, Ticket};
use crate::raft::{Membership, Mono, Now, TransferRefused, Write, message::Standing};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use transport::DisconnectReason;
use wal::{Flushed, LogEvent, NodeId};

/// Calls taken in one turn. A batch of them is one entry of the log.
const SUBMISSIONS: usize = 4096;
/// Messages of peers taken in one turn.
const MESSAGES: usize = 1024;
/// Completions of the log taken in one turn.
const LOG_EVENTS: usize = 64;
/// A log without writes for this long is told to mark its end, so that damage to it is not taken for a torn write.
const IDLE: Duration = Duration::from_secs(1);

/// How a turn ended.
#[derive(Debug)]
pub(crate) enum Rest {
    /// There is more to do already.
    Again,
    /// Nothing to do before this time, unless something comes in.
    Until(Option<Mono>),
    /// The loop has ended.
    Over(StopReason),
}

/// Everything that one loop owns.
pub(crate) struct Loop<D> {
    shared: Arc<Shared>,
    node: Node<SharedStore>,
    disk: D,
    /// A lone node has none.
    network: Option<Network>,
    /// Handed to the log and not yet durable, in order.
    writes: VecDeque<Write>,
    /// When to look whether the log is idle; moves with every write.
    mark_at: Option<Mono>,
    alarms: BTreeSet<(Mono, u64)>,
    /// The node's, of this turn.
    answers: Vec<node::Answer<SharedStore>>,
    /// The loop's own, of this turn.
    outbox: Vec<(Address, Outcome)>,
    wakes: Wakes,
    /// What the watches know was applied.
    changed: Revision,
    parts: Vec<bytes::Bytes>,
    over: Option<StopReason>,
    tuning: Option<Box<Tuning>>,
    /// This node hands over before it stops, until then at most.
    leaving: Option<Mono>,
    runtime: &'static str,
    turns: u64,
    longest_turn: Duration,
    sleeps: u64,
    malformed: u64,
}

/// What a loop is made of.
pub(crate) struct Pieces<D> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) node: Node<SharedStore>,
    pub(crate) disk: D,
    pub(crate) network: Option<Network>,
    /// Where a target is set.
    pub(crate) tuning: Option<Box<Tuning>>,
    pub(crate) runtime: &'static str,
}

impl<D: Disk> Loop<D> {
    pub(crate) fn new(pieces: Pieces<D>) -> Self {
        let Pieces { shared, node, disk, network, tuning, runtime } = pieces;
        Self {
            shared,
            node,
            disk,
            network,
            writes: VecDeque::new(),
            mark_at: None,
            alarms: BTreeSet::new(),
            answers: Vec::new(),
            outbox: Vec::new(),
            wakes: Wakes::default(),
            changed: Revision::EMPTY,
            parts: Vec::new(),
            over: None,
            tuning,
            leaving: None,
            runtime,
            turns: 0,
            longest_turn: Duration::ZERO,
            sleeps: 0,
            malformed: 0,
        }
    }

    /// One turn.
    pub(crate) fn turn(&mut self) -> Rest {
        let instant = Instant::now();
        let received = self.network.as_mut().map_or(Done::All, |network| network.receive(instant));
        // After receiving: what this node promises a leader it heard counts from then, however long it was paused before.
        let now = clock::now();
        self.turns += 1;
        if let (Some(tuning), Some(meter)) = (&mut self.tuning, self.node.meter()) {
            tuning.note_turn(now.mono, instant.elapsed(), meter);
        }
        let taken =
            [received, self.take_log_events(now), self.take_messages(now), self.take_submissions(now)];
        self.take_timeouts(now);
        self.take_wish_to_stop(now);
        self.execute(now, instant);
        let sent = self.submit(instant);
        self.deliver();
        self.measure(now, instant);
        self.tell_watches();
        self.longest_turn = self.longest_turn.max(instant.elapsed());
        if self.over.is_none() && self.has_left(now) {
            self.end(StopReason::Requested);
        }
        if let Some(reason) = self.over.clone() {
            return Rest::Over(reason);
        }
        if sent == Done::Part || taken.contains(&Done::Part) {
            return Rest::Again;
        }
        self.sleeps += 1;
        Rest::Until(self.next_timeout(now, instant))
    }

    /// A leader that is asked to stop hands over first, and what it had taken is answered meanwhile. It takes no more: what
    /// comes now is turned away at the end, and did not happen. An election timeout is the most that it takes.
    fn take_wish_to_stop(&mut self, now: Now) {
        if !self.shared.is_stopping() || self.leaving.is_some() {
            return;
        }
        self.shared.begin_to_leave();
        let patience = self.node.raft().config().election_timeout;
        self.leaving = Some(if self.node.hand_over(now) { now.mono.after(patience) } else { now.mono });
    }

    /// Whether nothing is gained by going on.
    fn has_left(&self, now: Now) -> bool {
        self.leaving.is_some_and(|until| until <= now.mono || !self.node.is_handing_over())
    }

    fn take_log_events(&mut self, now: Now) -> Done {
        for _ in 0..LOG_EVENTS {
            match self.disk.poll() {
                None => return Done::All,
                Some(LogEvent::Flushed(proof)) => self.free_promises(now, proof),
                Some(LogEvent::Fetched { token, frames }) => {
                    self.node.handle(now, Input::Fetched { peer: NodeId(token), frames });
                }
                // Damage is not served around: a restart sets it aside and has the peers repair it.
                Some(LogEvent::FetchFailed { error: error @ wal::FetchError::Damaged { .. }, .. }) => {
                    self.node.handle(now, Input::Damaged(error.to_string()));
                }
                Some(LogEvent::FetchFailed { token, error }) => {
                    tracing::error!(peer = token, "old entries cannot be read for a peer: {error}");
                    self.node.handle(now, Input::Fetched { peer: NodeId(token), frames: Vec::new() });
                }
                // The node answers its callers and halts; `execute` ends the loop.
                Some(LogEvent::Failed(error)) => self.node.handle(now, Input::LogFailed(error.to_string())),
                Some(other) => unreachable!("the log of this version does not say {other:?}"),
            }
        }
        Done::Part
    }

    /// The log proves that a write and all before it are durable: their promises may leave.
    fn free_promises(&mut self, now: Now, proof: Flushed) {
        while self.writes.front().is_some_and(|write| write.id() <= proof.id()) {
            let Some(write) = self.writes.pop_front() else { break };
            self.node.handle(now, Input::Written(write.flushed(proof)));
        }
    }

    fn take_messages(&mut self, now: Now) -> Done {
        let Some(network) = &mut self.network else { return Done::All };
        for _ in 0..MESSAGES {
            let Some(event) = network.poll_event() else { return Done::All };
            match event {
                transport::Event::Received { peer, message, .. } => match node::wire::decode(message) {
                    Ok(message) => self.node.handle(now, Input::Message { from: NodeId(peer.0), message }),
                    Err(error) => {
                        self.malformed += 1;
                        tracing::warn!(%peer, "a message was dropped: {error}");
                    }
                },
                transport::Event::Connected { peer, .. } => {
                    self.node.handle(now, Input::Connected(NodeId(peer.0)))
                }
                transport::Event::Disconnected { peer, reason } => {
                    tracing::debug!(%peer, ?reason, "connection lost");
                    self.node.handle(now, Input::Disconnected(NodeId(peer.0)));
                    if matches!(reason, DisconnectReason::ClosedByPeer | DisconnectReason::Restarted) {
                        self.node.handle(now, Input::Gone(NodeId(peer.0)));
                    }
                }
                // The transport has counted and logged it.
                _ => {}
            }
        }
        Done::Part
    }

    fn take_submissions(&mut self, now: Now) -> Done {
        if self.leaving.is_some() {
            return Done::All;
        }
        for _ in 0..SUBMISSIONS {
            let Some(submission) = self.shared.next_submission() else {
                if let Some(tuning) = &mut self.tuning {
                    tuning.note_emptied(now.mono);
                }
                return Done::All;
            };
            let ticket = Ticket(submission.address().pack());
            match submission {
                Submission::Propose { command, .. } => {
                    self.node.handle(now, Input::Propose { ticket, command })
                }
                Submission::Read { .. } | Submission::Reads { .. } => {
                    self.node.handle(now, Input::Read { ticket })
                }
                Submission::Transfer { to, .. } => {
                    self.node.handle(now, Input::TransferLeadership { ticket, to })
                }
                Submission::Alarm { at, .. } => drop(self.alarms.insert((at, ticket.0))),
                Submission::Disarm { address, at } => {
                    if self.alarms.remove(&(at, ticket.0)) {
                        self.outbox.push((address, Outcome::Alarm));
                    }
                }
                Submission::Status { address } => self.answer_status(now, address),
                Submission::Pace { address, pace } => {
                    let pace = self.tuning.as_mut().map_or(pace, |tuning| tuning.begin_from(pace));
                    self.node.set_pace(pace);
                    self.answer_status(now, address);
                }
            }
        }
        Done::Part
    }

    fn take_timeouts(&mut self, now: Now) {
        if self.node.poll_timeout().is_some_and(|due| due <= now.mono) {
            self.node.handle(now, Input::Timeout);
        }
        if self.mark_at.take_if(|at| *at <= now.mono).is_some() {
            if self.writes.is_empty() {
                self.disk.mark();
            } else {
                self.mark_at = Some(now.mono.after(IDLE));
            }
        }
        if let Some(tuning) = &mut self.tuning {
            tuning.tune(now.mono, &mut self.node);
        }
        while self.alarms.first().is_some_and(|&(at, _)| at <= now.mono) {
            let Some((_, ticket)) = self.alarms.pop_first() else { break };
            self.outbox.push((Address::unpack(ticket), Outcome::Alarm));
        }
    }

    /// Does what the node wants done.
    fn execute(&mut self, now: Now, instant: Instant) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Write(write) => {
                    if write.says_whole() {
                        tracing::info!("the log has again everything that this node acknowledged");
                    }
                    self.disk.submit(write.plan());
                    self.writes.push_back(write);
                    self.mark_at = Some(now.mono.after(IDLE));
                }
                Output::Send { to, message } => self.send(now, to, message),
                Output::Fetch(fetch) => self.disk.fetch(wal::Fetch {
                    token: fetch.peer.0,
                    from: fetch.from,
                    max_bytes: fetch.max_bytes,
                }),
                Output::Knock(peer) => {
                    if self.network.as_mut().is_some_and(|network| network.knock(peer) == Answer::Nobody) {
                        self.node.handle(now, Input::Gone(peer));
                    }
                }
                // Disk and network work while entries are applied.
                Output::Submit => {
                    let _ = self.submit(instant);
                }
                Output::Answers(answers) if self.answers.is_empty() => self.answers = answers,
                Output::Answers(answers) => self.answers.extend(answers),
                Output::Leadership(leadership) => {
                    tracing::info!(term = %leadership.term, leader = ?leadership.leader, role = ?leadership.role, "leadership");
                    let node::Leadership { term, leader, .. } = leadership;
                    self.shared.publish_leadership(Leadership { term: term.0, leader });
                }
                Output::Halt(reason) => self.fail(reason.to_string()),
            }
        }
    }

    /// Sends, and starts the disk. The lease comes first: a leader that lets go of it must not be read from by the time
    /// anybody hears of that. The network comes before the disk: a follower's flush waits for the way there, too.
    fn submit(&mut self, instant: Instant) -> Done {
        self.shared.publish_lease(self.node.lease());
        let sent = self.network.as_mut().map_or(Done::All, |network| network.transmit(instant));
        self.disk.kick();
        sent
    }

    /// What cannot be sent goes back to the node, which knows what to do about it.
    fn send(&mut self, now: Now, to: NodeId, message: node::Message) {
        let Some(network) = &mut self.network else { return };
        let lane = match message.lane() {
            node::wire::Lane::Control => transport::Lane::Control,
            node::wire::Lane::Log => transport::Lane::Log,
        };
        self.parts.clear();
        node::wire::encode(&message, &mut self.parts);
        if let Err(error) = network.transport.send(transport::PeerId(to.0), lane, &self.parts) {
            tracing::trace!(%to, "not sent: {error}");
            self.node.handle(now, Input::NotSent { to, message });
        }
    }

    /// Hands out the answers of this turn. Why calls were interrupted is known only at its end: a node that halts
    /// answers first and says why afterwards.
    fn deliver(&mut self) {
        if self.answers.is_empty() && self.outbox.is_empty() {
            return;
        }
        let (shared, over) = (&self.shared, &self.over);
        let answers = self.answers.drain(..).map(|node::Answer { ticket, outcome }| {
            let outcome = match outcome {
                Ok(Reply::Applied(reply)) => Outcome::Applied { reply, durability: shared.durability },
                Ok(Reply::Readable) => Outcome::Readable,
                Ok(Reply::Transferred) => Outcome::Transferred,
                Err(error) => Outcome::Failed(failure(error, over.as_ref())),
            };
            (Address::unpack(ticket.0), outcome)
        });
        shared.mailboxes.deliver(answers.chain(self.outbox.drain(..)), &mut self.wakes);
    }

    /// The commands of this turn have taken so long.
    fn measure(&mut self, now: Now, instant: Instant) {
        if let (Some(tuning), Some(meter)) = (&mut self.tuning, self.node.meter()) {
            tuning.note_delivery(now.mono.after(instant.elapsed()), meter);
        }
    }

    /// After the callers: whoever watches is told of what they did.
    fn tell_watches(&mut self) {
        let changed = self.node.machine().changed();
        if changed != self.changed {
            self.changed = changed;
            self.shared.watches.ring();
        }
    }

    fn next_timeout(&mut self, now: Now, instant: Instant) -> Option<Mono> {
        let network = self.network.as_mut().and_then(|network| network.poll_timeout(instant));
        let network = network.map(|due| now.mono.after(due.saturating_duration_since(instant)));
        let alarm = self.alarms.first().map(|&(at, _)| at);
        let tuning = self.tuning.as_ref().and_then(|tuning| tuning.poll_timeout());
        let own = [alarm, self.mark_at, self.leaving, tuning];
        [self.node.poll_timeout(), network].into_iter().chain(own).flatten().min()
    }

    /// Ends the loop because going on would be wrong. Nothing is acknowledged after this.
    pub(crate) fn fail(&mut self, reason: String) {
        tracing::error!("the engine stops itself: {reason}");
        self.end(StopReason::Failed(reason.into()));
    }

    /// Ends the loop: whoever waits is answered, nothing more is taken. The first reason stays.
    pub(crate) fn end(&mut self, reason: StopReason) -> StopReason {
        if let Some(first) = &self.over {
            return first.clone();
        }
        self.over = Some(reason.clone());
        self.node.stop();
        // What the node still had to send or write is not done: it has promised none of it to anybody.
        while let Some(output) = self.node.poll_output() {
            if let Output::Answers(answers) = output {
                self.answers.extend(answers);
            }
        }
        self.deliver();
        self.shared.close(&reason);
        reason
    }

    /// Lets go of everything: the peers are told, and after an orderly end the log is made whole and marked so.
    pub(crate) fn close(self) -> Result<(), wal::LogError> {
        if let Some(mut network) = self.network {
            let node = self.node.raft().config().id;
            tracing::debug!(%node, turns = self.turns, sleeps = self.sleeps, stats = ?network.transport.stats(), "closing");
            network.close(Instant::now());
        }
        match self.over {
            Some(StopReason::Requested) if self.node.may_stop_cleanly() => self.disk.close(),
            // Dropping the writer leaves the log as it is: the next start finds out what is there.
            _ => Ok(()),
        }
    }

    fn answer_status(&mut self, now: Now, address: Address) {
        let status = Outcome::Status(Box::new(self.status(now)));
        self.outbox.push((address, status));
    }

    fn status(&self, now: Now) -> Status {
        let node = self.node.status();
        let log = self.disk.stats();
        let transport = self.network.as_ref().map(|network| network.transport.stats()).unwrap_or_default();
        let store = self.node.machine().size();
        let node::Leadership { term, leader, role } = node.leadership;
        Status {
            id: self.node.raft().config().id,
            role,
            leadership: Leadership { term: term.0, leader },
            last_index: node.last.0,
            commit_index: node.commit.0,
            applied_index: node.applied.0,
            revision: Revision(node.revision),
            digest: node.digest,
            keys: store.keys,
            bytes: store.bytes,
            sessions: store.sessions,
            leases: store.leases,
            oldest: store.oldest,
            history_changes: store.history_changes,
            history_bytes: store.history_bytes,
            watches: self.shared.watches.open_count(),
            members: members(&node.membership),
            connected_peers: transport.connected,
            repairing: node.standing != Standing::Whole,
            runtime: self.runtime,
            pace: self.node.pace(),
            tuner: self.tuning.as_ref().map(|tuning| tuning.status(now.mono)),
            counters: Counters {
                flushes: log.flushes,
                disk_bytes: log.disk_bytes,
                batches: log.frames,
                turns: self.turns,
                longest_turn: self.longest_turn,
                sleeps: self.sleeps,
                wakes: self.shared.mailboxes.wakes(),
                elections: node.counters.elections,
                lease_reads: self.shared.reads.lease.load(Ordering::Relaxed),
                lease_misses: self.shared.reads.lease_missed.load(Ordering::Relaxed),
                busy: self.shared.reads.busy.load(Ordering::Relaxed),
                malformed: self.malformed + node.counters.malformed,
                refused_connections: transport.refused_total(),
                violations: transport.violations,
                ignored_datagrams: transport.datagrams_ignored,
            },
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// For a driver that sleeps in the disk's ring.
    #[cfg(target_os = "linux")]
    pub(crate) fn disk_and_network(&mut self) -> (&mut D, Option<&Network>) {
        (&mut self.disk, self.network.as_ref())
    }
}

fn members(membership: &Membership) -> Vec<Member> {
    membership.members().into_iter().map(|id| Member { id, votes: membership.is_voter(id) }).collect()
}

/// The node's words for what went wrong, as seen by a caller of this engine, which may be ending.
fn failure(error: RequestError<CommandError>, over: Option<&StopReason>) -> Failure {
    match error {
        RequestError::Refused(error) => Failure::Refused(error),
        RequestError::RefusedByLeader(reason) => Failure::NotAllowed(reason),
        RequestError::TooLarge { .. } => Failure::NotAllowed(error.to_string()),
        RequestError::Busy { .. } => Failure::Busy,
        // Another entry took the command's place for good: it may be sent again, like one that was never taken.
        RequestError::NoLeader | RequestError::ReadTimeout | RequestError::Superseded => Failure::NoLeader,
        RequestError::OutcomeUnknown => over.cloned().map_or(Failure::Unknown, Failure::Interrupted),
        RequestError::Stopped => Failure::Stopped(over.cloned().unwrap_or(StopReason::Requested)),
        RequestError::Transfer(TransferRefused::NotLeader) => Failure::NotLeader,
        RequestError::Transfer(refused) => Failure::NotAllowed(refused.to_string()),
        RequestError::TransferTimeout(_) => Failure::Timeout,
    }
}

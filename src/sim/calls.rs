//! Calls: asked, tried again where that is safe, answered. What a client concludes is what the judges hold the store to.

use super::client::{self, LeaseReads, Mode, Open, Session};
use super::member::Process;
use super::observation::{Answer, Ask, CallId, Found, Instant, Level, Observation, Read, Violation};
use super::oracle::{LINEARIZABILITY, Mark};
use super::world::{Event, World};
use crate::kv::{self, Revision, RevisionError, Store, Txn};
use crate::node::{self, Input, Reply, RequestError, Ticket};
use bytes::Bytes;
use wal::NodeId;

/// What one try of a call came to.
enum Try {
    /// The store's reply.
    Applied(kv::Reply),
    /// The state may be read.
    Readable,
    /// Leadership has moved.
    Transferred,
    /// It did not happen and will not.
    Nothing,
    /// Nobody knows.
    Unknown,
}

/// A call in a session is tried so often before its client gives up.
const TRIES: u32 = 12;

impl World {
    /// The client's next moment comes after about `mean`.
    pub(super) fn wait_client(&mut self, client: usize, mean: u64) {
        let at = Instant(self.now.0 + 1_000 + self.client_dice.wait(mean));
        self.set_client_timer(client, at);
    }

    fn set_client_timer(&mut self, client: usize, at: Instant) {
        self.clients[client].timer += 1;
        let timer = self.clients[client].timer;
        self.schedule.add(at, Event::Client { client, timer });
    }

    /// Clients begin nothing new.
    pub(super) fn stop_clients(&mut self) {
        self.plan.load.think = u64::MAX >> 8;
        for client in 0..self.clients.len() {
            if self.clients[client].is_idle() {
                self.clients[client].timer += 1;
            }
        }
    }

    fn is_closing(&self) -> bool {
        self.plan.load.think > 1 << 50
    }

    /// A pause is over, or a client has waited long enough for an answer.
    pub(super) fn client_due(&mut self, client: usize, timer: u64) -> Result<(), Violation> {
        if self.clients[client].timer != timer {
            self.events -= 1;
            return Ok(());
        }
        if self.clients[client].open.is_some() {
            return self.conclude(client, Try::Unknown);
        }
        if self.clients[client].opening.take().is_some() {
            self.move_client(client);
        }
        if self.is_closing() {
            return Ok(());
        }
        match self.clients[client].mode {
            Mode::Opening => {
                self.open_session(client);
                Ok(())
            }
            Mode::Open(session) if self.client_dice.below(100) == 0 => {
                self.close_session(client, session.id);
                Ok(())
            }
            Mode::Plain | Mode::Open(_) => self.begin(client),
        }
    }

    /// To another node, as a client does that gets no answer.
    fn move_client(&mut self, client: usize) {
        let count = self.members.len() as u64;
        self.clients[client].at = NodeId(self.client_dice.between(1, count));
    }

    fn ticket(&mut self, client: usize, call: CallId, at: NodeId) -> u64 {
        self.next_ticket += 1;
        self.tickets.insert(self.next_ticket, (client, call, at));
        self.next_ticket
    }

    fn open_session(&mut self, client: usize) {
        let at = self.clients[client].at;
        let until = client::patience(self.now, &self.plan.load);
        self.set_client_timer(client, until);
        if !self.members[&at].is_up() {
            self.clients[client].opening = Some(0);
            return;
        }
        let ticket = self.ticket(client, CallId(0), at);
        self.clients[client].opening = Some(ticket);
        let command = client::open_session(self.plan.load.session_timeout);
        self.feed(at, Input::Propose { ticket: Ticket(ticket), command });
    }

    /// A client lets go of its session; whatever comes of that, it opens another.
    fn close_session(&mut self, client: usize, session: u64) {
        self.clients[client].mode = Mode::Opening;
        let at = self.clients[client].at;
        if self.members[&at].is_up() {
            let ticket = self.ticket(client, CallId(0), at);
            self.feed(at, Input::Propose { ticket: Ticket(ticket), command: client::close_session(session) });
        }
        self.wait_client(client, self.plan.load.think);
    }

    fn begin(&mut self, client: usize) -> Result<(), Violation> {
        let wild = self.plan.has_wild_clocks();
        let lease_reads = if wild { LeaseReads::Forbidden } else { LeaseReads::Allowed };
        let asker = &self.clients[client];
        let known = client::Known {
            leases: &asker.leases,
            others: &self.leases,
            revision: asker.revision,
            next_page: asker.next_page,
        };
        let (ask, txn) =
            client::draw(&mut self.client_dice, &self.plan.load, &known, &mut self.next_value, lease_reads);
        self.ask_with(client, ask, txn.as_ref())
    }

    /// An idle client asks.
    pub(super) fn ask(&mut self, client: usize, ask: Ask) -> Result<(), Violation> {
        self.ask_with(client, ask, None)
    }

    fn ask_with(&mut self, client: usize, ask: Ask, txn: Option<&Txn>) -> Result<(), Violation> {
        self.next_call += 1;
        self.calls += 1;
        let call = CallId(self.next_call);
        let session = match &mut self.clients[client].mode {
            Mode::Open(session) if ask.repeatable() => {
                let number = session.next;
                session.next += 1;
                Some((session.id, number))
            }
            Mode::Open(_) | Mode::Opening | Mode::Plain => None,
        };
        let plain = match txn {
            Some(txn) => client::txn_command(txn).expect("small"),
            None if ask.writes() => client::command(ask, self.plan.load.padding).expect("small"),
            None => Bytes::new(),
        };
        let late = self.plan.load.unacknowledged;
        let command = session.map_or(plain.clone(), |session| client::in_session(session, late, &plain));
        let id = self.clients[client].id;
        self.story.note(call.0);
        self.observe(&Observation::Invoked { client: id, call, ask, command: &plain, session })?;
        let at = self.clients[client].at;
        let open = Open { call, ask, session, ticket: 0, at, tries: 0, uncertain: false, command };
        self.clients[client].open = Some(open);
        self.attempt(client)
    }

    /// Tries the open call at the node its client sits at.
    fn attempt(&mut self, client: usize) -> Result<(), Violation> {
        let until = client::patience(self.now, &self.plan.load);
        self.set_client_timer(client, until);
        let at = self.clients[client].at;
        let open = self.clients[client].open.as_mut().expect("a call is open");
        open.tries += 1;
        open.at = at;
        open.ticket = 0;
        let (ask, call, command) = (open.ask, open.call, open.command.clone());
        if !self.members[&at].is_up() {
            return self.conclude(client, Try::Nothing);
        }
        match ask {
            _ if ask.level() == Some(Level::Eventual) => self.read_now(client, ask, at),
            _ if ask.level() == Some(Level::Lease) && self.has_lease(at) => self.read_now(client, ask, at),
            _ if ask.level().is_some() => {
                let ticket = self.ticket(client, call, at);
                self.note_ticket(client, ticket);
                self.feed(at, Input::Read { ticket: Ticket(ticket) });
                Ok(())
            }
            Ask::Transfer { to } => {
                let ticket = self.ticket(client, call, at);
                self.note_ticket(client, ticket);
                self.feed(at, Input::TransferLeadership { ticket: Ticket(ticket), to });
                Ok(())
            }
            _ => {
                let ticket = self.ticket(client, call, at);
                self.note_ticket(client, ticket);
                self.feed(at, Input::Propose { ticket: Ticket(ticket), command });
                Ok(())
            }
        }
    }

    fn note_ticket(&mut self, client: usize, ticket: u64) {
        self.clients[client].open.as_mut().expect("a call is open").ticket = ticket;
    }

    /// Whether a reader on another thread of this node sees a lease that holds.
    fn has_lease(&self, at: NodeId) -> bool {
        let member = &self.members[&at];
        let now = member.clock.now(self.now).mono;
        matches!(member.process, Process::Running | Process::Applying)
            && member.lease.is_some_and(|until| now < until)
    }

    /// Reads the state a node has now. A process that stands still does not answer; its readers stand, too.
    fn read_now(&mut self, client: usize, ask: Ask, at: NodeId) -> Result<(), Violation> {
        let member = &self.members[&at];
        if member.process == Process::Paused {
            return Ok(());
        }
        let node = member.node.as_ref().expect("it is up");
        let answer = look(node.machine(), ask, at);
        self.end_call(client, &answer)
    }

    /// A node answers.
    pub(super) fn answer(&mut self, id: NodeId, answer: node::Answer<Store>) -> Result<(), Violation> {
        let node::Answer { ticket, outcome } = answer;
        let Some((client, call, at)) = self.tickets.remove(&ticket.0) else {
            return Err(Violation {
                oracle: "bounds",
                what: format!("node {id} answers {ticket:?}, which nobody waits for: {outcome:?}"),
            });
        };
        assert_eq!(at, id, "a ticket is answered where it was taken");
        let outcome = match outcome {
            Ok(Reply::Applied(reply)) => {
                if call.0 != 0 {
                    self.observe(&Observation::Replied { call, reply: &reply })?;
                }
                Try::Applied(reply)
            }
            Ok(Reply::Readable) => Try::Readable,
            Ok(Reply::Transferred) => Try::Transferred,
            Err(RequestError::OutcomeUnknown | RequestError::TransferTimeout(_)) => Try::Unknown,
            Err(_) => Try::Nothing,
        };
        if self.clients[client].opening == Some(ticket.0) {
            self.session_opened(client, &outcome);
            return Ok(());
        }
        let waits = self.clients[client].open.as_ref().is_some_and(|open| open.ticket == ticket.0);
        if waits { self.conclude(client, outcome) } else { Ok(()) }
    }

    fn session_opened(&mut self, client: usize, outcome: &Try) {
        self.clients[client].opening = None;
        if let Try::Applied(reply) = outcome
            && let Some(id) = client::opened(reply)
        {
            self.clients[client].mode = Mode::Open(Session { id, next: 1 });
        } else {
            self.move_client(client);
        }
        self.wait_client(client, self.plan.load.think);
    }

    /// A try has ended: so does the call, or it is tried again.
    fn conclude(&mut self, client: usize, outcome: Try) -> Result<(), Violation> {
        let open = self.clients[client].open.as_mut().expect("a call is open");
        let answer = match outcome {
            Try::Applied(reply) if client::is_session_lost(&reply) => {
                // Never applied by this try; an earlier one may have been, before the session ended.
                let answer = if open.uncertain { Answer::Unknown } else { Answer::Refused };
                self.clients[client].mode = Mode::Opening;
                answer
            }
            Try::Applied(reply) => Answer::Written(reply),
            Try::Transferred => Answer::Transferred,
            Try::Readable => {
                let (ask, at) = (open.ask, open.at);
                let node = self.members[&at].node.as_ref().expect("it has just answered");
                look(node.machine(), ask, at)
            }
            Try::Nothing | Try::Unknown => {
                open.uncertain |= open.ask.writes() && matches!(outcome, Try::Unknown);
                let may_repeat = open.session.is_some() || !open.uncertain;
                let tired = open.tries >= TRIES || matches!(open.ask, Ask::Transfer { .. });
                if may_repeat && !tired {
                    self.move_client(client);
                    let pause = Instant(self.now.0 + self.client_dice.between(100_000, 50_000_000));
                    return self.try_later(client, pause);
                }
                if open.uncertain { Answer::Unknown } else { Answer::Refused }
            }
        };
        self.end_call(client, &answer)
    }

    /// A try at `at`: until then the call waits without a ticket.
    fn try_later(&mut self, client: usize, at: Instant) -> Result<(), Violation> {
        self.clients[client].open.as_mut().expect("a call is open").ticket = 0;
        self.clients[client].timer += 1;
        let timer = self.clients[client].timer;
        self.schedule.add(at, Event::Again { client, timer });
        Ok(())
    }

    pub(super) fn again(&mut self, client: usize, timer: u64) -> Result<(), Violation> {
        let waits = self.clients[client].timer == timer && self.clients[client].open.is_some();
        if waits { self.attempt(client) } else { Ok(()) }
    }

    fn end_call(&mut self, client: usize, answer: &Answer) -> Result<(), Violation> {
        let open = self.clients[client].open.take().expect("a call is open");
        if matches!(answer, Answer::Unknown) && open.session.is_some() && self.plan.load.unacknowledged == 0 {
            // A number that may still be used is never used for something else. Others go on with the next number.
            self.clients[client].mode = Mode::Opening;
        }
        self.observe(&Observation::Answered { call: open.call, answer })?;
        self.learn(client, open.ask, answer);
        self.judge_leases(open.ask, answer)?;
        if matches!(answer, Answer::Refused | Answer::Unknown) {
            self.move_client(client);
        }
        self.wait_client(client, self.plan.load.think);
        Ok(())
    }

    /// What a client takes from an answer for its next asks.
    fn learn(&mut self, client: usize, ask: Ask, answer: &Answer) {
        let asker = &mut self.clients[client];
        asker.next_page = None;
        match (ask, answer) {
            (_, Answer::Written(reply)) => {
                asker.revision = reply.revision().map_or(asker.revision, |revision| revision.0);
                match reply {
                    kv::Reply::LeaseGranted { lease, .. }
                    | kv::Reply::PutAttached { lease: Some(lease), .. }
                    | kv::Reply::SwappedAttached { lease: Some(lease), .. } => {
                        keep_last(&mut asker.leases, lease.0, 4);
                        keep_last(&mut self.leases, lease.0, 12);
                    }
                    // Now and then it is asked for again all the same.
                    kv::Reply::LeaseRefused(kv::LeaseError::NotFound { lease })
                        if self.client_dice.below(3) != 0 =>
                    {
                        asker.leases.retain(|known| *known != lease.0);
                    }
                    _ => {}
                }
            }
            (_, Answer::Saw { revision, .. }) => asker.revision = *revision,
            (Ask::Range { range, .. }, Answer::Read(read)) => {
                asker.revision = read.revision;
                match &read.found {
                    Found::Page(Ok(page)) => {
                        let next = page.next.as_ref();
                        asker.next_page = next.and_then(|next| client::next_page(&range, next));
                    }
                    Found::Page(Err(RevisionError::Compacted { .. })) => {
                        self.judges.mark(Mark::PastCompacted);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Somebody was just told of a revision. From this moment on no reader under a lease may see an older one, on any
    /// node: as if a lease read were made everywhere after every answer.
    fn judge_leases(&self, ask: Ask, answer: &Answer) -> Result<(), Violation> {
        let told = match (ask, answer) {
            (ask, _) if ask.level() == Some(Level::Eventual) => return Ok(()),
            (_, Answer::Read(read)) => read.revision,
            (_, Answer::Written(reply)) => reply.revision().map_or(0, |revision| revision.0),
            (_, &Answer::Saw { revision, .. }) => revision,
            _ => return Ok(()),
        };
        if self.plan.has_wild_clocks() {
            return Ok(());
        }
        for (&id, member) in &self.members {
            let Some(node) = member.node.as_ref().filter(|_| self.has_lease(id)) else { continue };
            let seen = node.machine().revision().0;
            if seen < told {
                let what =
                    format!("a lease read at node {id} sees revision {seen}, {told} has been answered");
                return Err(Violation { oracle: LINEARIZABILITY, what });
            }
        }
        Ok(())
    }

    /// The node that these calls were made at is gone, and what they were told with it.
    pub(super) fn lose_calls(&mut self, id: NodeId) -> Result<(), Violation> {
        let lost: Vec<_> =
            self.tickets.iter().filter(|(_, (_, _, at))| *at == id).map(|(&t, &(c, ..))| (t, c)).collect();
        for (ticket, client) in lost {
            self.tickets.remove(&ticket);
            if self.clients[client].opening == Some(ticket) {
                self.session_opened(client, &Try::Unknown);
            } else if self.clients[client].open.as_ref().is_some_and(|open| open.ticket == ticket) {
                self.conclude(client, Try::Unknown)?;
            }
        }
        Ok(())
    }
}

/// Keeps the newest few.
fn keep_last(list: &mut Vec<u64>, new: u64, most: usize) {
    if !list.contains(&new) {
        list.push(new);
    }
    if list.len() > most {
        list.remove(0);
    }
}

/// What a store says to a read.
fn look(store: &Store, ask: Ask, at: NodeId) -> Answer {
    let (revision, oldest) = (store.revision().0, store.oldest().0);
    let found = match ask {
        Ask::Range { range, .. } => Found::Page(store.range(&client::query(&range))),
        Ask::History { key, from, limit } => {
            Found::History(store.history(&client::key_bytes(key), Revision(from), limit))
        }
        Ask::Get { key, .. } => {
            let found = store.get(&client::key_bytes(key));
            let value = found.and_then(|found| client::value_number(&found.value));
            return Answer::Saw { value, revision, at };
        }
        _ => unreachable!("only reads become readable"),
    };
    Answer::Read(Read { at, revision, oldest, found })
}

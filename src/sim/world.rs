//! The world: members, lines, clients and faults, moved from event to event by one clock.
//!
//! It is a driver like the two others: it hands inputs to nodes and carries their outputs out. What is different is only
//! that disk, network and time are values here.

use super::client::{self, Client};
use super::clock::Clock;
use super::dice::Dice;
use super::disk::{Disk, Opening};
use super::fault::{Fault, Injected};
use super::member::{Member, Process};
use super::network::{Network, Parcel};
use super::observation::{CallId, ClientId, End, Instant, Observation, Violation};
use super::oracle::{Judges, Verdicts};
use super::plan::{Orders, Plan, Timing};
use super::schedule::Schedule;
use super::story::{Story, Telling};
use super::watchers::Watcher;
use crate::kv::{Hub, Retention, Store, WatchLimits};
use crate::node::{Input, Limits, Node};
use crate::raft::{Config, Durability, Membership};
use std::collections::BTreeMap;
use wal::{ClusterId, GroupId, NodeId};

/// What happens to the world by itself.
#[derive(Debug)]
pub(super) enum Event {
    /// A message arrives.
    Deliver(Box<Parcel>),
    /// A node's loop comes round.
    Turn(NodeId),
    /// What the disk had on its way is done.
    Disk { id: NodeId, job: u64 },
    /// Old entries have been read.
    Read { id: NodeId, life: u64 },
    /// Entries are applied; the loop goes on.
    Applied { id: NodeId, life: u64 },
    /// A paused process goes on.
    Resume { id: NodeId, life: u64 },
    /// A machine's node is started.
    Start(NodeId),
    /// A process dies.
    Die { id: NodeId, life: u64 },
    /// A new leader meets its fate.
    Strike { id: NodeId, life: u64 },
    /// A lost connection is made again.
    Connect(NodeId, NodeId),
    /// A client's pause or patience ends.
    Client { client: usize, timer: u64 },
    /// A client tries its call again.
    Again { client: usize, timer: u64 },
    /// A watcher looks at what its watch has.
    Watch(usize),
    /// Time for a fault.
    Fault(Fault),
    /// A fault of the lines ends.
    Unblock,
    /// Slow lines are quick again.
    Quicken,
    /// A disk is quick again.
    QuickDisk(NodeId),
    /// A clock runs at its own rate again.
    Thaw(NodeId),
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Anything may fail.
    Safety,
    /// Nothing fails any more, and everything owed is due.
    Healing,
}

pub(super) struct World {
    pub plan: Plan,
    pub orders: Orders,
    pub now: Instant,
    pub phase: Phase,
    pub schedule: Schedule<Event>,
    pub members: BTreeMap<NodeId, Member>,
    pub network: Network,
    pub clients: Vec<Client>,
    pub watchers: Vec<Watcher>,
    /// Leases granted lately.
    pub leases: Vec<u64>,
    /// Calls that nodes have been asked and have not answered: whose, at which node.
    pub tickets: BTreeMap<u64, (usize, CallId, NodeId)>,
    pub next_ticket: u64,
    pub next_call: u64,
    pub next_value: u64,
    pub dice: Dice,
    pub client_dice: Dice,
    pub watch_dice: Dice,
    pub nemesis: Dice,
    pub actions: u32,
    /// Leaders yet to be elected that are struck then.
    pub strikes: u32,
    pub judges: Judges,
    pub story: Story,
    pub injected: Injected,
    pub events: u64,
    pub calls: u64,
}

impl World {
    pub(super) fn new(seed: u64, orders: &Orders, telling: Telling) -> Self {
        let plan = Plan::draw(seed, orders);
        let mut dice = Dice::new(seed, "members");
        let members: BTreeMap<_, _> =
            (1..=plan.members).map(|id| (NodeId(id), member(NodeId(id), &plan, &mut dice))).collect();
        let clients = (0..plan.load.clients).map(|at| new_client(at, &plan, &mut dice)).collect();
        let mut watch_dice = Dice::new(seed, "watchers");
        let watchers = (0..plan.load.watchers).map(|at| Watcher::new(at, &plan, &mut watch_dice)).collect();
        Self {
            now: Instant(0),
            phase: Phase::Safety,
            schedule: Schedule::new(),
            members,
            network: Network::new(plan.lines.clone(), Dice::new(seed, "network")),
            clients,
            watchers,
            leases: Vec::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            next_call: 0,
            next_value: 0,
            dice,
            client_dice: Dice::new(seed, "clients"),
            watch_dice,
            nemesis: Dice::new(seed, "nemesis"),
            actions: 0,
            strikes: 0,
            judges: Judges::new(),
            story: Story::new(telling),
            injected: Injected::default(),
            events: 0,
            calls: 0,
            orders: orders.clone(),
            plan,
        }
    }

    /// The whole run.
    pub(super) fn run(&mut self) -> Result<Verdicts, Violation> {
        let description = self.plan.describe();
        self.story.tell(Instant(0), || format!("run: {description}"));
        let ids = self.ids();
        let terms = self.plan.terms();
        self.observe(&Observation::Begun { members: &ids, durability: self.plan.durability, terms })?;
        for &id in &ids {
            self.start(id)?;
        }
        for client in 0..self.clients.len() {
            self.wait_client(client, 1);
        }
        self.schedule_watchers();
        self.schedule_faults();
        self.run_until(Instant(self.plan.safety))?;
        self.heal()?;
        self.judges.finish()
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    pub(super) fn member(&mut self, id: NodeId) -> &mut Member {
        self.members.get_mut(&id).expect("a member of the run")
    }

    pub(super) fn observe(&mut self, observation: &Observation<'_>) -> Result<(), Violation> {
        self.judges.observe(self.now, observation)
    }

    /// Everything up to `until`, or nothing left to happen.
    pub(super) fn run_until(&mut self, until: Instant) -> Result<(), Violation> {
        while let Some((at, event)) = self.schedule.next() {
            if at > until {
                // It stays for whoever goes on from here.
                self.schedule.add(at, event);
                break;
            }
            if at.0 / SECOND > self.now.0 / SECOND {
                self.tell_progress(at);
            }
            self.now = at;
            self.events += 1;
            self.happen(event)?;
        }
        self.now = until;
        Ok(())
    }

    /// A line a second: where everybody stands.
    fn tell_progress(&mut self, at: Instant) {
        let Self { story, members, calls, judges, .. } = self;
        story.tell(Instant(at.0 / SECOND * SECOND), || {
            let nodes: Vec<_> = members.iter().map(|(id, member)| stand(*id, member)).collect();
            let judged = judges.verdicts();
            format!(
                "{calls} calls, {} reads and {} writes judged, {} messages tapped; {}",
                judged.linearizable_reads + judged.lease_reads + judged.eventual_reads,
                judged.writes,
                judged.messages,
                nodes.join(", ")
            )
        });
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        self.story.note(self.now.0);
        match event {
            Event::Turn(id) => self.turn(id),
            Event::Deliver(parcel) => {
                self.deliver(*parcel);
                Ok(())
            }
            Event::Disk { id, job } => self.disk_done(id, job),
            Event::Read { id, life } => {
                self.read_done(id, life);
                Ok(())
            }
            Event::Client { client, timer } => self.client_due(client, timer),
            Event::Again { client, timer } => self.again(client, timer),
            Event::Watch(watcher) => self.watch_due(watcher),
            Event::Applied { id, life } => self.applied(id, life),
            Event::Resume { id, life } => {
                self.resume(id, life);
                Ok(())
            }
            Event::Start(id) => {
                self.member(id).starting = false;
                self.start(id)
            }
            Event::Die { id, life } => self.die(id, life),
            Event::Strike { id, life } => self.strike(id, life),
            Event::Connect(one, other) => {
                self.connect(one, other);
                Ok(())
            }
            Event::Fault(fault) => self.fault_due(fault),
            Event::Unblock => {
                self.network.unblock_all();
                Ok(())
            }
            Event::Quicken => {
                self.network.quicken_all();
                Ok(())
            }
            Event::QuickDisk(id) => {
                self.member(id).slow_by = 0;
                Ok(())
            }
            Event::Thaw(id) => {
                self.thaw(id);
                Ok(())
            }
        }
    }

    fn deliver(&mut self, parcel: Parcel) {
        if !self.network.delivers(&parcel) {
            return;
        }
        let Parcel { from, to, message, .. } = parcel;
        self.feed(to, Input::Message { from, message });
    }

    /// Puts an input before a node's next turn.
    pub(super) fn feed(&mut self, id: NodeId, input: Input) {
        let member = self.members.get_mut(&id).expect("a member of the run");
        if member.node.is_none() {
            return;
        }
        member.inbox.push_back(input);
        let at = Instant(self.now.0 + self.dice.between(self.plan.turn.0, self.plan.turn.1));
        self.wake(id, at);
    }

    /// A turn at `at`, unless one comes earlier.
    pub(super) fn wake(&mut self, id: NodeId, at: Instant) {
        let member = self.members.get_mut(&id).expect("a member of the run");
        if member.turn_at.is_none_or(|due| due > at) {
            member.turn_at = Some(at);
            self.schedule.add(at, Event::Turn(id));
        }
    }

    /// Starts the node of a machine from what its disk holds.
    pub(super) fn start(&mut self, id: NodeId) -> Result<(), Violation> {
        if self.members[&id].is_up() || self.members[&id].refused {
            return Ok(());
        }
        let peers = self.ids();
        let limits = self.limits();
        let durability = self.plan.durability;
        let seed = self.dice.bits();
        let interrupted = self.interrupts_opening(id);
        let member = self.members.get_mut(&id).expect("a member of the run");
        member.life += 1;
        let life = member.life;
        let now = member.clock.now(self.now);
        let Some(opening) = member.disk.open(&mut self.dice, durability, peers.len(), interrupted) else {
            self.story.tell(self.now, || format!("node {id} dies while it opens its log"));
            self.start_later(id, 200_000_000);
            return Ok(());
        };
        let Opening { verdict, restored, frames } = opening;
        let disk = &self.members[&id].disk;
        self.judges
            .observe(self.now, &Observation::Recovered { id, verdict: &verdict, disk: disk.truth() })?;
        let commit = self.members[&id].disk.truth().commit;
        self.story.tell(self.now, || {
            format!("node {id} opens its log: {}, commit mark {commit}", super::disk::describe(&verdict))
        });
        self.member(id).disk.accept(&verdict);
        let Some(restored) = restored else {
            self.member(id).refused = true;
            return Ok(());
        };
        let config = self.config(id, life, seed);
        if self.phase != Phase::Healing && self.plan.mixed.contains_key(&id.0) {
            self.injected.count(Fault::MixedHeartbeats);
        }
        let retention = Retention { changes: self.plan.knobs.history, ..Retention::DEFAULT };
        let store = Store::with_lease_limits(self.plan.knobs.leases).with_retention(retention);
        let mut restoring = Node::restoring(config, limits, life, store, restored);
        for frame in frames {
            restoring.push(frame).map_err(|halt| Violation {
                oracle: "recovery",
                what: format!("node {id} cannot run with what it recovered: {halt}"),
            })?;
        }
        let founders = Membership::of_voters(peers.clone()).expect("a valid membership");
        let node = restoring.begin(now, &founders);
        self.judges.observe(self.now, &Observation::Started { node: &node })?;
        let recent_bytes = self.plan.knobs.recent_bytes;
        let member = self.member(id);
        member.hub = Hub::new(WatchLimits { recent_bytes, ..WatchLimits::DEFAULT });
        member.node = Some(node);
        member.process = Process::Running;
        member.turn_at = None;
        self.wake(id, Instant(self.now.0 + 1));
        for peer in peers {
            if peer != id && self.members[&peer].is_up() {
                self.connect(id, peer);
            }
        }
        self.die_again(id);
        Ok(())
    }

    fn limits(&self) -> Limits {
        let knobs = &self.plan.knobs;
        Limits {
            batch_bytes: knobs.batch_bytes,
            batches_in_flight: knobs.batches_in_flight,
            cache_bytes: knobs.cache_bytes,
            pending_requests: knobs.pending_requests,
            pending_bytes: knobs.pending_bytes,
            request_timeout: knobs.request_timeout,
        }
    }

    fn config(&self, id: NodeId, life: u64, seed: u64) -> Config {
        let knobs = &self.plan.knobs;
        let Timing { heartbeat, election_timeout, promise } = self.plan.timing(id.0, life);
        Config {
            id,
            cluster: CLUSTER,
            group: GroupId::FIRST,
            seed,
            heartbeat,
            election_timeout,
            promise,
            drift_bound_ppm: knobs.drift_bound_ppm,
            append_bytes: knobs.append_bytes,
            in_flight_bytes: knobs.in_flight_bytes,
            durability: self.plan.durability,
            unflushed_entries: knobs.unflushed_entries,
        }
    }

    /// A new connection between two members that are up.
    pub(super) fn connect(&mut self, one: NodeId, other: NodeId) {
        if !self.members[&one].is_up() || !self.members[&other].is_up() {
            return;
        }
        self.drop_connection(one, other);
        self.network.connect(one, other);
        self.feed(one, Input::Connected(other));
        self.feed(other, Input::Connected(one));
    }

    pub(super) fn drop_connection(&mut self, one: NodeId, other: NodeId) {
        if self.network.is_connected(one, other) {
            self.network.disconnect(one, other);
            self.feed(one, Input::Disconnected(other));
            self.feed(other, Input::Disconnected(one));
        }
    }

    /// Ends the life of a node; what happens to its disk depends on how.
    pub(super) fn end_life(&mut self, id: NodeId, end: &End) -> Result<(), Violation> {
        let Some(member) = self.members.get_mut(&id).filter(|member| member.node.is_some()) else {
            return Ok(());
        };
        self.story.tell(self.now, || format!("node {id} ends: {end:?}"));
        member.node = None;
        member.process = Process::Down;
        member.writes.clear();
        member.inbox.clear();
        member.turn_at = None;
        member.mark_at = None;
        member.lease = None;
        member.dies_after = None;
        member.disk_job += 1;
        member.disk_busy = false;
        member.disk.stop(&mut self.dice, end);
        self.judges.observe(self.now, &Observation::Ended { id, end })?;
        for peer in self.ids() {
            if peer != id {
                self.drop_connection(id, peer);
            }
        }
        self.lose_calls(id)
    }

    /// The nodes that must make progress once nothing fails any more: all but those whose disks are beyond repair.
    pub(super) fn core(&self) -> Vec<NodeId> {
        self.members.iter().filter(|(_, member)| !member.refused).map(|(&id, _)| id).collect()
    }

    /// Ends every fault, gives the core the time it needs, and lets the judges say what they think of the result.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.phase = Phase::Healing;
        self.network.heal();
        self.plan.apply = (1_000, 20_000);
        self.plan.flush = (80_000, 300_000);
        self.plan.load.watch_pause = self.plan.load.watch_pause.min(20 * Instant::MILLISECOND);
        for id in self.ids() {
            self.mend(id);
            self.start(id)?;
        }
        for (at, &one) in self.ids().iter().enumerate() {
            for &other in &self.ids()[at + 1..] {
                if !self.network.is_connected(one, other) {
                    self.connect(one, other);
                }
            }
        }
        let core = self.core();
        self.story.tell(self.now, || format!("nothing fails any more; the core is {core:?}"));
        self.observe(&Observation::Healed { core: &core })?;
        let election = u64::try_from(self.plan.longest_timeout().as_nanos()).expect("short");
        // Clients go on for a while, then nothing new is asked, and what was asked ends. The while is the usual one: slow
        // watchers have as much to catch up on as in any run.
        let usual = u64::try_from(self.plan.knobs.election_timeout.as_nanos()).expect("short");
        self.run_until(Instant(self.now.0 + 10 * usual))?;
        self.stop_clients();
        let deadline = Instant(self.now.0 + 60_000_000_000);
        let mut idle_since = None;
        while self.now < deadline && !self.is_settled() {
            self.run_until(Instant(self.now.0 + election / 2))?;
            if self.clients_are_idle() {
                let since = *idle_since.get_or_insert(self.now);
                self.judge_ends_of_leases(since)?;
            }
        }
        // Timers of calls run out.
        let request = u64::try_from(self.plan.knobs.request_timeout.as_nanos()).expect("short");
        self.run_until(Instant(self.now.0 + 2 * request))?;
        if let Some((_, (client, call, at))) = self.tickets.first_key_value() {
            return Err(Violation {
                oracle: "liveness",
                what: format!("call {call:?} of client {client} was never answered by node {at}"),
            });
        }
        let watching = self.watching();
        let core: Vec<_> = core.iter().filter_map(|id| self.members[id].node.as_ref()).collect();
        self.judges.observe(self.now, &Observation::Finished { core: &core, watching: &watching })
    }

    /// Nobody keeps a lease alive any more since `since`: all have ended when the longest has, by the slowest clock, a leader
    /// was there for it, and as many entries as it takes have been decided.
    fn judge_ends_of_leases(&self, since: Instant) -> Result<(), Violation> {
        let knobs = &self.plan.knobs;
        let longest = self.plan.load.ttl.1 * Instant::MILLISECOND / 10 * 11;
        let election = u64::try_from(self.plan.longest_timeout().as_nanos()).expect("short");
        let entries = if knobs.leases.expired_keys_per_entry < 10 { 64 } else { 4 };
        let round = 4 * self.plan.lines.delay.1 + 5 * Instant::MILLISECOND;
        let until = since.0 + longest + 20 * election + entries * round;
        // Others may have much to catch up on.
        let left = self.core().into_iter().filter(|id| self.members[id].leads()).find_map(|id| {
            let leases = self.members[&id].node.as_ref()?.machine().leases();
            (leases > 0).then_some((id, leases))
        });
        match left {
            Some((id, leases)) if self.now.0 > until => Err(Violation {
                oracle: super::oracle::TTL,
                what: format!("node {id} still has {leases} leases, nobody kept one alive after {since}"),
            }),
            _ => Ok(()),
        }
    }

    fn clients_are_idle(&self) -> bool {
        self.tickets.is_empty() && self.clients.iter().all(Client::is_idle)
    }

    fn is_settled(&self) -> bool {
        let mut ends = Vec::new();
        let mut leaders = 0;
        for id in self.core() {
            let Some(node) = &self.members[&id].node else { return false };
            if node.machine().leases() > 0 {
                return false;
            }
            ends.push((node.applied(), node.raft().commit(), node.raft().log().last()));
            leaders += usize::from(self.members[&id].leads());
        }
        ends.windows(2).all(|pair| pair[0] == pair[1])
            && leaders == 1
            && self.clients_are_idle()
            && self.all_are_told()
    }

    /// Whether `MemFirst` still promises anything if this node forgets now, too.
    pub(super) fn may_forget(&self, id: NodeId) -> bool {
        if self.plan.durability == Durability::DiskFirst {
            return true;
        }
        let forgets = |member: &Member| !member.remembers() || member.disk.is_failing();
        let forgot = self.members.iter().filter(|(other, member)| **other == id || forgets(member)).count();
        forgot * 2 < self.members.len()
    }
}

pub(super) const CLUSTER: ClusterId = ClusterId(7);
const SECOND: u64 = 1_000 * Instant::MILLISECOND;

/// Where a node stands, in a few words.
fn stand(id: NodeId, member: &Member) -> String {
    let Some(node) = &member.node else { return format!("node {id} down") };
    let raft = node.raft();
    let leads = if member.leads() { ", leads" } else { "" };
    format!(
        "node {id}: term {}, log {}, commit {}{leads}",
        raft.term(),
        raft.log().last().index,
        raft.commit()
    )
}

fn member(id: NodeId, plan: &Plan, dice: &mut Dice) -> Member {
    let rate = draw_rate(dice, plan.drift);
    let origin = dice.below(1 << 40);
    let wall = i64::try_from(dice.below(20_000)).expect("small") - 10_000;
    Member {
        node: None,
        process: Process::Down,
        hub: Hub::new(WatchLimits::DEFAULT),
        disk: Disk::new(id, plan.knobs.segment_bytes),
        clock: Clock::new(origin, rate, wall),
        writes: std::collections::VecDeque::new(),
        inbox: std::collections::VecDeque::new(),
        life: 0,
        turn_at: None,
        mark_at: None,
        lease: None,
        dies_after: None,
        dies_again: 0,
        disk_job: 0,
        disk_busy: false,
        hung_until: Instant(0),
        slow_by: 0,
        refused: false,
        starting: false,
    }
}

/// Local nanoseconds per million of the world's: mostly as far apart as the bound allows.
pub(super) fn draw_rate(dice: &mut Dice, drift: u64) -> u64 {
    match dice.below(4) {
        0 => 1_000_000 - drift,
        1 => 1_000_000 + drift,
        _ => 1_000_000 - drift + dice.between(0, 2 * drift),
    }
}

fn new_client(at: usize, plan: &Plan, dice: &mut Dice) -> Client {
    let mode = if dice.below(100) < plan.load.sessions { client::Mode::Opening } else { client::Mode::Plain };
    Client {
        id: ClientId(at as u64 + 1),
        at: NodeId(dice.between(1, plan.members)),
        mode,
        open: None,
        opening: None,
        timer: 0,
        leases: Vec::new(),
        revision: 1,
        next_page: None,
    }
}

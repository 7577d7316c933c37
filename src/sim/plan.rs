//! What one run is made of, drawn from its seed: the cluster, its limits, its load, and which faults it will meet.
//!
//! Swarm testing (Groce et al. 2012): each run has a random subset of the faults and random small limits, because faults
//! hide one another, and a limit is only reached where it is small.

use super::dice::Dice;
use super::fault::Fault;
use super::observation::{Instant, Terms};
use crate::kv::LeaseLimits;
use crate::raft::Durability;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const MS: u64 = Instant::MILLISECOND;
const US: u64 = 1_000;

/// What is asked of a run beyond its seed: what `--shrink` turns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Kinds of faults that are left out.
    pub without: BTreeSet<Fault>,
    /// If there are any, these kinds and no others, whatever the seed says.
    pub only: BTreeSet<Fault>,
    /// Actions of the nemesis that are left out, by number.
    pub skip: BTreeSet<u32>,
    /// Faults end here at the latest.
    pub until: Option<Duration>,
    /// At most so many clients.
    pub clients: Option<usize>,
}

/// The size of things.
#[derive(Clone, Debug)]
pub(super) struct Knobs {
    pub heartbeat: Duration,
    pub election_timeout: Duration,
    pub promise: Duration,
    pub drift_bound_ppm: u32,
    pub segment_bytes: u64,
    pub batch_bytes: usize,
    pub batches_in_flight: u64,
    pub append_bytes: usize,
    pub in_flight_bytes: usize,
    pub cache_bytes: usize,
    pub pending_requests: usize,
    pub pending_bytes: usize,
    pub request_timeout: Duration,
    pub unflushed_entries: u64,
    /// Changes that a store's history keeps.
    pub history: usize,
    /// Bytes of what watches were told lately.
    pub recent_bytes: usize,
    pub leases: LeaseLimits,
}

/// When a member speaks and how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timing {
    pub heartbeat: Duration,
    pub election_timeout: Duration,
    pub promise: Duration,
}

/// What the lines are like when nothing is wrong with them, and what is.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    pub delay: (u64, u64),
    pub loss: u64,
    pub duplicate: u64,
    pub replay: u64,
    pub reorder: u64,
    pub reorder_by: u64,
    /// Messages go through the bytes of the wire and back.
    pub encoded: bool,
}

/// What the load is like.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub clients: usize,
    pub keys: u64,
    /// Mean pause of a client between two calls.
    pub think: u64,
    /// How long a client waits before it tries elsewhere.
    pub patience: u64,
    /// Clients whose calls are in sessions, in percent.
    pub sessions: u64,
    /// Log time after which an unused session ends.
    pub session_timeout: Duration,
    /// How many answers of its session a client has seen and not acknowledged. If any, it also goes on in its session after
    /// a command of unknown outcome.
    pub unacknowledged: u64,
    /// Bytes by which values are padded, at most.
    pub padding: u64,
    /// Shares of put, swap, delete, linearizable, lease and eventual reads.
    pub mix: [u64; 6],
    /// Asks that are not among those, in percent.
    pub rich: u64,
    /// Shares of attached put, attached swap, range deletion, transaction, grant, keep-alive, revocation, compaction, range
    /// read and history.
    pub rich_mix: [u64; 10],
    /// How long leases live, in milliseconds.
    pub ttl: (u64, u64),
    pub watchers: usize,
    /// Mean pause of a watcher between two looks.
    pub watch_pause: u64,
}

/// A whole run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub members: u64,
    pub durability: Durability,
    pub knobs: Knobs,
    /// Members that are not configured as the knobs say, with what they are configured with in their odd and even lives.
    pub mixed: BTreeMap<u64, [Timing; 2]>,
    pub lines: Lines,
    pub flush: (u64, u64),
    /// A turn of a node's loop takes so long.
    pub turn: (u64, u64),
    /// How long entries take to be applied, and how often that is noticeable.
    pub apply: (u64, u64),
    /// A log without writes for this long marks its end.
    pub idle: u64,
    pub drift: u64,
    /// How often a knock at the door of a leader that is there is answered as if it were gone.
    pub false_hints: u64,
    pub load: Load,
    /// Mean time between two faults of a kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Members whose disks may be damaged: a minority.
    pub victims: BTreeSet<u64>,
    pub safety: u64,
}

impl Plan {
    pub(super) fn draw(seed: u64, orders: &Orders) -> Self {
        let mut dice = Dice::new(seed, "plan");
        let dice = &mut dice;
        let members = dice.pick(&[1, 3, 3, 3, 3, 3, 5, 5, 4, 2]);
        // Half of an even group that forgot would wait for the other half for ever: `MemFirst` is for odd ones.
        let memory = dice.below(4) == 0 && members % 2 == 1;
        let durability = if memory { Durability::MemFirst } else { Durability::DiskFirst };
        let mut knobs = draw_knobs(dice);
        let rough = dice.below(4) != 0;
        let mut faults = draw_faults(dice, durability, members, &orders.only);
        if orders.only.is_empty() {
            retune(&mut faults, &mut Dice::new(seed, "pace"));
            if Dice::new(seed, "mixed?").below(5) == 0 {
                faults.insert(Fault::MixedHeartbeats, u64::MAX);
            }
        }
        let loss = dice.pick(&[1, 5, 10, 30]) * 10_000;
        let duplicate = dice.pick(&[1, 10, 40]) * 10_000;
        let replay = dice.pick(&[1, 10]) * 10_000;
        let reorder = dice.pick(&[5, 30]) * 10_000;
        let reorder_by = dice.pick(&[2, 20, 400]) * MS;
        let encoded = dice.below(3) == 0;
        let delay = dice.pick(&[(50 * US, 150 * US), (100 * US, 2 * MS), (MS, 10 * MS), (5 * MS, 60 * MS)]);
        let flush = dice.pick(&[(80 * US, 300 * US), (MS, 5 * MS), (MS, 30 * MS), (20 * MS, 60 * MS)]);
        let mut load = draw_load(dice, orders);
        let safety = dice.pick(&[1_000, 2_000, 3_000, 3_000, 5_000, 10_000]) * MS;
        let victims = draw_victims(dice, members);
        let idle = dice.pick(&[20, 100, 1_000]) * MS;
        enrich(&mut load, &mut knobs, &mut Dice::new(seed, "wishes"));
        let hints = &mut Dice::new(seed, "hints");
        if hints.below(4) != 0 {
            knobs.promise = knobs.heartbeat * 3;
        }
        let false_hints = hints.pick(&[20_000, 200_000, 1_000_000]);
        let drift = 50_000;
        faults.retain(|fault, _| !orders.without.contains(fault) && (rough || !is_of_lines(*fault)));
        let mixed = faults.contains_key(&Fault::MixedHeartbeats);
        let round = Duration::from_nanos(delay.1 + flush.1);
        let mixed =
            if mixed { mix(members, &knobs, round, &mut Dice::new(seed, "mixed")) } else { BTreeMap::new() };
        let rate = |fault, ppm| if faults.contains_key(&fault) { ppm } else { 0 };
        let lines = Lines {
            delay,
            loss: rate(Fault::Loss, loss),
            duplicate: rate(Fault::Duplicate, duplicate),
            replay: rate(Fault::Replay, replay),
            reorder: rate(Fault::Reorder, reorder),
            reorder_by,
            encoded,
        };
        let until = orders.until.map_or(u64::MAX, |until| until.as_nanos().try_into().unwrap_or(u64::MAX));
        Self {
            members,
            durability,
            knobs,
            mixed,
            lines,
            flush,
            turn: (2 * US, 40 * US),
            apply: (10 * US, dice.pick(&[50 * US, 5 * MS, 50 * MS])),
            idle,
            drift: if faults.contains_key(&Fault::Drift) { drift } else { 0 },
            false_hints: rate(Fault::FalseHint, false_hints),
            load,
            faults,
            victims,
            safety: safety.min(until),
        }
    }

    /// What a member is configured with in one of its lives.
    pub(super) fn timing(&self, member: u64, life: u64) -> Timing {
        let usual = self.knobs.timing();
        self.mixed.get(&member).map_or(usual, |lives| lives[usize::from(life.is_multiple_of(2))])
    }

    fn timings(&self) -> impl Iterator<Item = Timing> {
        self.mixed.values().flatten().copied().chain([self.knobs.timing()])
    }

    /// The longest election timeout that any member is configured with.
    pub(super) fn longest_timeout(&self) -> Duration {
        self.timings().map(|timing| timing.election_timeout).max().expect("the knobs' own")
    }

    /// Whether some clock leaves the bound that leases rely on. Then nobody asks for lease reads.
    pub(super) fn has_wild_clocks(&self) -> bool {
        self.faults.contains_key(&Fault::ClockLeap) || self.faults.contains_key(&Fault::ClockFreeze)
    }

    /// What the judges have to know of it.
    pub(super) fn terms(&self) -> Terms {
        let heartbeat = self.timings().map(|timing| timing.heartbeat).max().expect("the knobs' own");
        let heartbeat = u64::try_from(heartbeat.as_nanos()).expect("short");
        // By the slowest clock, and seen after the longest turn.
        let longest_step = 2 * heartbeat / 1_000 * 1_060 + self.apply.1 + 10 * MS;
        Terms {
            changes: Some(self.knobs.history),
            leases: self.knobs.leases,
            fastest_ppm: (!self.has_wild_clocks()).then_some(self.drift),
            longest_step,
        }
    }

    pub(super) fn describe(&self) -> String {
        let names: Vec<_> = self.faults.keys().map(|fault| fault.name()).collect();
        format!(
            "{} members, {:?}, {} clients on {} keys ({} % rich, {} watchers, history of {}), flush {}..{} us, line {}..{} us, segments of {} KiB, batches of {} \
             B, election {} ms (promise {} ms{}), faults for {} ms: {}",
            self.members,
            self.durability,
            self.load.clients,
            self.load.keys,
            self.load.rich,
            self.load.watchers,
            self.knobs.history,
            self.flush.0 / US,
            self.flush.1 / US,
            self.lines.delay.0 / US,
            self.lines.delay.1 / US,
            self.knobs.segment_bytes >> 10,
            self.knobs.batch_bytes,
            self.knobs.election_timeout.as_millis(),
            self.knobs.promise.as_millis(),
            self.mixed
                .iter()
                .map(|(id, lives)| format!(", node {id}: {:?} then {:?}", lives[0].promise, lives[1].promise))
                .collect::<String>(),
            self.safety / MS,
            names.join(" ")
        )
    }
}

fn is_of_lines(fault: Fault) -> bool {
    matches!(fault, Fault::Loss | Fault::Duplicate | Fault::Replay | Fault::Reorder | Fault::SlowLine)
}

fn draw_knobs(dice: &mut Dice) -> Knobs {
    let election = dice.pick(&[150, 250, 250, 500]);
    let heartbeat = Duration::from_millis(election / 5);
    let election_timeout = Duration::from_millis(election);
    Knobs {
        heartbeat,
        election_timeout,
        promise: election_timeout,
        drift_bound_ppm: 110_000,
        segment_bytes: dice.pick(&[16 << 10, 32 << 10, 64 << 10, 128 << 10]),
        batch_bytes: dice.pick(&[192, 256, 1 << 10, 8 << 10]),
        batches_in_flight: dice.pick(&[1, 1, 2, 8]),
        append_bytes: dice.pick(&[1, 512, 4 << 10, 64 << 10]),
        in_flight_bytes: dice.pick(&[1, 2 << 10, 64 << 10]),
        cache_bytes: dice.pick(&[512, 4 << 10, 1 << 20]),
        pending_requests: dice.pick(&[2, 16, 64]),
        pending_bytes: dice.pick(&[1 << 10, 8 << 10, 1 << 20]),
        request_timeout: Duration::from_millis(dice.pick(&[500, 2_000])),
        unflushed_entries: dice.pick(&[1, 4, 32]),
        history: 100_000,
        recent_bytes: 1 << 20,
        leases: LeaseLimits::MAX,
    }
}

impl Knobs {
    fn timing(&self) -> Timing {
        let Self { heartbeat, election_timeout, promise, .. } = *self;
        Timing { heartbeat, election_timeout, promise }
    }
}

/// Most members get a heartbeat of their own, and some another with every start. A promise is three of them, as a node's
/// configuration has it, or all of the election timeout. That is as short as the configuration admits, or as usual, if that
/// is more; but nobody waits for less than an election takes, which is `round` times a few.
fn mix(members: u64, knobs: &Knobs, round: Duration, dice: &mut Dice) -> BTreeMap<u64, [Timing; 2]> {
    // In percent of the usual one: as far apart as 1 ms and most of a second.
    let shares = dice.pick(&[[50, 100, 200], [10, 100, 400], [1, 20, 800], [30, 100, 150]]);
    let least = knobs.election_timeout.min(round * 8);
    let draw = |dice: &mut Dice| {
        let heartbeat = (knobs.heartbeat * dice.pick(&shares) / 100).max(Duration::from_millis(1));
        let promise = heartbeat * 3;
        let admitted = promise + promise / 8;
        let election_timeout = admitted.max(if dice.coin() { knobs.election_timeout } else { least });
        let promise = if dice.below(4) == 0 { election_timeout } else { promise };
        Timing { heartbeat, election_timeout, promise }
    };
    let mut mixed = BTreeMap::new();
    for member in 1..=members {
        let first = draw(dice);
        let second = if dice.below(3) == 0 { draw(dice) } else { first };
        if dice.below(4) != 0 {
            mixed.insert(member, [first, second]);
        }
    }
    mixed
}

fn draw_load(dice: &mut Dice, orders: &Orders) -> Load {
    let clients = dice.pick(&[1, 2, 4, 6, 8, 8, 8, 24]);
    Load {
        clients: orders.clients.map_or(clients, |most| clients.min(most)),
        keys: dice.pick(&[1, 2, 5, 20]),
        think: dice.pick(&[MS, 10 * MS, 20 * MS, 40 * MS, 40 * MS, 100 * MS]),
        patience: dice.pick(&[300, 1_000, 3_000]) * MS,
        sessions: dice.pick(&[0, 50, 100, 100]),
        session_timeout: Duration::from_millis(dice.pick(&[1_000, 10_000, 60_000])),
        unacknowledged: dice.pick(&[0, 0, 1, 10]),
        padding: dice.pick(&[0, 0, 40, 100]),
        mix: [
            dice.between(1, 10),
            dice.between(0, 6),
            dice.pick(&[0, 0, 1, 3]),
            dice.between(0, 8),
            dice.between(0, 8),
            dice.between(0, 3),
        ],
        rich: 0,
        rich_mix: [0; 10],
        ttl: (100, 100),
        watchers: 0,
        watch_pause: MS,
    }
}

/// Ranges, transactions, leases and watches: in four of five runs.
fn enrich(load: &mut Load, knobs: &mut Knobs, dice: &mut Dice) {
    load.rich = dice.pick(&[0, 20, 50, 50, 90]);
    if load.rich == 0 {
        return;
    }
    load.rich_mix = [
        dice.between(1, 5),
        dice.between(0, 3),
        dice.pick(&[0, 1, 1]),
        dice.between(1, 5),
        dice.between(1, 2),
        dice.between(0, 4),
        dice.pick(&[0, 0, 1]),
        dice.pick(&[0, 0, 1]),
        dice.between(1, 3),
        dice.between(0, 1),
    ];
    // With many keys, what a lease has is still there when it ends.
    load.keys = dice.pick(&[load.keys, load.keys, 60]);
    load.ttl = dice.pick(&[(100, 300), (100, 2_000), (500, 1_500), (1_000, 4_000)]);
    load.watchers = dice.pick(&[0, 1, 3, 3, 6]);
    load.watch_pause = dice.pick(&[MS, 10 * MS, 50 * MS, 300 * MS]);
    knobs.history = dice.pick(&[4, 20, 100, 1_000, 100_000]);
    knobs.recent_bytes = dice.pick(&[1, 200, 2_000, 1 << 20]);
    knobs.leases = dice.pick(&[
        LeaseLimits::MAX,
        LeaseLimits { leases: 64, keys: 3, expired_keys_per_entry: 2 },
        LeaseLimits { leases: 8, keys: 100, expired_keys_per_entry: 1 },
    ]);
    // Transactions are longer than what smaller limits are there for.
    knobs.batch_bytes = knobs.batch_bytes.max(1 << 10);
    knobs.pending_bytes = knobs.pending_bytes.max(4 << 10);
}

fn draw_victims(dice: &mut Dice, members: u64) -> BTreeSet<u64> {
    let most = (members - 1) / 2;
    let mut victims = BTreeSet::new();
    while (victims.len() as u64) < most {
        victims.insert(dice.between(1, members));
    }
    victims
}

/// The faults that elections and leases are made for. Two or three of them, often, and nothing else that hides what they
/// do: the other half of the runs.
const SHARP: [Fault; 15] = [
    Fault::Partition,
    Fault::Isolate,
    Fault::IsolateLeader,
    Fault::OneWay,
    Fault::SlowLine,
    Fault::Reorder,
    Fault::Kill,
    Fault::PowerCut,
    Fault::Flicker,
    Fault::StrikeNewLeader,
    Fault::Pause,
    Fault::LeaseEdge,
    Fault::Drift,
    Fault::ClockLeap,
    Fault::FalseHint,
];

/// Faults that together, and hardly ever otherwise, lead to where a known pitfall lies.
const THEMES: [&[Fault]; 7] = [
    // Figure 3.7 of the thesis: leaders that fall before they have decided anything of their own.
    &[Fault::StrikeNewLeader, Fault::IsolateLeader],
    // A leader of the past that is still asked, and late answers to what it asked when it led.
    &[Fault::IsolateLeader, Fault::ClockLeap, Fault::Reorder, Fault::SlowLine],
    &[Fault::Isolate, Fault::IsolateLeader, Fault::Drift, Fault::LeaseEdge, Fault::FalseHint],
    // Promises to a leader that some cannot hear, kept by nodes that restart.
    &[Fault::OneWay, Fault::Flicker, Fault::Drift],
    // Minorities that go on among themselves.
    &[Fault::Partition, Fault::IsolateLeader, Fault::Bridge],
    // Damaged replicas asked for their vote.
    &[Fault::Flip, Fault::Zero, Fault::Misdirect, Fault::Kill, Fault::StrikeNewLeader],
    &[Fault::Transfer, Fault::Pause, Fault::LeaseEdge, Fault::Drift],
];

/// Which faults a run has: a random share of all, a few sharp ones, or a theme.
fn draw_kinds(dice: &mut Dice) -> BTreeSet<Fault> {
    if dice.below(5) == 0 {
        return dice.pick(&THEMES).iter().copied().collect();
    }
    if dice.coin() {
        return (0..dice.between(2, 4)).map(|_| dice.pick(&SHARP)).collect();
    }
    let share = dice.pick(&[0, 100, 200, 200, 300, 300, 500, 700]) * 1_000;
    // Wild clocks take the lease reads away, so they are rare.
    let rare = |fault: &Fault| matches!(fault, Fault::ClockLeap | Fault::ClockFreeze);
    let chance = |fault: &Fault| if rare(fault) { share / 3 } else { share };
    // Retuning and what is configured are no failures, and have dice of their own.
    let own_dice = [Fault::Retune, Fault::MixedHeartbeats];
    let failures = Fault::ALL.iter().copied().filter(|fault| !own_dice.contains(fault));
    failures.filter(|fault| dice.chance(chance(fault))).collect()
}

/// In a third of the runs, nodes change their pace while they run.
fn retune(faults: &mut BTreeMap<Fault, u64>, dice: &mut Dice) {
    if dice.below(3) == 0 {
        faults.insert(Fault::Retune, dice.pick(&[20, 100, 400]) * MS);
    }
}

/// The run's faults, each with a mean time between two of them.
fn draw_faults(
    dice: &mut Dice,
    durability: Durability,
    members: u64,
    only: &BTreeSet<Fault>,
) -> BTreeMap<Fault, u64> {
    let drawn = draw_kinds(dice);
    let kinds = if only.is_empty() { &drawn } else { only };
    let haste = dice.pick(&[1, 2, 4, 8, 16]);
    let mut faults = BTreeMap::new();
    for &fault in kinds {
        let mean = match fault {
            Fault::Loss
            | Fault::Duplicate
            | Fault::Replay
            | Fault::Reorder
            | Fault::Drift
            | Fault::MixedHeartbeats
            | Fault::FalseHint => u64::MAX,
            Fault::PowerCutAll | Fault::CrashLoop | Fault::Ring | Fault::Bridge => 4_000 * MS,
            Fault::WriteError | Fault::FlushError => 5_000 * MS,
            Fault::Flip | Fault::Zero | Fault::Stale | Fault::Misdirect => 2_000 * MS,
            Fault::KillAtEffect
            | Fault::LeaseEdge
            | Fault::Transfer
            | Fault::StrikeNewLeader
            | Fault::IsolateLeader => 1_000 * MS,
            _ => 1_500 * MS,
        };
        // MemFirst promises nothing once a majority has forgotten together.
        let allowed = match durability {
            Durability::DiskFirst => members >= 3 || !fault.is_damage(),
            Durability::MemFirst => !fault.is_damage() && fault != Fault::PowerCutAll,
        };
        if allowed {
            faults.insert(fault, mean / if mean == u64::MAX { 1 } else { haste });
        }
    }
    faults
}

//! What coordination is made of, under leaders that are killed: a watcher that misses nothing, a lock that is held once, a
//! key that goes when its time is over.
//!
//! Every node is watched by a client that asks again, at the same node or another, from the first revision it was not told.
//! Since it watches every key, and every revision changes one, the revisions it is told must be all there are, each once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, ClusterError, PATIENCE, Runtimes, Settings, with_cluster};
use crate::process::NodeProcess;
use crate::random::Random;
use crate::report::{Distribution, Report};
use crate::stamp::Stamp;
use crate::talk::{Ask, Death, EVERYTHING, Effect, Told};

/// How much of it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program with the `node` job.
    pub program: PathBuf,
    /// Where directories are made.
    pub below: PathBuf,
    /// The nodes' drivers.
    pub runtimes: Runtimes,
    /// Revisions that every watcher sees.
    pub events: u64,
    /// Times the leader is killed.
    pub kills: usize,
    /// The time to live of keys.
    pub ttl: Duration,
    /// What a key's end may be late.
    pub late: Duration,
    /// Seed of times and choices.
    pub seed: u64,
}

/// An answer is not waited for longer than this.
const ANSWER: Duration = Duration::from_secs(20);
/// Keys that the writers use.
const KEYS: u64 = 2_000;
/// Clients that want the lock.
const CONTENDERS: u64 = 3;

struct Arena {
    cluster: Arc<Cluster>,
    /// Nothing new is begun.
    over: AtomicBool,
    /// As far as the writers know.
    revision: AtomicU64,
    goal: u64,
    /// The last revision there will be, once it is known.
    end: OnceLock<u64>,
    ttl: Duration,
}

/// What one watcher was told.
#[derive(Default)]
struct Followed {
    next: u64,
    revisions: u64,
    events: u64,
    sum: u64,
    reopened: u64,
    moved: u64,
}

struct Held {
    token: u64,
    from: Stamp,
    until: Stamp,
}

struct Mortal {
    asked: Stamp,
    acknowledged: Stamp,
    revision: u64,
}

/// Do it, and judge.
pub fn run(plan: &Plan) -> Report {
    let name = format!(
        "coordination on {}: watches, locks and times to live over {} kills of the leader (seed {})",
        plan.runtimes.name(),
        plan.kills,
        plan.seed
    );
    let settings = Settings::three(&plan.program, plan.runtimes, &plan.below);
    with_cluster(settings, Report::new(name), |cluster, report| live(plan, cluster, report))
}

fn live(plan: &Plan, cluster: &Arc<Cluster>, report: &mut Report) -> Result<(), ClusterError> {
    // A watcher may stay behind as long as the job lasts.
    cluster.configure("history.changes", &(4 * plan.events).to_string());
    cluster.configure("history.bytes", "1GiB");
    for index in 0..cluster.len() {
        cluster.kill(index);
        cluster.start_node(index)?;
    }
    cluster.leader(PATIENCE)?;
    let arena = Arc::new(Arena {
        cluster: Arc::clone(cluster),
        over: AtomicBool::new(false),
        revision: AtomicU64::new(0),
        goal: plan.events,
        end: OnceLock::new(),
        ttl: plan.ttl,
    });
    let mut random = Random::new(plan.seed);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let spawn_fill = |random: Random| {
            let arena = Arc::clone(&arena);
            scope.spawn(move || arena.fill(random))
        };
        let fillers = [spawn_fill(random.fork()), spawn_fill(random.fork())];
        let followers: Vec<_> = (0..cluster.len())
            .map(|home| {
                let (arena, random) = (Arc::clone(&arena), random.fork());
                scope.spawn(move || arena.follow(home, random))
            })
            .collect();
        let watchers: Vec<_> = (0..cluster.len())
            .map(|home| {
                let arena = Arc::clone(&arena);
                scope.spawn(move || arena.watch_deaths(home))
            })
            .collect();
        let contenders: Vec<_> = (0..CONTENDERS)
            .map(|_| {
                let (arena, random) = (Arc::clone(&arena), random.fork());
                scope.spawn(move || arena.contend(random))
            })
            .collect();
        let mortals = {
            let (arena, random) = (Arc::clone(&arena), random.fork());
            scope.spawn(move || arena.put_mortals(random))
        };

        let outcome = kill_leaders(plan, &arena, &mut random);
        let deadline = Instant::now() + 4 * PATIENCE;
        while outcome.is_ok()
            && arena.revision.load(Ordering::SeqCst) < arena.goal
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        arena.over.store(true, Ordering::SeqCst);
        let filled = fillers.map(|filler| filler.join().expect("a filler"));
        let mortals = mortals.join().expect("the writer of mortal keys");
        let held = contenders.into_iter().flat_map(|one| one.join().expect("a contender")).collect();
        // What is still to die has its time, and every watcher its chance to see it.
        std::thread::sleep(plan.ttl + 2 * plan.late);
        let settled = cluster.settle(2 * PATIENCE);
        let end = settled.as_ref().map_or(0, |status| status.revision);
        arena.end.set(end).expect("the end is known once");
        let followed = followers.into_iter().map(|one| one.join().expect("a follower")).collect();
        let deaths = watchers.into_iter().map(|one| one.join().expect("a watcher of deaths")).collect();
        settled?;
        outcome?;

        let (acknowledged, lost) = filled.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        report.fact("leader killed and restarted", plan.kills);
        report.fact("writes acknowledged, not acknowledged", format!("{acknowledged}, {lost}"));
        report.fact("took", format!("{:.1} s", start.elapsed().as_secs_f64()));
        judge_followers(end, followed, plan.events, report);
        judge_lock(held, report);
        judge_deaths(plan, &mortals, deaths, report);
        Ok(())
    })
}

/// The kills are spread over the run: one each time another share of the revisions is there. No two fall into one time to
/// live: an outage without a leader is no time for the log, so each of them makes a key live longer by as much.
fn kill_leaders(plan: &Plan, arena: &Arena, random: &mut Random) -> Result<(), ClusterError> {
    let mut since = Instant::now();
    for kill in 0..plan.kills {
        let share = plan.events * kill as u64 / plan.kills.max(1) as u64;
        let deadline = Instant::now() + PATIENCE;
        while arena.revision.load(Ordering::SeqCst) < share && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(random.duration(Duration::from_millis(200)..Duration::from_millis(600)));
        std::thread::sleep(plan.ttl.saturating_sub(since.elapsed()));
        since = Instant::now();
        let leader = arena.cluster.leader(PATIENCE)?;
        arena.cluster.kill(leader);
        std::thread::sleep(random.duration(Duration::ZERO..Duration::from_millis(500)));
        arena.cluster.start_node(leader)?;
    }
    Ok(())
}

impl Arena {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn any_node(&self, random: &mut Random) -> Option<Arc<NodeProcess>> {
        let first = random.index(self.cluster.len());
        (0..self.cluster.len()).find_map(|step| self.cluster.node((first + step) % self.cluster.len()))
    }

    /// Writes until the goal is reached; acknowledged and not.
    fn fill(&self, mut random: Random) -> (u64, u64) {
        let (mut acknowledged, mut lost) = (0, 0);
        while !self.is_over() && self.revision.load(Ordering::SeqCst) < self.goal {
            let Some(node) = self.any_node(&mut random) else { continue };
            let ask = Ask::Fill { prefix: "fill/".into(), keys: KEYS, count: 4_000 };
            if let Told::Filled { acknowledged: done, lost: failed } = node.ask(ask, ANSWER).told {
                acknowledged += done;
                lost += failed;
            }
            if let Told::Status(status) = node.ask(Ask::Status, ANSWER).told {
                self.revision.fetch_max(status.revision, Ordering::SeqCst);
            }
        }
        (acknowledged, lost)
    }

    /// Whether a watcher that was told everything before `next` has nothing more to wait for.
    fn is_told(&self, next: u64, over_since: &mut Option<Instant>) -> bool {
        let Some(&end) = self.end.get() else { return false };
        let since = over_since.get_or_insert_with(Instant::now);
        next > end || since.elapsed() > PATIENCE
    }

    /// Follows every change; stays at its node while that runs, and now and then goes elsewhere for no reason.
    fn follow(&self, home: usize, mut random: Random) -> Followed {
        let mut told = Followed { next: 2, ..Followed::default() };
        let mut at = home;
        let name = format!("all-{home}");
        let mut over_since = None;
        loop {
            if self.is_told(told.next, &mut over_since) {
                return told;
            }
            if random.per_million(20_000) {
                at = random.index(self.cluster.len());
                told.moved += 1;
            }
            let Some(node) = self.cluster.node(at) else {
                at = (at + 1) % self.cluster.len();
                told.moved += 1;
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            let ask = Ask::Follow {
                name: name.clone(),
                prefix: EVERYTHING.into(),
                from: told.next,
                most: 20_000,
                wait_ms: 100,
            };
            match node.ask(ask, ANSWER).told {
                Told::Followed { next, revisions, events, sum } => {
                    told.next = next;
                    told.revisions += revisions;
                    told.events += events;
                    told.sum = told.sum.wrapping_add(sum);
                }
                // What was told to a process that died, or in an answer that was lost, is told again: nothing of it counts.
                _ => {
                    told.reopened += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }

    /// Takes the lock, again and again, wherever there is a node.
    fn contend(&self, mut random: Random) -> Vec<Held> {
        let mut held = Vec::new();
        while !self.is_over() {
            let Some(node) = self.any_node(&mut random) else { continue };
            let hold_ms = random.within(1..30);
            let ask = Ask::Lock { name: "lock/one".into(), ttl_ms: 1_000, hold_ms };
            if let Told::Held { token, from, until } = node.ask(ask, ANSWER).told {
                held.push(Held { token, from, until });
            }
        }
        held
    }

    /// Keys with a time to live, of which only those count whose put was acknowledged.
    fn put_mortals(&self, mut random: Random) -> BTreeMap<String, Mortal> {
        let mut mortals = BTreeMap::new();
        let ttl_ms = u64::try_from(self.ttl.as_millis()).expect("short");
        for number in 0_u64.. {
            if self.is_over() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
            let Some(node) = self.any_node(&mut random) else { continue };
            let key = format!("mortal/{number}");
            let call = node.call(Ask::PutTtl { key: key.clone(), value: "v".into(), ttl_ms });
            let Some(reply) = call.wait(ANSWER) else { continue };
            if let Told::Done { revision } = reply.told {
                mortals.insert(key, Mortal { asked: call.invoked, acknowledged: reply.at, revision });
            }
        }
        mortals
    }

    /// Every deletion below `mortal/` that one node shows.
    fn watch_deaths(&self, home: usize) -> Vec<Death> {
        let mut seen = Vec::new();
        let mut from = 2;
        let mut over_since = None;
        loop {
            if self.is_told(from, &mut over_since) {
                return seen;
            }
            let Some(node) = self.cluster.node(home) else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            let ask =
                Ask::Deaths { name: format!("deaths-{home}"), prefix: "mortal/".into(), from, wait_ms: 100 };
            match node.ask(ask, ANSWER).told {
                Told::Gone { next, deaths } => {
                    from = next;
                    seen.extend(deaths);
                }
                Told::Failed { effect: Effect::None | Effect::Maybe, .. } => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                other => panic!("a watcher of deaths was told {other}"),
            }
        }
    }
}

fn judge_followers(end: u64, followed: Vec<Followed>, events: u64, report: &mut Report) {
    report.require(end >= events, || format!("only {end} of {events} revisions were made"));
    for (home, told) in followed.iter().enumerate() {
        let id = Cluster::id(home);
        report.fact(
            format!("watcher of node {id}"),
            format!(
                "{} revisions, {} events; asked anew {} times, elsewhere {} times",
                told.revisions, told.events, told.reopened, told.moved
            ),
        );
        report.require(told.next == end + 1 && told.revisions + 1 == end, || {
            format!(
                "watcher of node {id} was told {} revisions up to {}, there are those from 2 to {end}",
                told.revisions,
                told.next - 1
            )
        });
        report.require(told.sum == followed[0].sum && told.events == followed[0].events, || {
            format!("watchers of node 1 and node {id} were told different things")
        });
    }
}

fn judge_lock(mut held: Vec<Held>, report: &mut Report) {
    held.sort_by_key(|held| held.token);
    report.fact("lock held", format!("{} times", held.len()));
    report.require(!held.is_empty(), || "nobody ever held the lock".into());
    for pair in held.windows(2) {
        let [former, next] = pair else { continue };
        report.require(former.token < next.token, || format!("two holders with the token {}", next.token));
        report.require(former.until <= next.from, || {
            format!(
                "the lock was held twice: with token {} until {}, with token {} from {}",
                former.token, former.until.0, next.token, next.from.0
            )
        });
    }
}

fn judge_deaths(plan: &Plan, mortals: &BTreeMap<String, Mortal>, seen: Vec<Vec<Death>>, report: &mut Report) {
    let ttl = plan.ttl;
    let mut deaths: BTreeMap<&str, Vec<(usize, &Death)>> = BTreeMap::new();
    for (home, deaths_here) in seen.iter().enumerate() {
        for death in deaths_here {
            deaths.entry(&death.key).or_default().push((home, death));
        }
    }
    let mut ages = Distribution::default();
    let mut judged = 0;
    for (key, mortal) in mortals {
        let Some(all) = deaths.get(key.as_str()) else {
            report.violation(format!("{key} never went"));
            continue;
        };
        judged += 1;
        let homes: Vec<usize> = all.iter().map(|(home, _)| *home).collect();
        report.require(homes == [0, 1, 2], || {
            format!("{key} went once on each of three nodes? it was seen to go on those at {homes:?}")
        });
        let revision = all[0].1.revision;
        report.require(all.iter().all(|(_, death)| death.revision == revision), || {
            format!("{key} went at different revisions: {all:?}")
        });
        report.require(revision > mortal.revision, || format!("{key} went before it came"));
        let first = all.iter().map(|(_, death)| death.seen).min().expect("one at least");
        ages.add(first.since(mortal.acknowledged));
        report.require(first.since(mortal.asked) >= ttl, || {
            format!("{key} went early: {:?} after it was asked for", first.since(mortal.asked))
        });
        report.require(first.since(mortal.acknowledged) <= ttl + plan.late, || {
            format!("{key} went late: {:?} after it was acknowledged", first.since(mortal.acknowledged))
        });
    }
    report.fact("keys with a time to live, all gone", format!("{judged} (time to live {ttl:?})"));
    report.fact("their age, from acknowledgement to first news of the end", ages);
    report.require(judged > 0, || "no key with a time to live was put".into());
}

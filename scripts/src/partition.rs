//! Networks that split, one way or both, and heal; storms of loss, delay and reordering: through the UDP proxy. Links that go
//! down: in network namespaces.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::audit;
use crate::cluster::{Cluster, ClusterError, Network, PATIENCE, Runtimes, Settings, with_cluster};
use crate::load::{Load, Shape};
#[cfg(target_os = "linux")]
use crate::namespaces::End;
use crate::process::Call;
use crate::proxy::Weather;
use crate::random::Random;
use crate::report::{Distribution, Report};
use crate::talk::{Ask, Level, Told};

/// How often, and to what.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program with the `node` job.
    pub program: PathBuf,
    /// Where directories are made.
    pub below: PathBuf,
    /// The nodes' drivers.
    pub runtimes: Runtimes,
    /// Rounds of each kind of split.
    pub rounds: usize,
    /// Where the splits are made.
    pub means: Means,
    /// Seed of the times and choices.
    pub seed: u64,
    /// The load meanwhile.
    pub load: Shape,
}

/// What splits the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Means {
    /// A UDP proxy on loopback: any direction, and storms.
    Proxy,
    /// Network namespaces: interfaces and ports going down. Needs root.
    #[cfg(target_os = "linux")]
    Links,
}

/// What is done to the network around the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Split {
    /// The leader alone, both ways.
    Leader,
    /// It hears nobody, all hear it.
    LeaderDeaf,
    /// Nobody hears it, it hears all.
    LeaderMute,
    /// A follower alone: nothing may change.
    Follower,
    /// Leader and one follower lose each other, both ways; the third hears both.
    Bridge,
    /// The leader's interface is down.
    #[cfg(target_os = "linux")]
    LeaderInterface,
    /// The port of the switch behind the leader's interface is down.
    #[cfg(target_os = "linux")]
    LeaderPort,
}

impl Split {
    /// Whether the leader is in a minority that can neither send nor receive.
    fn isolates_leader(self) -> bool {
        match self {
            Self::Leader => true,
            Self::LeaderDeaf | Self::LeaderMute | Self::Follower | Self::Bridge => false,
            #[cfg(target_os = "linux")]
            Self::LeaderInterface | Self::LeaderPort => true,
        }
    }
}

impl Means {
    fn splits(self) -> &'static [Split] {
        match self {
            Self::Proxy => {
                &[Split::Leader, Split::LeaderDeaf, Split::LeaderMute, Split::Follower, Split::Bridge]
            }
            #[cfg(target_os = "linux")]
            Self::Links => &[Split::LeaderInterface, Split::LeaderPort],
        }
    }

    fn network(self, seed: u64) -> Network {
        match self {
            Self::Proxy => Network::Proxy(seed),
            #[cfg(target_os = "linux")]
            Self::Links => Network::Namespaces,
        }
    }
}

/// Split and heal as the plan says, under one load, and judge.
pub fn run(plan: &Plan) -> Report {
    let name = format!("partitions by {:?} on {} (seed {})", plan.means, plan.runtimes.name(), plan.seed);
    #[cfg(target_os = "linux")]
    if plan.means == Means::Links
        && let Err(why) = crate::namespaces::Namespaces::make(1)
    {
        return Report::skipped(name, why.to_string());
    }
    let report = Report::new(name);
    let network = plan.means.network(plan.seed);
    let settings = Settings { network, ..Settings::three(&plan.program, plan.runtimes, &plan.below) };
    with_cluster(settings, report, |cluster, report| disturb(plan, cluster, report))
}

fn disturb(plan: &Plan, cluster: &Arc<Cluster>, report: &mut Report) -> Result<(), ClusterError> {
    cluster.leader(PATIENCE)?;
    let load = Load::start(cluster, plan.load.clone());
    let mut random = Random::new(plan.seed);
    let mut outcome = rounds(plan, cluster, &load, &mut random, report);
    if outcome.is_ok() && plan.means == Means::Proxy {
        outcome = storm(plan, cluster, &load, report);
    }
    let record = load.finish();
    outcome?;
    audit::everything(cluster, &record, report);
    Ok(())
}

fn rounds(
    plan: &Plan,
    cluster: &Arc<Cluster>,
    load: &Load,
    random: &mut Random,
    report: &mut Report,
) -> Result<(), ClusterError> {
    for &split in plan.means.splits() {
        let (mut progress, mut healing) = (Distribution::default(), Distribution::default());
        for round in 0..plan.rounds {
            one(cluster, load, split, round, random, report, &mut progress, &mut healing)?;
        }
        report.fact(format!("{split:?}: first new acknowledged write"), progress);
        report.fact(format!("{split:?}: healed, all follow one leader"), healing);
    }
    Ok(())
}

/// Loss, duplicates, flipped bits, delay and reordering everywhere, all at once.
fn storm(plan: &Plan, cluster: &Cluster, load: &Load, report: &mut Report) -> Result<(), ClusterError> {
    let storm = Weather {
        loss: 30_000,
        duplicate: 20_000,
        corrupt: 5_000,
        delay: Duration::ZERO..Duration::from_millis(8),
        ..Weather::FAIR
    };
    load.rotate();
    cluster.proxy().set_all(&storm);
    let before = load.acknowledged();
    for _ in 0..plan.rounds {
        std::thread::sleep(Duration::from_secs(2));
        load.rotate();
        report
            .require(load.progress(100, PATIENCE), || "no progress in a storm that lets most through".into());
    }
    report.fact("storm: writes acknowledged in it", load.acknowledged() - before);
    cluster.proxy().set_all(&Weather::FAIR);
    cluster.agree(PATIENCE)?;
    report.require(load.progress(100, PATIENCE), || "no progress after the storm".into());
    let count = cluster.proxy().count();
    report.fact(
        "datagrams passed / dropped / doubled / corrupted",
        format!("{} / {} / {} / {}", count.passed, count.dropped, count.duplicated, count.corrupted),
    );
    Ok(())
}

fn split_now(cluster: &Cluster, leader: usize, split: Split) -> Result<(), ClusterError> {
    let others: Vec<usize> = (0..cluster.len()).filter(|index| *index != leader).collect();
    match split {
        Split::Leader => cluster.proxy().isolate(&[leader]),
        Split::Follower => cluster.proxy().isolate(&others[..1]),
        Split::LeaderDeaf => {
            others.iter().for_each(|other| cluster.proxy().set(*other, leader, &Weather::CUT))
        }
        Split::LeaderMute => {
            others.iter().for_each(|other| cluster.proxy().set(leader, *other, &Weather::CUT))
        }
        Split::Bridge => {
            cluster.proxy().set(leader, others[0], &Weather::CUT);
            cluster.proxy().set(others[0], leader, &Weather::CUT);
        }
        #[cfg(target_os = "linux")]
        Split::LeaderInterface => cluster.namespaces().down(leader, End::Node)?,
        #[cfg(target_os = "linux")]
        Split::LeaderPort => cluster.namespaces().down(leader, End::Port)?,
    }
    Ok(())
}

fn heal(cluster: &Cluster, leader: usize, split: Split) -> Result<(), ClusterError> {
    match split {
        #[cfg(target_os = "linux")]
        Split::LeaderInterface | Split::LeaderPort => cluster.namespaces().up(leader)?,
        _ => cluster.proxy().set_all(&Weather::FAIR),
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "one round of a job, called once")]
fn one(
    cluster: &Cluster,
    load: &Load,
    split: Split,
    round: usize,
    random: &mut Random,
    report: &mut Report,
    progress: &mut Distribution,
    healing: &mut Distribution,
) -> Result<(), ClusterError> {
    load.rotate();
    let leader = cluster.leader(PATIENCE)?;
    report.require(load.progress(50, PATIENCE), || format!("{split:?}: no progress before it"));
    std::thread::sleep(random.duration(Duration::ZERO..Duration::from_millis(200)));

    let mut done = Ok(());
    let outage = load.outage(|| done = split_now(cluster, leader, split), PATIENCE);
    done?;
    match outage {
        Some(time) => progress.add(time),
        None => report.violation(format!("{split:?}: no write acknowledged within {PATIENCE:?}")),
    }
    load.rotate();
    let minority = split.isolates_leader().then(|| ask_minority(cluster, leader, round)).flatten();
    std::thread::sleep(random.duration(Duration::from_millis(200)..Duration::from_millis(1500)));
    if let Some((put, read)) = &minority {
        for (name, call) in [("write", put), ("linearizable read", read)] {
            let told = call.wait(Duration::ZERO).map(|reply| reply.told);
            report.require(!matches!(told, Some(Told::Done { .. } | Told::Value { .. })), || {
                format!("the cut-off leader answered a {name}: {told:?}")
            });
        }
    }
    heal(cluster, leader, split)?;
    load.rotate();
    let healed = Instant::now();
    cluster.agree(PATIENCE)?;
    healing.add(healed.elapsed());
    report.require(load.progress(50, PATIENCE), || format!("{split:?}: no progress after healing"));
    Ok(())
}

/// Calls to a leader that is already cut off.
fn ask_minority(cluster: &Cluster, leader: usize, round: usize) -> Option<(Call, Call)> {
    let node = cluster.node(leader)?;
    let key = format!("minority/{round}");
    let put = node.call(Ask::Put { key: key.clone(), value: "lonely".into() });
    Some((put, node.call(Ask::Get { key, level: Level::Linearizable })))
}

//! Networks that split, one way or both, and heal; storms of loss, delay and reordering. Through the UDP proxy.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::audit;
use crate::cluster::{Cluster, ClusterError, PATIENCE, Runtimes, Settings};
use crate::load::{Load, Shape};
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
    /// Rounds of all kinds of weather.
    pub rounds: usize,
    /// Seed of the times and choices.
    pub seed: u64,
    /// The load meanwhile.
    pub load: Shape,
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
}

const SPLITS: [Split; 5] =
    [Split::Leader, Split::LeaderDeaf, Split::LeaderMute, Split::Follower, Split::Bridge];

/// Split and heal as the plan says, under one load, and judge.
pub fn run(plan: &Plan) -> Report {
    let mut report = Report::new(format!("partitions on {} (seed {})", plan.runtimes.name(), plan.seed));
    let settings =
        Settings { proxy: Some(plan.seed), ..Settings::three(&plan.program, plan.runtimes, &plan.below) };
    let mut cluster = match Cluster::start(settings) {
        Ok(cluster) => Arc::new(cluster),
        Err(error) => {
            report.violation(error.to_string());
            return report;
        }
    };
    if let Err(error) = disturb(plan, &cluster, &mut report) {
        report.violation(error.to_string());
    }
    if !report.violations().is_empty()
        && let Some(cluster) = Arc::get_mut(&mut cluster)
    {
        report.fact("data and logs kept in", cluster.keep().display());
    }
    report
}

fn disturb(plan: &Plan, cluster: &Arc<Cluster>, report: &mut Report) -> Result<(), ClusterError> {
    cluster.leader(PATIENCE)?;
    let load = Load::start(cluster, plan.load.clone());
    let mut random = Random::new(plan.seed);
    let outcome = rounds(plan, cluster, &load, &mut random, report);
    cluster.proxy().set_all(&Weather::FAIR);
    let record = load.finish();
    let count = cluster.proxy().count();
    report.fact(
        "datagrams passed / dropped / doubled / corrupted",
        format!("{} / {} / {} / {}", count.passed, count.dropped, count.duplicated, count.corrupted),
    );
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
    for split in SPLITS {
        let (mut progress, mut healing) = (Distribution::default(), Distribution::default());
        for round in 0..plan.rounds {
            one(cluster, load, split, round, random, report, &mut progress, &mut healing)?;
        }
        report.fact(format!("{split:?}: first new acknowledged write"), progress);
        report.fact(format!("{split:?}: healed, all follow one leader"), healing);
    }
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
        report
            .require(load.progress(100, PATIENCE), || "no progress in a storm that lets most through".into());
    }
    report.fact("storm: writes acknowledged in it", load.acknowledged() - before);
    cluster.proxy().set_all(&Weather::FAIR);
    report.require(load.progress(100, PATIENCE), || "no progress after the storm".into());
    Ok(())
}

fn apply(cluster: &Cluster, leader: usize, split: Split) {
    let proxy = cluster.proxy();
    let others: Vec<usize> = (0..cluster.len()).filter(|index| *index != leader).collect();
    match split {
        Split::Leader => proxy.isolate(&[leader]),
        Split::Follower => proxy.isolate(&others[..1]),
        Split::LeaderDeaf => others.iter().for_each(|other| proxy.set(*other, leader, &Weather::CUT)),
        Split::LeaderMute => others.iter().for_each(|other| proxy.set(leader, *other, &Weather::CUT)),
        Split::Bridge => {
            proxy.set(leader, others[0], &Weather::CUT);
            proxy.set(others[0], leader, &Weather::CUT);
        }
    }
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

    let outage = load.outage(|| apply(cluster, leader, split), PATIENCE);
    match outage {
        Some(time) => progress.add(time),
        None => report.violation(format!("{split:?}: no write acknowledged within {PATIENCE:?}")),
    }
    load.rotate();
    let minority = (split == Split::Leader).then(|| ask_minority(cluster, leader, round)).flatten();
    std::thread::sleep(random.duration(Duration::from_millis(200)..Duration::from_millis(1500)));
    if let Some((put, read)) = &minority {
        for (name, call) in [("write", put), ("linearizable read", read)] {
            let told = call.wait(Duration::ZERO).map(|reply| reply.told);
            report.require(!matches!(told, Some(Told::Done { .. } | Told::Value { .. })), || {
                format!("the cut-off leader answered a {name}: {told:?}")
            });
        }
    }
    cluster.proxy().set_all(&Weather::FAIR);
    load.rotate();
    let healed = crate::stamp::Stamp::now();
    cluster.agree(PATIENCE)?;
    healing.add(crate::stamp::Stamp::now().since(healed));
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

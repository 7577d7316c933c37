//! Killing, freezing and restarting nodes of a loaded cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::audit;
use crate::cluster::{Cluster, ClusterError, PATIENCE, Runtimes, Settings, with_cluster};
use crate::load::{Load, Shape};
use crate::random::Random;
use crate::report::{Distribution, Report};
use crate::stall::Stalls;
use crate::stamp::Stamp;
use crate::talk::{Ask, Level, Told};

/// How often each thing is done, and to what.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program with the `node` job.
    pub program: PathBuf,
    /// Where directories are made.
    pub below: PathBuf,
    /// The nodes' drivers.
    pub runtimes: Runtimes,
    /// The leader killed with SIGKILL, and restarted.
    pub kills: usize,
    /// A follower killed and restarted.
    pub follower_kills: usize,
    /// The leader stopped with SIGSTOP until another leads.
    pub pauses: usize,
    /// All but one killed, one of them restarted.
    pub minority_restarts: usize,
    /// All killed at once and restarted.
    pub blackouts: usize,
    /// Longest time to the first new acknowledged write.
    pub gate: Duration,
    /// Seed of the times and choices.
    pub seed: u64,
    /// The load meanwhile.
    pub load: Shape,
}

/// An answer to a call that was outstanding when the harness looked is not waited for longer than this.
const ANSWER: Duration = Duration::from_secs(10);

struct Arena {
    cluster: Arc<Cluster>,
    load: Load,
    random: Random,
    gate: Duration,
    stalls: Stalls,
    /// Outages during which the machine stood still.
    set_aside: usize,
}

/// Do what the plan says, one disturbance after the other under one load, and judge.
pub fn run(plan: &Plan) -> Report {
    let name = format!("chaos on {}: kills, pauses, restarts (seed {})", plan.runtimes.name(), plan.seed);
    let report = Report::new(name);
    let settings = Settings::three(&plan.program, plan.runtimes, &plan.below);
    with_cluster(settings, report, |cluster, report| disturb(plan, cluster, report))
}

fn disturb(plan: &Plan, cluster: &Arc<Cluster>, report: &mut Report) -> Result<(), ClusterError> {
    cluster.leader(PATIENCE)?;
    let load = Load::start(cluster, plan.load.clone());
    let mut arena = Arena {
        cluster: Arc::clone(cluster),
        load,
        random: Random::new(plan.seed),
        gate: plan.gate,
        stalls: Stalls::watch(),
        set_aside: 0,
    };
    let outcome = arena.all(plan, report);
    // The record is judged even if the cluster did not come back.
    let record = arena.load.finish();
    outcome?;
    audit::everything(cluster, &record, report);
    Ok(())
}

impl Arena {
    fn all(&mut self, plan: &Plan, report: &mut Report) -> Result<(), ClusterError> {
        let mut times = Distribution::default();
        for _ in 0..plan.kills {
            self.kill_leader(&mut times, report)?;
        }
        self.outage_fact("leader killed: first new acknowledged write", &times, report);

        let mut times = Distribution::default();
        let (mut answers, mut served) = (0, 0);
        for round in 0..plan.pauses {
            let (asked, values) = self.pause_leader(round, &mut times, report)?;
            answers += asked;
            served += values;
        }
        self.outage_fact("leader stopped: first new acknowledged write", &times, report);
        if plan.pauses > 0 {
            report.fact("reads waiting for the stopped leader, then served", format!("{answers}, {served}"));
        }

        for _ in 0..plan.follower_kills {
            self.kill_follower(report)?;
        }
        report.fact("followers killed and restarted", plan.follower_kills);
        for _ in 0..plan.minority_restarts {
            self.restart_while_another_is_down(report)?;
        }
        report.fact("restarts while another node was down", plan.minority_restarts);
        for _ in 0..plan.blackouts {
            self.kill_all(report)?;
        }
        report.fact("all nodes killed at once", plan.blackouts);
        if self.set_aside > 0 {
            report.fact("outages not timed: the machine stood still", self.set_aside);
        }
        Ok(())
    }

    fn outage_fact(&self, name: &str, times: &Distribution, report: &mut Report) {
        if times.count() > 0 {
            report.fact(name, format!("{times} (gate {:?})", self.gate));
        }
        report.require(times.max() <= self.gate, || {
            format!("{name}: {:?}, allowed {:?}", times.max(), self.gate)
        });
    }

    /// Let the load run a moment, on fresh registers.
    fn calm(&mut self) -> Result<usize, ClusterError> {
        self.load.rotate();
        let leader = self.cluster.leader(PATIENCE)?;
        if !self.load.progress(50, PATIENCE) {
            return Err(ClusterError::NoLeader(
                PATIENCE,
                "there is one, but no write is acknowledged".into(),
            ));
        }
        std::thread::sleep(self.random.duration(Duration::from_millis(50)..Duration::from_millis(300)));
        Ok(leader)
    }

    fn note(
        &mut self,
        begin: Stamp,
        outage: Option<Duration>,
        times: &mut Distribution,
        report: &mut Report,
    ) {
        match outage {
            _ if self.stalls.during(begin, Stamp::now()) => self.set_aside += 1,
            Some(time) => times.add(time),
            None => report.violation(format!("no write acknowledged within {PATIENCE:?} of a disturbance")),
        }
    }

    fn kill_leader(&mut self, times: &mut Distribution, report: &mut Report) -> Result<(), ClusterError> {
        let leader = self.calm()?;
        let begin = Stamp::now();
        let outage = self.load.outage(|| self.cluster.kill(leader), PATIENCE);
        self.note(begin, outage, times, report);
        self.load.rotate();
        std::thread::sleep(self.random.duration(Duration::ZERO..Duration::from_millis(300)));
        self.cluster.start_node(leader)?;
        self.caught_up(leader)
    }

    /// Wait until a restarted node has applied what the others had when it came back.
    fn caught_up(&self, index: usize) -> Result<(), ClusterError> {
        let leader = self.cluster.leader(PATIENCE)?;
        let goal = self.cluster.status(leader, PATIENCE).map_or(0, |status| status.applied);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.cluster.status(index, Duration::from_secs(1));
            if status.as_ref().is_some_and(|status| status.applied >= goal) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(ClusterError::Unequal(
                    PATIENCE,
                    format!("node {}: {status:?}", Cluster::id(index)),
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGSTOP the leader, let another take over and acknowledge, then ask the stopped one before it runs again: what it
    /// answers when it wakes must know the newer write. Returns how many reads were asked and how many were served.
    fn pause_leader(
        &mut self,
        round: usize,
        times: &mut Distribution,
        report: &mut Report,
    ) -> Result<(usize, usize), ClusterError> {
        const READS: usize = 8;
        let leader = self.calm()?;
        let Some(stopped) = self.cluster.node(leader) else { return Ok((0, 0)) };
        let key = format!("pause/{round}");
        let old = Ask::Put { key: key.clone(), value: "old".into() };
        let before = stopped.ask(old, ANSWER);
        // Reads under way at that moment, on purpose.
        let under_way: Vec<_> =
            (0..READS).map(|_| stopped.call(Ask::Get { key: key.clone(), level: Level::Lease })).collect();
        let begin = Stamp::now();
        let outage = self.load.outage(|| stopped.freeze(), PATIENCE);
        self.note(begin, outage, times, report);
        let written = self.put_elsewhere(leader, &key, "new");
        let levels = [Level::Linearizable, Level::Lease];
        let asked: Vec<_> = (0..READS)
            .map(|read| stopped.call(Ask::Get { key: key.clone(), level: levels[read % 2] }))
            .collect();
        self.load.rotate();
        std::thread::sleep(self.random.duration(Duration::ZERO..Duration::from_millis(200)));
        stopped.thaw();
        drop(under_way);
        let mut served = 0;
        for (read, call) in asked.iter().enumerate() {
            let Some(reply) = call.wait(ANSWER) else { continue };
            if let Told::Value { revision, found } = reply.told {
                served += 1;
                let fresh = found.as_ref().is_some_and(|found| found.value == "new");
                report.require(fresh && Some(revision) >= written, || {
                    format!(
                        "stale {:?} read after a pause: {found:?} at revision {revision}; acknowledged before it was \
                         asked: new at {written:?} (before the pause: {})",
                        levels[read % 2],
                        before.told
                    )
                });
            }
        }
        report
            .require(written.is_some(), || "no other node took a write while the leader was stopped".into());
        self.caught_up(leader)?;
        Ok((READS, served))
    }

    /// Write through any node but one, until it is acknowledged; the revision.
    fn put_elsewhere(&self, not: usize, key: &str, value: &str) -> Option<u64> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for index in (0..self.cluster.len()).filter(|index| *index != not) {
                let Some(node) = self.cluster.node(index) else { continue };
                let put = Ask::Put { key: key.to_owned(), value: value.to_owned() };
                if let Told::Done { revision } = node.ask(put, ANSWER).told {
                    return Some(revision);
                }
            }
        }
        None
    }

    /// Writes go on without it; it comes back with all of them.
    fn kill_follower(&mut self, report: &mut Report) -> Result<(), ClusterError> {
        let leader = self.calm()?;
        let follower = (leader + 1 + self.random.index(self.cluster.len() - 1)) % self.cluster.len();
        self.cluster.kill(follower);
        report.require(self.load.progress(200, PATIENCE), || "no progress with a follower down".into());
        self.cluster.start_node(follower)?;
        self.caught_up(follower)
    }

    /// Two of three down: nothing may be acknowledged. One of them back: the cluster comes up without the third.
    fn restart_while_another_is_down(&mut self, report: &mut Report) -> Result<(), ClusterError> {
        let leader = self.calm()?;
        let others: Vec<usize> = (0..self.cluster.len()).filter(|index| *index != leader).collect();
        let first_back = if self.random.per_million(500_000) { leader } else { others[0] };
        let last_back = if first_back == leader { others[0] } else { leader };
        self.cluster.kill(leader);
        self.cluster.kill(others[0]);
        let silent = self.load.silent(Duration::from_millis(300));
        report.require(silent, || "one of three acknowledged a write".into());
        self.load.rotate();
        self.cluster.start_node(first_back)?;
        report.require(self.load.progress(50, PATIENCE), || "two of three did not come up".into());
        self.load.rotate();
        self.cluster.start_node(last_back)?;
        self.caught_up(last_back)
    }

    /// Nothing but the disks is left of what was acknowledged.
    fn kill_all(&mut self, report: &mut Report) -> Result<(), ClusterError> {
        self.calm()?;
        self.cluster.kill_all();
        self.load.rotate();
        for index in 0..self.cluster.len() {
            self.cluster.start_node(index)?;
        }
        report.require(self.load.progress(50, PATIENCE), || "did not come up after all were killed".into());
        (0..self.cluster.len()).try_for_each(|index| self.caught_up(index))
    }
}

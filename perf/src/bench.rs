//! Slices in blocks: every row gets one slice in each block, in an order that is shuffled anew, so that a slow minute of
//! the machine falls on all of them.
//!
//! All systems are up all the time and one of them is loaded; what the others take meanwhile is counted and stated. A slice
//! is left out by the rule of [`Rules`] and by no other, is tried again, and is counted. One unmeasured slice of each row
//! comes first. A cluster that has written much is replaced by a fresh one between two slices, since neither the disk nor
//! the history of a store is what is measured.
//!
//! What breaks is said and left out, and the rest goes on: a cluster that fails is replaced, a row at which it keeps failing
//! is given up, and a system that does not start again is. What was found so far is written after every block.

use crate::machine::Machine;
use crate::protocol::Loaded;
use crate::results::{Dropped, NotRun, Results, Row, Rules, Slice, Spent};
use crate::slice::Probes;
use crate::slow_follower::{Pulses, RUNS, STANDS};
use crate::statistics::{SplitMix, median};
use crate::system::{Accounts, System, SystemError, catch_up};
use crate::usage::MachineUsage;
use crate::workload::{Call, Pace, Workload};
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Below this share of what was offered, a system does not follow an open loop.
const FOLLOWS: f64 = 0.7;
/// Load of a fresh cluster before it is measured: fills caches, segments and connections.
const FRESH: Duration = Duration::from_millis(700);
/// How often filling is tried.
const FILLS: usize = 3;
const FRESH_IN_FLIGHT: usize = 256;
/// How often a row may break its cluster before it is given up.
const STRIKES: usize = 2;
/// How long the slow follower may take to catch up.
const CATCHING_UP: Duration = Duration::from_secs(60);
/// What surrounds a slice, for planning: probes, accounts, preparation.
const AROUND: Duration = Duration::from_millis(170);
/// What it takes a system to start and find its settings, for planning.
const STARTING: Duration = Duration::from_secs(8);

/// Why there are no figures.
#[derive(Debug, Error)]
pub enum BenchError {
    /// A system failed.
    #[error(transparent)]
    System(#[from] SystemError),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Its reason.
        source: io::Error,
    },
    /// There is nothing to show, or less than was asked.
    #[error("{0}")]
    Broken(String),
}

/// Says what was tried when the operating system refuses.
pub fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> BenchError {
    let what = what.into();
    move |source| BenchError::Io { what, source }
}

/// Gives this process and all that it will start a nice value.
pub fn be_nice(nice: i32) -> Result<(), BenchError> {
    if nice == 0 {
        return Ok(());
    }
    // Processes and threads started from here on inherit it.
    rustix::process::setpriority_process(None, nice)
        .map_err(|error| io_error(format!("taking nice value {nice}"))(error.into()))
}

/// A fresh directory in `parent`, which is removed at the end.
pub fn scratch(parent: &Path, prefix: &str) -> Result<tempfile::TempDir, BenchError> {
    fs::create_dir_all(parent).map_err(io_error(format!("making {}", parent.display())))?;
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(parent)
        .map_err(io_error(format!("making a directory in {}", parent.display())))
}

/// What is done to a cluster while it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A follower stands still most of the time.
    SlowFollower,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlowFollower => {
                write!(f, "one follower stands still {STANDS:?} of every {:?}", STANDS + RUNS)
            }
        }
    }
}

/// What is asked, and for how long at a time.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which part of the matrix.
    pub id: String,
    /// What.
    pub workload: Workload,
    /// Whether it is a point of a curve: a short slice is enough for it.
    pub point: bool,
    /// What is done to the cluster meanwhile.
    pub condition: Option<Condition>,
}

impl Asked {
    /// Its name without a system's.
    pub fn name(&self) -> String {
        match self.condition {
            Some(condition) => format!("{}, {condition}", self.workload),
            None => self.workload.to_string(),
        }
    }
}

/// How a run measures, beyond what the report states as its rules.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The rules.
    pub rules: Rules,
    /// A cluster whose nodes have handed more than this to the device in all is replaced.
    pub renew_after: u64,
    /// Where to write what was found so far, after every block.
    pub json: Option<PathBuf>,
}

impl Plan {
    /// About how long it takes, if nothing has to be tried again.
    pub fn length(&self, systems: &[Box<dyn System>], asked: &[Asked]) -> Duration {
        let Rules { blocks, slice, short_slice, warm_up, .. } = &self.rules;
        let of = |asked: &Asked| {
            let slice = if asked.point { *short_slice } else { *slice };
            (slice + AROUND) * u32::try_from(*blocks).unwrap_or(u32::MAX) + *warm_up + AROUND
        };
        let of_system = |system: &dyn System| -> Duration {
            asked.iter().filter(|asked| system.can(asked.workload.call)).map(of).sum()
        };
        systems.iter().map(|system| STARTING + of_system(&**system)).sum()
    }
}

/// What was found, in results that were begun elsewhere.
pub struct Measured {
    /// With rows, slices, what was left out and what was not run.
    pub results: Results,
    /// How much of what was asked broke.
    pub broken: usize,
}

/// Systems that are up, and what was measured so far.
pub struct Bench<'a> {
    plan: &'a Plan,
    directory: &'a Path,
    systems: Vec<Member>,
    rows: Vec<Planned>,
    results: Results,
    broken: usize,
    began: Instant,
    progress: ProgressBar,
}

struct Member {
    system: Box<dyn System>,
    name: String,
    /// Where its present data is; the number counts clusters.
    directory: PathBuf,
    clusters: usize,
    fills: Vec<Workload>,
    /// Why it is given up.
    gone: Option<String>,
    /// How long its slow follower took to catch up, slice by slice.
    caught_up: Vec<Duration>,
}

/// A row; its position is that in [`Results::rows`] once all are warm.
struct Planned {
    row: Row,
    system: usize,
    slice: Duration,
    condition: Option<Condition>,
    /// What broke when it was tried.
    strikes: Vec<String>,
}

impl Planned {
    fn not_run(&self, why: String) -> NotRun {
        NotRun { id: self.row.id.clone(), what: format!("{}: {}", self.row.system, self.row.name()), why }
    }
}

impl<'a> Bench<'a> {
    /// Starts the systems, fills them, lets each choose its settings and warms up every row.
    pub fn start(
        plan: &'a Plan,
        directory: &'a Path,
        systems: Vec<Box<dyn System>>,
        asked: &[Asked],
        results: Results,
    ) -> Result<Self, BenchError> {
        let progress = ProgressBar::new(1);
        progress.set_style(
            ProgressStyle::with_template(
                "{elapsed_precise} [{bar:30}] {pos}/{len} slices, {eta} left  {wide_msg}",
            )
            .expect("the template is well-formed"),
        );
        let mut bench = Self {
            plan,
            directory,
            systems: Vec::new(),
            rows: Vec::new(),
            results,
            broken: 0,
            began: Instant::now(),
            progress,
        };
        let mut fills: Vec<Workload> = Vec::new();
        for Asked { workload, .. } in asked.iter().filter(|asked| reads(asked.workload.call)) {
            let same = |known: &Workload| {
                (known.key_bytes, known.value_bytes) == (workload.key_bytes, workload.value_bytes)
            };
            if !fills.iter().any(same) {
                fills.push(*workload);
            }
        }
        for system in systems {
            bench.join(system, &fills, asked);
        }
        if bench.systems.is_empty() {
            let why: Vec<String> = bench.results.not_run.iter().map(|one| one.why.clone()).collect();
            return Err(BenchError::Broken(why.join("; ")));
        }
        bench.plan_rows(asked);
        bench.warm_up();
        bench.results.rows = bench.rows.iter().map(|planned| planned.row.clone()).collect();
        Ok(bench)
    }

    /// Starts a system; one that fails is left out.
    fn join(&mut self, system: Box<dyn System>, fills: &[Workload], asked: &[Asked]) {
        let name = system.subject().name;
        self.progress.set_message(format!("starting {name}"));
        let mut member = Member {
            system,
            name,
            directory: PathBuf::new(),
            clusters: 0,
            fills: fills.to_vec(),
            gone: None,
            caught_up: Vec::new(),
        };
        let workloads: Vec<Workload> = asked.iter().map(|asked| asked.workload).collect();
        let started = member.renew(self.directory).and_then(|()| {
            self.progress.set_message(format!("{}: finding its best settings", member.name));
            Ok(member.system.calibrate(&workloads)?)
        });
        match started {
            Ok(()) => self.systems.push(member),
            Err(error) => {
                // What still runs of it would be in the way of the others.
                let _ = member.system.stop();
                let mut ids: Vec<&str> = asked.iter().map(|asked| asked.id.as_str()).collect();
                ids.dedup();
                let why = format!("it did not start: {error}");
                self.say(&format!("{}: {why}", member.name));
                self.broken += 1;
                self.results.not_run.push(NotRun { id: ids.join(" "), what: member.name, why });
            }
        }
    }

    /// Says a line above the progress; what is kept is in the results.
    fn say(&self, line: &str) {
        self.progress.suspend(|| eprintln!("perf: {line}"));
    }

    fn plan_rows(&mut self, asked: &[Asked]) {
        let rules = &self.plan.rules;
        for asked in asked {
            let Asked { id, workload, point, condition } = asked;
            for (system, member) in self.systems.iter().enumerate() {
                let subject = member.system.subject();
                if !member.system.can(workload.call) {
                    self.results.not_run.push(NotRun {
                        id: id.clone(),
                        what: format!("{}: {}", subject.name, asked.name()),
                        why: "it has no such call".into(),
                    });
                    continue;
                }
                let row = Row {
                    id: id.clone(),
                    system: subject.name,
                    promise: subject.promise,
                    workload: *workload,
                    condition: condition.map(|condition| condition.to_string()),
                };
                let slice = if *point { rules.short_slice } else { rules.slice };
                self.rows.push(Planned { row, system, slice, condition: *condition, strikes: Vec::new() });
            }
        }
    }

    /// One unmeasured slice of each row; rates that a system cannot follow are left out above the first of them.
    fn warm_up(&mut self) {
        let mut limits: Vec<Option<f64>> = vec![None; self.systems.len()];
        let mut kept = Vec::new();
        for mut planned in std::mem::take(&mut self.rows) {
            let limit = limits[planned.system];
            let offered = match planned.row.workload.pace {
                Pace::Open { per_second, .. } => Some(per_second),
                Pace::Closed { .. } => None,
            };
            if offered.zip(limit).is_some_and(|(offered, limit)| offered > limit) {
                continue;
            }
            let member = &mut self.systems[planned.system];
            if let Some(why) = &member.gone {
                self.results.not_run.push(planned.not_run(why.clone()));
                continue;
            }
            self.progress.set_message(format!("warming up: {}, {}", member.name, planned.row.name()));
            match member.load(&planned.row.workload, self.plan.rules.warm_up.min(planned.slice)) {
                Ok(loaded) => {
                    let rate = loaded.operations as f64 / loaded.elapsed.as_secs_f64().max(1e-9);
                    if let Some(offered) = offered
                        && rate < FOLLOWS * offered
                    {
                        limits[planned.system] = Some(offered);
                        self.results.not_run.push(NotRun {
                            id: planned.row.id.clone(),
                            what: format!("{}: more than {offered:.0}/s offered", member.name),
                            why: format!("of these it served {rate:.0}/s in the warm-up"),
                        });
                    }
                }
                Err(error) => {
                    planned.strikes.push(error.to_string());
                    self.replace(planned.system, &planned.row.name(), &error);
                }
            }
            kept.push(planned);
        }
        self.rows = kept;
    }

    /// A row broke its cluster: a fresh one takes its place, if it starts.
    fn replace(&mut self, system: usize, row: &str, error: &BenchError) {
        let member = &mut self.systems[system];
        let mut line = format!("{}, {row}: {error}", member.name);
        if let Err(error) = member.renew(self.directory) {
            // What still runs of it would be in the way of the others.
            let _ = member.system.stop();
            line.push_str(&format!("; {} does not start again and is given up: {error}", member.name));
            member.gone = Some(format!("it broke and did not start again: {error}"));
        }
        self.say(&line);
    }

    /// Measures all blocks and stops the systems.
    pub fn run(mut self) -> Measured {
        let rules = self.plan.rules.clone();
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        let mut numbers = SplitMix(rules.seed);
        self.results.probes = self.probe(Probes::default());
        self.progress.set_length((rules.blocks * order.len()) as u64);
        let mut probes = self.results.probes;
        for block in 0..rules.blocks {
            numbers.shuffle(&mut order);
            for (place, &row) in order.iter().enumerate() {
                self.progress.set_message(format!(
                    "block {} of {}: {}, {}",
                    block + 1,
                    rules.blocks,
                    self.rows[row].row.system,
                    self.rows[row].row.name()
                ));
                for _ in 0..rules.attempts {
                    if !self.goes_on(row) {
                        break;
                    }
                    let taken = self
                        .renew_if_large(self.rows[row].system)
                        .and_then(|()| self.slice(block, place, row));
                    let now = self.probe(probes);
                    let before = std::mem::replace(&mut probes, now);
                    match taken {
                        Ok(Ok(slice)) => {
                            self.results.slices.push(Slice { probes: before.between(probes), ..slice });
                            break;
                        }
                        Ok(Err(reason)) => self.results.dropped.push(Dropped { row, block, reason }),
                        Err(error) => {
                            let planned = &mut self.rows[row];
                            planned.strikes.push(error.to_string());
                            let (system, what) = (planned.system, planned.row.name());
                            self.replace(system, &what, &error);
                        }
                    }
                }
                self.progress.inc(1);
            }
            self.keep();
        }
        self.progress.finish_and_clear();
        self.judge_idleness();
        self.finish()
    }

    fn goes_on(&self, row: usize) -> bool {
        let planned = &self.rows[row];
        planned.strikes.len() < STRIKES && self.systems[planned.system].gone.is_none()
    }

    /// Writes what there is: a run that is interrupted later has it.
    fn keep(&self) {
        if let Some(path) = &self.plan.json
            && let Err(error) = self.results.write(path)
        {
            self.say(&format!("writing {}: {error}", path.display()));
        }
    }

    fn finish(mut self) -> Measured {
        for member in &mut self.systems {
            self.results.systems.push(member.system.subject());
            if let Err(error) = member.system.stop() {
                self.results.notes.push(format!("{} did not stop in order: {error}", member.name));
            }
            if member.clusters > 1 {
                self.results.notes.push(format!(
                    "{}: {} clusters one after the other, each fresh, since each wrote much or broke",
                    member.name, member.clusters
                ));
            }
            let caught_up = median(member.caught_up.iter().map(Duration::as_secs_f64));
            if let (Some(middle), Some(most)) = (caught_up, member.caught_up.iter().max()) {
                self.results.notes.push(format!(
                    "W10: {}: when the pulses ended, the slow follower had everything after {:.0} ms (median), {:.0} ms at most",
                    member.name,
                    middle.median * 1e3,
                    most.as_secs_f64() * 1e3
                ));
            }
        }
        for (position, planned) in self.rows.iter().enumerate() {
            let found = self.results.slices_of(position).filter(|slice| slice.operations > 0).count();
            let gone = self.systems[planned.system].gone.clone();
            let failed = self.results.errors_of(position).into_keys().next().map(str::to_owned);
            let why = match (found, planned.strikes.last().cloned().or(gone)) {
                (0, broke) => broke.or(failed).unwrap_or_else(|| "no slice counts".into()),
                (_, Some(broke)) if found < self.plan.rules.blocks => {
                    format!("{found} of {} blocks only: {broke}", self.plan.rules.blocks)
                }
                _ => continue,
            };
            self.broken += 1;
            self.results.not_run.push(planned.not_run(why));
        }
        let slices = &self.results.slices;
        if !slices.is_empty() {
            let middle = |of: fn(&Probes) -> f64| {
                median(slices.iter().map(|slice| of(&slice.probes))).map_or(0.0, |found| found.median)
            };
            self.results.probes = Probes {
                flush: middle(|probes| probes.flush),
                majority: middle(|probes| probes.majority),
                quic: middle(|probes| probes.quic),
                udp: middle(|probes| probes.udp),
                spin: middle(|probes| probes.spin),
            };
        }
        Measured { results: self.results, broken: self.broken }
    }

    fn judge_idleness(&mut self) {
        if self.systems.len() < 2 {
            return;
        }
        let (idle, all) = self.results.slices.iter().fold((0.0, 0.0), |(idle, all), slice| {
            (idle + slice.idle_cpu.as_secs_f64(), all + slice.elapsed.as_secs_f64() * slice.cores as f64)
        });
        self.results.notes.push(format!(
            "all clusters were up throughout and one was loaded at a time; those that waited took {:.1} % of the machine",
            100.0 * idle / f64::max(all, 1e-9)
        ));
    }

    /// What the machine can do now; what it could do before, if it does not let itself be asked.
    fn probe(&self, before: Probes) -> Probes {
        Probes::take(self.directory).unwrap_or_else(|error| {
            self.say(&format!("probing the machine: {error}"));
            before
        })
    }

    fn renew_if_large(&mut self, system: usize) -> Result<(), BenchError> {
        let member = &mut self.systems[system];
        if member.system.accounts()?.written_bytes() > self.plan.renew_after {
            self.progress.set_message(format!("{}: a fresh cluster", member.name));
            member.renew(self.directory)?;
        }
        Ok(())
    }

    /// One slice; or by which half of the rule it does not count.
    fn slice(&mut self, block: usize, order: usize, row: usize) -> Result<Result<Slice, String>, BenchError> {
        let Planned { row: Row { workload, .. }, system, slice, condition, .. } = &self.rows[row];
        let (workload, system, length, condition) = (*workload, *system, *slice, *condition);
        self.systems[system].system.prepare(&workload)?;
        let idle = self.idle_cpu(system)?;
        let before = self.systems[system].system.accounts()?;
        let machine = MachineUsage::now();
        let began = self.began.elapsed();
        let loaded = self.systems[system].load_under(condition, length)?;
        let machine = MachineUsage::now().zip(machine).map(|(now, then)| now.since(then));
        let after = self.systems[system].system.accounts()?;
        let idle_cpu = self.idle_cpu(system)?.saturating_sub(idle);
        if let Some(reason) = moved(&before, &after) {
            return Ok(Err(reason));
        }
        if condition.is_some() {
            self.systems[system].catch_up(after.leader)?;
        }
        if let Some(shares) = machine
            && shares.steal > self.plan.rules.most_steal
        {
            return Ok(Err(format!("the host took {:.0} % of the machine", shares.steal * 100.0)));
        }
        let processes: Vec<Spent> = after.since(&before);
        Ok(Ok(Slice {
            row,
            block,
            order,
            began,
            operations: loaded.operations,
            errors: loaded.errors,
            missed: loaded.missed,
            elapsed: loaded.elapsed,
            latencies: loaded.latencies,
            processes,
            idle_cpu,
            probes: Probes::default(),
            machine,
            cores: Machine::cores(),
        }))
    }

    /// Processor time of all systems but one.
    fn idle_cpu(&mut self, but: usize) -> Result<Duration, BenchError> {
        let mut sum = Duration::ZERO;
        for (position, member) in self.systems.iter_mut().enumerate() {
            if position != but && member.gone.is_none() {
                sum += member.system.cpu()?;
            }
        }
        Ok(sum)
    }
}

fn moved(before: &Accounts, after: &Accounts) -> Option<String> {
    let stayed = before.leader.is_some() && before.leader == after.leader && before.term == after.term;
    (!stayed).then(|| "leadership moved".into())
}

fn reads(call: Call) -> bool {
    !matches!(call, Call::Put | Call::Watch { .. })
}

impl Member {
    /// Ends the cluster with its data, starts a fresh one, fills and warms it.
    fn renew(&mut self, parent: &Path) -> Result<(), BenchError> {
        // One that broke cannot be asked to stop in order; what is left of it ends when it is dropped.
        let _ = self.system.stop();
        if self.clusters > 0 {
            let old = &self.directory;
            fs::remove_dir_all(old).map_err(io_error(format!("removing {}", old.display())))?;
        }
        self.clusters += 1;
        let label: String =
            self.name.chars().map(|letter| if letter.is_alphanumeric() { letter } else { '-' }).collect();
        self.directory = parent.join(format!("{label}-{}", self.clusters));
        let made = fs::create_dir_all(&self.directory);
        made.map_err(io_error(format!("making {}", self.directory.display())))?;
        self.system.start(&self.directory)?;
        for workload in &self.fills {
            // Leadership may move in the first seconds, and puts of that moment fail; to put twice does no harm.
            let filled = (1..FILLS).any(|_| self.system.fill(workload).is_ok());
            if !filled {
                self.system.fill(workload)?;
            }
        }
        self.load(&Workload::closed(Call::Put, FRESH_IN_FLIGHT), FRESH)?;
        Ok(())
    }

    fn load(&mut self, workload: &Workload, slice: Duration) -> Result<Loaded, BenchError> {
        self.system.prepare(workload)?;
        Ok(self.system.load(slice)?)
    }

    /// Runs what was prepared, with what is done to the cluster meanwhile.
    fn load_under(&mut self, condition: Option<Condition>, slice: Duration) -> Result<Loaded, SystemError> {
        let _pulses = match condition {
            None => None,
            Some(Condition::SlowFollower) => {
                let follower = follower(self.system.leader()?);
                self.system.pid(follower).and_then(|pid| Pulses::begin(pid, STANDS, RUNS))
            }
        };
        self.system.load(slice)
    }

    /// Waits until the slow follower has everything.
    fn catch_up(&mut self, leader: Option<usize>) -> Result<(), SystemError> {
        if let Some(leader) = leader {
            self.caught_up.push(catch_up(&mut *self.system, follower(leader), leader, CATCHING_UP)?);
        }
        Ok(())
    }
}

/// The one that is slow.
fn follower(leader: usize) -> usize {
    (leader + 1) % 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outage::{Task, Told};
    use crate::results::{Part, Promise, Subject};
    use crate::system::{Act, Timing};
    use crate::usage::ProcessUsage;
    use std::cell::Cell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    /// Answers a thousand calls in every slice; breaks at values of one size, and starts so often and no more.
    struct Fake {
        name: &'static str,
        breaks_at: Option<usize>,
        starts: Rc<Cell<usize>>,
        prepared: usize,
    }

    impl Fake {
        fn system(
            name: &'static str,
            breaks_at: Option<usize>,
            starts: usize,
        ) -> (Box<dyn System>, Rc<Cell<usize>>) {
            let left = Rc::new(Cell::new(starts));
            (Box::new(Self { name, breaks_at, starts: Rc::clone(&left), prepared: 0 }), left)
        }
    }

    impl System for Fake {
        fn subject(&self) -> Subject {
            Subject {
                name: self.name.into(),
                version: "1".into(),
                promise: Promise::FsyncQuorum,
                nodes: 3,
                ours: self.name == "ours",
                settings: BTreeMap::new(),
            }
        }

        fn can(&self, _: Call) -> bool {
            true
        }

        fn start(&mut self, _: &Path) -> Result<(), SystemError> {
            let left = self.starts.get().checked_sub(1).ok_or(SystemError::Stopped(self.name))?;
            self.starts.set(left);
            Ok(())
        }

        fn fill(&mut self, _: &Workload) -> Result<(), SystemError> {
            Ok(())
        }

        fn prepare(&mut self, workload: &Workload) -> Result<(), SystemError> {
            self.prepared = workload.value_bytes;
            Ok(())
        }

        fn load(&mut self, slice: Duration) -> Result<Loaded, SystemError> {
            if self.breaks_at == Some(self.prepared) {
                return Err(SystemError::Stopped(self.name));
            }
            Ok(Loaded { operations: 1000, elapsed: slice, ..Loaded::default() })
        }

        fn accounts(&mut self) -> Result<Accounts, SystemError> {
            let spent = Spent {
                part: Part::Leader,
                name: "node 1".into(),
                usage: ProcessUsage::default(),
                allocations: None,
                flushes: None,
                log_bytes: None,
                counters: BTreeMap::new(),
            };
            Ok(Accounts { processes: vec![spent], leader: Some(0), term: 1 })
        }

        fn timing(&self) -> Timing {
            Timing { heartbeat: Duration::ZERO, election: Duration::ZERO }
        }

        fn leader(&mut self) -> Result<usize, SystemError> {
            Ok(0)
        }

        fn client(&mut self, _: usize, _: Task) -> Result<Told, SystemError> {
            Err(SystemError::Stopped(self.name))
        }

        fn pid(&self, _: usize) -> Option<u32> {
            None
        }

        fn take_away(&mut self, _: usize, _: Act) -> Result<(), SystemError> {
            Ok(())
        }

        fn start_again(&mut self, _: usize) -> Result<(), SystemError> {
            Ok(())
        }

        fn stop(&mut self) -> Result<(), SystemError> {
            Ok(())
        }
    }

    const BLOCKS: usize = 3;

    fn measured(systems: Vec<Box<dyn System>>) -> Result<(Measured, Results), BenchError> {
        let directory = tempfile::tempdir().expect("a directory");
        let json = directory.path().join("so-far.json");
        let rules = Rules { attempts: 2, ..Rules::plain(BLOCKS, Duration::from_millis(1), 1) };
        let plan = Plan { rules: rules.clone(), renew_after: 1 << 30, json: Some(json.clone()) };
        let asked: Vec<Asked> = [256, 16]
            .map(|bytes| Asked {
                id: "W5".into(),
                workload: Workload::closed(Call::Put, 1).with_values_of(bytes),
                point: false,
                condition: None,
            })
            .into();
        let begun = Results::begin("full", directory.path(), rules);
        let measured = Bench::start(&plan, directory.path(), systems, &asked, begun)?.run();
        Ok((measured, Results::read(&json).expect("what was found was written as it was found")))
    }

    fn slices(results: &Results, system: &str, value_bytes: usize) -> usize {
        let is = |row: &Row| row.system == system && row.workload.value_bytes == value_bytes;
        let rows = results.rows.iter().enumerate().filter(|(_, row)| is(row));
        rows.map(|(position, _)| results.slices_of(position).count()).sum()
    }

    #[test]
    fn a_row_that_breaks_its_system_is_given_up_and_the_rest_goes_on() {
        let ((ours, _), (theirs, left)) =
            (Fake::system("ours", None, 1), Fake::system("theirs", Some(16), 10));
        let (Measured { results, broken }, so_far) = measured(vec![ours, theirs]).expect("a report");
        for results in [&results, &so_far] {
            let counts = [("ours", 256), ("ours", 16), ("theirs", 256), ("theirs", 16)]
                .map(|(system, bytes)| slices(results, system, bytes));
            assert_eq!(counts, [BLOCKS, BLOCKS, BLOCKS, 0]);
        }
        assert_eq!((broken, results.not_run.len()), (1, 1), "{:?}", results.not_run);
        let NotRun { id, what, why } = &results.not_run[0];
        assert!(id == "W5" && what.starts_with("theirs: ") && what.contains("16 B values"), "{what}");
        assert_eq!(why, "theirs does not run");
        // Once in the beginning, and a fresh one whenever it broke.
        assert_eq!(left.get(), 10 - 1 - STRIKES);
    }

    #[test]
    fn a_system_that_does_not_start_again_is_given_up_and_the_others_go_on() {
        let ((ours, _), (theirs, _)) = (Fake::system("ours", None, 1), Fake::system("theirs", Some(16), 1));
        let (Measured { results, broken }, _) = measured(vec![ours, theirs]).expect("a report");
        assert_eq!([256, 16].map(|bytes| slices(&results, "ours", bytes)), [BLOCKS, BLOCKS]);
        assert_eq!([256, 16].map(|bytes| slices(&results, "theirs", bytes)), [0, 0]);
        assert_eq!(broken, 2, "{:?}", results.not_run);
    }

    #[test]
    fn a_system_that_does_not_start_is_left_out_and_none_at_all_is_an_error() {
        let ((ours, _), (theirs, _)) = (Fake::system("ours", None, 1), Fake::system("theirs", None, 0));
        let (Measured { results, broken }, _) = measured(vec![theirs, ours]).expect("a report");
        assert_eq!((results.rows.len(), results.slices.len(), broken), (2, 2 * BLOCKS, 1));
        assert!(results.not_run[0].why.contains("did not start"), "{:?}", results.not_run);
        let (nobody, _) = Fake::system("ours", None, 0);
        assert!(measured(vec![nobody]).is_err());
    }
}

//! Slices in blocks: every row gets one slice in each block, in an order that is shuffled anew, so that a slow minute of
//! the machine falls on all of them.
//!
//! All systems are up all the time and one of them is loaded; what the others take meanwhile is counted and stated. A slice
//! is left out by the rule of [`Rules`] and by no other, is tried again, and is counted. One unmeasured slice of each row
//! comes first. A cluster that has written much is replaced by a fresh one between two slices, since neither the disk nor
//! the history of a store is what is measured.

use crate::machine::Machine;
use crate::protocol::Loaded;
use crate::results::{Dropped, Row, Rules, Slice, Subject};
use crate::slice::Probes;
use crate::statistics::SplitMix;
use crate::system::{Accounts, System, SystemError};
use crate::usage::MachineUsage;
use crate::workload::{Call, Pace, Workload};
use indicatif::{ProgressBar, ProgressStyle};
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
    /// Every slice of a row failed.
    #[error("row {row:?} of {system}: no operation succeeded{errors}")]
    Nothing {
        /// Its system.
        system: String,
        /// Its name.
        row: String,
        /// Messages of the calls that failed.
        errors: String,
    },
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

/// What is asked, and for how long at a time.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which part of the matrix.
    pub id: String,
    /// What.
    pub workload: Workload,
    /// Whether it is a point of a curve: a short slice is enough for it.
    pub point: bool,
}

/// How a run measures, beyond what the report states as its rules.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The rules.
    pub rules: Rules,
    /// A cluster whose nodes have handed more than this to the device in all is replaced.
    pub renew_after: u64,
}

/// What was found.
pub struct Found {
    /// The systems as they were measured.
    pub systems: Vec<Subject>,
    /// Rows, by system within what was asked.
    pub rows: Vec<Row>,
    /// Their slices.
    pub slices: Vec<Slice>,
    /// Slices left out.
    pub dropped: Vec<Dropped>,
    /// What a reader must know.
    pub notes: Vec<String>,
    /// Medians of the probes.
    pub probes: Probes,
}

/// Systems that are up, and what was measured so far.
pub struct Bench<'a> {
    plan: &'a Plan,
    directory: &'a Path,
    systems: Vec<Member>,
    rows: Vec<Planned>,
    slices: Vec<Slice>,
    dropped: Vec<Dropped>,
    notes: Vec<String>,
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
}

struct Planned {
    row: Row,
    system: usize,
    slice: Duration,
}

impl<'a> Bench<'a> {
    /// Starts the systems, fills them, lets each choose its settings and warms up every row.
    pub fn start(
        plan: &'a Plan,
        directory: &'a Path,
        systems: Vec<Box<dyn System>>,
        asked: &[Asked],
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
            slices: Vec::new(),
            dropped: Vec::new(),
            notes: Vec::new(),
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
            let name = system.subject().name;
            bench.progress.set_message(format!("starting {name}"));
            let mut member =
                Member { system, name, directory: PathBuf::new(), clusters: 0, fills: fills.clone() };
            member.renew(directory)?;
            let workloads: Vec<Workload> = asked.iter().map(|asked| asked.workload).collect();
            bench.progress.set_message(format!("{}: finding its best settings", member.name));
            member.system.calibrate(&workloads)?;
            bench.systems.push(member);
        }
        bench.plan_rows(asked);
        bench.warm_up()?;
        Ok(bench)
    }

    fn plan_rows(&mut self, asked: &[Asked]) {
        let rules = &self.plan.rules;
        for Asked { id, workload, point } in asked {
            for (system, member) in self.systems.iter().enumerate() {
                if !member.system.can(workload.call) {
                    continue;
                }
                let subject = member.system.subject();
                let row = Row {
                    id: id.clone(),
                    system: subject.name,
                    promise: subject.promise,
                    workload: *workload,
                    condition: None,
                };
                let slice = if *point { rules.short_slice } else { rules.slice };
                self.rows.push(Planned { row, system, slice });
            }
        }
    }

    /// One unmeasured slice of each row; rates that a system cannot follow are left out above the first of them.
    fn warm_up(&mut self) -> Result<(), BenchError> {
        let mut limits: Vec<Option<f64>> = vec![None; self.systems.len()];
        let mut kept = Vec::new();
        for planned in std::mem::take(&mut self.rows) {
            let limit = &mut limits[planned.system];
            let offered = match planned.row.workload.pace {
                Pace::Open { per_second, .. } => Some(per_second),
                Pace::Closed { .. } => None,
            };
            if offered.zip(*limit).is_some_and(|(offered, limit)| offered > limit) {
                continue;
            }
            let member = &mut self.systems[planned.system];
            self.progress.set_message(format!("warming up: {}, {}", member.name, planned.row.workload));
            let loaded = member.load(&planned.row.workload, self.plan.rules.warm_up.min(planned.slice))?;
            let rate = loaded.operations as f64 / loaded.elapsed.as_secs_f64().max(1e-9);
            if let Some(offered) = offered
                && rate < FOLLOWS * offered
            {
                *limit = Some(offered);
                self.notes.push(format!(
                    "{}: of {offered:.0} offered a second it served {rate:.0} in the warm-up; higher rates were not offered to it",
                    member.name
                ));
            }
            kept.push(planned);
        }
        self.rows = kept;
        Ok(())
    }

    /// Measures all blocks and stops the systems.
    pub fn run(mut self) -> Result<Found, BenchError> {
        let rules = &self.plan.rules;
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        let mut numbers = SplitMix(rules.seed);
        let mut probes = self.probe()?;
        self.progress.set_length((rules.blocks * order.len()) as u64);
        for block in 0..rules.blocks {
            numbers.shuffle(&mut order);
            for (place, &row) in order.iter().enumerate() {
                self.progress.set_message(format!(
                    "block {} of {}: {}, {}",
                    block + 1,
                    rules.blocks,
                    self.rows[row].row.system,
                    self.rows[row].row.workload
                ));
                self.renew_if_large(self.rows[row].system)?;
                for _ in 0..rules.attempts {
                    let taken = self.slice(block, place, row)?;
                    let before = std::mem::replace(&mut probes, self.probe()?);
                    match taken {
                        Ok(slice) => {
                            self.slices.push(Slice { probes: before.between(probes), ..slice });
                            break;
                        }
                        Err(reason) => self.dropped.push(Dropped { row, block, reason }),
                    }
                }
                self.progress.inc(1);
            }
        }
        self.progress.finish_and_clear();
        self.judge_idleness();
        self.finish()
    }

    fn finish(mut self) -> Result<Found, BenchError> {
        let mut systems = Vec::new();
        for member in &mut self.systems {
            systems.push(member.system.subject());
            member.system.stop()?;
            if member.clusters > 1 {
                self.notes.push(format!(
                    "{}: {} clusters one after the other, each fresh, since each wrote much",
                    member.name, member.clusters
                ));
            }
        }
        for (position, planned) in self.rows.iter().enumerate() {
            if !self.slices.iter().any(|slice| slice.row == position && slice.operations > 0) {
                let errors = self.slices.iter().filter(|slice| slice.row == position);
                let errors: Vec<&str> =
                    errors.flat_map(|slice| &slice.errors).map(|(text, _)| text.as_str()).collect();
                return Err(BenchError::Nothing {
                    system: planned.row.system.clone(),
                    row: planned.row.name(),
                    errors: errors.first().map_or_else(String::new, |text| format!("; {text}")),
                });
            }
        }
        let middle = |of: fn(&Probes) -> f64| {
            crate::statistics::median(self.slices.iter().map(|slice| of(&slice.probes)))
                .map_or(0.0, |found| found.median)
        };
        Ok(Found {
            systems,
            probes: Probes {
                flush: middle(|probes| probes.flush),
                majority: middle(|probes| probes.majority),
                quic: middle(|probes| probes.quic),
                udp: middle(|probes| probes.udp),
                spin: middle(|probes| probes.spin),
            },
            rows: self.rows.into_iter().map(|planned| planned.row).collect(),
            slices: self.slices,
            dropped: self.dropped,
            notes: self.notes,
        })
    }

    fn judge_idleness(&mut self) {
        if self.systems.len() < 2 {
            return;
        }
        let (idle, all) = self.slices.iter().fold((0.0, 0.0), |(idle, all), slice| {
            (idle + slice.idle_cpu.as_secs_f64(), all + slice.elapsed.as_secs_f64() * slice.cores as f64)
        });
        self.notes.push(format!(
            "all clusters were up throughout and one was loaded at a time; those that waited took {:.1} % of the machine",
            100.0 * idle / f64::max(all, 1e-9)
        ));
    }

    fn probe(&self) -> Result<Probes, BenchError> {
        Probes::take(self.directory).map_err(io_error("probing the machine"))
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
        let Planned { row: Row { workload, .. }, system, slice } = &self.rows[row];
        let (workload, system, length) = (*workload, *system, *slice);
        self.systems[system].system.prepare(&workload)?;
        let idle = self.idle_cpu(system)?;
        let before = self.systems[system].system.accounts()?;
        let machine = MachineUsage::now();
        let began = self.began.elapsed();
        let loaded = self.systems[system].system.load(length)?;
        let machine = MachineUsage::now().zip(machine).map(|(now, then)| now.since(then));
        let after = self.systems[system].system.accounts()?;
        let idle_cpu = self.idle_cpu(system)?.saturating_sub(idle);
        if let Some(reason) = moved(&before, &after) {
            return Ok(Err(reason));
        }
        if let Some(shares) = machine
            && shares.steal > self.plan.rules.most_steal
        {
            return Ok(Err(format!("the host took {:.0} % of the machine", shares.steal * 100.0)));
        }
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
            processes: after.since(&before),
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
            if position != but {
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
        self.system.stop()?;
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
}

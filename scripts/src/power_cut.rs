//! Power cuts of a real filesystem under a single node that acknowledges: what it acknowledged must be there afterwards.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::audit;
use crate::cluster::{Cluster, Network, PATIENCE, Runtimes, Settings};
use crate::disk::{self, Cut, Disk, Filesystem, Workshop};
use crate::load::{Load, Record, Shape, Sizes};
use crate::process::NodeProcess;
use crate::random::Random;
use crate::report::{Distribution, Report};
use crate::stamp::Stamp;

/// Which filesystem, on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Ext4,
    Xfs,
}

/// How often, and of what.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program with the `node` job.
    pub program: PathBuf,
    /// Where the disk's image is made.
    pub below: PathBuf,
    /// The node's driver.
    pub runtimes: Runtimes,
    /// The filesystem.
    pub filesystem: Kind,
    /// Power cuts; of three, one takes the disk's write cache too, and one takes half of it.
    pub cycles: usize,
    /// Seed of the times.
    pub seed: u64,
    /// The load. Only ledger clients: a lone node without power answers nobody.
    pub load: Shape,
}

/// Room for the log of a [`LIFE`], several times, and the filesystem's own.
const DISK_BYTES: u64 = 384 << 20;
/// Cuts that one log goes through: afterwards everything is read back, and the node begins again with an empty directory, so
/// that a long job is not a test of reading long logs.
const LIFE: usize = 50;
/// Writes from a part of a block to eight: one of a single block cannot be torn.
const SIZES: Sizes = Sizes::Mixed(32 << 10);
/// Less is a write of one block.
const TEARABLE: u64 = 2 * 4096;

/// Cut the power as often as the plan says; after each cut, everything acknowledged since the one before is read back, and
/// everything at the end of a life.
pub fn run(plan: &Plan) -> Report {
    let filesystem = match plan.filesystem {
        Kind::Ext4 => Filesystem::Ext4,
        Kind::Xfs => Filesystem::Xfs,
    };
    let name = format!("power cuts: {} on {} (seed {})", plan.runtimes.name(), filesystem.name(), plan.seed);
    if let Err(why) = disk::available(filesystem) {
        return Report::skipped(name, why);
    }
    let mut report = Report::new(name);
    if let Err(error) = lives(plan, filesystem, &mut report) {
        report.violation(error.to_string());
    }
    report
}

type Failure = Box<dyn std::error::Error>;

fn lives(plan: &Plan, filesystem: Filesystem, report: &mut Report) -> Result<(), Failure> {
    let scratch = Workshop::open(&plan.below)?;
    let disk = Disk::make(scratch.path(), filesystem, DISK_BYTES)?;
    let settings = Settings {
        program: plan.program.clone(),
        nodes: 1,
        runtimes: plan.runtimes,
        below: scratch.path().to_path_buf(),
        network: Network::Plain,
    };
    let cluster = Arc::new(Cluster::prepare(settings)?);
    let mut job = Job { plan, disk, cluster, random: Random::new(plan.seed), seen: Seen::default() };
    let start = Instant::now();
    let mut result = Ok(());
    while result.is_ok() && job.seen.cycles() < plan.cycles {
        result = job.live(report);
    }
    job.cluster.kill(0);
    job.seen.into_report(start.elapsed(), report);
    recoveries(&job.cluster, report);
    result
}

/// What was injected, and what came of it.
#[derive(Default)]
struct Seen {
    /// By kind.
    cuts: [usize; 3],
    /// Cuts with writes in the disk's cache, of the third kind.
    half_done: usize,
    lives: usize,
    acknowledged: usize,
    unknown: u64,
    /// Acknowledged, and gone.
    lost: usize,
    /// Sent and acknowledged when there was no power.
    lies: usize,
    opened: Distribution,
}

impl Seen {
    fn cycles(&self) -> usize {
        self.cuts.iter().sum()
    }

    fn into_report(self, took: Duration, report: &mut Report) {
        let [filesystem, device, half] = self.cuts;
        report.fact(
            "power cuts (filesystem / and device cache / and part of it)",
            format!("{filesystem} / {device} / {half}, {} of these with writes in it", self.half_done),
        );
        report.fact("logs begun", self.lives);
        report.fact(
            "writes acknowledged / under way at a cut",
            format!("{} / {}", self.acknowledged, self.unknown),
        );
        report.fact("acknowledged writes lost", self.lost);
        let cycles = self.cuts.iter().sum::<usize>() as f64;
        report.fact("start after a cut, until it leads", self.opened);
        report.fact("cycles per second", format!("{:.1}", cycles / took.as_secs_f64()));
        report.require(self.lost == 0, || format!("{} acknowledged writes lost in all", self.lost));
        report.require(self.lies == 0, || {
            format!("{} writes were sent and acknowledged without power", self.lies)
        });
    }
}

struct Job<'a> {
    plan: &'a Plan,
    disk: Disk,
    cluster: Arc<Cluster>,
    random: Random,
    seen: Seen,
}

impl Job<'_> {
    /// From an empty directory through [`LIFE`] cuts.
    fn live(&mut self, report: &mut Report) -> Result<(), Failure> {
        let home = self.disk.path().join(format!("node-{}", self.seen.lives));
        self.cluster.place(0, home.clone());
        self.seen.lives += 1;
        let mut records: Vec<Record> = Vec::new();
        let lost_before = self.seen.lost;
        let cycles = LIFE.min(self.plan.cycles - self.seen.cycles());
        for cycle in 0..cycles {
            let node = self.start(&records)?;
            let last = records.len().saturating_sub(1);
            self.seen.lost += read_back(&node, &records[last..], report)?;
            records.push(self.cycle(cycle, node)?);
        }
        let node = self.start(&records)?;
        // What is gone once is not counted again, unless something else is gone by now.
        let lost = read_back(&node, &records, report)?;
        self.seen.lost = self.seen.lost.max(lost_before + lost);
        drop(node);
        self.cluster.kill(0);
        Ok(std::fs::remove_dir_all(home)?)
    }

    /// Power is back.
    fn start(&mut self, records: &[Record]) -> Result<Arc<NodeProcess>, Failure> {
        let start = Instant::now();
        let started = self.cluster.start_node(0).and_then(|node| self.cluster.leader(PATIENCE).map(|_| node));
        let node = started.map_err(|error| {
            // A node that cannot be started has lost everything it acknowledged.
            let out_of_reach: usize = records.iter().map(|record| record.entries.len()).sum();
            format!(
                "after cut {}: {error}; {out_of_reach} acknowledged writes are out of reach",
                self.seen.cycles()
            )
        })?;
        if !records.is_empty() {
            self.seen.opened.add(start.elapsed());
        }
        Ok(node)
    }

    /// Load, and a cut; what the clients saw.
    fn cycle(&mut self, cycle: usize, node: Arc<NodeProcess>) -> Result<Record, Failure> {
        let shape = Shape {
            first_ledger: cycle * self.plan.load.ledgers,
            seed: self.random.bits(),
            groups: 0,
            value_bytes: SIZES,
            ..self.plan.load.clone()
        };
        let load = Load::start(&self.cluster, shape);
        if !load.progress(1, PATIENCE) {
            return Err(format!("after cut {}: nothing is acknowledged", self.seen.cycles()).into());
        }
        std::thread::sleep(self.random.duration(Duration::ZERO..Duration::from_millis(150)));
        let kind = self.seen.cycles() % 3;
        let cut = [Cut::Filesystem, Cut::Device, Cut::HalfEmptied(self.random.bits())][kind];
        if matches!(cut, Cut::HalfEmptied(_)) && freeze_in_a_write(&node, &self.disk, &mut self.random) {
            self.seen.half_done += 1;
        }
        self.disk.cut(cut)?;
        let without_power = Stamp::now();
        node.thaw();
        self.seen.cuts[kind] += 1;
        // What is acknowledged without power would be a lie too: the clients go on for a moment.
        std::thread::sleep(self.random.duration(Duration::ZERO..Duration::from_millis(20)));
        drop(node);
        self.cluster.kill(0);
        let record = load.finish();
        self.seen.lies += record.entries.iter().filter(|entry| entry.invoked > without_power).count();
        self.seen.acknowledged += record.entries.len();
        self.seen.unknown += record.unknown;
        self.disk.restore()?;
        Ok(record)
    }
}

/// How many acknowledged writes are gone. The first are told in full: once is enough to see what is gone.
fn read_back(node: &NodeProcess, records: &[Record], report: &mut Report) -> Result<usize, Failure> {
    let mut lost = 0;
    for record in records {
        let ledger = audit::ledger(node, record)?;
        lost += ledger.lost();
        if report.violations().is_empty() {
            ledger.into_report(report);
        }
    }
    Ok(lost)
}

/// Stop the node while the disk holds blocks that it has not flushed, if such a moment comes soon. What the kernel does for
/// the node goes on to its end: a write that was begun is handed over whole, and a flush that was begun is done.
fn freeze_in_a_write(node: &NodeProcess, disk: &Disk, random: &mut Random) -> bool {
    const TRIES: usize = 50;
    for _ in 0..TRIES {
        node.freeze();
        if disk.unflushed().is_none_or(|bytes| bytes >= TEARABLE) {
            return true;
        }
        node.thaw();
        std::thread::sleep(random.duration(Duration::ZERO..Duration::from_millis(2)));
    }
    false
}

/// What the node said it found when it was opened: how often the end of its log was torn, and how much was cut.
fn recoveries(cluster: &Cluster, report: &mut Report) {
    let log = std::fs::read_to_string(cluster.log(0)).unwrap_or_default();
    let torn: Vec<u64> = log.lines().filter_map(torn_bytes).collect();
    report.fact("starts that found a torn end", torn.len());
    let (least, most) = (torn.iter().min().unwrap_or(&0), torn.iter().max().unwrap_or(&0));
    report.fact(
        "torn bytes cut (least / most / in all)",
        format!("{least} / {most} / {}", torn.iter().sum::<u64>()),
    );
}

/// The bytes in a recovery report's "write 7 was torn: 8192 bytes cut at byte 4096 of log-…".
fn torn_bytes(line: &str) -> Option<u64> {
    let (_, after) = line.split_once(" was torn: ")?;
    after.split_once(" bytes cut")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_start_cut_is_read_from_its_report() {
        let line = "WARN /d: not closed; last entry 3 of term 1; write 7 was torn: 8192 bytes cut at byte 4096 of log-1.seg";
        assert_eq!(torn_bytes(line), Some(8192));
        assert_eq!(torn_bytes("INFO /d: closed cleanly; last entry 3 of term 1"), None);
    }
}

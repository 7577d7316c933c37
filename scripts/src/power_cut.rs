//! Power cuts of a real filesystem under a single node that acknowledges: what it acknowledged must be there afterwards.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::audit;
use crate::cluster::{Cluster, Network, PATIENCE, Runtimes, Settings};
use crate::disk::{self, Cut, Disk, Filesystem};
use crate::load::{Load, Record, Shape};
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
    /// Power cuts; every second one takes the disk's write cache too.
    pub cycles: usize,
    /// Seed of the times.
    pub seed: u64,
    /// The load. Only ledger clients: a lone node without power answers nobody.
    pub load: Shape,
}

/// Room for a few segments of the log and the filesystem's own.
const DISK_BYTES: u64 = 384 << 20;

/// Cut the power as often as the plan says; after each cut, everything acknowledged since the one before is read back, at
/// the end everything.
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
    if let Err(error) = cycles(plan, filesystem, &mut report) {
        report.violation(error.to_string());
    }
    report
}

type Failure = Box<dyn std::error::Error>;

fn cycles(plan: &Plan, filesystem: Filesystem, report: &mut Report) -> Result<(), Failure> {
    std::fs::create_dir_all(&plan.below)?;
    let scratch = tempfile::Builder::new().prefix("power-").tempdir_in(&plan.below)?;
    let mut disk = Disk::make(scratch.path(), filesystem, DISK_BYTES)?;
    let mut random = Random::new(plan.seed);
    let settings = Settings {
        program: plan.program.clone(),
        nodes: 1,
        runtimes: plan.runtimes,
        below: scratch.path().to_path_buf(),
        network: Network::Plain,
    };
    let cluster = Arc::new(Cluster::prepare(settings)?);
    cluster.place(0, disk.path().join("node"));
    let start = Instant::now();
    let (mut acknowledged, mut unknown, mut cuts, mut opened) = (0, 0, [0, 0], Distribution::default());
    let (mut records, mut lost, mut lies): (Vec<Record>, usize, usize) = (Vec::new(), 0, 0);
    for cycle in 0..=plan.cycles {
        let restart = Instant::now();
        let node = match cluster.start_node(0).and_then(|node| cluster.leader(PATIENCE).map(|_| node)) {
            Ok(node) => node,
            Err(error) => {
                // A node that cannot be started has lost everything it acknowledged.
                report.fact("acknowledged writes out of reach", acknowledged);
                return Err(format!("after cut {cycle}: {error}").into());
            }
        };
        if cycle > 0 {
            opened.add(restart.elapsed());
        }
        // Everything at the end, until then what was acknowledged last.
        let back = if cycle == plan.cycles { records.len() } else { records.len().min(1) };
        let mut again = 0;
        for record in &records[records.len() - back..] {
            let ledger = audit::ledger(&node, record)?;
            again += ledger.lost();
            // Once is enough to see what is gone.
            if report.violations().is_empty() {
                ledger.into_report(report);
            }
        }
        // What is gone once is not counted again at the end.
        lost = if cycle == plan.cycles { lost.max(again) } else { lost + again };
        if cycle == plan.cycles {
            break;
        }
        let shape = Shape {
            first_ledger: cycle * plan.load.ledgers,
            seed: random.bits(),
            groups: 0,
            // Writes of several blocks can be torn.
            value_bytes: 2000,
            ..plan.load.clone()
        };
        let load = Load::start(&cluster, shape);
        if !load.progress(1, PATIENCE) {
            return Err(format!("cycle {cycle}: nothing is acknowledged").into());
        }
        std::thread::sleep(random.duration(Duration::ZERO..Duration::from_millis(150)));
        disk.cut(if cycle % 2 == 0 { Cut::Filesystem } else { Cut::Device })?;
        let without_power = Stamp::now();
        cuts[cycle % 2] += 1;
        // What is acknowledged without power would be a lie too: the clients go on for a moment.
        std::thread::sleep(random.duration(Duration::ZERO..Duration::from_millis(20)));
        drop(node);
        cluster.kill(0);
        let record = load.finish();
        lies += record.entries.iter().filter(|entry| entry.invoked > without_power).count();
        acknowledged += record.entries.len();
        unknown += record.unknown;
        records.push(record);
        disk.restore()?;
    }
    cluster.kill(0);

    report.fact("power cuts (filesystem / and device cache)", format!("{} / {}", cuts[0], cuts[1]));
    report.fact("writes acknowledged / under way at a cut", format!("{acknowledged} / {unknown}"));
    report.fact("acknowledged writes lost", lost);
    report.fact("start after a cut, until it leads", opened);
    report.fact("cycles per second", format!("{:.1}", plan.cycles as f64 / start.elapsed().as_secs_f64()));
    report.require(lost == 0, || format!("{lost} acknowledged writes lost in all"));
    report.require(lies == 0, || format!("{lies} writes were sent and acknowledged without power"));
    recoveries(&cluster, report);
    Ok(())
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

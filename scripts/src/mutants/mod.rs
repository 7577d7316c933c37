//! Small mistakes in the engine's pure half, one at a time: which of them does nobody notice?
//!
//! `zoo` knows the bugs that people have written into engines like this one; here a machine writes all the small ones it can
//! think of. Building the engine once for each would take days. So the sources are copied and every place that can be wrong
//! asks, while it runs, whether it is its turn: one build, and an environment variable with a number (Untch, Offutt, Harrold
//! 1993: "mutation analysis using mutant schemata"). The switch exists in the copy alone.
//!
//! Each test that needs no disk, and a few of the simulator's seeds at a time, are asked first with no mutant chosen: they
//! tell how long they take and which places they come to. A mutant is then shown to those that come to its place, the
//! cheapest first, until one of them sees it: a test that fails, a judge or an assertion of the simulator, or a hang. One
//! that all let live is a survivor, to be judged by a person: `judged.txt` has the verdicts, by name and with a reason, and
//! what is judged is not hunted again unless by its number.

mod build;
mod hunt;
mod judge;
mod ledger;
mod report;
mod rewrite;
mod shapes;
mod source;
mod trials;
mod verdicts;

use std::path::PathBuf;
use std::sync::Mutex;

use crate::random::Random;
use ledger::Ledger;
use verdicts::Verdicts;

/// What to look for, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// Only so many mutants, chosen at random.
    #[arg(long)]
    pub sample: Option<usize>,
    /// The choice's seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Only in the files whose path has this in it.
    #[arg(long)]
    pub file: Option<String>,
    /// Only these numbers.
    #[arg(long = "number", value_delimiter = ',')]
    pub numbers: Vec<u32>,
    /// The simulator runs so many seeds with each: a time would make the result depend on how busy a machine is.
    #[arg(long, default_value_t = 200)]
    pub seeds: u64,
    /// Processes at a time.
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
    /// Ask only these judges, by name: what they all let live is not called a survivor, and is left for a hunt by all.
    #[arg(long = "by", value_delimiter = ',')]
    pub by: Vec<String>,
    /// Print the mutants and stop.
    #[arg(long)]
    pub list: bool,
    /// Hunt nothing: report what is known from earlier runs of the same sources.
    #[arg(long)]
    pub known: bool,
}

/// One small mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    /// Chooses it.
    pub number: u32,
    /// Where it is, from the root.
    pub file: String,
    /// And in which line.
    pub line: usize,
    /// Whose body it is in.
    pub function: String,
    /// What stood there.
    pub original: String,
    /// What stands there instead.
    pub mutated: String,
    /// How many of the same function look the same and stand before it.
    pub twin: usize,
}

impl Mutant {
    /// What stays the same while others come and go.
    fn name(&self) -> String {
        let Self { file, function, original, mutated, twin, .. } = self;
        format!("{file} {function}: {original} -> {mutated} #{twin}")
    }
}

/// What became of a mutant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Somebody saw it.
    Killed {
        /// The simulator, or a program of tests.
        by: String,
        /// The promise that was broken, or the first test that failed.
        how: String,
    },
    /// Somebody never came to an end with it.
    Hung {
        /// Who.
        by: String,
    },
    /// All that come to its place were content.
    Survived,
    /// Nobody comes to its place.
    Unreached,
}

/// The files whose decisions are the promises. Not among them: what judges (`invariants`), what only the exhaustive search
/// uses (`untimed`), and what needs a disk.
const FILES: &[&str] = &[
    "src/raft/doubt.rs",
    "src/raft/election.rs",
    "src/raft/gone.rs",
    "src/raft/log.rs",
    "src/raft/membership.rs",
    "src/raft/message.rs",
    "src/raft/mod.rs",
    "src/raft/progress.rs",
    "src/raft/quorum.rs",
    "src/raft/random.rs",
    "src/raft/read.rs",
    "src/raft/replication.rs",
    "src/raft/time.rs",
    "src/raft/timer.rs",
    "src/raft/transfer.rs",
    "wal/src/damage.rs",
    "wal/src/entries.rs",
    "wal/src/envelope.rs",
    "wal/src/frame.rs",
    "wal/src/id.rs",
    "wal/src/journal.rs",
    "wal/src/opening.rs",
    "wal/src/plan.rs",
    "wal/src/positions.rs",
    "wal/src/reading.rs",
    "wal/src/scan.rs",
    "wal/src/sector.rs",
    "wal/src/segment.rs",
    "wal/src/state.rs",
    "wal/src/verdict.rs",
    "wal/src/walk.rs",
];

/// Make the mutants, look for each, and write what became of them. An error if something could not be done; survivors are
/// no error.
pub fn run(plan: &Plan) -> Result<(), String> {
    let home = home();
    let ledger = home.join("fates.txt");
    let verdicts = Verdicts::read()?;
    if plan.list || plan.known {
        let source = build::rewrite(&home)?;
        let chosen = plan.choose(source.mutants.clone());
        if plan.list {
            report::list(&chosen);
            return Ok(());
        }
        return report::write(&home, &source, &chosen, &Ledger::open(&ledger, &source)?, &verdicts);
    }
    let built = build::build(&home, &plan.by)?;
    let source = &built.source;
    let chosen = plan.choose(source.mutants.clone());
    let ledger = Ledger::open(&ledger, source)?;
    let by_number = !plan.numbers.is_empty();
    let is_unknown = |mutant: &&Mutant| {
        ledger.fate(mutant, source).is_none() && (by_number || verdicts.of(mutant).is_none())
    };
    let unknown: Vec<_> = chosen.iter().filter(is_unknown).cloned().collect();
    eprintln!("mutants: the fates of {} are not known", unknown.len());
    let ledger = Mutex::new(ledger);
    if !unknown.is_empty() {
        let trials = trials::record(&built, &home, plan.seeds)?;
        hunt::Hunt { built: &built, trials: &trials, jobs: plan.jobs, all: plan.by.is_empty() }
            .go(&unknown, &ledger)?;
    }
    let ledger = ledger.into_inner().expect("no hunter panics");
    report::write(&home, source, &chosen, &ledger, &verdicts)
}

impl Plan {
    fn choose(&self, mut mutants: Vec<Mutant>) -> Vec<Mutant> {
        eprintln!("mutants: {} in {} files", mutants.len(), FILES.len());
        mutants.retain(|mutant| self.wants(mutant));
        let mut random = Random::new(self.seed);
        while self.sample.is_some_and(|sample| mutants.len() > sample) {
            mutants.swap_remove(random.index(mutants.len()));
        }
        mutants.sort_by_key(|mutant| mutant.number);
        mutants
    }

    fn wants(&self, mutant: &Mutant) -> bool {
        self.file.as_deref().is_none_or(|file| mutant.file.contains(file))
            && (self.numbers.is_empty() || self.numbers.contains(&mutant.number))
    }
}

fn home() -> PathBuf {
    crate::mutant::target_directory().join("mutants")
}

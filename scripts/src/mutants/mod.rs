//! Small mistakes in the engine's pure half, one at a time: which of them does nobody notice?
//!
//! `zoo` knows the bugs that people have written into engines like this one; here a machine writes all the small ones it can
//! think of. Building the engine once for each would take days. So the sources are copied and every place that can be wrong
//! asks, while it runs, whether it is its turn: one build, and an environment variable with a number (Untch, Offutt, Harrold
//! 1993: "mutation analysis using mutant schemata"). The switch exists in the copy alone.
//!
//! A mutant is killed by the simulator (a judge, an assertion or a hang), else by the tests that need no disk; one that
//! both let live is a survivor, to be judged by a person: `mutants.md` has the verdicts.

mod build;
mod hunt;
mod report;
mod rewrite;
mod shapes;
mod source;

use std::path::PathBuf;

use crate::random::Random;

/// What to look for, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// Only so many mutants, chosen at random.
    #[arg(long)]
    pub sample: Option<usize>,
    /// The choice's seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Only in the file whose path ends like this.
    #[arg(long)]
    pub file: Option<String>,
    /// Only these numbers.
    #[arg(long = "number", value_delimiter = ',')]
    pub numbers: Vec<u32>,
    /// The simulator runs so many seeds with each: a time would make the result depend on how busy a machine is.
    #[arg(long, default_value_t = 200)]
    pub seeds: u64,
    /// Print the mutants and stop.
    #[arg(long)]
    pub list: bool,
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
    /// The simulator saw it: what it said.
    Simulator(String),
    /// The tests of this program saw it: the first that failed.
    Tests(String),
    /// Nobody did.
    Survived,
}

/// The files whose decisions are the promises. Not among them: what judges (`invariants`), what only the exhaustive search
/// uses (`untimed`), and what needs a disk.
const FILES: &[&str] = &[
    "src/raft/doubt.rs",
    "src/raft/election.rs",
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
    if plan.list {
        report::list(&plan.choose(build::rewrite(&home)?));
        return Ok(());
    }
    let built = build::build(&home)?;
    let chosen = plan.choose(built.mutants.clone());
    let limits = hunt::baseline(&built, plan.seeds)?;
    let fates = hunt::hunt(&built, &chosen, &limits);
    let ended: Vec<_> = chosen.into_iter().zip(fates).collect();
    report::write(&home, &ended)
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
        self.file.as_deref().is_none_or(|file| mutant.file.ends_with(file))
            && (self.numbers.is_empty() || self.numbers.contains(&mutant.number))
    }
}

fn home() -> PathBuf {
    crate::mutant::target_directory().join("mutants")
}

//! Named jobs: `cargo run -p scripts -- <job>`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use scripts::cluster::Runtimes;
use scripts::load::Shape;
#[cfg(target_os = "linux")]
use scripts::power_cut;
use scripts::report::Report;
use scripts::{
    budgets, chaos, ci, coordination, every_bit, hostile, mutant, mutants, partition, proto, workspace, zoo,
};

#[derive(Parser)]
#[command(name = "scripts", about = "Named jobs of the d-engine repository")]
struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    /// Format, lints, documentation, tests: what `.ci/run` calls.
    Ci {
        /// Only the step of this name.
        #[arg(long)]
        step: Option<String>,
    },
    /// Count instructions under callgrind, and compare them with `benches/budgets.toml`.
    Budgets {
        /// Write what is counted as the new budgets.
        #[arg(long)]
        update: bool,
        /// Only those whose names have this in them.
        #[arg(long)]
        only: Option<String>,
    },
    /// Regenerate the code of the `proto` crate from its `.proto` files.
    Proto {
        /// Change nothing; fail if the checked-in code is not what the sources say.
        #[arg(long)]
        check: bool,
    },
    /// Visit every state of a small cluster of the real consensus core.
    Exhaustive {
        /// How far it goes; `ci` takes seconds, `full` is three terms, three commands and a crash.
        #[arg(long, default_value = "full")]
        scope: String,
        /// Further arguments of `d-engine-exhaustive`.
        #[arg(last = true)]
        more: Vec<String>,
    },
    /// Write small mistakes into the consensus core and the log's pure half, and see which nobody notices.
    Mutants(mutants::Plan),
    /// Run one node that does what the lines of its stdin say: what the other jobs start.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Node(scripts::node::NodeArguments),
    /// Kill, freeze and restart nodes of a loaded cluster of three processes.
    Chaos {
        #[command(flatten)]
        common: Common,
        /// Times the leader is killed with SIGKILL.
        #[arg(long, default_value_t = 50)]
        kills: usize,
        /// Times the leader is stopped with SIGSTOP until another leads.
        #[arg(long, default_value_t = 10)]
        pauses: usize,
        /// Times a follower is killed.
        #[arg(long, default_value_t = 10)]
        follower_kills: usize,
        /// Times two of three are killed and only one restarted.
        #[arg(long, default_value_t = 5)]
        minority_restarts: usize,
        /// Times all are killed at once.
        #[arg(long, default_value_t = 5)]
        blackouts: usize,
        /// Longest time to the first new acknowledged write, in milliseconds.
        #[arg(long, default_value_t = 1000)]
        gate_ms: u64,
    },
    /// Watches, locks and keys with a time to live over kills of the leader.
    Coordination {
        #[command(flatten)]
        common: Common,
        /// Revisions that every watcher must see once.
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
        /// Times the leader is killed with SIGKILL.
        #[arg(long, default_value_t = 20)]
        kills: usize,
        /// Time to live of keys, in milliseconds.
        #[arg(long, default_value_t = 3_000)]
        ttl_ms: u64,
        /// What the end of a key may be late, in milliseconds.
        #[arg(long, default_value_t = 1_000)]
        late_ms: u64,
    },
    /// Split the network between three loaded nodes, one way and both, and heal it.
    Partition {
        #[command(flatten)]
        common: Common,
        /// Times each kind of split is made.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// What splits it.
        #[arg(long, value_enum, default_value = "proxy")]
        means: partition::Means,
    },
    /// Send a loaded cluster what nobody should send.
    Hostile {
        #[command(flatten)]
        common: Common,
        /// Random datagrams.
        #[arg(long, default_value_t = 20_000)]
        datagrams: usize,
        /// Random messages of an admitted member.
        #[arg(long, default_value_t = 2_000)]
        messages: usize,
    },
    /// Put each pitfall back in, one at a time, and hunt it with the simulator.
    Zoo {
        /// Only these mutants.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Seconds of a processor that each is hunted at most.
        #[arg(long, default_value_t = 120)]
        seconds: u64,
        /// Hunts at the same time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Damage a log in memory in every place, and see that nothing wrong is served.
    EveryBit {
        /// Size of the log.
        #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
        mib: u32,
        /// Whole openings with a random bit flipped, beside the local judgement of every bit.
        #[arg(long, default_value_t = 2000)]
        openings: usize,
        /// With how many others each sector and block is replaced.
        #[arg(long, default_value_t = 64)]
        partners: usize,
        /// Seed of the random choices.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Cut the power of a real filesystem under a single node.
    #[cfg(target_os = "linux")]
    PowerCut {
        #[command(flatten)]
        common: Common,
        /// The filesystem.
        #[arg(long, value_enum, default_value = "ext4")]
        fs: power_cut::Kind,
        /// Power cuts.
        #[arg(long, default_value_t = 100)]
        cycles: usize,
    },
}

#[derive(Args)]
struct Common {
    /// The nodes' drivers; without it, one after the other.
    #[arg(long, value_enum)]
    runtime: Option<Runtimes>,
    /// Seed of all times and choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where directories are made; not on a tmpfs.
    #[arg(long, default_value = "target/tmp")]
    below: PathBuf,
    /// Ledger writes a second.
    #[arg(long, default_value_t = 3000)]
    rate: u32,
    /// Ledger writes in flight, of each of three clients.
    #[arg(long, default_value_t = 32)]
    in_flight: usize,
    /// The program that runs as a node; without it, this one.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Build the nodes with this bug of the engine's, and succeed only if it is seen on each kind of cluster.
    #[arg(long, conflicts_with = "program")]
    mutant: Option<String>,
}

impl Common {
    fn program(&self) -> Result<PathBuf, String> {
        if let Some(mutant) = &self.mutant {
            return mutant::build(mutant);
        }
        self.program.clone().map_or_else(|| std::env::current_exe().map_err(|error| error.to_string()), Ok)
    }

    fn below(&self) -> PathBuf {
        workspace::root().join(&self.below)
    }

    fn runtimes(&self, all: &[Runtimes]) -> Vec<Runtimes> {
        self.runtime.map_or_else(|| all.to_vec(), |one| vec![one])
    }

    fn load(&self) -> Shape {
        Shape { rate: self.rate, in_flight: self.in_flight, seed: self.seed, ..Shape::default() }
    }
}

const CLUSTERS: [Runtimes; 3] = [Runtimes::Glommio, Runtimes::Tokio, Runtimes::Mixed];

fn main() -> ExitCode {
    match run(Arguments::parse().job) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(job: Job) -> Result<(), String> {
    match job {
        Job::Ci { step } => run_ci(step.as_deref()),
        Job::Budgets { update, only } => budgets::run(&budgets::Plan { update, only }),
        Job::Proto { check } => run_proto(check),
        Job::Exhaustive { scope, more } => workspace::run_simulator("d-engine-exhaustive", &scope, &more),
        Job::Mutants(plan) => mutants::run(&plan),
        #[cfg(target_os = "linux")]
        Job::Node(arguments) => scripts::node::serve(&arguments),
        Job::Chaos { common, kills, pauses, follower_kills, minority_restarts, blackouts, gate_ms } => {
            let one = |runtimes, program| {
                chaos::run(&chaos::Plan {
                    program,
                    below: common.below(),
                    runtimes,
                    kills,
                    follower_kills,
                    pauses,
                    minority_restarts,
                    blackouts,
                    gate: Duration::from_millis(gate_ms),
                    seed: common.seed,
                    load: common.load(),
                })
            };
            each(&common, &CLUSTERS, one)
        }
        Job::Coordination { ref common, events, kills, ttl_ms, late_ms } => {
            each(common, &CLUSTERS, |runtimes, program| {
                coordination::run(&coordination::Plan {
                    program,
                    below: common.below(),
                    runtimes,
                    events,
                    kills,
                    ttl: Duration::from_millis(ttl_ms),
                    late: Duration::from_millis(late_ms),
                    seed: common.seed,
                })
            })
        }
        Job::Partition { ref common, rounds, means } => each(common, &CLUSTERS, |runtimes, program| {
            partition::run(&partition::Plan {
                program,
                below: common.below(),
                runtimes,
                rounds,
                means,
                seed: common.seed,
                load: common.load(),
            })
        }),
        Job::Hostile { ref common, datagrams, messages } => each(common, &CLUSTERS, |runtimes, program| {
            hostile::run(&hostile::Plan {
                program,
                below: common.below(),
                runtimes,
                datagrams,
                messages,
                seed: common.seed,
                load: common.load(),
            })
        }),
        Job::Zoo { only, seconds, jobs } => {
            let patience = Duration::from_secs(seconds);
            let zoo = zoo::run(&zoo::Plan { only, patience, jobs })?;
            eprintln!("{zoo}");
            match zoo.survivors() {
                unseen if unseen.is_empty() => Ok(()),
                unseen => Err(format!("unseen: {}", unseen.join(", "))),
            }
        }
        Job::EveryBit { mib, openings, partners, seed } => {
            let report = every_bit::run(&every_bit::Plan { mib, openings, partners, seed });
            eprintln!("{report}");
            if report.violations().is_empty() { Ok(()) } else { Err("a promise was broken".into()) }
        }
        #[cfg(target_os = "linux")]
        Job::PowerCut { common, fs, cycles } => cut_power(&common, fs, cycles),
    }
}

#[cfg(target_os = "linux")]
fn cut_power(common: &Common, filesystem: power_cut::Kind, cycles: usize) -> Result<(), String> {
    each(common, &[Runtimes::Glommio, Runtimes::Tokio], |runtimes, program| {
        power_cut::run(&power_cut::Plan {
            program,
            below: common.below(),
            runtimes,
            filesystem,
            cycles,
            seed: common.seed,
            load: common.load(),
        })
    })
}

/// Do a job on each kind of cluster. An error if a promise was broken, or nothing could be shown; with a mutant, if it went
/// unseen.
fn each(common: &Common, all: &[Runtimes], job: impl Fn(Runtimes, PathBuf) -> Report) -> Result<(), String> {
    let program = common.program()?;
    let (mut broken, mut unseen) = (0, Vec::new());
    for runtimes in common.runtimes(all) {
        let report = job(runtimes, program.clone());
        eprintln!("{report}");
        if let Some(why) = report.why_skipped() {
            return Err(format!("skipped: {why}"));
        }
        broken += report.violations().len();
        if report.violations().is_empty() {
            unseen.push(runtimes.name());
        }
    }
    match &common.mutant {
        None if broken == 0 => Ok(()),
        None => Err(format!("{broken} violations")),
        Some(mutant) if unseen.is_empty() => {
            eprintln!("the mutant {mutant} breaks promises, as it should, and the job sees it");
            Ok(())
        }
        Some(mutant) => Err(format!("the mutant {mutant} goes unseen on {}", unseen.join(", "))),
    }
}

fn run_ci(step: Option<&str>) -> Result<(), String> {
    for (name, took) in ci::run(step)? {
        eprintln!("ci: {name:14} {:6.1} s", took.as_secs_f64());
    }
    Ok(())
}

fn run_proto(check_only: bool) -> Result<(), String> {
    let directory = workspace::root().join("proto");
    if check_only {
        return proto::check(&directory).map_err(|error| error.to_string());
    }
    for name in proto::write(&directory).map_err(|error| error.to_string())? {
        eprintln!("proto: {name}");
    }
    Ok(())
}

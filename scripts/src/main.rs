//! Named jobs: `cargo run -p scripts -- <job>`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use scripts::cluster::Runtimes;
use scripts::load::Shape;
use scripts::report::Report;
use scripts::{chaos, ci, hostile, partition, proto, workspace};

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
    /// Regenerate the code of the `proto` crate from its `.proto` files.
    Proto {
        /// Change nothing; fail if the checked-in code is not what the sources say.
        #[arg(long)]
        check: bool,
    },
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
        /// Longest time to the first new acknowledged write, in milliseconds.
        #[arg(long, default_value_t = 1000)]
        gate_ms: u64,
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
    /// Cut the power of a real filesystem under a single node.
    #[cfg(target_os = "linux")]
    PowerCut {
        #[command(flatten)]
        common: Common,
        /// The filesystem.
        #[arg(long, value_enum, default_value = "ext4")]
        fs: scripts::power_cut::Kind,
        /// Power cuts.
        #[arg(long, default_value_t = 100)]
        cycles: usize,
        /// Build the engine with this bug and expect losses.
        #[arg(long)]
        mutant: Option<String>,
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
    /// The program that runs as a node; without it, this one.
    #[arg(long)]
    program: Option<PathBuf>,
}

impl Common {
    fn program(&self) -> Result<PathBuf, String> {
        self.program.clone().map_or_else(|| std::env::current_exe().map_err(|error| error.to_string()), Ok)
    }

    fn below(&self) -> PathBuf {
        workspace::root().join(&self.below)
    }

    fn runtimes(&self, all: &[Runtimes]) -> Vec<Runtimes> {
        self.runtime.map_or_else(|| all.to_vec(), |one| vec![one])
    }

    fn load(&self) -> Shape {
        Shape { rate: self.rate, seed: self.seed, ..Shape::default() }
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
        Job::Proto { check } => run_proto(check),
        Job::Chaos { common, kills, pauses, follower_kills, minority_restarts, gate_ms } => {
            let one = |runtimes, program| {
                chaos::run(&chaos::Plan {
                    program,
                    below: common.below(),
                    runtimes,
                    kills,
                    follower_kills,
                    pauses,
                    minority_restarts,
                    gate: Duration::from_millis(gate_ms),
                    seed: common.seed,
                    load: common.load(),
                })
            };
            each(&common, &CLUSTERS, one)
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
        #[cfg(target_os = "linux")]
        Job::PowerCut { common, fs, cycles, mutant } => run_power_cut(&common, fs, cycles, mutant.as_deref()),
    }
}

/// Do a job on each kind of cluster; an error if any promise was broken or nothing could be shown.
fn each(common: &Common, all: &[Runtimes], job: impl Fn(Runtimes, PathBuf) -> Report) -> Result<(), String> {
    let mut broken = 0;
    for runtimes in common.runtimes(all) {
        let report = job(runtimes, common.program()?);
        eprintln!("{report}");
        broken += report.violations().len();
        if let Some(why) = report.why_skipped() {
            return Err(format!("skipped: {why}"));
        }
    }
    if broken == 0 { Ok(()) } else { Err(format!("{broken} violations")) }
}

#[cfg(target_os = "linux")]
fn run_power_cut(
    common: &Common,
    filesystem: scripts::power_cut::Kind,
    cycles: usize,
    mutant: Option<&str>,
) -> Result<(), String> {
    use scripts::{mutant, power_cut};
    let program = mutant.map_or_else(|| common.program(), mutant::build)?;
    let mut unseen = Vec::new();
    let job = |runtimes| {
        power_cut::run(&power_cut::Plan {
            program: program.clone(),
            below: common.below(),
            runtimes,
            filesystem,
            cycles,
            seed: common.seed,
            load: common.load(),
        })
    };
    let each_alone = [Runtimes::Glommio, Runtimes::Tokio];
    let Some(mutant) = mutant else {
        return each(common, &each_alone, |runtimes, _| job(runtimes).report);
    };
    for runtimes in common.runtimes(&each_alone) {
        let outcome = job(runtimes);
        eprintln!("{}", outcome.report);
        if let Some(why) = outcome.report.why_skipped() {
            return Err(format!("skipped: {why}"));
        }
        if outcome.lost == 0 {
            unseen.push(runtimes.name());
        }
    }
    if unseen.is_empty() {
        eprintln!("the mutant {mutant} loses writes, as it should: the harness sees it");
        return Ok(());
    }
    Err(format!("no losses reported with {mutant} on {}: the harness is blind", unseen.join(", ")))
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

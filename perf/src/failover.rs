//! W11: the leader is taken away, again and again, while a client writes.
//!
//! Three processes on the loopback with the engine's defaults. Each round kills the leader (SIGKILL) or stops it in order,
//! watches for a while, starts it again and waits until it has caught up. What "outage" means is defined in
//! [`outage`](crate::outage). At the end every write that was ever acknowledged is read back linearizably, with its value,
//! from every node in turn.

use crate::cluster::{Cluster, ClusterError, Plan};
use crate::machine::Machine;
use crate::node::{DurabilityChoice, RuntimeChoice};
use crate::outage::{End, Record, Stand, Task, Told, clock};
use crate::results::{FORMAT, Failover, Goal, Promise, Results, Rules, Subject, Verdict};
use crate::slice::Probes;
use crate::statistics::{SplitMix, median};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

const NODES: usize = 3;
/// The system's name in results.
pub const SYSTEM: &str = "d-engine embedded";
/// Pieces of the time line.
const PIECE: Duration = Duration::from_millis(10);
/// How much of the time before the act the line shows.
const BEFORE: Duration = Duration::from_millis(300);
/// How long a node may take to catch up.
const CATCHING_UP: Duration = Duration::from_secs(30);

/// How the leader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Act {
    /// SIGKILL.
    Kill,
    /// Told to stop, in order.
    Stop,
}

impl Act {
    fn words(self) -> &'static str {
        match self {
            Self::Kill => "leader killed",
            Self::Stop => "leader stopped in order",
        }
    }
}

/// What may be chosen.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// How often the leader is taken away.
    #[arg(long, default_value_t = 20)]
    pub kills: usize,
    /// How it goes.
    #[arg(long, value_enum, default_value_t = Act::Kill)]
    pub act: Act,
    /// Writes that the client keeps in flight, beside one a millisecond.
    #[arg(long, default_value_t = 4)]
    pub in_flight: usize,
    /// How long each round writes before the act; up to 100 ms more are added by chance.
    #[arg(long, default_value = "600ms", value_parser = humantime::parse_duration)]
    pub before: Duration,
    /// How long it writes after it.
    #[arg(long, default_value = "1200ms", value_parser = humantime::parse_duration)]
    pub after: Duration,
    /// Which runtime the nodes use.
    #[arg(long, value_enum, default_value_t = RuntimeChoice::Auto)]
    pub runtime: RuntimeChoice,
    /// What an acknowledgement promises.
    #[arg(long, value_enum, default_value_t = DurabilityChoice::DiskFirst)]
    pub durability: DurabilityChoice,
    /// Where data goes. A fresh directory is made in it and removed at the end.
    #[arg(long, default_value = "target/perf")]
    pub directory: PathBuf,
    /// Where to write the results as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Print the time line of every round.
    #[arg(long)]
    pub lines: bool,
    /// Nice value of the harness and all nodes; below 0 needs the privilege.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub nice: i32,
    /// Seed of the moments at which the leader goes.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Measures and prints; an error if anything acknowledged was lost.
pub fn run(options: &Options) -> Result<(), String> {
    let began = Instant::now();
    let (results, rounds) = measure(options)?;
    let lost: u64 = results.failures.iter().map(|failure| failure.lost).sum();
    print(options, &results, &rounds).map_err(|error| error.to_string())?;
    if let Some(path) = &options.json {
        let results = Results { took: began.elapsed(), ..results };
        let text = serde_json::to_string(&results).map_err(|error| error.to_string())?;
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if lost > 0 { Err(format!("{lost} acknowledged writes are lost")) } else { Ok(()) }
}

/// What a round gave beside its [`Failover`].
pub struct Round {
    /// From the act until a survivor knew that it leads, or that another does.
    pub elected: Option<Duration>,
    /// The longest time without any acknowledgement.
    pub silence: Option<Duration>,
    /// Writes whose outcome nobody knows.
    pub unknown: u64,
    /// Writes that did not happen.
    pub failed: u64,
    /// Elections the survivors stood for.
    pub elections: u64,
    /// From the restart until the node had everything.
    pub caught_up: Duration,
    runs: Vec<(u64, u64)>,
}

/// Takes the leader away as often as asked, and reads everything back.
pub fn measure(options: &Options) -> Result<(Results, Vec<Round>), String> {
    if options.nice != 0 {
        rustix::process::setpriority_process(None, options.nice)
            .map_err(|error| format!("taking nice value {}: {error}", options.nice))?;
    }
    let parent = &options.directory;
    let made = fs::create_dir_all(parent)
        .and_then(|()| tempfile::Builder::new().prefix("failover-").tempdir_in(parent));
    let directory = made.map_err(|error| format!("making a directory in {}: {error}", parent.display()))?;
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let words = |error: ClusterError| error.to_string();
    let mut cluster = Cluster::start(&Plan {
        directory: directory.path().to_owned(),
        nodes: NODES as u64,
        arguments: vec![
            format!("--runtime={}", options.runtime),
            format!("--durability={}", options.durability),
        ],
        cores: Vec::new(),
    })
    .map_err(words)?;
    let probes = Probes::take(directory.path()).unwrap_or_default();
    let mut numbers = SplitMix(options.seed);
    let (mut failures, mut rounds) = (Vec::new(), Vec::new());
    for number in 0..options.kills {
        let (failure, round) = one(&mut cluster, options, number, &mut numbers)?;
        failures.push(failure);
        rounds.push(round);
    }
    for (number, round) in rounds.iter().enumerate() {
        let task = Task::ReadBack { round: number as u64, runs: round.runs.clone() };
        let Told::ReadBack { right, lost } = cluster.client(number % NODES, task).map_err(words)? else {
            return Err("reading back was answered with something else".into());
        };
        assert_eq!(right + lost.len() as u64, failures[number].acknowledged, "every one was read");
        failures[number].lost = lost.len() as u64;
    }
    let runtime = cluster.runtime.clone();
    cluster.stop().map_err(words)?;
    Ok((results(options, started, probes, runtime, failures), rounds))
}

fn one(
    cluster: &mut Cluster,
    options: &Options,
    number: usize,
    numbers: &mut SplitMix,
) -> Result<(Failover, Round), String> {
    let words = |error: ClusterError| error.to_string();
    let leader = cluster.leader().map_err(words)?;
    // The survivors take turns as the client's node: one of them will lead next, one will not.
    let client = (leader + 1 + number % 2) % NODES;
    let other = (0..NODES).find(|&node| node != leader && node != client).expect("three nodes");
    let stood_before = stand(cluster, client)?.elections + stand(cluster, other)?.elections;
    let task = Task::Write { round: number as u64, in_flight: options.in_flight };
    cluster.client(client, task).map_err(words)?;
    std::thread::sleep(options.before + Duration::from_micros(numbers.below(100_000) as u64));
    let act = clock();
    match options.act {
        Act::Kill => cluster.kill(leader),
        Act::Stop => cluster.order_stop(leader),
    }
    .map_err(words)?;
    std::thread::sleep(options.after);
    let Told::Record(record) = cluster.client(client, Task::Tell).map_err(words)? else {
        return Err("the client told something else than its record".into());
    };
    let outage = record
        .outage(act)
        .ok_or_else(|| format!("round {number}: nothing was acknowledged within {:?}", options.after))?;
    let stands = [(client, stand(cluster, client)?), (other, stand(cluster, other)?)];
    let caught_up = restart(cluster, leader, client)?;
    let round = Round {
        elected: elected(&stands, act, leader),
        silence: record.longest_silence(act),
        unknown: record.count(End::Unknown),
        failed: record.count(End::Failed),
        elections: (stands[0].1.elections + stands[1].1.elections).saturating_sub(stood_before),
        caught_up,
        runs: record.runs(),
    };
    Ok((failover(options, number, (leader, client), act, outage, &record, &stands), round))
}

fn failover(
    options: &Options,
    number: usize,
    (leader, client): (usize, usize),
    act: u64,
    outage: Duration,
    record: &Record,
    stands: &[(usize, Stand)],
) -> Failover {
    let since = |at: u64| (at as f64 - act as f64) / 1e9;
    let mut events =
        vec![(0.0, format!("node {}: {}; node {} writes", leader + 1, options.act.words(), client + 1))];
    for (node, stand) in stands {
        for &(at, term, leads) in stand.leaders.iter().filter(|seen| seen.0 > act) {
            let who = if leads == 0 { "nobody leads".to_owned() } else { format!("node {leads} leads") };
            events.push((since(at), format!("node {}: {who} in term {term}", node + 1)));
        }
    }
    events.sort_by(|one, other| one.0.total_cmp(&other.0));
    Failover {
        system: SYSTEM.into(),
        what: options.act.words().into(),
        round: number,
        to_first_acknowledgement: outage,
        acknowledged: record.count(End::Acknowledged),
        lost: 0,
        errors: record.errors.clone(),
        line: record.line(act, PIECE, BEFORE, options.after),
        events,
    }
}

/// When the first survivor knew of a leader that is not the one that went.
fn elected(stands: &[(usize, Stand)], act: u64, gone: usize) -> Option<Duration> {
    let seen = stands.iter().flat_map(|(_, stand)| &stand.leaders);
    let new = seen.filter(|&&(at, _, leads)| at > act && leads != 0 && leads != gone as u64 + 1);
    new.map(|&(at, ..)| Duration::from_nanos(at - act)).min()
}

/// Starts the node at `position` again and waits until it has everything that `other` knows to be decided.
fn restart(cluster: &mut Cluster, position: usize, other: usize) -> Result<Duration, String> {
    let began = Instant::now();
    cluster.start_again(position).map_err(|error| error.to_string())?;
    let goal = stand(cluster, other)?.commit;
    loop {
        if stand(cluster, position)?.applied >= goal {
            return Ok(began.elapsed());
        }
        if began.elapsed() > CATCHING_UP {
            return Err(format!("node {} did not catch up within {CATCHING_UP:?}", position + 1));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Where the node at `position` is.
pub fn stand(cluster: &mut Cluster, position: usize) -> Result<Stand, String> {
    match cluster.client(position, Task::Stand).map_err(|error| error.to_string())? {
        Told::Stand(stand) => Ok(stand),
        other => Err(format!("node {} said {other:?} when asked where it stands", position + 1)),
    }
}

fn results(
    options: &Options,
    started: u64,
    probes: Probes,
    runtime: String,
    failures: Vec<Failover>,
) -> Results {
    let promise = match options.durability {
        DurabilityChoice::DiskFirst => Promise::FsyncQuorum,
        DurabilityChoice::MemFirst => Promise::MemoryQuorum,
    };
    let subject = Subject {
        name: SYSTEM.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        promise,
        nodes: NODES,
        ours: true,
        settings: BTreeMap::from([
            ("runtime".into(), runtime),
            (
                "client".into(),
                format!("a surviving node, {} in flight and one a millisecond", options.in_flight),
            ),
        ]),
    };
    let outages = failures.iter().map(|failure| failure.to_first_acknowledgement.as_secs_f64() * 1e3);
    let goal = Goal {
        name: format!("{}: median time to the next acknowledged write", options.act.words()),
        unit: "ms".into(),
        reach: 500.0,
        aim: 100.0,
        more_is_better: false,
        found: median(outages),
        note: "the first acknowledgement of a write issued after the signal; default configuration".into(),
    };
    Results {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        job: "failover".into(),
        command: std::env::args().collect(),
        started,
        took: Duration::ZERO,
        machine: Machine::here(&options.directory),
        probes,
        rules: Rules {
            blocks: failures.len(),
            slice: options.before + options.after,
            short_slice: options.before + options.after,
            warm_up: Duration::ZERO,
            most_steal: 1.0,
            attempts: 1,
            seed: options.seed,
        },
        notes: Vec::new(),
        systems: vec![subject],
        rows: Vec::new(),
        slices: Vec::new(),
        dropped: Vec::new(),
        ratios: Vec::new(),
        goals: vec![goal],
        memory: Vec::new(),
        failures,
        recovery: Vec::new(),
        sweep: Vec::new(),
    }
}

fn print(options: &Options, results: &Results, rounds: &[Round]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let ms = |span: Duration| format!("{:.1}", span.as_secs_f64() * 1e3);
    let some = |span: Option<Duration>| span.map_or_else(|| "-".into(), ms);
    writeln!(
        out,
        "{:>5} {:>9} {:>9} {:>9} {:>9} {:>8} {:>7} {:>5} {:>9} {:>10}",
        "round",
        "outage",
        "elected",
        "silence",
        "acked",
        "unknown",
        "failed",
        "lost",
        "elections",
        "caught up"
    )?;
    for (failure, round) in results.failures.iter().zip(rounds) {
        writeln!(
            out,
            "{:>5} {:>9} {:>9} {:>9} {:>9} {:>8} {:>7} {:>5} {:>9} {:>10}",
            failure.round + 1,
            ms(failure.to_first_acknowledgement),
            some(round.elected),
            some(round.silence),
            failure.acknowledged,
            round.unknown,
            round.failed,
            failure.lost,
            round.elections,
            ms(round.caught_up),
        )?;
        if options.lines {
            writeln!(out, "      {}", sketch(failure))?;
            for (at, what) in &failure.events {
                writeln!(out, "      {:>8.1} ms  {what}", at * 1e3)?;
            }
        }
    }
    let mut outages: Vec<Duration> =
        results.failures.iter().map(|failure| failure.to_first_acknowledgement).collect();
    outages.sort_unstable();
    let elected =
        median(rounds.iter().filter_map(|round| round.elected).map(|span| span.as_secs_f64() * 1e3));
    let sum = |of: fn(&Failover) -> u64| results.failures.iter().map(of).sum::<u64>();
    let goal = &results.goals[0];
    let found =
        goal.found.map_or_else(|| "-".into(), |m| format!("{:.1} ({:.1} to {:.1})", m.median, m.low, m.high));
    writeln!(
        out,
        "\n{}, {} times, {} runtime, {}",
        options.act.words(),
        rounds.len(),
        results.systems[0].settings["runtime"],
        results.systems[0].promise
    )?;
    writeln!(out, "outage, ms: median {found}, max {}", some(outages.last().copied()))?;
    if let Some(elected) = elected {
        writeln!(out, "election, ms: median {:.1}", elected.median)?;
    }
    writeln!(
        out,
        "acknowledged {}, lost {}, unknown {}, failed {}",
        sum(|failure| failure.acknowledged),
        sum(|failure| failure.lost),
        rounds.iter().map(|round| round.unknown).sum::<u64>(),
        rounds.iter().map(|round| round.failed).sum::<u64>(),
    )?;
    let verdict = match goal.verdict() {
        Verdict::Aimed => "as good as the aim",
        Verdict::Reached => "reached",
        Verdict::Missed => "missed",
        Verdict::Unknown => "not measured",
    };
    writeln!(out, "goal: reach {} ms, aim {} ms: {verdict}", goal.reach, goal.aim)
}

/// The time line in one line of text: a letter for 10 ms, from `.` (nothing) to `#` (as much as ever).
fn sketch(failure: &Failover) -> String {
    const SHADES: [char; 5] = ['.', '-', '+', '*', '#'];
    let most = failure.line.iter().map(|moment| moment.operations).max().unwrap_or(0).max(1);
    let shade =
        |operations: u64| SHADES[usize::try_from((operations * 4).div_ceil(most)).unwrap_or(4).min(4)];
    failure
        .line
        .iter()
        .flat_map(|moment| {
            let act = moment.at >= 0.0 && moment.at < moment.length;
            act.then_some('|').into_iter().chain([shade(moment.operations)])
        })
        .collect()
}

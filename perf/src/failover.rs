//! W11: the leader is taken away, again and again, while a client writes.
//!
//! Three processes on the loopback. Each round kills the leader (SIGKILL) or stops it in order, watches for a while, starts
//! it again and waits until it has caught up. What "outage" means is defined in [`outage`](crate::outage). At the end every
//! write that was ever acknowledged is read back linearizably, with its value, from every node in turn.
//!
//! Every system is hurt in the same way and written to by the same client, one system after the other: what is measured is
//! mostly waiting, and clusters that wait would only be in each other's way. How soon a leader is missed is a setting, and
//! part of the row's name: ours has its defaults; etcd has its own, and in rows of their own others.

use crate::bench;
use crate::node::{DurabilityChoice, RuntimeChoice};
use crate::outage::{End, Record, Stand, Task, Told, clock};
use crate::peer::Others;
use crate::results::{Failover, Goal, NotRun, Results, Rules, Verdict};
use crate::slice::Probes;
use crate::statistics::{SplitMix, median};
use crate::system::embedded::{Choices, Embedded};
use crate::system::etcd::{DEFAULT_TIMING, Etcd};
use crate::system::{Act, System, SystemError, Timing, catch_up, stand};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;

const NODES: usize = 3;
/// Pieces of the time line.
const PIECE: Duration = Duration::from_millis(10);
/// How much of the time before the act the line shows.
const BEFORE: Duration = Duration::from_millis(300);
/// How long a node may take to catch up.
const CATCHING_UP: Duration = Duration::from_secs(30);
/// How long a round waits for writes to go on.
const MOST: Duration = Duration::from_secs(30);
/// Between two looks whether they do.
const LOOK: Duration = Duration::from_millis(50);
impl Act {
    fn words(self) -> &'static str {
        match self {
            Self::Kill => KILLED,
            Self::Stop => "leader stopped in order",
        }
    }
}

/// What a row that kills begins with.
pub const KILLED: &str = "leader killed";

/// What may be chosen.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// How often the leader of each cluster is taken away.
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// How it goes.
    #[arg(long, value_enum, default_value_t = Act::Kill)]
    act: Act,
    /// Writes that the client keeps in flight, beside one a millisecond.
    #[arg(long, default_value_t = 4)]
    in_flight: usize,
    /// How long each round writes before the act; up to 100 ms more are added by chance.
    #[arg(long, default_value = "600ms", value_parser = humantime::parse_duration)]
    before: Duration,
    /// How long it writes after it at least; it goes on until a write issued after the act is acknowledged.
    #[arg(long, default_value = "1200ms", value_parser = humantime::parse_duration)]
    after: Duration,
    /// Which runtime our nodes use.
    #[arg(long, value_enum, default_value_t = RuntimeChoice::Auto)]
    runtime: RuntimeChoice,
    /// What an acknowledgement of ours promises. Only what promises the same is compared.
    #[arg(long, value_enum, default_value_t = DurabilityChoice::DiskFirst)]
    durability: DurabilityChoice,
    #[command(flatten)]
    others: Others,
    /// Heartbeat and election timeout of etcd, a row for each: its own, and a tenth of them, which is as little as keeps a
    /// leader on a machine that is busy.
    #[arg(long, value_delimiter = ',', default_values = ["100ms/1s", "10ms/100ms"])]
    etcd_timing: Vec<Timing>,
    /// How often etcd's leader is taken away, if not as often as ours.
    #[arg(long)]
    etcd_kills: Option<usize>,
    /// Where data goes. A fresh directory is made in it and removed at the end.
    #[arg(long, default_value = "target/perf")]
    directory: PathBuf,
    /// Where to write the results as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Print the time line of every round.
    #[arg(long)]
    lines: bool,
    /// Nice value of the harness and all nodes; below 0 needs the privilege.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    nice: i32,
    /// Seed of the moments at which the leader goes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Why a cluster gave no more rounds.
#[derive(Debug, Error)]
enum Broken {
    #[error(transparent)]
    System(#[from] SystemError),
    #[error("nothing issued after the act was acknowledged within {0:?}")]
    NoWrite(Duration),
    #[error("the client told something else than it was asked: {0}")]
    OutOfTurn(String),
    #[error("the leader changed before it was struck")]
    LeaderMoved,
}

/// Rounds that may come to nothing because the leader changed before it was struck.
const MOVES: usize = 10;

/// What a round gave.
struct Round {
    failure: Failover,
    /// From the act until a survivor knew that it leads, or that another does; where nodes tell.
    elected: Option<Duration>,
    /// The longest time without any acknowledgement.
    silence: Option<Duration>,
    /// Writes whose outcome nobody knows.
    unknown: u64,
    /// Writes that did not happen.
    failed: u64,
    /// Elections the survivors stood for, where nodes tell.
    elections: Option<u64>,
    /// From the restart until the node had everything.
    caught_up: Duration,
    runs: Vec<(u64, u64)>,
}

/// Measures and prints; an error if anything acknowledged was lost, or if there is nothing to show.
pub fn run(options: &Options) -> Result<(), String> {
    let began = Instant::now();
    bench::be_nice(options.nice).map_err(|error| error.to_string())?;
    let directory = bench::scratch(&options.directory, "failover-").map_err(|error| error.to_string())?;
    let rules = Rules::plain(options.kills, options.before + options.after, options.seed);
    let mut results = Results::begin("failover", &options.directory, rules);
    results.probes = Probes::take(directory.path()).unwrap_or_default();
    results.notes.push(format!(
        "W11: the client is at a node that survives and keeps {} writes in flight, and one a millisecond beside them; of \
         d-engine it lives in that node's process, of etcd it is a process of its own that is connected to that server alone",
        options.in_flight
    ));
    results.notes.push(
        "W11: the port of a killed process refuses at once, and d-engine's nodes take notice of that; of a machine that is \
         lost they would wait for the election timeout"
            .into(),
    );
    for (mut system, kills) in contenders(options, &mut results)? {
        let what = format!("{}, {}", options.act.words(), timing_words(&*system));
        let place =
            directory.path().join(format!("{}", results.systems.len() * 100 + results.failures.len()));
        let (rounds, broken) = measure(&mut *system, options, &what, kills, &place);
        let subject = system.subject();
        print(options, &subject.name, &what, &rounds).map_err(|error| error.to_string())?;
        if let Some(why) = broken {
            eprintln!("perf: {}, {what}: {why}", subject.name);
            results.not_run.push(NotRun {
                id: "W11".into(),
                what: format!("{}, {what}: {} of {kills} times", subject.name, kills - rounds.len()),
                why,
            });
        }
        if !results.systems.iter().any(|known| known.name == subject.name) {
            results.systems.push(subject);
        }
        results.failures.extend(rounds.into_iter().map(|round| round.failure));
        results.goals = vec![goal(&results, options.act)];
        results.took = began.elapsed();
        if let Some(path) = &options.json {
            results.write(path).map_err(|error| format!("writing {}: {error}", path.display()))?;
        }
    }
    print_goal(&results).map_err(|error| error.to_string())?;
    let lost: u64 = results.failures.iter().map(|failure| failure.lost).sum();
    match (lost, results.failures.len()) {
        (0, 0) => Err("no leader was taken away".into()),
        (0, _) => Ok(()),
        (lost, _) => Err(format!("{lost} acknowledged writes are lost")),
    }
}

/// A system, and how often its leader is taken away.
type Contender = (Box<dyn System>, usize);

/// Ours, and etcd with each timing if it is there.
fn contenders(options: &Options, results: &mut Results) -> Result<Vec<Contender>, String> {
    let ours = Choices { runtime: options.runtime, durability: options.durability, cores: Vec::new() };
    let mut all: Vec<Contender> = vec![(Box::new(Embedded::new(ours)), options.kills)];
    match options.others.etcd(options.durability, false).map_err(|error| error.to_string())? {
        Ok(binary) => all.extend(options.etcd_timing.iter().map(|&timing| {
            let etcd: Box<dyn System> = Box::new(Etcd::with_timing(binary.clone(), timing));
            (etcd, options.etcd_kills.unwrap_or(options.kills))
        })),
        Err(why) => {
            if !options.others.alone {
                eprintln!("perf: {why}");
            }
            results.notes.push(why);
        }
    }
    Ok(all)
}

fn timing_words(system: &dyn System) -> String {
    let timing = system.timing();
    let default = system.subject().ours || timing == DEFAULT_TIMING;
    format!("{timing}{}", if default { " (defaults)" } else { "" })
}

/// Takes the leader away as often as asked, and reads everything back: the rounds that are whole, and why there are no more.
fn measure(
    system: &mut dyn System,
    options: &Options,
    what: &str,
    kills: usize,
    directory: &Path,
) -> (Vec<Round>, Option<String>) {
    let mut rounds = Vec::new();
    let broken = rounds_of(system, options, (what, kills), directory, &mut rounds)
        .and_then(|()| Ok(system.stop()?))
        .err()
        .map(|error| error.to_string());
    if broken.is_some() {
        // Whatever still runs is in the way of the next one; that it does not stop in order is known.
        let _ = system.stop();
    }
    (rounds, broken)
}

fn rounds_of(
    system: &mut dyn System,
    options: &Options,
    (what, kills): (&str, usize),
    directory: &Path,
    whole: &mut Vec<Round>,
) -> Result<(), Broken> {
    system.start(directory)?;
    let mut numbers = SplitMix(options.seed);
    let mut rounds = Vec::new();
    let mut broken = None;
    // A round has a number, and so keys, of its own, also where it comes to nothing.
    for number in 0..kills + MOVES {
        match one(system, options, what, number, &mut numbers) {
            Ok(round) => rounds.push(round),
            Err(Broken::LeaderMoved) => {}
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
        if rounds.len() == kills {
            break;
        }
    }
    if broken.is_none() && rounds.len() < kills {
        broken = Some(Broken::LeaderMoved);
    }
    // What was acknowledged before something broke must be there all the same. A round that was not read back is not shown.
    for (number, mut round) in rounds.into_iter().enumerate() {
        let written = std::mem::replace(&mut round.failure.round, number);
        let task = Task::ReadBack { round: written as u64, runs: round.runs.clone() };
        let Told::ReadBack(found) = system.client(number % NODES, task)? else {
            return Err(Broken::OutOfTurn("when reading back".into()));
        };
        let all = found.right + found.lost.len() as u64;
        assert_eq!(all, round.failure.acknowledged, "every one was read");
        round.failure.lost = found.lost.len() as u64;
        whole.push(round);
    }
    broken.map_or(Ok(()), Err)
}

fn one(
    system: &mut dyn System,
    options: &Options,
    what: &str,
    number: usize,
    numbers: &mut SplitMix,
) -> Result<Round, Broken> {
    let leader = system.leader()?;
    // The survivors take turns as the client's node: one of them will lead next, one will not.
    let client = (leader + 1 + number % 2) % NODES;
    let other = (0..NODES).find(|&node| node != leader && node != client).expect("three nodes");
    let stood_before = stand(system, client)?.elections + stand(system, other)?.elections;
    let task = Task::Write { round: number as u64, in_flight: options.in_flight };
    system.client(client, task)?;
    std::thread::sleep(options.before + Duration::from_micros(numbers.below(100_000) as u64));
    // Whoever leads no longer is not missed: that would be no outage.
    if system.leader()? != leader {
        system.client(client, Task::Tell)?;
        return Err(Broken::LeaderMoved);
    }
    let act = clock();
    system.take_away(leader, options.act)?;
    std::thread::sleep(options.after);
    let recovered = wait_for_recovery(system, client, act);
    // The writer ends before anything else is said: nobody else would end it.
    let told = system.client(client, Task::Tell)?;
    recovered?;
    let Told::Record(record) = told else { return Err(Broken::OutOfTurn(format!("{told:?}"))) };
    let outage = record.outage(act).ok_or(Broken::NoWrite(MOST))?;
    let stands = [(client, stand(system, client)?), (other, stand(system, other)?)];
    let began = Instant::now();
    system.start_again(leader)?;
    catch_up(system, leader, client, CATCHING_UP)?;
    let caught_up = began.elapsed();
    let tells = stands.iter().any(|(_, stand)| !stand.leaders.is_empty());
    let elections = stands[0].1.elections + stands[1].1.elections;
    let since = |at: u64| (at as f64 - act as f64) / 1e9;
    let mut events =
        vec![(0.0, format!("node {}: {}; node {} writes", leader + 1, options.act.words(), client + 1))];
    for (node, stand) in &stands {
        for &(at, term, leads) in stand.leaders.iter().filter(|seen| seen.0 > act) {
            let who = if leads == 0 { "nobody leads".to_owned() } else { format!("node {leads} leads") };
            events.push((since(at), format!("node {}: {who} in term {term}", node + 1)));
        }
    }
    events.sort_by(|one, other| one.0.total_cmp(&other.0));
    let watched = options.after.max(outage + options.after / 2);
    Ok(Round {
        elected: elected(&stands, act, leader),
        silence: record.longest_silence(act),
        unknown: record.count(End::Unknown),
        failed: record.count(End::Failed),
        elections: tells.then(|| elections.saturating_sub(stood_before)),
        caught_up,
        runs: record.runs(),
        failure: Failover {
            system: system.subject().name,
            what: what.into(),
            round: number,
            to_first_acknowledgement: outage,
            acknowledged: record.count(End::Acknowledged),
            lost: 0,
            line: line(&record, act, watched),
            errors: record.errors,
            events,
        },
    })
}

/// Ends with the writing: what comes after it is no outage.
fn line(record: &Record, act: u64, after: Duration) -> Vec<crate::results::Moment> {
    let end = record.issued.iter().max().map_or(0.0, |last| (*last as f64 - act as f64) / 1e9);
    let mut line = record.line(act, PIECE, BEFORE, after);
    line.retain(|moment| moment.at < end);
    line
}

fn wait_for_recovery(system: &mut dyn System, client: usize, act: u64) -> Result<(), Broken> {
    let began = Instant::now();
    loop {
        match system.client(client, Task::Recovered { since: act })? {
            Told::Recovered(true) => return Ok(()),
            Told::Recovered(false) if began.elapsed() < MOST => std::thread::sleep(LOOK),
            Told::Recovered(false) => return Err(Broken::NoWrite(MOST)),
            other => return Err(Broken::OutOfTurn(format!("{other:?}"))),
        }
    }
}

/// When the first survivor knew of a leader that is not the one that went.
fn elected(stands: &[(usize, Stand)], act: u64, gone: usize) -> Option<Duration> {
    let seen = stands.iter().flat_map(|(_, stand)| &stand.leaders);
    let new = seen.filter(|&&(at, _, leads)| at > act && leads != 0 && leads != gone as u64 + 1);
    new.map(|&(at, ..)| Duration::from_nanos(at - act)).min()
}

/// How long it takes ours, against what was set as a goal.
pub fn goal(results: &Results, act: Act) -> Goal {
    let ours = |name: &str| results.systems.iter().any(|system| system.ours && system.name == name);
    let rounds = results.failures.iter().filter(|one| one.what.starts_with(act.words()) && ours(&one.system));
    Goal {
        name: format!("{}: median time to the next acknowledged write", act.words()),
        unit: "ms".into(),
        reach: 500.0,
        aim: 100.0,
        more_is_better: false,
        found: median(rounds.map(|round| round.to_first_acknowledgement.as_secs_f64() * 1e3)),
        note: "the first acknowledgement of a write issued after the signal; default configuration".into(),
    }
}

fn print(options: &Options, system: &str, what: &str, rounds: &[Round]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let ms = |span: Duration| format!("{:.1}", span.as_secs_f64() * 1e3);
    let some = |span: Option<Duration>| span.map_or_else(|| "-".into(), ms);
    writeln!(
        out,
        "{system}: {what}\n  round   outage  elected  silence    acked  unknown  failed  lost  elections  caught up"
    )?;
    for round in rounds {
        let failure = &round.failure;
        writeln!(
            out,
            "  {:>5} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>5} {:>10} {:>10}",
            failure.round + 1,
            ms(failure.to_first_acknowledgement),
            some(round.elected),
            some(round.silence),
            failure.acknowledged,
            round.unknown,
            round.failed,
            failure.lost,
            round.elections.map_or_else(|| "-".into(), |count| count.to_string()),
            ms(round.caught_up),
        )?;
        if options.lines {
            writeln!(out, "        {}", sketch(failure))?;
            for (at, what) in &failure.events {
                writeln!(out, "        {:>8.1} ms  {what}", at * 1e3)?;
            }
        }
    }
    let of = |of: fn(&Round) -> Option<Duration>| {
        median(rounds.iter().filter_map(of).map(|span| span.as_secs_f64() * 1e3))
    };
    let most = rounds.iter().map(|round| round.failure.to_first_acknowledgement).max();
    let found = of(|round| Some(round.failure.to_first_acknowledgement));
    let found =
        found.map_or_else(|| "-".into(), |m| format!("{:.1} [{:.1} - {:.1}]", m.median, m.low, m.high));
    write!(out, "  outage, ms: median {found}, at most {}", some(most))?;
    if let Some(elected) = of(|round| round.elected) {
        write!(out, "; election: median {:.1}", elected.median)?;
    }
    let sum = |of: fn(&Round) -> u64| rounds.iter().map(of).sum::<u64>();
    writeln!(
        out,
        "\n  acknowledged {}, lost {}, unknown {}, failed {}\n",
        sum(|round| round.failure.acknowledged),
        sum(|round| round.failure.lost),
        sum(|round| round.unknown),
        sum(|round| round.failed),
    )
}

fn print_goal(results: &Results) -> io::Result<()> {
    let Some(goal) = results.goals.first() else { return Ok(()) };
    let verdict = match goal.verdict() {
        Verdict::Aimed => "as good as the aim",
        Verdict::Reached => "reached",
        Verdict::Missed => "missed",
        Verdict::Unknown => "not measured",
    };
    writeln!(io::stdout(), "{}: reach {} ms, aim {} ms: {verdict}", goal.name, goal.reach, goal.aim)
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

//! Sends the judges after each mutant.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::build::{Built, Judge};
use super::{Fate, Mutant};

/// Processes at a time.
const JOBS: usize = 2;
/// A mutant may eat so many KiB of address space: one that never stops pushing is seen in a second.
const MEMORY_KIB: u64 = 6 << 20;

/// How long each judge may think before it hangs.
#[derive(Debug)]
pub struct Limits {
    seeds: u64,
    simulator: Limit,
    tests: Vec<Limit>,
}

/// Of one process: what it may use, and how long it may sleep over it on a busy machine.
#[derive(Debug, Clone, Copy)]
struct Limit {
    cpu: Duration,
    wall: Duration,
}

impl Limit {
    /// The honest engine has to be far from it, on a machine that is busy with other things too.
    fn of(usual: Duration) -> Self {
        let cpu = usual * 3 + Duration::from_secs(10);
        Self { cpu, wall: cpu * 20 }
    }

    const GENEROUS: Self = Self { cpu: Duration::from_secs(600), wall: Duration::from_secs(3600) };
}

/// What a judge said.
enum Verdict {
    Nothing,
    Seen(String),
}

/// Nobody may complain while no mutant is chosen. The time this takes says what a hang is.
pub fn baseline(built: &Built, seeds: u64) -> Result<Limits, String> {
    let mut limits = Limits { seeds, simulator: Limit::GENEROUS, tests: Vec::new() };
    let begun = Instant::now();
    if let Verdict::Seen(what) = simulated(built, &limits, 0)? {
        return Err(format!("without a mutant, the simulator says: {what}"));
    }
    limits.simulator = taken(&built.simulator, begun);
    for judge in &built.tests {
        let begun = Instant::now();
        if let Verdict::Seen(what) = tested(judge, Limit::GENEROUS, 0)? {
            return Err(format!("without a mutant, {} fails: {what}", judge.name));
        }
        limits.tests.push(taken(judge, begun));
    }
    Ok(limits)
}

fn taken(judge: &Judge, begun: Instant) -> Limit {
    let took = begun.elapsed();
    eprintln!("mutants: {} takes {:.1} s", judge.name, took.as_secs_f64());
    Limit::of(took)
}

/// What becomes of each, in the order of `chosen`.
pub fn hunt(built: &Built, chosen: &[Mutant], limits: &Limits) -> Vec<Fate> {
    let next = AtomicUsize::new(0);
    let fates = Mutex::new(vec![None; chosen.len()]);
    std::thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = chosen.get(at) else { break };
                    // A judge that cannot be started has seen nothing: rather one survivor too many.
                    let fate = fate(built, limits, mutant).unwrap_or_else(|error| {
                        eprintln!("mutants: {error}");
                        Fate::Survived
                    });
                    let how = match &fate {
                        Fate::Simulator(what) | Fate::Tests(what) => what,
                        Fate::Survived => "SURVIVED",
                    };
                    eprintln!("{}/{} {mutant}: {how}", at + 1, chosen.len());
                    fates.lock().expect("no hunter panics")[at] = Some(fate);
                }
            });
        }
    });
    let fates = fates.into_inner().expect("no hunter panics");
    fates.into_iter().map(|fate| fate.expect("every mutant was hunted")).collect()
}

fn fate(built: &Built, limits: &Limits, mutant: &Mutant) -> Result<Fate, String> {
    let number = mutant.number;
    if let Verdict::Seen(what) = simulated(built, limits, number)? {
        return Ok(Fate::Simulator(what));
    }
    let of_wal = mutant.file.starts_with("wal/");
    for (judge, limit) in built.tests.iter().zip(&limits.tests) {
        // The log knows nothing of the engine: its tests, the longest of all, cannot see the engine's mutants.
        if (of_wal || judge.name != "wal")
            && let Verdict::Seen(what) = tested(judge, *limit, number)?
        {
            return Ok(Fate::Tests(format!("{}: {what}", judge.name)));
        }
    }
    Ok(Fate::Survived)
}

/// The simulator hunts for a named bug that is not there, and so stops at the first promise that it sees broken.
fn simulated(built: &Built, limits: &Limits, number: u32) -> Result<Verdict, String> {
    let seeds = limits.seeds.to_string();
    let arguments = ["--mutant", "none", "--seeds", &seeds];
    let ended = run(&built.simulator, &arguments, limits.simulator, number)?;
    if let Some(line) = ended.text.lines().find(|line| line.contains(" breaks ")) {
        return Ok(Verdict::Seen(line.chars().take(160).collect()));
    }
    if ended.text.lines().any(|line| line == "not seen") {
        return Ok(Verdict::Nothing);
    }
    Ok(Verdict::Seen(ended.reason))
}

fn tested(judge: &Judge, limit: Limit, number: u32) -> Result<Verdict, String> {
    let ended = run(judge, &["--test-threads", "1"], limit, number)?;
    if ended.succeeded {
        return Ok(Verdict::Nothing);
    }
    let failed = ended.text.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    Ok(Verdict::Seen(failed.map_or(ended.reason, str::to_owned)))
}

struct Ended {
    succeeded: bool,
    /// Why, if it did not end by itself.
    reason: String,
    text: String,
}

/// Runs a judge on a mutant, with limits on what it uses.
fn run(judge: &Judge, arguments: &[&str], limit: Limit, number: u32) -> Result<Ended, String> {
    let limits =
        format!("ulimit -c 0 && ulimit -v {MEMORY_KIB} && ulimit -t {} && exec \"$@\"", limit.cpu.as_secs());
    let mut child = Command::new("sh")
        .args(["-c", &limits, "sh"])
        .arg(&judge.program)
        .args(arguments)
        .env("D_ENGINE_MUTANT_NUMBER", number.to_string())
        .current_dir(&judge.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{} could not be started: {error}", judge.program.display()))?;
    let mut output = child.stdout.take().expect("it is piped");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is what there is.
        let _ = output.read_to_end(&mut bytes);
        bytes
    });
    let reason = wait(&mut child, limit.wall).map_err(|error| format!("{}: {error}", judge.name))?;
    let bytes = reader.join().expect("reading does not panic");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ended { succeeded: reason.is_none(), reason: reason.unwrap_or_default(), text })
}

/// Waits for the end; the reason if it is no success.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<String>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((!status.success()).then(|| status.to_string()));
        }
        if begun.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(Some("hangs".into()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

//! Everything that may be asked of a mutant: each test for itself, and the simulator with some seeds. Each is asked once with
//! no mutant in it, where it has to be content, and tells what that takes and which mutants it reaches at all: another one
//! it cannot see.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use super::build::{Built, Judge};
use super::judge::{End, Ended, Limit, Switches, exactly, failed, run};
use super::ledger::fingerprint;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A test, by its name.
    Test(String),
    /// The simulator's runs with these seeds.
    Seeds(Range<u64>),
}

/// One question to one judge.
#[derive(Debug)]
pub struct Trial {
    /// In [`Built::judges`].
    pub judge: usize,
    /// What is asked.
    pub question: Question,
    /// What the honest engine takes.
    pub takes: Duration,
    /// Which mutants' places it comes to.
    pub reached: HashSet<u32>,
}

/// What a judge said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Content,
    /// What is wrong.
    Seen(String),
    /// It never ended.
    Hung,
}

/// Several questions to one judge, in one process: only tests can be asked together.
pub fn ask(
    judge: &Judge,
    questions: &[&Question],
    limit: Limit,
    switches: Switches<'_>,
) -> Result<Verdict, String> {
    if let [Question::Seeds(seeds)] = questions {
        // It hunts for a named bug that is not there, and so stops at the first promise that it sees broken.
        let (from, count) = (seeds.start.to_string(), (seeds.end - seeds.start).to_string());
        let arguments = ["--mutant", "none", "--from", &from, "--seeds", &count].map(str::to_owned);
        return Ok(of_simulator(run(judge, &arguments, limit, switches)?));
    }
    let names = questions.iter().map(|question| match question {
        Question::Test(name) => name.as_str(),
        Question::Seeds(_) => unreachable!("the simulator is asked alone"),
    });
    Ok(of_tests(run(judge, &exactly(names), limit, switches)?))
}

fn of_simulator(Ended { end, text }: Ended) -> Verdict {
    if let Some(line) = text.lines().find(|line| line.contains(" breaks ")) {
        return Verdict::Seen(line.chars().take(160).collect());
    }
    match end {
        _ if text.lines().any(|line| line == "not seen") => Verdict::Content,
        End::OutOfTime => Verdict::Hung,
        End::Success => Verdict::Seen("it says nothing".into()),
        End::Failure(reason) => Verdict::Seen(reason),
    }
}

fn of_tests(Ended { end, text }: Ended) -> Verdict {
    match (text.lines().find_map(failed), end) {
        (Some(name), _) => Verdict::Seen(name.to_owned()),
        (None, End::Success) => Verdict::Content,
        (None, End::OutOfTime) => Verdict::Hung,
        (None, End::Failure(reason)) => Verdict::Seen(reason),
    }
}

/// Asks everything once, without a mutant.
pub fn record(built: &Built, home: &Path, seeds: u64) -> Result<Vec<Trial>, String> {
    let mut questions = Vec::new();
    // A few seeds see most of what the simulator sees.
    let mut from = 0;
    for until in [seeds / 40, seeds / 8, seeds] {
        if from < until {
            let simulator = built.judges.iter().position(Judge::is_simulator);
            questions.extend(simulator.map(|at| (at, Question::Seeds(from..until))));
        }
        from = until;
    }
    for (at, judge) in built.judges.iter().enumerate().filter(|(_, judge)| !judge.is_simulator()) {
        questions.extend(tests(judge)?.into_iter().map(|name| (at, Question::Test(name))));
    }
    let known = home.join("trials.txt");
    let failed = |error| format!("{}: {error}", known.display());
    let before = fs::read_to_string(&known).unwrap_or_default();
    let mut file = OpenOptions::new().append(true).create(true).open(&known).map_err(failed)?;
    let mut trials = Vec::new();
    let mut programs = HashMap::new();
    for (judge, question) in questions {
        let program = &built.judges[judge].program;
        let key = match programs.entry(judge) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => *new.insert(fingerprint(
                &fs::read(program).map_err(|error| format!("{}: {error}", program.display()))?,
            )),
        };
        // The same program says the same again.
        let key = format!("{key:016x} {question:?}");
        let (takes, reached) = match before.lines().find_map(|line| recorded(line, &key)) {
            Some(recorded) => recorded,
            None => {
                let (takes, reached) = once(&built.judges[judge], &question, home)?;
                writeln!(file, "{}", line(&key, takes, &reached)).map_err(failed)?;
                (takes, reached)
            }
        };
        trials.push(Trial { judge, question, takes, reached });
    }
    // What sees no mutant is never asked.
    trials.retain(|trial| !trial.reached.is_empty());
    trials.sort_by_key(|trial| trial.takes);
    let all: Duration = trials.iter().map(|trial| trial.takes).sum();
    eprintln!("mutants: {} trials reach some and take {:.1} s together", trials.len(), all.as_secs_f64());
    for trial in trials.iter().rev().take(12) {
        let Trial { judge, question, takes, reached } = trial;
        let name = &built.judges[*judge].name;
        let (takes, reached) = (takes.as_secs_f64(), reached.len());
        eprintln!("mutants: {takes:.1} s for {reached} mutants: {name} {question:?}");
    }
    Ok(trials)
}

/// What the question takes, and what it reaches.
fn once(judge: &Judge, question: &Question, home: &Path) -> Result<(Duration, HashSet<u32>), String> {
    let record = home.join("reached.txt");
    // There may be none from before.
    let _ = fs::remove_file(&record);
    let (begun, used) = (Instant::now(), used_by_children());
    let verdict = ask(judge, &[question], Limit::GENEROUS, Switches::Recorded(&record))?;
    if verdict != Verdict::Content {
        return Err(format!("without a mutant, {} {question:?}: {verdict:?}", judge.name));
    }
    let elapsed = begun.elapsed();
    // On a busy machine most of the time is spent waiting.
    let used = used_by_children().zip(used).map(|(now, before)| now.saturating_sub(before) + TICK);
    let reached = fs::read_to_string(&record).unwrap_or_default();
    let reached = reached.lines().filter_map(|line| line.parse().ok()).collect();
    Ok((used.map_or(elapsed, |used| used.min(elapsed)), reached))
}

/// In what Linux counts the processor's time.
const TICK: Duration = Duration::from_millis(10);

/// What all processes have used that this one waited for; nothing where there is no `/proc`.
fn used_by_children() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name, in which anything may stand; 16 and 17 are the children's.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: Vec<u32> =
        fields.split_whitespace().skip(13).take(2).filter_map(|field| field.parse().ok()).collect();
    let [user, system] = ticks[..] else { return None };
    Some(TICK * (user + system))
}

fn line(key: &str, takes: Duration, reached: &HashSet<u32>) -> String {
    let numbers: Vec<_> = reached.iter().map(u32::to_string).collect();
    format!("{key}\t{}\t{}.", takes.as_micros(), numbers.join(" "))
}

/// The same from a line, if it was written to its end.
fn recorded(line: &str, key: &str) -> Option<(Duration, HashSet<u32>)> {
    let (takes, numbers) = line.strip_prefix(key)?.strip_prefix('\t')?.strip_suffix('.')?.split_once('\t')?;
    let numbers = numbers.split_whitespace().map(|number| number.parse().ok());
    Some((Duration::from_micros(takes.parse().ok()?), numbers.collect::<Option<_>>()?))
}

/// The tests of a program that are not ignored.
fn tests(judge: &Judge) -> Result<Vec<String>, String> {
    let listed = |more: &[&str]| {
        let arguments: Vec<_> =
            ["--list", "--format", "terse"].iter().chain(more).map(|&text| text.to_owned()).collect();
        let ended = run(judge, &arguments, Limit::GENEROUS, Switches::Chosen(0))?;
        if ended.end != End::Success {
            return Err(format!("{} does not list its tests: {:?}", judge.name, ended.end));
        }
        Ok(names(&ended.text))
    };
    let ignored = listed(&["--ignored"])?;
    Ok(listed(&[])?.into_iter().filter(|name| !ignored.contains(name)).collect())
}

fn names(listed: &str) -> Vec<String> {
    listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{End, Ended, Verdict, line, names, of_simulator, of_tests, recorded, used_by_children};
    use std::collections::HashSet;
    use std::time::Duration;

    #[test]
    fn what_was_recorded_is_read_again_and_half_a_line_is_not() {
        for reached in [HashSet::new(), HashSet::from([3, 2_000])] {
            let takes = Duration::from_micros(1_500);
            let line = line("7 Seeds(0..5)", takes, &reached);
            assert_eq!(recorded(&line, "7 Seeds(0..5)"), Some((takes, reached)));
            assert_eq!(recorded(&line, "7 Seeds(0..50)"), None);
            assert_eq!(recorded(&line[..line.len() - 1], "7 Seeds(0..5)"), None);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_time_of_a_child_is_counted_once_it_was_waited_for() {
        let before = used_by_children().expect("there is a /proc");
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let status = std::process::Command::new("sh").args(["-c", script]).status().expect("a shell");
        assert!(status.success());
        assert!(used_by_children().expect("there is a /proc") > before);
    }

    #[test]
    fn the_simulator_is_content_only_if_it_says_so() {
        let said = |text: &str, end| of_simulator(Ended { end, text: text.into() });
        let failure = || End::Failure("exit status: 1".into());
        assert_eq!(said("not seen\n", failure()), Verdict::Content);
        let broken = "seed 3 breaks liveness";
        assert_eq!(said(&format!("{broken}\nseen\n"), End::Success), Verdict::Seen(broken.into()));
        assert_eq!(said("", failure()), Verdict::Seen("exit status: 1".into()));
        assert_eq!(said("", End::OutOfTime), Verdict::Hung);
        assert!(matches!(said("", End::Success), Verdict::Seen(_)));
    }

    #[test]
    fn the_first_test_that_failed_is_named() {
        let said = |text: &str, end| of_tests(Ended { end, text: text.into() });
        let failed = "test a ... ok\ntest b ... FAILED\ntest c ... FAILED\n";
        assert_eq!(said(failed, End::Failure("killed".into())), Verdict::Seen("b".into()));
        assert_eq!(said("test a ... ok\n", End::Success), Verdict::Content);
        assert_eq!(said("test a ... ", End::Failure("signal: 6".into())), Verdict::Seen("signal: 6".into()));
        assert_eq!(said("test a ... ", End::OutOfTime), Verdict::Hung);
    }

    #[test]
    fn benchmarks_are_no_tests() {
        assert_eq!(names("a::b: test\nc: benchmark\n\n2 tests, 1 benchmark\n"), ["a::b"]);
    }
}

//! Everything that may be asked of a mutant: each test for itself, and the simulator with some seeds. Each is asked once with
//! no mutant in it, where it has to be content, and tells what that takes and which mutants it reaches at all: another one
//! it cannot see.

use std::collections::HashSet;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use super::build::{Built, Judge};
use super::judge::{End, Ended, Limit, Switches, exactly, failed, run};

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
            questions.push((Built::SIMULATOR, Question::Seeds(from..until)));
        }
        from = until;
    }
    for (at, judge) in built.judges.iter().enumerate().filter(|(at, _)| *at != Built::SIMULATOR) {
        questions.extend(tests(judge)?.into_iter().map(|name| (at, Question::Test(name))));
    }
    let record = home.join("reached.txt");
    let mut trials = Vec::new();
    for (judge, question) in questions {
        let name = &built.judges[judge].name;
        // There may be none from before.
        let _ = fs::remove_file(&record);
        let begun = Instant::now();
        let switches = Switches::Recorded(&record);
        let verdict = ask(&built.judges[judge], &[&question], Limit::GENEROUS, switches)?;
        if verdict != Verdict::Content {
            return Err(format!("without a mutant, {name} {question:?}: {verdict:?}"));
        }
        let reached = fs::read_to_string(&record).unwrap_or_default();
        let reached = reached.lines().filter_map(|line| line.parse().ok()).collect();
        trials.push(Trial { judge, question, takes: begun.elapsed(), reached });
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
    use super::{End, Ended, Verdict, names, of_simulator, of_tests};

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

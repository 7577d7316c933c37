//! Sends the judges after each mutant: the cheapest questions first, and none that does not come to its place.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::build::Built;
use super::judge::{Limit, Switches};
use super::ledger::Ledger;
use super::trials::{Question, Trial, Verdict, ask};
use super::{Fate, Mutant};

/// Questions are asked in rounds, each of which takes at most so much longer than the one before; within one, all tests of
/// a program are asked at once.
const FIRST_ROUND: Duration = Duration::from_millis(100);
const GROWTH: u32 = 5;
/// First everybody is asked what takes so long at most: who is left is soon known, and most are not.
const SHORT: Duration = Duration::from_millis(2_500);

/// Everything that a hunt needs.
#[derive(Debug)]
pub struct Hunt<'a> {
    /// The programs.
    pub built: &'a Built,
    /// What may be asked, cheapest first.
    pub trials: &'a [Trial],
    /// Processes at a time.
    pub jobs: usize,
    /// Whether nobody is left to ask.
    pub all: bool,
}

impl Hunt<'_> {
    /// What becomes of each is noted as soon as it is known.
    pub fn go(&self, chosen: &[Mutant], ledger: &Mutex<Ledger>) -> Result<(), String> {
        let left = self.pass(chosen, ledger, Some(SHORT))?;
        eprintln!("mutants: {} are left for the long trials", left.len());
        for mutant in &left {
            eprintln!("left: {mutant}");
        }
        for mutant in self.pass(&left, ledger, None)? {
            eprintln!("left by those that were asked: {mutant}");
        }
        Ok(())
    }

    /// Those that none of the trials within `patience` saw, if there are longer ones.
    fn pass(
        &self,
        chosen: &[Mutant],
        ledger: &Mutex<Ledger>,
        patience: Option<Duration>,
    ) -> Result<Vec<Mutant>, String> {
        let next = AtomicUsize::new(0);
        let left = Mutex::new(Ok(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    while let Some(mutant) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = self.one(mutant, ledger, patience);
                        let mut left = left.lock().expect("no hunter panics");
                        match (result, &mut *left) {
                            (Ok(true), _) => {}
                            (Ok(false), Ok(left)) => left.push(mutant.clone()),
                            (Err(error), left) => *left = Err(error),
                            (_, Err(_)) => {}
                        }
                        if left.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        let mut left = left.into_inner().expect("no hunter panics")?;
        left.sort_by_key(|mutant| mutant.number);
        Ok(left)
    }

    /// Whether its fate is known now.
    fn one(
        &self,
        mutant: &Mutant,
        ledger: &Mutex<Ledger>,
        patience: Option<Duration>,
    ) -> Result<bool, String> {
        let reaching: Vec<_> =
            self.trials.iter().filter(|trial| trial.reached.contains(&mutant.number)).collect();
        let short = within(&reaching, patience.unwrap_or(Duration::MAX));
        let done = if patience.is_some() { 0 } else { within(&reaching, SHORT) };
        let fate = match self.ask(mutant, &reaching[done..short])? {
            Some(fate) => fate,
            None if !self.all => return Ok(false),
            None if reaching.is_empty() => Fate::Unreached,
            None if short < reaching.len() => return Ok(false),
            None => Fate::Survived,
        };
        eprintln!("{mutant}: {fate}");
        let mut ledger = ledger.lock().expect("no hunter panics");
        let source = &self.built.source;
        ledger.note(mutant, source, fate)?;
        Ok(true)
    }

    /// Asks round by round until somebody sees it.
    fn ask(&self, mutant: &Mutant, trials: &[&Trial]) -> Result<Option<Fate>, String> {
        let switches = Switches::Chosen(mutant.number);
        for round in rounds(trials) {
            for (at, judge) in self.built.judges.iter().enumerate() {
                let of_judge = round.iter().copied().filter(|trial| trial.judge == at);
                let (tests, seeds): (Vec<&Trial>, Vec<&Trial>) =
                    of_judge.partition(|trial| matches!(trial.question, Question::Test(_)));
                let together = std::iter::once(tests).chain(seeds.into_iter().map(|trial| vec![trial]));
                for asked in together.filter(|asked| !asked.is_empty()) {
                    let usual: Duration = asked.iter().map(|trial| trial.takes).sum();
                    let questions: Vec<_> = asked.iter().map(|trial| &trial.question).collect();
                    let by = judge.name.clone();
                    match ask(judge, &questions, Limit::of(usual), switches)? {
                        Verdict::Content => {}
                        Verdict::Seen(how) => return Ok(Some(Fate::Killed { by, how })),
                        Verdict::Hung => return Ok(Some(Fate::Hung { by })),
                    }
                }
            }
        }
        Ok(None)
    }
}

/// How many of the first take so long together at most.
fn within(trials: &[&Trial], patience: Duration) -> usize {
    let mut sum = Duration::ZERO;
    let fits = trials.iter().take_while(|trial| {
        sum = sum.saturating_add(trial.takes);
        sum <= patience
    });
    fits.count()
}

fn rounds<'a, 't>(trials: &'a [&'t Trial]) -> Vec<&'a [&'t Trial]> {
    let (mut rounds, mut rest, mut limit) = (Vec::new(), trials, FIRST_ROUND);
    while !rest.is_empty() {
        let (round, after) = rest.split_at(within(rest, limit).max(1));
        rounds.push(round);
        rest = after;
        limit = limit.saturating_mul(GROWTH);
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::{Question, Trial, rounds, within};
    use std::time::Duration;

    fn trials(takes: &[u64]) -> Vec<Trial> {
        let trial = |&takes: &u64| Trial {
            judge: 1,
            question: Question::Test(String::new()),
            takes: Duration::from_millis(takes),
            reached: [1].into(),
        };
        takes.iter().map(trial).collect()
    }

    #[test]
    fn cheap_questions_go_together_and_every_one_is_asked_once() {
        let all = trials(&[1, 2, 90, 10, 400, 3_000, 60_000]);
        let all: Vec<_> = all.iter().collect();
        let rounds = rounds(&all);
        let lengths: Vec<_> = rounds.iter().map(|round| round.len()).collect();
        assert_eq!(lengths, [3, 2, 1, 1]);
        let asked: Vec<_> = rounds.concat().iter().map(|trial| trial.takes).collect();
        assert_eq!(asked, all.iter().map(|trial| trial.takes).collect::<Vec<_>>());
    }

    #[test]
    fn patience_counts_the_sum() {
        let all = trials(&[100, 100, 100]);
        let all: Vec<_> = all.iter().collect();
        for (patience, fit) in [(0, 0), (99, 0), (100, 1), (250, 2), (300, 3)] {
            assert_eq!(within(&all, Duration::from_millis(patience)), fit);
        }
    }
}

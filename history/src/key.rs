//! The judge that searches: is there an order of one key's operations that respects real time and explains the answers?
//!
//! A configuration of the search is what has been put in order so far and what the key then holds. What has been put in
//! order is written as a frontier (all before it, in the order of invocation, but for a few that are still open): as
//! short as there are clients, however long the history. Configurations that led nowhere are remembered (Lowe 2017).
//!
//! Four facts about one register whose values are each written once make the search nearly linear:
//! - an observation that may come next and agrees with the value costs nothing by coming now;
//! - nor does a put that nobody saw, where nobody waits for the value it overwrites;
//! - an observation of a value that has been overwritten can never be satisfied, so a write waits for all that saw what
//!   it overwrites;
//! - an unknown write that nobody saw need not have happened, and one that somebody saw came before that answer.

use crate::{Call, End, Operation, Shown, Violation, violation, writers};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Judges one key; the number of unknown writes that were seen.
pub(crate) fn check(operations: &[&Operation]) -> Result<usize, Violation> {
    let steps = steps(operations);
    let Err(dead_end) = search(&steps) else {
        let unknown = steps.iter().filter(|step| step.operation.end == End::Unknown).count();
        return Ok(unknown);
    };
    let smallest = smallest(operations, &dead_end);
    let steps = self::steps(&smallest);
    let dead_end = search(&steps).expect_err("a smaller history is kept only if it has no order either");
    Err(explain(&steps, &dead_end))
}

/// An operation that took effect, or was seen not to.
#[derive(Clone, Copy, Debug)]
struct Step<'a> {
    operation: &'a Operation,
    invoked: u64,
    /// When its effect is known to have been there.
    until: u64,
    /// What the key must hold, where that matters.
    sees: Option<Option<u64>>,
    writes: Option<u64>,
}

/// What must be ordered: everything answered, and the unknown writes that were seen.
fn steps<'a>(operations: &[&'a Operation]) -> Vec<Step<'a>> {
    let writers = writers(operations);
    // When each value was seen first. A seen compare-and-swap shows that what it expected was there, too.
    let mut seen_at: BTreeMap<u64, u64> = BTreeMap::new();
    let mut shown: Vec<(u64, u64)> = operations
        .iter()
        .filter_map(|operation| Some((operation.observed()??, operation.returned()?)))
        .collect();
    while let Some((value, at)) = shown.pop() {
        if seen_at.get(&value).is_some_and(|earlier| *earlier <= at) {
            continue;
        }
        seen_at.insert(value, at);
        let unknown = writers.get(&value).filter(|writer| writer.end == End::Unknown);
        if let Some(Call::CompareAndSwap { expected: Some(expected), .. }) = unknown.map(|writer| writer.call)
        {
            shown.push((expected, at));
        }
    }
    let step = |operation: &'a Operation| {
        let invoked = operation.invoked;
        match operation.end {
            End::Refused { .. } => None,
            End::Answered { at, .. } => {
                let writes = operation.writes().filter(|_| operation.wrote());
                Some(Step { operation, invoked, until: at, sees: operation.observed(), writes })
            }
            End::Unknown => {
                let value = operation.writes()?;
                let sees = match operation.call {
                    Call::CompareAndSwap { expected, .. } => Some(expected),
                    Call::Put { .. } | Call::Get => None,
                };
                let until = *seen_at.get(&value)?;
                Some(Step { operation, invoked, until, sees, writes: Some(value) })
            }
        }
    };
    operations.iter().filter_map(|&operation| step(operation)).collect()
}

/// What is in order so far: all steps before `frontier` but those in `open`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Configuration {
    frontier: usize,
    open: Vec<usize>,
    value: Option<u64>,
}

/// The furthest that any order came.
#[derive(Debug)]
struct DeadEnd {
    ordered: usize,
    at: Configuration,
    /// Who wanted to be next: all that began before any of them had ended.
    next: Vec<usize>,
}

impl Configuration {
    /// Steps that nothing still to be ordered must precede.
    fn next(&self, steps: &[Step<'_>]) -> Vec<usize> {
        let mut first_end = self.open.iter().map(|&step| steps[step].until).min().unwrap_or(u64::MAX);
        let mut next = self.open.clone();
        for (at, step) in steps.iter().enumerate().skip(self.frontier) {
            if step.invoked > first_end {
                break;
            }
            first_end = first_end.min(step.until);
            next.push(at);
        }
        next
    }

    fn take(&mut self, step: usize) {
        if step < self.frontier {
            self.open.retain(|&open| open != step);
        } else {
            self.open.extend(self.frontier..step);
            self.frontier = step + 1;
        }
    }

    fn ordered(&self) -> usize {
        self.frontier - self.open.len()
    }
}

/// How many observations of each value are not in order yet.
struct Unseen(HashMap<Option<u64>, usize>);

impl Unseen {
    fn of(&self, value: Option<u64>) -> usize {
        self.0.get(&value).copied().unwrap_or(0)
    }
}

/// One configuration on the way, its choices of a write, and what was ordered since the one before (to take back).
struct Branch {
    at: Configuration,
    choices: Vec<usize>,
    taken: Vec<Option<u64>>,
}

/// Depth first, without recursion: a history is as deep as it is long.
fn search(steps: &[Step<'_>]) -> Result<(), DeadEnd> {
    let mut unseen = Unseen(HashMap::new());
    for step in steps {
        if let Some(seen) = step.sees {
            *unseen.0.entry(seen).or_default() += 1;
        }
    }
    let mut visited: HashSet<Configuration> = HashSet::new();
    let mut furthest: Option<DeadEnd> = None;
    let mut path: Vec<Branch> = Vec::new();
    let mut here = Some((Configuration::default(), Vec::new()));
    loop {
        if let Some((mut at, mut taken)) = here.take() {
            let next = observe(steps, &mut at, &mut taken, &mut unseen);
            if at.ordered() == steps.len() {
                return Ok(());
            }
            at.open.sort_unstable();
            let choices = writes(steps, &at, &next, &unseen);
            if choices.is_empty() && furthest.as_ref().is_none_or(|known| at.ordered() > known.ordered) {
                furthest = Some(DeadEnd { ordered: at.ordered(), at: at.clone(), next });
            }
            path.push(Branch { at, choices, taken });
        }
        let Some(branch) = path.last_mut() else {
            return Err(furthest.expect("a search without an order ends somewhere"));
        };
        let Some(choice) = branch.choices.pop() else {
            for seen in path.pop().expect("it is there").taken {
                *unseen.0.entry(seen).or_default() += 1;
            }
            continue;
        };
        let mut at = branch.at.clone();
        at.take(choice);
        at.open.sort_unstable();
        at.value = steps[choice].writes;
        if !visited.contains(&at) {
            visited.insert(at.clone());
            let mut taken = Vec::new();
            if let Some(seen) = steps[choice].sees {
                see(&mut unseen, seen, &mut taken);
            }
            here = Some((at, taken));
        }
    }
}

fn see(unseen: &mut Unseen, value: Option<u64>, taken: &mut Vec<Option<u64>>) {
    *unseen.0.get_mut(&value).expect("counted before") -= 1;
    taken.push(value);
}

/// Orders all that costs nothing by coming now: observations of the value, and puts that nobody saw where the value is
/// not waited for. What may come after them.
fn observe(
    steps: &[Step<'_>],
    at: &mut Configuration,
    taken: &mut Vec<Option<u64>>,
    unseen: &mut Unseen,
) -> Vec<usize> {
    loop {
        let next = at.next(steps);
        let before = at.ordered();
        for &step in &next {
            let Step { sees, writes, .. } = steps[step];
            match (sees, writes) {
                (Some(seen), None) if seen == at.value => {
                    at.take(step);
                    see(unseen, seen, taken);
                }
                (None, Some(_)) if unseen.of(at.value) == 0 && unseen.of(writes) == 0 => {
                    at.take(step);
                    at.value = writes;
                }
                _ => {}
            }
        }
        if at.ordered() == before {
            return next;
        }
    }
}

/// The writes that may come next without leaving an observation of the present value behind; the one to try first last.
fn writes(steps: &[Step<'_>], at: &Configuration, next: &[usize], unseen: &Unseen) -> Vec<usize> {
    let waiting = unseen.of(at.value);
    let mut choices: Vec<_> = next
        .iter()
        .copied()
        .filter(|&step| {
            let Step { sees, writes, .. } = steps[step];
            let holds = sees.is_none_or(|seen| seen == at.value);
            writes.is_some() && holds && waiting == usize::from(sees.is_some())
        })
        .collect();
    // The one that must be done first is most often the one that was.
    choices.sort_by_key(|&step| std::cmp::Reverse(steps[step].until));
    choices
}

/// Takes away what is not needed for the contradiction. A write goes only with everything that saw its value: without
/// it they would contradict for another reason.
fn smallest<'a>(operations: &[&'a Operation], dead_end: &DeadEnd) -> Vec<&'a Operation> {
    // Nothing that began after the dead end's operations had ended has a part in it.
    let all = steps(operations);
    let end = dead_end.next.iter().map(|&step| all[step].until).max().unwrap_or(u64::MAX);
    let early: Vec<_> = operations.iter().copied().filter(|operation| operation.invoked <= end).collect();
    let mut kept = if fails(&early) { early } else { operations.to_vec() };
    let mut size = kept.len().div_ceil(2);
    loop {
        let mut at = 0;
        let mut shrunk = false;
        while at < kept.len() {
            let smaller = without(&kept, &kept[at..kept.len().min(at + size)]);
            if smaller.len() < kept.len() && fails(&smaller) {
                kept = smaller;
                shrunk = true;
            } else {
                at += size;
            }
        }
        if size == 1 && !shrunk {
            return kept;
        }
        size = size.div_ceil(2);
    }
}

fn fails(operations: &[&Operation]) -> bool {
    search(&steps(operations)).is_err()
}

/// `operations` less `removed`, less what saw a value that is then written by nobody.
fn without<'a>(operations: &[&'a Operation], removed: &[&'a Operation]) -> Vec<&'a Operation> {
    let mut gone: HashSet<u64> = removed.iter().filter_map(|operation| operation.writes()).collect();
    let is_removed = |operation: &Operation| removed.iter().any(|other| std::ptr::eq(*other, operation));
    let mut kept: Vec<_> = operations.iter().copied().filter(|operation| !is_removed(operation)).collect();
    loop {
        let before = kept.len();
        kept.retain(|operation| {
            let expects = match operation.call {
                Call::CompareAndSwap { expected, .. } if operation.end == End::Unknown => expected,
                _ => operation.observed().flatten(),
            };
            let keep = expects.is_none_or(|value| !gone.contains(&value));
            if !keep {
                gone.extend(operation.writes());
            }
            keep
        });
        if kept.len() == before {
            return kept;
        }
    }
}

fn explain(steps: &[Step<'_>], dead_end: &DeadEnd) -> Violation {
    let DeadEnd { at, next, .. } = dead_end;
    let wants = next.iter().map(|&step| {
        let Step { operation, sees, writes, .. } = steps[step];
        let wants = match sees {
            Some(seen) if seen != at.value => format!("needs {}", Shown(seen)),
            _ => format!("writes {}, while the value before is still to be seen", Shown(writes)),
        };
        format!("client {} at {} {wants}", operation.client, operation.invoked)
    });
    let wants: Vec<_> = wants.collect();
    let why = format!(
        "no order explains these answers; the best one leaves the key at {}, and next would be: {}",
        Shown(at.value),
        wants.join("; "),
    );
    let operations: Vec<_> = steps.iter().map(|step| step.operation).collect();
    violation(&operations, why)
}

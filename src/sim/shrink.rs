//! A failing run made smaller: less time, fewer kinds of faults, fewer clients, fewer actions, as long as it fails in the
//! same judge's eyes.

use super::fault::Fault;
use super::plan::Orders;
use super::story::Telling;
use super::{Failure, Report, run};
use std::time::Duration;

/// What shrinking came to.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What to order for the small run.
    pub orders: Orders,
    /// How many runs it took.
    pub runs: u32,
    /// The small run, with its story.
    pub report: Report,
}

/// Shrinks a failing run; `None` if it does not fail. At most `budget` runs.
#[must_use]
pub fn shrink(seed: u64, orders: &Orders, budget: u32) -> Option<Shrunk> {
    let mut runs = 0;
    let attempt = |orders: &Orders| {
        runs += 1;
        run(seed, orders, Telling::Hash).failure
    };
    let best = smallest(orders, budget, attempt)?;
    Some(Shrunk { report: run(seed, &best, Telling::Whole), orders: best, runs })
}

/// The smallest orders found that still fail.
fn smallest(
    orders: &Orders,
    budget: u32,
    mut attempt: impl FnMut(&Orders) -> Option<Failure>,
) -> Option<Orders> {
    let first = attempt(orders)?;
    let mut search = Search { attempt, oracle: first.violation.oracle, left: budget, best: orders.clone() };
    search.shorten(first.at.0);
    search.leave_out_kinds();
    search.leave_out_clients();
    search.leave_out_actions();
    Some(search.best)
}

struct Search<A> {
    attempt: A,
    oracle: &'static str,
    left: u32,
    best: Orders,
}

impl<A: FnMut(&Orders) -> Option<Failure>> Search<A> {
    /// Takes `orders` for the best so far if the run still fails with them.
    fn take_if_failing(&mut self, orders: Orders) -> Option<Failure> {
        self.left = self.left.checked_sub(1)?;
        let failure = (self.attempt)(&orders)?;
        (failure.violation.oracle == self.oracle).then(|| {
            self.best = orders;
            failure
        })
    }

    /// Faults end just after the moment of the failure, then earlier and earlier.
    fn shorten(&mut self, failed_at: u64) {
        let mut until = failed_at + 1;
        for _ in 0..8 {
            let orders = Orders { until: Some(Duration::from_nanos(until)), ..self.best.clone() };
            let Some(failure) = self.take_if_failing(orders) else { break };
            until = failure.at.0.min(until) / 4 * 3;
        }
    }

    fn leave_out_kinds(&mut self) {
        for &fault in Fault::ALL {
            let mut orders = self.best.clone();
            if orders.without.insert(fault) {
                self.take_if_failing(orders);
            }
        }
    }

    fn leave_out_clients(&mut self) {
        for clients in [1, 2, 3, 4] {
            let orders = Orders { clients: Some(clients), ..self.best.clone() };
            if self.take_if_failing(orders).is_some() {
                break;
            }
        }
    }

    /// Actions of the nemesis: 64 at a time, 16, 4, one by one.
    fn leave_out_actions(&mut self) {
        for width in [64, 16, 4, 1] {
            for from in (1..=LAST_ACTION).step_by(width) {
                let mut orders = self.best.clone();
                let before = orders.skip.len();
                orders.skip.extend(from..from + u32::try_from(width).expect("small"));
                if orders.skip.len() > before {
                    self.take_if_failing(orders);
                }
            }
        }
    }
}

/// No run has more actions worth leaving out.
const LAST_ACTION: u32 = 256;

#[cfg(test)]
mod tests {
    use super::super::observation::{Instant, Violation};
    use super::*;

    /// A run that fails as long as faults last 2 s, nodes die, and actions 7 and 90 are taken.
    fn fragile(orders: &Orders) -> Option<Failure> {
        let long_enough = orders.until.is_none_or(|until| until >= Duration::from_secs(2));
        let dies = !orders.without.contains(&Fault::Kill);
        let acts = !orders.skip.contains(&7) && !orders.skip.contains(&90);
        (long_enough && dies && acts).then(|| Failure {
            violation: Violation { oracle: "made_up", what: "it fails".to_owned() },
            at: Instant(3_000_000_000),
        })
    }

    #[test]
    fn everything_that_the_failure_does_not_need_is_left_out() {
        let small = smallest(&Orders::default(), 1_000, fragile).expect("it fails");
        assert!(fragile(&small).is_some(), "it still fails");
        assert_eq!(small.without.len(), Fault::ALL.len() - 1, "one kind is needed");
        assert_eq!(small.skip.len(), LAST_ACTION as usize - 2, "two actions are needed");
        assert_eq!(small.clients, Some(1));
        assert!(small.until.is_some_and(|until| until < Duration::from_secs(3)));
    }

    #[test]
    fn a_run_that_fails_otherwise_is_another_failure_and_a_budget_ends() {
        let other = |orders: &Orders| {
            let mut failure = fragile(orders)?;
            if !orders.without.is_empty() {
                failure.violation.oracle = "another";
            }
            Some(failure)
        };
        let small = smallest(&Orders::default(), 1_000, other).expect("it fails");
        assert!(small.without.is_empty());
        let mut runs = 0;
        let counted = |orders: &Orders| {
            runs += 1;
            fragile(orders)
        };
        smallest(&Orders::default(), 10, counted);
        assert_eq!(runs, 11);
        assert_eq!(smallest(&Orders::default(), 10, |_| None), None);
    }
}

use crate::{Answer, Call, End, History, Operation};
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn history(text: &str) -> History {
    text.parse().expect("well formed")
}

fn good(text: &str) {
    let history = history(text);
    if let Err(violation) = history.check_by_revision() {
        panic!("by revision: {violation}");
    }
    if let Err(violation) = history.check_by_key() {
        panic!("by key: {violation}");
    }
}

/// Both judges refuse it, with these words.
fn bad(text: &str, by_revision: &str, by_key: &str) {
    let text: String = text.lines().map(|line| format!("{}\n", line.trim())).collect();
    let lines = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let history = history(&text);
    let violation = history.check_by_revision().expect_err("by revision");
    assert_eq!(lines(&violation.to_string()), lines(by_revision.trim()), "by revision");
    let violation = history.check_by_key().expect_err("by key");
    assert_eq!(lines(&violation.to_string()), lines(by_key.trim()), "by key");
}

#[test]
fn one_after_the_other() {
    good(
        "1 k 10 get          -> 11 saw nothing @1
         1 k 20 put 1        -> 21 ok @2
         2 k 30 get          -> 31 saw 1 @2
         2 k 40 cas 1 2      -> 41 ok @3
         1 k 50 cas 1 3      -> 51 not-swapped 2 @3
         1 k 60 cas nothing 4 -> 61 not-swapped 2 @3
         1 j 70 cas nothing 1 -> 71 ok @4
         1 k 80 get          -> 81 saw 2 @4",
    );
}

#[test]
fn what_overlaps_may_be_in_any_order() {
    good(
        "1 k 10 put 1 -> 100 ok @3
         2 k 11 put 2 -> 99 ok @2
         3 k 12 get   -> 20 saw nothing @1
         3 k 21 get   -> 30 saw 2 @2
         3 k 31 get   -> 40 saw 1 @3
         3 k 100 get  -> 101 saw 1 @3
         1 k 110 put 3 -> 120 ok @5
         2 k 120 put 4 -> 130 ok @4
         3 k 140 get   -> 150 saw 3 @5",
    );
}

#[test]
fn a_stale_read() {
    bad(
        "1 k 10 put 1 -> 20 ok @2
         1 k 30 put 2 -> 40 ok @3
         1 k 45 put 3 -> 46 ok @4
         2 k 50 get   -> 60 saw 1 @4",
        "key k: 1 is seen at revision 4, where the key holds 3: the read is stale, a write was lost, or one was applied twice
         1 k 10 put 1 -> 20 ok @2
         1 k 45 put 3 -> 46 ok @4
         2 k 50 get -> 60 saw 1 @4",
        "key k: no order explains these answers; the best one leaves the key at 1, and next would be: client 1 at 45 writes 3, while the value before is still to be seen
         1 k 10 put 1 -> 20 ok @2
         1 k 45 put 3 -> 46 ok @4
         2 k 50 get -> 60 saw 1 @4",
    );
}

#[test]
fn a_stale_read_that_admits_it() {
    bad(
        "1 k 10 put 1 -> 20 ok @2
         2 k 30 get   -> 40 saw nothing @1",
        "key k: an operation that began after another had ended comes before it: revision 1 after 2
         1 k 10 put 1 -> 20 ok @2
         2 k 30 get -> 40 saw nothing @1",
        "key k: no order explains these answers; the best one leaves the key at nothing, and next would be: client 1 at 10 writes 1, while the value before is still to be seen
         1 k 10 put 1 -> 20 ok @2
         2 k 30 get -> 40 saw nothing @1",
    );
}

#[test]
fn a_lost_write() {
    bad(
        "1 k 10 put 1   -> 20 ok @2
         2 k 30 put 2   -> 40 ok @3
         3 k 50 cas 1 3 -> 60 ok @4
         1 k 70 get     -> 80 saw 3 @4",
        "key k: 1 is seen at revision 3, where the key holds 2: the read is stale, a write was lost, or one was applied twice
         1 k 10 put 1 -> 20 ok @2
         2 k 30 put 2 -> 40 ok @3
         3 k 50 cas 1 3 -> 60 ok @4",
        "key k: no order explains these answers; the best one leaves the key at 1, and next would be: client 2 at 30 writes 2, while the value before is still to be seen
         1 k 10 put 1 -> 20 ok @2
         2 k 30 put 2 -> 40 ok @3
         3 k 50 cas 1 3 -> 60 ok @4",
    );
}

#[test]
fn two_writes_at_one_revision() {
    let history = history("1 k 10 put 1 -> 20 ok @2\n 2 j 30 put 1 -> 40 ok @2");
    let violation = history.check_by_revision().expect_err("two writes");
    assert_eq!(violation.why, "two writes were given revision 2");
    history.check_by_key().expect("each key alone is fine");
}

#[test]
fn real_time_holds_across_keys() {
    let history = history("1 k 10 put 1 -> 20 ok @3\n 2 j 30 put 1 -> 40 ok @2");
    let violation = history.check_by_revision().expect_err("against time");
    assert_eq!(
        violation.why,
        "an operation that began after another had ended comes before it: revision 2 after 3"
    );
}

#[test]
fn an_unknown_write_may_be_seen_later_or_never() {
    good(
        "1 k 10 put 1 -> unknown
         2 k 20 get   -> 21 saw nothing @1
         2 j 25 put 9 -> 26 ok @2
         2 k 30 get   -> 31 saw nothing @2
         2 k 40 get   -> 41 saw 1 @3
         3 k 50 put 2 -> unknown
         3 k 60 put 3 -> unknown
         2 k 70 get   -> 71 saw 3 @5
         2 k 80 put 4 -> 81 ok @7",
    );
}

#[test]
fn an_unknown_compare_and_swap_shows_what_it_stood_on() {
    good(
        "1 k 10 put 1   -> unknown
         2 k 20 cas 1 2 -> unknown
         3 k 30 cas 2 3 -> unknown
         4 k 40 get     -> 50 saw 3 @4
         4 k 60 cas 3 4 -> 70 ok @5",
    );
    bad(
        "1 k 10 put 1   -> unknown
         2 k 20 cas 1 2 -> unknown
         4 k 40 get     -> 50 saw 2 @3
         4 k 60 get     -> 70 saw 1 @3",
        "key k: 1 is seen at revision 3, where the key holds 2: the read is stale, a write was lost, or one was applied twice
         1 k 10 put 1 -> unknown
         2 k 20 cas 1 2 -> unknown
         4 k 60 get -> 70 saw 1 @3",
        "key k: no order explains these answers; the best one leaves the key at 1, and next would be: client 2 at 20 writes 2, while the value before is still to be seen; client 4 at 40 needs 2
         1 k 10 put 1 -> unknown
         2 k 20 cas 1 2 -> unknown
         4 k 40 get -> 50 saw 2 @3
         4 k 60 get -> 70 saw 1 @3",
    );
}

#[test]
fn an_unknown_write_needs_a_revision_of_its_own() {
    let history = history(
        "2 k 5 put 8  -> 6 ok @2
         1 k 10 put 1 -> unknown
         2 j 20 put 9 -> 21 ok @3
         2 k 40 get   -> 41 saw 1 @3",
    );
    assert_eq!(
        history.check_by_revision().expect_err("no room").why,
        "1 is seen at revision 3, but its write can only have one above 2, and there is none that another write does not have"
    );
    history.check_by_key().expect("without revisions nobody can tell");
    let history = history_after_five();
    assert_eq!(
        history.check_by_revision().expect_err("known before").why,
        "1 is seen at revision 5, but its write can only have one above 5, and there is none that another write does not have"
    );
    history.check_by_key().expect("without revisions nobody can tell");
}

/// Revision 5 was known before the unknown write began.
fn history_after_five() -> History {
    history(
        "2 j 5 put 8  -> 6 ok @5
         1 k 10 put 1 -> unknown
         2 k 40 get   -> 41 saw 1 @5",
    )
}

#[test]
fn an_unknown_write_that_was_applied_twice() {
    bad(
        "1 k 10 put 1 -> unknown
         2 k 20 get   -> 21 saw 1 @2
         2 k 30 put 2 -> 31 ok @3
         2 k 40 get   -> 41 saw 2 @3
         2 k 50 get   -> 51 saw 1 @4",
        "key k: 1 is seen at revision 4, where the key holds 2: the read is stale, a write was lost, or one was applied twice
         1 k 10 put 1 -> unknown
         2 k 30 put 2 -> 31 ok @3
         2 k 50 get -> 51 saw 1 @4",
        "key k: no order explains these answers; the best one leaves the key at 1, and next would be: client 2 at 30 writes 2, while the value before is still to be seen
         1 k 10 put 1 -> unknown
         2 k 20 get -> 21 saw 1 @2
         2 k 30 put 2 -> 31 ok @3
         2 k 50 get -> 51 saw 1 @4",
    );
}

#[test]
fn a_retried_write_that_was_applied_twice() {
    let text = "1 k 10 put 1 -> 20 ok @2
                2 k 30 put 2 -> 40 ok @3
                3 k 50 get   -> 60 saw 1 @4";
    assert!(history(text).check_by_revision().is_err());
    assert!(history(text).check_by_key().is_err());
}

#[test]
fn what_no_order_is_needed_for() {
    for (text, why) in [
        ("1 k 10 get -> 20 saw 5 @2", "it saw 5, which nobody wrote"),
        (
            "1 k 10 put 5 -> 11 refused\n 1 k 20 get -> 30 saw 5 @2",
            "5 was seen, and its writer was told that it had no effect",
        ),
        (
            "1 k 10 cas 4 5 -> 11 not-swapped nothing @1\n 1 k 20 get -> 30 saw 5 @2",
            "5 was seen, and its writer was told that it had no effect",
        ),
        ("1 k 10 get -> 20 saw 5 @2\n 1 k 30 put 5 -> 40 ok @2", "5 was seen before it was written"),
        (
            "1 k 10 cas nothing 5 -> 20 not-swapped nothing @1",
            "it found the nothing that it expected, and did not swap",
        ),
        (
            "1 k 10 put 5 -> 20 ok @2\n 1 k 30 put 5 -> 40 ok @3",
            "5 is written twice: the judges need every value to have one writer",
        ),
        ("1 k 10 get -> 9 saw nothing @1", "it ended before it began"),
        ("1 k 10 get -> 20 ok @1", "the answer is none to this call"),
    ] {
        assert_eq!(history(text).check_by_revision().expect_err(text).why, why);
        assert_eq!(history(text).check_by_key().expect_err(text).why, why);
    }
}

#[test]
fn the_text_form_is_read_back_and_nonsense_is_named() {
    let text = "1 k 10 put 7 -> 20 ok @2\n2 k 15 get -> 30 saw nothing @1\n3 k 25 cas nothing 8 -> unknown\n\
                4 k 26 cas 7 9 -> 30 not-swapped 8 @3\n5 k 30 get -> 31 refused\n";
    assert_eq!(history(text).to_string(), text);
    let error = "# fine\n\n1 k 10 put -> 20 ok @2".parse::<History>().expect_err("no value");
    assert_eq!(
        error.to_string(),
        "line 3 is no operation: \"1 k 10 put -> 20 ok @2\"; one is `1 key 10 put 7 -> 20 ok @2`"
    );
}

/// A register and its clients, drawn from a seed: operations overlap, some answers stay out, some of those take effect
/// long after.
struct Simulation {
    state: u64,
    value: Option<u64>,
    revision: u64,
    clock: u64,
}

impl Simulation {
    fn draw(&mut self, below: u64) -> u64 {
        // splitmix64 (Steele, Lea, Flood 2014)
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn effect(&mut self, call: Call) -> (Answer, u64) {
        let swap = |this: &mut Self, value| {
            this.value = Some(value);
            this.revision += 1;
            (Answer::Done, this.revision)
        };
        match call {
            Call::Put { value } => swap(self, value),
            Call::CompareAndSwap { expected, value } if expected == self.value => swap(self, value),
            Call::CompareAndSwap { .. } => (Answer::NotSwapped(self.value), self.revision),
            Call::Get => (Answer::Saw(self.value), self.revision),
        }
    }

    fn run(seed: u64, clients: u64, length: u64) -> Vec<Operation> {
        enum Client {
            Idle,
            Asked(Operation),
            Applied(Operation, Answer, u64),
        }
        let mut this = Self { state: seed, value: None, revision: 1, clock: 0 };
        let mut slots: Vec<_> = (0..clients).map(|_| Client::Idle).collect();
        let mut late: Vec<Operation> = Vec::new();
        let mut done = Vec::new();
        let mut written = 0;
        while (done.len() as u64) < length {
            this.clock += 1;
            if !late.is_empty() && this.draw(50) == 0 {
                let at = usize::try_from(this.draw(late.len() as u64)).expect("small");
                let call = late.swap_remove(at).call;
                this.effect(call);
            }
            let client = this.draw(clients);
            let slot = usize::try_from(client).expect("small");
            slots[slot] = match std::mem::replace(&mut slots[slot], Client::Idle) {
                Client::Idle => {
                    written += 1;
                    let call = match this.draw(4) {
                        0 => Call::Put { value: written },
                        1 => Call::CompareAndSwap { expected: this.value, value: written },
                        _ => Call::Get,
                    };
                    let key = "k".to_owned();
                    Client::Asked(Operation { client, key, invoked: this.clock, call, end: End::Unknown })
                }
                Client::Asked(operation) if this.draw(100) == 0 => {
                    late.push(operation.clone());
                    done.push(operation);
                    Client::Idle
                }
                Client::Asked(operation) => {
                    let (answer, revision) = this.effect(operation.call);
                    Client::Applied(operation, answer, revision)
                }
                Client::Applied(mut operation, answer, revision) => {
                    operation.end = End::Answered { at: this.clock, answer, revision };
                    done.push(operation);
                    Client::Idle
                }
            };
        }
        for slot in slots {
            if let Client::Asked(operation) | Client::Applied(operation, ..) = slot {
                done.push(operation);
            }
        }
        done
    }
}

#[test]
fn ten_thousand_operations_on_one_key_are_judged_well_within_a_second() {
    let operations = Simulation::run(7, 5, 10_000);
    let history: History = operations.iter().cloned().collect();
    let started = Instant::now();
    let judged = history.check().expect("a register is linearizable");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(judged.unknown > 50 && judged.took_effect > 20, "{judged:?}");
}

#[test]
fn forty_clients_at_once_are_judged_too() {
    let history: History = Simulation::run(5, 40, 10_000).into_iter().collect();
    let started = Instant::now();
    history.check().expect("a register is linearizable");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn one_stale_read_in_ten_thousand_operations_is_found_and_told_small() {
    let mut operations = Simulation::run(11, 5, 10_000);
    operations.sort_by_key(|operation| operation.invoked);
    let mut seen = None;
    let stale = operations
        .iter_mut()
        .skip(5_000)
        .find_map(|operation| match operation.end {
            End::Answered { answer: Answer::Saw(ref mut value @ Some(_)), .. } if seen.is_none() => {
                seen = *value;
                None
            }
            End::Answered { answer: Answer::Saw(ref mut value @ Some(_)), .. }
                if value.is_some_and(|value| seen.is_some_and(|seen| value > seen + 40)) =>
            {
                *value = seen;
                Some(operation.invoked)
            }
            _ => None,
        })
        .expect("a later read");
    let history: History = operations.into_iter().collect();
    let started = Instant::now();
    for violation in [history.check_by_revision(), history.check_by_key()] {
        let violation = violation.expect_err("it is stale");
        assert!(violation.operations.iter().any(|operation| operation.invoked == stale), "{violation}");
        assert!(violation.operations.len() <= 4, "{violation}");
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

/// Whether any order explains it, by trying all of them.
fn has_an_order(operations: &[&Operation], used: u32, value: Option<u64>) -> bool {
    let rest = || (0..operations.len()).filter(|at| used & (1 << at) == 0);
    let ends = |at: usize| operations[at].returned().unwrap_or(u64::MAX);
    if rest()
        .all(|at| operations[at].returned().is_none() || matches!(operations[at].end, End::Refused { .. }))
    {
        return true;
    }
    rest().any(|at| {
        let operation = operations[at];
        if rest().any(|other| ends(other) < operation.invoked) {
            return false;
        }
        let after = |value| has_an_order(operations, used | (1 << at), value);
        match (operation.call, operation.end) {
            (_, End::Refused { .. }) => after(value),
            (Call::Get, End::Unknown) => false,
            (_, End::Answered { answer: Answer::Saw(seen) | Answer::NotSwapped(seen), .. }) => {
                seen == value && after(value)
            }
            (Call::Get, _) => false,
            (Call::Put { value }, _) => after(Some(value)),
            (Call::CompareAndSwap { expected, value: new }, _) => expected == value && after(Some(new)),
        }
    })
}

fn an_operation(number: u64) -> impl Strategy<Value = Operation> {
    let seen = || prop_oneof![1 => Just(None), 4 => (1..8_u64).prop_map(Some)];
    (0..3_u8, seen(), seen(), 0..20_u64, 0..12_u64, 0..8_u8).prop_map(
        move |(kind, expected, seen, invoked, lasted, ended)| {
            let call = match kind {
                0 => Call::Put { value: number },
                1 => Call::CompareAndSwap { expected, value: number },
                _ => Call::Get,
            };
            let at = invoked + lasted;
            let end = match (ended, call) {
                (0, _) => End::Unknown,
                (1, _) => End::Refused { at },
                (_, Call::Get) => End::Answered { at, answer: Answer::Saw(seen), revision: 1 },
                (2, Call::CompareAndSwap { .. }) => {
                    End::Answered { at, answer: Answer::NotSwapped(seen), revision: 1 }
                }
                _ => End::Answered { at, answer: Answer::Done, revision: 1 },
            };
            Operation { client: number, key: "k".to_owned(), invoked, call, end }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    /// The search against all permutations.
    #[test]
    fn the_search_agrees_with_trying_everything(
        operations in (1_u64..7, 2_u64..8).prop_flat_map(|(from, count)| {
            (from..from + count).map(an_operation).collect::<Vec<_>>()
        }),
    ) {
        let history: History = operations.into_iter().collect();
        let all: Vec<_> = history.operations().iter().collect();
        let contradiction = all.iter().any(|operation| matches!(
            (operation.call, operation.end),
            (
                Call::CompareAndSwap { expected, .. },
                End::Answered { answer: Answer::NotSwapped(seen), .. },
            ) if expected == seen
        ));
        let expected = !contradiction && has_an_order(&all, 0, None);
        let found = history.check_by_key();
        prop_assert_eq!(found.is_ok(), expected, "{}\n{:?}", history, found);
        if let Err(violation) = found {
            let again: History = violation.operations.iter().cloned().collect();
            prop_assert!(again.check_by_key().is_err(), "what is reported is a violation by itself");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_a_register_answered_is_accepted(seed: u64, clients in 1_u64..9) {
        let history: History = Simulation::run(seed, clients, 300).into_iter().collect();
        let by_revision = history.check_by_revision();
        prop_assert!(by_revision.is_ok(), "{}", by_revision.expect_err("shown"));
        let by_key = history.check_by_key();
        prop_assert!(by_key.is_ok(), "{}", by_key.expect_err("shown"));
        prop_assert_eq!(by_revision.ok(), by_key.ok());
    }
}

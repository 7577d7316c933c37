//! The exhaustive search in its small scopes; `cargo run --release -p scripts -- exhaustive` runs the large one.
//!
//! With `--cfg zoo` it is also shown that the search finds what it should: each bug put in on purpose, by the shortest way.
#![cfg(feature = "sim")]

use d_engine::sim::exhaustive::{Ending, Scope, search};

fn scope(name: &str) -> Scope {
    Scope::named(name).expect("a scope of that name")
}

#[cfg(not(zoo))]
fn is_clean(name: &str) {
    let report = search(&scope(name), |line| eprintln!("{name} {line}"));
    eprintln!("{name}: {}\n{report}", scope(name));
    assert!(report.is_clean(), "{report}");
}

#[test]
#[cfg(not(zoo))]
fn two_terms_with_a_crash_hold_in_every_interleaving() {
    is_clean("ci");
}

#[test]
#[cfg(not(zoo))]
fn three_terms_hold_in_every_interleaving() {
    is_clean("terms");
}

#[test]
#[cfg(not(zoo))]
fn a_network_that_keeps_everything_changes_nothing() {
    is_clean("network");
}

#[test]
#[cfg(not(zoo))]
fn flushes_at_any_time_change_nothing() {
    is_clean("flush");
}

/// The names of nodes make no difference to a search, and neither does running it again.
#[test]
#[cfg(not(zoo))]
fn a_search_is_the_same_every_time() {
    let small = Scope { commands: 0, ..scope("ci") };
    let [first, second] = [(), ()].map(|()| search(&small, |_| ()));
    assert_eq!(first.ending, Ending::Complete);
    assert_eq!(
        (first.states, first.transitions, first.depth),
        (second.states, second.transitions, second.depth)
    );
}

/// A scope that lacks what it is required to meet does not count.
#[test]
#[cfg(not(zoo))]
fn an_empty_search_does_not_pass() {
    let empty = Scope { terms: 1, commands: 0, crashes: 0, ..scope("ci") };
    let report = search(&empty, |_| ());
    assert_eq!(report.ending, Ending::Complete);
    assert!(!report.is_clean(), "{report}");
}

/// One test for all: the chosen bug is one for the process.
#[test]
#[cfg(zoo)]
fn each_bug_put_in_on_purpose_is_found() {
    let mut unseen = Vec::new();
    for (mutant, name) in [
        ("vote_twice", "ci"),
        ("vote_for_stale_log", "ci"),
        ("vote_before_durable", "ci"),
        ("ack_before_durable", "ci"),
        ("leader_counts_itself_early", "ci"),
        ("commit_older_terms_by_count", "figure8"),
    ] {
        wal::mutant::choose(mutant);
        let report = search(&scope(name), |_| ());
        wal::mutant::choose("");
        match &report.ending {
            Ending::Violation { what, story } => {
                let (states, seconds) = (report.states, report.took.as_secs_f64());
                eprintln!("{mutant} ({name}, {states} states, {seconds:.1} s): {what}\n{story}");
            }
            _ => unseen.push(mutant),
        }
    }
    assert!(unseen.is_empty(), "not found: {unseen:?}");
    assert_eq!(search(&scope("ci"), |_| ()).ending, Ending::Complete, "without a bug, all is well");
}

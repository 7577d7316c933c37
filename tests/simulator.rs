//! The simulator as a test: a short campaign, and that a run is a function of its seed. `cargo run --release --features
//! sim --bin d-engine-sim` looks further.

use d_engine::sim::campaign::{Sums, replay};
use d_engine::sim::{Fault, Mark, Orders, Telling, run};

/// Seeds of the short campaign; `D_ENGINE_SEEDS` for more.
fn seeds() -> u64 {
    std::env::var("D_ENGINE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

#[test]
#[allow(clippy::print_stdout, reason = "the table of the campaign")]
fn no_seed_of_a_short_campaign_breaks_a_promise() {
    let mut sums = Sums::default();
    for seed in 0..seeds() {
        let report = run(seed, &Orders::default(), Telling::Hash);
        assert!(report.failure.is_none(), "{:?}; {}", report.failure, replay(seed, &Orders::default()));
        sums.add(&report);
    }
    println!("{}", sums.table());
    let kinds = Fault::ALL.iter().filter(|&&fault| sums.injected.of(fault) > 0).count();
    assert!(kinds > 20, "{kinds} kinds of faults were injected");
    let marks = Mark::ALL.iter().filter(|&&mark| sums.verdicts.marks.count(mark) > 0).count();
    assert!(marks > 20, "{marks} rare branches were reached");
    assert!(
        sums.verdicts.writes > 1_000
            && sums.verdicts.linearizable_reads > 1_000
            && sums.verdicts.lease_reads > 100
    );
    assert!(
        sums.verdicts.ranges > 100 && sums.verdicts.watched > 1_000 && sums.verdicts.expired > 10,
        "ranges, watches and leases are in the load"
    );
    assert!(sums.verdicts.recoveries > seeds() && sums.verdicts.leaders > seeds());
}

#[test]
fn the_same_seed_is_the_same_run_whether_or_not_somebody_listens() {
    // Said by another build: it must be the same run there.
    if let Ok(other) = std::env::var("D_ENGINE_HASH_42") {
        let here = format!("{:016x}", run(42, &Orders::default(), Telling::Hash).hash);
        assert_eq!(here, other, "the run of another build");
    }
    for seed in [42, 7] {
        let quiet = run(seed, &Orders::default(), Telling::Hash);
        let told = run(seed, &Orders::default(), Telling::Whole);
        assert_eq!((quiet.hash, quiet.events, quiet.calls), (told.hash, told.events, told.calls));
        assert_eq!(quiet.verdicts, told.verdicts);
        assert!(quiet.story.is_empty() && told.story.len() > 10);
    }
    let hash = |seed| run(seed, &Orders::default(), Telling::Hash).hash;
    assert_ne!(hash(42), hash(43));
}

#[test]
fn what_is_left_out_does_not_happen() {
    let seed = (0..50)
        .find(|&seed| run(seed, &Orders::default(), Telling::Hash).injected.of(Fault::Kill) > 0)
        .expect("some run has a kill");
    let orders = Orders { without: [Fault::Kill].into(), ..Orders::default() };
    let report = run(seed, &orders, Telling::Hash);
    assert_eq!(report.injected.of(Fault::Kill), 0);
    assert!(replay(seed, &orders).ends_with(&format!("--seed {seed} --without kill")));
}

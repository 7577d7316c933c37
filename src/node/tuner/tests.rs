//! The tuner against machines that are formulas: a disk that takes a while for each flush and for each byte, peers at the
//! end of a line, and callers who either wait for their answers or come at a rate of their own.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "formulas in floating point, counted in whole numbers"
)]

use super::*;
use crate::raft::Random;
use proptest::prelude::*;

const KIB: u64 = 1 << 10;

fn bounds() -> Bounds {
    Bounds {
        batch_bytes: Span { least: 4 * KIB, most: 1 << 20 },
        batches_in_flight: Span { least: 1, most: 8 },
        in_flight_bytes: Span { least: 64 * KIB, most: 16 << 20 },
    }
}

fn pace(batch_bytes: usize, batches_in_flight: u64, in_flight_bytes: usize) -> Pace {
    Pace { batch_bytes, batches_in_flight, in_flight_bytes }
}

const START: Pace = Pace { batch_bytes: 1 << 20, batches_in_flight: 1, in_flight_bytes: 4 << 20 };

/// How calls come.
#[derive(Clone, Copy, Debug)]
enum Callers {
    /// So many, each waiting for its answer before it asks again.
    Waiting(f64),
    /// So many in a second, whatever becomes of them.
    Coming(f64),
}

/// A machine: seconds and bytes.
#[derive(Clone, Copy, Debug)]
struct Machine {
    callers: Callers,
    command_bytes: f64,
    flush: f64,
    bytes_per_second: f64,
    round_trip: f64,
    per_command: f64,
    /// By how much each further batch in flight slows down the flushes of all.
    contention: f64,
    /// Spread of what is measured.
    noise: f64,
}

/// What it does with the commands that are there.
#[derive(Clone, Copy, Debug)]
struct Flow {
    /// In a batch.
    commands: f64,
    /// In a second.
    batches: f64,
    /// A batch, in seconds.
    #[allow(dead_code, reason = "for whoever looks at a failure")]
    took: f64,
    full: bool,
    disk: bool,
    window: bool,
}

impl Machine {
    /// What happens if so many commands are there at a time.
    fn with(&self, pace: &Pace, present: f64) -> Flow {
        let flights = (pace.batches_in_flight as f64).min(present);
        let most = (pace.batch_bytes as f64 / self.command_bytes).floor().max(1.0);
        let wanted = (present / (flights + 1.0)).max(1.0);
        let commands = wanted.min(most);
        let bytes = commands * self.command_bytes;
        let work = commands * self.per_command;
        let slower = 1.0 + self.contention * (flights - 1.0);
        let written = (self.flush + bytes / self.bytes_per_second) * slower;
        let took = written + self.round_trip + work;
        let disk = flights / (written + work);
        let window = (pace.in_flight_bytes as f64 / bytes).max(1.0) / (self.round_trip + written);
        // Nobody asks again before the answer is there.
        let callers = present / commands / took;
        let batches = disk.min(1.0 / work).min(window).min(callers);
        Flow {
            commands,
            batches,
            took,
            full: wanted > most,
            disk: batches >= disk,
            window: batches >= window,
        }
    }

    /// Rate, 99th percentile and load of an interval of a second.
    fn run(&self, pace: &Pace, dice: &mut Random) -> (f64, f64, Load) {
        let (rate, latency, flow) = match self.callers {
            Callers::Waiting(callers) => {
                let flow = self.with(pace, callers);
                let rate = flow.commands * flow.batches;
                (rate, callers / rate, flow)
            }
            Callers::Coming(offered) => {
                // As many are there as come while others are under way, if that ends somewhere.
                let mut present = 1.0;
                for _ in 0..200 {
                    let flow = self.with(pace, present);
                    present = (0.5 * (present + present * offered / (flow.commands * flow.batches)))
                        .clamp(1.0, 1e6);
                }
                let flow = self.with(pace, present);
                let capacity = flow.commands * flow.batches;
                let queued = if capacity < offered * 0.99 { 1.0 } else { 0.0 };
                (offered.min(capacity), present / offered.min(capacity) + queued, flow)
            }
        };
        let noisy = |value: f64, dice: &mut Random| {
            let unit = (dice.bits() >> 11) as f64 / (1_u64 << 53) as f64;
            value * (1.0 + self.noise * (2.0 * unit - 1.0))
        };
        let batches = (flow.batches as u64).max(1);
        let times = |holds: bool| if holds { batches } else { 0 };
        let load = Load {
            commands: rate as u64,
            batches,
            full: times(flow.full),
            largest: (flow.commands * self.command_bytes) as u64,
            held_by_disk: times(flow.disk),
            held_by_peers: times(flow.window),
        };
        (noisy(rate, dice), noisy(latency * 1.5, dice), load)
    }
}

fn play(tuner: &mut Tuner, machine: &Machine, intervals: usize, dice: &mut Random) -> Vec<Decision> {
    let mut histogram = Histogram::default();
    let mut decisions = Vec::new();
    for _ in 0..intervals {
        let (rate, p99, load) = machine.run(&tuner.pace(), dice);
        histogram.clear();
        histogram.record(Duration::from_secs_f64(p99), rate as u64);
        let interval = Interval { latencies: &histogram, load, lasted: Duration::from_secs(1) };
        let before = tuner.pace();
        if let Some(decision) = tuner.handle_interval(&interval) {
            assert_eq!(decision.knob.of(&tuner.pace()), decision.to, "what is decided is in force");
            decisions.push(decision);
        } else {
            assert_eq!(tuner.pace(), before, "nothing changes without a decision");
        }
        for knob in Knob::ALL {
            let Span { least, most } = bounds().of(knob);
            assert!((least..=most).contains(&knob.of(&tuner.pace())), "{knob} is in its bounds");
        }
    }
    decisions
}

const DISK: Machine = Machine {
    callers: Callers::Waiting(8_000.0),
    command_bytes: 280.0,
    flush: 80e-6,
    bytes_per_second: 3e9,
    round_trip: 100e-6,
    per_command: 1e-6,
    contention: 0.3,
    noise: 0.03,
};

fn settled(machine: &Machine, target: Duration, start: Pace) -> (Tuner, Vec<Decision>) {
    let mut tuner = Tuner::new(target, bounds(), start);
    let decisions = play(&mut tuner, machine, 600, &mut Random::from_seed(7));
    (tuner, decisions)
}

/// All paces that steps of two reach.
fn grid() -> Vec<Pace> {
    let mut all = Vec::new();
    for batch in 12..=20 {
        for flights in 0..=3 {
            all.extend((16..=24).map(|window| pace(1 << batch, 1 << flights, 1 << window)));
        }
    }
    all
}

/// Rate and percentile without noise.
fn truth(machine: &Machine, pace: &Pace) -> (f64, f64) {
    let quiet = Machine { noise: 0.0, ..*machine };
    let (rate, p99, _) = quiet.run(pace, &mut Random::from_seed(1));
    (rate, p99)
}

#[test]
fn small_batches_grow_until_they_hold_nothing_back() {
    let (tuner, decisions) = settled(&DISK, Duration::from_millis(50), pace(4 << 10, 1, 4 << 20));
    assert!(tuner.is_at_rest());
    let kept = decisions.iter().filter(|decision| matches!(decision.reason, Reason::Better { .. })).count();
    assert!(kept >= 3, "{decisions:#?}");
    let best = grid().iter().map(|pace| truth(&DISK, pace).0).fold(0.0, f64::max);
    assert!(truth(&DISK, &tuner.pace()).0 > 0.85 * best, "{:?}", tuner.pace());
}

#[test]
fn a_latency_above_the_target_is_brought_down_where_that_is_possible() {
    // Large values over a slow line, at a rate that the machine could serve in small pieces.
    let bulk = Machine {
        callers: Callers::Coming(800.0),
        command_bytes: 32_000.0,
        bytes_per_second: 50e6,
        per_command: 5e-6,
        ..DISK
    };
    let start = truth(&bulk, &START);
    let best = grid().iter().map(|pace| truth(&bulk, pace).1).fold(f64::INFINITY, f64::min);
    let target = Duration::from_secs_f64(f64::midpoint(start.1.min(best * 3.0), best));
    let (tuner, decisions) = settled(&bulk, target, START);
    assert!(
        truth(&bulk, &tuner.pace()).1 <= target.as_secs_f64() * 1.05,
        "{start:?} {best} {target:?} {:?} {decisions:#?}",
        tuner.pace()
    );
}

#[test]
fn a_change_that_makes_it_worse_is_taken_back() {
    let contended = Machine { contention: 3.0, per_command: 1e-8, ..DISK };
    let (tuner, decisions) = settled(&contended, Duration::from_micros(1), START);
    let tried = |d: &&Decision| d.knob == Knob::BatchesInFlight && d.to == 2;
    assert!(decisions.iter().any(|d| tried(&d)), "{decisions:#?}");
    let back = decisions.iter().find(|d| d.knob == Knob::BatchesInFlight && d.to == 1).expect("taken back");
    assert!(matches!(back.reason, Reason::NotBetter { .. }), "{back}");
    assert_eq!(tuner.pace().batches_in_flight, 1);
}

#[test]
fn without_load_nothing_is_decided_and_a_change_that_was_not_judged_is_taken_back() {
    let mut tuner = Tuner::new(Duration::from_micros(1), bounds(), START);
    let idle = Machine { callers: Callers::Coming(10.0), ..DISK };
    let dice = &mut Random::from_seed(3);
    assert_eq!(play(&mut tuner, &idle, 1_000, dice), []);
    let decisions = play(&mut tuner, &DISK, WINDOW + 1, dice);
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    assert!(tuner.is_trying());
    let decisions = play(&mut tuner, &idle, 100, dice);
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    assert_eq!(decisions[0].reason, Reason::LoadEnded);
    assert_eq!(tuner.pace(), START);
}

#[test]
fn a_harmful_change_is_not_left_in_force_for_a_whole_window() {
    let mut tuner = Tuner::new(Duration::from_millis(50), bounds(), START);
    let dice = &mut Random::from_seed(3);
    let tried = play(&mut tuner, &DISK, WINDOW + 1, dice);
    assert_eq!(tried.len(), 1, "{tried:?}");
    // The disk becomes a hundred times slower at the same time: who knows that it was not the change?
    let broken = Machine { flush: 0.1, ..DISK };
    let decisions = play(&mut tuner, &broken, 3, dice);
    assert!(matches!(decisions[..], [Decision { reason: Reason::NotBetter { .. }, .. }]), "{decisions:?}");
}

#[test]
fn rest_ends_when_the_load_is_another_and_not_before() {
    let calm = Machine { callers: Callers::Waiting(16.0), ..DISK };
    let (mut tuner, _) = settled(&calm, Duration::from_millis(20), pace(4 << 10, 1, 4 << 20));
    assert!(tuner.is_at_rest());
    let dice = &mut Random::from_seed(3);
    assert_eq!(play(&mut tuner, &calm, 2_000, dice), [], "nothing has changed");
    assert_ne!(play(&mut tuner, &DISK, 2_000, dice), [], "five hundred times as many callers");
    assert!(tuner.pace().batch_bytes > 4 << 10, "{:?}", tuner.pace());
}

#[test]
fn a_pace_set_by_somebody_else_is_where_it_goes_on_from() {
    let (mut tuner, _) = settled(&DISK, Duration::from_millis(20), START);
    assert_eq!(tuner.begin_from(pace(1, 100, 1 << 20)), pace(4 << 10, 8, 1 << 20), "within the bounds");
    assert!(!tuner.is_at_rest());
}

#[test]
fn decisions_are_said_with_their_reasons() {
    let before = Measured { rate: 1000, p99: Duration::from_micros(8100) };
    let after = Measured { rate: 2000, p99: Duration::from_micros(4100) };
    let said = |reason| Decision { knob: Knob::BatchBytes, from: 4096, to: 8192, reason }.to_string();
    assert_eq!(
        said(Reason::AboveTarget { now: before, target: Duration::from_millis(5) }),
        "batch_soft_bytes 4096 -> 8192: tried: p99 8.100 ms is above the target of 5.000 ms"
    );
    assert_eq!(
        said(Reason::Better { before, after }),
        "batch_soft_bytes 4096 -> 8192: kept: 2000/s at p99 4.100 ms, before it 1000/s at p99 8.100 ms"
    );
}

fn machines() -> impl Strategy<Value = Machine> {
    let callers = prop_oneof![
        (0.0..4.0_f64).prop_map(|exponent| Callers::Waiting(10_f64.powf(exponent))),
        (2.0..5.5_f64).prop_map(|exponent| Callers::Coming(10_f64.powf(exponent))),
    ];
    let times = ((-5.0..-2.0_f64), (7.0..9.7_f64), (-5.0..-2.0_f64), (-6.5..-5.0_f64));
    (callers, 1.5..4.5_f64, times, 0.0..1.5_f64, 0.0..0.04_f64).prop_map(
        |(callers, bytes, (flush, speed, round_trip, per_command), contention, noise)| Machine {
            callers,
            command_bytes: 10_f64.powf(bytes),
            flush: 10_f64.powf(flush),
            bytes_per_second: 10_f64.powf(speed),
            round_trip: 10_f64.powf(round_trip),
            per_command: 10_f64.powf(per_command),
            contention,
            noise,
        },
    )
}

fn starts() -> impl Strategy<Value = Pace> {
    (12..=20_u32, 0..=3_u32, 16..=24_u32)
        .prop_map(|(batch, flights, window)| pace(1 << batch, 1 << flights, 1 << window))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// In its bounds (looked at after every interval), no worse than it began, and quiet in the end.
    #[test]
    fn under_any_steady_load_the_decisions_end_and_have_done_no_harm(
        machine in machines(),
        start in starts(),
        target in -4.0..0.0_f64,
        seed in 0..u64::MAX,
    ) {
        let target = Duration::from_secs_f64(10_f64.powf(target));
        let dice = &mut Random::from_seed(seed);
        let mut tuner = Tuner::new(target, bounds(), start);
        let first = play(&mut tuner, &machine, 1_500, dice);
        let late = play(&mut tuner, &machine, 1_500, dice);
        prop_assert!(late.len() <= 4, "still deciding: {late:#?} after {}", first.len());
        let (began, ended) = (truth(&machine, &start), truth(&machine, &tuner.pace()));
        let limit = target.as_secs_f64();
        if began.1 <= limit {
            prop_assert!(ended.1 <= limit * 1.1 && ended.0 >= began.0 * 0.93, "{began:?} {ended:?}");
        } else {
            let gain = (began.1 / ended.1) * (ended.0 / began.0);
            prop_assert!(ended.1 <= limit * 1.1 || gain > 0.93, "{began:?} {ended:?} {:?}", tuner.pace());
        }
    }

    /// Callers that wait: as good as the best of all paces, or nearly. From where the engine begins, but for
    /// the batches' size: one of them in flight, and a window that holds many. Two knobs that help only together, or two
    /// steps of which only the second does, are not found.
    #[test]
    fn where_callers_wait_it_comes_near_the_best_pace_there_is(
        machine in machines().prop_filter("waiting", |machine| matches!(machine.callers, Callers::Waiting(_))),
        start in starts(),
        seed in 0..u64::MAX,
    ) {
        let start = Pace { batches_in_flight: 1, in_flight_bytes: 16 << 20, ..start };
        let mut tuner = Tuner::new(Duration::from_secs(60), bounds(), start);
        play(&mut tuner, &machine, 3_000, &mut Random::from_seed(seed));
        let best = grid().iter().map(|pace| truth(&machine, pace).0).fold(0.0, f64::max);
        let found = truth(&machine, &tuner.pace()).0;
        prop_assert!(found > 0.6 * best, "{found} of {best} at {:?}", tuner.pace());
    }
}

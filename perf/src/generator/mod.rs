//! The load generator, one for all systems: from one thread, a closed loop or an open one.
//!
//! Inside the timed path there is no random source, no lock and no allocation of the generator's own; what a system's
//! client allocates is that system's. Latency counts from the moment at which a call was due. In a closed loop that is
//! when the answer came that made room for it: time spent handing over other calls of the same turn is part of it. In an
//! open loop it is the time in the schedule, whatever the system did meanwhile: a stall shows in every call that was
//! due during it.

pub mod embedded;
mod material;
mod schedule;
pub mod watch;

pub use material::{Ask, Level, Material};

use crate::protocol::Loaded;
use crate::slice::latencies;
use crate::workload::{Call, Pace, Workload};
use hdrhistogram::Histogram;
use schedule::Schedule;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// In flight while the store is filled.
const FILL_IN_FLIGHT: usize = 256;
/// Before the next try, when nothing can be sent and nothing is in flight.
const REFUSED_PAUSE: Duration = Duration::from_millis(1);

/// An answer.
pub struct Done {
    /// Number of the call.
    pub number: u64,
    /// What became of it.
    pub result: Result<(), Failure>,
}

/// Why a call was not answered with success, in the system's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It did nothing.
    Refused(String),
    /// Nobody knows whether it did what it was to do.
    Unknown(String),
}

impl Failure {
    /// The words.
    pub fn message(&self) -> &str {
        let (Self::Refused(message) | Self::Unknown(message)) = self;
        message
    }

    /// The words alone.
    pub fn into_message(self) -> String {
        let (Self::Refused(message) | Self::Unknown(message)) = self;
        message
    }
}

/// What makes calls to one system from one thread.
pub trait Client {
    /// Whether calls of this kind are answered before [`call`](Self::call) returns, so that nothing can be in flight.
    fn answers_at_once(&self, call: Call) -> bool;

    /// Makes a call that is answered at once.
    fn call(&mut self, ask: Ask<'_>) -> Result<(), String>;

    /// Sends a call and returns its number; an error means that nothing was sent.
    fn submit(&mut self, ask: Ask<'_>) -> Result<u64, String>;

    /// Calls whose answers were not taken.
    fn in_flight(&self) -> usize;

    /// Sleeps until there are answers, or until the time given, and appends them.
    fn wait(&mut self, until: Option<Instant>, done: &mut Vec<Done>);
}

/// Where the time comes from.
pub trait Clock {
    /// Now.
    fn now(&self) -> Instant;
}

/// The system's monotonic clock.
pub struct Real;

impl Clock for Real {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// Writes every key once. When one fails no more are sent, and the first failure is returned once all are answered: a
/// later call of this client meets none of these.
pub fn fill(client: &mut impl Client, material: &Material) -> Result<(), String> {
    let mut done = Vec::with_capacity(FILL_IN_FLIGHT);
    let (mut sent, mut failed) = (0, None);
    while (sent < material.len() && failed.is_none()) || client.in_flight() > 0 {
        while sent < material.len() && failed.is_none() && client.in_flight() < FILL_IN_FLIGHT {
            match client.submit(material.pair(sent)) {
                Ok(_) => sent += 1,
                Err(message) => failed = Some(message),
            }
        }
        client.wait(None, &mut done);
        for answer in done.drain(..) {
            failed = failed.or(answer.result.err().map(Failure::into_message));
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Runs one load to its end; every call it made has been answered when it returns.
pub fn run(
    client: &mut impl Client,
    workload: &Workload,
    slice: Duration,
    material: &mut Material,
) -> Loaded {
    match workload.pace {
        Pace::Closed { .. } if client.answers_at_once(workload.call) => {
            immediate(client, workload.call, slice, material)
        }
        Pace::Closed { in_flight } => closed(client, workload.call, in_flight.max(1), slice, material, &Real),
        Pace::Open { per_second, backlog } => {
            sharpen_timers();
            let schedule = Schedule::new(Instant::now(), per_second, slice);
            open(client, workload.call, schedule, backlog.max(1), material, &Real)
        }
    }
}

/// Sleeps end when they should, not up to 50 µs later (prctl(2), PR_SET_TIMERSLACK).
fn sharpen_timers() {
    #[cfg(target_os = "linux")]
    {
        // Refused nowhere; and if it were, latencies would come out too high, never too low.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    }
}

fn closed(
    client: &mut impl Client,
    call: Call,
    in_flight: usize,
    slice: Duration,
    material: &mut Material,
    clock: &impl Clock,
) -> Loaded {
    let mut tally = Tally::new();
    let mut due = Due::new(in_flight, call);
    let mut done = Vec::with_capacity(in_flight);
    let began = clock.now();
    let end = began + slice;
    let mut now = began;
    loop {
        while now < end && client.in_flight() < in_flight {
            match client.submit(material.next(call)) {
                Ok(number) => due.set(number, now),
                Err(message) => {
                    tally.fail(message);
                    break;
                }
            }
        }
        if client.in_flight() == 0 {
            if now >= end {
                break;
            }
            std::thread::sleep(REFUSED_PAUSE);
        }
        client.wait(None, &mut done);
        now = clock.now();
        tally.take(&mut done, &mut due, now);
    }
    tally.loaded(now - began, 0)
}

fn open(
    client: &mut impl Client,
    call: Call,
    schedule: Schedule,
    backlog: usize,
    material: &mut Material,
    clock: &impl Clock,
) -> Loaded {
    let mut tally = Tally::new();
    let mut due = Due::new(backlog, call);
    let mut done = Vec::with_capacity(backlog);
    let mut sent = 0;
    let mut now = clock.now();
    loop {
        let ready = schedule.due_by(now);
        while sent < ready && client.in_flight() < backlog {
            // A call that is refused was due all the same: it failed.
            match client.submit(material.next(call)) {
                Ok(number) => due.set(number, schedule.due(sent)),
                Err(message) => tally.fail(message),
            }
            sent += 1;
        }
        if now >= schedule.end() {
            break;
        }
        let room = client.in_flight() < backlog;
        let next = if room { schedule.due(sent).min(schedule.end()) } else { schedule.end() };
        client.wait(Some(next), &mut done);
        now = clock.now();
        tally.take(&mut done, &mut due, now);
    }
    // What was due and never found room is missed; what was sent is waited for.
    let missed = schedule.due_by(schedule.end()).saturating_sub(sent);
    while client.in_flight() > 0 {
        client.wait(None, &mut done);
        now = clock.now();
        tally.take(&mut done, &mut due, now);
    }
    tally.loaded(now.saturating_duration_since(schedule.began()), missed)
}

/// A loop of calls that are answered on this thread. The clock is read at every sixteenth: it costs as much as such
/// a call does.
fn immediate(client: &mut impl Client, call: Call, slice: Duration, material: &mut Material) -> Loaded {
    const BETWEEN_CLOCKS: u64 = 15;
    let mut tally = Tally::new();
    let began = Instant::now();
    let mut before = began;
    while before < began + slice {
        match client.call(material.next(call)) {
            Ok(()) => tally.succeed(before.elapsed()),
            Err(message) => tally.fail(message),
        }
        for _ in 0..BETWEEN_CLOCKS {
            match client.call(material.next(call)) {
                Ok(()) => tally.operations += 1,
                Err(message) => tally.fail(message),
            }
        }
        before = Instant::now();
    }
    tally.loaded(began.elapsed(), 0)
}

/// When each call in flight was due, by number. A ring: far larger than the number in flight, and an entry that was
/// overwritten is known by its number.
struct Due {
    entries: Vec<(u64, Instant)>,
    mask: u64,
}

impl Due {
    fn new(in_flight: usize, call: Call) -> Self {
        // Reads may overtake a put by as many as are answered during its flush.
        let least = if matches!(call, Call::Mixed { .. }) { 1 << 17 } else { 1024 };
        let length = (in_flight * 8).next_power_of_two().max(least);
        Self { entries: vec![(u64::MAX, Instant::now()); length], mask: length as u64 - 1 }
    }

    fn slot(&mut self, number: u64) -> &mut (u64, Instant) {
        let index = usize::try_from(number & self.mask).expect("the mask is an index");
        &mut self.entries[index]
    }

    fn set(&mut self, number: u64, due: Instant) {
        *self.slot(number) = (number, due);
    }

    fn take(&mut self, number: u64) -> Option<Instant> {
        let &mut (kept, due) = self.slot(number);
        (kept == number).then_some(due)
    }
}

struct Tally {
    operations: u64,
    errors: BTreeMap<String, u64>,
    histogram: Histogram<u64>,
}

impl Tally {
    fn new() -> Self {
        Self { operations: 0, errors: BTreeMap::new(), histogram: latencies() }
    }

    fn succeed(&mut self, latency: Duration) {
        self.operations += 1;
        self.histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    fn fail(&mut self, message: String) {
        *self.errors.entry(message).or_insert(0) += 1;
    }

    fn take(&mut self, done: &mut Vec<Done>, due: &mut Due, now: Instant) {
        for answer in done.drain(..) {
            match (answer.result, due.take(answer.number)) {
                (Ok(()), Some(due)) => self.succeed(now.saturating_duration_since(due)),
                (Ok(()), None) => self.fail("answered, but so late that its latency was forgotten".into()),
                (Err(failure), _) => self.fail(failure.into_message()),
            }
        }
    }

    fn loaded(self, elapsed: Duration, missed: u64) -> Loaded {
        Loaded {
            operations: self.operations,
            errors: self.errors.into_iter().collect(),
            missed,
            elapsed,
            latencies: self
                .histogram
                .iter_recorded()
                .map(|value| (value.value_iterated_to(), value.count_at_value()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    #[test]
    fn a_forgotten_due_time_is_known_to_be_forgotten() {
        let mut due = Due::new(1, Call::Put);
        let now = Instant::now();
        due.set(3, now);
        assert_eq!(due.take(3), Some(now));
        due.set(3 + due.entries.len() as u64, now);
        assert_eq!(due.take(3), None);
    }

    /// A clock that moves only when the client sleeps.
    #[derive(Clone)]
    struct Model(Rc<Cell<Instant>>);

    impl Clock for Model {
        fn now(&self) -> Instant {
            self.0.get()
        }
    }

    /// Serves one call after the other, each in `service`; from `stall.0` on it does nothing until `stall.1`.
    struct Queue {
        clock: Model,
        began: Instant,
        service: Duration,
        stall: (Duration, Duration),
        answers: VecDeque<(u64, Instant)>,
        free: Instant,
        next: u64,
        deepest: usize,
        /// Every so many-th answer is a failure.
        fails: Option<u64>,
    }

    impl Queue {
        fn new(service: Duration, stall: (Duration, Duration)) -> (Self, Model) {
            let began = Instant::now();
            let clock = Model(Rc::new(Cell::new(began)));
            let queue = Self {
                clock: clock.clone(),
                began,
                service,
                stall,
                answers: VecDeque::new(),
                free: began,
                next: 0,
                deepest: 0,
                fails: None,
            };
            (queue, clock)
        }
    }

    impl Client for Queue {
        fn answers_at_once(&self, _: Call) -> bool {
            false
        }

        fn call(&mut self, _: Ask<'_>) -> Result<(), String> {
            Err("nothing is answered at once".into())
        }

        fn submit(&mut self, _: Ask<'_>) -> Result<u64, String> {
            let mut begins = self.free.max(self.clock.now());
            if begins >= self.began + self.stall.0 && begins < self.began + self.stall.1 {
                begins = self.began + self.stall.1;
            }
            self.free = begins + self.service;
            self.answers.push_back((self.next, self.free));
            self.next += 1;
            self.deepest = self.deepest.max(self.answers.len());
            Ok(self.next - 1)
        }

        fn in_flight(&self) -> usize {
            self.answers.len()
        }

        fn wait(&mut self, until: Option<Instant>, done: &mut Vec<Done>) {
            let answer = self.answers.front().map(|(_, at)| *at);
            let wake = answer.into_iter().chain(until).min().expect("there is something to wait for");
            self.clock.0.set(wake.max(self.clock.now()));
            while let Some(&(number, at)) = self.answers.front() {
                if at > self.clock.now() {
                    break;
                }
                self.answers.pop_front();
                let fails = self.fails.is_some_and(|every| number % every == 0);
                let failure = || Failure::Unknown("timed out".into());
                done.push(Done { number, result: if fails { Err(failure()) } else { Ok(()) } });
            }
        }
    }

    fn material() -> Material {
        Material::of(&Workload::closed(Call::Put, 1).with_values_of(1))
    }

    fn quantile(loaded: &Loaded, share: f64) -> Duration {
        Duration::from_nanos(loaded.histogram().value_at_quantile(share))
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_stall_shows_in_every_call_that_was_due_during_it() {
        // 1,000 a second for a second; for 200 ms of it nothing is served.
        let (mut queue, clock) = Queue::new(MS / 100, (300 * MS, 500 * MS));
        let schedule = Schedule::new(queue.began, 1000.0, 1000 * MS);
        let loaded = open(&mut queue, Call::Put, schedule, 10_000, &mut material(), &clock);
        assert_eq!((loaded.operations, loaded.missed), (1000, 0));
        // A fifth of the calls waited, half of those more than 100 ms. Without the schedule there would be one.
        assert!(quantile(&loaded, 0.79) < MS, "{:?}", quantile(&loaded, 0.79));
        let tenth = quantile(&loaded, 0.90);
        assert!(tenth > 90 * MS && tenth < 110 * MS, "{tenth:?}");
        assert!(quantile(&loaded, 1.0) > 195 * MS);
    }

    #[test]
    fn an_offer_beyond_what_is_served_ends_at_the_backlog_and_is_counted() {
        // Served 100 a second, offered 1,000.
        let (mut queue, clock) = Queue::new(10 * MS, (MS, MS));
        let schedule = Schedule::new(queue.began, 1000.0, 1000 * MS);
        let loaded = open(&mut queue, Call::Put, schedule, 50, &mut material(), &clock);
        assert_eq!(loaded.operations + loaded.missed, 1000);
        assert_eq!(queue.deepest, 50);
        // 99 were answered within the second, 50 were in flight at its end.
        assert!((148..=151).contains(&loaded.operations), "{}", loaded.operations);
        // The later ones waited most of the second for room.
        assert!(quantile(&loaded, 1.0) > 900 * MS);
    }

    #[test]
    fn calls_that_fail_are_counted_by_what_they_say_and_have_no_latency() {
        let (mut queue, clock) = Queue::new(MS, (MS, MS));
        queue.fails = Some(4);
        let loaded = closed(&mut queue, Call::Put, 8, 1000 * MS, &mut material(), &clock);
        let failed = queue.next.div_ceil(4);
        assert_eq!(loaded.errors, [("timed out".to_owned(), failed)]);
        assert_eq!(loaded.operations + failed, queue.next);
        assert_eq!(loaded.latencies.iter().map(|(_, count)| count).sum::<u64>(), loaded.operations);
        let (mut queue, clock) = Queue::new(MS / 100, (MS, MS));
        queue.fails = Some(10);
        let schedule = Schedule::new(queue.began, 1000.0, 1000 * MS);
        let loaded = open(&mut queue, Call::Put, schedule, 10_000, &mut material(), &clock);
        assert_eq!((loaded.operations, loaded.errors), (900, vec![("timed out".to_owned(), 100)]));
    }

    #[test]
    fn a_fill_that_fails_says_so() {
        let (mut queue, _) = Queue::new(MS, (MS, MS));
        queue.fails = Some(50);
        assert_eq!(fill(&mut queue, &material()), Err("timed out".into()));
        assert_eq!(queue.in_flight(), 0, "a later call meets none of these");
    }

    #[test]
    fn a_closed_loop_keeps_as_many_in_flight_as_it_was_told() {
        let (mut queue, clock) = Queue::new(MS, (MS, MS));
        let loaded = closed(&mut queue, Call::Put, 8, 1000 * MS, &mut material(), &clock);
        assert_eq!(queue.deepest, 8);
        assert!((1000..=1008).contains(&loaded.operations), "{}", loaded.operations);
        let middle = quantile(&loaded, 0.5);
        assert!(middle > 7 * MS && middle < 9 * MS, "{middle:?}");
    }
}

//! Processor time of the measuring thread instead of the clock on the wall: other programs on the machine cost caches, but
//! their turns are not counted. Throughput reads as time per element.

use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{Criterion, Throughput};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The measurement.
pub struct CpuTime;

/// A harness that measures with it.
pub fn criterion() -> Criterion<CpuTime> {
    Criterion::default().with_measurement(CpuTime)
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let used = clock_gettime(ClockId::ThreadCPUTime);
        let seconds = u64::try_from(used.tv_sec).expect("time used is not negative");
        Duration::new(seconds, u32::try_from(used.tv_nsec).expect("below a second"))
    }

    fn end(&self, started: Duration) -> Duration {
        self.start() - started
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_secs_f64() * 1e9
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for CpuTime {
    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        let (factor, unit) = match typical {
            t if t < 1e3 => (1.0, "ns CPU"),
            t if t < 1e6 => (1e-3, "µs CPU"),
            _ => (1e-6, "ms CPU"),
        };
        values.iter_mut().for_each(|value| *value *= factor);
        unit
    }

    fn scale_throughputs(&self, typical: f64, throughput: &Throughput, values: &mut [f64]) -> &'static str {
        let (Throughput::Elements(per_turn) | Throughput::Bytes(per_turn)) = *throughput else {
            return self.scale_values(typical, values);
        };
        values.iter_mut().for_each(|value| *value /= per_turn as f64);
        "ns CPU/element"
    }

    fn scale_for_machines(&self, _: &mut [f64]) -> &'static str {
        "ns"
    }
}

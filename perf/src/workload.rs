//! What is asked of a system: one kind of call at one pace, on keys and values of one size.
//!
//! A workload says nothing about who carries it out: the same value is ordered of every system that is compared.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes of a key where nothing else is said.
pub const KEY_BYTES: usize = 16;
/// Bytes of a value where nothing else is said.
pub const VALUE_BYTES: usize = 256;

/// The calls that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Call {
    /// Write one key.
    Put,
    /// Read one key; the answer is at least as new as every write acknowledged before the call.
    GetLinearizable,
    /// The same by a clock: the leader answers without asking, for as long as nobody else can lead.
    GetLease,
    /// Read one key as one node has it. etcd's word is serializable.
    GetEventual,
    /// Reads and writes of one client, chosen one by one; the reads are linearizable.
    Mixed {
        /// How many of a hundred are reads.
        reads: u8,
    },
    /// One writer, and this many watchers that each see every write: an operation is one delivery, its latency begins
    /// before the put is sent.
    Watch {
        /// How many.
        watchers: u32,
    },
}

impl Call {
    /// Whether it writes anything.
    pub fn writes(self) -> bool {
        matches!(self, Self::Put | Self::Mixed { .. } | Self::Watch { .. })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put => f.write_str("put"),
            Self::GetLinearizable => f.write_str("linearizable get"),
            Self::GetLease => f.write_str("lease get"),
            Self::GetEventual => f.write_str("eventual get"),
            Self::Mixed { reads } => write!(f, "{reads}/{} get/put", 100_u8.saturating_sub(*reads)),
            Self::Watch { watchers } => write!(f, "watch 1→{watchers}"),
        }
    }
}

/// When calls begin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Pace {
    /// A new one when an old one is answered.
    Closed {
        /// Calls kept outstanding.
        in_flight: usize,
    },
    /// At fixed times, answered or not; latency counts from the time at which a call was due.
    Open {
        /// Calls due in a second.
        per_second: f64,
        /// Calls that may be outstanding; one that is due beyond that waits, and the wait is part of its latency. One that
        /// is not sent before the slice ends is counted as missed.
        backlog: usize,
    },
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { in_flight } => write!(f, "{in_flight} in flight"),
            Self::Open { per_second, .. } => write!(f, "{per_second:.0}/s offered"),
        }
    }
}

/// Which keys are used how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Distribution {
    /// All alike, in an order without a pattern.
    #[default]
    Uniform,
    /// The k-th most used one is used 1/k^0.99 times as often as the first (YCSB's constant).
    Zipf,
    /// This many keys and no others.
    Hot(u32),
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform keys"),
            Self::Zipf => f.write_str("zipf keys"),
            Self::Hot(keys) => write!(f, "{keys} hot keys"),
        }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Which call.
    pub call: Call,
    /// When calls begin.
    pub pace: Pace,
    /// Bytes of every key.
    pub key_bytes: usize,
    /// Bytes of every value.
    pub value_bytes: usize,
    /// Which keys.
    pub keys: Distribution,
}

impl Workload {
    /// A closed loop on keys and values of the usual size.
    pub fn closed(call: Call, in_flight: usize) -> Self {
        Self {
            call,
            pace: Pace::Closed { in_flight },
            key_bytes: KEY_BYTES,
            value_bytes: VALUE_BYTES,
            keys: Distribution::Uniform,
        }
    }

    /// An open loop on keys and values of the usual size.
    pub fn open(call: Call, per_second: f64, backlog: usize) -> Self {
        Self { pace: Pace::Open { per_second, backlog }, ..Self::closed(call, backlog) }
    }

    /// The same with values of another size.
    pub fn with_values_of(self, value_bytes: usize) -> Self {
        Self { value_bytes, ..self }
    }

    /// The same on other keys.
    pub fn on(self, keys: Distribution) -> Self {
        Self { keys, ..self }
    }

    /// Bytes of a key and its value.
    pub fn payload_bytes(&self) -> usize {
        self.key_bytes + self.value_bytes
    }
}

impl fmt::Display for Workload {
    /// Says what is not usual, and only that.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.call)?;
        match (self.call, self.pace) {
            // Answered on the caller's thread, or one write at a time: nothing can be in flight.
            (Call::Watch { .. }, _) => {}
            (_, pace) => write!(f, ", {pace}")?,
        }
        if (self.key_bytes, self.value_bytes) != (KEY_BYTES, VALUE_BYTES) {
            write!(f, ", {} B keys, {} B values", self.key_bytes, self.value_bytes)?;
        }
        if self.keys != Distribution::Uniform {
            write!(f, ", {}", self.keys)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_is_not_usual() {
        let put = Workload::closed(Call::Put, 1000);
        assert_eq!(put.to_string(), "put, 1000 in flight");
        assert_eq!(put.with_values_of(16).to_string(), "put, 1000 in flight, 16 B keys, 16 B values");
        let mixed = Workload::closed(Call::Mixed { reads: 90 }, 100).on(Distribution::Hot(10));
        assert_eq!(mixed.to_string(), "90/10 get/put, 100 in flight, 10 hot keys");
        assert_eq!(Workload::open(Call::Put, 5e3, 64).to_string(), "put, 5000/s offered");
        assert_eq!(Workload::closed(Call::Watch { watchers: 100 }, 1).to_string(), "watch 1→100");
    }
}

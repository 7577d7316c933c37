//! What is told of a run: a hash over everything that happened, and, if somebody listens, the lines worth reading.

use super::observation::Instant;

/// The run's hash and its lines.
#[derive(Debug)]
pub(super) struct Story {
    hash: u64,
    lines: Option<Vec<String>>,
    tail: usize,
}

/// Whether the lines of a story are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// Only the hash.
    Hash,
    /// The last lines before the end, for a run that fails.
    Tail,
    /// All of them.
    Whole,
}

impl Story {
    pub(super) fn new(telling: Telling) -> Self {
        let tail = if telling == Telling::Tail { 400 } else { usize::MAX };
        Self { hash: 0x9E37_79B9_7F4A_7C15, lines: (telling != Telling::Hash).then(Vec::new), tail }
    }

    /// Takes a number into the hash. Everything that decides how the run goes on belongs here.
    pub(super) fn note(&mut self, number: u64) {
        self.hash = (self.hash.rotate_left(23) ^ number).wrapping_mul(0x2545_F491_4F6C_DD1D);
    }

    /// A line, made only if somebody listens.
    pub(super) fn tell(&mut self, at: Instant, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{at} {}", line()));
            if lines.len() >= self.tail.saturating_mul(2) {
                lines.drain(..self.tail);
            }
        }
    }

    pub(super) fn end(self) -> (u64, Vec<String>) {
        let mut hash = self.hash;
        hash ^= hash >> 29;
        (hash.wrapping_mul(0xBF58_476D_1CE4_E5B9), self.lines.unwrap_or_default())
    }
}

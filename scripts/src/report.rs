//! What a job injected, what it saw, and whether that is what was promised.

use std::fmt;
use std::time::Duration;

/// Measured durations of one kind.
#[derive(Debug, Clone, Default)]
pub struct Distribution(Vec<Duration>);

impl Distribution {
    /// Add one.
    pub fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The largest, zero of none.
    pub fn max(&self) -> Duration {
        self.0.iter().copied().max().unwrap_or_default()
    }

    /// The smallest sample that at least `percent` of all do not exceed (nearest rank).
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        write!(
            f,
            "n={} min={:.1} p50={:.1} p90={:.1} max={:.1} ms",
            self.count(),
            ms(self.percentile(0)),
            ms(self.percentile(50)),
            ms(self.percentile(90)),
            ms(self.max())
        )
    }
}

/// The result of a job: facts in the order they were found, and what contradicts the promises.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Report {
    name: String,
    facts: Vec<(String, String)>,
    violations: Vec<String>,
    skipped: Option<String>,
}

impl Report {
    /// A report with nothing in it yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// A job that could not be done here, and why. It is not a success.
    pub fn skipped(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { name: name.into(), skipped: Some(why.into()), ..Self::default() }
    }

    /// Record what was injected or seen.
    pub fn fact(&mut self, name: impl Into<String>, value: impl fmt::Display) {
        self.facts.push((name.into(), value.to_string()));
    }

    /// Record a broken promise.
    pub fn violation(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    /// Record a broken promise unless `kept`.
    pub fn require(&mut self, kept: bool, what: impl FnOnce() -> String) {
        if !kept {
            self.violations.push(what());
        }
    }

    /// Take over the facts and violations of a part.
    pub fn absorb(&mut self, part: Report) {
        for (name, value) in part.facts {
            self.facts.push((format!("{}: {name}", part.name), value));
        }
        self.violations.extend(part.violations.into_iter().map(|what| format!("{}: {what}", part.name)));
        if let Some(why) = part.skipped {
            self.facts.push((part.name, format!("SKIPPED: {why}")));
        }
    }

    /// What contradicts the promises.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Why nothing was done, if so.
    pub fn why_skipped(&self) -> Option<&str> {
        self.skipped.as_deref()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "== {}", self.name)?;
        if let Some(why) = &self.skipped {
            return writeln!(f, "   !!!! SKIPPED, nothing was shown: {why}");
        }
        for (name, value) in &self.facts {
            writeln!(f, "   {name:44} {value}")?;
        }
        for what in &self.violations {
            writeln!(f, "   VIOLATION: {what}")?;
        }
        let verdict = if self.violations.is_empty() { "kept" } else { "BROKEN" };
        write!(f, "   {:44} {verdict} ({} violations)", "promises", self.violations.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_by_nearest_rank() {
        let mut distribution = Distribution::default();
        assert_eq!(distribution.percentile(50), Duration::ZERO);
        for millis in [40, 10, 30, 20] {
            distribution.add(Duration::from_millis(millis));
        }
        assert_eq!(distribution.percentile(0), Duration::from_millis(10));
        assert_eq!(distribution.percentile(50), Duration::from_millis(20));
        assert_eq!(distribution.percentile(90), Duration::from_millis(40));
        assert_eq!(distribution.to_string(), "n=4 min=10.0 p50=20.0 p90=40.0 max=40.0 ms");
    }
}

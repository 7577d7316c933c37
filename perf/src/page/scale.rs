//! From values to pixels: linear, logarithmic, and the percentile axis on which every nine is as wide as the last.

/// How values become distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Evenly, from zero.
    Linear,
    /// Every factor of ten is as long as any other; nothing at or below zero has a place.
    Log,
    /// The same with ticks at powers of two: for bytes.
    Binary,
    /// A share of a distribution between 0 and 1, at log 1/(1-q): 90, 99 and 99.9 % are evenly apart.
    Percentile,
}

/// A range of values laid over a range of pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    kind: Kind,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    ticks: Vec<f64>,
}

/// Pixels between which a scale lies; `to` may be the smaller one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Where the lowest value goes.
    pub from: f64,
    /// Where the highest value goes.
    pub to: f64,
}

impl Scale {
    /// A scale that all of `values` fit on, with ends that are round numbers. `None` if not one has a place on it.
    pub fn over(kind: Kind, values: impl IntoIterator<Item = f64>, span: Span) -> Option<Self> {
        let usable = |value: &f64| value.is_finite() && kind.has(*value);
        let (low, high) = values
            .into_iter()
            .filter(usable)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return None;
        }
        let (low, high, ticks) = match kind {
            Kind::Linear => linear(low.min(0.0), high),
            Kind::Log => logarithmic(low, high),
            Kind::Binary => binary(low, high),
            Kind::Percentile => percentile(low, high),
        };
        assert!(kind.place(low) < kind.place(high), "a scale has a length");
        Some(Self { kind, low, high, from: span.from, to: span.to, ticks })
    }

    /// An even scale that ends where it is told to, and not at the next round number. `None` if that is no length.
    pub fn between(low: f64, high: f64, span: Span) -> Option<Self> {
        if !(low.is_finite() && high.is_finite() && low < high) {
            return None;
        }
        let (_, _, mut ticks) = linear(low, high);
        ticks.retain(|tick| (low..=high).contains(tick));
        Some(Self { kind: Kind::Linear, low, high, from: span.from, to: span.to, ticks })
    }

    /// Where a value goes; values beyond an end go to the end. `None` where it has no place at all.
    pub fn at(&self, value: f64) -> Option<f64> {
        if !value.is_finite() || !self.kind.has(value) {
            return None;
        }
        let (low, high) = (self.kind.place(self.low), self.kind.place(self.high));
        let share = ((self.kind.place(value) - low) / (high - low)).clamp(0.0, 1.0);
        Some(self.from + share * (self.to - self.from))
    }

    /// Values worth a line and a number.
    pub fn ticks(&self) -> &[f64] {
        &self.ticks
    }

    /// Whether a value lies between the ends.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

impl Kind {
    fn has(self, value: f64) -> bool {
        match self {
            Self::Linear => true,
            Self::Log | Self::Binary => value > 0.0,
            Self::Percentile => (0.0..1.0).contains(&value),
        }
    }

    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log | Self::Binary => value.log10(),
            Self::Percentile => -(1.0 - value).log10(),
        }
    }
}

type Ends = (f64, f64, Vec<f64>);

/// From zero in four to seven round steps.
fn linear(low: f64, high: f64) -> Ends {
    let high = if high > low { high } else { low + 1.0 };
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(10.0 * power);
    let (first, last) = ((low / step).floor(), (high / step - 1e-9).ceil());
    let mut ticks = Vec::new();
    let mut at = first;
    while at <= last && ticks.len() < 16 {
        ticks.push(at * step);
        at += 1.0;
    }
    (first * step, last * step, ticks)
}

/// Whole decades where there are many, and 1-2-5 steps where there are few.
fn logarithmic(low: f64, high: f64) -> Ends {
    const FINE: [f64; 3] = [1.0, 2.0, 5.0];
    let decade = |value: f64| value.log10().floor();
    let few = (high / low).log10() <= 2.0;
    let below = |value: f64| -> f64 {
        let power = 10f64.powf(decade(value));
        let fit = FINE.into_iter().rev().map(|step| step * power).find(|step| *step <= value * 1.0001);
        if few { fit.unwrap_or(power) } else { power }
    };
    let above = |value: f64| -> f64 {
        let power = 10f64.powf(decade(value * 0.9999));
        let fit = FINE.into_iter().map(|step| step * power).find(|step| *step >= value * 0.9999);
        if few {
            fit.unwrap_or(10.0 * power)
        } else {
            fit.filter(|step| *step <= power).unwrap_or(10.0 * power)
        }
    };
    let (mut low, mut high) = (below(low), above(high));
    if high / low < 1.5 {
        // One value, or many that are the same: keep it off the ends.
        (low, high) = (below(low / 1.5), above(high * 1.5));
    }
    let decades = (high / low).log10();
    let every = if decades > 9.0 {
        3.0
    } else if decades > 6.0 {
        2.0
    } else {
        1.0
    };
    let mut ticks = Vec::new();
    let mut power = decade(low * 1.0001);
    while power <= (high * 1.0001).log10() && ticks.len() < 40 {
        let steps: &[f64] = if few { &FINE } else { &[1.0] };
        ticks.extend(
            steps
                .iter()
                .map(|step| step * 10f64.powf(power))
                .filter(|tick| (low * 0.9999..=high * 1.0001).contains(tick)),
        );
        power += every;
    }
    (low, high, ticks)
}

/// Whole powers of two, as many of them as have room.
fn binary(low: f64, high: f64) -> Ends {
    let (mut first, mut last) = ((low * 1.0001).log2().floor(), (high * 0.9999).log2().ceil());
    if last - first < 1.0 {
        (first, last) = (first - 1.0, last + 1.0);
    }
    let every = ((last - first) / 7.0).ceil().max(1.0);
    let mut ticks = Vec::new();
    let mut power = first;
    while power <= last && ticks.len() < 16 {
        ticks.push(power.exp2());
        power += every;
    }
    (first.exp2(), last.exp2(), ticks)
}

/// From the median to the last nine there is.
fn percentile(low: f64, high: f64) -> Ends {
    const TICKS: [f64; 6] = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999];
    let low = TICKS.into_iter().rev().find(|tick| *tick <= low + 1e-9).unwrap_or(0.0);
    let end = TICKS.into_iter().find(|tick| *tick >= high - 1e-9 && *tick > low).unwrap_or(high.max(0.99999));
    let mut ticks: Vec<f64> = TICKS.into_iter().filter(|tick| (low..=end).contains(tick)).collect();
    let mut next = 0.99999;
    while next <= end && ticks.len() < 12 {
        ticks.push(next);
        next = 1.0 - (1.0 - next) / 10.0;
    }
    (low, end, ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span { from: 0.0, to: 100.0 };

    fn scale(kind: Kind, values: &[f64]) -> Scale {
        Scale::over(kind, values.iter().copied(), SPAN).expect("values with a place")
    }

    #[test]
    fn every_nine_is_as_wide_as_the_last() {
        let scale = scale(Kind::Percentile, &[0.5, 0.9999]);
        assert_eq!(scale.ticks(), [0.5, 0.9, 0.99, 0.999, 0.9999]);
        let at = |value| scale.at(value).expect("a place");
        let nine = at(0.99) - at(0.9);
        assert!((at(0.999) - at(0.99) - nine).abs() < 1e-6 && (at(0.9999) - at(0.999) - nine).abs() < 1e-6);
        assert!((at(0.5), at(0.9999)) == (0.0, 100.0));
        assert_eq!(scale.at(1.0), None, "the worst of all has no place on this axis");
    }

    #[test]
    fn decades_where_there_are_many_and_finer_steps_where_there_are_few() {
        assert_eq!(scale(Kind::Log, &[1.0, 8192.0]).ticks(), [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!(scale(Kind::Log, &[100.0, 1000.0]).ticks().len(), 4);
        let wide = scale(Kind::Log, &[1e-9, 1e9]);
        assert!(wide.ticks().len() <= 8, "{:?}", wide.ticks());
    }

    #[test]
    fn bytes_have_ticks_at_powers_of_two() {
        assert_eq!(scale(Kind::Binary, &[16.0, 131_072.0]).ticks()[..3], [16.0, 64.0, 256.0]);
        assert!(scale(Kind::Binary, &[1.0, 1e15]).ticks().len() <= 9);
    }

    #[test]
    fn an_exact_scale_ends_where_it_is_told_to() {
        let scale = Scale::between(-0.3, 0.73, SPAN).expect("a length");
        assert_eq!((scale.at(-0.3), scale.at(0.73)), (Some(0.0), Some(100.0)));
        assert!(scale.ticks().len() >= 3 && scale.ticks().iter().all(|tick| scale.contains(*tick)));
        assert_eq!(Scale::between(1.0, 1.0, SPAN), None);
    }

    #[test]
    fn one_value_zero_and_large_ones_have_a_scale() {
        for kind in [Kind::Linear, Kind::Log, Kind::Binary] {
            for value in [1e-9, 0.3, 1.0, 1e9, 1e15] {
                let scale = scale(kind, &[value]);
                let at = scale.at(value).expect("a place");
                assert!((0.0..=100.0).contains(&at), "{kind:?} {value}: {at}");
                assert!(scale.ticks().len() >= 2, "{kind:?} {value}: {:?}", scale.ticks());
            }
        }
        assert_eq!(scale(Kind::Linear, &[0.0]).at(0.0), Some(0.0));
        assert_eq!(Scale::over(Kind::Log, [0.0, -1.0, f64::NAN], SPAN), None);
        assert_eq!(Scale::over(Kind::Linear, [], SPAN), None);
    }

    #[test]
    fn all_values_lie_between_the_ends() {
        let mut value = 1e-6;
        while value < 1e12 {
            for factor in [1.0, 1.7, 30.0, 2e4] {
                for kind in [Kind::Linear, Kind::Log, Kind::Binary] {
                    let scale = scale(kind, &[value, value * factor]);
                    assert!(
                        scale.low <= value * 1.0001 && scale.high >= value * factor * 0.9998,
                        "{scale:?}"
                    );
                }
            }
            value *= 1.37;
        }
    }
}

//! Numbers as people read them: three digits that mean something, and a unit.

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Things in a second.
    PerSecond,
    /// Time, given in microseconds.
    Micros,
    /// A multiple of something.
    Times,
    /// A part of a whole, given between 0 and 1.
    Share,
    /// Bytes.
    Bytes,
}

/// Keeps a number and its unit on one line.
const SPACE: char = '\u{a0}';

impl Unit {
    /// As in a table or a tooltip.
    pub fn text(self, value: f64) -> String {
        self.with(value, significant)
    }

    /// As beside an axis: no zeros that say nothing.
    pub fn tick(self, value: f64) -> String {
        if value == 0.0 {
            return "0".into();
        }
        self.with(value, |value| trimmed(&significant(value)))
    }

    fn with(self, value: f64, digits: impl Fn(f64) -> String) -> String {
        if !value.is_finite() {
            return "–".into();
        }
        let (value, suffix) = match self {
            Self::Count | Self::PerSecond => scaled(value),
            Self::Micros if value == 0.0 => (0.0, "µs"),
            Self::Micros if value.abs() >= 999.5e3 => (value / 1e6, "s"),
            Self::Micros if value.abs() >= 999.5 => (value / 1e3, "ms"),
            Self::Micros => (value, "µs"),
            Self::Times => return format!("{}{SPACE}×", digits(value)),
            Self::Share => return format!("{}{SPACE}%", digits(value * 100.0)),
            Self::Bytes if value.abs() >= 1024.0 * 1024.0 * 1024.0 => {
                (value / (1024.0 * 1024.0 * 1024.0), "GiB")
            }
            Self::Bytes if value.abs() >= 1024.0 * 1024.0 => (value / (1024.0 * 1024.0), "MiB"),
            Self::Bytes if value.abs() >= 1024.0 => (value / 1024.0, "KiB"),
            Self::Bytes => (value, "B"),
        };
        let number = digits(value);
        let number = match suffix {
            // Nothing comes in parts of a byte.
            "B" => trimmed(&number),
            _ => number,
        };
        let per = if self == Self::PerSecond { "/s" } else { "" };
        match (suffix, per) {
            ("", "") => number,
            (suffix, per) => format!("{number}{SPACE}{suffix}{per}"),
        }
    }
}

/// Thousands from ten of them on; below that the number is as short in full.
fn scaled(value: f64) -> (f64, &'static str) {
    match value.abs() {
        size if size >= 999.5e6 => (value / 1e9, "G"),
        size if size >= 999.5e3 => (value / 1e6, "M"),
        size if size >= 9_999.5 => (value / 1e3, "k"),
        _ => (value, ""),
    }
}

/// Three significant digits; whole numbers below 10,000 in full.
pub fn significant(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if !value.is_finite() => "–".into(),
        0.0 => "0".into(),
        _ if size >= 1e15 => format!("{value:.2e}"),
        _ if size >= 999.5 => grouped(value),
        _ if size >= 99.95 => format!("{value:.0}"),
        _ if size >= 9.995 => format!("{value:.1}"),
        _ if size >= 0.9995 => format!("{value:.2}"),
        _ if size >= 0.09995 => format!("{value:.3}"),
        _ if size >= 0.0009995 => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    }
}

fn trimmed(number: &str) -> String {
    if number.contains('.') && !number.contains('e') {
        number.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        number.to_owned()
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::from(if value < 0.0 { "−" } else { "" });
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// About how wide a text is in pixels, in a sans-serif font of this size: what leaves room rather than what is exact.
pub fn width(text: &str, size: f64) -> f64 {
    let ems: f64 = text
        .chars()
        .map(|letter| match letter {
            'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' | SPACE => 0.32,
            'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '-' | '/' => 0.41,
            'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.90,
            'A'..='Z' | '+' | '=' | '×' | '–' => 0.70,
            _ => 0.61,
        })
        .sum();
    ems * size
}

/// Lines of at most `limit` pixels, broken between words.
pub fn wrap(text: &str, size: f64, limit: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if width(line, size) + width(word, size) + 0.32 * size <= limit => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// As much of a text as fits into `limit` pixels.
pub fn clipped(text: &str, size: f64, limit: f64) -> String {
    if width(text, size) <= limit {
        return text.to_owned();
    }
    let mut out = String::new();
    for letter in text.chars() {
        out.push(letter);
        if width(&out, size) + 0.9 * size > limit {
            break;
        }
    }
    out.trim_end().to_owned() + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(unit: Unit, value: f64, expected: &str) {
        assert_eq!(unit.text(value).replace(SPACE, " "), expected);
    }

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        reads(Unit::Micros, 0.0, "0 µs");
        reads(Unit::Micros, 0.25, "0.250 µs");
        reads(Unit::Micros, 284.4, "284 µs");
        reads(Unit::Micros, 999.7, "1.00 ms");
        reads(Unit::Micros, 150_000.0, "150 ms");
        reads(Unit::Micros, 2.5e6, "2.50 s");
        reads(Unit::PerSecond, 1_232.0, "1,232 /s");
        reads(Unit::PerSecond, 12_400.0, "12.4 k/s");
        reads(Unit::PerSecond, 1e9, "1.00 G/s");
        reads(Unit::Times, 31.26, "31.3 ×");
        reads(Unit::Share, 0.051, "5.10 %");
        reads(Unit::Bytes, 64.0 * 1024.0, "64.0 KiB");
        reads(Unit::Bytes, 16.0, "16 B");
        reads(Unit::Count, f64::NAN, "–");
    }

    #[test]
    fn ticks_say_nothing_twice() {
        let ticks = [1.0, 20.0, 500.0, 1e3, 1e6].map(|value| Unit::Micros.tick(value).replace(SPACE, " "));
        assert_eq!(ticks, ["1 µs", "20 µs", "500 µs", "1 ms", "1 s"]);
        assert_eq!(Unit::PerSecond.tick(1e6).replace(SPACE, " "), "1 M/s");
        assert_eq!(Unit::Count.tick(8192.0), "8,192");
    }

    #[test]
    fn text_is_broken_between_words_and_cut_when_it_must_be() {
        let lines = wrap("one two three four five six", 10.0, 60.0);
        assert!(lines.len() > 1 && lines.iter().all(|line| width(line, 10.0) <= 60.0), "{lines:?}");
        assert_eq!(lines.join(" "), "one two three four five six");
        assert!(clipped("a name that is far too long", 10.0, 60.0).ends_with('…'));
        assert_eq!(clipped("short", 10.0, 60.0), "short");
    }
}

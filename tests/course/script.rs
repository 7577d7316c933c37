//! The form of a script: comments, commands, and under each command what it leads to, indented.

use std::fmt::Write as _;

const INDENT: &str = "    ";

/// A line of a script that is not output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A comment or an empty line, kept as it is.
    Prose(String),
    /// A command with the number of its line and the output expected under it.
    Command { number: usize, text: String, expected: Vec<String> },
}

/// One file.
#[derive(Clone, Debug)]
pub struct Script {
    pub lines: Vec<Line>,
}

impl Script {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = Vec::new();
        for (number, raw) in (1..).zip(text.lines()) {
            let raw = raw.trim_end();
            if let Some(output) = raw.strip_prefix(INDENT) {
                match lines.last_mut() {
                    Some(Line::Command { expected, .. }) => expected.push(output.to_owned()),
                    _ => return Err(format!("{number}: output without a command above it")),
                }
            } else if raw.is_empty() || raw.starts_with('#') {
                lines.push(Line::Prose(raw.to_owned()));
            } else if raw.starts_with(' ') {
                return Err(format!("{number}: a command starts at the margin, output is indented by four"));
            } else {
                lines.push(Line::Command { number, text: raw.to_owned(), expected: Vec::new() });
            }
        }
        Ok(Self { lines })
    }

    /// The first comment line: what the lesson is about.
    pub fn title(&self) -> Result<&str, String> {
        match self.lines.first() {
            Some(Line::Prose(first)) if first.len() > 2 => Ok(first.trim_start_matches('#').trim()),
            _ => Err("1: a script starts with its title as a comment".into()),
        }
    }

    pub fn render(&self) -> String {
        let mut out = String::new();
        for line in &self.lines {
            match line {
                Line::Prose(text) => out.extend([text, "\n"]),
                Line::Command { text, expected, .. } => {
                    out.extend([text, "\n"]);
                    expected.iter().for_each(|line| out.extend([INDENT, line, "\n"]));
                }
            }
        }
        out
    }
}

/// What differs, line by line: `-` was expected, `+` came. Common lines at both ends stand as they are.
pub fn difference(expected: &[String], actual: &[String]) -> String {
    let pairs = || expected.iter().zip(actual);
    let head = pairs().take_while(|(a, b)| a == b).count();
    let shorter = expected.len().min(actual.len()) - head;
    let tail =
        expected.iter().rev().zip(actual.iter().rev()).take(shorter).take_while(|(a, b)| a == b).count();
    let mut out = String::new();
    let mut put = |sign: char, lines: &[String]| {
        for line in lines {
            writeln!(out, "  {sign} {line}").expect("a string takes it");
        }
    };
    put(' ', &expected[..head]);
    put('-', &expected[head..expected.len() - tail]);
    put('+', &actual[head..actual.len() - tail]);
    put(' ', &expected[expected.len() - tail..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_written_as_it_was_read() {
        let text = "# title\n\nnodes 3\n    one\n    two\n# more\nstatus\n";
        assert_eq!(Script::parse(text).expect("valid").render(), text);
    }

    #[test]
    fn output_needs_a_command() {
        assert!(Script::parse("# title\n    output\n").is_err());
        assert!(Script::parse("# title\n  crooked\n").is_err());
    }

    #[test]
    fn a_difference_names_the_lines_that_differ() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(difference(&lines("a b c"), &lines("a x y c")), "    a\n  - b\n  + x\n  + y\n    c\n");
        assert_eq!(difference(&lines("a a"), &lines("a")), "    a\n  - a\n");
    }
}

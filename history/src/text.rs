//! The text form: `client key invoked call -> end`.
//!
//! ```text
//! call = put VALUE | get | cas EXPECTED VALUE
//! end  = unknown | AT refused | AT ok @REVISION | AT saw SEEN @REVISION | AT not-swapped SEEN @REVISION
//! EXPECTED and SEEN are a value or `nothing`; times are ns; `#` begins a comment; empty lines are skipped
//! ```

use crate::{Answer, Call, End, History, Operation, Shown};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// A line that is no operation.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line} is no operation: {text:?}; one is `1 key 10 put 7 -> 20 ok @2`")]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, key, invoked, call, end } = self;
        write!(f, "{client} {key} {invoked} ")?;
        match call {
            Call::Put { value } => write!(f, "put {value} -> ")?,
            Call::Get => f.write_str("get -> ")?,
            Call::CompareAndSwap { expected, value } => write!(f, "cas {} {value} -> ", Shown(*expected))?,
        }
        match end {
            End::Unknown => f.write_str("unknown"),
            End::Refused { at } => write!(f, "{at} refused"),
            End::Answered { at, answer, revision } => {
                match answer {
                    Answer::Done => write!(f, "{at} ok")?,
                    Answer::Saw(seen) => write!(f, "{at} saw {}", Shown(*seen))?,
                    Answer::NotSwapped(seen) => write!(f, "{at} not-swapped {}", Shown(*seen))?,
                }
                write!(f, " @{revision}")
            }
        }
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.operations().iter().try_for_each(|operation| writeln!(f, "{operation}"))
    }
}

impl FromStr for History {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lines =
            text.lines().enumerate().map(|(at, line)| (at + 1, line.split('#').next().unwrap_or("").trim()));
        lines
            .filter(|(_, text)| !text.is_empty())
            .map(|(line, text)| operation(text).ok_or_else(|| ParseError { line, text: text.to_owned() }))
            .collect()
    }
}

fn operation(text: &str) -> Option<Operation> {
    let (asked, ended) = text.split_once("->")?;
    let asked: Vec<_> = asked.split_whitespace().collect();
    let ended: Vec<_> = ended.split_whitespace().collect();
    let [client, key, invoked, ref call @ ..] = asked[..] else { return None };
    let call = match *call {
        ["put", value] => Call::Put { value: number(value)? },
        ["get"] => Call::Get,
        ["cas", expected, value] => Call::CompareAndSwap { expected: seen(expected)?, value: number(value)? },
        _ => return None,
    };
    let answered = |at, answer, revision: &str| {
        let revision = number(revision.strip_prefix('@')?)?;
        Some(End::Answered { at: number(at)?, answer, revision })
    };
    let end = match ended[..] {
        ["unknown"] => End::Unknown,
        [at, "refused"] => End::Refused { at: number(at)? },
        [at, "ok", revision] => answered(at, Answer::Done, revision)?,
        [at, "saw", value, revision] => answered(at, Answer::Saw(seen(value)?), revision)?,
        [at, "not-swapped", value, revision] => answered(at, Answer::NotSwapped(seen(value)?), revision)?,
        _ => return None,
    };
    Some(Operation { client: number(client)?, key: key.to_owned(), invoked: number(invoked)?, call, end })
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn seen(text: &str) -> Option<Option<u64>> {
    if text == "nothing" { Some(None) } else { number(text).map(Some) }
}

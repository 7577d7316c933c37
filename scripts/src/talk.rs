//! The line protocol between a job and the node processes it drives.
//!
//! A line down the node's stdin is `<number> <ask>`, a line up its stdout `<number> <told>`; answers come in any order.
//! Keys and values of the jobs are printable words, so a line is words: it can be typed by hand, and a log of it read.
//! Lines are short of a pipe's 64 KiB times the calls in flight, so a stopped node never blocks the harness.

use std::fmt;
use std::str::{FromStr, SplitAsciiWhitespace};

use crate::stamp::Stamp;

/// What a read promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Confirmed by a majority for this read.
    Linearizable,
    /// Under the leader's lease.
    Lease,
    /// Whatever this node has applied.
    Eventual,
}

/// What a compare-and-swap expects to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// No such key.
    Absent,
    /// This value.
    Value(String),
    /// Last changed at this revision.
    Revision(u64),
}

/// A call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the client API")]
pub enum Ask {
    Put {
        key: String,
        value: String,
    },
    Get {
        key: String,
        level: Level,
    },
    Delete {
        key: String,
    },
    Swap {
        key: String,
        expect: Expect,
        new: String,
    },
    /// Pairs below a prefix, after a key, linearizable.
    Scan {
        prefix: String,
        limit: usize,
    },
    Transfer {
        to: u64,
    },
    /// Puts and deletes, many at a time, on keys below a prefix.
    Fill {
        prefix: String,
        keys: u64,
        count: u64,
    },
    PutTtl {
        key: String,
        value: String,
        ttl_ms: u64,
    },
    /// Events below a prefix ([`EVERYTHING`] for all) from a revision on: as many revisions as there are, at most so many,
    /// after so long a wait at most. The node keeps the watch open under the name.
    Follow {
        name: String,
        prefix: String,
        from: u64,
        most: u64,
        wait_ms: u64,
    },
    /// The same, telling each deletion.
    Deaths {
        name: String,
        prefix: String,
        from: u64,
        wait_ms: u64,
    },
    /// Take a lock, hold it, let go.
    Lock {
        name: String,
        ttl_ms: u64,
        hold_ms: u64,
    },
    Status,
    Stop,
}

/// The prefix of every key, as a word.
pub const EVERYTHING: &str = "*";

/// A key's value and the revision that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The value.
    pub value: String,
    /// The revision of the write.
    pub modified: u64,
}

/// Whether a failed call may have changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It did not and never will.
    None,
    /// Nobody knows.
    Maybe,
}

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Its current term.
    pub term: u64,
    /// Whom it takes for the leader; 0 for nobody.
    pub leader: u64,
    /// Whether it leads.
    pub leads: bool,
    /// The store's revision.
    pub revision: u64,
    /// Index applied.
    pub applied: u64,
    /// Digest of the applied state.
    pub digest: u128,
    /// Connections it turned away.
    pub refused: u64,
    /// Messages of peers that it could not read.
    pub malformed: u64,
    /// Connections it closed because a peer broke the rules.
    pub violations: u64,
    /// Datagrams that belong to no connection.
    pub ignored: u64,
    /// Peers with a connection that is up.
    pub connected: u64,
    /// Flushes of its log.
    pub flushes: u64,
    /// Lease reads served without asking anybody.
    pub lease_reads: u64,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the client API")]
pub enum Told {
    Done {
        revision: u64,
    },
    Deleted {
        revision: u64,
        existed: bool,
    },
    Value {
        revision: u64,
        found: Option<Found>,
    },
    Swapped {
        revision: u64,
    },
    /// A compare-and-swap that found something else.
    Differs {
        revision: u64,
        found: Option<Found>,
    },
    Pairs {
        revision: u64,
        more: bool,
        pairs: Vec<(String, String)>,
    },
    /// Writes acknowledged, and writes that were not.
    Filled {
        acknowledged: u64,
        lost: u64,
    },
    /// What a watch told: the first revision not told yet, revisions, events, and a sum over hashes of them that does not
    /// depend on how they were told.
    Followed {
        next: u64,
        revisions: u64,
        events: u64,
        sum: u64,
    },
    Gone {
        next: u64,
        deaths: Vec<Death>,
    },
    /// A lock was held from a moment to another, as this process saw it.
    Held {
        token: u64,
        from: Stamp,
        until: Stamp,
    },
    Status(Status),
    Failed {
        effect: Effect,
        why: String,
    },
}

/// A key that went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The key.
    pub key: String,
    /// At which revision.
    pub revision: u64,
    /// When this node's watcher was told.
    pub seen: Stamp,
}

/// A line that is not of the protocol.
#[derive(Debug, thiserror::Error)]
#[error("not a line of the harness protocol: {0:?}")]
pub struct NotALine(String);

/// A numbered message as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<T> {
    /// Matches an answer to its call.
    pub number: u64,
    /// The message.
    pub message: T,
}

struct Words<'a>(SplitAsciiWhitespace<'a>);

impl Words<'_> {
    fn word(&mut self) -> Option<&str> {
        self.0.next()
    }

    fn text(&mut self) -> Option<String> {
        self.0.next().map(str::to_owned)
    }

    fn number<N: FromStr>(&mut self) -> Option<N> {
        self.0.next()?.parse().ok()
    }

    fn flag(&mut self) -> Option<bool> {
        Some(self.number::<u8>()? != 0)
    }

    fn found(&mut self) -> Option<Option<Found>> {
        match self.number()? {
            0 => Some(None),
            modified => Some(Some(Found { modified, value: self.text()? })),
        }
    }
}

/// A message that fits into words.
pub trait Message: Sized + fmt::Display {
    #[doc(hidden)]
    fn parse(words: SplitAsciiWhitespace<'_>) -> Option<Self>;
}

impl<T: Message> FromStr for Line<T> {
    type Err = NotALine;
    fn from_str(line: &str) -> Result<Self, NotALine> {
        let mut words = line.split_ascii_whitespace();
        let number = words.next().and_then(|word| word.parse().ok());
        match (number, T::parse(words)) {
            (Some(number), Some(message)) => Ok(Self { number, message }),
            _ => Err(NotALine(line.chars().take(200).collect())),
        }
    }
}

impl<T: Message> fmt::Display for Line<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.message)
    }
}

impl Message for Ask {
    fn parse(words: SplitAsciiWhitespace<'_>) -> Option<Self> {
        let mut words = Words(words);
        Some(match words.word()? {
            "put" => Self::Put { key: words.text()?, value: words.text()? },
            "get" => {
                let level = match words.word()? {
                    "linearizable" => Level::Linearizable,
                    "lease" => Level::Lease,
                    "eventual" => Level::Eventual,
                    _ => return None,
                };
                Self::Get { level, key: words.text()? }
            }
            "delete" => Self::Delete { key: words.text()? },
            "swap" => {
                let expect = match words.word()? {
                    "absent" => Expect::Absent,
                    "value" => Expect::Value(words.text()?),
                    "revision" => Expect::Revision(words.number()?),
                    _ => return None,
                };
                Self::Swap { expect, key: words.text()?, new: words.text()? }
            }
            "scan" => Self::Scan { limit: words.number()?, prefix: words.text()? },
            "transfer" => Self::Transfer { to: words.number()? },
            "fill" => Self::Fill { keys: words.number()?, count: words.number()?, prefix: words.text()? },
            "put-ttl" => Self::PutTtl { ttl_ms: words.number()?, key: words.text()?, value: words.text()? },
            "follow" => Self::Follow {
                name: words.text()?,
                prefix: words.text()?,
                from: words.number()?,
                most: words.number()?,
                wait_ms: words.number()?,
            },
            "deaths" => Self::Deaths {
                name: words.text()?,
                prefix: words.text()?,
                from: words.number()?,
                wait_ms: words.number()?,
            },
            "lock" => Self::Lock { name: words.text()?, ttl_ms: words.number()?, hold_ms: words.number()? },
            "status" => Self::Status,
            "stop" => Self::Stop,
            _ => return None,
        })
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value } => write!(f, "put {key} {value}"),
            Self::Get { key, level: Level::Linearizable } => write!(f, "get linearizable {key}"),
            Self::Get { key, level: Level::Lease } => write!(f, "get lease {key}"),
            Self::Get { key, level: Level::Eventual } => write!(f, "get eventual {key}"),
            Self::Delete { key } => write!(f, "delete {key}"),
            Self::Swap { key, expect: Expect::Absent, new } => write!(f, "swap absent {key} {new}"),
            Self::Swap { key, expect: Expect::Value(value), new } => {
                write!(f, "swap value {value} {key} {new}")
            }
            Self::Swap { key, expect: Expect::Revision(revision), new } => {
                write!(f, "swap revision {revision} {key} {new}")
            }
            Self::Scan { prefix, limit } => write!(f, "scan {limit} {prefix}"),
            Self::Transfer { to } => write!(f, "transfer {to}"),
            Self::Fill { prefix, keys, count } => write!(f, "fill {keys} {count} {prefix}"),
            Self::PutTtl { key, value, ttl_ms } => write!(f, "put-ttl {ttl_ms} {key} {value}"),
            Self::Follow { name, prefix, from, most, wait_ms } => {
                write!(f, "follow {name} {prefix} {from} {most} {wait_ms}")
            }
            Self::Deaths { name, prefix, from, wait_ms } => {
                write!(f, "deaths {name} {prefix} {from} {wait_ms}")
            }
            Self::Lock { name, ttl_ms, hold_ms } => write!(f, "lock {name} {ttl_ms} {hold_ms}"),
            Self::Status => write!(f, "status"),
            Self::Stop => write!(f, "stop"),
        }
    }
}

impl Message for Told {
    fn parse(words: SplitAsciiWhitespace<'_>) -> Option<Self> {
        let mut words = Words(words);
        Some(match words.word()? {
            "done" => Self::Done { revision: words.number()? },
            "deleted" => Self::Deleted { revision: words.number()?, existed: words.flag()? },
            "value" => Self::Value { revision: words.number()?, found: words.found()? },
            "swapped" => Self::Swapped { revision: words.number()? },
            "differs" => Self::Differs { revision: words.number()?, found: words.found()? },
            "pairs" => {
                let (revision, more) = (words.number()?, words.flag()?);
                let mut pairs = Vec::new();
                while let Some(key) = words.text() {
                    pairs.push((key, words.text()?));
                }
                Self::Pairs { revision, more, pairs }
            }
            "status" => Self::Status(Status {
                term: words.number()?,
                leader: words.number()?,
                leads: words.flag()?,
                revision: words.number()?,
                applied: words.number()?,
                digest: words.number()?,
                refused: words.number()?,
                malformed: words.number()?,
                violations: words.number()?,
                ignored: words.number()?,
                connected: words.number()?,
                flushes: words.number()?,
                lease_reads: words.number()?,
            }),
            "filled" => Self::Filled { acknowledged: words.number()?, lost: words.number()? },
            "followed" => Self::Followed {
                next: words.number()?,
                revisions: words.number()?,
                events: words.number()?,
                sum: words.number()?,
            },
            "gone" => {
                let next = words.number()?;
                let mut deaths = Vec::new();
                while let Some(key) = words.text() {
                    let (revision, seen) = (words.number()?, Stamp(words.number()?));
                    deaths.push(Death { key, revision, seen });
                }
                Self::Gone { next, deaths }
            }
            "held" => Self::Held {
                token: words.number()?,
                from: Stamp(words.number()?),
                until: Stamp(words.number()?),
            },
            "failed" => {
                let effect = if words.flag()? { Effect::Maybe } else { Effect::None };
                Self::Failed { effect, why: words.0.collect::<Vec<_>>().join(" ") }
            }
            _ => return None,
        })
    }
}

fn found(found: Option<&Found>) -> impl fmt::Display {
    found.map_or_else(|| "0".to_owned(), |found| format!("{} {}", found.modified, found.value))
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { revision } => write!(f, "done {revision}"),
            Self::Deleted { revision, existed } => write!(f, "deleted {revision} {}", u8::from(*existed)),
            Self::Value { revision, found: value } => write!(f, "value {revision} {}", found(value.as_ref())),
            Self::Swapped { revision } => write!(f, "swapped {revision}"),
            Self::Differs { revision, found: value } => {
                write!(f, "differs {revision} {}", found(value.as_ref()))
            }
            Self::Pairs { revision, more, pairs } => {
                write!(f, "pairs {revision} {}", u8::from(*more))?;
                pairs.iter().try_for_each(|(key, value)| write!(f, " {key} {value}"))
            }
            Self::Status(s) => write!(
                f,
                "status {} {} {} {} {} {} {} {} {} {} {} {} {}",
                s.term,
                s.leader,
                u8::from(s.leads),
                s.revision,
                s.applied,
                s.digest,
                s.refused,
                s.malformed,
                s.violations,
                s.ignored,
                s.connected,
                s.flushes,
                s.lease_reads
            ),
            Self::Filled { acknowledged, lost } => write!(f, "filled {acknowledged} {lost}"),
            Self::Followed { next, revisions, events, sum } => {
                write!(f, "followed {next} {revisions} {events} {sum}")
            }
            Self::Gone { next, deaths } => {
                write!(f, "gone {next}")?;
                deaths
                    .iter()
                    .try_for_each(|Death { key, revision, seen }| write!(f, " {key} {revision} {}", seen.0))
            }
            Self::Held { token, from, until } => write!(f, "held {token} {} {}", from.0, until.0),
            Self::Failed { effect, why } => {
                write!(f, "failed {} {}", u8::from(*effect == Effect::Maybe), why.replace(['\n', '\r'], " "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comes_back<T: Message + PartialEq + fmt::Debug>(message: T) {
        let line = Line { number: 7, message }.to_string();
        assert!(!line.contains('\n'));
        let Line { number, message } = line.parse::<Line<T>>().expect("our own line");
        assert_eq!((number, Line { number, message }.to_string()), (7, line));
    }

    #[test]
    fn every_message_is_a_line_and_comes_back() {
        let key = || "k/1".to_owned();
        let value = || "v-1".to_owned();
        comes_back(Ask::Put { key: key(), value: value() });
        for level in [Level::Linearizable, Level::Lease, Level::Eventual] {
            comes_back(Ask::Get { key: key(), level });
        }
        comes_back(Ask::Delete { key: key() });
        for expect in [Expect::Absent, Expect::Value(value()), Expect::Revision(9)] {
            comes_back(Ask::Swap { key: key(), expect, new: value() });
        }
        comes_back(Ask::Scan { prefix: key(), limit: 3 });
        comes_back(Ask::Transfer { to: 2 });
        comes_back(Ask::Fill { prefix: key(), keys: 9, count: 3 });
        comes_back(Ask::PutTtl { key: key(), value: value(), ttl_ms: 5 });
        let (name, prefix) = (|| "w".to_owned(), || EVERYTHING.to_owned());
        comes_back(Ask::Follow { name: name(), prefix: prefix(), from: 2, most: 7, wait_ms: 30 });
        comes_back(Ask::Deaths { name: name(), prefix: prefix(), from: 2, wait_ms: 30 });
        comes_back(Ask::Lock { name: name(), ttl_ms: 500, hold_ms: 5 });
        comes_back(Ask::Status);
        comes_back(Ask::Stop);

        let there = || Some(Found { value: value(), modified: 3 });
        comes_back(Told::Done { revision: 4 });
        comes_back(Told::Deleted { revision: 4, existed: true });
        comes_back(Told::Value { revision: 4, found: there() });
        comes_back(Told::Value { revision: 4, found: None });
        comes_back(Told::Swapped { revision: 4 });
        comes_back(Told::Differs { revision: 4, found: there() });
        comes_back(Told::Pairs { revision: 4, more: true, pairs: vec![(key(), value())] });
        comes_back(Told::Filled { acknowledged: 3, lost: 1 });
        comes_back(Told::Followed { next: 9, revisions: 7, events: 8, sum: u64::MAX });
        let death = Death { key: key(), revision: 8, seen: Stamp(77) };
        comes_back(Told::Gone { next: 9, deaths: vec![death.clone(), death] });
        comes_back(Told::Held { token: 4, from: Stamp(5), until: Stamp(6) });
        comes_back(Told::Status(Status { term: 2, digest: u128::MAX, ..Status::default() }));
        comes_back(Told::Failed { effect: Effect::Maybe, why: "two\nlines".into() });
    }

    #[test]
    fn other_lines_are_refused() {
        for line in ["", "x", "1", "1 puts a b", "1 put a", "1 get stale a", "1 value 3 4", "a put b c"] {
            assert!(line.parse::<Line<Ask>>().is_err() && line.parse::<Line<Told>>().is_err(), "{line:?}");
        }
    }
}

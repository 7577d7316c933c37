//! A history is what clients saw: which operation began when, ended when, and with which answer. This crate says whether
//! a linearizable store could have answered so.
//!
//! Two judges that share nothing but the history:
//!
//! - [`History::check_by_revision`] believes the revisions in the answers, orders everything by them, replays, and
//!   compares answers and real time. Linear; it judges all keys together.
//! - [`History::check_by_key`] does not look at revisions and searches, key by key, for any order that explains the
//!   answers (Wing and Gong 1993, with Lowe's memory of configurations, 2017).
//!
//! Assumes: every value is written by one operation only (so an observation names its write), keys begin absent, and
//! all clocks are one clock. An operation without an answer is *unknown*: it may have taken effect at any time after it
//! was invoked, or never; it stays open until somebody sees its value. Operations that end in the nanosecond in which
//! another begins overlap it.
//!
//! Not here: running clients, deletes, and reads that promise less than linearizability.
//!
//! Histories are text, one operation a line, so that processes can leave them in files and tests can be read:
//!
//! ```
//! use history::History;
//!
//! let history: History = "
//!     1 k 10 put 7        -> 20 ok @2
//!     2 k 15 get          -> 30 saw 7 @2
//!     3 k 25 cas 7 8      -> unknown
//!     1 k 40 get          -> 50 saw 8 @3
//!     2 k 60 cas 7 9      -> 70 not-swapped 8 @3
//!     3 k 80 put 10       -> 90 refused
//! ".parse().expect("well formed");
//! history.check().expect("linearizable");
//!
//! let stale: History = "
//!     1 k 10 put 7 -> 20 ok @2
//!     2 k 30 get   -> 40 saw nothing @1
//! ".parse().expect("well formed");
//! assert!(stale.check_by_key().is_err() && stale.check_by_revision().is_err());
//! ```

mod key;
mod revision;
#[cfg(test)]
mod tests;
mod text;

pub use text::ParseError;

use std::collections::BTreeMap;
use std::fmt;

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked. A client asks one thing at a time, until an answer stays out.
    pub client: u64,
    /// What was asked about: no white space.
    pub key: String,
    /// When the client began, in ns of the clock of all clients.
    pub invoked: u64,
    /// What was asked.
    pub call: Call,
    /// How it ended.
    pub end: End,
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Set the value, whatever it was.
    Put {
        /// The new value.
        value: u64,
    },
    /// Read it.
    Get,
    /// Set the value if it is as expected.
    CompareAndSwap {
        /// What must be there; `None` for nothing.
        expected: Option<u64>,
        /// The new value.
        value: u64,
    },
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With an answer.
    Answered {
        /// When the client had it, in ns.
        at: u64,
        /// What it said.
        answer: Answer,
        /// The revision in it.
        revision: u64,
    },
    /// With an error that promises that nothing happened and nothing will.
    Refused {
        /// When the client had it, in ns.
        at: u64,
    },
    /// Without an answer, or with one that leaves open what happened.
    Unknown,
}

/// What an answer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The put or the swap is done; the revision is its own.
    Done,
    /// The get found this; the revision is the store's at that moment.
    Saw(Option<u64>),
    /// The compare-and-swap changed nothing because it found this; the revision is the store's at that moment.
    NotSwapped(Option<u64>),
}

impl Operation {
    /// When the client knew how it ended.
    #[must_use]
    pub fn returned(&self) -> Option<u64> {
        match self.end {
            End::Answered { at, .. } | End::Refused { at } => Some(at),
            End::Unknown => None,
        }
    }

    /// The value it writes if it takes effect.
    #[must_use]
    pub fn writes(&self) -> Option<u64> {
        match self.call {
            Call::Put { value } | Call::CompareAndSwap { value, .. } => Some(value),
            Call::Get => None,
        }
    }

    /// What it is known to have found under its key: an answered read, a failed compare, or a compare that held.
    fn observed(&self) -> Option<Option<u64>> {
        match (self.call, self.end) {
            (_, End::Answered { answer: Answer::Saw(seen) | Answer::NotSwapped(seen), .. }) => Some(seen),
            (Call::CompareAndSwap { expected, .. }, End::Answered { answer: Answer::Done, .. }) => {
                Some(expected)
            }
            _ => None,
        }
    }

    /// Whether its answer says that it wrote.
    fn wrote(&self) -> bool {
        matches!(self.end, End::Answered { answer: Answer::Done, .. })
    }
}

/// What a set of clients saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
}

/// What was judged, when nothing was wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Operations.
    pub operations: usize,
    /// Keys.
    pub keys: usize,
    /// Operations whose end nobody knows.
    pub unknown: usize,
    /// Unknown ones that somebody saw the effect of.
    pub took_effect: usize,
}

/// Operations that no linearizable store can have answered so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key they are about. Of an order across keys, the last one's.
    pub key: String,
    /// As few operations as show it, in the order in which they were invoked.
    pub operations: Vec<Operation>,
    /// Why they cannot be.
    pub why: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}: {}", self.key, self.why)?;
        self.operations.iter().try_for_each(|operation| write!(f, "\n    {operation}"))
    }
}

impl std::error::Error for Violation {}

impl FromIterator<Operation> for History {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Self {
        let mut history = Self { operations: operations.into_iter().collect() };
        history.operations.sort_by_key(|operation| operation.invoked);
        history
    }
}

impl History {
    /// The operations in the order in which they were invoked.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Both judges.
    ///
    /// # Errors
    /// The first violation found.
    pub fn check(&self) -> Result<Judged, Violation> {
        self.check_by_revision()?;
        self.check_by_key()
    }

    /// Judges by the revisions in the answers: they must be one order of all operations that explains every answer and
    /// never contradicts real time.
    ///
    /// # Errors
    /// The first operation, in that order, that does not fit, with those it contradicts.
    pub fn check_by_revision(&self) -> Result<Judged, Violation> {
        let keys = self.by_key();
        keys.values().try_for_each(|operations| possible(operations))?;
        let took_effect = revision::check(&self.operations, &keys)?;
        Ok(self.judged(keys.len(), took_effect))
    }

    /// Judges every key by itself, without looking at revisions: some order must explain every answer and respect real
    /// time.
    ///
    /// # Errors
    /// For the first key without such an order, a smallest set of its operations that has none either: without any one
    /// of them there would be an order.
    pub fn check_by_key(&self) -> Result<Judged, Violation> {
        let keys = self.by_key();
        let mut took_effect = 0;
        for operations in keys.values() {
            possible(operations)?;
            took_effect += key::check(operations)?;
        }
        Ok(self.judged(keys.len(), took_effect))
    }

    fn judged(&self, keys: usize, took_effect: usize) -> Judged {
        let unknown = self.operations.iter().filter(|operation| operation.end == End::Unknown).count();
        Judged { operations: self.operations.len(), keys, unknown, took_effect }
    }

    fn by_key(&self) -> BTreeMap<&str, Vec<&Operation>> {
        let mut keys: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for operation in &self.operations {
            keys.entry(operation.key.as_str()).or_default().push(operation);
        }
        keys
    }
}

fn violation(operations: &[&Operation], why: String) -> Violation {
    let key = operations.last().map_or(String::new(), |operation| operation.key.clone());
    let mut operations: Vec<_> = operations.iter().map(|&operation| operation.clone()).collect();
    operations.sort_by_key(|operation| operation.invoked);
    Violation { key, operations, why }
}

/// A value as the text form has it.
struct Shown(Option<u64>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("nothing"),
        }
    }
}

/// The operation that writes each value of a key.
type Writers<'a> = BTreeMap<u64, &'a Operation>;

fn writers<'a>(operations: &[&'a Operation]) -> Writers<'a> {
    operations.iter().filter_map(|operation| Some((operation.writes()?, *operation))).collect()
}

/// What needs no order to be impossible: answers that do not fit their calls, and values that nobody can have written.
fn possible(operations: &[&Operation]) -> Result<(), Violation> {
    let mut writers = Writers::new();
    for operation in operations {
        if let Some(value) = operation.writes()
            && let Some(other) = writers.insert(value, operation)
        {
            let why = format!("{value} is written twice: the judges need every value to have one writer");
            return Err(violation(&[other, operation], why));
        }
    }
    for &operation in operations {
        if operation.returned().is_some_and(|at| at < operation.invoked) {
            return Err(violation(&[operation], "it ended before it began".to_owned()));
        }
        if let End::Answered { answer, .. } = operation.end {
            let fits = matches!(
                (operation.call, answer),
                (Call::Put { .. }, Answer::Done)
                    | (Call::Get, Answer::Saw(_))
                    | (Call::CompareAndSwap { .. }, Answer::Done | Answer::NotSwapped(_))
            );
            if !fits {
                return Err(violation(&[operation], "the answer is none to this call".to_owned()));
            }
        }
        if let Call::CompareAndSwap { expected, .. } = operation.call
            && let End::Answered { answer: Answer::NotSwapped(seen), .. } = operation.end
            && expected == seen
        {
            let why = format!("it found the {} that it expected, and did not swap", Shown(seen));
            return Err(violation(&[operation], why));
        }
        let Some(Some(seen)) = operation.observed() else { continue };
        let Some(&writer) = writers.get(&seen) else {
            return Err(violation(&[operation], format!("it saw {seen}, which nobody wrote")));
        };
        if matches!(writer.end, End::Refused { .. } | End::Answered { answer: Answer::NotSwapped(_), .. }) {
            let why = format!("{seen} was seen, and its writer was told that it had no effect");
            return Err(violation(&[writer, operation], why));
        }
        if operation.returned().is_some_and(|at| at < writer.invoked) {
            return Err(violation(&[writer, operation], format!("{seen} was seen before it was written")));
        }
    }
    Ok(())
}

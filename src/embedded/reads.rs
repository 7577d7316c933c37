//! The linearizable reads of a pipeline, many to a question.
//!
//! Whether a state may be read is asked once for all reads that begin before the loop takes the question. A read may join
//! as long as the question is [open](Question): the loop closes it first and finds out only then what must be included
//! (ReadIndex, thesis 6.4), so whatever was acknowledged before a read began is.

use crate::kv::Key;
use crate::runtime::shared::Question;
use std::sync::Arc;

/// Reads that one question may stand for. Bounds what an answer leads to at once.
const READS: usize = 4096;

/// The reads of one question, by their numbers.
pub(super) type Group = Vec<(u64, Key)>;

/// The reads in flight.
#[derive(Default)]
pub(super) struct Reads {
    groups: Vec<(Arc<Question>, Group)>,
    free: Vec<usize>,
    /// The group that the last question was asked for.
    last: Option<usize>,
}

/// How a read is put on its way.
pub(super) enum Place {
    /// It has joined others.
    Joined,
    /// Ask this; its answer comes with this token. [`Reads::take`] takes it back.
    Ask { token: u64, question: Arc<Question> },
}

impl Reads {
    /// Set in the token of a question, never in an operation's number.
    pub const TOKEN: u64 = 1 << 63;

    /// A read that begins now.
    pub fn place(&mut self, number: u64, key: Key) -> Place {
        if let Some(last) = self.last {
            let (question, group) = &mut self.groups[last];
            if group.len() < READS && question.is_open() {
                group.push((number, key));
                return Place::Joined;
            }
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.groups.push(Default::default());
            self.groups.len() - 1
        });
        let (question, group) = &mut self.groups[index];
        question.open();
        group.push((number, key));
        self.last = Some(index);
        Place::Ask { token: Self::TOKEN | index as u64, question: Arc::clone(question) }
    }

    /// The reads whose question is answered; `None` for the token of another operation. Give them
    /// [back](Self::give_back) empty.
    pub fn take(&mut self, token: u64) -> Option<Group> {
        let index = Self::index(token)?;
        if self.last == Some(index) {
            // One that was never taken by the loop may be open still.
            self.last = None;
        }
        Some(std::mem::take(&mut self.groups[index].1))
    }

    /// The memory of a group, to be used again.
    pub fn give_back(&mut self, token: u64, mut group: Group) {
        group.clear();
        let index = Self::index(token).expect("it was taken by this token");
        self.groups[index].1 = group;
        self.free.push(index);
    }

    fn index(token: u64) -> Option<usize> {
        (token & Self::TOKEN != 0).then(|| usize::try_from(token & !Self::TOKEN).expect("it was an index"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(reads: &mut Reads, number: u64) -> Option<(u64, Arc<Question>)> {
        match reads.place(number, Key::from(&b"k"[..])) {
            Place::Joined => None,
            Place::Ask { token, question } => Some((token, question)),
        }
    }

    fn numbers(reads: &mut Reads, token: u64) -> Vec<u64> {
        let group = reads.take(token).expect("a question's token");
        let numbers = group.iter().map(|&(number, _)| number).collect();
        reads.give_back(token, group);
        numbers
    }

    #[test]
    fn a_read_joins_an_open_question_and_never_a_closed_one() {
        let mut reads = Reads::default();
        let (first, question) = place(&mut reads, 0).expect("the first read asks");
        assert!(place(&mut reads, 1).is_none());
        question.close();
        let (second, _) =
            place(&mut reads, 2).expect("the loop may know already what the first question includes");
        assert!(place(&mut reads, 3).is_none());
        assert_eq!(numbers(&mut reads, first), [0, 1]);
        assert!(place(&mut reads, 4).is_none(), "the second question is open");
        assert_eq!(numbers(&mut reads, second), [2, 3, 4]);
        assert!(reads.take(7).is_none());
    }

    #[test]
    fn an_answered_question_is_joined_by_nobody() {
        let mut reads = Reads::default();
        let (first, _) = place(&mut reads, 0).expect("the first read asks");
        // A loop that ends answers what it never took.
        assert_eq!(numbers(&mut reads, first), [0]);
        assert!(place(&mut reads, 1).is_some());
    }

    #[test]
    fn a_question_stands_for_so_many_reads_and_no_more() {
        let mut reads = Reads::default();
        let questions = (0..=READS as u64).filter_map(|number| place(&mut reads, number)).count();
        assert_eq!(questions, 2);
    }
}

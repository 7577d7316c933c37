//! Rare situations that a search worth its name has been in: an empty search must not pass for a clean one.

use super::local::{Event, Local, NODES};
use super::tables::{Facts, History, Lane, Tables, What};
use crate::raft::RoleName;
use std::fmt;

macro_rules! marks {
    ($($name:ident: $text:literal,)*) => {
        /// A situation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Mark {
            $(#[doc = $text] $name,)*
        }

        impl Mark {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What it is.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

marks! {
    SecondTerm: "a leader in term 2",
    ThirdTerm: "a leader in term 3",
    FourthTerm: "a leader in term 4",
    TwoLeaders: "two nodes that lead at once, in different terms",
    OneDecided: "a command decided",
    TwoDecided: "two commands decided",
    ThreeDecided: "three commands decided",
    ThreeProposedInThreeTerms: "three commands proposed, and three terms led",
    Truncation: "entries truncated by a later leader",
    DurableTruncation: "entries truncated that were on the disk",
    Rejection: "an append rejected and the leader's back-tracking",
    Figure8: "an old entry on a majority's disks, undecided, under a later leader (figure 3.7)",
    LostEntries: "a crash that lost entries",
    LostTerm: "a crash that lost a term or a vote",
    CrashedLeader: "a crash of a leader",
    DecidedWithoutOwnDisk: "a leader whose disk hangs decides by the others' disks",
}

/// The situations that were met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(u32);

impl Marks {
    /// Whether it was met.
    #[must_use]
    pub fn has(self, mark: Mark) -> bool {
        self.0 & 1 << mark as u32 != 0
    }

    fn set(&mut self, mark: Mark, when: bool) {
        self.0 |= u32::from(when) << mark as u32;
    }

    pub(super) fn note_step(&mut self, before: &Local, after: &Local, what: What, tables: &Tables) {
        let crashed = what == What::Event(Event::Crashes);
        let truncated = !crashed
            && (after.log.len() < before.log.len() || after.log[..before.log.len()] != before.log[..]);
        self.set(Mark::Truncation, truncated);
        if truncated {
            let kept = before.log.iter().zip(&after.log).take_while(|(ours, theirs)| ours == theirs).count();
            self.set(Mark::DurableTruncation, before.disk.holds(before.log[kept]));
        }
        if crashed {
            self.set(Mark::LostEntries, after.log.len() < before.log.len());
            self.set(Mark::LostTerm, after.raft.hard_states().0 != before.raft.hard_states().0);
            self.set(Mark::CrashedLeader, before.raft.role() == RoleName::Leader);
        }
        let decides = after.raft.role() == RoleName::Leader && after.raft.commit() > before.raft.commit();
        self.set(Mark::DecidedWithoutOwnDisk, decides && after.raft.commit() > after.raft.log().durable());
        if let What::Hears(message) = what {
            let parcel = tables.parcel(message);
            let rejection = parcel.lane == Lane::Appended && parcel.accepted.is_none();
            let leads = after.raft.role() == RoleName::Leader && after.raft.term() == parcel.term;
            self.set(Mark::Rejection, rejection && leads);
        }
    }

    pub(super) fn note_state(
        &mut self,
        facts: &[&Facts; NODES],
        decided: &History,
        proposals: u8,
        tables: &Tables,
    ) {
        let mut leading = 0;
        for leader in facts.iter().filter(|facts| facts.role == RoleName::Leader) {
            leading += 1;
            let term = leader.term;
            self.set(Mark::SecondTerm, term.0 == 2);
            self.set(Mark::ThirdTerm, term.0 == 3);
            self.set(Mark::FourthTerm, term.0 == 4);
            self.set(Mark::ThreeProposedInThreeTerms, term.0 == 3 && proposals == 3);
            let log = &tables.history(leader.log).entries;
            let mut old = log.iter().skip(decided.entries.len()).take_while(|entry| entry.term < term);
            self.set(Mark::Figure8, old.any(|&entry| tables.disks_with(facts, entry) * 2 > NODES));
        }
        self.set(Mark::TwoLeaders, leading > 1);
        self.set(Mark::OneDecided, decided.commands >= 1);
        self.set(Mark::TwoDecided, decided.commands >= 2);
        self.set(Mark::ThreeDecided, decided.commands >= 3);
    }

    pub(super) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &mark in Mark::ALL {
            writeln!(f, "  {} {}", if self.has(mark) { "met  " } else { "never" }, mark.text())?;
        }
        Ok(())
    }
}

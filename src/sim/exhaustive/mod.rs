//! Every interleaving of a small cluster, with the real core in it ([`crate::raft::Raft`], not a model of it).
//!
//! A breadth-first search from the founding of three nodes. At each world it tries everything that can happen: an
//! election timer fires, a message arrives, a client proposes, a disk hangs, the power is cut. It stops at the first
//! world in which a property does not hold, and because it is breadth-first, no shorter way leads to one. When it ends by
//! itself, every world within the scope was seen.
//!
//! # What is true in every world
//!
//! One leader a term; logs that agree on an entry's term agree on its bytes and all before it (chained hash); what was
//! ever decided by any node stays decided, is in the log of every later leader and on a majority's *disks*; no assertion
//! of the core fails and it never stops itself. [`Mark`]s say which rare situations were met.
//!
//! # What happens
//!
//! | what | how |
//! |---|---|
//! | time | Timers fire by name, at any time ([`crate::raft::untimed`]). Promises to a leader, which forbid votes for a while, are never kept: every run with promises is one without, so the search covers all of both. Leases and reads are not covered: they need clocks (`d-engine-sim`) |
//! | pre-vote | A peer's consent is made up whenever a node's timer fires: it binds nobody and could come from any time. So every election that pre-vote would allow happens, and more |
//! | refusals | Not messages: any node may hear at any time of a term that another has on disk, which is all a refusal does |
//! | network | Messages wait until they are received, in any order between channels; never receiving one is losing it. [`Scope::repeats`]: received messages may be received again and again. [`Scope::only_newest`]: a channel (from, to, kind) keeps only its newest message, the older one is lost if it has not arrived by then |
//! | signs of life | Once something is decided in its term, a leader's newest commit index is always on the way to both peers |
//! | disk | [`Flush`]; a crash loses exactly what is not flushed |
//! | turns | One input each |
//!
//! # Why the reductions lose nothing
//!
//! **Names.** Nodes are alike, so worlds that differ only in who is who have the same futures. A world is known by the
//! least of its six hashes, one for each naming. Frames hold no identity but the founders', who are named together.
//!
//! **Steps run once.** A step depends on the state of one node and its input, so the core runs once for each such pair
//! (`tables`), however many worlds the pair occurs in. The core is a function of its inputs; that is all this needs.
//!
//! **The newest message only.** Let a channel hold `m`, and let its sender now send `m'`. A run that receives `m` *after*
//! `m'` was sent, but before receiving `m'`, can be rearranged: receiving `m` touches only the receiver, sending `m'` only
//! the sender, so the two steps swap unless something the receiver did before receiving `m` depends on `m'` having been sent,
//! by another channel. What is lost are therefore the runs in which news of the sender's later state overtakes `m`
//! on another way (the heartbeat with a higher commit index before the older append, say, or `m'` itself before `m`).
//! Those are searched with the switch off, in smaller scopes.
//!
//! **Flushes.** [`Flush::UntilItHangs`]: without a crash a late flush only delays the messages that wait for it, and messages
//! may be late anyway. With a crash, what matters is which writes are lost, and since flushes are in order those are all
//! from some point on. So disks flush at once, until one hangs at any point, works on without flushing and crashes. What
//! this leaves out is how the core behaves while a flush is on the way that does arrive (an entry truncated meanwhile).
//! [`Flush::AnyTime`] has it, in smaller scopes.
//!
//! **Dead messages.** One that does nothing now, as the core itself says, and can do nothing later because of the term and
//! vote that its receiver has *on disk* (which no crash takes back), is taken away.

mod local;
mod marks;
mod search;
mod story;
mod tables;
mod visited;
mod world;

pub use local::Flush;
pub use marks::{Mark, Marks};
pub use search::{Ending, Report, search};

use std::fmt;

/// How far a search goes. All scopes have three nodes.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Nodes stand for election up to this term; at most five.
    pub terms: u64,
    /// Commands that clients propose, in all.
    pub commands: u8,
    /// Crashes, in all.
    pub crashes: u8,
    /// When writes are flushed.
    pub flush: Flush,
    /// A channel keeps its newest message only.
    pub only_newest: bool,
    /// Messages may be received again.
    pub repeats: bool,
    /// Appends carry one entry each, not all there are.
    pub one_entry_per_append: bool,
    /// Leaders may take appends for lost and send them again.
    pub sending_again: bool,
    /// Election timers may fire without a pre-vote being won.
    pub waiting: bool,
    /// Leaders tell what is decided at once, not with the next append only.
    pub heartbeats: bool,
    /// Nodes hear of later terms by refusals.
    pub refusals: bool,
    /// Bytes for the set of visited worlds.
    pub memory: usize,
    /// Situations that must be met for the search to count.
    pub required: Vec<Mark>,
}

impl Scope {
    /// The least that has everything in it.
    const BASE: Self = Self {
        terms: 3,
        commands: 3,
        crashes: 1,
        flush: Flush::UntilItHangs,
        only_newest: true,
        repeats: true,
        one_entry_per_append: false,
        sending_again: false,
        waiting: false,
        heartbeats: false,
        refusals: true,
        memory: 2 << 30,
        required: Vec::new(),
    };

    /// The scopes with a name.
    #[must_use]
    pub fn all() -> Vec<(&'static str, Self)> {
        let small = Self { memory: 64 << 20, ..Self::BASE };
        let crash = vec![Mark::SecondTerm, Mark::TwoLeaders, Mark::LostTerm, Mark::CrashedLeader];
        let ci = Self {
            terms: 2,
            commands: 1,
            required: [
                crash.as_slice(),
                &[Mark::OneDecided, Mark::Truncation, Mark::DurableTruncation, Mark::Rejection],
                &[Mark::Figure8, Mark::LostEntries, Mark::DecidedWithoutOwnDisk],
            ]
            .concat(),
            ..small.clone()
        };
        let terms = Self {
            commands: 1,
            crashes: 0,
            required: vec![
                Mark::ThirdTerm,
                Mark::TwoLeaders,
                Mark::OneDecided,
                Mark::Truncation,
                Mark::Figure8,
            ],
            ..small.clone()
        };
        let figure8 = Self { one_entry_per_append: true, ..terms.clone() };
        let network = Self {
            only_newest: false,
            heartbeats: true,
            crashes: 0,
            required: vec![Mark::Truncation],
            ..ci.clone()
        };
        let flush = Self {
            flush: Flush::AnyTime,
            repeats: false,
            commands: 0,
            crashes: 0,
            required: vec![Mark::SecondTerm, Mark::Truncation],
            ..ci.clone()
        };
        let full = Self {
            memory: 2 << 30,
            required: [
                ci.required.as_slice(),
                &[Mark::ThirdTerm, Mark::ThreeDecided, Mark::ThreeProposedInThreeTerms],
            ]
            .concat(),
            ..Self::BASE
        };
        vec![
            ("ci", ci),
            ("terms", terms),
            ("figure8", figure8),
            ("network", network),
            ("flush", flush),
            ("full", full),
        ]
    }

    /// The scope of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find_map(|(known, scope)| (known == name).then_some(scope))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { terms, commands, crashes, flush, .. } = self;
        write!(f, "3 nodes, {terms} terms, {commands} commands, {crashes} crashes; ")?;
        f.write_str(match flush {
            Flush::UntilItHangs => "disks flush at once until they hang",
            Flush::AnyTime => "writes are flushed at any time",
        })?;
        f.write_str(if self.only_newest {
            "; channels keep the newest message"
        } else {
            "; channels keep all"
        })?;
        for (on, text) in [
            (self.repeats, "messages repeat"),
            (self.one_entry_per_append, "one entry per append"),
            (self.sending_again, "appends are sent again"),
            (self.waiting, "pre-votes are lost"),
            (self.heartbeats, "heartbeats"),
            (self.refusals, "refusals"),
        ] {
            if on {
                write!(f, "; {text}")?;
            }
        }
        Ok(())
    }
}

//! How much was judged: what a table of a campaign is made of.

use super::sometimes::Marks;

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What was judged, in one run or many.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Verdicts {
            $($(#[$doc])* pub $name: u64,)+
            /// From the end of the faults to a leader, in nanoseconds of the world; of many runs the longest.
            pub leader_after: Option<u64>,
            /// Rare branches reached.
            pub marks: Marks,
        }

        impl Verdicts {
            /// Adds another run's.
            pub fn merge(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
                self.leader_after = self.leader_after.max(other.leader_after);
                self.marks.merge(&other.marks);
            }

            /// The numbers with their names.
            pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),+].into_iter()
            }
        }
    };
}

counts! {
    /// Observations heard.
    observations,
    /// Observations in which a node had changed.
    changes,
    /// Messages tapped.
    messages,
    /// Terms that had a leader.
    leaders,
    /// Different entries seen in logs and messages.
    entries,
    /// Entries decided.
    decided,
    /// States of replicas compared at an index.
    compared,
    /// Entries decided whose content no judge saw: from the first on answers are not replayed.
    blind,
    /// Recoveries judged against the disk's truth.
    recoveries,
    /// Of those, damaged ones.
    damaged,
    /// Calls made.
    operations,
    /// Writes acknowledged and found in the ledger.
    writes,
    /// Linearizable reads judged.
    linearizable_reads,
    /// Reads by lease judged.
    lease_reads,
    /// Eventual reads judged.
    eventual_reads,
    /// Pages and histories read and judged.
    ranges,
    /// Events told to watchers and judged.
    watched,
    /// Leases that expired.
    expired,
    /// Calls told that nothing happened, and held to it.
    refused,
    /// Calls whose clients never knew.
    unknown,
    /// Keys searched for an order.
    searched_keys,
    /// Their calls.
    searched_operations,
    /// Keys left out of the search: deleted ones, and those with too many calls or clients.
    skipped_keys,
}

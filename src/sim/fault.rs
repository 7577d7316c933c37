//! Everything that can go wrong, by name.

use std::fmt;

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A kind of fault that the nemesis brings about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault { $($(#[$doc])* $variant,)* }

        impl Fault {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name, in words with hyphens.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

faults! {
    /// Messages are lost.
    Loss = "loss",
    /// Messages arrive twice.
    Duplicate = "duplicate",
    /// An old message of the same connection arrives again, long after.
    Replay = "replay",
    /// Messages overtake each other by much.
    Reorder = "reorder",
    /// Some lines are slow.
    SlowLine = "slow-line",
    /// A connection is lost with what is on it, and made again.
    Reset = "reset",
    /// The members fall into groups that don't hear each other.
    Partition = "partition",
    /// One member is cut off.
    Isolate = "isolate",
    /// The leader is cut off, with the clients that sit at it; in runs with wild clocks the others' clocks leap as well.
    IsolateLeader = "isolate-leader",
    /// One line carries in one direction only.
    OneWay = "one-way",
    /// Each member hears its neighbours only: majorities that overlap in a ring.
    Ring = "ring",
    /// Two groups that hear each other through one member only.
    Bridge = "bridge",
    /// A process dies.
    Kill = "kill",
    /// A follower's process dies and is there again at once.
    Flicker = "flicker",
    /// A process dies between two effects of one turn.
    KillAtEffect = "kill-at-effect",
    /// The next node that is elected dies, stands still or is cut off soon after.
    StrikeNewLeader = "strike-new-leader",
    /// A machine loses power: what was not flushed is there in part.
    PowerCut = "power-cut",
    /// All machines lose power at once.
    PowerCutAll = "power-cut-all",
    /// A process dies again and again, soon after each start.
    CrashLoop = "crash-loop",
    /// A node is asked to stop, and started again later.
    Close = "close",
    /// A process stands still for a while.
    Pause = "pause",
    /// The leader stands still until about when its lease ends.
    LeaseEdge = "lease-edge",
    /// Clock rates differ, within the bound.
    Drift = "drift",
    /// The wall clock is set.
    WallJump = "wall-jump",
    /// A monotonic clock leaps, outside of every bound.
    ClockLeap = "clock-leap",
    /// A monotonic clock stands still, outside of every bound.
    ClockFreeze = "clock-freeze",
    /// A write fails.
    WriteError = "write-error",
    /// A flush fails.
    FlushError = "flush-error",
    /// A read of old entries fails.
    ReadError = "read-error",
    /// Flushes take long.
    SlowFlush = "slow-flush",
    /// A flush does not return for a long time.
    HungFlush = "hung-flush",
    /// A bit of something durable turns over.
    Flip = "flip",
    /// Something durable reads as zeros.
    Zero = "zero",
    /// Something durable is as it was before its last write.
    Stale = "stale",
    /// Something durable was overwritten with what belongs elsewhere.
    Misdirect = "misdirect",
    /// A member says, under its own name, what no member can say: indices and terms that are not.
    Contradict = "contradict",
    /// A leader is asked to hand over.
    Transfer = "transfer",
    /// A node goes at another pace from now on: larger or smaller batches, more or less on its way.
    Retune = "retune",
    /// A follower that misses its leader is told that the leader's process is gone, which is not true.
    FalseHint = "false-hint",
    /// Members are configured with different heartbeats, some with another after a restart.
    MixedHeartbeats = "mixed-heartbeats",
}

impl Fault {
    /// The kind with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|fault| fault.name() == name)
    }

    pub(super) fn is_damage(self) -> bool {
        matches!(self, Self::Flip | Self::Zero | Self::Stale | Self::Misdirect)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each was injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected([u64; Fault::ALL.len()]);

impl Default for Injected {
    fn default() -> Self {
        Self([0; Fault::ALL.len()])
    }
}

impl Injected {
    pub(super) fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// How often.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (mine, others) in self.0.iter_mut().zip(other.0) {
            *mine += others;
        }
    }
}

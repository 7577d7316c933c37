//! Locks, elections and registries, made of leases, transactions and watches.
//!
//! Each is a few keys under a name of the caller's choice, attached to leases that a [`Keeper`] keeps alive. All of them
//! are generic over [`ClientApi`]: they know no more of the engine than a program does, and run on any executor.
//!
//! | recipe | what it is for |
//! |---|---|
//! | [`Lock`] | one holder at a time, in the order of asking, with a fencing token |
//! | [`Election`] | the same, where the holder is somebody others want to know |
//! | [`Registry`] | who is there, under which address, until they are not |
//!
//! # What holds, and on what it rests
//!
//! 1. **One at a time.** Whoever holds a lock or leads has the oldest key under its name. Keys are ordered by the revision
//!    that created them, so there is one oldest, and every node agrees on it.
//! 2. **In order.** A contender waits for the one right before it and watches that key alone: when a lock is freed, one
//!    contender is woken, however many wait.
//! 3. **A token that rises.** The revision that created the holder's key is its *fencing token*: each holder's is greater than
//!    all before it. What is protected should refuse a token that is smaller than one it has seen ([`Fence`] does), or be
//!    written in a transaction that compares it ([`Guard::held`]).
//! 4. **Gone when it is gone.** Keys end with their lease: a holder that dies is followed by the next when its time to live
//!    has passed by the log's time, and not earlier.
//! 5. **The holder knows first.** A holder counts the time to live from *before* it asked for it to be extended, and seven
//!    eighths of it only. As long as clocks do not differ by more than an eighth in speed, it takes itself for the holder no
//!    longer ([`Guard::is_held`], [`Guard::lost`]) before anybody else can be. Neither helps who is paused between asking
//!    and acting; the token does.
//! 6. **Letting go.** Dropping a guard revokes its lease in the background, as well as that can be done; releasing it
//!    says whether it was still held.
//!
//! Deliberately not here: locks that can be taken twice by one holder, or shared by readers.

mod election;
mod error;
mod fence;
mod keeper;
mod line;
mod lock;
mod mirror;
mod race;
mod registry;
mod yard;

pub use election::{Election, Leader, Observer, Reign};
pub use error::RecipeError;
pub use fence::{Fence, Stale};
pub use keeper::{Keeper, KeptLease};
pub use lock::{Guard, Holder, Lock};
pub use registry::{Instance, InstanceChange, Instances, Registration, Registry};

#[cfg(doc)]
use crate::api::ClientApi;
use std::time::Duration;

/// The time to live of a recipe that was told none.
const TTL: Duration = Duration::from_secs(10);

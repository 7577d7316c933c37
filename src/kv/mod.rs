//! The default state machine: an ordered store of keys in which every change has a number.
//!
//! Promises: [`Store::apply`] is a function of the commands applied before and of nothing else, so replicas that
//! applied the same log are equal, answer equally and have equal [digests](Store::digest). A command that changes
//! something takes the next [`Revision`]; one that changes nothing (a failed compare, a delete that finds nothing, a
//! refused command) takes none. These are etcd's rules.
//!
//! Assumes: nothing. Bytes that are not a command are answered [`Reply::Refused`], on every replica alike.
//!
//! A change that must not happen twice is asked for in a [session]: a client that got no answer sends the same
//! bytes again, and gets the first answer. The module states the rules, limits and what a client has to do.
//!
//! What was is kept for a while: it can be read at a revision ([`Store::get_at`], [`Store::range`], [`Store::history`]) and
//! told to watchers, from [`Store::oldest`] on. How much is kept is local ([`Retention`]) and changes no command's answer. No
//! answer is unbounded: what does not fit a page says how to go on.
//!
//! Deliberately not here: clocks (time is what the log says, [`Store::advance_to`]), threads, randomness, I/O; snapshots. The
//! store does not know that it is replicated.
//!
//! ```
//! use bytes::BytesMut;
//! use d_engine::kv::{Reply, Revision, Store, encode_put};
//!
//! let mut store = Store::new();
//! assert_eq!(store.revision(), Revision(1), "an empty store is at 1");
//!
//! let mut command = BytesMut::new();
//! encode_put(b"color", b"blue", &mut command)?;
//! assert_eq!(store.apply(&command), Reply::Put { revision: Revision(2) });
//!
//! let found = store.get(b"color").expect("it was just put");
//! assert_eq!(&found.value[..], b"blue");
//! assert_eq!((found.create_revision, found.modify_revision, found.version), (Revision(2), Revision(2), 1));
//! # Ok::<(), d_engine::kv::CommandError>(())
//! ```

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod apply;
mod codec;
mod command;
mod edit;
mod entry;
mod event;
mod history;
mod key;
pub mod lease;
#[cfg(test)]
mod lease_tests;
mod past;
#[cfg(test)]
mod past_tests;
mod prefetch;
mod range;
mod reply;
pub mod session;
#[cfg(test)]
mod session_tests;
mod store;
mod table;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;
mod time;
pub mod txn;
mod upkeep;
pub mod watch;

pub use command::{
    Command, CommandError, Expected, ExpectedRef, Field, Limits, encode_close_session, encode_compact,
    encode_compare_and_swap, encode_delete, encode_delete_range, encode_expire, encode_grant,
    encode_in_session, encode_keep_alive, encode_open_session, encode_put, encode_put_attached,
    encode_revoke, encode_swap_attached, encode_txn,
};
pub use event::{Event, Events, RevisionError};
pub use history::Retention;
#[cfg(feature = "server")]
pub(crate) use key::Key;
pub use lease::{Attach, LEASE_TTL, LeaseError, LeaseId, LeaseLimits, LeaseStatus};
pub use range::{
    COUNT_KEYS, DELETE_KEYS, KeyRange, Order, PAGE_BYTES, PAGE_KEYS, RangePage, RangeQuery, Select,
};
pub use reply::{Presence, Reply, ReplyError};
pub use session::{Numbering, SESSION_TIMEOUT, SessionError, SessionId, SessionLimits, Stamp};
pub use store::{KeyValue, Page, Revision, Store};
pub use time::LogTime;
pub use txn::{
    Compare, Op, OpReply, Relation, TXN_DEPTH, TXN_OPERATIONS, TXN_REPLY_BYTES, Target, Txn, TxnReply,
};
pub use watch::{Filter, Hub, WatchError, WatchId, WatchItem, WatchLimits, WatchQuery};

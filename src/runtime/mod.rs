//! The drivers: the only code that does I/O while an engine runs.
//!
//! Every engine has one thread of its own. It opens the data directory, replays it into a node, binds the socket, and then
//! turns the loop ([`turn`]) until it is stopped or must stop itself. Two drivers do the turning: [`glommio`] on Linux,
//! [`tokio`] everywhere else and wherever io_uring is refused. They differ in where the loop sleeps and in which writer of
//! the log it uses; what they do is the same, and is short.
//!
//! Callers' threads meet the loop in [`shared`]: a bounded queue in, mailboxes out, a bell that is rung only when the
//! loop sleeps.
//!
//! Whatever happens on the thread (an orderly stop, a failed disk, an assertion), its end is the same: every waiting call
//! is answered, the directory and the port are released, and then the end is made known.

mod awake;
pub(crate) mod bell;
pub(crate) mod clock;
mod disk;
mod door;
#[cfg(target_os = "linux")]
mod glommio;
pub(crate) mod mailbox;
mod names;
mod network;
pub(crate) mod shared;
mod socket;
#[cfg(target_os = "linux")]
mod spin;
mod start;
mod store;
mod tokio;
mod tuner;
mod turn;
pub(crate) mod watch;

pub(crate) use start::{Order, Started, start};

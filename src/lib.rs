//! A Raft engine that a program embeds: acknowledged means on disk on a majority.
//!
//! ```
//! use d_engine::prelude::*;
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In memory, for a test; `EmbeddedEngine::builder()` for one that keeps its data.
//! let engine = EmbeddedEngine::ephemeral().await?;
//! engine.wait_ready(Duration::from_secs(10)).await?;
//!
//! let client = engine.client();
//! let written = client.put("color", "blue").await?;
//! let read = client.get("color").await?;
//! assert_eq!(read.value.expect("just written").value, "blue");
//! assert_eq!(read.revision, written.revision);
//!
//! // Take a lock: create the key only if nobody has it.
//! let swap = client.compare_and_swap("lock", Expected::Absent, "me").await?;
//! assert!(swap.value.is_done());
//!
//! engine.stop().await?;
//! # Ok(()) }
//! ```
//!
//! Any async runtime will do, and none is needed: the futures are woken by plain wakers, and the engine runs on a thread
//! of its own. The library installs no logger, allocator, metrics recorder or signal handler.
#![doc = include_str!("ARCHITECTURE.md")]

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod embedded;
pub mod kv;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod node;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod raft;
#[cfg(feature = "server")]
pub mod recipes;
#[cfg(feature = "server")]
mod runtime;
#[cfg(feature = "sim")]
pub mod sim;

/// All that a first program needs.
#[cfg(feature = "server")]
pub mod prelude {
    pub use crate::api::{
        AdminError, Answer, AttachedSwap, ClientApi, Durability, Leadership, ReadError, ReadLevel,
        ReadyError, SessionApi, SessionOptions, StartError, StopError, Swap, WriteError,
    };
    pub use crate::embedded::{Builder, EmbeddedClient, EmbeddedEngine, Pipeline, Runtime, Session, Watch};
    pub use crate::kv::{
        Attach, Compare, Event, Expected, Filter, KeyRange, KeyValue, LeaseId, Op, OpReply, Page, RangePage,
        RangeQuery, Revision, Txn, TxnReply, WatchError, WatchItem, WatchQuery,
    };
    pub use wal::NodeId;
}

/// The README's example is compiled and run with the other documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! d-engine.

pub mod config;
pub mod kv;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod node;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod raft;

//! d-engine.

pub mod kv;
pub mod raft;

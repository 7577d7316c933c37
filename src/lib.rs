//! d-engine.

pub mod kv;
pub mod node;
pub mod raft;

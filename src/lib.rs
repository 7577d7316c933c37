//! d-engine.

pub mod config;
pub mod kv;
pub mod node;
pub mod raft;

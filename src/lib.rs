//! d-engine.

pub mod kv;

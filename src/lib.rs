//! d-engine.

//! The protobuf messages of d-engine.
//!
//! The sources are `proto/proto/**/*.proto`; `cargo run -p scripts -- proto` makes the code below from them, and a test
//! sees that both agree. Nothing here knows what the messages mean.

/// What the members of a cluster say to each other.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod peer {
    include!("generated/dengine.peer.v1.rs");
}

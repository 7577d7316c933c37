//! The measuring harness.
fn main() {}

//! Named jobs.
fn main() {}

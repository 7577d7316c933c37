//! The simulator: whole clusters of real nodes in one thread, from one seed, under faults that no test bench can order.

pub mod exhaustive;
pub mod observation;
pub mod oracle;

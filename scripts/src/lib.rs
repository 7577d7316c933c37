//! Named jobs of the repository, as a library so that tests run the short form of what the command line runs long.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test stops at the first surprise"))]

pub mod audit;
pub mod budgets;
pub mod chaos;
pub mod ci;
pub mod cluster;
pub mod coordination;
#[cfg(target_os = "linux")]
pub mod disk;
pub mod every_bit;
pub mod hostile;
pub mod intruder;
pub mod judge;
pub mod load;
pub mod mutant;
pub mod mutants;
#[cfg(target_os = "linux")]
pub mod namespaces;
#[cfg(target_os = "linux")]
pub mod node;
pub mod partition;
#[cfg(target_os = "linux")]
pub mod power_cut;
pub mod process;
pub mod proto;
pub mod proxy;
pub mod random;
pub mod report;
pub mod stall;
pub mod stamp;
pub mod talk;
pub mod workspace;
pub mod zoo;

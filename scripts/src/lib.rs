//! Named jobs of the repository, as a library so that tests run the short form of what the command line runs long.

pub mod ci;
pub mod proto;
pub mod workspace;

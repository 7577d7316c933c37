//! The thesis, sentence by sentence: D. Ongaro, *Consensus: Bridging Theory and Practice* (2014).
//!
//! Each test is one rule and bears its section in its name. One server is the real thing (`d_engine::raft::Raft`, a
//! value); the test is its disk, its clock and all the others. `README.md` beside this file lists the sentences of figure
//! 3.1 with their tests, and those that the engine deliberately does otherwise.

mod append_entries;
mod applied;
mod clients;
mod elections;
mod figure_3_2;
mod joint;
mod leaders;
mod losses;
mod membership;
mod performance;
mod pre_vote;
mod promises;
mod reads;
mod request_vote;
mod restarts;
mod rules_for_servers;
mod server;
mod silence;
mod state;
mod transfer;

//! The log without a disk, for a driver of its own: a simulator opens, writes, crashes and opens again in memory,
//! with the very decisions that [`open`](crate::open) and the writers run on files.
//!
//! Opening: [`read_state`], [`Opening::decide`], then every [`Change`] that [`Opening::poll_change`] gives, each durable
//! before the next; [`Opening::finish`] is the [`Tail`] that a [`Journal`] continues at, and [`entries`] streams what
//! is in it. Writing: [`Journal::submit`], then what [`Journal::poll_step`] says. Both parts of a [`Step::Write`] are in
//! flight together, in any order; [`Journal::handle_written`] needs both, written and flushed.
//!
//! A new directory is the file of [`initial_file`] and nothing else. Blocks that a medium cannot read are an
//! [`std::io::Error`] with the system's EIO (5); bytes beyond the end of a file are `UnexpectedEof`.
//!
//! ```
//! use std::collections::BTreeMap;
//! use wal::pure::{self, BLOCK, Change, Damage, Journal, Opening, Rules, SegmentFile, Step};
//! use wal::{ClusterId, FrameBuilder, FrameHead, GroupId, Identity, LogEvent, NodeId, Term, WriteId, WritePlan};
//!
//! struct Disk { state: Vec<u8>, segments: BTreeMap<u64, Vec<u8>>, nonce: u128 }
//!
//! impl Disk {
//!     fn make(&mut self, next: pure::Next, identity: Identity) -> pure::SegmentHeader {
//!         self.nonce += 1; // random on a real disk
//!         let header = next.header(identity, self.nonce);
//!         let mut file = vec![0; next.bytes as usize];
//!         header.fill(&mut file[..BLOCK]);
//!         self.segments.insert(next.number, file);
//!         header
//!     }
//!
//!     fn open(&mut self, identity: Identity) -> Result<pure::Tail, pure::Refused> {
//!         let state = pure::read_state(&self.state, &identity)?;
//!         let files: Vec<_> = self.segments.iter()
//!             .map(|(&number, bytes)| SegmentFile { number, blocks: bytes.as_slice() })
//!             .collect();
//!         let rules = Rules { segment_bytes: 16 << 10, damage: Damage::Repairable };
//!         let mut opening = Opening::decide(state, &files, rules)?;
//!         while let Some(change) = opening.poll_change() {
//!             match change { // each durable before the next; a crash may fall anywhere
//!                 Change::State(record) => {
//!                     let at = record.offset() as usize;
//!                     record.fill(&mut self.state[at..at + BLOCK]);
//!                 }
//!                 Change::SetAside { segment } | Change::Remove { segment } => { self.segments.remove(&segment); }
//!                 Change::Copy { .. } => {}
//!                 Change::Zero { segment, from, until, length } => {
//!                     let file = self.segments.get_mut(&segment).unwrap();
//!                     file.resize(length as usize, 0);
//!                     file[from as usize..until as usize].fill(0);
//!                 }
//!                 Change::Make(next) => opening.handle_made(self.make(next, identity)),
//!             }
//!         }
//!         Ok(opening.finish())
//!     }
//! }
//!
//! let identity = Identity { cluster: ClusterId(1), node: NodeId(1), group: GroupId::FIRST };
//! let (_, state) = pure::initial_file(identity);
//! let mut disk = Disk { state, segments: BTreeMap::new(), nonce: 0 };
//! let tail = disk.open(identity)?;
//! let head = FrameHead { group: GroupId::FIRST, term: Term(1), previous: tail.last(), timestamp_ms: 1 };
//! let frame = FrameBuilder::noop(head);
//! let mut journal = Journal::new(tail);
//! journal.submit(WritePlan { frames: vec![frame.clone()], ..WritePlan::barrier(WriteId(1)) });
//! loop {
//!     match journal.poll_step() {
//!         Step::Nothing => break,
//!         Step::Rotate(next) => journal.handle_rotated(disk.make(next, identity)),
//!         Step::Write { envelope, state } => {
//!             if let Some(extent) = envelope {
//!                 let file = disk.segments.get_mut(&extent.at.segment).unwrap();
//!                 journal.fill_envelope(&mut file[extent.at.offset as usize..][..extent.bytes]);
//!             }
//!             if let Some(at) = state {
//!                 journal.fill_state(&mut disk.state[at as usize..][..BLOCK]);
//!             }
//!             journal.handle_written();
//!         }
//!     }
//! }
//! assert!(matches!(journal.poll_event(), Some(LogEvent::Flushed(flushed)) if flushed.id() == WriteId(1)));
//! drop(journal); // power cut
//! let tail = disk.open(identity)?;
//! let found: Result<Vec<_>, _> = pure::entries(&tail, |n| disk.segments[&n].as_slice()).collect();
//! assert_eq!(found?, [frame]);
//! # Ok::<(), pure::Refused>(())
//! ```

pub use crate::damage::{Damage, Damaged, Place};
pub use crate::entries::entries;
pub use crate::journal::{ENVELOPE_BYTES, Extent, Journal, Next, Step, Tail};
pub use crate::opening::{Change, Opening, Rules, read_state};
pub use crate::positions::Position;
pub use crate::reading::Read;
pub use crate::scan::{Cut, Refused, SegmentFile};
pub use crate::sector::{BLOCK, SECTOR};
pub use crate::segment::{FIRST_OFFSET, HeaderProblem, Predecessor, SegmentHeader, segment_name};
pub use crate::state::{Held, STATE_BYTES, STATE_NAME, StateRecord, initial_file};
pub use crate::walk::Blocks;

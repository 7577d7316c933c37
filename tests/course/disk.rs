//! A disk as a value: what was flushed is there after a crash, nothing else is.

use crate::words;
use bytes::Bytes;
use d_engine::raft::Write;
use wal::{Frame, FrameBuilder, FrameHead, HardState, Kind, LogIndex, WritePlan};

/// What survives a loss of power.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub hard_state: HardState,
    pub frames: Vec<Frame>,
    pub commit: LogIndex,
    /// Whether the last life of its node was stopped in peace.
    pub clean: bool,
}

impl Disk {
    /// Takes a write. What it names from its first entry on is superseded.
    pub fn write(&mut self, write: &Write) -> Result<(), String> {
        let WritePlan { hard_state, frames, commit, .. } = write.plan();
        if let Some(hard_state) = hard_state {
            if hard_state.term < self.hard_state.term {
                return Err("terms reach the disk in order".into());
            }
            self.hard_state = hard_state;
        }
        if let Some(first) = frames.first() {
            self.frames.retain(|frame| frame.index() < first.index());
            if self.last().next() != first.index() {
                return Err(format!("a gap on disk: {} follows {}", first.index(), self.last()));
            }
            self.frames.extend(frames);
        }
        self.commit = self.commit.max(commit);
        Ok(())
    }

    pub fn last(&self) -> LogIndex {
        LogIndex(self.frames.len() as u64)
    }

    pub fn from(&self, first: LogIndex, max_bytes: usize) -> Vec<Frame> {
        let skip = usize::try_from(first.0.saturating_sub(1)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let fits = |frame: &&Frame| {
            let first = bytes == 0;
            bytes += frame.bytes().len();
            first || bytes <= max_bytes
        };
        self.frames.iter().skip(skip).take_while(fits).cloned().collect()
    }

    /// Puts other commands into an entry and chains what follows to it: a log that looks whole and is not the one that
    /// was agreed on.
    pub fn forge(&mut self, index: LogIndex, command: &Bytes) -> Result<(), String> {
        let position = usize::try_from(index.0).unwrap_or(0).checked_sub(1).ok_or("there is no entry 0")?;
        let forged = self.frames.get(position).ok_or(format!("the disk has no entry {index}"))?;
        let mut previous = forged.previous();
        for (at, frame) in self.frames.iter_mut().enumerate().skip(position) {
            let head = FrameHead {
                group: frame.group(),
                term: frame.term(),
                previous,
                timestamp_ms: frame.timestamp_ms(),
            };
            *frame = match frame.kind() {
                Kind::Noop => FrameBuilder::noop(head),
                Kind::Commands => {
                    let mut batch = FrameBuilder::with_capacity(64);
                    let kept: Vec<Vec<u8>> = frame.commands().map(<[u8]>::to_vec).collect();
                    let commands = if at == position { vec![command.to_vec()] } else { kept };
                    commands.iter().for_each(|command| batch.push_command(command));
                    batch.commands(head)
                }
                Kind::Membership => return Err("only commands can be forged".into()),
            };
            previous = frame.id();
        }
        Ok(())
    }

    pub fn describe(&self) -> String {
        let log = if self.frames.is_empty() { "nothing".into() } else { words::entries(&self.frames) };
        format!("{}; {log}; committed at least to {}", words::hard_state(self.hard_state), self.commit)
    }
}

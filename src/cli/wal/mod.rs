//! `d-engine wal inspect` and `d-engine wal verify`: what a data directory holds and what the engine would make of it.

mod json;
mod words;

use super::{Ending, Failure};
use ::wal::inspect::{self, Look, Outlook, SegmentLook};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write, stderr};
use std::path::PathBuf;

/// A log shorter than this is read before anybody wonders.
const LONG_BYTES: u64 = 256 << 20;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show what the log holds: segments, entries, terms, hashes, marks, and what the next start would do.
    ///
    /// Exit code 0: whole (a torn last write, never acknowledged, is whole too). 1: damaged. 2: not looked at.
    Inspect {
        #[command(flatten)]
        target: Target,
        /// List every write, too.
        #[arg(long)]
        writes: bool,
    },
    /// Check every byte of the log, and say in one line what the next start would make of it.
    ///
    /// Exit code 0: whole (a torn last write, never acknowledged, is whole too). 1: damaged. 2: not looked at.
    Verify {
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// The data directory of a node.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Answer with one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command, out: &mut impl Write) -> Result<Ending, Failure> {
    let (Command::Inspect { target, .. } | Command::Verify { target }) = command;
    let bar = Bar::new();
    let look = inspect::look(&target.directory, |read, total| bar.show(read, total))?;
    bar.end();
    let mut segments = Vec::new();
    let mut writes = Vec::new();
    if let (Command::Inspect { writes: wanted, .. }, Some(identity)) = (command, &look.identity) {
        for &number in &look.segments {
            let mut of_segment = Vec::new();
            let each = |write: &inspect::WriteLook| {
                if *wanted {
                    of_segment.push(*write);
                }
            };
            segments.push(inspect::segment(&target.directory, number, identity, each)?);
            writes.push(of_segment);
        }
    }
    if target.json {
        writeln!(out, "{}", json::answer(&look, &segments, &writes))?;
    } else {
        if let Command::Inspect { .. } = command {
            words::contents(out, &look, &segments, &writes)?;
        }
        words::outlook(out, &look)?;
    }
    Ok(ending(&look))
}

fn ending(look: &Look) -> Ending {
    match look.outlook {
        Outlook::Whole(_) => Ending::Well,
        Outlook::Repairable(..) | Outlook::Refused(_) => Ending::Wrong,
    }
}

/// What a segment's numbers are called in both languages.
fn used_percent(segment: &SegmentLook) -> u64 {
    segment.used * 100 / segment.bytes.max(1)
}

/// A bar on stderr, when somebody looks at it and there is time to look.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new() -> Self {
        if !stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}")
        {
            bar.set_style(style);
        }
        Self(Some(bar))
    }

    fn show(&self, read: u64, total: u64) {
        if let Some(bar) = self.0.as_ref().filter(|_| total >= LONG_BYTES) {
            bar.set_length(total);
            bar.set_position(read);
        }
    }

    fn end(self) {
        if let Some(bar) = self.0 {
            bar.finish_and_clear();
        }
    }
}

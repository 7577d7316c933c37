//! Which other systems take part, and why one does not.

use crate::node::DurabilityChoice;
use crate::results::{Chart, Promise, Row, Unfair};
use crate::system::embedded;
use crate::system::etcd::{self, Binary, Missing};
use crate::workload::{Call, Workload};
use std::path::PathBuf;
use thiserror::Error;

/// What may be chosen.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Others {
    /// The program etcd, if it is not on the PATH.
    #[arg(long)]
    pub etcd_bin: Option<PathBuf>,
    /// Our engine alone.
    #[arg(long)]
    pub alone: bool,
}

/// Why a system that was asked for by name does not take part.
#[derive(Debug, Error)]
pub enum Absent {
    /// It is not there.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// It promises something else.
    #[error(transparent)]
    Unfair(#[from] Unfair),
}

impl Others {
    /// The program etcd, or why it is left out. If it is `wanted`, or was named on the command line, its absence is an error.
    pub fn etcd(&self, ours: DurabilityChoice, wanted: bool) -> Result<Result<Binary, String>, Absent> {
        if self.alone && !wanted {
            return Ok(Err("our engine alone, as asked".into()));
        }
        let fair = same_promise(ours.promise());
        let found = Binary::find(self.etcd_bin.as_deref(), std::env::var_os("PATH").as_deref());
        let absent: Absent = match (fair, found) {
            (Ok(()), Ok(binary)) => return Ok(Ok(binary)),
            (Err(unfair), _) if !wanted => return Ok(Err(format!("etcd is left out: {unfair}"))),
            (Err(unfair), _) => unfair.into(),
            (Ok(()), Err(missing)) => missing.into(),
        };
        if wanted || self.etcd_bin.is_some() {
            return Err(absent);
        }
        Ok(Err(format!("etcd is left out: {absent}")))
    }
}

fn same_promise(promise: Promise) -> Result<(), Unfair> {
    let row = |system: &str, promise| Row {
        id: "W2".into(),
        system: system.into(),
        promise,
        workload: Workload::closed(Call::Put, 1),
        condition: None,
    };
    Chart::of(&[row(embedded::NAME, promise), row(etcd::NAME, Promise::FsyncQuorum)]).map(drop)
}

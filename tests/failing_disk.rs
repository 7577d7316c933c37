//! An engine whose disk fails under it stops itself: nothing is acknowledged any more, everybody is told why, and what
//! was applied can still be read. Needs root, for a filesystem that is full or read-only; says so where it is not.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use d_engine::api::{StopReason, Uncertainty};
use d_engine::config::ByteCount;
use d_engine::embedded::{Builder, PipelineError};
use d_engine::prelude::*;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{RUNTIMES, alone, block_on, started};

/// A filesystem in memory of so many MiB, unmounted when dropped.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(mebibytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m,mode=700");
        if mount(&["-t", "tmpfs", "-o", &size, "tmpfs"], dir.path()) {
            return Some(Self(dir));
        }
        eprintln!("SKIPPED, not tested here: a tmpfs cannot be mounted");
        None
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.0.path().display());
    }
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    let output = Command::new("mount").args(arguments).arg(at).output();
    output.is_ok_and(|output| output.status.success())
}

fn small(dir: &Path, runtime: Runtime) -> Builder {
    alone(dir, runtime).configure(|c| {
        c.log.segment_bytes = ByteCount(1 << 20);
        c.limits.batch_bytes = ByteCount(256 << 10);
        c.limits.value_bytes = ByteCount(64 << 10);
    })
}

#[test]
fn a_disk_that_fills_up_stops_the_engine_and_loses_nothing() {
    for runtime in RUNTIMES {
        let Some(mount) = Mount::new(8) else { return };
        let kept = block_on(async {
            let engine = started(small(&mount.data(), runtime)).await;
            let client = engine.client();
            let mut pipeline = client.pipeline();
            let mut done = Vec::new();
            let mut sent = 0_u64;
            let refused_at_the_door = loop {
                match pipeline.put(format!("{sent:06}"), vec![b'x'; 60_000]) {
                    Ok(_) => sent += 1,
                    Err(WriteError::Busy) => {}
                    Err(error) => break error,
                }
                if pipeline.in_flight() >= 8 {
                    pipeline.next_batch(&mut done).await;
                }
            };
            while pipeline.in_flight() > 0 {
                pipeline.next_batch(&mut done).await;
            }
            let Err(StopError::Failed(why)) = engine.stop().await else { panic!("{refused_at_the_door}") };
            assert_eq!(engine.stopped(), Some(StopReason::Failed(why.clone())));
            assert!(why.contains("no space left"), "{why}");
            assert_eq!(refused_at_the_door, WriteError::Stopped(StopReason::Failed(why.clone())));
            assert_eq!(done.len() as u64, sent, "everything was answered");
            let (acknowledged, failed): (Vec<_>, Vec<_>) =
                done.into_iter().partition(|done| done.result.is_ok());
            assert!(acknowledged.len() > 50 && !failed.is_empty());
            for failed in &failed {
                let Err(PipelineError::Write(error)) = &failed.result else { panic!("{failed:?}") };
                let told = match error {
                    WriteError::OutcomeUnknown(Uncertainty::Stopped(reason)) => reason,
                    WriteError::Stopped(reason) => reason,
                    other => panic!("{other}"),
                };
                assert_eq!(told, &StopReason::Failed(why.clone()));
            }
            assert!(matches!(client.get("000000").await, Err(ReadError::Stopped(_))));
            assert!(matches!(client.get_lease("000000").await, Err(ReadError::Stopped(_))));
            assert!(client.get_eventual("000000").await.unwrap().value.is_some());
            acknowledged.into_iter().map(|done| done.number).collect::<Vec<_>>()
        });
        // With room again, everything that was acknowledged is there.
        assert!(self::mount(&["-o", "remount,size=32m"], mount.0.path()));
        block_on(async {
            let engine = started(small(&mount.data(), runtime)).await;
            for number in kept {
                let read = engine.client().get(format!("{number:06}")).await.unwrap();
                assert!(read.value.is_some(), "put {number} was acknowledged");
            }
            engine.client().put("more", "x").await.unwrap();
        });
    }
}

#[test]
fn a_read_only_filesystem_is_refused() {
    for runtime in RUNTIMES {
        let Some(mount) = Mount::new(8) else { return };
        drop(block_on(started(small(&mount.data(), runtime))));
        assert!(self::mount(&["-o", "remount,ro"], mount.0.path()));
        let error = block_on(small(&mount.data(), runtime).start()).map(drop).unwrap_err();
        assert!(matches!(error, StartError::Directory(wal::OpenError::ReadOnly { .. })), "{error}");
        assert!(error.to_string().contains(mount.data().to_str().unwrap()), "{error}");
    }
}

//! Where io_uring is taken away, as container runtimes do by seccomp, the tokio driver takes over and says so once.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use d_engine::prelude::*;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use support::{Group, PATIENCE, alone, block_on};

/// The number of `io_uring_setup`, the same on every architecture.
const IO_URING_SETUP: i64 = 425;
const EPERM: u32 = 1;

/// Takes io_uring from this thread and every thread it starts from now on.
fn refuse_io_uring() {
    let filter = SeccompFilter::new(
        BTreeMap::from([(IO_URING_SETUP, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(EPERM),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
    }
}

/// One test, since the log is the process's and the filter cannot be taken back from its thread.
#[test]
fn without_io_uring_the_engine_runs_on_tokio_and_says_why() {
    let captured = Captured::default();
    let writer = captured.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let dir = tempfile::tempdir().unwrap();

    let put_and_name = |dir: &std::path::Path, runtime| {
        block_on(async {
            let engine = alone(dir, runtime).start().await.unwrap();
            engine.wait_ready(PATIENCE).await.unwrap();
            let put = engine.client().put("a", "1").await.unwrap();
            let name = engine.runtime();
            engine.stop().await.unwrap();
            (name, put.revision)
        })
    };
    assert_eq!(put_and_name(dir.path(), Runtime::Auto), ("glommio", Revision(2)));
    assert!(!captured.take().contains("io_uring"), "nothing to say while it is there");

    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                refuse_io_uring();
                for (revision, runtime) in (3..).zip([Runtime::Auto, Runtime::Glommio, Runtime::Tokio]) {
                    // The log that io_uring wrote is read and continued without it.
                    assert_eq!(put_and_name(dir.path(), runtime), ("tokio", Revision(revision)));
                    let log = captured.take();
                    let lines = log.lines().filter(|line| line.contains("io_uring")).count();
                    assert_eq!(lines, usize::from(runtime != Runtime::Tokio), "{log}");
                }
                block_on(async {
                    let engines = Group::new([Runtime::Auto; 3]).start_all().await;
                    for engine in &engines {
                        assert_eq!(engine.runtime(), "tokio");
                        engine.client().put("a", "1").await.unwrap();
                    }
                });
            })
            .join()
            .unwrap();
    });
    // The rest of the process still has it.
    assert_eq!(put_and_name(dir.path(), Runtime::Auto), ("glommio", Revision(6)));
}

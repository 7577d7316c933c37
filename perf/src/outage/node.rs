//! A node's side: it carries tasks out while the engine runs.

use super::writer::{self, Writer};
use super::{Stand, Task, Told, clock, key, value};
use crate::generator::embedded::Embedded;
use crate::usage::{ProcessUsage, field};
use crate::wait::wait_for;
use crate::workload::KEY_BYTES;
use d_engine::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Writes in flight while a log grows.
const GROWING: usize = 512;
/// Keys they go to.
const GROWN_KEYS: u64 = 16_384;

/// When this process's engine had read its log.
pub static OPENED: AtomicU64 = AtomicU64::new(0);

/// The client in a node's process.
pub struct Client {
    client: EmbeddedClient,
    writer: Option<Writer>,
    leaders: Arc<Mutex<Vec<(u64, u64, u64)>>>,
}

impl Client {
    /// Begins to watch who leads.
    pub fn new(engine: &EmbeddedEngine) -> Self {
        let leaders = Arc::new(Mutex::new(Vec::new()));
        let (mut watch, noted) = (engine.watch_leader(), Arc::clone(&leaders));
        // Ends with the engine.
        std::thread::spawn(move || {
            while let Some(Leadership { term, leader }) = wait_for(watch.changed()) {
                let leader = leader.map_or(0, |id| id.0);
                noted.lock().unwrap_or_else(PoisonError::into_inner).push((clock(), term, leader));
            }
        });
        Self { client: engine.client(), writer: None, leaders }
    }

    /// Does what it is told.
    pub fn carry_out(&mut self, task: Task) -> Result<Told, String> {
        match task {
            Task::Write { round, in_flight } => {
                let client = self.client.clone();
                self.writer = Some(Writer::begin(move || Ok(Embedded::new(client)), round, in_flight));
                Ok(Told::Writing)
            }
            Task::Recovered { since } => {
                let writer = self.writer.as_ref().ok_or(writer::IDLE)?;
                Ok(Told::Recovered(writer.recovered(since)))
            }
            Task::Tell => self.writer.take().ok_or(writer::IDLE)?.end().map(Told::Record),
            Task::ReadBack { round, runs } => {
                let client = &self.client;
                let get = |key: [u8; KEY_BYTES]| async move {
                    let found = client.get_linearizable(key).await.map_err(|error| error.to_string())?;
                    Ok(found.value.map(|kv| kv.value))
                };
                wait_for(writer::read_back(get, round, &runs)).map(Told::ReadBack)
            }
            Task::Grow { bytes, value_bytes } => self.grow(bytes, value_bytes),
            Task::First => {
                wait_for(self.client.get_linearizable(key(0, 0))).map_err(|error| error.to_string())?;
                let read = clock();
                wait_for(self.client.put(key(0, 0), value(0, 0))).map_err(|error| error.to_string())?;
                Ok(Told::First { read, written: clock() })
            }
            Task::Stand => {
                let status = wait_for(self.client.status()).map_err(|error| error.to_string())?;
                let leaders = self.leaders.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Ok(Told::Stand(Stand {
                    commit: status.commit_index,
                    applied: status.applied_index,
                    elections: status.counters.elections,
                    opened: OPENED.load(Ordering::Relaxed),
                    cpu: ProcessUsage::of_self().cpu,
                    resident: (
                        field("/proc/self/status", "VmRSS:").unwrap_or(0) * 1024,
                        field("/proc/self/status", "VmHWM:").unwrap_or(0) * 1024,
                    ),
                    leaders,
                }))
            }
        }
    }

    fn grow(&self, bytes: u64, value_bytes: usize) -> Result<Told, String> {
        let mut pipeline = self.client.pipeline();
        let (mut sent, mut number, mut done) = (0, 0, Vec::new());
        let value = vec![b'v'; value_bytes];
        while sent < bytes || pipeline.in_flight() > 0 {
            while sent < bytes && pipeline.in_flight() < GROWING {
                pipeline.put(key(0, number % GROWN_KEYS), &value).map_err(|error| error.to_string())?;
                number += 1;
                sent += (KEY_BYTES + value_bytes) as u64;
            }
            pipeline.wait(&mut done);
            for completion in done.drain(..) {
                completion.result.map_err(|error| error.to_string())?;
            }
        }
        let status = wait_for(self.client.status()).map_err(|error| error.to_string())?;
        Ok(Told::Grown { keys: status.keys as u64 })
    }
}

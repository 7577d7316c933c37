//! The log as the loop uses it, whichever of its two writers is underneath.

use wal::{Fetch, LogError, LogEvent, LogStats, PortableLog, WritePlan};

/// A writer of the log.
pub(crate) trait Disk {
    /// Queues a plan; it becomes durable in its order.
    fn submit(&mut self, plan: WritePlan);
    /// Starts writing what is queued, unless a write is under way.
    fn kick(&mut self);
    /// What happened. Never blocks.
    fn poll(&mut self) -> Option<LogEvent>;
    /// Asks for old entries.
    fn fetch(&mut self, fetch: Fetch);
    /// The log is idle: its next write says how far it is flushed, unless that is said already.
    fn mark(&mut self);
    /// The counters.
    fn stats(&self) -> LogStats;
    /// Makes everything queued durable, marks the directory clean and lets go of it. Blocks.
    fn close(self) -> Result<(), LogError>;
}

impl Disk for PortableLog {
    fn submit(&mut self, plan: WritePlan) {
        self.submit(plan);
    }

    fn kick(&mut self) {
        self.kick();
    }

    fn poll(&mut self) -> Option<LogEvent> {
        self.poll()
    }

    fn fetch(&mut self, fetch: Fetch) {
        self.fetch(fetch);
    }

    fn mark(&mut self) {
        self.mark();
    }

    fn stats(&self) -> LogStats {
        self.stats()
    }

    fn close(self) -> Result<(), LogError> {
        self.close()
    }
}

/// The io_uring writer together with the ring it shares with the loop's sleep.
#[cfg(target_os = "linux")]
pub(crate) struct UringDisk {
    pub(crate) log: wal::linux::UringLog,
    pub(crate) ring: wal::linux::Ring,
}

#[cfg(target_os = "linux")]
impl Disk for UringDisk {
    fn submit(&mut self, plan: WritePlan) {
        self.log.submit(plan);
    }

    fn kick(&mut self) {
        self.log.kick(&mut self.ring);
        // Without something to submit there is no hurry: what the kernel has to hand over is taken before the next sleep.
        if self.ring.has_work_queued()
            && let Err(error) = self.ring.submit()
        {
            // What was not taken stays queued for the loop's sleep, which reports what does not pass by itself.
            tracing::debug!("the ring takes nothing at the moment: {error}");
        }
    }

    fn poll(&mut self) -> Option<LogEvent> {
        self.log.poll(&mut self.ring)
    }

    fn fetch(&mut self, fetch: Fetch) {
        self.log.fetch(&mut self.ring, fetch);
    }

    fn mark(&mut self) {
        self.log.mark(&mut self.ring);
    }

    fn stats(&self) -> LogStats {
        self.log.stats()
    }

    fn close(mut self) -> Result<(), LogError> {
        self.log.close(&mut self.ring)
    }
}

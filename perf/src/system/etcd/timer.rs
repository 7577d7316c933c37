//! A timer that wakes to the microsecond: the executor's own count in milliseconds, which an open loop would show as
//! latency.

#[cfg(target_os = "linux")]
pub use linux::Timer;
#[cfg(not(target_os = "linux"))]
pub use other::Timer;

#[cfg(target_os = "linux")]
mod linux {
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use std::io;
    use std::os::fd::OwnedFd;
    use std::task::{Context, Poll};
    use std::time::{Duration, Instant};
    use tokio::io::unix::AsyncFd;

    /// One timer, set again and again.
    pub struct Timer {
        descriptor: AsyncFd<OwnedFd>,
        until: Instant,
    }

    impl Timer {
        /// Inside the runtime that will poll it.
        pub fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
            let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            // SAFETY: an `OwnedFd` is open and refers to one file until it is dropped, gives the same descriptor at every
            // call, and is owned by the `AsyncFd` from here on.
            let descriptor = unsafe { AsyncFd::register(descriptor)? };
            Ok(Self { descriptor, until: Instant::now() })
        }

        /// Lets it go off then, and not before.
        pub fn set(&mut self, until: Instant) {
            self.until = until;
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
            let spec = Itimerspec {
                it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: Timespec {
                    tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                },
            };
            timerfd_settime(self.descriptor.get_ref(), TimerfdTimerFlags::empty(), &spec)
                .expect("a time from now on is a time");
        }

        /// Whether its time has come.
        pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
            loop {
                if Instant::now() >= self.until {
                    return Poll::Ready(());
                }
                match self.descriptor.poll_read_ready(context) {
                    // It went off for an earlier setting: only the next time counts.
                    Poll::Ready(Ok(mut guard)) => guard.clear_ready(),
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::future::Future;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Instant;
    use tokio::time::Sleep;

    /// The executor's.
    pub struct Timer(Pin<Box<Sleep>>);

    impl Timer {
        /// Inside the runtime that will poll it.
        pub fn new() -> io::Result<Self> {
            Ok(Self(Box::pin(tokio::time::sleep_until(Instant::now().into()))))
        }

        /// Lets it go off then, and not before.
        pub fn set(&mut self, until: Instant) {
            self.0.as_mut().reset(until.into());
        }

        /// Whether its time has come.
        pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
            self.0.as_mut().poll(context)
        }
    }
}

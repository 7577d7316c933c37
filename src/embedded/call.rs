//! One call into the loop, and what its failures are called.

use crate::api::{AdminError, Leadership, ReadError, Uncertainty, WriteError};
use crate::raft::Mono;
use crate::runtime::mailbox::{Address, Handle};
use crate::runtime::shared::{Failure, Outcome, Shared, Submission};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// One call in flight. Hands itself over when it is first polled.
pub(super) struct Call<'a, A> {
    shared: &'a Shared,
    mailbox: &'a Handle<Outcome>,
    state: CallState<A>,
    /// An alarm is taken back when its future is dropped: it may be due in an hour.
    alarm: Option<Mono>,
}

enum CallState<A> {
    New(Option<A>),
    Waiting(Address),
    Over,
}

impl<'a, A: FnOnce(Address) -> Submission + Unpin> Call<'a, A> {
    pub(super) fn new(shared: &'a Shared, mailbox: &'a Handle<Outcome>, ask: A) -> Self {
        Self { shared, mailbox, state: CallState::New(Some(ask)), alarm: None }
    }

    /// A call for a word at `at`.
    pub(super) fn due(mut self, at: Mono) -> Self {
        self.alarm = Some(at);
        self
    }
}

impl<A: FnOnce(Address) -> Submission + Unpin> Future for Call<'_, A> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = &mut *self;
        if let CallState::New(ask) = &mut this.state {
            let ask = ask.take().expect("a call is handed over once");
            let address = this.mailbox.reserve();
            if let Err(failure) = this.shared.submit(ask(address)) {
                this.state = CallState::Over;
                this.mailbox.release(address);
                return Poll::Ready(Outcome::Failed(failure));
            }
            this.state = CallState::Waiting(address);
        }
        let CallState::Waiting(address) = this.state else { panic!("polled after it was ready") };
        let outcome = this.mailbox.poll(address, cx);
        if outcome.is_ready() {
            this.state = CallState::Over;
        }
        outcome
    }
}

impl<A> Drop for Call<'_, A> {
    fn drop(&mut self) {
        if let CallState::Waiting(address) = self.state {
            self.mailbox.abandon(address);
            if let Some(at) = self.alarm {
                // Where the queue is full it stays, and ends when it is due.
                let _ = self.shared.submit(Submission::Disarm { address, at });
            }
        }
    }
}

pub(super) fn write_error(failure: Failure) -> WriteError {
    match failure {
        Failure::Refused(error) => WriteError::Refused(error),
        Failure::NotAllowed(reason) => WriteError::NotAllowed(reason),
        Failure::Busy => WriteError::Busy,
        Failure::NoLeader | Failure::NotLeader => WriteError::NoLeader,
        Failure::Unknown | Failure::Timeout => WriteError::OutcomeUnknown(Uncertainty::NoAnswer),
        Failure::Interrupted(reason) => WriteError::OutcomeUnknown(Uncertainty::Stopped(reason)),
        Failure::Stopped(reason) => WriteError::Stopped(reason),
    }
}

pub(super) fn read_error(failure: Failure) -> ReadError {
    match failure {
        Failure::Refused(error) => ReadError::Refused(error),
        Failure::Busy => ReadError::Busy,
        Failure::NoLeader
        | Failure::NotLeader
        | Failure::NotAllowed(_)
        | Failure::Unknown
        | Failure::Timeout => ReadError::NoLeader,
        Failure::Interrupted(reason) | Failure::Stopped(reason) => ReadError::Stopped(reason),
    }
}

pub(super) fn admin_error(failure: Failure, leadership: Leadership) -> AdminError {
    match failure {
        Failure::Refused(error) => AdminError::Refused(error.to_string()),
        Failure::NotAllowed(reason) => AdminError::Refused(reason),
        Failure::Busy => AdminError::Busy,
        Failure::NoLeader | Failure::NotLeader => AdminError::NotLeader { leader: leadership.leader },
        Failure::Unknown | Failure::Timeout => AdminError::Timeout,
        Failure::Interrupted(reason) | Failure::Stopped(reason) => AdminError::Stopped(reason),
    }
}

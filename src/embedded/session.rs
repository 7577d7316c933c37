//! [`Session`]: writes that are tried again by themselves and happen once.
//!
//! Promises: a call that is answered happened once, however often it was sent. A call tries again when the leader is lost,
//! when a queue is full, when no answer came; each try carries the same number, and the store answers a number it knows
//! with its first answer (the rules: [`kv::session`](crate::kv::session)).
//!
//! Assumes: nothing about the engine's members; that the session is not left unused for longer than its timeout *while a
//! call is being retried*. Only then can an outcome stay unknown, besides when patience or the engine ends.
//!
//! Deliberately not here: a task that keeps the session alive. A session that expired between two calls is replaced by a
//! new one within the next call: that call was never sent before, so nothing can happen twice.

use super::EmbeddedClient;
use super::change::{self, Change, written};
use crate::api::{Answer, AttachedSwap, SessionApi, SessionOptions, Swap, Uncertainty, WriteError};
use crate::config::Durability;
use crate::kv::{
    self, Attach, Expected, KeyRange, LeaseId, Numbering, Reply, SessionError, SessionId, Stamp, Txn,
    TxnReply, encode_in_session,
};
use crate::raft::Mono;
use crate::runtime::clock;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::future::Future;
use std::time::Duration;

/// Waits between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// Writes that happen once, over lost leaders and lost answers. Opened with
/// [`open_session`](crate::api::ClientApi::open_session); the calls are those of [`SessionApi`].
///
/// Calls may be made from several threads or tasks at once; those in flight together take effect in any order. Dropping a
/// session leaves it to expire; [`close`](SessionApi::close) ends it at once.
///
/// ```
/// use d_engine::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = EmbeddedEngine::ephemeral().await?;
/// engine.wait_ready(std::time::Duration::from_secs(10)).await?;
/// let session = engine.client().open_session(SessionOptions::default()).await?;
///
/// // Without a session a lost answer would leave open whether this took the ticket.
/// let first = session.compare_and_swap("ticket", Expected::Absent, "1").await?;
/// assert_eq!(first.value, Swap::Done);
/// session.put("holder", "me").await?;
/// assert!(session.delete("holder").await?.value);
/// session.close().await?;
/// # engine.stop().await?;
/// # Ok(()) }
/// ```
pub struct Session {
    client: EmbeddedClient,
    options: SessionOptions,
    numbers: Mutex<Numbering>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let numbers = self.numbers.lock();
        f.debug_struct("Session").field("id", &numbers.session()).field("options", &self.options).finish()
    }
}

impl Session {
    pub(super) async fn open(client: EmbeddedClient, options: SessionOptions) -> Result<Self, WriteError> {
        let mut patience = Patience::of(&options);
        let session = open(&client, &options, &mut patience).await?;
        Ok(Self { client, options, numbers: Mutex::new(Numbering::new(session)) })
    }

    /// Its id in the store, at present: a session that expired unused is replaced by a new one.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.numbers.lock().session()
    }

    /// Sends a change until it is answered, and returns the answer to whichever try came first.
    async fn once<T>(&self, change: Change<T>) -> Result<Answer<T>, WriteError> {
        let (change, read) = change.ready()?;
        let mut patience = Patience::of(&self.options);
        loop {
            let number = Number::take(self);
            let sent = send(&self.client, &mut patience, || number.stamped(&change)).await;
            let (reply, durability) = sent?;
            let Reply::SessionRefused(error) = reply else {
                return written(reply, durability, read);
            };
            match error {
                SessionError::Gone { .. } | SessionError::Unknown { .. } if patience.tried_in_vain => {
                    return Err(WriteError::OutcomeUnknown(Uncertainty::SessionLost));
                }
                // Refused at its first try: nothing of it happened, and under a new number nothing of it can.
                SessionError::Gone { .. } | SessionError::Unknown { .. } => {
                    let gone = number.stamp.session;
                    drop(number);
                    self.replace(gone, &patience).await?;
                }
                error => return Err(patience.in_all(WriteError::Session(error))),
            }
        }
    }

    /// Opens a session in place of one that is gone, unless another call did so already; what that one opened too many
    /// expires.
    async fn replace(&self, gone: SessionId, patience: &Patience) -> Result<(), WriteError> {
        if self.id() != gone {
            return Ok(());
        }
        let mut patience = Patience { until: patience.until, tried_in_vain: false };
        let session = open(&self.client, &self.options, &mut patience).await?;
        let mut numbers = self.numbers.lock();
        if numbers.session() == gone {
            *numbers = Numbering::new(session);
        }
        Ok(())
    }
}

impl SessionApi for Session {
    fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<()>, WriteError>> + Send {
        self.once(change::put(self.client.maker(), key.as_ref(), value.as_ref()))
    }

    fn put_attached(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        attach: Attach,
    ) -> impl Future<Output = Result<Answer<Option<LeaseId>>, WriteError>> + Send {
        self.once(change::put_attached(self.client.maker(), key.as_ref(), value.as_ref(), attach))
    }

    fn delete(&self, key: impl AsRef<[u8]>) -> impl Future<Output = Result<Answer<bool>, WriteError>> + Send {
        self.once(change::delete(self.client.maker(), key.as_ref()))
    }

    fn delete_range(&self, range: KeyRange) -> impl Future<Output = Result<Answer<u64>, WriteError>> + Send {
        self.once(change::delete_range(self.client.maker(), &range))
    }

    fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected,
        new: impl AsRef<[u8]>,
    ) -> impl Future<Output = Result<Answer<Swap>, WriteError>> + Send {
        self.once(change::swap(self.client.maker(), key.as_ref(), &expected, new.as_ref()))
    }

    fn compare_and_swap_attached(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected,
        new: impl AsRef<[u8]>,
        attach: Attach,
    ) -> impl Future<Output = Result<Answer<AttachedSwap>, WriteError>> + Send {
        self.once(change::swap_attached(self.client.maker(), key.as_ref(), &expected, new.as_ref(), attach))
    }

    fn txn(&self, txn: Txn) -> impl Future<Output = Result<Answer<TxnReply>, WriteError>> + Send {
        self.once(change::txn(self.client.maker(), &txn))
    }

    fn lease_grant(&self, ttl: Duration) -> impl Future<Output = Result<Answer<LeaseId>, WriteError>> + Send {
        self.once(change::grant(self.client.maker(), None, ttl))
    }

    fn lease_grant_as(
        &self,
        lease: LeaseId,
        ttl: Duration,
    ) -> impl Future<Output = Result<Answer<LeaseId>, WriteError>> + Send {
        self.once(change::grant(self.client.maker(), Some(lease), ttl))
    }

    fn lease_keep_alive(
        &self,
        lease: LeaseId,
    ) -> impl Future<Output = Result<Answer<Duration>, WriteError>> + Send {
        self.once(change::keep_alive(self.client.maker(), lease))
    }

    fn lease_revoke(&self, lease: LeaseId) -> impl Future<Output = Result<Answer<u64>, WriteError>> + Send {
        self.once(change::revoke(self.client.maker(), lease))
    }

    async fn close(self) -> Result<(), WriteError> {
        let mut close = BytesMut::new();
        kv::encode_close_session(self.id(), &mut close);
        let close = close.freeze();
        let mut patience = Patience::of(&self.options);
        match send(&self.client, &mut patience, || close.clone()).await? {
            // Gone: by an earlier try, or because its time was over.
            (Reply::SessionRefused(SessionError::Gone { .. }), _) => Ok(()),
            (reply, durability) => written(reply, durability, |_| Some(())).map(drop),
        }
    }
}

/// A number of the session's, given back when the call is over or dropped. A call that is given up acknowledges its
/// number: a try that is still under way is then refused as soon as a later call of the session has come before it.
struct Number<'a> {
    session: &'a Session,
    stamp: Stamp,
}

impl<'a> Number<'a> {
    fn take(session: &'a Session) -> Self {
        let stamp = session.numbers.lock().take();
        Self { session, stamp }
    }

    /// The command as it is sent now: what the session has had answers to in the meantime is acknowledged.
    fn stamped(&self, change: &[u8]) -> Bytes {
        let numbers = self.session.numbers.lock();
        let newer = (numbers.session() == self.stamp.session).then(|| numbers.again(self.stamp.sequence));
        drop(numbers);
        let stamp = newer.flatten().unwrap_or(self.stamp);
        let mut command = BytesMut::new();
        encode_in_session(stamp, change, &mut command)
            .expect("an encoded change and a number of its session");
        command.freeze()
    }
}

impl Drop for Number<'_> {
    fn drop(&mut self) {
        let mut numbers = self.session.numbers.lock();
        if numbers.session() == self.stamp.session {
            numbers.settle(self.stamp.sequence);
        }
    }
}

/// How long a call goes on, and what its tries have come to.
struct Patience {
    until: Mono,
    /// Whether a try may have happened, or may still happen, of which nothing was heard.
    tried_in_vain: bool,
}

impl Patience {
    fn of(options: &SessionOptions) -> Self {
        Self { until: clock::mono().after(options.patience), tried_in_vain: false }
    }

    /// What the last try's failure means for all tries together.
    fn in_all(&self, failure: WriteError) -> WriteError {
        match failure {
            failure if !self.tried_in_vain || failure.may_have_happened() => failure,
            WriteError::Stopped(reason) => WriteError::OutcomeUnknown(Uncertainty::Stopped(reason)),
            _ => WriteError::OutcomeUnknown(Uncertainty::NoAnswer),
        }
    }
}

/// Sends a command that may be sent again until the store answers it.
async fn send(
    client: &EmbeddedClient,
    patience: &mut Patience,
    command: impl Fn() -> Bytes,
) -> Result<(Reply, Durability), WriteError> {
    loop {
        let (failure, again) = match client.propose(command()).await {
            Ok((Reply::SessionRefused(error), durability)) => {
                // There will be room once others have their answers.
                let again =
                    matches!(error, SessionError::TooManyAnswers { .. } | SessionError::AnswersFull { .. });
                if !again {
                    return Ok((Reply::SessionRefused(error), durability));
                }
                (WriteError::Session(error), true)
            }
            Ok(answered) => return Ok(answered),
            Err(failure) => {
                let again = matches!(
                    failure,
                    WriteError::Busy
                        | WriteError::NoLeader
                        | WriteError::OutcomeUnknown(Uncertainty::NoAnswer)
                );
                patience.tried_in_vain |= failure.may_have_happened();
                (failure, again)
            }
        };
        if !again || clock::mono() >= patience.until {
            return Err(patience.in_all(failure));
        }
        let pause = client.alarm(clock::mono().after(PAUSE)).await;
        pause.map_err(|reason| patience.in_all(WriteError::Stopped(reason)))?;
    }
}

/// Opens a session. One that was opened without our hearing of it expires unused: nothing that matters to a caller has
/// happened.
async fn open(
    client: &EmbeddedClient,
    options: &SessionOptions,
    patience: &mut Patience,
) -> Result<SessionId, WriteError> {
    let mut open = BytesMut::new();
    kv::encode_open_session(options.timeout, &mut open)?;
    let open = open.freeze();
    let sent = send(client, patience, || open.clone()).await.map_err(|failure| match failure {
        WriteError::OutcomeUnknown(Uncertainty::Stopped(reason)) => WriteError::Stopped(reason),
        WriteError::OutcomeUnknown(_) => WriteError::NoLeader,
        failure => failure,
    });
    match sent? {
        (Reply::SessionOpened { session, .. }, _) => Ok(session),
        (Reply::SessionRefused(error), _) => Err(WriteError::Session(error)),
        (Reply::Refused(error), _) => Err(WriteError::Refused(error)),
        (reply, _) => unreachable!("opening a session is not answered with {reply:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ClientApi;
    use crate::embedded::{EmbeddedEngine, Runtime};
    use crate::kv::CommandError;
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake};

    struct Unpark(std::thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        let waker = Arc::new(Unpark(std::thread::current())).into();
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            std::thread::park();
        }
    }

    fn on_both<F: Future<Output = ()>>(test: impl Fn(EmbeddedClient) -> F) {
        for runtime in [Runtime::Tokio, Runtime::Glommio] {
            let dir = tempfile::tempdir().expect("a directory");
            let data = dir.path().join("data");
            let builder = EmbeddedEngine::builder().without_environment().data_dir(data).runtime(runtime);
            let builder = builder.configure(|c| c.log.allow_volatile = true);
            block_on(async {
                let engine = builder.start().await.expect("it starts");
                engine.wait_ready(Duration::from_secs(30)).await.expect("it leads");
                test(engine.client()).await;
            });
        }
    }

    fn options(timeout: Duration) -> SessionOptions {
        SessionOptions { timeout, ..SessionOptions::default() }
    }

    /// The same bytes reach the store twice, as after a lost answer.
    #[test]
    fn a_second_try_is_answered_like_the_first_and_changes_nothing() {
        on_both(|client| async move {
            let session = client.open_session(SessionOptions::default()).await.expect("opened");
            let swap = change::swap(client.maker(), b"k", &Expected::Absent, b"mine");
            let (swap, _) = swap.ready().expect("short");
            let number = Number::take(&session);
            let (first, _) = client.propose(number.stamped(&swap)).await.expect("answered");
            client.put("k", "theirs").await.expect("put");
            let (second, _) = client.propose(number.stamped(&swap)).await.expect("answered");
            assert!(matches!(first, Reply::Swapped { .. }), "{first:?}");
            assert_eq!(first, second);
            let read = client.get("k").await.expect("read").value.expect("there");
            assert_eq!((&read.value[..], read.version), (&b"theirs"[..], 2));
            // Without the session the second try would have failed by its own success.
            let without = client.compare_and_swap("k", Expected::Absent, "mine").await.expect("answered");
            assert!(!without.value.is_done());
        });
    }

    #[test]
    fn a_call_that_was_dropped_is_given_up() {
        on_both(|client| async move {
            let session = client.open_session(SessionOptions::default()).await.expect("opened");
            let (put, _) = change::put(client.maker(), b"k", b"late").ready().expect("short");
            let number = Number::take(&session);
            let late = number.stamped(&put);
            drop(number);
            session.put("k", "new").await.expect("put");
            let (refused, _) = client.propose(late).await.expect("answered");
            let expected = SessionError::Acknowledged { sequence: 1, first_unanswered: 2 };
            assert_eq!(refused, Reply::SessionRefused(expected));
            assert_eq!(client.get("k").await.expect("read").value.expect("there").value, "new");
        });
    }

    /// The store's time goes by with the entries' timestamps: `timeout` of it passes by writing.
    async fn outlive(client: &EmbeddedClient, timeout: Duration) {
        let log_time = || client.shared().store.read().log_time();
        let over = log_time().after(timeout);
        while log_time() < over {
            client.put("time", "passes").await.expect("put");
        }
    }

    #[test]
    fn a_session_that_expired_between_calls_is_replaced() {
        on_both(|client| async move {
            let timeout = Duration::from_millis(10);
            let session = client.open_session(options(timeout)).await.expect("opened");
            let id = session.id();
            outlive(&client, timeout).await;
            session.put("k", "1").await.expect("put in a new session");
            assert!(session.id() > id);
            assert_eq!(client.get("k").await.expect("read").value.expect("there").version, 1);
        });
    }

    #[test]
    fn a_session_that_expired_during_a_retry_leaves_the_outcome_unknown() {
        on_both(|client| async move {
            // Long enough for the first try on a busy machine.
            let timeout = Duration::from_millis(400);
            let session = client.open_session(options(timeout)).await.expect("opened");
            let number = Number::take(&session);
            let (put, _) = change::put(client.maker(), b"k", b"1").ready().expect("short");
            let command = number.stamped(&put);
            client.propose(command.clone()).await.expect("its answer is lost");
            outlive(&client, timeout).await;
            let mut patience = Patience { tried_in_vain: true, ..Patience::of(&session.options) };
            let (refused, _) = send(&client, &mut patience, || command.clone()).await.expect("answered");
            assert_eq!(refused, Reply::SessionRefused(SessionError::Gone { session: session.id() }));
            assert_eq!(client.get("k").await.expect("read").value.expect("there").version, 1);
        });
    }

    #[test]
    fn what_cannot_be_opened_is_refused() {
        on_both(|client| async move {
            for timeout in [Duration::ZERO, Duration::from_millis(9), Duration::from_secs(86_401)] {
                let refused = client.open_session(options(timeout)).await.expect_err("out of bounds");
                assert_eq!(refused, WriteError::Refused(CommandError::SessionTimeout { found: timeout }));
            }
            let session = client.open_session(SessionOptions::default()).await.expect("opened");
            let refused = session.put("", "x").await.expect_err("no key");
            assert_eq!(refused, WriteError::Refused(CommandError::EmptyKey));
            session.close().await.expect("closed");
        });
    }

    #[test]
    fn failures_are_summed_up_over_all_tries() {
        let stopped = || crate::api::StopReason::Requested;
        let unknown = || WriteError::OutcomeUnknown(Uncertainty::NoAnswer);
        for (tried_in_vain, last, all) in [
            (false, WriteError::NoLeader, WriteError::NoLeader),
            (true, WriteError::NoLeader, unknown()),
            (true, WriteError::Busy, unknown()),
            (true, unknown(), unknown()),
            (false, WriteError::Stopped(stopped()), WriteError::Stopped(stopped())),
            (
                true,
                WriteError::Stopped(stopped()),
                WriteError::OutcomeUnknown(Uncertainty::Stopped(stopped())),
            ),
        ] {
            let patience = Patience { until: Mono(0), tried_in_vain };
            assert_eq!(patience.in_all(last), all);
        }
    }
}

//! The engine in a program's own process.
//!
//! [`EmbeddedEngine`] starts a node on a thread of its own and stops it; [`EmbeddedClient`] makes calls to it, from any
//! async runtime or from none; [`Pipeline`] keeps many calls in flight from one thread; [`Session`] makes writes that
//! happen once, however often they must be tried; [`LeaderWatch`] tells who leads and [`MembershipWatch`] who belongs.

mod builder;
mod call;
mod change;
mod client;
mod ephemeral;
mod leader;
mod membership;
mod park;
mod pipeline;
mod reads;
mod session;
mod watch;

pub use crate::config::RuntimeKind as Runtime;
pub use builder::Builder;
pub use client::EmbeddedClient;
pub use leader::LeaderWatch;
pub use membership::MembershipWatch;
pub use pipeline::{Completed, Completion, Pipeline, PipelineError};
pub use session::Session;
pub use watch::Watch;

use crate::api::{
    AdminError, ClientApi, Leadership, Pace, ReadError, ReadLevel, ReadyError, StartError, Status, StopError,
    StopReason,
};
use crate::runtime::shared::Shared;
use crate::runtime::{self, Order, Started, clock};
use ephemeral::EphemeralDir;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;
use wal::NodeId;

/// Waits between two attempts at a read that was refused at once.
const PAUSE: Duration = Duration::from_millis(10);

/// A running node. Dropping it stops it too, and blocks until it has let go of its directory and port.
pub struct EmbeddedEngine {
    shared: Arc<Shared>,
    id: NodeId,
    default_read: ReadLevel,
    started: Option<Started>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Removed after the node has stopped.
    _ephemeral: Option<EphemeralDir>,
}

impl std::fmt::Debug for EmbeddedEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedEngine")
            .field("id", &self.id)
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}

impl EmbeddedEngine {
    /// Starts a node as the file named by `CONFIG_PATH` and the environment say.
    ///
    /// Without a configured data directory, a debug build of the library uses `./d-engine-data`; a release build asks for
    /// one.
    ///
    /// # Errors
    /// [`StartError`] says what was refused and what to do.
    pub async fn start() -> Result<Self, StartError> {
        Self::builder().start().await
    }

    /// Starts a node as the file at `path` and the environment say.
    ///
    /// # Errors
    /// [`StartError`] says what was refused and what to do.
    pub async fn with_config(path: impl AsRef<Path>) -> Result<Self, StartError> {
        Self::builder().config_file(path).start().await
    }

    /// Starts a node as a program says, on top of file and environment.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Starts a node on its own whose data is gone when it is dropped: for tests. Nothing is read from file or
    /// environment.
    ///
    /// # Errors
    /// [`StartError`] says what was refused and what to do.
    pub async fn ephemeral() -> Result<Self, StartError> {
        Builder::ephemeral().start().await
    }

    async fn launch(order: Order, ephemeral: Option<EphemeralDir>) -> Result<Self, StartError> {
        let (id, default_read) = (order.configuration.node.id, order.configuration.default_read);
        let starting = runtime::start(order)?;
        // From here on, dropping the future stops what was begun.
        let mut engine = Self {
            shared: starting.shared,
            id,
            default_read,
            started: None,
            thread: Mutex::new(Some(starting.thread)),
            _ephemeral: ephemeral,
        };
        engine.started = Some(std::future::poll_fn(|cx| starting.told.poll(cx)).await?);
        Ok(engine)
    }

    /// Returns once a leader is known and has confirmed that this node may serve.
    ///
    /// # Errors
    /// [`ReadyError::Timeout`] when that takes longer than `timeout`.
    pub async fn wait_ready(&self, timeout: Duration) -> Result<(), ReadyError> {
        let client = self.client();
        let mut ready = pin!(async {
            loop {
                match client.leave_to_read().await {
                    Ok(()) => return Ok(()),
                    Err(ReadError::Stopped(reason)) => return Err(reason),
                    Err(_) => client.alarm(clock::mono().after(PAUSE)).await?,
                }
            }
        });
        let mut late = pin!(client.alarm(clock::mono().after(timeout)));
        std::future::poll_fn(|cx| match (ready.as_mut().poll(cx), late.as_mut().poll(cx)) {
            (Poll::Ready(Ok(())), _) => Poll::Ready(Ok(())),
            (Poll::Ready(Err(reason)), _) | (_, Poll::Ready(Err(reason))) => {
                Poll::Ready(Err(ReadyError::Stopped(reason)))
            }
            (_, Poll::Ready(Ok(()))) => Poll::Ready(Err(ReadyError::Timeout { waited: timeout })),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
        })
        .await
    }

    /// A handle for calls. Make one for each thread or task.
    #[must_use]
    pub fn client(&self) -> EmbeddedClient {
        EmbeddedClient::new(Arc::clone(&self.shared), self.default_read)
    }

    /// Stops the node in order: waiting calls are answered, what is queued goes to the disk, the peers are told, and
    /// directory and port are free when this returns. Calls after that are refused; eventual reads still work.
    ///
    /// # Errors
    /// [`StopError::Failed`] if the node had stopped itself or its log could not be closed in order.
    pub async fn stop(&self) -> Result<(), StopError> {
        self.shared.request_stop();
        let reason = std::future::poll_fn(|cx| self.shared.poll_ended(cx)).await;
        self.join();
        match reason {
            StopReason::Requested => Ok(()),
            StopReason::Failed(reason) => Err(StopError::Failed(reason)),
        }
    }

    /// Why the node does not run any more; `None` while it does.
    #[must_use]
    pub fn stopped(&self) -> Option<StopReason> {
        self.shared.ended()
    }

    /// This node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Whether this node leads, as far as it knows: a leader that was cut off finds out within an election timeout.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.id)
    }

    /// Who leads, as far as this node knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.leadership().leader
    }

    /// Who leads in which term, as far as this node knows.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        self.shared.leadership()
    }

    /// Tells of changes of leadership from now on.
    #[must_use]
    pub fn watch_leader(&self) -> LeaderWatch {
        LeaderWatch::new(Arc::clone(&self.shared))
    }

    /// Tells of the members of the group, as this node knows them: those of now first, then each change.
    ///
    /// ```
    #[doc = include_str!("../api/example.txt")]
    /// let mut watch = engine.watch_membership();
    /// let members = watch.changed().await.expect("it runs");
    /// assert_eq!(members[0].id, engine.id());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn watch_membership(&self) -> MembershipWatch {
        MembershipWatch::new(self.client())
    }

    /// What this node is doing.
    ///
    /// # Errors
    /// [`AdminError`] if it is too busy or has stopped.
    pub async fn status(&self) -> Result<Status, AdminError> {
        self.client().status().await
    }

    /// Changes how much this node does at a time, at once and until it is changed again; a node that leads follows it. No
    /// call is refused for it that would not have been before, and no batch exceeds `limits.batch_bytes`. A tuner goes on
    /// from there, within its bounds.
    ///
    /// Returns the node's status with the pace that is in force.
    ///
    /// # Errors
    /// [`AdminError::Refused`] for a pace with a zero in it; otherwise if the node is too busy or has stopped.
    ///
    /// ```
    #[doc = include_str!("../api/example.txt")]
    /// let pace = engine.status().await?.pace;
    /// let slower = engine.set_pace(d_engine::api::Pace { batch_bytes: 64 << 10, ..pace }).await?;
    /// assert_eq!(slower.pace.batch_bytes, 64 << 10);
    /// # Ok(()) }
    /// ```
    pub async fn set_pace(&self, pace: Pace) -> Result<Status, AdminError> {
        self.client().set_pace(pace).await
    }

    /// Where it listens for peers; `None` for a node without any.
    #[must_use]
    pub fn listening(&self) -> Option<SocketAddr> {
        self.started.as_ref()?.listening
    }

    /// Which driver runs it: `glommio` or `tokio`.
    #[must_use]
    pub fn runtime(&self) -> &'static str {
        self.started.as_ref().map_or("none", |started| started.runtime)
    }

    /// Calls in flight, and answers not taken yet.
    #[must_use]
    pub fn calls_in_flight(&self) -> usize {
        self.shared.mailboxes.outstanding()
    }

    fn join(&self) {
        let Some(thread) = self.thread.lock().take() else { return };
        // A waker may have dropped the engine on the engine's own thread.
        if thread.thread().id() != std::thread::current().id() {
            // A panic on the thread was caught and is the reason it gave.
            let _ = thread.join();
        }
    }
}

impl Drop for EmbeddedEngine {
    fn drop(&mut self) {
        self.shared.request_stop();
        self.join();
    }
}

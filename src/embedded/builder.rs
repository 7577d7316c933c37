//! [`Builder`]: what a program decides about its engine, on top of file and environment.

use super::ephemeral::EphemeralDir;
use super::{EmbeddedEngine, Runtime};
use crate::api::{Durability, ReadLevel, StartError};
use crate::config::{
    Address, ByteCount, ClusterName, ConfigError, Configuration, Draft, LatencyTarget, Origin, Peer, TlsMode,
};
use crate::runtime::Order;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wal::NodeId;

/// Segments of an ephemeral log: small, since they are memory.
const EPHEMERAL_SEGMENT: ByteCount = ByteCount(4 << 20);

/// Configures an [`EmbeddedEngine`]. What is set here wins over the environment, and that over the file.
///
/// ```no_run
/// use d_engine::prelude::*;
///
/// # async fn example() -> Result<(), StartError> {
/// let engine = EmbeddedEngine::builder()
///     .node_id(1)
///     .cluster_name("orders")
///     .peers([(1, "db1.example:9081"), (2, "db2.example:9081"), (3, "db3.example:9081")])
///     .data_dir("/var/lib/orders")
///     .certificates("ca.pem", "db1.pem", "db1.key")
///     .start()
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "a builder does nothing before it is started"]
pub struct Builder {
    source: Source,
    create: bool,
    changes: Vec<Change>,
    ephemeral: Option<EphemeralDir>,
}

type Change = Box<dyn FnOnce(&mut Configuration) -> Result<(), ConfigError> + Send>;

/// What lies under the changes.
enum Source {
    /// The file, or the one named by the environment, and the environment.
    Outside(Option<PathBuf>),
    /// Nothing but the defaults.
    Defaults,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("changes", &self.changes.len()).finish_non_exhaustive()
    }
}

impl Builder {
    pub(super) fn new() -> Self {
        Self { source: Source::Outside(None), create: true, changes: Vec::new(), ephemeral: None }
    }

    /// A node on its own whose data is gone when it is dropped. Nothing is read from file or environment.
    pub fn ephemeral() -> Self {
        let dir = EphemeralDir::new();
        let path = dir.path().to_owned();
        let mut builder = Self { source: Source::Defaults, ..Self::new() }.configure(|c| {
            c.log.allow_volatile = true;
            c.log.segment_bytes = EPHEMERAL_SEGMENT;
            c.node.data_dir = Some(path);
        });
        builder.ephemeral = Some(dir);
        builder
    }

    /// Reads this file, instead of the one named by `CONFIG_PATH`.
    pub fn config_file(mut self, path: impl AsRef<Path>) -> Self {
        self.source = Source::Outside(Some(path.as_ref().to_owned()));
        self
    }

    /// Reads neither file nor environment.
    pub fn without_environment(mut self) -> Self {
        self.source = Source::Defaults;
        self
    }

    /// Changes anything in the configuration, after what was set before and before what is set later.
    pub fn configure(self, change: impl FnOnce(&mut Configuration) + Send + 'static) -> Self {
        self.try_configure(|configuration| {
            change(configuration);
            Ok(())
        })
    }

    fn try_configure(
        mut self,
        change: impl FnOnce(&mut Configuration) -> Result<(), ConfigError> + Send + 'static,
    ) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// Which of the peers this node is; from 1. Belongs to one data directory for ever.
    pub fn node_id(self, id: u64) -> Self {
        self.configure(move |c| c.node.id = NodeId(id))
    }

    /// The cluster's name, the same on every node.
    pub fn cluster_name(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.configure(move |c| c.node.cluster = ClusterName(name))
    }

    /// The cluster's id, the same on every node; for those who do not want it made from a name.
    pub fn cluster_id(self, id: u128) -> Self {
        self.cluster_name(format!("{id:032x}"))
    }

    /// Where the data lies. Created on the first start, unless [`must_exist`](Self::must_exist) is set.
    pub fn data_dir(self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        self.configure(move |c| c.node.data_dir = Some(path))
    }

    /// Refuses a data directory that does not hold this node's data already. For a member of a cluster that has run
    /// before: one that lost its disk must not come back empty under its old id, since it has forgotten its votes.
    pub fn must_exist(mut self) -> Self {
        self.create = false;
        self
    }

    /// All voters of the group, this node among them, with the addresses at which they reach each other. The same on
    /// every node.
    pub fn peers<A: Display>(self, peers: impl IntoIterator<Item = (u64, A)>) -> Self {
        let peers: Vec<_> =
            peers.into_iter().map(|(id, address)| (NodeId(id), address.to_string())).collect();
        self.try_configure(move |c| {
            let parsed = peers
                .into_iter()
                .map(|(id, text)| Ok(Peer { id, address: address("node.peers", &text)? }))
                .collect::<Result<_, _>>()?;
            c.node.peers = parsed;
            Ok(())
        })
    }

    /// Where to listen for peers, if that is not this node's address among them.
    pub fn listen(self, listen: impl Display) -> Self {
        let listen = listen.to_string();
        self.try_configure(move |c| {
            c.node.listen = Some(address("node.listen", &listen)?);
            Ok(())
        })
    }

    /// Which driver runs the loop.
    pub fn runtime(self, runtime: Runtime) -> Self {
        self.configure(move |c| c.runtime.kind = runtime)
    }

    /// Pins the loop to a core. Linux only.
    pub fn core(self, core: usize) -> Self {
        self.configure(move |c| c.runtime.core = Some(core))
    }

    /// What an acknowledgement promises. The same on every node.
    pub fn durability(self, durability: Durability) -> Self {
        self.configure(move |c| c.durability = durability)
    }

    /// How calls read that do not say how.
    pub fn default_read(self, level: ReadLevel) -> Self {
        self.configure(move |c| c.default_read = level)
    }

    /// How long a follower waits for a leader, at least, before it stands for election.
    pub fn election_timeout(self, timeout: Duration) -> Self {
        self.configure(move |c| c.raft.election_timeout = timeout)
    }

    /// How often a leader gives a sign of life.
    pub fn heartbeat(self, interval: Duration) -> Self {
        self.configure(move |c| c.raft.heartbeat = interval)
    }

    /// How long a call waits for its answer.
    pub fn request_timeout(self, timeout: Duration) -> Self {
        self.configure(move |c| c.raft.request_timeout = timeout)
    }

    /// Keeps the 99th percentile of commit latency under `target` while this node leads, by changing within their bounds
    /// how much it does at a time. What was decided is in the [`Status`](crate::api::Status) and logged with its reason.
    /// The bounds are in [`Configuration::tuner`].
    pub fn target_p99(self, target: Duration) -> Self {
        self.configure(move |c| c.tuner.target_p99 = LatencyTarget::Under(target))
    }

    /// From how many bytes of commands a batch takes no more.
    pub fn batch_soft_bytes(self, bytes: u64) -> Self {
        self.configure(move |c| c.limits.batch_soft_bytes = Some(ByteCount(bytes)))
    }

    /// How many batches may be on the way to this node's disk.
    pub fn batches_in_flight(self, batches: usize) -> Self {
        self.configure(move |c| c.limits.batches_in_flight = batches)
    }

    /// How many bytes of entries may be on the way to one peer.
    pub fn inflight_bytes(self, bytes: u64) -> Self {
        self.configure(move |c| c.limits.inflight_bytes = ByteCount(bytes))
    }

    /// Makes certificates by itself, of an authority in `dir` that the nodes of a cluster share. For development:
    /// whoever can read the directory is a member.
    pub fn development_certificates(self, dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        self.configure(move |c| {
            c.tls.mode = TlsMode::Development;
            c.tls.dir = Some(dir);
        })
    }

    /// Takes certificates from PEM files: the authority's, this node's, and this node's private key.
    pub fn certificates(
        self,
        authority: impl Into<PathBuf>,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        let (authority, certificate, key) = (authority.into(), certificate.into(), key.into());
        self.configure(move |c| {
            c.tls.mode = TlsMode::Files;
            (c.tls.ca, c.tls.cert, c.tls.key) = (Some(authority), Some(certificate), Some(key));
        })
    }

    /// The configuration as it would be started: complete, and judged as a whole.
    ///
    /// # Errors
    /// [`ConfigError`] names the field, where its value came from, and what would be right.
    pub fn build(self) -> Result<Configuration, ConfigError> {
        let Self { source, changes, .. } = self;
        let draft = match source {
            Source::Outside(file) => Draft::from_process(file.as_deref())?,
            Source::Defaults => Draft::default(),
        };
        let mut changed = Ok(());
        let draft = draft.change(|configuration| {
            changed = changes.into_iter().try_for_each(|change| change(configuration));
        });
        changed?;
        let loaded = draft.finish()?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        Ok(loaded.configuration)
    }

    /// Starts the engine: returns when its data is read, its port is bound and its loop runs. A leader may not be known
    /// yet; see [`EmbeddedEngine::wait_ready`].
    ///
    /// # Errors
    /// [`StartError`] says what was refused and what to do.
    pub async fn start(mut self) -> Result<EmbeddedEngine, StartError> {
        let (create, ephemeral) = (self.create, self.ephemeral.take());
        let configuration = self.build()?;
        let data_dir = match &configuration.node.data_dir {
            Some(path) => path.clone(),
            None if cfg!(debug_assertions) => {
                tracing::warn!("no data directory is configured: this debug build uses {DEBUG_DATA_DIR}");
                DEBUG_DATA_DIR.into()
            }
            None => return Err(StartError::NoDataDirectory),
        };
        EmbeddedEngine::launch(Order { configuration, data_dir, create }, ephemeral).await
    }
}

/// Where a debug build keeps the data of an engine that was not told where.
const DEBUG_DATA_DIR: &str = "./d-engine-data";

fn address(field: &'static str, text: &str) -> Result<Address, ConfigError> {
    text.parse().map_err(|problem| ConfigError::Value {
        field,
        found: text.to_owned(),
        origin: Origin::Code,
        problem,
    })
}

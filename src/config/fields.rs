//! The table: every field once, with its type, default, range and text. The structs, the environment's names, the
//! messages and the documentation come from here.

use super::error::{ConfigError, Origin, ValueProblem};
use super::value::{
    Address, ByteCount, ClusterName, Durability, LatencyTarget, PartsPerMillion, Peer, Raw, ReadLevel,
    RuntimeKind, Spin, TlsMode, Value, WakeLatency,
};
use std::path::PathBuf;
use std::time::Duration;
use wal::NodeId;

/// One field of the configuration.
#[derive(Clone, Copy)]
pub struct Field {
    /// Its name in the file: `section.key`, or `key` alone at the top.
    pub name: &'static str,
    /// Its default as text; empty when there is none.
    pub default: &'static str,
    /// What it accepts: a range `low..=high`, or words.
    pub accepts: &'static str,
    /// What it is for.
    pub doc: &'static str,
    pub(super) set: fn(&mut Configuration, &Raw) -> Result<(), ValueProblem>,
    pub(super) show: fn(&Configuration) -> String,
}

impl Field {
    /// Its environment variable.
    ///
    /// ```
    /// let field = &d_engine::config::FIELDS[0];
    /// assert_eq!((field.name, field.variable()), ("node.id", "D_ENGINE__NODE__ID".to_owned()));
    /// ```
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{}{}", super::VARIABLE_PREFIX, self.name.replace('.', "__").to_uppercase())
    }
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {:?} ({})", self.name, self.default, self.accepts)
    }
}

fn default<T: Value>(text: &str, accepts: &str) -> T {
    T::parse(&Raw::Word(text.to_owned()), accepts).expect("a test parses every default")
}

macro_rules! configuration {
    (
        top {
            $( $(#[doc = $top_doc:literal])* $top:ident: $top_type:ty = $top_default:literal, $top_accepts:literal; )*
        }
        $(
            $(#[doc = $section_doc:literal])*
            $section:ident: $Section:ident {
                $( $(#[doc = $doc:literal])* $field:ident: $type:ty = $default:literal, $accepts:literal; )*
            }
        )*
    ) => {
        $(
            $(#[doc = $section_doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $Section {
                $(
                    $(#[doc = $doc])*
                    #[doc = concat!("\n\nAccepts ", $accepts, "; default `", $default, "`.")]
                    pub $field: $type,
                )*
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $field: default($default, $accepts), )* }
                }
            }
        )*

        /// Everything a node is told before it starts. Made by [`Draft`](super::Draft).
        #[derive(Clone, Debug)]
        pub struct Configuration {
            $( $(#[doc = $section_doc])* pub $section: $Section, )*
            $(
                $(#[doc = $top_doc])*
                #[doc = concat!("\n\nAccepts ", $top_accepts, "; default `", $top_default, "`.")]
                pub $top: $top_type,
            )*
            /// Where each field of `FIELDS` came from.
            pub(super) origins: Vec<Origin>,
        }

        impl Default for Configuration {
            fn default() -> Self {
                Self {
                    $( $section: $Section::default(), )*
                    $( $top: default($top_default, $top_accepts), )*
                    origins: vec![Origin::Default; FIELDS.len()],
                }
            }
        }

        /// Every field there is, in the order of the file.
        pub const FIELDS: &[Field] = &[
            $($(
                Field {
                    name: concat!(stringify!($section), ".", stringify!($field)),
                    default: $default,
                    accepts: $accepts,
                    doc: concat!($($doc, "\n"),*),
                    set: |configuration, raw| {
                        configuration.$section.$field = Value::parse(raw, $accepts)?;
                        Ok(())
                    },
                    show: |configuration| configuration.$section.$field.show(),
                },
            )*)*
            $(
                Field {
                    name: stringify!($top),
                    default: $top_default,
                    accepts: $top_accepts,
                    doc: concat!($($top_doc, "\n"),*),
                    set: |configuration, raw| {
                        configuration.$top = Value::parse(raw, $top_accepts)?;
                        Ok(())
                    },
                    show: |configuration| configuration.$top.show(),
                },
            )*
        ];
    };
}

configuration! {
    top {
        /// What an acknowledged write promises: on a majority's disks, or in a majority's memory.
        durability: Durability = "disk-first", "disk-first or mem-first";
        /// How a plain `get` reads.
        default_read: ReadLevel = "linearizable", "linearizable, lease or eventual";
    }
    /// Who this node is and where it lives.
    node: Node {
        /// This node among its peers. It belongs to one data directory for ever.
        id: NodeId = "1", "1..=18446744073709551615";
        /// The cluster's name, the same on every node. 32 hexadecimal digits are the id itself; anything else is hashed.
        cluster: ClusterName = "d-engine", "1 to 255 characters";
        /// Where the log lies. Without one, a release build does not start.
        data_dir: Option<PathBuf> = "", "a path";
        /// Where peers reach this node. Without one: its own address among the peers, or `127.0.0.1:9081`.
        listen: Option<Address> = "", "host:port, port 0 for any free one";
        /// All voters, this node among them. None: a cluster of one.
        peers: Vec<Peer> = "", "a list of { id, address }, as text `1=host:port,2=host:port`";
    }
    /// Elections and requests.
    raft: Raft {
        /// How often a leader tells its peers that it is there, and that it relies on their voting for nobody else for three
        /// times this. They do, even if theirs is shorter, also through a restart. So nodes may differ; after the longest of
        /// theirs has led, the others wait for its promise to end, whatever they are configured with.
        heartbeat: Duration = "25ms", "1ms..=10s";
        /// How long a follower waits for a silent leader before it stands for election itself; each wait is drawn between
        /// this and twice this. A leader whose process is known to be gone is waited for no longer than three heartbeats, its
        /// own or the follower's, whichever are longer.
        election_timeout: Duration = "250ms", "10ms..=1m";
        /// By how much two nodes' monotonic clocks may differ in speed. A lease is three heartbeats less this part.
        drift_bound: PartsPerMillion = "10%", "0.0001%..=50%";
        /// How long a request may wait for its answer.
        request_timeout: Duration = "5s", "10ms..=10m";
    }
    /// The log on disk.
    log: Log {
        /// Size of one file of the log, zero-filled when it is made.
        segment_bytes: ByteCount = "64MiB", "64KiB..=1GiB";
        /// Whether the log may lie on a filesystem that forgets (tmpfs): for tests.
        allow_volatile: bool = "false", "true or false";
    }
    /// What may be held, sent and stored; beyond it requests are refused.
    limits: Limits {
        /// Commands in one entry of the log.
        batch_bytes: ByteCount = "1MiB", "4KiB..=16MiB";
        /// Commands from which a batch takes no more; a larger single command still makes one of its own. `auto` fills
        /// batches up to `batch_bytes`.
        batch_soft_bytes: Option<ByteCount> = "auto", "4KiB..=16MiB";
        /// Entries a leader may propose before the first of them is committed.
        batches_in_flight: usize = "1", "1..=64";
        /// Entries sent to one peer and not yet acknowledged.
        inflight_bytes: ByteCount = "4MiB", "4KiB..=1GiB";
        /// Recent entries kept in memory for peers that are behind.
        cache_bytes: ByteCount = "64MiB", "64KiB..=64GiB";
        /// Requests waiting for an answer.
        pending_requests: usize = "65536", "1..=16777216";
        /// Their commands.
        pending_bytes: ByteCount = "64MiB", "4KiB..=16GiB";
        /// The longest key.
        key_bytes: ByteCount = "4KiB", "1B..=64KiB";
        /// The longest value.
        value_bytes: ByteCount = "256KiB", "1B..=4MiB";
        /// Watches open at one time.
        watchers: usize = "65536", "0..=16777216";
        /// What watches were told lately, kept for those that have not yet taken it; a watch further behind reads the
        /// history.
        watch_bytes: ByteCount = "16MiB", "64KiB..=16GiB";
        /// The longest message between peers.
        message_bytes: ByteCount = "4MiB", "16KiB..=64MiB";
    }
    /// How much of what was is kept, to be read and watched from. Local: nodes may differ.
    history: History {
        /// Changes, one for each key of a revision.
        changes: usize = "100000", "1..=1000000000";
        /// Replaced and deleted values, keys, and what it costs to note a change.
        bytes: ByteCount = "64MiB", "64KiB..=1TiB";
        /// How long a change is kept, by the log's time.
        age: Option<Duration> = "any", "any or 1s..=36500d";
    }
    /// Keeps the 99th percentile of commit latency under a target, by changing some limits while the node leads. It starts
    /// from `limits.batch_soft_bytes`, `limits.batches_in_flight` and `limits.inflight_bytes`.
    tuner: Tuner {
        /// From handing a command over to its being applied, on the leader. `off` tunes nothing.
        target_p99: LatencyTarget = "off", "off or 10us..=1m";
        /// How long is measured at a time; a change is judged after five of these.
        interval: Duration = "250ms", "10ms..=1m";
        /// The lowest `limits.batch_soft_bytes` that is tried.
        batch_bytes_min: ByteCount = "16KiB", "4KiB..=16MiB";
        /// The highest; `auto` is `limits.batch_bytes`.
        batch_bytes_max: Option<ByteCount> = "auto", "4KiB..=16MiB";
        /// The lowest `limits.batches_in_flight` that is tried.
        batches_in_flight_min: usize = "1", "1..=64";
        /// The highest.
        batches_in_flight_max: usize = "8", "1..=64";
        /// The lowest `limits.inflight_bytes` that is tried.
        inflight_bytes_min: ByteCount = "256KiB", "4KiB..=1GiB";
        /// The highest.
        inflight_bytes_max: ByteCount = "16MiB", "4KiB..=1GiB";
    }
    /// How the loop is run.
    runtime: Runtime {
        /// `auto` takes glommio where the kernel allows what it needs, tokio elsewhere.
        kind: RuntimeKind = "auto", "auto, glommio or tokio";
        /// The core the loop is pinned to; `auto` leaves the choice to the runtime.
        core: Option<usize> = "auto", "0..=4095";
        /// How long an idle loop looks for work before it sleeps.
        spin: Spin = "auto", "auto, off or 1us..=100ms";
        /// How long a sleeping core may take to wake, asked of the kernel for all cores of the machine while the engine runs
        /// (Linux, PM QoS). `0us` keeps every core awake: the shortest latency for the price of all their idle time, above all
        /// on a virtual machine, where waking a core costs a visit to the host. Takes root, or access to
        /// `/dev/cpu_dma_latency`; the engine does not start where it is refused.
        wake_latency: WakeLatency = "any", "any or 0us..=1s";
    }
    /// Certificates of the connections between peers.
    tls: Tls {
        /// `development` makes certificates by itself; `files` takes yours.
        mode: TlsMode = "development", "development or files";
        /// Where development certificates lie. The nodes of one cluster share its authority.
        dir: Option<PathBuf> = "", "a path";
        /// The authority's certificate (PEM), with mode `files`.
        ca: Option<PathBuf> = "", "a path";
        /// This node's certificate (PEM), with mode `files`.
        cert: Option<PathBuf> = "", "a path";
        /// Its private key (PEM), with mode `files`.
        key: Option<PathBuf> = "", "a path";
    }
}

impl Configuration {
    /// Where a field's value came from; `None` for a name that is no field.
    #[must_use]
    pub fn origin(&self, name: &str) -> Option<&Origin> {
        let position = FIELDS.iter().position(|field| field.name == name)?;
        Some(&self.origins[position])
    }

    /// Every field with its value as text, in the order of the file.
    pub fn show(&self) -> impl Iterator<Item = (&'static Field, String, &Origin)> {
        FIELDS.iter().zip(&self.origins).map(|(field, origin)| (field, (field.show)(self), origin))
    }

    pub(super) fn set(&mut self, position: usize, raw: &Raw, origin: Origin) -> Result<(), ConfigError> {
        let field = &FIELDS[position];
        if let Err(problem) = (field.set)(self, raw) {
            return Err(ConfigError::Value { field: field.name, found: raw.to_string(), origin, problem });
        }
        self.origins[position] = origin;
        Ok(())
    }

    /// Where to listen: [`Node::listen`], else this node's address among its peers, else `127.0.0.1:9081`.
    #[must_use]
    pub fn listen_address(&self) -> Address {
        let own = self.node.peers.iter().find(|peer| peer.id == self.node.id);
        let fallback = || Address { host: "127.0.0.1".to_owned(), port: 9081 };
        self.node.listen.clone().or(own.map(|peer| peer.address.clone())).unwrap_or_else(fallback)
    }

    /// How long a node that heard its leader votes for nobody else, unless the leader asks for more: three heartbeats. One
    /// may be late or lost without the leader losing its lease.
    #[must_use]
    pub fn promise(&self) -> Duration {
        self.raft.heartbeat * 3
    }

    /// How long a lease lasts: the promise less the drift bound.
    #[must_use]
    pub fn lease(&self) -> Duration {
        let promise = self.promise();
        promise - promise * self.raft.drift_bound.0 / 1_000_000
    }

    /// What watches may take.
    #[must_use]
    pub fn watch_limits(&self) -> crate::kv::WatchLimits {
        crate::kv::WatchLimits {
            watchers: self.limits.watchers,
            recent_bytes: self.limits.watch_bytes.as_usize(),
        }
    }

    /// How much is done at a time, to begin with.
    #[must_use]
    pub fn pace(&self) -> crate::node::Pace {
        crate::node::Pace {
            batch_bytes: self.limits.batch_soft_bytes.unwrap_or(self.limits.batch_bytes).as_usize(),
            batches_in_flight: self.limits.batches_in_flight as u64,
            in_flight_bytes: self.limits.inflight_bytes.as_usize(),
        }
    }

    /// Between what the tuner may choose.
    #[must_use]
    pub fn tuner_bounds(&self) -> crate::node::tuner::Bounds {
        use crate::node::tuner::{Bounds, Span};
        let tuner = &self.tuner;
        let most = tuner.batch_bytes_max.unwrap_or(self.limits.batch_bytes);
        Bounds {
            batch_bytes: Span { least: tuner.batch_bytes_min.0, most: most.0 },
            batches_in_flight: Span {
                least: tuner.batches_in_flight_min as u64,
                most: tuner.batches_in_flight_max as u64,
            },
            in_flight_bytes: Span { least: tuner.inflight_bytes_min.0, most: tuner.inflight_bytes_max.0 },
        }
    }

    /// How much history the store keeps.
    #[must_use]
    pub fn retention(&self) -> crate::kv::Retention {
        let History { changes, bytes, age } = self.history;
        crate::kv::Retention { changes, bytes: bytes.0, age }
    }

    /// The store's limits.
    #[must_use]
    pub fn kv_limits(&self) -> crate::kv::Limits {
        crate::kv::Limits {
            key_bytes: self.limits.key_bytes.as_usize(),
            value_bytes: self.limits.value_bytes.as_usize(),
        }
    }
}

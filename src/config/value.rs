//! The types of fields: how each reads text and TOML, and how it shows itself. What a type shows, it reads back.

use super::error::{ValueProblem, nearest};
use bytesize::ByteSize;
use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;
use wal::{ClusterId, NodeId};
use xxhash_rust::xxh3::xxh3_128;

/// A value before its field has looked at it.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    /// From environment or code: text that may stand for anything.
    Word(String),
    /// An environment variable set to nothing.
    Empty,
    /// An environment variable that is not text.
    NotUnicode,
    /// The rest as TOML types it.
    Text(String),
    Integer(i128),
    Boolean(bool),
    Float(String),
    Date(String),
    List(Vec<Raw>),
    Table(Vec<(String, Raw)>),
}

impl Raw {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Word(_) | Self::Text(_) => "text",
            Self::Empty => "nothing",
            Self::NotUnicode => "bytes",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "a boolean",
            Self::Float(_) => "a float",
            Self::Date(_) => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    fn text(&self, expected: &'static str) -> Result<&str, ValueProblem> {
        match self {
            Self::Word(text) | Self::Text(text) => Ok(text),
            _ => Err(self.mistyped(expected)),
        }
    }

    fn mistyped(&self, expected: &'static str) -> ValueProblem {
        match self {
            Self::Empty => ValueProblem::Empty,
            Self::NotUnicode => ValueProblem::NotUnicode,
            _ => ValueProblem::Type { expected, found: self.kind() },
        }
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) | Self::Text(text) => write!(f, "{text:?}"),
            Self::Empty => f.write_str("\"\""),
            Self::NotUnicode => f.write_str("(bytes)"),
            Self::Integer(number) => number.fmt(f),
            Self::Boolean(value) => value.fmt(f),
            Self::Float(text) | Self::Date(text) => f.write_str(text),
            Self::List(_) => f.write_str("[…]"),
            Self::Table(_) => f.write_str("{…}"),
        }
    }
}

/// A type that a field can have.
pub(super) trait Value: Sized {
    /// Reads a value; `accepts` is the field's range or words.
    fn parse(raw: &Raw, accepts: &str) -> Result<Self, ValueProblem>;
    /// The value as text that `parse` takes.
    fn show(&self) -> String;
}

/// Holds `value` against `low..=high`, both in the type's own text.
fn within<T: PartialOrd>(
    value: T,
    accepts: &str,
    read: impl Fn(&str) -> Result<T, ValueProblem>,
) -> Result<T, ValueProblem> {
    let (low, high) = accepts.split_once("..=").expect("a ranged field declares low..=high");
    if value < read(low)? || value > read(high)? {
        return Err(ValueProblem::Range { low: low.to_owned(), high: high.to_owned() });
    }
    Ok(value)
}

fn text_problem(expected: &'static str, why: impl fmt::Display) -> ValueProblem {
    ValueProblem::Text { expected, why: why.to_string() }
}

const A_DURATION: &str = "a duration with its unit, as \"250ms\"";
const A_SIZE: &str = "a size with its unit, as \"64KiB\"";
const A_NUMBER: &str = "a whole number";

fn duration(text: &str) -> Result<Duration, ValueProblem> {
    humantime::parse_duration(text).map_err(|error| text_problem(A_DURATION, error))
}

impl Value for Duration {
    fn parse(raw: &Raw, accepts: &str) -> Result<Self, ValueProblem> {
        within(duration(raw.text(A_DURATION)?)?, accepts, duration)
    }

    fn show(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

impl Value for Option<Duration> {
    fn parse(raw: &Raw, _: &str) -> Result<Self, ValueProblem> {
        match raw.text("\"any\" or a duration")? {
            "any" => Ok(None),
            _ => Duration::parse(raw, "1s..=36500d").map(Some),
        }
    }

    fn show(&self) -> String {
        self.map_or("any".to_owned(), |duration| duration.show())
    }
}

/// A number of bytes. As text: "64KiB", "1.5MB", "100B".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(pub u64);

impl ByteCount {
    /// The same as the length of something in memory.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(bytes, _)| self.0 > 0 && self.0.is_multiple_of(*bytes)) {
            Some((bytes, unit)) => write!(f, "{}{unit}", self.0 / bytes),
            None => write!(f, "{}B", self.0),
        }
    }
}

fn byte_count(text: &str) -> Result<ByteCount, ValueProblem> {
    if text.ends_with(|last: char| last.is_ascii_digit()) {
        return Err(text_problem(A_SIZE, "the unit is missing"));
    }
    match text.parse::<ByteSize>() {
        Ok(size) => Ok(ByteCount(size.0)),
        Err(_) if text.starts_with('-') => Err(text_problem(A_SIZE, "a size is not negative")),
        Err(_) => Err(text_problem(A_SIZE, "this is none")),
    }
}

impl Value for ByteCount {
    fn parse(raw: &Raw, accepts: &str) -> Result<Self, ValueProblem> {
        within(byte_count(raw.text(A_SIZE)?)?, accepts, byte_count)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Option<ByteCount> {
    fn parse(raw: &Raw, accepts: &str) -> Result<Self, ValueProblem> {
        match raw.text("\"auto\" or a size")? {
            "auto" => Ok(None),
            _ => ByteCount::parse(raw, accepts).map(Some),
        }
    }

    fn show(&self) -> String {
        self.map_or("auto".to_owned(), |bytes| bytes.show())
    }
}

fn whole(text: &str) -> Result<i128, ValueProblem> {
    text.parse().map_err(|error| text_problem(A_NUMBER, error))
}

fn number(raw: &Raw, accepts: &str) -> Result<i128, ValueProblem> {
    let found = match raw {
        Raw::Integer(number) => *number,
        Raw::Word(text) => whole(text)?,
        _ => return Err(raw.mistyped(A_NUMBER)),
    };
    within(found, accepts, whole)
}

impl Value for usize {
    fn parse(raw: &Raw, accepts: &str) -> Result<Self, ValueProblem> {
        Ok(usize::try_from(number(raw, accepts)?).expect("ranges fit their type"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Option<usize> {
    fn parse(raw: &Raw, accepts: &str) -> Result<Self, ValueProblem> {
        match raw {
            Raw::Word(text) | Raw::Text(text) if text == "auto" => Ok(None),
            _ => usize::parse(raw, accepts).map(Some),
        }
    }

    fn show(&self) -> String {
        self.map_or("auto".to_owned(), |number| number.to_string())
    }
}

impl Value for NodeId {
    fn parse(raw: &Raw, accepts: &str) -> Result<Self, ValueProblem> {
        Ok(NodeId(u64::try_from(number(raw, accepts)?).expect("ranges fit their type")))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for bool {
    fn parse(raw: &Raw, _: &str) -> Result<Self, ValueProblem> {
        match raw {
            Raw::Boolean(value) => Ok(*value),
            Raw::Word(text) if text == "true" => Ok(true),
            Raw::Word(text) if text == "false" => Ok(false),
            _ => Err(raw.mistyped("true or false")),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

const A_PATH: &str = "a path";

impl Value for Option<PathBuf> {
    fn parse(raw: &Raw, _: &str) -> Result<Self, ValueProblem> {
        match raw {
            Raw::Word(text) if text.is_empty() => Ok(None),
            Raw::Text(text) if text.is_empty() => Err(text_problem(A_PATH, "it is empty")),
            _ => match raw.text(A_PATH)? {
                text if text.contains('\0') => Err(text_problem(A_PATH, "it holds a NUL")),
                text => Ok(Some(text.into())),
            },
        }
    }

    fn show(&self) -> String {
        self.as_ref().map_or(String::new(), |path| path.display().to_string())
    }
}

/// A part of a whole, in millionths. As text: "10%", "0.5%".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartsPerMillion(pub u32);

impl fmt::Display for PartsPerMillion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:04}", self.0 / 10_000, self.0 % 10_000);
        write!(f, "{}%", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

fn parts(text: &str) -> Result<PartsPerMillion, ValueProblem> {
    let wrong = |why| text_problem("a percentage, as \"10%\" or \"0.5%\"", why);
    let number = text.strip_suffix('%').ok_or_else(|| wrong("the % is missing"))?.trim_end();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if number.starts_with('-') {
        return Err(wrong("it is not negative"));
    }
    if !digits(whole) || !digits(fraction) {
        return Err(wrong("this is none"));
    }
    if fraction.len() > 4 {
        return Err(wrong("four digits after the point are the most"));
    }
    let millionths = format!("{whole}{fraction:0<4}").parse().map_err(|_| wrong("it is far too large"))?;
    Ok(PartsPerMillion(millionths))
}

impl Value for PartsPerMillion {
    fn parse(raw: &Raw, accepts: &str) -> Result<Self, ValueProblem> {
        within(parts(raw.text("a percentage, as \"10%\"")?)?, accepts, parts)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// The name that the nodes of a cluster have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterName(pub String);

impl ClusterName {
    /// The id it stands for: 32 hexadecimal digits are the id, any other name is hashed.
    ///
    /// ```
    /// use d_engine::config::ClusterName;
    /// let name = |text: &str| ClusterName(text.to_owned()).id();
    /// assert_eq!(name("0000000000000000000000000000002a").0, 42);
    /// assert_ne!(name("orders"), name("orders-test"));
    /// ```
    #[must_use]
    pub fn id(&self) -> ClusterId {
        let is_id = self.0.len() == 32 && self.0.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = is_id.then(|| u128::from_str_radix(&self.0, 16).expect("32 hexadecimal digits"));
        ClusterId(id.unwrap_or_else(|| xxh3_128(self.0.as_bytes())))
    }
}

impl Value for ClusterName {
    fn parse(raw: &Raw, _: &str) -> Result<Self, ValueProblem> {
        const EXPECTED: &str = "a name of 1 to 255 characters";
        let text = raw.text(EXPECTED)?;
        match text.chars().count() {
            0 => Err(text_problem(EXPECTED, "it is empty")),
            length if length > 255 => Err(text_problem(EXPECTED, format!("it has {length}"))),
            _ if text.chars().any(char::is_control) => {
                Err(text_problem(EXPECTED, "it holds control characters"))
            }
            _ => Ok(Self(text.to_owned())),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A place on the network, not resolved yet. As text: `host:port`, `[::1]:9081`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// A host name or an IP address (version 6 without brackets).
    pub host: String,
    /// The UDP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

const AN_ADDRESS: &str = "an address, as \"node-1.example:9081\" or \"[::1]:9081\"";

impl std::str::FromStr for Address {
    type Err = ValueProblem;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: &str| text_problem(AN_ADDRESS, why);
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port =
            port.parse().ok().filter(|_| digits).ok_or_else(|| wrong("the port is not from 0 to 65535"))?;
        let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(inner) => {
                let inner = inner.ok_or_else(|| wrong("the bracket is not closed"))?;
                let address = inner.split_once('%').map_or(inner, |(address, _scope)| address);
                address
                    .parse::<Ipv6Addr>()
                    .map_err(|_| wrong("no IPv6 address stands between the brackets"))?;
                inner
            }
            None if host.contains(':') => return Err(wrong("an IPv6 address stands between brackets")),
            None => host,
        };
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
        match host.len() {
            0 => Err(wrong("the host is missing")),
            254.. => Err(wrong("a host name has at most 253 characters")),
            _ if !host.bytes().all(named) => Err(wrong("the host holds characters that no host name has")),
            _ => Ok(Self { host: host.to_ascii_lowercase(), port }),
        }
    }
}

impl Value for Option<Address> {
    fn parse(raw: &Raw, _: &str) -> Result<Self, ValueProblem> {
        match raw {
            Raw::Word(text) if text.is_empty() => Ok(None),
            _ => raw.text(AN_ADDRESS)?.parse().map(Some),
        }
    }

    fn show(&self) -> String {
        self.as_ref().map_or(String::new(), Address::to_string)
    }
}

/// A voter and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: NodeId,
    /// Its address, as the other nodes reach it.
    pub address: Address,
}

const A_PEER: &str = "{ id = 1, address = \"host:port\" } or \"1=host:port\"";

impl Peer {
    fn parse(raw: &Raw) -> Result<Self, ValueProblem> {
        let (id, address) = match raw {
            Raw::Table(fields) => {
                if let Some((name, _)) = fields.iter().find(|(name, _)| name != "id" && name != "address") {
                    return Err(text_problem(A_PEER, format!("it has the unknown key {name}")));
                }
                let value = |key| fields.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
                let missing = |key| text_problem(A_PEER, format!("one has no {key}"));
                (
                    value("id").ok_or_else(|| missing("id"))?,
                    value("address").ok_or_else(|| missing("address"))?,
                )
            }
            _ => {
                let text = raw.text(A_PEER)?;
                let parts = text.trim().split_once('=');
                let (id, address) = parts.ok_or_else(|| text_problem(A_PEER, format!("found {text:?}")))?;
                (Raw::Word(id.trim().to_owned()), Raw::Text(address.trim().to_owned()))
            }
        };
        let id = NodeId::parse(&id, "1..=18446744073709551615")
            .map_err(|problem| text_problem(A_PEER, format!("id = {id}: {problem}")))?;
        let address: Address = address.text(AN_ADDRESS)?.parse()?;
        if address.port == 0 {
            return Err(text_problem(A_PEER, format!("a peer cannot be reached at port 0 ({id}={address})")));
        }
        Ok(Self { id, address })
    }
}

impl Value for Vec<Peer> {
    fn parse(raw: &Raw, _: &str) -> Result<Self, ValueProblem> {
        match raw {
            Raw::Word(text) if text.is_empty() => Ok(Vec::new()),
            Raw::Word(text) => text.split(',').map(|peer| Peer::parse(&Raw::Word(peer.to_owned()))).collect(),
            Raw::List(items) => items.iter().map(Peer::parse).collect(),
            _ => Err(raw.mistyped("a list of peers")),
        }
    }

    fn show(&self) -> String {
        let peers: Vec<_> = self.iter().map(|peer| format!("{}={}", peer.id, peer.address)).collect();
        peers.join(",")
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $( $(#[$variant_doc:meta])* $variant:ident = $word:literal, )* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[$variant_doc])* $variant, )* }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $( Self::$variant => $word, )* })
            }
        }

        impl Value for $name {
            fn parse(raw: &Raw, accepts: &str) -> Result<Self, ValueProblem> {
                match raw.text("a word")? {
                    $( $word => Ok(Self::$variant), )*
                    other => {
                        let words = [$($word),*];
                        let nearest = nearest(other, words.into_iter());
                        let nearest = words.into_iter().find(|word| Some(*word) == nearest.as_deref());
                        Err(ValueProblem::Word { accepts: accepts.to_owned(), nearest })
                    }
                }
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    };
}

words! {
    /// What an acknowledged write promises.
    Durability {
        /// It is on the disks of a majority.
        DiskFirst = "disk-first",
        /// It is in the memory of a majority and on its way to their disks.
        MemFirst = "mem-first",
    }
}

words! {
    /// How a read is done.
    ReadLevel {
        /// Sees every write acknowledged before it began; asks a majority.
        Linearizable = "linearizable",
        /// The same as long as clocks keep the drift bound; asks nobody.
        Lease = "lease",
        /// What this node has applied.
        Eventual = "eventual",
    }
}

words! {
    /// What runs the loop.
    RuntimeKind {
        /// The best that this machine allows.
        Auto = "auto",
        /// One pinned core, io_uring. Linux only.
        Glommio = "glommio",
        /// One thread, epoll or kqueue.
        Tokio = "tokio",
    }
}

words! {
    /// Where certificates come from.
    TlsMode {
        /// Made by the engine, for development.
        Development = "development",
        /// Files of yours.
        Files = "files",
    }
}

/// How long an idle loop looks for work before it sleeps. As text: "auto", "off", "50us".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spin {
    /// As it pays.
    Auto,
    /// Not at all.
    Off,
    /// This long.
    For(Duration),
}

impl Value for Spin {
    fn parse(raw: &Raw, _: &str) -> Result<Self, ValueProblem> {
        match raw.text("\"auto\", \"off\" or a duration")? {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => Duration::parse(raw, "1us..=100ms").map(Self::For),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Off => "off".to_owned(),
            Self::For(duration) => duration.show(),
        }
    }
}

/// How long a sleeping core of the machine may take to wake while the engine runs. As text: "any", "0us".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeLatency {
    /// As long as the machine is set up to take.
    Any,
    /// At most this; the kernel lets cores sleep only as deeply as that allows, and at zero not at all.
    AtMost(Duration),
}

impl Value for WakeLatency {
    fn parse(raw: &Raw, _: &str) -> Result<Self, ValueProblem> {
        match raw.text("\"any\" or a duration from 0us to 1s, as \"0us\"")? {
            "any" => Ok(Self::Any),
            _ => Duration::parse(raw, "0us..=1s").map(Self::AtMost),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Any => "any".to_owned(),
            Self::AtMost(duration) => duration.show(),
        }
    }
}

/// What the tuner keeps the 99th percentile of commit latency under. As text: "off", "5ms".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatencyTarget {
    /// Nothing is tuned.
    Off,
    /// This.
    Under(Duration),
}

impl Value for LatencyTarget {
    fn parse(raw: &Raw, _: &str) -> Result<Self, ValueProblem> {
        const EXPECTED: &str = "\"off\" or a duration from 10us to 1m, as \"5ms\"";
        match raw.text(EXPECTED)? {
            "off" => Ok(Self::Off),
            text => match duration(text)? {
                Duration::ZERO => {
                    Err(text_problem(EXPECTED, "nothing takes no time; to tune nothing, say \"off\""))
                }
                _ => Duration::parse(raw, "10us..=1m").map(Self::Under),
            },
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::Under(duration) => duration.show(),
        }
    }
}

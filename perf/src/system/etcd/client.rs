//! The generator for etcd: a process of its own, started by the coordinator, that makes calls over gRPC.
//!
//! One thread runs the connections and makes the calls, as cheaply as the protocol's client allows: calls are futures
//! polled where they are awaited, without a channel or another thread in between.

use super::messages::{
    PUT, PutRequest, PutResponse, RANGE, RangeRequest, RangeResponse, WATCH, WatchCreate, WatchRequest,
    WatchResponse,
};
use super::timer::Timer;
use crate::allocations;
use crate::generator::{self, Ask, Client, Done, Failure, Level, Material, watch};
use crate::outage::writer::{self, Writer};
use crate::outage::{Task, Told};
use crate::protocol::{Counters, Loaded, Order, Report, Snapshot};
use crate::usage::ProcessUsage;
use crate::workload::{Call, KEY_BYTES, Workload};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, SelectAll, StreamExt};
use http::uri::PathAndQuery;
use std::future::poll_fn;
use std::io::{self, BufRead, Write};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::unconstrained;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// Large enough that no answer waits for a window.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Obeys until told to stop, or until the orders end.
pub fn run() -> Result<(), String> {
    let mut out = io::stdout().lock();
    let mut say = |report: &Report| -> Result<(), String> {
        let line = serde_json::to_string(report).map_err(|error| error.to_string())?;
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| error.to_string())
    };
    let mut calls = Calls::new().map_err(|error| error.to_string())?;
    say(&Report::Ready { runtime: "tonic".into() })?;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let order: Order = serde_json::from_str(&line).map_err(|error| format!("order {line:?}: {error}"))?;
        let done = match order {
            Order::Snapshot => Ok(Report::Snapshot(Box::new(snapshot()))),
            Order::Aim { endpoint, connections } => calls.aim(&endpoint, connections).map(|()| Report::Done),
            Order::Fill(workload) => {
                generator::fill(&mut calls, &Material::of(&workload)).map(|()| Report::Done)
            }
            Order::Prepare(workload) => calls.prepare(workload).map(|()| Report::Done),
            Order::Load { slice } => calls.load(slice).map(|loaded| Report::Loaded(Box::new(loaded))),
            Order::Client(task) => calls.carry_out(task).map(|told| Report::Client(Box::new(told))),
            Order::Transfer { .. } => Err("that is for a node".into()),
            Order::Stop => break,
        };
        say(&done.unwrap_or_else(|reason| Report::Failed { reason }))?;
    }
    Ok(())
}

fn snapshot() -> Snapshot {
    Snapshot {
        leads: false,
        term: 0,
        usage: ProcessUsage::of_self(),
        allocations: allocations::so_far(),
        counters: Counters::default(),
    }
}

struct Calls {
    // Before the runtime: what is dropped later would find it gone.
    in_flight: FuturesUnordered<LocalBoxFuture<'static, Done>>,
    prepared: Option<Prepared>,
    connections: Vec<Channel>,
    /// Where they lead.
    aimed: String,
    writer: Option<Writer>,
    timer: Timer,
    runtime: Runtime,
    number: u64,
    put: PathAndQuery,
    range: PathAndQuery,
}

struct Prepared {
    workload: Workload,
    material: Material,
    audience: SelectAll<Streaming<WatchResponse>>,
}

impl Calls {
    fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let timer = {
            let _inside = runtime.enter();
            Timer::new()?
        };
        Ok(Self {
            in_flight: FuturesUnordered::new(),
            prepared: None,
            connections: Vec::new(),
            aimed: String::new(),
            writer: None,
            timer,
            runtime,
            number: 0,
            put: PathAndQuery::from_static(PUT),
            range: PathAndQuery::from_static(RANGE),
        })
    }

    fn aim(&mut self, endpoint: &str, connections: usize) -> Result<(), String> {
        endpoint.clone_into(&mut self.aimed);
        let endpoint = Endpoint::from_shared(endpoint.to_owned())
            .map_err(|error| error.to_string())?
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        self.prepared = None;
        self.connections.clear();
        for _ in 0..connections.max(1) {
            let connected = self.runtime.block_on(endpoint.connect());
            self.connections
                .push(connected.map_err(|error| format!("connecting to {}: {error:?}", endpoint.uri()))?);
        }
        Ok(())
    }

    /// What a client does while the servers are hurt. Writing goes on in a thread with connections of its own.
    fn carry_out(&mut self, task: Task) -> Result<Told, String> {
        match task {
            Task::Write { round, in_flight } => {
                let (endpoint, connections) = (self.aimed.clone(), self.connections.len());
                let begin = move || {
                    let mut calls = Self::new().map_err(|error| error.to_string())?;
                    calls.aim(&endpoint, connections).map(|()| calls)
                };
                self.writer = Some(Writer::begin(begin, round, in_flight));
                Ok(Told::Writing)
            }
            Task::Recovered { since } => {
                let writer = self.writer.as_ref().ok_or(writer::IDLE)?;
                Ok(Told::Recovered(writer.recovered(since)))
            }
            Task::Tell => self.writer.take().ok_or(writer::IDLE)?.end().map(Told::Record),
            Task::ReadBack { round, runs } => {
                let channel = self.connections.first().ok_or("aimed at no server")?;
                let get = |key: [u8; KEY_BYTES]| {
                    let key = Bytes::copy_from_slice(&key);
                    let request = RangeRequest { key, range_end: Bytes::new(), serializable: false };
                    let (channel, path) = (channel.clone(), self.range.clone());
                    async move { range(channel, path, request).await.map_err(|status| described(&status)) }
                };
                self.runtime.block_on(writer::read_back(get, round, &runs)).map(Told::ReadBack)
            }
            Task::Grow { .. } | Task::First | Task::Stand => Err("that is for a node".into()),
        }
    }

    fn prepare(&mut self, workload: Workload) -> Result<(), String> {
        self.prepared = None;
        let audience = match workload.call {
            Call::Watch { watchers } => {
                let opened = open(&self.connections, watchers);
                self.runtime.block_on(opened)?
            }
            _ => SelectAll::new(),
        };
        self.prepared = Some(Prepared { workload, material: Material::of(&workload), audience });
        Ok(())
    }

    fn load(&mut self, slice: Duration) -> Result<Loaded, String> {
        let mut prepared = self.prepared.take().ok_or("a load that was not prepared")?;
        let Prepared { workload, material, audience } = &mut prepared;
        let Call::Watch { watchers } = workload.call else {
            let loaded = generator::run(self, workload, slice, material);
            self.prepared = Some(prepared);
            return Ok(loaded);
        };
        let loaded = self.show(audience, workload, watchers, slice);
        // Watches that nobody reads keep a server busy, beside whoever has the next turn. That they are over is said while the
        // runtime runs, and not before.
        drop(prepared);
        self.runtime.block_on(tokio::time::sleep(GOING));
        Ok(loaded)
    }

    fn show(
        &self,
        audience: &mut SelectAll<Streaming<WatchResponse>>,
        workload: &Workload,
        watchers: u32,
        slice: Duration,
    ) -> Loaded {
        let put = |number| {
            let (channel, path) = (self.connections[0].clone(), self.put.clone());
            let key = Bytes::from(watch::key(number));
            let value = Bytes::from(watch::value(number, workload.value_bytes));
            async move {
                let written = put(channel, path, PutRequest { key, value }).await;
                written.map_err(Failure::into_message)
            }
        };
        let mut deliveries = audience.flat_map(|response| {
            let numbers: Vec<Result<u64, String>> = match response {
                Err(status) => vec![Err(described(&status))],
                Ok(response) if response.canceled => {
                    vec![Err(format!("a watch was canceled: {}", response.cancel_reason))]
                }
                Ok(response) => {
                    let value = |event: &super::messages::WatchEvent| match &event.kv {
                        Some(kv) => watch::number(&kv.value),
                        None => Err("an event without a key".to_owned()),
                    };
                    response.events.iter().map(value).collect()
                }
            };
            futures_util::stream::iter(numbers)
        });
        self.runtime.block_on(watch::run(put, &mut deliveries, watchers, slice))
    }
}

impl Client for Calls {
    fn answers_at_once(&self, _: Call) -> bool {
        false
    }

    fn call(&mut self, _: Ask<'_>) -> Result<(), String> {
        Err("nothing is answered at once".into())
    }

    fn submit(&mut self, ask: Ask<'_>) -> Result<u64, String> {
        let number = self.number;
        let position = usize::try_from(number).unwrap_or(0) % self.connections.len().max(1);
        let channel = self.connections.get(position).ok_or("aimed at no server")?.clone();
        self.number += 1;
        self.in_flight.push(match ask {
            Ask::Put { key, value } => {
                let (path, request) =
                    (self.put.clone(), PutRequest { key: key.clone(), value: value.clone() });
                Box::pin(async move { Done { number, result: put(channel, path, request).await } })
            }
            Ask::Get { key, level } => {
                let path = self.range.clone();
                let serializable = match level {
                    Level::Eventual => true,
                    Level::Linearizable => false,
                    Level::Lease => return Err("etcd has no reads by lease".into()),
                };
                let request = RangeRequest { key: key.clone(), range_end: Bytes::new(), serializable };
                Box::pin(async move { Done { number, result: get(channel, path, request).await } })
            }
        });
        Ok(number)
    }

    fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn wait(&mut self, until: Option<Instant>, done: &mut Vec<Done>) {
        let Self { in_flight, timer, runtime, .. } = self;
        if let Some(until) = until {
            timer.set(until);
        }
        let turn = poll_fn(|context| {
            let before = done.len();
            while let Poll::Ready(Some(answer)) = in_flight.poll_next_unpin(context) {
                done.push(answer);
            }
            let over = match until {
                Some(_) => timer.poll(context).is_ready(),
                None => in_flight.is_empty(),
            };
            if done.len() > before || over { Poll::Ready(()) } else { Poll::Pending }
        });
        // With a budget, the executor would let answers beyond it wait for a wake-up that it forgets when this returns.
        runtime.block_on(unconstrained(turn));
    }
}

async fn put(channel: Channel, path: PathAndQuery, request: PutRequest) -> Result<(), Failure> {
    let mut grpc = Grpc::new(channel);
    // Nothing was sent.
    grpc.ready().await.map_err(|error| Failure::Refused(error.to_string()))?;
    let codec = ProstCodec::<PutRequest, PutResponse>::default();
    grpc.unary(Request::new(request), path, codec).await.map(drop).map_err(|status| failure(&status))
}

async fn get(channel: Channel, path: PathAndQuery, request: RangeRequest) -> Result<(), Failure> {
    match range(channel, path, request).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(Failure::Refused("a key that was filled is not there".into())),
        Err(status) => Err(Failure::Refused(described(&status))),
    }
}

/// The value of the one key that is asked for.
async fn range(channel: Channel, path: PathAndQuery, request: RangeRequest) -> Result<Option<Bytes>, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<RangeRequest, RangeResponse>::default();
    let answer = grpc.unary(Request::new(request), path, codec).await?.into_inner();
    Ok(answer.kvs.into_iter().next().map(|found| found.value))
}

/// What a failed write means. Only what a server says before it proposes anything is a refusal; of all else, a timeout first
/// of all, nobody knows.
fn failure(status: &Status) -> Failure {
    match status.code() {
        Code::ResourceExhausted | Code::InvalidArgument | Code::FailedPrecondition => {
            Failure::Refused(described(status))
        }
        _ => Failure::Unknown(described(status)),
    }
}

/// Given to the connections to say that their watches are over.
const GOING: Duration = Duration::from_millis(100);

/// Opens the watches, as many as possible on each connection's one stream, as etcd's own client does.
async fn open(connections: &[Channel], watchers: u32) -> Result<SelectAll<Streaming<WatchResponse>>, String> {
    let mut all = SelectAll::new();
    let count = u32::try_from(connections.len()).unwrap_or(u32::MAX).min(watchers).max(1);
    for (position, channel) in (0..count).zip(connections) {
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.map_err(|error| error.to_string())?;
        let mine = watchers / count + u32::from(position < watchers % count);
        let create = WatchRequest {
            create: Some(WatchCreate {
                key: Bytes::from_static(watch::PREFIX.as_bytes()),
                // Behind every key that begins with the prefix: its last byte is one higher.
                range_end: Bytes::from_static(b"fan0"),
            }),
        };
        let requests = futures_util::stream::iter((0..mine).map(move |_| create.clone()))
            .chain(futures_util::stream::pending());
        let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
        let path = PathAndQuery::from_static(WATCH);
        let answered = grpc.streaming(Request::new(requests), path, codec).await;
        let mut stream = answered.map_err(|status| described(&status))?.into_inner();
        let mut created = 0;
        while created < mine {
            let response = stream.message().await.map_err(|status| described(&status))?;
            match response {
                Some(response) if response.created => created += 1,
                Some(_) => {}
                None => return Err("a stream of watches ended".into()),
            }
        }
        all.push(stream);
    }
    Ok(all)
}

fn described(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_leaves_a_write_unknown_and_a_refusal_does_not() {
        let timed_out = failure(&Status::unavailable("etcdserver: request timed out"));
        assert_eq!(timed_out, Failure::Unknown("Unavailable: etcdserver: request timed out".into()));
        let refused = failure(&Status::resource_exhausted("etcdserver: too many requests"));
        assert_eq!(refused, Failure::Refused("ResourceExhausted: etcdserver: too many requests".into()));
    }
}

//! Calls to an engine in the same process, as a program that embeds it makes them.

use super::watch;
use super::{Ask, Client, Done, Failure, Level};
use crate::protocol::Loaded;
use crate::wait::{Sleeper, wait_for};
use crate::workload::{Call, Workload};
use d_engine::embedded::{Completed, Completion, PipelineError};
use d_engine::prelude::*;
use futures_util::stream::{SelectAll, Stream, StreamExt};
use std::task::Context;
use std::time::{Duration, Instant};

const ABSENT: &str = "a key that was filled is not there";

/// One pipeline, and the engine's other calls.
pub struct Embedded {
    client: EmbeddedClient,
    pipeline: Pipeline,
    answers: Vec<Completion>,
    sleeper: Sleeper,
}

impl Embedded {
    /// On the thread that will make the calls.
    pub fn new(client: EmbeddedClient) -> Self {
        Self { pipeline: client.pipeline(), client, answers: Vec::new(), sleeper: Sleeper::new() }
    }
}

impl Client for Embedded {
    fn answers_at_once(&self, call: Call) -> bool {
        matches!(call, Call::GetLease | Call::GetEventual)
    }

    fn call(&mut self, ask: Ask<'_>) -> Result<(), String> {
        let answer = match ask {
            Ask::Get { key, level: Level::Lease } => wait_for(self.client.get_lease(key)),
            Ask::Get { key, level: Level::Eventual } => wait_for(self.client.get_eventual(key)),
            Ask::Get { .. } | Ask::Put { .. } => return Err("it is not answered at once".into()),
        };
        match answer {
            Ok(answer) if answer.value.is_some() => Ok(()),
            Ok(_) => Err(ABSENT.into()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn submit(&mut self, ask: Ask<'_>) -> Result<u64, String> {
        match ask {
            Ask::Put { key, value } => self.pipeline.put(key, value).map_err(|error| error.to_string()),
            Ask::Get { key, level: Level::Linearizable } => {
                self.pipeline.get(key).map_err(|error| error.to_string())
            }
            Ask::Get { .. } => Err("it is answered at once".into()),
        }
    }

    fn in_flight(&self) -> usize {
        self.pipeline.in_flight()
    }

    fn wait(&mut self, until: Option<Instant>, done: &mut Vec<Done>) {
        match until {
            None => self.pipeline.wait(&mut self.answers),
            // With nothing in flight the pipeline would return at once, and the loop would spin.
            Some(until) if self.pipeline.in_flight() == 0 => self.sleeper.sleep_until(until),
            Some(until) => {
                let Self { pipeline, answers, sleeper, .. } = self;
                sleeper.poll_until(until, |cx: &mut Context<'_>| pipeline.poll_batch(answers, cx));
            }
        }
        done.extend(self.answers.drain(..).map(|answer| Done {
            number: answer.number,
            result: match answer.result {
                Ok(Completed::Get(found)) if found.value.is_none() => Err(Failure::Refused(ABSENT.into())),
                Ok(_) => Ok(()),
                Err(error @ PipelineError::Write(WriteError::OutcomeUnknown(_))) => {
                    Err(Failure::Unknown(error.to_string()))
                }
                Err(error) => Err(Failure::Refused(error.to_string())),
            },
        }));
    }
}

/// Watchers, each with a registration of its own.
pub struct Audience(SelectAll<Watch>);

/// Opens them.
pub fn open(client: &EmbeddedClient, watchers: u32) -> Result<Audience, String> {
    let mut all = SelectAll::new();
    for _ in 0..watchers {
        all.push(wait_for(client.watch_prefix(watch::PREFIX)).map_err(|error| error.to_string())?);
    }
    Ok(Audience(all))
}

/// Writes and watches until the slice ends.
pub fn show(
    client: &EmbeddedClient,
    audience: &mut Audience,
    workload: &Workload,
    watchers: u32,
    slice: Duration,
) -> Loaded {
    let put = |number| async move {
        let written = client.put(watch::key(number), watch::value(number, workload.value_bytes)).await;
        written.map(drop).map_err(|error| error.to_string())
    };
    wait_for(watch::run(put, &mut deliveries(audience), watchers, slice))
}

fn deliveries(audience: &mut Audience) -> impl Stream<Item = Result<u64, String>> + Unpin {
    (&mut audience.0).flat_map(|item| {
        let numbers: Vec<Result<u64, String>> = match item {
            Err(error) => vec![Err(error.to_string())],
            Ok(WatchItem::Events(events)) => {
                let number = |event: &Event| match event {
                    Event::Put { new, .. } => watch::number(&new.value),
                    other => Err(format!("nothing but puts was sent, and {other:?} came")),
                };
                events.events.iter().map(number).collect()
            }
            Ok(_) => Vec::new(),
        };
        futures_util::stream::iter(numbers)
    })
}

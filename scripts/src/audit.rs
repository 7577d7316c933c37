//! Judging what clients saw: nothing acknowledged is gone, and the answers fit one order of the calls.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::load::{BLOCK, Did, Entry, Record};
use crate::process::NodeProcess;
use crate::report::Report;
use crate::talk::{Ask, Level, Told};

/// Patience with a read of the audit, retries included.
const LIMIT: Duration = Duration::from_secs(20);
/// Calls in flight while keys are read one by one.
const IN_FLIGHT: usize = 128;
/// Violations of one kind told in full; the rest is a number.
const TOLD: usize = 5;

/// Collects violations of one kind, of which there may be very many.
#[derive(Debug, Default)]
struct Tally {
    count: usize,
    told: Vec<String>,
}

impl Tally {
    fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < TOLD {
            self.told.push(what());
        }
    }

    fn into_report(self, report: &mut Report, kind: &str) {
        if self.count > 0 {
            report.violation(format!("{} {kind}: {}", self.count, self.told.join("; ")));
        }
    }
}

/// Ask until there is an answer that is not a failure.
fn insist(node: &NodeProcess, ask: &Ask) -> Result<Told, String> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match node.ask(ask.clone(), LIMIT).told {
            Told::Failed { why, .. } if Instant::now() >= deadline => return Err(format!("{ask}: {why}")),
            Told::Failed { .. } => std::thread::sleep(Duration::from_millis(10)),
            told => return Ok(told),
        }
    }
}

/// What reading a ledger back came to.
#[derive(Debug, Default)]
pub struct Ledger {
    lost: Tally,
    wrong: Tally,
}

impl Ledger {
    /// Acknowledged writes that are gone.
    pub fn lost(&self) -> usize {
        self.lost.count
    }

    /// Report what is gone, and what nobody wrote.
    pub fn into_report(self, report: &mut Report) {
        self.lost.into_report(report, "acknowledged writes lost");
        self.wrong.into_report(report, "keys that nobody wrote so");
    }
}

/// Read every acknowledged ledger write back through `node`, linearizable. Unacknowledged ones may be there, with the value
/// that was sent. An error if it cannot be read.
pub fn ledger(node: &NodeProcess, record: &Record) -> Result<Ledger, String> {
    let mut blocks: HashMap<(usize, u64), Vec<u64>> = HashMap::new();
    for entry in &record.entries {
        blocks.entry((entry.ledger, entry.number / BLOCK)).or_default().push(entry.number);
    }
    let (mut lost, mut wrong) = (Tally::default(), Tally::default());
    for &(ledger, tried) in &record.tried {
        for block in 0..tried.div_ceil(BLOCK) {
            let prefix = Entry::prefix(ledger, block);
            let scan =
                Ask::Scan { prefix: prefix.clone(), limit: usize::try_from(BLOCK).expect("small") + 1 };
            let pairs = match insist(node, &scan)? {
                Told::Pairs { pairs, .. } => pairs,
                other => return Err(format!("a scan was answered {other}")),
            };
            let mut found: HashMap<&str, &str> =
                pairs.iter().map(|(key, value)| (&**key, &**value)).collect();
            for number in blocks.get(&(ledger, block)).into_iter().flatten() {
                let key = Entry::key(ledger, *number);
                match found.remove(&*key) {
                    None => lost.add(|| key),
                    Some(value) if value != Entry::value(ledger, *number, record.value_bytes) => {
                        lost.add(|| format!("{key} = {value}"));
                    }
                    Some(_) => {}
                }
            }
            for (key, value) in found {
                let number = key.strip_prefix(&prefix).and_then(|number| number.parse().ok());
                let sent = number.filter(|number| *number < tried);
                if sent.is_none_or(|number| value != Entry::value(ledger, number, record.value_bytes)) {
                    wrong.add(|| format!("{key} = {value}"));
                }
            }
        }
    }
    Ok(Ledger { lost, wrong })
}

/// The newest `at_most` acknowledged ledger writes are in the applied state of `node` itself.
pub fn applied(node: &NodeProcess, who: &str, record: &Record, at_most: usize, report: &mut Report) {
    let mut entries: Vec<&Entry> = record.entries.iter().collect();
    entries.sort_by_key(|entry| entry.revision);
    let newest = &entries[entries.len().saturating_sub(at_most)..];
    let mut lost = Tally::default();
    for some in newest.chunks(IN_FLIGHT) {
        let calls: Vec<_> = some
            .iter()
            .map(|entry| {
                let key = Entry::key(entry.ledger, entry.number);
                node.call(Ask::Get { key, level: Level::Eventual })
            })
            .collect();
        for (entry, call) in some.iter().zip(calls) {
            let wanted = Entry::value(entry.ledger, entry.number, record.value_bytes);
            let there = match call.wait(LIMIT).map(|reply| reply.told) {
                Some(Told::Value { found: Some(found), .. }) => {
                    found.value == wanted && found.modified == entry.revision
                }
                _ => false,
            };
            if !there {
                lost.add(|| Entry::key(entry.ledger, entry.number));
            }
        }
    }
    report.fact(format!("{who}: applied, of the newest {}", newest.len()), newest.len() - lost.count);
    lost.into_report(report, &format!("acknowledged writes not applied on {who}"));
}

/// Eventual reads may be old, but show only what was written, at the revision it was written.
fn eventual(record: &Record, report: &mut Report) {
    let mut written: HashMap<u64, (&str, String)> = HashMap::new();
    for operation in &record.operations {
        let value = match operation.did {
            Did::Put { value } | Did::Swap { new: value, outcome: Some(Ok(())), .. } => value,
            _ => continue,
        };
        if let Some(revision) = operation.revision {
            written.insert(revision, (&operation.key, value.to_string()));
        }
    }
    let (mut matched, mut wrong) = (0, Tally::default());
    for (key, found) in &record.eventual {
        let Some(found) = found else { continue };
        // The write of an unknown outcome has no revision to be found by.
        let Some((written_key, value)) = written.get(&found.modified) else { continue };
        matched += 1;
        if (*written_key, value) != (key, &found.value) {
            wrong.add(|| {
                format!("{key} = {} at {}, written {written_key} = {value}", found.value, found.modified)
            });
        }
    }
    report.fact("eventual reads matched with their write", matched);
    wrong.into_report(report, "eventual reads of what was never written");
}

/// All judgements of a finished load on a cluster that runs whole: nothing lost, replicas equal, history linearizable.
pub fn everything(cluster: &Cluster, record: &Record, report: &mut Report) {
    report.fact("writes: acknowledged / refused / outcome unknown", {
        let changes = record.operations.iter().filter(|o| o.responded.is_some() && o.changes()).count();
        format!("{} / {} / {}", changes + record.entries.len(), record.refused, record.unknown)
    });
    match cluster.settle(crate::cluster::PATIENCE) {
        Ok(status) => report
            .fact("replicas equal", format!("revision {} digest {:032x}", status.revision, status.digest)),
        Err(error) => report.violation(error.to_string()),
    }
    for index in 0..cluster.len() {
        let Some(node) = cluster.node(index) else { continue };
        if index == 0 {
            match ledger(&node, record) {
                Ok(ledger) => {
                    report.fact("ledger writes acknowledged, read back", record.entries.len());
                    report.fact("acknowledged writes lost", ledger.lost());
                    ledger.into_report(report);
                }
                Err(why) => report.violation(format!("the ledger could not be read back: {why}")),
            }
        }
        applied(&node, &format!("node {}", Cluster::id(index)), record, 5000, report);
    }
    eventual(record, report);
    crate::judge::linearizable(record, report);
}

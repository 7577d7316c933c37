//! The bug zoo: every pitfall put back in, one at a time, and hunted by the simulator. A judge that lets one live has a
//! hole.
//!
//! One build serves all: under `--cfg zoo` a bug is chosen while running. The build keeps its own target directory, and
//! no other program is ever built with it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::workspace;

/// A bug that is put in on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Its name in the source: `mutant!("name")`.
    pub name: &'static str,
    /// What it does wrong.
    pub what: &'static str,
    /// Where it lives, if not everywhere: the faults it is hunted under. All, drawn by the seed, if there are none.
    pub habitat: &'static str,
    /// Who must see it.
    pub judge: Judge,
}

/// Who must see a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// The simulator, from its seeds alone.
    Simulator,
    /// A test of the root package, named by the arguments of `cargo test` that choose it: no run is likely to show it.
    Test(&'static [&'static str]),
    /// A job with real disks, which this one does not run.
    Job(&'static str),
}

/// What a hunt came to.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// Whom it was for.
    pub mutant: Mutant,
    /// The seed and the judge's words, if it was seen.
    pub seen: Option<Sighting>,
    /// How long it took a processor.
    pub took: Duration,
}

/// A mutant that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The seed in which it shows; a test has none.
    pub seed: Option<u64>,
    /// The judge.
    pub oracle: String,
}

/// What to hunt.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Only these; all if empty.
    pub only: Vec<String>,
    /// How long each is hunted at most: time of a processor, so that a busy machine finds what an idle one finds.
    pub patience: Duration,
    /// Hunts at the same time.
    pub jobs: usize,
}

/// The hunts, in the order of the table.
#[derive(Clone, Debug, Default)]
pub struct Zoo(pub Vec<Hunt>);

impl Zoo {
    /// The mutants that went unseen.
    pub fn survivors(&self) -> Vec<&'static str> {
        self.0.iter().filter(|hunt| hunt.seen.is_none()).map(|hunt| hunt.mutant.name).collect()
    }
}

impl fmt::Display for Zoo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<34} {:>7}  {:<26} {:>7}  what it does wrong", "mutant", "seed", "oracle", "seconds")?;
        for Hunt { mutant, seen, took } in &self.0 {
            let (seed, oracle) = seen.as_ref().map_or(("-".to_owned(), "NOT SEEN"), |seen| {
                (seen.seed.map_or("test".to_owned(), |seed| seed.to_string()), seen.oracle.as_str())
            });
            let seconds = took.as_secs_f64();
            write!(f, "{:<34} {seed:>7}  {oracle:<26} {seconds:>7.1}  {}", mutant.name, mutant.what)?;
            if !mutant.habitat.is_empty() {
                write!(f, " [under {}]", mutant.habitat)?;
            }
            writeln!(f)?;
        }
        let killed = self.0.len() - self.survivors().len();
        write!(f, "{killed} of {} mutants killed", self.0.len())
    }
}

/// Build the zoo and hunt.
pub fn run(plan: &Plan) -> Result<Zoo, String> {
    let chosen: Vec<Mutant> = MUTANTS
        .iter()
        .copied()
        .filter(|mutant| !matches!(mutant.judge, Judge::Job(_)))
        .filter(|mutant| plan.only.is_empty() || plan.only.iter().any(|name| name == mutant.name))
        .collect();
    if chosen.is_empty() {
        return Err("no mutant of this name is hunted here".to_owned());
    }
    let program = build()?;
    let (next, hunts) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let tests = Tests::default();
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.max(1) {
            scope.spawn(|| {
                while let Some(mutant) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let hunt = match mutant.judge {
                        Judge::Test(arguments) => tests.judge(*mutant, arguments, plan.patience),
                        Judge::Simulator | Judge::Job(_) => hunt(&program, *mutant, plan.patience),
                    };
                    let mut hunts = hunts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if let Ok(hunt) = &hunt {
                        let end = hunt.seen.as_ref().map_or("NOT SEEN", |seen| &seen.oracle);
                        eprintln!("zoo: {} {end} after {:.1} s", mutant.name, hunt.took.as_secs_f64());
                    }
                    hunts.push(hunt);
                }
            });
        }
    });
    let hunts = hunts.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut hunts = hunts.into_iter().collect::<Result<Vec<_>, _>>()?;
    hunts.sort_by_key(|hunt| MUTANTS.iter().position(|mutant| *mutant == hunt.mutant));
    Ok(Zoo(hunts))
}

/// Cargo, for a build with all switches. The flag reaches every crate of it, and the directory keeps them apart from all
/// others.
fn cargo(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments).arg("--locked");
    if !arguments.contains(&"--package") {
        command.args(["--package", "d-engine", "--no-default-features", "--features", "sim"]);
    }
    command.env("CARGO_TARGET_DIR", target()).env("RUSTFLAGS", "--cfg zoo").current_dir(workspace::root());
    command
}

fn target() -> PathBuf {
    workspace::root().join("target/zoo")
}

fn build() -> Result<PathBuf, String> {
    let status = cargo(Command::new(workspace::cargo()), &["build", "--release", "--bin", "d-engine-sim"])
        .status()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    if !status.success() {
        return Err("the zoo could not be built".to_owned());
    }
    Ok(target().join("release/d-engine-sim"))
}

/// The tests as judges. A test must pass without a mutant and fail with it; the first is seen once for each choice of tests.
#[derive(Default)]
struct Tests(Mutex<BTreeMap<&'static [&'static str], Result<(), String>>>);

impl Tests {
    fn judge(
        &self,
        mutant: Mutant,
        arguments: &'static [&'static str],
        patience: Duration,
    ) -> Result<Hunt, String> {
        self.pass_alone(arguments)?;
        let Ended { succeeded, said, took } = test(arguments, mutant.name, patience)?;
        let failed = said.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
        let seen = failed.filter(|_| !succeeded).map(|name| Sighting { seed: None, oracle: name.to_owned() });
        Ok(Hunt { mutant, seen, took })
    }

    fn pass_alone(&self, arguments: &'static [&'static str]) -> Result<(), String> {
        // Whoever needs the same answer waits for it; cargo would make it wait anyway.
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let answer = known.entry(arguments).or_insert_with(|| {
            let passed = test(arguments, "", TO_BUILD_TESTS)?.succeeded;
            let fails = || format!("`cargo test {}` fails without any mutant", arguments.join(" "));
            passed.then_some(()).ok_or_else(fails)
        });
        answer.clone()
    }
}

/// Enough for the tests to be compiled.
const TO_BUILD_TESTS: Duration = Duration::from_secs(3600);

fn test(arguments: &[&str], mutant: &str, patience: Duration) -> Result<Ended, String> {
    let start = limited(workspace::cargo(), patience);
    ended(cargo(start, &[&["test"], arguments].concat()).env("D_ENGINE_MUTANT", mutant))
}

fn hunt(program: &Path, mutant: Mutant, patience: Duration) -> Result<Hunt, String> {
    let mut command = limited(program, patience);
    command.args(["--mutant", mutant.name, "--seeds", "18446744073709551615", "--quiet"]);
    if !mutant.habitat.is_empty() {
        command.args(["--only", mutant.habitat]);
    }
    let Ended { said, took, .. } = ended(&mut command)?;
    Ok(Hunt { mutant, seen: said.lines().find_map(sighting), took })
}

/// What came of a program.
struct Ended {
    succeeded: bool,
    said: String,
    took: Duration,
}

/// A program that is stopped when it has had a processor for so long, and then says for how long it had one.
fn limited(program: impl AsRef<OsStr>, patience: Duration) -> Command {
    let script = format!("ulimit -t {}; \"$@\"; code=$?; times; exit $code", patience.as_secs());
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(program).stdin(Stdio::null());
    command
}

fn ended(command: &mut Command) -> Result<Ended, String> {
    let output = command.output().map_err(|error| format!("a hunt could not be started: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let took = said.lines().last().and_then(used).ok_or("the shell did not say how long a hunt took")?;
    Ok(Ended { succeeded: output.status.success(), said, took })
}

/// Reads the shell's `0m1.5s 0m0.1s`, of all its children.
fn used(line: &str) -> Option<Duration> {
    let mut sum = 0.0;
    for one in line.split_whitespace() {
        let (minutes, seconds) = one.strip_suffix('s')?.split_once('m')?;
        sum += minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?;
    }
    Duration::try_from_secs_f64(sum).ok()
}

/// Reads `seed 7 breaks oracle: what`.
fn sighting(line: &str) -> Option<Sighting> {
    let (seed, rest) = line.strip_prefix("seed ")?.split_once(" breaks ")?;
    let (oracle, _) = rest.split_once(": ")?;
    Some(Sighting { seed: Some(seed.parse().ok()?), oracle: oracle.to_owned() })
}

/// The names of all mutants in the engine's source.
pub fn in_source() -> Result<BTreeSet<String>, String> {
    let mut found = BTreeSet::new();
    let mut directories = vec![workspace::root().join("src"), workspace::root().join("wal/src")];
    while let Some(directory) = directories.pop() {
        let entries =
            fs::read_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        for entry in entries {
            let path = entry.map_err(|error| error.to_string())?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text =
                    fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                    for piece in line.split("mutant!(\"").skip(1) {
                        found.extend(piece.split_once('"').map(|(name, _)| name.to_owned()));
                    }
                }
            }
        }
    }
    Ok(found)
}

const fn hunted(name: &'static str, what: &'static str) -> Mutant {
    Mutant { name, what, habitat: "", judge: Judge::Simulator }
}

const fn hunted_under(habitat: &'static str, name: &'static str, what: &'static str) -> Mutant {
    Mutant { name, what, habitat, judge: Judge::Simulator }
}

const fn tested(name: &'static str, what: &'static str, by: &'static [&'static str]) -> Mutant {
    Mutant { name, what, habitat: "", judge: Judge::Test(by) }
}

const THESIS: &[&str] = &["--test", "thesis"];
const COURSE: &[&str] = &["--test", "course"];
const CLUSTER: &[&str] = &["--test", "cluster", "former_life"];
const CLUSTER_REPAIR: &[&str] = &["--test", "cluster", "without_waiting_for_a_failure"];
const LEASES: &[&str] = &["--test", "cluster", "leases"];
const STORE: &[&str] = &["--lib", "kv::"];
const RAFT: &[&str] = &["--lib", "raft::"];
const LOG: &[&str] = &["--package", "wal", "--lib", "envelope"];

/// The zoo, in the order of the catalogue of pitfalls (its numbers; PAR: Alagappan et al., FAST'18).
pub const MUTANTS: &[Mutant] = &[
    hunted("vote_before_durable", "7: a vote, or any word in a new term, leaves before the term is on disk"),
    hunted_under(
        "hung-flush,kill",
        "own_vote_before_durable",
        "7: a candidate counts its own vote before it is on disk",
    ),
    hunted("vote_twice", "two votes in one term"),
    hunted("vote_for_stale_log", "a vote for a candidate whose log is behind (thesis 3.6.1)"),
    tested("vote_while_promised", "5, 13: a vote although a leader was heard within the promise", THESIS),
    tested("promise_lost_at_restart", "5: a restart forgets the promise to the leader", THESIS),
    hunted_under(
        "mixed-heartbeats,isolate-leader,drift",
        "stated_promise_ignored",
        "5: a follower keeps to its leader for as long as it is configured to, not for as long as the leader states",
    ),
    tested("stated_promise_forgotten", "5: a restart forgets for how long a leader was promised", THESIS),
    hunted_under(
        "mixed-heartbeats,kill",
        "promise_before_durable",
        "5: a leader counts on a promise before the disk knows how long it is",
    ),
    tested("stands_against_its_promise", "5: a follower stands while it is promised to its leader", THESIS),
    tested("no_prevote", "13: elections without pre-vote: whoever was cut off deposes the leader", THESIS),
    hunted("prevote_raises_term", "14: a question about a term raises it"),
    hunted("prevote_grant_taken_for_a_term", "14: a granted pre-vote is taken for a newer term"),
    hunted_under(
        "transfer,loss,kill-at-effect",
        "past_leader_not_told",
        "14: a leader of the past, or a stuck node, is never told the term",
    ),
    hunted("step_down_forgets_vote", "stepping down within a term forgets the vote"),
    hunted("half_is_a_majority", "half of an even group decides"),
    tested("no_check_quorum", "6, 13: a leader without a quorum goes on", THESIS),
    tested("term_jump_believed", "an implausible term from a peer is taken over", THESIS),
    tested("restored_term_ignored", "21: a term known from an entry only is forgotten at a restart", THESIS),
    hunted("ack_before_durable", "8: a follower acknowledges before its flush"),
    hunted("leader_counts_itself_early", "8: a leader counts itself before its own flush"),
    hunted_under(
        "strike-new-leader,isolate-leader",
        "commit_older_terms_by_count",
        "1: entries of earlier terms are decided by counting (figure 3.7)",
    ),
    hunted("commit_beyond_agreed", "a follower takes the leader's commit index for entries it has of others"),
    hunted("agreed_with_any_leader", "what was agreed with one leader counts under the next"),
    tested(
        "ack_whole_log",
        "an append is answered with the end of the log, not with what it matched",
        COURSE,
    ),
    hunted("truncate_on_short_match", "16: a shorter, reordered append cuts what follows it"),
    tested("truncate_agreed", "15: entries agreed with this very leader, or decided, are cut", THESIS),
    tested(
        "prev_by_term_only",
        "42: the entry before an append is compared by term, not by chained hash",
        THESIS,
    ),
    tested("stale_write_proves", "28: the flush of a write that was superseded meanwhile counts", THESIS),
    hunted("ack_without_term", "28: an acknowledgement leaves in the term of now, not of then"),
    tested("reconnect_keeps_matched", "22: what a peer held before it restarted is believed after", RAFT),
    hunted("rejection_resets_nothing", "29: a rejected append is not followed by an earlier one"),
    hunted("inflight_never_freed", "29: bytes in flight are never freed"),
    hunted("lost_append_never_repeated", "29: a lost append is waited for, for ever"),
    hunted("restored_is_decided", "everything on disk is taken for decided at a restart"),
    tested("halt_still_answers", "39: a node that halted goes on with what becomes durable", THESIS),
    hunted("read_before_own_commit", "3: reads are served before the leader's own no-op is decided"),
    hunted("read_without_quorum", "4: reads are served without a round"),
    hunted_under(
        "isolate-leader,clock-leap,reorder",
        "read_joins_sent_probe",
        "4: a read is confirmed by answers to a question asked before it",
    ),
    tested("answer_counts_for_newest_probe", "4: an old answer confirms the newest round", THESIS),
    hunted("read_survives_leader_change", "4: a round of one leadership is confirmed in another"),
    hunted("read_before_applied", "a read is served before the state includes its index"),
    hunted("index_without_round", "4: a follower's question is answered without a round"),
    tested(
        "index_for_former_life",
        "4: an answer to a former life of a node confirms a read of this one",
        CLUSTER,
    ),
    hunted_under(
        "isolate-leader,drift",
        "lease_ignores_drift",
        "5: the lease is longer than what followers promise",
    ),
    hunted_under(
        "isolate-leader,drift",
        "lease_of_election_timeout",
        "5: the lease is as long as a follower waits, not as long as it promises",
    ),
    hunted_under(
        "false-hint,isolate-leader,drift,slow-line",
        "gone_breaks_promise",
        "5: who hears that its leader is gone forgets what it promised to it",
    ),
    hunted_under(
        "isolate-leader,drift,slow-line",
        "lease_from_receive_time",
        "5: the lease counts from the answer, not from the question",
    ),
    hunted("lease_behind_commit", "a lease read misses what is decided and being applied"),
    hunted("transfer_keeps_lease", "27: the lease outlives TimeoutNow"),
    hunted_under(
        "transfer,isolate-leader,drift,slow-line",
        "lease_back_after_transfer",
        "27: an abandoned transfer gives the lease back",
    ),
    hunted("suspect_votes_freely", "PAR: a damaged replica votes for a candidate that lacks what it held"),
    hunted("suspect_stands", "PAR: a damaged replica stands for election"),
    hunted_under(
        "flip,zero,misdirect,kill",
        "whole_too_early",
        "PAR: a damaged replica trusts itself before it is repaired",
    ),
    tested(
        "doubtful_term_kept",
        "PAR: a replica that cannot tell what it held stays in the term it held it in",
        CLUSTER_REPAIR,
    ),
    tested("forgetful_votes", "a node that forgot what was in memory votes as if it had not", COURSE),
    hunted("forward_twice", "17: a repeated forward is taken twice"),
    hunted_under(
        "replay,duplicate,reorder,isolate-leader,partition",
        "forward_of_any_term",
        "17: a forward meant for an earlier leadership is taken",
    ),
    hunted("unknown_is_repeated", "17: a command whose fate is unknown is proposed again"),
    hunted("superseded_is_answered", "a caller is told of another leader's entry in its place"),
    hunted("late_is_denied", "45: a command that is in the log is denied when its time is up"),
    hunted("session_answer_forgotten", "17: a retry is applied again"),
    hunted("session_expiry_reapplies", "18: a command of a session that has expired is applied"),
    hunted(
        "session_late_retry_reapplied",
        "17: a number whose answer was acknowledged and dropped is applied again",
    ),
    tested(
        "session_reuse_unseen",
        "a number used for another command is answered with the first answer",
        STORE,
    ),
    tested("sequence_reused", "a client gives a number to two commands", STORE),
    tested("digest_without_sessions", "the digest does not cover sessions", STORE),
    hunted("lease_keep_alive_ignored", "31: a lease that was kept alive ends as if it had not been"),
    tested("lease_without_ticks", "31: what a lease has left is renewed when leaders change", STORE),
    hunted("expiry_by_own_clock", "20, 31: a replica ends leases by its own clock"),
    tested(
        "upkeep_before_own_commit",
        "31: a new leader ends leases before it knows what is decided",
        LEASES,
    ),
    hunted("pause_is_time", "31: a leader that was paused takes the pause for time that its clients had"),
    hunted("wall_clock_is_log_time", "30, 31: entries are stamped with a wall clock"),
    hunted("expiry_before_its_time", "31: an expiry ends a lease whose time is not over"),
    hunted("put_keeps_lease_alive", "a put that names a lease gives it all its time again"),
    hunted("lease_key_left_behind", "a lease ends and one of its keys stays"),
    hunted("lease_ends_key_by_key", "the keys of a lease go at several revisions"),
    hunted("overwritten_key_stays_attached", "a key that is put without its lease ends with it all the same"),
    hunted(
        "txn_compares_after_its_changes",
        "a transaction tells the way that it would take after its changes",
    ),
    hunted("nested_way_decided_late", "the way of a nested transaction is chosen after outer changes"),
    hunted("delete_range_off_by_one", "a range deletion leaves the last key"),
    hunted("past_one_too_early", "a read of a past revision sees the state before it"),
    hunted(
        "compaction_answer_is_local",
        "20: what a compaction answers depends on what a node happens to keep",
    ),
    hunted("dropped_at_oldest", "32: what happened at the oldest revision is not kept"),
    hunted("watch_repeats_after_resume", "32: a resumed watch tells the last revision again"),
    hunted("watch_skips_at_ring_edge", "32: a watch one revision behind the ring skips it"),
    hunted("watch_new_ring_has_past", "32: a new ring is taken for one that has everything"),
    hunted(
        "watch_ring_outlives_history",
        "32: a ring is believed although changes were compacted before they were looked at",
    ),
    hunted(
        "watch_ends_elsewhere",
        "32: a watch that ends by a compaction names the wrong revision to go on from",
    ),
    hunted("watch_mark_ahead", "32: a progress mark names a revision that was not told"),
    hunted("watch_tells_half", "32: a part of what a revision changed is told"),
    hunted("watch_history_unfiltered", "32: a watch that reads on in the history forgets its filter"),
    hunted("previous_is_after", "32: the previous value is the new one"),
    hunted("create_without_previous", "32: a put without a previous value is taken for a creation"),
    hunted("swap_answers_without_value", "33: a failed compare-and-swap does not say what it saw"),
    hunted("noop_takes_revision", "a compare that failed takes a revision"),
    hunted("delete_absent_takes_revision", "a delete of nothing takes a revision"),
    Mutant {
        name: "no_flush",
        what: "the log is written and not flushed",
        habitat: "",
        judge: Judge::Job("power-cut"),
    },
    hunted("torn_means_any_damage", "PAR: damage to what was acknowledged is cut like a torn tail"),
    hunted("zero_is_end", "36: zeros are taken for the end without a look at what follows"),
    tested("no_nonce_check", "34: records of a former life of a segment are accepted", LOG),
    hunted("held_forgotten", "PAR: a repair does not remember what may be missing"),
    hunted("hard_state_lags", "7: the promise is given before the state record is flushed"),
    hunted("recovery_lowers_term", "16 of bad input: recovery lowers the term"),
    hunted("tail_block_rewritten", "37: a block that holds acknowledged data is written again"),
    hunted("continue_after_failed_write", "39: the log goes on after a failed write"),
    hunted_under(
        "misdirect,kill,isolate",
        "misplaced_is_served",
        "a whole write in the wrong place is served to a peer",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_of_the_source_is_in_the_zoo_once_and_none_is_invented() {
        let listed: Vec<_> = MUTANTS.iter().map(|mutant| mutant.name.to_owned()).collect();
        let unique: BTreeSet<_> = listed.iter().cloned().collect();
        assert_eq!(listed.len(), unique.len(), "a mutant is listed once");
        assert_eq!(unique, in_source().unwrap());
    }

    #[test]
    fn the_simulators_words_are_understood() {
        let line = "seed 12 breaks monotony: node 3 went back: to term 4 at 1.000000";
        assert_eq!(sighting(line), Some(Sighting { seed: Some(12), oracle: "monotony".to_owned() }));
        assert_eq!(sighting("3 runs, 4 events"), None);
    }

    #[test]
    fn a_program_is_stopped_when_it_has_had_its_time_and_says_how_long_it_took() {
        let mut endless = limited("sh", Duration::from_secs(1));
        let ended = ended(endless.args(["-c", "echo begun; while :; do :; done"])).unwrap();
        assert!(!ended.succeeded && ended.said.starts_with("begun\n"), "{}", ended.said);
        assert!((0.5..5.0).contains(&ended.took.as_secs_f64()), "{:?}", ended.took);
        assert_eq!(used("1m0.25s 0m0.50s"), Some(Duration::from_millis(60_750)));
        assert_eq!(used("not seen"), None);
    }
}

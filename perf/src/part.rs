//! Parts of the matrix that are no rows: each is a job of its own, run as a process of its own, and its results are taken
//! into the one report. What happens to such a process, happens to its part alone.

use crate::child::{end_of, end_with_this_thread};
use crate::matrix::PARTS;
use crate::node::{DurabilityChoice, RuntimeChoice};
use crate::peer::Others;
use crate::results::{NotRun, Results};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How much longer than planned it may take: the plan is of a machine that does nothing else.
const SLACK: u32 = 5;
const LEAST: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(50);

/// A job, and about how long it takes.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which part of the matrix.
    pub id: &'static str,
    /// The job and its options.
    pub arguments: Vec<String>,
    /// About.
    pub length: Duration,
}

/// What every part must know.
pub struct Setting<'a> {
    /// Which runtime our nodes use.
    pub runtime: RuntimeChoice,
    /// What our acknowledgements promise.
    pub durability: DurabilityChoice,
    /// Who else takes part.
    pub others: &'a Others,
    /// Whether etcd does: it takes its time.
    pub with_etcd: bool,
}

impl Part {
    fn new<S: Into<String>>(id: &'static str, arguments: impl IntoIterator<Item = S>, seconds: f64) -> Self {
        let length = Duration::from_secs_f64(seconds);
        Self { id, arguments: arguments.into_iter().map(Into::into).collect(), length }
    }

    /// What it is.
    pub fn what(&self) -> &'static str {
        PARTS.iter().find(|(id, _)| *id == self.id).map_or("", |(_, what)| *what)
    }

    /// W11: the leaders of ours and of etcd's clusters, so often each.
    pub fn kills(setting: &Setting<'_>, ours: u32, etcd: u32) -> Self {
        let mut arguments = vec![
            "failover".into(),
            format!("--kills={ours}"),
            format!("--etcd-kills={etcd}"),
            format!("--runtime={}", setting.runtime),
            format!("--durability={}", setting.durability),
        ];
        if let Some(program) = &setting.others.etcd_bin {
            arguments.push(format!("--etcd-bin={}", program.display()));
        }
        if !setting.with_etcd {
            arguments.push("--alone".into());
        }
        // Measured: ours; etcd with its own timing, of which most is waiting for calls that it keeps; etcd with a tenth.
        let of_etcd = if setting.with_etcd { 5.0 + f64::from(etcd) * (5.6 + 4.6) } else { 0.0 };
        Self::new("W11", arguments, 2.0 + f64::from(ours) * 2.4 + of_etcd)
    }

    /// W14: a store of so many keys.
    pub fn memory(keys: u32) -> Self {
        Self::new("W14", ["memory".into(), format!("--keys={keys}")], 0.5 + f64::from(keys) * 1.5e-6)
    }

    /// W15: the knobs of batching, one by one, at each depth.
    pub fn sweep(setting: &Setting<'_>, blocks: u32, slice: Duration) -> Self {
        let arguments = [
            "sweep".into(),
            format!("--blocks={blocks}"),
            format!("--slice={}us", slice.as_micros()),
            format!("--runtime={}", setting.runtime),
            format!("--durability={}", setting.durability),
        ];
        // Ten paces at four depths.
        Self::new("W15", arguments, 5.0 + 40.0 * f64::from(blocks) * (slice.as_secs_f64() + 0.01))
    }

    /// W12: restarts with so many GiB of log, of a node alone and of a follower of three.
    pub fn restarts(setting: &Setting<'_>, gib: &[f64]) -> Self {
        let sizes: Vec<String> = gib.iter().map(ToString::to_string).collect();
        let arguments = [
            "recovery".into(),
            format!("--gib={}", sizes.join(",")),
            format!("--runtime={}", setting.runtime),
        ];
        let all: f64 = gib.iter().sum();
        // Both are written once and read once, one of them three times over.
        Self::new("W12", arguments, 4.0 * gib.len() as f64 + all * 22.0)
    }

    /// Runs it with its data in `directory`, and says why if there is not all of it.
    pub fn run(&self, directory: &Path) -> (Option<Results>, Option<NotRun>) {
        let json = directory.join("found.json");
        let outcome = self.obey(directory, &json);
        let found = Results::read(&json);
        let why = match (outcome, &found) {
            (Err(why), _) => Some(why),
            (Ok(()), Err(error)) => Some(format!("it left no results: {error}")),
            (Ok(()), Ok(_)) => None,
        };
        let not_run = why.map(|why| NotRun {
            id: self.id.into(),
            what: format!("{}{}", self.what(), if found.is_ok() { ", in part" } else { "" }),
            why,
        });
        (found.ok(), not_run)
    }

    fn obey(&self, directory: &Path, json: &Path) -> Result<(), String> {
        let words = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| format!("{what}: {error}")
        };
        fs::create_dir_all(directory).map_err(words("making its directory"))?;
        let log = directory.join("log");
        let said = File::create(&log).map_err(words("making its log"))?;
        let complained = said.try_clone().map_err(words("making its log"))?;
        let program = std::env::current_exe().map_err(words("finding this program"))?;
        let mut command = Command::new(program);
        end_with_this_thread(&mut command);
        let mut process = command
            .args(&self.arguments)
            .arg("--directory")
            .arg(directory)
            .arg("--json")
            .arg(json)
            .stdin(Stdio::null())
            .stdout(said)
            .stderr(complained)
            .spawn()
            .map_err(words("starting it"))?;
        let deadline = Instant::now() + LEAST.max(self.length * SLACK);
        loop {
            match process.try_wait().map_err(words("waiting for it"))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("it ended with {status}: {}", end_of(&log))),
                None if Instant::now() > deadline => {
                    // What it started ends with it.
                    let _ = process.kill();
                    let _ = process.wait();
                    return Err(format!("it was not done after {:?}", LEAST.max(self.length * SLACK)));
                }
                None => std::thread::sleep(LOOK),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_one_of_the_matrix() {
        let setting = Setting {
            runtime: RuntimeChoice::Auto,
            durability: DurabilityChoice::DiskFirst,
            others: &Others::default(),
            with_etcd: false,
        };
        for part in [
            Part::kills(&setting, 20, 20),
            Part::memory(1),
            Part::sweep(&setting, 3, Duration::from_millis(300)),
            Part::restarts(&setting, &[0.1, 1.0]),
        ] {
            assert!(!part.what().is_empty(), "{}", part.id);
        }
        assert!(Part::kills(&setting, 1, 1).arguments.contains(&"--alone".into()));
    }

    #[test]
    fn what_happens_to_a_part_happens_to_it_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        // This program is the tests' here, and knows no such job.
        let part = Part::new("W12", ["recovery", "--gib=1"], 1.0);
        let (found, not_run) = part.run(directory.path());
        let not_run = not_run.expect("it failed");
        assert!(found.is_none());
        assert_eq!((not_run.id.as_str(), not_run.what.as_str()), ("W12", part.what()));
        assert!(not_run.why.contains("it ended with") && not_run.why.contains("gib"), "{}", not_run.why);
    }
}

//! One process of a judge: the simulator or a program of tests, with limits on what it uses.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::build::Judge;

/// A mutant may eat so many KiB of address space: one that never stops pushing is seen in a second.
const MEMORY_KIB: u64 = 6 << 20;
/// What the system sends when the time of the processor is used up.
const OUT_OF_TIME: i32 = 24;

/// What the copy's switches do.
#[derive(Debug, Clone, Copy)]
pub enum Switches<'a> {
    /// This one is on; 0 is none.
    Chosen(u32),
    /// All are off, and those that are asked are named in this file.
    Recorded(&'a Path),
}

/// What a process may use, and how long it may sleep over it on a busy machine.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    cpu: Duration,
    wall: Duration,
}

impl Limit {
    /// For the honest engine, which has not been timed yet.
    pub const GENEROUS: Self = Self { cpu: Duration::from_secs(600), wall: Duration::from_secs(3600) };

    /// The honest engine has to be far from it, on a machine that is busy with other things too.
    pub fn of(usual: Duration) -> Self {
        let cpu = usual * 4 + Duration::from_secs(3);
        Self { cpu, wall: cpu * 20 }
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With success.
    Success,
    /// In another way, for this reason.
    Failure(String),
    /// Not by itself.
    OutOfTime,
}

/// A process that is over.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub end: End,
    /// What it wrote.
    pub text: String,
}

/// The arguments of a program of tests for exactly these.
pub fn exactly<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let fixed = ["--test-threads", "1", "--exact"];
    fixed.into_iter().chain(names).map(str::to_owned).collect()
}

/// The test that a line says has failed.
pub fn failed(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

/// Runs a judge; one test that fails is enough, and the rest is not waited for.
pub fn run(
    judge: &Judge,
    arguments: &[String],
    limit: Limit,
    switches: Switches<'_>,
) -> Result<Ended, String> {
    let limits = format!(
        "ulimit -c 0 && ulimit -v {MEMORY_KIB} && ulimit -S -t {} && exec \"$@\"",
        limit.cpu.as_secs()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &limits, "sh"]).arg(&judge.program).args(arguments);
    match switches {
        Switches::Chosen(number) => command.env("D_ENGINE_MUTANT_NUMBER", number.to_string()),
        Switches::Recorded(path) => command.env("D_ENGINE_MUTANTS_REACHED", path),
    };
    // Properties are asked with the same cases each time, and their failures are neither made smaller nor kept.
    let proptest = [("RNG_SEED", "1"), ("MAX_SHRINK_ITERS", "0"), ("DISABLE_FAILURE_PERSISTENCE", "true")];
    command.envs(proptest.map(|(name, value)| (format!("PROPTEST_{name}"), value)));
    let mut child = command
        .env("RUST_BACKTRACE", "0")
        .current_dir(&judge.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{} could not be started: {error}", judge.program.display()))?;
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    let enough = AtomicBool::new(false);
    let (end, text) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut text = String::new();
            // What was read before an error is what there is.
            for line in output.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                text.push_str(&line);
                text.push('\n');
                if failed(&line).is_some() {
                    enough.store(true, Ordering::Relaxed);
                }
            }
            text
        });
        let end = wait(&mut child, limit.wall, &enough);
        (end, reader.join().expect("reading does not panic"))
    });
    let end = end.map_err(|error| format!("{}: {error}", judge.name))?;
    Ok(Ended { end, text })
}

/// Waits for the end, or until it is enough.
fn wait(child: &mut Child, limit: Duration, enough: &AtomicBool) -> std::io::Result<End> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(end(status));
        }
        let enough = enough.load(Ordering::Relaxed);
        if enough || begun.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(if enough { End::Failure("a test failed".into()) } else { End::OutOfTime });
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn end(status: ExitStatus) -> End {
    use std::os::unix::process::ExitStatusExt as _;
    match status.signal() {
        None if status.success() => End::Success,
        Some(OUT_OF_TIME) => End::OutOfTime,
        _ => End::Failure(status.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::{End, Judge, Limit, Switches, failed, run};
    use std::time::Duration;

    fn ended(script: &str, limit: Limit) -> (End, String) {
        let judge = Judge { name: "sh".into(), program: "/bin/sh".into(), directory: "/".into() };
        let arguments = ["-c".to_owned(), script.to_owned()];
        let ended = run(&judge, &arguments, limit, Switches::Chosen(7)).expect("a shell");
        (ended.end, ended.text)
    }

    #[test]
    fn a_process_that_turns_without_end_is_out_of_time() {
        let limit = Limit { cpu: Duration::from_secs(1), wall: Duration::from_secs(60) };
        assert_eq!(ended("while :; do :; done", limit).0, End::OutOfTime);
        let limit = Limit { cpu: Duration::from_secs(9), wall: Duration::from_millis(20) };
        assert_eq!(ended("exec sleep 60", limit).0, End::OutOfTime);
    }

    #[test]
    fn the_rest_of_a_program_is_not_waited_for_when_a_test_failed() {
        let (end, text) = ended("echo 'test a ... FAILED'; exec sleep 60", Limit::GENEROUS);
        assert_eq!(end, End::Failure("a test failed".into()));
        assert_eq!(text.lines().find_map(failed), Some("a"));
    }

    #[test]
    fn the_chosen_number_is_in_the_environment_and_success_is_success() {
        let (end, text) = ended("echo $D_ENGINE_MUTANT_NUMBER", Limit::GENEROUS);
        assert_eq!((end, text.as_str()), (End::Success, "7\n"));
        assert_eq!(failed("test a ... ok"), None);
    }
}

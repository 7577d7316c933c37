//! One node as a child process: started, asked, stopped, frozen, killed.
//!
//! Promises: every call gets exactly one reply, with the time it was read; a process that dies answers what it still owed
//! with "nobody knows". No process outlives its value here: it is killed by its id and reaped on drop, it dies with the
//! thread that started it (`PR_SET_PDEATHSIG`, set by the node itself), and it leaves when its stdin closes.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::stamp::Stamp;
use crate::talk::{Ask, Effect, Line, Told};

/// The line a node prints once its engine runs; everything after it is answers.
pub const STARTED: &str = "started";

/// Why there is no node process.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartFailure {
    /// The program could not be executed.
    #[error("{program}: {source}")]
    Spawn {
        /// Which program.
        program: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It ran and ended, or stayed silent, before it said that it had started.
    #[error("the node did not start ({what}); the end of its log {log}:\n{tail}")]
    Silent {
        /// What happened.
        what: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
}

/// An answer and the moment it was read.
#[derive(Debug, Clone)]
pub struct Reply {
    /// When.
    pub at: Stamp,
    /// What.
    pub told: Told,
}

/// A call whose answer is outstanding.
#[derive(Debug)]
pub struct Call {
    /// Before the first byte of it was written.
    pub invoked: Stamp,
    reply: Receiver<Reply>,
}

impl Call {
    /// The answer, or nothing if there is none within `limit`. The call stays open: ask again.
    pub fn wait(&self, limit: Duration) -> Option<Reply> {
        match self.reply.recv_timeout(limit) {
            Ok(reply) => Some(reply),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(gone()),
        }
    }
}

fn gone() -> Reply {
    Reply { at: Stamp::now(), told: Told::Failed { effect: Effect::Maybe, why: "the node died".into() } }
}

#[derive(Debug, Default)]
struct Open {
    closed: bool,
    waiting: HashMap<u64, Sender<Reply>>,
}

/// A running node.
#[derive(Debug)]
pub struct NodeProcess {
    child: Mutex<Child>,
    pid: Pid,
    input: Mutex<Option<ChildStdin>>,
    open: Arc<Mutex<Open>>,
    next: AtomicU64,
    reader: Mutex<Option<JoinHandle<()>>>,
    log: PathBuf,
}

/// Every lock here guards plain values that a panic leaves whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NodeProcess {
    /// Start `command`; its stderr is appended to `log`. Returns when it has said [`STARTED`]. The calling thread must
    /// live as long as the node shall.
    pub fn start(mut command: Command, log: &Path, limit: Duration) -> Result<Self, StartFailure> {
        let program = PathBuf::from(command.get_program());
        let failed = |source| StartFailure::Spawn { program: program.clone(), source };
        let errors = OpenOptions::new().create(true).append(true).open(log).map_err(failed)?;
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).spawn().map_err(failed)?;
        let pid = Pid::from_child(&child);
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let open = Arc::new(Mutex::new(Open::default()));
        let (started, has_started) = mpsc::channel();
        let reader = std::thread::spawn({
            let open = Arc::clone(&open);
            let output = output.expect("stdout is piped");
            move || read_answers(output, &open, &started)
        });
        let process = Self {
            child: Mutex::new(child),
            pid,
            input: Mutex::new(input),
            open,
            next: AtomicU64::new(1),
            reader: Mutex::new(Some(reader)),
            log: log.to_path_buf(),
        };
        match has_started.recv_timeout(limit) {
            Ok(()) => Ok(process),
            Err(RecvTimeoutError::Timeout) => {
                Err(process.silent(format!("silent for {limit:?}; its threads:\n{}", process.threads())))
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = lock(&process.child).wait();
                Err(process
                    .silent(status.map_or_else(|error| error.to_string(), |status| status.to_string())))
            }
        }
    }

    fn silent(&self, what: String) -> StartFailure {
        StartFailure::Silent { what, log: self.log.clone(), tail: tail(&self.log, 20) }
    }

    /// What each of its threads is doing, as far as the kernel tells.
    fn threads(&self) -> String {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        let one = |task: std::fs::DirEntry| {
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let state =
                read("stat").rsplit(')').next().unwrap_or_default().chars().take(2).collect::<String>();
            format!("{}{state} in {}: {}", read("comm").trim(), read("wchan"), read("syscall").trim())
        };
        tasks.map(one).collect::<Vec<_>>().join("\n")
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Send a call. It may be answered at once if the node is already gone.
    pub fn call(&self, ask: Ask) -> Call {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, reply) = mpsc::channel();
        let invoked = Stamp::now();
        {
            let mut open = lock(&self.open);
            if open.closed {
                return Call { invoked, reply };
            }
            open.waiting.insert(number, sender);
        }
        let line = format!("{}\n", Line { number, message: ask });
        let mut input = lock(&self.input);
        let written = input.as_mut().is_some_and(|input| input.write_all(line.as_bytes()).is_ok());
        if !written {
            // Part of the line may have gone through, so the outcome is unknown: the dropped sender says that.
            lock(&self.open).waiting.remove(&number);
        }
        Call { invoked, reply }
    }

    /// Call and wait; silence for `limit` is "nobody knows".
    pub fn ask(&self, ask: Ask, limit: Duration) -> Reply {
        self.call(ask).wait(limit).unwrap_or_else(|| {
            let why = format!("no answer within {limit:?}");
            Reply { at: Stamp::now(), told: Told::Failed { effect: Effect::Maybe, why } }
        })
    }

    fn signal(&self, signal: Signal) {
        // The child is reaped only under this lock, so the id is still its own.
        let mut child = lock(&self.child);
        if matches!(child.try_wait(), Ok(None)) {
            // A failure means that it has just ended, which is what a signal could at most achieve.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Stop it from running at all, until [`thaw`](Self::thaw). When this returns, none of its threads runs.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let deadline = Instant::now() + Duration::from_secs(5);
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        // Waits for the stop only: an end remains for `Child` to see.
        while self.runs() && Instant::now() < deadline {
            if let Ok(Some(_)) = waitid(WaitId::Pid(self.pid), options) {
                return;
            }
            std::thread::yield_now();
        }
    }

    /// Let it run again.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL, without waiting.
    pub fn send_kill(&self) {
        self.signal(Signal::KILL);
    }

    /// SIGKILL, and wait until the process is gone and all it owed is answered.
    pub fn kill(&self) {
        self.send_kill();
        self.reap();
    }

    /// Ask it to stop and wait for that; what it said at the end. Killed if it takes longer than `limit`.
    pub fn stop(&self, limit: Duration) -> Result<(), String> {
        drop(self.call(Ask::Stop));
        let deadline = Instant::now() + limit;
        loop {
            let state = lock(&self.child).try_wait();
            match state {
                Ok(Some(status)) if status.success() => break,
                Ok(Some(status)) => {
                    self.reap();
                    return Err(format!("ended with {status}:\n{}", tail(&self.log, 10)));
                }
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                _ => {
                    self.kill();
                    return Err(format!("did not stop within {limit:?}:\n{}", tail(&self.log, 10)));
                }
            }
        }
        self.reap();
        Ok(())
    }

    /// Whether the process runs.
    pub fn runs(&self) -> bool {
        matches!(lock(&self.child).try_wait(), Ok(None))
    }

    fn reap(&self) {
        lock(&self.input).take();
        // An error means that it has been waited for already.
        let _ = lock(&self.child).wait();
        if let Some(reader) = lock(&self.reader).take() {
            let _ = reader.join();
        }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_answers(output: ChildStdout, open: &Mutex<Open>, started: &Sender<()>) {
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { break };
        let at = Stamp::now();
        if line == STARTED {
            // Nobody listens any more if the start took too long.
            let _ = started.send(());
        } else if let Ok(Line { number, message: told }) = line.parse::<Line<Told>>() {
            if let Some(waiting) = lock(open).waiting.remove(&number) {
                // The caller may have lost interest.
                let _ = waiting.send(Reply { at, told });
            }
        } else {
            eprintln!("a node printed: {line}");
        }
    }
    // Dropping the senders answers everything outstanding.
    let mut open = lock(open);
    open.closed = true;
    open.waiting.clear();
}

/// The last `lines` lines of a log.
pub fn tail(log: &Path, lines: usize) -> String {
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> (tempfile::TempDir, Result<NodeProcess, StartFailure>) {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let process = NodeProcess::start(command, &directory.path().join("log"), LIMIT);
        (directory, process)
    }

    #[test]
    fn answers_reach_their_calls_in_any_order() {
        let script = "echo started; read a; read b; set -- $b; echo \"$1 done 20\"; set -- $a; echo \"$1 done 10\"; read c";
        let (_directory, process) = shell(script);
        let process = process.unwrap();
        let (first, second) = (process.call(Ask::Status), process.call(Ask::Status));
        assert_eq!(second.wait(LIMIT).unwrap().told, Told::Done { revision: 20 });
        let reply = first.wait(LIMIT).unwrap();
        assert_eq!(reply.told, Told::Done { revision: 10 });
        assert!(reply.at > first.invoked);
    }

    #[test]
    fn a_killed_node_answers_what_it_owes_with_nobody_knows() {
        let (_directory, process) = shell("echo started; while read line; do :; done");
        let process = process.unwrap();
        let call = process.call(Ask::Status);
        assert!(process.runs() && call.wait(Duration::ZERO).is_none());
        process.kill();
        assert!(!process.runs());
        for call in [call, process.call(Ask::Status)] {
            assert!(matches!(call.wait(LIMIT).unwrap().told, Told::Failed { effect: Effect::Maybe, .. }));
        }
    }

    #[test]
    fn a_frozen_node_answers_after_it_is_thawed() {
        let (_directory, process) = shell("echo started; while read n rest; do echo \"$n done 1\"; done");
        let process = process.unwrap();
        process.freeze();
        let call = process.call(Ask::Status);
        assert!(call.wait(Duration::from_millis(50)).is_none());
        process.thaw();
        assert_eq!(call.wait(LIMIT).unwrap().told, Told::Done { revision: 1 });
    }

    #[test]
    fn a_failed_start_shows_the_log() {
        let (_directory, process) = shell("echo no such directory >&2; exit 3");
        let error = process.unwrap_err().to_string();
        assert!(error.contains("no such directory") && error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_node_that_leaves_by_itself_has_stopped() {
        let (_directory, process) = shell("echo started; read line; exit 0");
        process.unwrap().stop(LIMIT).unwrap();
        let (_directory, process) = shell("echo started; read line; exit 1");
        assert!(process.unwrap().stop(LIMIT).unwrap_err().contains("exit status: 1"));
    }
}

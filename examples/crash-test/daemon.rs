//! The program under test: fed from a thread, answering line by line, killed when its time has come.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::transactions::Profile;

/// How often it is looked whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What a daemon is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) profile: Profile,
    /// Number of the first line.
    pub(crate) first: u64,
    /// Number of lines.
    pub(crate) count: u64,
    /// Lines handed over at once.
    pub(crate) chunk: u64,
    /// Whether the next lines wait for the answers to these.
    pub(crate) waits: bool,
}

/// What producers know at the end: how many lines they have handed over, at least in part, and the answers in order; the
/// LSN of a confirmed one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) first: u64,
    pub(crate) submitted: u64,
    pub(crate) answers: Vec<Option<u64>>,
}

impl Told {
    pub(crate) fn confirmed(&self) -> u64 {
        self.answers.iter().flatten().count() as u64
    }
}

/// Counts answers and wakes whoever waits for them.
#[derive(Default)]
struct Answers {
    /// And whether there will be no more.
    state: Mutex<(Vec<Option<u64>>, bool)>,
    changed: Condvar,
}

impl Answers {
    fn add(&self, answer: Option<Option<u64>>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Some(answer) => state.0.push(answer),
            None => state.1 = true,
        }
        self.changed.notify_all();
    }

    fn count(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.len() as u64
    }

    fn wait_for(&self, count: u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |state: &mut (Vec<Option<u64>>, bool)| !state.1 && (state.0.len() as u64) < count;
        drop(self.changed.wait_while(state, waits));
    }
}

/// A running daemon with its load; killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    load: Load,
    submitted: Arc<AtomicU64>,
    answers: Arc<Answers>,
    threads: Vec<JoinHandle<()>>,
}

/// `kifa COMMAND -d STORE`, without any configuration of whoever runs the test.
pub(crate) fn kifa(program: &Path, command: &str, store: &Path) -> Command {
    let mut kifa = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KIFA_") {
            kifa.env_remove(name);
        }
    }
    kifa.arg(command).arg("-d").arg(store).stdin(Stdio::null());
    kifa
}

impl Daemon {
    /// Starts it; `command` is `kifa daemon …`. Its messages go to `log`.
    pub(crate) fn start(mut command: Command, load: Load, log: File) -> Result<Daemon, String> {
        command.args(["--stdin", "--confirm"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (submitted, answers) = (Arc::<AtomicU64>::default(), Arc::<Answers>::default());
        let (stdin, stdout) = stdin.zip(stdout).expect("both were asked for");
        let feeder = {
            let (submitted, answers) = (Arc::clone(&submitted), Arc::clone(&answers));
            thread::spawn(move || feed(stdin, load, &submitted, &answers))
        };
        let listener = {
            let answers = Arc::clone(&answers);
            thread::spawn(move || listen(stdout, &answers))
        };
        Ok(Daemon { child, load, submitted, answers, threads: vec![feeder, listener] })
    }

    /// Waits until so much is answered, the daemon ends, or the time is over.
    pub(crate) fn wait_for(&mut self, answers: u64, at_most: Duration) {
        let start = Instant::now();
        while self.answers.count() < answers && start.elapsed() < at_most && !self.has_ended() {
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Number of lines that were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answers.count()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Gives it time to end by itself; whether it did.
    pub(crate) fn ends_within(&mut self, patience: Duration) -> bool {
        self.wait_for(u64::MAX, patience);
        self.has_ended()
    }

    /// Kills it if it runs yet, and tells what was told until then.
    pub(crate) fn kill(mut self) -> Result<(Told, ExitStatus), String> {
        self.child.kill().map_err(|error| format!("kill: {error}"))?;
        let status = self.child.wait().map_err(|error| format!("wait: {error}"))?;
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| "a thread of the crash test panicked".to_owned())?;
        }
        let answers = self.answers.state.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        let submitted = self.submitted.load(Ordering::SeqCst);
        Ok((Told { first: self.load.first, submitted, answers }, status))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn feed(mut stdin: ChildStdin, load: Load, submitted: &AtomicU64, answers: &Answers) {
    let mut handed = 0;
    while handed < load.count {
        let chunk = load.chunk.min(load.count - handed);
        let lines = (handed..handed + chunk).map(|at| load.profile.line(load.first + at) + "\n");
        let text: String = lines.collect();
        handed += chunk;
        // Before the write: a part of it may arrive although it fails.
        submitted.store(handed, Ordering::SeqCst);
        if stdin.write_all(text.as_bytes()).is_err() {
            return;
        }
        if load.waits {
            answers.wait_for(handed);
        }
    }
    // The input stays open, or the daemon would end in good order.
    answers.wait_for(u64::MAX);
}

fn listen(stdout: ChildStdout, answers: &Answers) {
    let mut reader = BufReader::new(stdout);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
        // A line that is cut off tells nobody anything.
        if let Some(answer) = line.strip_suffix('\n') {
            answers.add(Some(answer.strip_prefix("OK ").and_then(|lsn| lsn.parse().ok())));
        }
        line.clear();
    }
    answers.add(None);
}

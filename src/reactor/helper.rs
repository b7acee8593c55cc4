//! CPU work off the reactor: building, packing and reading back tables.
//!
//! Three lanes, each a thread of its own with a bounded queue: what appends may come to wait for (a flush) never waits behind
//! a merge. All of them give way to the reactor and to producers where processors are short: appends that outrun a flush
//! wait for it, and leave it the processor. Work is deterministic: where it runs changes nothing about what it yields, so
//! the simulator, recovery and snapshots run it where they are ([`Inline`]).
//!
//! Proof: `engine`'s tests run on the threads, the crash campaign in `sim` inline.
// The lanes of the engine are threads.
#![allow(clippy::disallowed_methods)]

use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, bounded};

/// Who waits for a piece of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lane {
    /// Appends, sooner or later: a flush.
    Foreground,
    /// The next flush.
    Ahead,
    /// Nobody: merges.
    Background,
}

type Work = Box<dyn FnOnce() + Send>;

/// Runs work, one piece of a lane after the other.
pub(crate) trait Helper {
    fn run(&self, lane: Lane, work: Work);
}

/// Pieces of work that may wait in front of a thread.
const WAITING_MAX: usize = 4;

/// The helper of a log.
pub(crate) struct Threads {
    foreground: Worker,
    ahead: Worker,
    background: Worker,
}

impl Threads {
    pub(crate) fn start() -> io::Result<Threads> {
        Ok(Threads {
            foreground: Worker::start("kifa-flush")?,
            ahead: Worker::start("kifa-pack")?,
            background: Worker::start("kifa-merge")?,
        })
    }
}

impl Helper for Threads {
    fn run(&self, lane: Lane, work: Work) {
        let worker = match lane {
            Lane::Foreground => &self.foreground,
            Lane::Ahead => &self.ahead,
            Lane::Background => &self.background,
        };
        let sender = worker.work.as_ref().expect("the worker lives as long as the reactor");
        sender.send(work).expect("the worker's thread runs until the sender is gone");
    }
}

/// One thread and its queue.
struct Worker {
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(name: &str) -> io::Result<Worker> {
        let (work, jobs) = bounded::<Work>(WAITING_MAX);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            give_way();
            for job in jobs {
                job();
            }
        })?;
        Ok(Worker { work: Some(work), thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How much less of a busy processor than others this thread gets: a tenth.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Lets other threads go first where processors are short. It goes on as before where that is refused.
fn give_way() {
    // Only on Linux is the niceness of process 0 that of the calling thread alone.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

/// Runs work at once, on the thread that asks.
#[cfg(any(test, feature = "cli", feature = "sim"))]
pub(crate) struct Inline;

#[cfg(any(test, feature = "cli", feature = "sim"))]
impl Helper for Inline {
    fn run(&self, _: Lane, work: Work) {
        work();
    }
}

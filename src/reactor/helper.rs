//! CPU work off the reactor: building, packing and reading back tables.
//!
//! Three lanes, each a thread of its own with a bounded queue: what appends may come to wait for (a flush) never waits behind
//! a merge. All of them give way to the reactor and to producers where processors are short: appends that outrun a flush
//! wait for it, and leave it the processor. They keep off the processor where confirmations arrive, unless appends wait for a
//! flush ([`processors`](crate::io::processors)). Work is deterministic: where it runs changes nothing about what it yields, so
//! the simulator, recovery and snapshots run it where they are ([`Inline`]).
//!
//! Proof: `engine`'s tests run on the threads, the crash campaign in `sim` inline.
// The lanes of the engine are threads.
#![allow(clippy::disallowed_methods)]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::{Error, Result};
#[cfg(target_os = "linux")]
use crate::io::processors::Placement;
use crate::options::CpuAffinity;

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

    /// Appends wait for a flush.
    fn hurry(&self);
}

/// Pieces of work that may wait in front of a thread.
const WAITING_MAX: usize = 4;

/// The helper of a log.
pub(crate) struct Threads {
    foreground: Worker,
    ahead: Worker,
    background: Worker,
    /// Times that appends have waited.
    stalls: Arc<AtomicU64>,
}

impl Threads {
    /// For the log in `dir`.
    pub(crate) fn start(affinity: CpuAffinity, dir: &Path) -> io::Result<Threads> {
        let stalls = Arc::new(AtomicU64::new(0));
        let start = |name, stalls| Worker::start(name, Place { affinity, dir: dir.to_owned(), stalls });
        Ok(Threads {
            foreground: start("kifa-flush", Arc::clone(&stalls))?,
            ahead: start("kifa-pack", Arc::clone(&stalls))?,
            // Nobody waits for merges.
            background: start("kifa-merge", Arc::default())?,
            stalls,
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

    fn hurry(&self) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
    }
}

/// What decides where a worker runs.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "elsewhere the system decides"))]
struct Place {
    affinity: CpuAffinity,
    dir: PathBuf,
    stalls: Arc<AtomicU64>,
}

/// One thread and its queue.
struct Worker {
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(name: &str, place: Place) -> io::Result<Worker> {
        let (work, jobs) = bounded::<Work>(WAITING_MAX);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            give_way();
            work_off(jobs, &place);
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

/// Keeps the reactor, whose thread calls this behind the start of its helpers, where it is wanted.
pub(crate) fn settle_on(affinity: CpuAffinity) -> Result<()> {
    let CpuAffinity::Reactor(cpu) = affinity else { return Ok(()) };
    #[cfg(target_os = "linux")]
    let pinned = crate::io::processors::pin(cpu);
    #[cfg(not(target_os = "linux"))]
    let pinned = Err(io::Error::other("threads are not pinned on this system"));
    pinned.map_err(|cause: io::Error| {
        Error::InvalidOption(format!("cpu_affinity is processor {cpu}, and the reactor cannot run there: {cause}"))
    })
}

/// Does what comes, until there is nobody left to ask for more.
#[cfg(target_os = "linux")]
fn work_off(jobs: Receiver<Work>, place: &Place) {
    let mut placement = Placement::of_helper(place.affinity, &place.dir);
    for job in jobs {
        placement.look(place.stalls.load(Ordering::Relaxed));
        job();
    }
}

#[cfg(not(target_os = "linux"))]
fn work_off(jobs: Receiver<Work>, _: &Place) {
    jobs.into_iter().for_each(|job| job());
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

    fn hurry(&self) {}
}

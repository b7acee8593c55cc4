//! The public life of a log: open, append, submit, sync, close. What it promises is on the crate's page.
//!
//! `directory` is what is asked before it is opened, `ticket` what a producer holds of a batch on its way.
// The reactor and its helpers are the threads of a log, and they start here.
#![allow(clippy::disallowed_methods)]

mod directory;
mod ticket;

use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
#[cfg(feature = "cli")]
use std::time::Duration;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::format::facts::Checkpoints;
use crate::format::{FlushMode, Lsn};
#[cfg(target_os = "linux")]
use crate::io::fs::StoreDir;
use crate::io::fs::{RealEnv, RealVfs, open_backend};
use crate::io::lock::StoreLock;
use crate::io::{Env, Vfs};
use crate::options::Options;
#[cfg(all(feature = "cli", unix))]
use crate::reactor::gauges::Gauges;
use crate::reactor::helper::{Threads, settle_on};
use crate::reactor::open::open;
use crate::reactor::ops::Ops;
#[cfg(feature = "cli")]
use crate::reactor::retain::Vacuum;
#[cfg(feature = "cli")]
use crate::reactor::stage::Asked;
#[cfg(all(feature = "cli", unix))]
use crate::reactor::stage::Load;
use crate::reactor::stage::{Reply, Request, Shared};
use crate::reactor::stats::LogStats;
#[cfg(feature = "cli")]
use crate::reactor::watch::Watch;
use crate::reactor::{Core, run};
#[cfg(feature = "cli")]
use crate::retention::Deleted;
use directory::lock;
pub(crate) use directory::{cannot_open, check_links};
pub use ticket::Ticket;

/// A job that found no space looks again every second; older news than this says nothing any more.
#[cfg(feature = "cli")]
const NO_SPACE_FRESH: Duration = Duration::from_secs(5);

/// A log open for writing. Many threads may append at once; one process, one `Log` at a time.
///
/// Dropping it closes it, as [`Log::close`] does, but nobody learns of an error.
///
/// ```
/// # let temporary = tempfile::tempdir()?;
/// # let dir = temporary.path().join("till-1");
/// use kifa::{Log, Options};
///
/// let log = Log::open(&dir, Options::default())?;
/// std::thread::scope(|scope| {
///     for till in 0..4 {
///         let log = &log;
///         scope.spawn(move || log.append(format!(r#"{{"till":{till},"amount":1250}}"#).as_bytes()));
///     }
/// });
/// assert_eq!(log.durable_lsn().0, 4);
/// log.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Log {
    shared: Arc<Shared>,
    dir: PathBuf,
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "sources read it"))]
    recovered: Checkpoints,
    reactor: Option<JoinHandle<()>>,
}

impl Log {
    /// Opens the store in `dir`, recovering what an unclean end left, and creates it where the directory is absent or
    /// holds nothing but `kifa.toml` and `lost+found`.
    ///
    /// ```
    /// # let temporary = tempfile::tempdir()?;
    /// # let dir = temporary.path().join("till-1");
    /// use kifa::{Error, Log, Options};
    ///
    /// let mut options = Options::default();
    /// options.segment_bytes = 4 << 20;
    /// let log = Log::open(&dir, options)?;
    /// assert!(matches!(Log::open(&dir, Options::default()), Err(Error::Locked { .. })), "one writer at a time");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidOption`]; [`Error::Locked`] where somebody else writes; [`Error::NotAStore`] where the directory
    /// holds something else; [`Error::Corrupt`] where entries that were durable are damaged (nothing is changed then).
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Log> {
        options.validate()?;
        let dir = dir.as_ref().to_path_buf();
        let (opened, outcome) = mpsc::sync_channel(1);
        let at = dir.clone();
        let reactor =
            thread::Builder::new().name("kifa-reactor".to_owned()).spawn(move || reactor(&at, options, &opened));
        let reactor = reactor.map_err(|cause| Error::io("start a thread for", &dir, cause))?;
        match outcome.recv() {
            Ok(Ok((shared, recovered))) => Ok(Log { shared, dir, recovered, reactor: Some(reactor) }),
            Ok(Err(cause)) => {
                join(reactor);
                Err(cause)
            }
            Err(_) => std::panic::resume_unwind(reactor.join().expect_err("it ended without an answer")),
        }
    }

    /// The store's directory.
    ///
    /// ```
    /// # let temporary = tempfile::tempdir()?;
    /// # let dir = temporary.path().join("till-1");
    /// # use kifa::{Log, Options};
    /// let log = Log::open(&dir, Options::default())?;
    /// assert_eq!(log.dir(), dir);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Appends one entry of up to 1 MiB; returns its LSN when it is confirmed.
    ///
    /// ```
    /// # let temporary = tempfile::tempdir()?;
    /// # let dir = temporary.path().join("till-1");
    /// # use kifa::{Log, Options};
    /// let log = Log::open(&dir, Options::default())?;
    /// let lsn = log.append(br#"{"txn":"TXN-001","amount":5000}"#)?;
    /// assert_eq!(lsn.0, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append(&self, payload: &[u8]) -> Result<Lsn> {
        let mut batch = Batch::new();
        batch.push(payload)?;
        Ok(self.submit(&batch)?.wait()?.first)
    }

    /// Hands a batch over; waits only for room. The batch is atomic: after a crash all of it is there, or nothing.
    ///
    /// ```
    /// # let temporary = tempfile::tempdir()?;
    /// # let dir = temporary.path().join("till-1");
    /// # use kifa::{Log, Options};
    /// use kifa::Batch;
    ///
    /// let log = Log::open(&dir, Options::default())?;
    /// let mut batch = Batch::new();
    /// let mut tickets = Vec::new();
    /// for receipt in 0..1000 {
    ///     batch.clear();
    ///     batch.push(format!(r#"{{"receipt":{receipt}}}"#).as_bytes())?;
    ///     tickets.push(log.submit(&batch)?); // the next one does not wait for the device
    /// }
    /// for ticket in &tickets {
    ///     ticket.wait()?;
    /// }
    /// assert_eq!(log.confirmed_lsn().0, 1000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Stopped`], and [`Error::Full`] where that is asked for. An empty batch is [`Error::InvalidOption`].
    pub fn submit(&self, batch: &Batch) -> Result<Ticket> {
        if batch.is_empty() {
            return Err(Error::InvalidOption("a batch must hold an entry".to_owned()));
        }
        if self.is_refusing() {
            return Err(Error::Full);
        }
        Ok(self.hand_over(batch, true)?.expect("it waited for room"))
    }

    /// Whether the disk is full and appends are refused, as [`OnFull::Refuse`](crate::OnFull::Refuse) asks for.
    pub(crate) fn is_refusing(&self) -> bool {
        self.shared.is_refusing()
    }

    /// As [`Log::submit`], but never refused, also of a batch that holds checkpoints alone; `None` where `wait` is off and there is no room.
    pub(crate) fn hand_over(&self, batch: &Batch, wait: bool) -> Result<Option<Ticket>> {
        let staged = self.shared.submit(batch, wait)?;
        Ok(staged.map(|(seq, lsns)| Ticket { shared: Arc::clone(&self.shared), seq, lsns }))
    }

    /// Checkpoints as of the last entry when the log was opened: all of them durable.
    #[cfg(feature = "cli")]
    pub(crate) fn recovered_checkpoints(&self) -> &Checkpoints {
        &self.recovered
    }

    /// The largest LSN that is durable. In cautious and emergency mode it has reached an entry before that is confirmed.
    ///
    /// ```
    /// # let temporary = tempfile::tempdir()?;
    /// # let dir = temporary.path().join("till-1");
    /// # use kifa::{Log, Options};
    /// let log = Log::open(&dir, Options::default())?;
    /// let lsn = log.append(b"cash drawer opened")?;
    /// assert!(log.durable_lsn() >= lsn);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn durable_lsn(&self) -> Lsn {
        self.shared.durable_lsn()
    }

    /// The largest LSN that is confirmed.
    ///
    /// ```
    /// # let temporary = tempfile::tempdir()?;
    /// # let dir = temporary.path().join("till-1");
    /// # use kifa::{Log, Options};
    /// use kifa::FlushMode;
    ///
    /// let mut options = Options::default();
    /// options.flush_mode = FlushMode::Normal;
    /// let log = Log::open(&dir, options)?;
    /// log.append(b"temperature 21.5")?;
    /// assert!(log.confirmed_lsn().0 <= log.durable_lsn().0 + 49);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn confirmed_lsn(&self) -> Lsn {
        self.shared.confirmed_lsn()
    }

    /// Why the log has stopped, if it has: a write or a sync that failed. Nothing is accepted any more; what was confirmed is
    /// safe, and the next [`Log::open`] recovers.
    ///
    /// ```
    /// # let temporary = tempfile::tempdir()?;
    /// # let dir = temporary.path().join("till-1");
    /// # use kifa::{Log, Options};
    /// let log = Log::open(&dir, Options::default())?;
    /// assert!(log.failure().is_none(), "the device has failed: close the log, look at the disk, open it again");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn failure(&self) -> Option<Error> {
        self.shared.failure()
    }

    /// Registers a waker for a thread that waits for something else, too; see [`Watch`].
    #[cfg(feature = "cli")]
    pub(crate) fn watch(&self, waker: crate::io::Waker) -> Watch {
        self.shared.watch(waker)
    }

    /// Hands a request over without waiting; a [`Watch`] wakes whoever polls the reply.
    #[cfg(feature = "cli")]
    pub(crate) fn ask(&self, request: Request) -> Result<Asked> {
        self.shared.request(request)
    }

    /// Numbers, without asking the reactor.
    #[cfg(all(feature = "cli", unix))]
    pub(crate) fn gauges(&self) -> &Gauges {
        &self.shared.gauges
    }

    /// How much is on its way.
    #[cfg(all(feature = "cli", unix))]
    pub(crate) fn load(&self) -> Load {
        self.shared.load()
    }

    /// Whether the log waits for space on its disk, or has until a moment ago: it looks again every second.
    #[cfg(feature = "cli")]
    pub(crate) fn waits_for_space(&self) -> bool {
        self.shared.had_no_space_within(NO_SPACE_FRESH)
    }

    /// Returns when everything submitted before is durable, in every flush mode.
    ///
    /// ```
    /// # let temporary = tempfile::tempdir()?;
    /// # let dir = temporary.path().join("till-1");
    /// # use kifa::{FlushMode, Log, Options};
    /// let mut options = Options::default();
    /// options.flush_mode = FlushMode::Normal;
    /// let log = Log::open(&dir, options)?;
    /// let lsn = log.append(b"day closed")?;
    /// log.sync()?;
    /// assert!(log.durable_lsn() >= lsn);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sync(&self) -> Result<()> {
        self.shared.request(Request::Sync)?.wait().map(drop)
    }

    /// The flush mode in force.
    ///
    /// ```
    /// # let temporary = tempfile::tempdir()?;
    /// # let dir = temporary.path().join("till-1");
    /// # use kifa::{FlushMode, Log, Options};
    /// let log = Log::open(&dir, Options::default())?;
    /// assert_eq!(log.flush_mode(), FlushMode::Cautious);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn flush_mode(&self) -> FlushMode {
        self.shared.mode()
    }

    /// Changes the flush mode; returns when the new one is in force and its promise holds for everything before.
    ///
    /// ```
    /// # let temporary = tempfile::tempdir()?;
    /// # let dir = temporary.path().join("till-1");
    /// # use kifa::{FlushMode, Log, Options};
    /// let log = Log::open(&dir, Options::default())?;
    /// log.set_flush_mode(FlushMode::Emergency)?; // running on battery
    /// assert_eq!(log.flush_mode(), FlushMode::Emergency);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_flush_mode(&self, mode: FlushMode) -> Result<()> {
        self.shared.request(Request::SetMode(mode))?.wait().map(drop)
    }

    /// What the log has done since it was opened, and where it stands.
    ///
    /// ```
    /// # let temporary = tempfile::tempdir()?;
    /// # let dir = temporary.path().join("till-1");
    /// # use kifa::{Log, Options};
    /// let log = Log::open(&dir, Options::default())?;
    /// log.append(b"printer out of paper")?;
    /// let stats = log.stats()?;
    /// assert_eq!((stats.entries, stats.durable_lsn.0), (1, 1));
    /// println!("{} groups, {} bytes, by {}", stats.groups, stats.wal_bytes, stats.io_backend);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> Result<LogStats> {
        match self.shared.request(Request::Stats)?.wait()? {
            Reply::Stats(stats) => Ok(*stats),
            Reply::Done | Reply::Vacuumed(_) => unreachable!("a request for numbers is answered with numbers"),
        }
    }

    /// Deletes the oldest tables, as an operator asks.
    #[cfg(feature = "cli")]
    pub(crate) fn vacuum(&self, vacuum: Vacuum) -> Result<Deleted> {
        match self.shared.request(Request::Vacuum(vacuum))?.wait()? {
            Reply::Vacuumed(deleted) => Ok(*deleted),
            Reply::Done | Reply::Stats(_) => unreachable!("a vacuum is answered with what it came to"),
        }
    }

    /// Waits for everything submitted, makes it durable, marks the log as cleanly closed and releases the lock.
    ///
    /// On a full disk it waits for room for what was submitted, as producers do.
    ///
    /// ```
    /// # let temporary = tempfile::tempdir()?;
    /// # let dir = temporary.path().join("till-1");
    /// # use kifa::{Log, Options};
    /// let log = Log::open(&dir, Options::default())?;
    /// log.append(b"last receipt of the day")?;
    /// log.close()?;
    /// assert!(Log::open(&dir, Options::default())?.stats()?.recovery.clean);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(mut self) -> Result<()> {
        let (outcome, ended) = self.shut_down();
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
        outcome
    }

    fn shut_down(&mut self) -> (Result<()>, thread::Result<()>) {
        let Some(reactor) = self.reactor.take() else { return (Ok(()), Ok(())) };
        let outcome = self.shared.request(Request::Close).and_then(|asked| asked.wait());
        (outcome.map(drop), reactor.join())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // An error here was reported to every producer that waited; `close` is for who wants to know.
        let _ = self.shut_down();
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.dir).finish_non_exhaustive()
    }
}

fn join(reactor: JoinHandle<()>) {
    if let Err(panic) = reactor.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The reactor thread, from the lock to its release. The lock outlives the backend, and so every request in flight.
fn reactor(dir: &Path, options: Options, opened: &mpsc::SyncSender<Result<(Arc<Shared>, Checkpoints)>>) {
    let lock = match lock(dir) {
        Ok(lock) => lock,
        Err(cause) => {
            let _ = opened.send(Err(cause));
            return;
        }
    };
    let outcome = start(dir, options, &lock);
    match outcome {
        Ok(core) => {
            let poison = Poison(Arc::clone(core.shared()));
            core.tell_numbers();
            let _ = opened.send(Ok((Arc::clone(core.shared()), core.checkpoints().clone())));
            run(core);
            std::mem::forget(poison);
        }
        Err(cause) => {
            drop(lock);
            let _ = opened.send(Err(within(dir, cause)));
        }
    }
}

/// Tells everybody if the reactor panics, so that nobody waits for ever.
struct Poison(Arc<Shared>);

impl Drop for Poison {
    fn drop(&mut self) {
        let cause = std::io::Error::other("the reactor thread panicked; this is a bug in kifa");
        self.0.fail(Error::io("go on with", "the log", cause));
    }
}

fn start(dir: &Path, options: Options, lock: &StoreLock) -> Result<Core> {
    let (mut backend, notice) = open_backend(dir, options.io_backend, options.sync_method)
        .map_err(|cause| Error::io("start I/O in", dir, cause))?;
    if let Some(notice) = notice {
        tracing::warn!("{notice}");
    }
    backend.hold(lock.file());
    let info = backend.info();
    let direct = if info.direct { "direct I/O" } else { "buffered I/O" };
    tracing::info!("{}, {} syncs, {direct}", info.name, info.sync_method);
    let env: Arc<dyn Env> = Arc::new(RealEnv);
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs::open(dir).map_err(|cause| Error::io("open", dir, cause))?);
    let threads = Threads::start(options.cpu_affinity, dir);
    let helper = Box::new(threads.map_err(|cause| Error::io("start a thread for", dir, cause))?);
    // Behind the start of its helpers: they have what this thread was allowed.
    settle_on(options.cpu_affinity)?;
    let ops: Rc<Ops> = Ops::new(backend, env, helper);
    // Directories that are made while it opens inherit it.
    write_in_place(dir, &[("", true)]);
    let core = open(&ops, vfs, options)?;
    write_in_place(dir, &[(crate::wal::DIR, true), (crate::sstable::DIR, false)]);
    Ok(core)
}

/// The log's segments and the manifest's reserve are filled beforehand, so that writing over them needs no space. On btrfs
/// that holds only for files that it does not write elsewhere (NOCOW), as for those of the journal. Tables are written once:
/// they stay as they are everywhere else, with the file system's checksums, and can be cloned.
#[cfg(target_os = "linux")]
fn write_in_place(dir: &Path, which: &[(&str, bool)]) {
    let set = |store: StoreDir| which.iter().try_for_each(|&(path, is_in_place)| store.set_in_place(path, is_in_place));
    if let Err(cause) = StoreDir::open(dir).and_then(set) {
        tracing::warn!(
            "btrfs refuses to write the log in place ({cause}): on a full disk the log stops, and starts again when there is space"
        );
    }
}

#[cfg(not(target_os = "linux"))]
fn write_in_place(_: &Path, _: &[(&str, bool)]) {}

/// Paths in errors of the engine are relative to the store; outside it they are not.
pub(crate) fn within(dir: &Path, cause: Error) -> Error {
    match cause {
        Error::Io { op, path, source } if path.is_relative() => Error::Io { op, path: dir.join(path), source },
        other => other,
    }
}

/// A log, its tickets and a reader may be shared between threads.
const _: fn() = || {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Log>();
    is_shared::<Ticket>();
    is_shared::<crate::query::Reader>();
};

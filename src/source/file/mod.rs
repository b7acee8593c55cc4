//! Files that are followed: all of them by one thread.
//!
//! | file | what |
//! |---|---|
//! | `identity` | which file this is: number and bytes |
//! | `position` | how far it was read, as kept in the store |
//! | `lines` | bytes of a file to lines |
//! | `follow` | one open file |
//! | `generations` | rotated files and copies beside it |
//! | `old` | files beside it that have nothing to be read |
//! | `path` | one path: the file there, and those before it |
//! | `set` | all paths, and what goes into the store together |
//! | `glob` | patterns |
//! | `watch` | notifications |
//! | `outlet` | the way into the log |
//! | `report` | what somebody should know |
//!
//! **Every line is in the log exactly once, after any end of the daemon or of the machine**: the position of a file is a
//! record in the same group as the entries that were read up to it, and a group is durable as a whole or not at all. What
//! cannot be had any more (truncated away, compressed, removed while the daemon was down) is reported and counted.
//!
//! - Memory: one chunk for the thread, one batch, two KiB for each open file. An unfinished line stays in its file.
//! - A log without room stops reading; files keep what they have.
//! - On a stop nothing more is read, and what was handed over is confirmed. A batch that the log had no room for is dropped:
//!   its lines are still in their files, and the next run reads them.
//! - A file that cannot be read is reported once and tried again; it never ends the daemon. Only the log's failure does.
//!
//! It does not keep files from being removed: what is deleted before it was read is gone. It does not read compressed files.
//!
//! Proof: the property test in `set/tests.rs`, and `tests/it/tail.rs`.
// The thread waits for files, which have a clock of their own: the time since it started is all it looks at.
#![allow(clippy::disallowed_methods)]

mod follow;
mod generations;
mod glob;
mod identity;
mod lines;
mod old;
mod outlet;
mod path;
mod position;
mod report;
mod set;
mod watch;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{info, warn};

use super::Context;
use crate::config::sources::{FileLimits, FileSource, FileWatch};
use crate::daemon::stop::Stop;
use crate::daemon::wake::WakePipe;
use crate::engine::Log;
use crate::error::{Error, Result};
use crate::reactor::watch::Watch;
use follow::CHUNK_BYTES;
use outlet::LogOutlet;
use set::{Progress, Set};
use watch::Watching as _;

/// Least time between two scans: names that come and go in a busy directory cost no more than this.
const SCAN_PAUSE: Duration = Duration::from_millis(10);

/// The files, opened and not read yet.
pub(crate) struct Files<'a> {
    set: Set,
    outlet: LogOutlet<'a>,
    log: &'a Log,
    stop: &'a Stop,
    wake: WakePipe,
    watch: Watch,
    notify: Option<Notify>,
    rescan: Duration,
    started: Instant,
}

#[cfg(target_os = "linux")]
type Notify = watch::Inotify;

/// There are no notifications on this system.
#[cfg(not(target_os = "linux"))]
type Notify = std::convert::Infallible;

impl<'a> Files<'a> {
    /// Checks what is to be followed; takes nothing yet.
    ///
    /// # Errors
    /// A directory that is missing, a path that is no regular file or may not be read, too many files, or a position in the
    /// store that this version cannot read.
    pub(crate) fn open(
        sources: &[FileSource],
        limits: &FileLimits,
        context: Context<'a>,
        data_dir: &Path,
    ) -> Result<Files<'a>> {
        let mut outlet = LogOutlet::new(context);
        let checkpoints = context.log.recovered_checkpoints();
        let set = Set::open(sources, limits.files_max, data_dir, checkpoints, &mut outlet)?;
        let wake = WakePipe::new().map_err(|cause| Error::io("prepare", "a thread for files", cause))?;
        context.stop.on_request(wake.waker());
        let watch = context.log.watch(wake.waker());
        let notify = match limits.watch {
            FileWatch::Auto => start_notify(),
            FileWatch::Poll => None,
        };
        Ok(Files {
            set,
            outlet,
            log: context.log,
            stop: context.stop,
            wake,
            watch,
            notify,
            rescan: limits.rescan,
            started: Instant::now(),
        })
    }

    /// Reads until a stop is requested or the log fails; returns when what was handed over is confirmed.
    pub(crate) fn run(mut self) -> Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut next_scan = Duration::ZERO;
        let mut last_scan = None;
        while !self.stop.is_requested() {
            self.wake.drain();
            self.outlet.reap()?;
            if self.take_events() {
                next_scan = next_scan.min(last_scan.map_or(Duration::ZERO, |last: Duration| last + SCAN_PAUSE));
            }
            let now = self.started.elapsed();
            let mut progress = match self.set.persist(&mut self.outlet)? {
                true if now >= next_scan => self.scan(now, &mut last_scan, &mut next_scan)?,
                true => Progress::Busy,
                false => Progress::Blocked,
            };
            if progress == Progress::Busy {
                progress = self.set.read(now, &mut chunk, &mut self.outlet)?;
            }
            if progress == Progress::Idle && !self.set.submit(&mut self.outlet)? {
                progress = Progress::Blocked;
            }
            self.tell();
            if progress != Progress::Busy {
                self.wait(progress, next_scan)?;
            }
        }
        self.finish()
    }

    /// Looks at all paths. Between two batches: what was collected goes first.
    fn scan(&mut self, now: Duration, last_scan: &mut Option<Duration>, next_scan: &mut Duration) -> Result<Progress> {
        if !self.set.submit(&mut self.outlet)? {
            return Ok(Progress::Blocked);
        }
        let is_unsettled = self.set.scan(now, &mut self.outlet);
        self.update_watches();
        let end = self.started.elapsed();
        // A scan of very many files must not be all that is done.
        let pause = SCAN_PAUSE.max(10 * (end - now));
        *last_scan = Some(end);
        *next_scan = end + if is_unsettled { pause } else { self.rescan.max(pause) };
        Ok(match self.set.persist(&mut self.outlet)? {
            true => Progress::Busy,
            false => Progress::Blocked,
        })
    }

    /// Sleeps until there is something to do.
    fn wait(&mut self, progress: Progress, next_scan: Duration) -> Result<()> {
        self.watch.arm();
        // What came before arming is seen by this look, what comes behind it wakes.
        self.outlet.reap()?;
        if progress == Progress::Blocked && self.set.submit(&mut self.outlet)? {
            return Ok(());
        }
        if self.stop.is_requested() {
            return Ok(());
        }
        let timeout = match progress {
            // Without room there is nothing to scan for.
            Progress::Blocked => self.rescan,
            _ => next_scan.saturating_sub(self.started.elapsed()),
        };
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        let mut fds = vec![PollFd::from_borrowed_fd(self.wake.fd(), PollFlags::IN)];
        #[cfg(target_os = "linux")]
        if let Some(notify) = self.notify.as_ref().filter(|_| progress != Progress::Blocked) {
            fds.push(PollFd::from_borrowed_fd(notify.fd(), PollFlags::IN));
        }
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(cause) => Err(Error::io("wait for", "files", io::Error::from(cause))),
        }
    }

    /// Takes notifications in; returns whether names came or went.
    fn take_events(&mut self) -> bool {
        let Some(notify) = &mut self.notify else { return false };
        let events = notify.events();
        if !events.files.is_empty() {
            self.set.mark(&events.files);
        }
        events.names
    }

    fn update_watches(&mut self) {
        let Some(notify) = &mut self.notify else { return };
        let files: Vec<_> = self.set.files().collect();
        let fresh = notify.update(self.set.directories(), &files);
        // What was written before there was a watch.
        self.set.mark(&fresh);
    }

    fn tell(&mut self) {
        for (source, report) in self.set.take_reports() {
            match report.is_warning() {
                true => warn!("{report}"),
                false => info!("{report}"),
            }
            if let Some(source) = source {
                report.count(self.outlet.counters(source));
            }
        }
    }

    fn finish(mut self) -> Result<()> {
        // Without room it stays undone: what was not handed over is still in its file.
        let _ = self.set.submit(&mut self.outlet)?;
        self.tell();
        self.outlet.drain()?;
        self.log.failure().map_or(Ok(()), Err)
    }
}

#[cfg(target_os = "linux")]
fn start_notify() -> Option<Notify> {
    match watch::Inotify::new() {
        Ok(notify) => Some(notify),
        Err(error) => {
            warn!("there are no notifications of files ({error}); they are looked at once per ingester.file_rescan");
            None
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn start_notify() -> Option<Notify> {
    None
}

#[cfg(not(target_os = "linux"))]
impl watch::Watching for Notify {
    fn update(
        &mut self,
        _: &std::collections::BTreeSet<std::path::PathBuf>,
        _: &[&follow::Tail],
    ) -> std::collections::BTreeSet<identity::FileId> {
        match *self {}
    }

    fn events(&mut self) -> watch::Events {
        match *self {}
    }
}

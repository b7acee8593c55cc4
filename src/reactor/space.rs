//! A full disk is waited for, never given up on: the one place that says which failures that covers.

use std::io;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::reactor::ops::{Ops, SYNC_DIR};

pub(super) const RETRY: Duration = Duration::from_secs(1);

/// Counts a job among those that wait for space, as long as it lives.
struct Waiting<'a>(&'a Ops);

impl<'a> Waiting<'a> {
    fn new(ops: &'a Ops) -> Waiting<'a> {
        ops.waiting_for_space.set(ops.waiting_for_space.get() + 1);
        Waiting(ops)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting_for_space.set(self.0.waiting_for_space.get() - 1);
    }
}

/// Repeats `attempt`, with new files each time, every second until there is space.
pub(super) async fn until_space<T>(ops: &Ops, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let mut waiting = None;
    loop {
        match attempt().await {
            Err(cause) if is_no_space(&cause) => {
                waiting.get_or_insert_with(|| Waiting::new(ops));
                ops.no_space_ns.set(ops.env.mono_ns().max(1));
                let remedy = if is_out_of_files(&cause) { "raise the limit of open files" } else { "free some space" };
                tracing::warn!("{cause}; {remedy}: the log goes on by itself, and appends wait if they must");
                ops.sleep(RETRY).await;
            }
            outcome => return outcome,
        }
    }
}

/// Lets the manifest's reserve be made before anybody else takes the space that retention has made with it: it could not
/// make any more without.
pub(super) async fn reserve_first(ops: &Ops) {
    while ops.lacks_reserve.get() {
        ops.sleep(RETRY).await;
    }
}

/// Whether an attempt may start anew, with new files. Not after a failed sync of a directory: there is only the one, and a
/// second sync of it could succeed and leave names behind that are not durable.
pub(crate) fn is_no_space(cause: &Error) -> bool {
    let is_of_a_dir = matches!(cause, Error::Io { op, .. } if *op == SYNC_DIR);
    (is_full(cause) && !is_of_a_dir) || is_out_of_files(cause)
}

/// Whether the disk, or what its user may have of it, is full.
pub(crate) fn is_full(cause: &Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(cause, Error::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
}

/// Whether the process, or the system, has too many files open: clients can bring that about, and it passes. Only opening
/// fails so; a directory that could not be opened was not synced in vain.
fn is_out_of_files(cause: &Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        matches!(cause, Error::Io { source, .. } if matches!(Errno::from_io_error(source), Some(Errno::MFILE | Errno::NFILE)))
    }
    #[cfg(not(unix))]
    {
        let _ = cause;
        false
    }
}

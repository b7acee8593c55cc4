//! A full disk is waited for, never given up on: the one place that says which failures that covers.

use std::io;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::reactor::ops::{Ops, SYNC_DIR};

pub(super) const RETRY: Duration = Duration::from_secs(1);

/// Repeats `attempt`, with new files each time, every second until there is space.
pub(super) async fn until_space<T>(ops: &Ops, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    loop {
        match attempt().await {
            Err(cause) if is_no_space(&cause) => {
                ops.no_space_ns.set(ops.env.mono_ns().max(1));
                tracing::warn!("{cause}; free some space: the log goes on by itself, and appends wait if they must");
                ops.sleep(RETRY).await;
            }
            outcome => return outcome,
        }
    }
}

/// Whether an attempt may start anew, with new files. Not after a failed sync of a directory, whatever the reason: there
/// is only the one, and a second sync of it could succeed and leave names behind that are not durable.
pub(crate) fn is_no_space(cause: &Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(cause, Error::Io { op, source, .. }
        if *op != SYNC_DIR && matches!(source.kind(), StorageFull | QuotaExceeded))
}

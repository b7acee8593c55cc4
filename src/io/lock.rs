//! One writer per store: an advisory lock on the file `LOCK` in its directory.
//!
//! - The lock is the kernel's (flock; LockFileEx on Windows), not the file's existence: it ends with the process however
//!   that ends, and the file stays. With io_uring it must outlive the process until the last write in flight has ended;
//!   [`Backend::hold`](super::Backend::hold) sees to that, and openers retry for a while because of it.
//! - The file holds the process id of whoever locked it last, as decimal text and a newline. That is for messages only;
//!   no decision rests on it, and a disk too full to note it does not keep anybody from the lock.
//! - A lock on a file that no longer has the name guards nothing, so it is given up and taken on the new file.
//! - Readers never lock. [`writer_alive`] is how they ask.
//!
//! Proof: the tests below; two of them kill a process that holds the lock.
// An opener waits for the lock before there is a log, on the machine's own clock.
#![allow(clippy::disallowed_methods)]

use std::fmt::Write as _;
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::fs::{self, StoreDir};
use crate::error::Error;

/// Name of the lock file, in the store's directory.
pub(crate) const LOCK_NAME: &str = "LOCK";

/// How long an opener waits between two tries.
const RETRY_EVERY: Duration = Duration::from_millis(5);

/// The right to write to a store, until it is dropped.
#[derive(Debug)]
pub(crate) struct StoreLock {
    file: File,
}

/// Why there is no lock.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Somebody else has it; who, if the file tells.
    Held { pid: Option<u32> },
    /// The file cannot be opened, created or locked.
    Io(io::Error),
}

impl LockError {
    /// The public error, for the store in `dir`.
    pub(crate) fn into_error(self, dir: &Path) -> Error {
        match self {
            LockError::Held { pid } => Error::Locked { dir: dir.to_owned(), pid },
            LockError::Io(source) => Error::io("lock", dir.join(LOCK_NAME), source),
        }
    }
}

impl From<io::Error> for LockError {
    fn from(source: io::Error) -> LockError {
        LockError::Io(source)
    }
}

impl StoreLock {
    /// Locks the store in `dir`, which must exist, trying for as long as `wait`. Waiting at least 100 ms rides out the
    /// moments in which a reader asks whether a writer is alive; after a kill, the last writes may take longer.
    pub(crate) fn acquire(dir: &Path, wait: Duration) -> Result<StoreLock, LockError> {
        let store = StoreDir::open(dir)?;
        let begin = Instant::now();
        loop {
            let file = open_or_create(&store)?;
            match StoreLock::take(&store, file) {
                Err(LockError::Held { .. }) if begin.elapsed() < wait => thread::sleep(RETRY_EVERY),
                Ok(None) => {}
                Ok(Some(lock)) => return Ok(lock),
                Err(error) => return Err(error),
            }
        }
    }

    /// Tries once. `None` if the file has lost its name since it was opened: the lock is then to be had elsewhere.
    fn take(store: &StoreDir, file: File) -> Result<Option<StoreLock>, LockError> {
        match file.try_lock() {
            Ok(()) if store.names(LOCK_NAME, &file)? => {
                // See the module's page: a courtesy, so that a full disk does not matter.
                let _ = note_pid(&file);
                Ok(Some(StoreLock { file }))
            }
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Err(LockError::Held { pid: noted_pid(&file) }),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// The locked file, for [`Backend::hold`](super::Backend::hold).
    ///
    /// Dropping the lock only closes it: a backend that still holds the file keeps the lock, so the wrong order of
    /// dropping cannot let a second writer in beside a write in flight.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

fn open_or_create(store: &StoreDir) -> io::Result<File> {
    match store.open_rw(LOCK_NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match store.create(LOCK_NAME) {
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => store.open_rw(LOCK_NAME),
            result => result,
        },
        result => result,
    }
}

fn note_pid(file: &File) -> io::Result<()> {
    let mut text = String::new();
    let _ = writeln!(text, "{}", std::process::id());
    // In place first, then cut: that needs no new block, even on a full disk.
    fs::write_at(file, text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

/// The process id in the file, if that is what it holds. On Windows a locked file cannot be read.
fn noted_pid(file: &File) -> Option<u32> {
    let mut bytes = [0; 16];
    let len = fs::read_full(file, &mut bytes, 0).ok()?;
    let (line, _) = std::str::from_utf8(&bytes[..len]).ok()?.split_once('\n')?;
    line.parse().ok().filter(|&pid| pid > 0)
}

/// Whether a process has the store open for writing. Creates nothing; works on a read-only disk.
///
/// It asks by taking a shared lock for a moment. That cannot hurt: readers do not get in each other's way, a writer that
/// already has its lock does not notice, and one that is just opening retries. Where the question cannot be answered the
/// answer is yes, because a reader then relies on nothing that is not provably durable.
pub(crate) fn writer_alive(dir: &Path) -> bool {
    let file = match StoreDir::open(dir).and_then(|store| store.open_read(LOCK_NAME)) {
        Ok(file) => file,
        Err(error) => return error.kind() != io::ErrorKind::NotFound,
    };
    // Closing the file releases the lock.
    file.try_lock_shared().is_err()
}

#[cfg(test)]
mod tests;

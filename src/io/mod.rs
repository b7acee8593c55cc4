//! The seam to the disk. Everything that changes the store goes through a [`Backend`], as operations with completions,
//! from one thread; everything that reads it goes through a [`Vfs`], from any thread, without a lock.
//!
//! | backend | where | how |
//! |---|---|---|
//! | `uring` | Linux, where the kernel allows it | io_uring; a durable write is a write linked to fdatasync, or one RWF_DSYNC write |
//! | `portable` | macOS, Windows, any Linux | `pwrite`, then a data sync (F_FULLFSYNC on macOS), on the calling thread |
//! | `sim::disk` | tests | a disk in memory that loses power, tears, and fails on command |
//!
//! # Contract of a backend
//! - Paths are relative to the store's directory, with `/` between components. Symbolic links are not followed.
//! - Operations submitted together may complete in any order and may take effect in any order; whoever needs an order
//!   waits for the completion. Each submitted operation completes exactly once.
//! - A completion is a success only if the *whole* operation is done: all bytes written **and** the sync that belongs to
//!   it returned success. A short write is an error of kind `WriteZero`; a sync that reports success behind a short write
//!   is not one. Nothing is ever retried behind the caller's back, a sync least of all.
//! - The buffer belongs to the operation until its completion hands it back. Dropping a backend waits for everything in
//!   flight, so no buffer is freed that the kernel may still read.
//! - Buffers, offsets and lengths of writes are multiples of [`crate::format::BLOCK_BYTES`].
//!
//! Proof: `conformance` runs one suite over every backend.

pub(crate) mod aligned;
#[cfg(test)]
pub(crate) mod conformance;
pub(crate) mod fs;
pub(crate) mod guard;
pub(crate) mod lock;
pub(crate) mod once;
pub(crate) mod portable;
pub(crate) mod processors;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(crate) mod uring;

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use aligned::AlignedBuf;

/// Names an operation; chosen by the caller, unique among those in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub(crate) struct OpId(pub(crate) u64);

/// A file that the backend has opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub(crate) struct FileId(pub(crate) u64);

/// What must be durable before a write counts as complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Durability {
    /// Nothing: the bytes were handed to the device.
    None,
    /// This write, with the metadata needed to read it back. Says nothing about other writes.
    Own,
    /// This write and every write to the same file whose completion was polled before this one was submitted.
    File,
}

/// One operation. See the module's contract.
#[derive(Debug)]
pub(crate) enum Op {
    /// Creates a file that must not exist, mode 0600, for writing. Yields a [`FileId`].
    Create { path: String },
    /// Opens an existing regular file for writing. Yields a [`FileId`].
    Open { path: String },
    /// Closes a file; operations in flight on it must have completed.
    Close { file: FileId },
    /// Writes `buf[..len]`.
    Write { file: FileId, offset: u64, buf: AlignedBuf, len: usize, durability: Durability },
    /// Data sync: every write to the file whose completion was polled before, and its length.
    SyncData { file: FileId },
    /// Renames within the store; an existing target is replaced. Durable after [`Op::SyncDir`] of both directories.
    Rename { from: String, to: String },
    /// Removes a name. Durable after [`Op::SyncDir`].
    Unlink { path: String },
    /// Creates a directory, mode 0700; one that exists already is a success. Durable after [`Op::SyncDir`] of its parent.
    MakeDir { path: String },
    /// Makes the names in a directory durable; the empty path is the store's own directory.
    SyncDir { path: String },
}

/// The end of an operation.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) id: OpId,
    /// The [`FileId`] of `Create` and `Open`, else 0.
    pub(crate) outcome: io::Result<u64>,
    /// The buffer of `Write`.
    pub(crate) buf: Option<AlignedBuf>,
}

/// How a durable write reaches the device.
///
/// ```
/// use kifa::SyncMethod;
///
/// assert_eq!(SyncMethod::default(), SyncMethod::Auto);
/// assert_eq!(SyncMethod::Dsync.to_string(), "dsync");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncMethod {
    /// `dsync` where kernel and file system are known to honour it and it is the faster one, else `linked`.
    #[default]
    Auto,
    /// A write with an fdatasync linked behind it.
    Linked,
    /// One write with RWF_DSYNC.
    Dsync,
}

impl fmt::Display for SyncMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SyncMethod::Auto => "auto",
            SyncMethod::Linked => "linked",
            SyncMethod::Dsync => "dsync",
        })
    }
}

/// What a backend is, for `stats` and the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BackendInfo {
    /// `io_uring`, `portable` or `simulated`.
    pub(crate) name: &'static str,
    /// What [`SyncMethod::Auto`] came to; never `Auto`.
    pub(crate) sync_method: SyncMethod,
    /// Whether files bypass the page cache (O_DIRECT).
    pub(crate) direct: bool,
}

/// Interrupts a [`Backend::poll`] from any thread.
pub(crate) type Waker = Arc<dyn Fn() + Send + Sync>;

/// Submits operations and reports their completions; see the module's contract. Used by one thread.
pub(crate) trait Backend {
    /// Takes an operation over. Errors of any kind arrive as its completion.
    fn submit(&mut self, id: OpId, op: Op);

    /// Appends completions to `done`. Returns at once if there is at least one; else waits until one arrives, the waker
    /// is called (also if it was called since the last poll), or `timeout` has passed (`None`: no limit; zero: no wait).
    fn poll(&mut self, timeout: Option<Duration>, done: &mut Vec<Completion>);

    /// A handle that ends a wait in [`Backend::poll`]; a call while nobody waits ends the next wait.
    fn waker(&self) -> Waker;

    /// What this backend is.
    fn info(&self) -> BackendInfo;

    /// Keeps the lock on this file for as long as an operation is in flight, even if the process is killed. Nothing to do
    /// for a backend whose operations cannot outlive the process.
    fn hold(&mut self, _lock: &File) {}
}

/// A name in a directory of the store.
#[derive(Clone, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(crate) struct DirEntry {
    /// File name; bytes that are not UTF-8 are replaced (such a name is never one of ours).
    pub(crate) name: String,
    /// A regular file, not a link, directory or device.
    pub(crate) is_file: bool,
}

/// What is known of a file without opening it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Metadata {
    pub(crate) bytes: u64,
    /// Hard links; 1 unless somebody linked it (a backup).
    pub(crate) links: u64,
}

/// A file open for reading.
pub(crate) trait ReadAt: Send {
    /// Reads up to `buf.len()` bytes at `offset`; short only at the end of the file, 0 at or behind it.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Length of the file, in bytes.
    fn bytes(&self) -> io::Result<u64>;

    /// Forgets what is cached of the file, as far as the system can, so that it is read from the device again: a bit may
    /// have flipped on its way into the cache, and damage is believed only when it is found twice.
    fn forget(&self) {}

    /// Lets go of what is cached in front of `offset`, as far as the system can: for who reads a big file once, from front
    /// to back.
    fn forget_before(&self, _offset: u64) {}

    /// Has the system read ahead of what it is asked for, as it does anyway, or not: for who hops over most of the file.
    fn read_ahead(&self, _is_wanted: bool) {}
}

/// The reading side: any thread, any process, no lock, creates nothing. Paths as in the contract.
pub(crate) trait Vfs: Send + Sync {
    /// Opens a regular file for reading; symbolic links are not followed.
    fn open(&self, path: &str) -> io::Result<Box<dyn ReadAt>>;

    /// Names in a directory, sorted; the empty path is the store's own directory.
    fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>>;

    /// Looks at a file.
    fn metadata(&self, path: &str) -> io::Result<Metadata>;

    /// Bytes that the file system has free for this process; an error of kind `Unsupported` where that cannot be told.
    fn free_bytes(&self) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Time and randomness, so that the simulator can stand in for both.
pub(crate) trait Env: Send + Sync {
    /// Wall clock, nanoseconds since the Unix epoch; 0 before it.
    fn wall_ns(&self) -> u64;

    /// Monotonic clock, nanoseconds since an arbitrary start.
    fn mono_ns(&self) -> u64;

    /// A random number.
    fn random_u64(&self) -> u64;
}

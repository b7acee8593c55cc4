//! What can go wrong, by what the caller can do about it.
//!
//! Every `Display` is one sentence: what, where, what to do next. Absent, damaged and unreadable are different variants.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::format::Lsn;

/// An error of the log. Cheap to clone: a failure of the engine reaches every waiting producer.
///
/// ```
/// # let temporary = tempfile::tempdir()?;
/// # let dir = temporary.path().join("till-1");
/// use kifa::{Error, Log, Options};
///
/// match Log::open(&dir, Options::default()) {
///     Ok(log) => log.close()?,
///     Err(Error::Locked { pid, .. }) => println!("process {pid:?} has it: ask that one"),
///     Err(Error::Corrupt(damage)) => println!("{damage}: run kifa verify, then kifa recover"),
///     Err(cause) => return Err(cause.into()),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// Another process (or another `Log` of this one) writes to the store.
    Locked {
        /// The store.
        dir: PathBuf,
        /// Who holds it, where that is known.
        pid: Option<u32>,
    },
    /// The directory is not a store: absent, empty, or somebody else's.
    NotAStore {
        /// The directory.
        dir: PathBuf,
        /// What was found there.
        found: String,
    },
    /// Bytes that were once durable are damaged. Nothing was changed.
    Corrupt(Box<Damage>),
    /// An operation on a file failed. On a running log this is final: reopen it, and recovery starts from the disk.
    Io {
        /// What was tried, as a verb phrase: "write", "sync", "create".
        op: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// An entry or batch is larger than the log takes. Nothing of it was stored.
    TooLarge {
        /// Its size, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// The disk is full, and appends are refused ([`OnFull::Refuse`](crate::OnFull::Refuse)). Nothing of it was stored;
    /// appending works again by itself when there is space.
    Full,
    /// An option is out of range; the sentence names it, its value and the range.
    InvalidOption(String),
    /// The log was closed.
    Closed,
    /// The log stopped after this earlier failure; nothing more is accepted.
    Stopped(Arc<Error>),
}

/// One damaged place in a store.
///
/// ```
/// # let temporary = tempfile::tempdir()?;
/// # let dir = temporary.path().join("till-1");
/// # std::fs::create_dir_all(dir.join("wal"))?;
/// # std::fs::write(dir.join("MANIFEST-0000000001"), "not a manifest")?;
/// match kifa::Reader::open(&dir).and_then(|reader| reader.stats()) {
///     Err(kifa::Error::Corrupt(damage)) => {
///         assert_eq!((damage.file.as_str(), damage.offset), ("MANIFEST-0000000001", 0));
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Damage {
    /// File, relative to the store's directory.
    pub file: String,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// The first LSN that cannot be read because of it, where that is known.
    pub lsn: Option<Lsn>,
    /// What is wrong, as the end of a sentence that starts with the file.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged at offset {}", self.file, self.offset)?;
        if let Some(lsn) = self.lsn {
            write!(f, " (LSN {lsn})")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl Error {
    pub(crate) fn io(op: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Error {
        Error::Io { op, path: path.into(), source: Arc::new(source) }
    }

    pub(crate) fn corrupt(file: &str, offset: u64, lsn: Option<Lsn>, what: impl Into<String>) -> Error {
        Error::Corrupt(Box::new(Damage { file: file.to_owned(), offset, lsn, what: what.into() }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Locked { dir, pid: Some(pid) } => {
                write!(f, "{} is locked by process {pid}; stop it first, or write through it", dir.display())
            }
            Error::Locked { dir, pid: None } => {
                write!(f, "{} is locked by another process; stop it first, or write through it", dir.display())
            }
            Error::NotAStore { dir, found } => {
                write!(f, "{} is not a kifa store: {found}; check the path", dir.display())
            }
            Error::Corrupt(damage) => {
                write!(f, "{damage}; nothing was changed: kifa verify tells what is good, kifa recover goes on with it")
            }
            Error::Io { op, path, source } => {
                write!(f, "cannot {op} {}: {source}{}", path.display(), remedy(source))
            }
            Error::TooLarge { bytes, max } => {
                write!(f, "{bytes} bytes are more than the log takes at once ({max}); nothing of it was stored")
            }
            Error::Full => f.write_str(
                "the disk is full; nothing of it was stored: free some space (kifa vacuum deletes the oldest entries), and try again",
            ),
            Error::InvalidOption(what) => f.write_str(what),
            Error::Closed => f.write_str("the log is closed"),
            Error::Stopped(cause) => {
                write!(f, "the log stopped after a failure and takes nothing more until it is reopened: {cause}")
            }
        }
    }
}

/// What to do about a failure that is not the program's to mend.
fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::FileTooLarge => "; raise the limit on the size of files (ulimit -f, LimitFSIZE=)",
        io::ErrorKind::ReadOnlyFilesystem => {
            "; the file system is read-only: if it became so by itself, look into the kernel's log, check it, and mount \
             it again"
        }
        io::ErrorKind::QuotaExceeded => "; free some space, or raise the quota",
        #[cfg(unix)]
        _ if cause.raw_os_error() == Some(libc::EIO) => "; the device fails: look into the kernel's log",
        _ => "",
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(&**source),
            Error::Stopped(cause) => Some(&**cause),
            _ => None,
        }
    }
}

/// Result of an operation on a log.
///
/// ```
/// fn sell(log: &kifa::Log, receipt: &str) -> kifa::Result<kifa::Lsn> {
///     log.append(receipt.as_bytes())
/// }
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

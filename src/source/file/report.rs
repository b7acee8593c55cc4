//! What happens to files that somebody should know of, each as one sentence. Nothing is lost without one of these.
//!
//! They are collected where they happen and told by the thread: how loud, and what they count for, is decided here.

use std::fmt;
use std::path::PathBuf;

use super::position::FILES_MAX;
use crate::source::counters::Counters;
use crate::source::framing::LINE_BYTES_MAX;

/// See the module's page. Offsets and lengths in bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Report {
    /// The file is not there yet.
    Waiting { path: PathBuf },
    /// The file of an earlier run is not there now.
    Away { path: PathBuf, offset: u64 },
    /// A file is read from here on.
    Following { path: PathBuf, offset: u64 },
    /// Another file is at the path; the old one is read to its end first.
    Rotated { path: PathBuf, old: Option<PathBuf> },
    /// The file at the path was removed; what it has is read.
    Removed { path: PathBuf },
    /// Emptied by its writer, or another content under the same number.
    Truncated { path: PathBuf, offset: u64, unread: u64, copy: Option<PathBuf> },
    /// Came back shorter, with the same head.
    Shortened { path: PathBuf, offset: u64, len: u64, unread: u64 },
    /// Bytes that were there and had not been taken were taken back by the writer.
    TakenBack { path: PathBuf, offset: u64, bytes: u64 },
    /// Zero bytes that nobody wrote.
    Zeros { path: PathBuf, offset: u64, bytes: u64 },
    /// The file that was being read is not to be found.
    Lost { path: PathBuf, offset: u64 },
    /// A rotated file that was never read, and cannot be.
    Compressed { path: PathBuf, of: PathBuf },
    /// A file that was finished, and let go of, has got more.
    WrittenLate { path: PathBuf },
    /// A line is too long.
    Refused { path: PathBuf, offset: u64 },
    /// A last line without its end, of a file that is finished.
    Unfinished { path: PathBuf, offset: u64, bytes: u64 },
    /// Cannot be read for now.
    Failing { path: PathBuf, what: String },
    /// Can be read again.
    Recovered { path: PathBuf },
    /// Too many files.
    TooMany { path: PathBuf, max: usize },
    /// Too many rotations while the log had no room.
    TooManyRotations { path: PathBuf },
    /// Another path leads to the same file.
    Alias { path: PathBuf, of: PathBuf },
    /// A rotated file is not read, because another has the same bytes.
    TakenForCopy { path: PathBuf, of: PathBuf },
    /// A match of a pattern that is left alone.
    LeftAlone { path: PathBuf, why: &'static str },
    /// A position was removed from the store to make room.
    Forgotten { path: PathBuf },
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Waiting { path } => write!(f, "{} is not there yet; it is read once it is", path.display()),
            Report::Away { path, offset } => write!(
                f,
                "{}, which was read up to byte {offset}, is not there, nor beside it; should it come back (a file system that \
                 is not mounted yet), it is read on from there",
                path.display()
            ),
            Report::Following { path, offset } => write!(f, "{} is read from byte {offset} on", path.display()),
            Report::Rotated { path, old: Some(old) } => {
                write!(f, "{} was rotated to {}, which is read to its end first", path.display(), old.display())
            }
            Report::Rotated { path, old: None } => {
                write!(f, "{} is another file now; the one before it is read to its end first", path.display())
            }
            Report::Removed { path } => write!(f, "{} was removed; what it still holds is read", path.display()),
            Report::Truncated { path, offset, unread, copy } => truncated(f, path, *offset, *unread, copy.as_ref()),
            Report::Shortened { path, offset, len, unread } => write!(
                f,
                "{} had been read up to byte {offset} and has only {len} bytes now, with the same beginning, as after a power \
                 cut; it is read on from its end, nothing is read again, and {unread} bytes behind byte {offset} are missing",
                path.display()
            ),
            Report::TakenBack { path, offset, bytes } => write!(
                f,
                "{bytes} bytes of {} (from byte {offset} on) were cut off before they could be read as lines",
                path.display()
            ),
            Report::Zeros { path, offset, bytes } => write!(
                f,
                "{bytes} zero bytes of {} (from byte {offset} on) that no line ends in are skipped: a hole, as a writer leaves \
                 that does not open its file for appending, or a power cut",
                path.display()
            ),
            Report::Lost { path, offset } => write!(
                f,
                "the file that was read at {} up to byte {offset} is not there any more, nor beside it; what it held behind \
                 that is missing",
                path.display()
            ),
            Report::Compressed { path, of } => write!(
                f,
                "{} is a rotated file of {} that was compressed before it could be read; its lines are missing (unpack it and \
                 give it to kifa daemon --stdin)",
                path.display(),
                of.display()
            ),
            Report::WrittenLate { path } => write!(
                f,
                "{} was rotated away and finished, and has been written to again; what came is not read (its writer should \
                 reopen the log after a rotation)",
                path.display()
            ),
            Report::Refused { path, offset } => write!(
                f,
                "a line of {} (from byte {offset} on) is refused: longer than {LINE_BYTES_MAX} bytes",
                path.display()
            ),
            Report::Unfinished { path, offset, bytes } => write!(
                f,
                "the last line of {} ({bytes} bytes, from byte {offset} on) never got its end; it is stored as it is",
                path.display()
            ),
            Report::Failing { path, what } => {
                write!(f, "{} cannot be read: {what}; it is tried again until it can", path.display())
            }
            Report::Recovered { path } => write!(f, "{} can be read again", path.display()),
            Report::TooMany { path, max } => write!(
                f,
                "{} is not read: {max} files are being followed already; raise ingester.files_max",
                path.display()
            ),
            Report::TooManyRotations { path } => write!(
                f,
                "{} was rotated more than {FILES_MAX} times while its files could not be read; the newest wait until the \
                 others are",
                path.display()
            ),
            Report::Alias { path, of } => {
                write!(f, "{} leads to the same file as {}; it is read once", path.display(), of.display())
            }
            Report::TakenForCopy { path, of } => write!(
                f,
                "{} begins and ends with the same bytes as {}; it is taken for a copy of it and not read",
                path.display(),
                of.display()
            ),
            Report::LeftAlone { path, why } => write!(f, "{} matches a pattern and is not read: {why}", path.display()),
            Report::Forgotten { path } => write!(
                f,
                "the position in {}, which nobody has followed for the longest time, is forgotten to make room; should the \
                 file come back it is read from its beginning",
                path.display()
            ),
        }
    }
}

fn truncated(
    f: &mut fmt::Formatter<'_>,
    path: &std::path::Path,
    offset: u64,
    unread: u64,
    copy: Option<&PathBuf>,
) -> fmt::Result {
    write!(f, "{} was truncated, or its content replaced, after byte {offset} of it had been read", path.display())?;
    if let Some(copy) = copy {
        write!(f, "; the rest is read from its copy {}", copy.display())?;
    }
    match unread {
        0 => f.write_str("; it is read from its beginning"),
        _ => write!(f, "; at least {unread} bytes were gone before they could be read; it is read from its beginning"),
    }
}

impl Report {
    /// Whether somebody may have to act, or something is missing.
    pub(crate) fn is_warning(&self) -> bool {
        match self {
            Report::Waiting { .. }
            | Report::Following { .. }
            | Report::Rotated { .. }
            | Report::Removed { .. }
            | Report::Recovered { .. } => false,
            Report::Truncated { unread, .. } => *unread > 0,
            _ => true,
        }
    }

    /// What it counts for. How many lines are missing nobody knows: each loss counts as one.
    pub(crate) fn count(&self, counters: &Counters) {
        match self {
            Report::Refused { .. } => counters.refuse(),
            Report::Lost { .. } | Report::Compressed { .. } | Report::TakenBack { .. } | Report::WrittenLate { .. } => {
                counters.drop_entries(1)
            }
            Report::Truncated { unread, .. } | Report::Shortened { unread, .. } if *unread > 0 => {
                counters.drop_entries(1)
            }
            _ => {}
        }
    }
}

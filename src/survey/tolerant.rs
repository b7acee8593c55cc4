//! Files whose device cannot read parts of them: what cannot be read is zero, and noted.
//!
//! Zeros fail every check of every record, so an unreadable range is met as damage; the note tells why. Whoever reads
//! through here must ask [`Unreadable`] in the end: a range of zeros behind the end of the log would pass for its end.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Kind, Wound};
#[cfg(feature = "cli")]
use crate::error::Error;
use crate::format::BLOCK_BYTES;
use crate::io::{DirEntry, Metadata, ReadAt, Vfs};

/// A range that the device could not read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Range {
    pub(crate) path: String,
    pub(crate) offset: u64,
    pub(crate) end: u64,
    pub(crate) cause: String,
}

/// All ranges that could not be read. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Unreadable(Arc<Mutex<Vec<Range>>>);

impl Unreadable {
    /// The ranges noted so far.
    pub(crate) fn ranges(&self) -> Vec<Range> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, path: &str, offset: u64, end: u64, cause: &io::Error) {
        let mut ranges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ranges.iter().any(|range| range.path == path && range.offset <= offset && end <= range.end) {
            return;
        }
        if let Some(last) = ranges.iter_mut().find(|range| range.path == path && range.end == offset) {
            last.end = end;
            return;
        }
        ranges.push(Range { path: path.to_owned(), offset, end, cause: cause.to_string() });
    }

    /// The first of them, as an error.
    #[cfg(feature = "cli")]
    pub(crate) fn to_error(&self) -> Option<Error> {
        let first = self.ranges().into_iter().next()?;
        Some(Error::io("read", first.path, io::Error::other(first.cause)))
    }

    /// Tells the wounds of these files why, and adds one for each range that none of them covers.
    pub(crate) fn explain(&self, wounds: &mut Vec<Wound>) {
        for range in self.ranges() {
            let reason = format!("the device cannot read it: {}", range.cause);
            let mut known = false;
            for wound in wounds.iter_mut().filter(|wound| wound.covers(&range.path, range.offset, range.end)) {
                known = true;
                if !wound.what.contains(&reason) {
                    wound.what = format!("{}; {reason}", wound.what);
                }
            }
            if !known {
                wounds.push(Wound {
                    kind: Kind::Unreadable,
                    file: range.path,
                    offset: range.offset,
                    end: Some(range.end),
                    lsns: None,
                    saved: 0,
                    what: reason,
                });
            }
        }
    }
}

/// Reads through another [`Vfs`]; see the module's page. Names and lengths that cannot be read are still errors.
pub(crate) struct Tolerant<'v> {
    vfs: &'v dyn Vfs,
    unreadable: Unreadable,
}

impl<'v> Tolerant<'v> {
    pub(crate) fn new(vfs: &'v dyn Vfs, unreadable: Unreadable) -> Tolerant<'v> {
        Tolerant { vfs, unreadable }
    }

    /// What could not be read so far.
    #[cfg(feature = "cli")]
    pub(crate) fn unreadable(&self) -> &Unreadable {
        &self.unreadable
    }
}

impl Vfs for Tolerant<'_> {
    fn open(&self, path: &str) -> io::Result<Box<dyn ReadAt>> {
        let file = self.vfs.open(path)?;
        Ok(Box::new(File { file, path: path.to_owned(), unreadable: self.unreadable.clone() }))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        self.vfs.list(dir)
    }

    fn metadata(&self, path: &str) -> io::Result<Metadata> {
        self.vfs.metadata(path)
    }
}

struct File {
    file: Box<dyn ReadAt>,
    path: String,
    unreadable: Unreadable,
}

impl ReadAt for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.file.read_at(buf, offset) {
            Err(cause) if is_of_the_device(&cause) => self.read_by_blocks(buf, offset),
            outcome => outcome,
        }
    }

    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn forget(&self) {
        self.file.forget();
    }

    fn read_ahead(&self, is_wanted: bool) {
        self.file.read_ahead(is_wanted);
    }
}

impl File {
    fn read_by_blocks(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let block = BLOCK_BYTES as u64;
        let end = self.file.bytes()?.min(offset + buf.len() as u64);
        let mut at = offset;
        while at < end {
            let next = end.min((at / block + 1) * block);
            let part = &mut buf[(at - offset) as usize..(next - offset) as usize];
            match self.file.read_at(part, at) {
                Ok(read) if read == part.len() => {}
                Ok(read) => return Ok((at - offset) as usize + read),
                Err(cause) if is_of_the_device(&cause) => {
                    part.fill(0);
                    self.unreadable.note(&self.path, at / block * block, next, &cause);
                }
                Err(cause) => return Err(cause),
            }
            at = next;
        }
        Ok(end.saturating_sub(offset) as usize)
    }
}

/// EIO and its like, rather than something that the caller or the system did.
fn is_of_the_device(cause: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, InvalidInput, NotFound, PermissionDenied, WouldBlock};
    !matches!(cause.kind(), NotFound | PermissionDenied | InvalidInput | Interrupted | WouldBlock)
}

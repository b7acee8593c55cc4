//! Files that are read once, from front to back: recovery's and a merge's.
//!
//! They do not stay in the page cache: what was read is let go of on the way. Nothing else of the system loses its place in
//! the cache to bytes that nobody will ask for again, and it is faster: the same few pages take what comes next, instead of
//! as many as the files have, each of which is new to the processor (and, under a hypervisor that takes free memory back,
//! to the machine).
//!
//! Advice only: what is read is the same.
//!
//! Proof: `tests`, and `tests/engine/cache.rs`.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::io;

use super::{DirEntry, Metadata, ReadAt, Vfs};

/// Bytes that are read before they are let go of.
const STEP_BYTES: u64 = 256 << 10;

/// Opens every file as one that is read once.
pub(crate) struct ReadOnce<'a>(pub(crate) &'a dyn Vfs);

impl Vfs for ReadOnce<'_> {
    fn open(&self, path: &str) -> io::Result<Box<dyn ReadAt>> {
        Ok(Box::new(OnceFile { file: self.0.open(path)?, forgotten: Cell::new(0) }))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        self.0.list(dir)
    }

    fn metadata(&self, path: &str) -> io::Result<Metadata> {
        self.0.metadata(path)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }
}

struct OnceFile {
    file: Box<dyn ReadAt>,
    /// Up to where it was let go of, or where reading began anew since.
    forgotten: Cell<u64>,
}

impl ReadAt for OnceFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(buf, offset)?;
        let end = offset + read as u64;
        if offset < self.forgotten.get() {
            self.forgotten.set(offset);
        }
        if end - self.forgotten.get() >= STEP_BYTES {
            self.file.forget_before(end);
            self.forgotten.set(end);
        }
        Ok(read)
    }

    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn forget(&self) {
        self.file.forget();
    }

    fn forget_before(&self, offset: u64) {
        self.file.forget_before(offset);
    }

    fn read_ahead(&self, is_wanted: bool) {
        self.file.read_ahead(is_wanted);
    }
}

impl Drop for OnceFile {
    /// Lets go of what was read ahead, too.
    fn drop(&mut self) {
        self.file.forget();
    }
}

//! Reading a store from the medium rather than from memory: what `kifa verify` is for.
//!
//! - On Linux files are read with O_DIRECT where their file system takes it; where it does not, the page cache is asked
//!   to forget a range before it is read (pages that a running writer has not written out yet stay in it).
//! - Other systems give no such handle that we trust: their cache may answer. [`ReadPath`] says which it was, and the
//!   report says it to the user.
//! - Nothing is created, no lock is taken, as with [`super::RealVfs`].
//!
//! Proof: `tests` of [`super`].

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{StoreDir, read_full, sys};
use crate::format::BLOCK_BYTES;
use crate::io::{AlignedBuf, DirEntry, Metadata, ReadAt, Vfs};

/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Where bytes came from; the worst of all files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum ReadPath {
    /// From the device, past the page cache.
    Direct = 0,
    /// Through the page cache, which was asked to drop the range first.
    Dropped = 1,
    /// Through the system's cache.
    Cached = 2,
}

/// The reading side of a store, from the medium.
pub(crate) struct MediumVfs {
    dir: StoreDir,
    worst: Arc<AtomicU8>,
}

impl MediumVfs {
    /// Opens the directory; creates nothing.
    pub(crate) fn open(root: &Path) -> io::Result<MediumVfs> {
        Ok(MediumVfs { dir: StoreDir::open(root)?, worst: Arc::new(AtomicU8::new(ReadPath::Direct as u8)) })
    }

    /// How the files opened so far were read.
    pub(crate) fn read_path(&self) -> ReadPath {
        match self.worst.load(Ordering::Relaxed) {
            0 => ReadPath::Direct,
            1 => ReadPath::Dropped,
            _ => ReadPath::Cached,
        }
    }
}

impl Vfs for MediumVfs {
    fn open(&self, path: &str) -> io::Result<Box<dyn ReadAt>> {
        let file = self.dir.open_read(path)?;
        let direct = AtomicBool::new(sys::make_direct(&file));
        let buf = Mutex::new(None);
        Ok(Box::new(MediumFile { file, direct, buf, worst: Arc::clone(&self.worst) }))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        self.dir.list(dir)
    }

    fn metadata(&self, path: &str) -> io::Result<Metadata> {
        self.dir.metadata(path)
    }
}

struct MediumFile {
    file: File,
    direct: AtomicBool,
    /// Where direct reads land; made for the first one.
    buf: Mutex<Option<AlignedBuf>>,
    worst: Arc<AtomicU8>,
}

impl ReadAt for MediumFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.direct.load(Ordering::Relaxed) {
            match self.read_direct(buf, offset) {
                // Accepted when it was switched on, refused when it is used: some file systems do that.
                Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => {
                    sys::make_buffered(&self.file)?;
                    self.direct.store(false, Ordering::Relaxed);
                }
                outcome => return outcome,
            }
        }
        let read_path =
            if sys::drop_cached(&self.file, offset, buf.len() as u64) { ReadPath::Dropped } else { ReadPath::Cached };
        self.worst.fetch_max(read_path as u8, Ordering::Relaxed);
        read_full(&self.file, buf, offset)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

impl MediumFile {
    fn read_direct(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut guard = self.buf.lock().unwrap_or_else(PoisonError::into_inner);
        let buf = guard.get_or_insert_with(|| AlignedBuf::zeroed(CHUNK_BYTES));
        let mut filled = 0;
        while filled < out.len() {
            let at = offset + filled as u64;
            let skip = (at % BLOCK_BYTES as u64) as usize;
            let len = (skip + out.len() - filled).next_multiple_of(BLOCK_BYTES).min(CHUNK_BYTES);
            let read = match sys::read_at(&self.file, &mut buf[..len], at - skip as u64) {
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome?,
            };
            let got = read.saturating_sub(skip).min(out.len() - filled);
            out[filled..filled + got].copy_from_slice(&buf[skip..skip + got]);
            filled += got;
            if got == 0 {
                break;
            }
        }
        Ok(filled)
    }
}

//! The real file system: names, modes and syncs that both real backends share, the reading side, and real time.
//!
//! - Paths are checked before they reach the system: relative, `/` between components, no `.` or `..`.
//! - What is created is private to its owner (files 0600, directories 0700) whatever the umask; see [`sys`].
//! - A sync is tried once. A read that comes back short is continued up to the end of the file or becomes an error.
//! - Readers ([`RealVfs`]) read through the page cache, create nothing and take no lock; who wants to know what the medium
//!   itself gives back reads through `medium`.
//!
//! It does not decide what is durable when; that is the backends' and their callers' business.
//!
//! Proof: `conformance`, over every backend.
// The real `Env` is where the machine's clocks come from.
#![allow(clippy::disallowed_methods)]

#[cfg(unix)]
#[path = "fs/unix.rs"]
mod sys;
#[cfg(windows)]
#[path = "fs/windows.rs"]
mod sys;

#[cfg(feature = "cli")]
pub(crate) mod medium;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::portable::PortableBackend;
use super::{Backend, DirEntry, Env, FileId, Metadata, ReadAt, SyncMethod, Vfs};
use crate::format::BLOCK_BYTES;
use crate::options::IoBackend;

#[cfg(unix)]
pub(crate) use sys::is_link;
#[cfg(target_os = "linux")]
pub(crate) use sys::write_at_dsync;
pub(crate) use sys::{StoreDir, make_direct, sync_data, write_at};

/// Opens the backend of a store and says, in one sentence for the log, why it is not io_uring where that was hoped for.
///
/// It must be called on the thread that will use the backend: the kernel ties a ring to the thread that made it.
/// Errors: the directory cannot be opened; `Uring` where it cannot be had; `SyncMethod::Dsync` outside Linux.
pub(crate) fn open_backend(
    root: &Path,
    choice: IoBackend,
    method: SyncMethod,
) -> io::Result<(Box<dyn Backend>, Option<String>)> {
    if choice != IoBackend::Portable {
        match open_uring(root, method)? {
            Ok(backend) => return Ok((backend, None)),
            Err(why) if choice == IoBackend::Uring => return Err(io::Error::new(io::ErrorKind::Unsupported, why)),
            Err(why) => return Ok((Box::new(PortableBackend::open(root, method)?), why_portable(why))),
        }
    }
    Ok((Box::new(PortableBackend::open(root, method)?), None))
}

/// The ring, or the sentence that says why there is none. The outer error is the directory's.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn open_uring(root: &Path, method: SyncMethod) -> io::Result<Result<Box<dyn Backend>, String>> {
    use super::uring::{UringBackend, unavailable};
    let dir = StoreDir::open(root)?;
    Ok(match UringBackend::open(dir, method) {
        Ok(backend) => Ok(Box::new(backend)),
        Err(error) => {
            let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
            Err(unavailable(&error, sysctl.as_deref().map(str::trim)))
        }
    })
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn open_uring(_root: &Path, _method: SyncMethod) -> io::Result<Result<Box<dyn Backend>, String>> {
    Ok(Err("io_uring exists on 64-bit Linux only; choose the portable backend".to_owned()))
}

/// What falling back is worth saying: nothing where io_uring cannot exist at all.
fn why_portable(why: String) -> Option<String> {
    cfg!(all(target_os = "linux", target_pointer_width = "64"))
        .then(|| format!("{why}; going on with pwrite and data sync, equally durable"))
}

/// Refuses what is not a plain path inside the store.
pub(crate) fn checked_path(path: &str) -> io::Result<&str> {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0', ':']);
    if path.split('/').all(plain) {
        return Ok(path);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} is not a path inside the store")))
}

/// Checks a write against its buffer before anything trusts `len`.
pub(crate) fn check_span(offset: u64, len: usize, capacity: usize) -> io::Result<()> {
    let block = BLOCK_BYTES as u64;
    if len > capacity {
        let what = format!("{len} bytes do not fit into a buffer of {capacity}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    if !offset.is_multiple_of(block) || !(len as u64).is_multiple_of(block) {
        let what = format!("offset {offset} and length {len} must be multiples of {block}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(())
}

/// The error of a write that stored `written` of `len` bytes: never a success, never continued.
pub(crate) fn short_write(written: usize, len: usize) -> io::Error {
    io::Error::new(io::ErrorKind::WriteZero, format!("short write: {written} of {len} bytes"))
}

/// Reads through the page cache until `buf` is full or the file ends.
pub(crate) fn read_full(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match sys::read_at(file, &mut buf[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Creates the directory of a store (0700), with its parents where they are missing, and makes its name durable.
///
/// One that exists is left as it is; its name is made durable all the same, because whoever made it may have lost power
/// before that.
pub(crate) fn create_store_dir(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let mut missing = Vec::new();
    let mut at = path.as_path();
    while !std::fs::exists(at)? {
        missing.push(at);
        at = at.parent().ok_or(io::ErrorKind::NotFound)?;
    }
    let existed = missing.is_empty();
    for dir in missing.into_iter().rev() {
        match sys::create_dir(dir, dir == path) {
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            result => result?,
        }
        sync_parent(dir)?;
    }
    if existed {
        match sync_parent(&std::fs::canonicalize(&path)?) {
            // A directory that was prepared for us, inside one that we may pass through but not read.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            result => result?,
        }
    }
    StoreDir::open(&path).map(|_| ())
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => StoreDir::open(parent)?.sync_dir(""),
        None => Ok(()),
    }
}

/// The files a backend has open. Ids are never used twice, so that one that was closed cannot name another file.
pub(crate) struct FileTable {
    files: HashMap<u64, Rc<File>>,
    id_last: u64,
    direct: bool,
}

impl FileTable {
    /// An empty table; `direct` stands until the first file is opened.
    pub(crate) fn new(direct: bool) -> FileTable {
        FileTable { files: HashMap::new(), id_last: 0, direct }
    }

    /// Whether the file opened last bypasses the page cache.
    pub(crate) fn direct(&self) -> bool {
        self.direct
    }

    /// Takes a file over that was created or opened, switches it to direct I/O where possible, and names it.
    pub(crate) fn insert(&mut self, opened: io::Result<File>) -> io::Result<u64> {
        let file = opened?;
        self.direct = make_direct(&file);
        self.id_last += 1;
        self.files.insert(self.id_last, Rc::new(file));
        Ok(self.id_last)
    }

    pub(crate) fn get(&self, id: FileId) -> io::Result<Rc<File>> {
        self.files.get(&id.0).cloned().ok_or_else(|| not_open(id))
    }

    pub(crate) fn close(&mut self, id: FileId) -> io::Result<u64> {
        self.files.remove(&id.0).map(|_| 0).ok_or_else(|| not_open(id))
    }
}

fn not_open(id: FileId) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("file {} is not open", id.0))
}

/// The reading side of a store on a real disk.
pub(crate) struct RealVfs {
    dir: StoreDir,
}

impl RealVfs {
    /// Opens the directory; creates nothing.
    pub(crate) fn open(root: &Path) -> io::Result<RealVfs> {
        Ok(RealVfs { dir: StoreDir::open(root)? })
    }
}

impl Vfs for RealVfs {
    fn open(&self, path: &str) -> io::Result<Box<dyn ReadAt>> {
        Ok(Box::new(RealFile(self.dir.open_read(path)?)))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        self.dir.list(dir)
    }

    fn metadata(&self, path: &str) -> io::Result<Metadata> {
        self.dir.metadata(path)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.dir.free_bytes()
    }
}

/// A file open for reading through the page cache.
struct RealFile(File);

impl ReadAt for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full(&self.0, buf, offset)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn forget(&self) {
        sys::forget_cached(&self.0);
    }

    fn forget_before(&self, offset: u64) {
        sys::drop_cached(&self.0, 0, offset);
    }

    fn read_ahead(&self, is_wanted: bool) {
        sys::read_ahead(&self.0, is_wanted);
    }
}

/// The machine's clocks and its random numbers.
pub(crate) struct RealEnv;

impl Env for RealEnv {
    fn wall_ns(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
    }

    fn mono_ns(&self) -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Panics if the system has no random numbers to give: a store's id and salts must not repeat.
    fn random_u64(&self) -> u64 {
        getrandom::u64().expect("the system's random number generator works")
    }
}

#[cfg(test)]
mod tests;

//! The backend that runs anywhere: each operation is carried out while it is submitted, on the calling thread, and its
//! completion waits for the next poll.
//!
//! - A durable write is `pwrite`, then a data sync (fdatasync; F_FULLFSYNC on macOS; FlushFileBuffers on Windows). On
//!   Linux, [`SyncMethod::Dsync`] makes [`Durability::Own`] one `pwritev2` with RWF_DSYNC instead; `Auto` is `Linked`.
//! - A write is one call. A signal that arrives before the first byte was written repeats it; a short write is an error,
//!   and the sync behind it is not even tried. A sync is never repeated.
//!
//! Nothing is ever in flight between calls, so dropping it has nothing to wait for. Proof: `conformance`.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::fs::{self, FileTable, StoreDir};
use super::{Backend, BackendInfo, Completion, Durability, FileId, Op, OpId, SyncMethod, Waker};

/// See the module's page.
pub(crate) struct PortableBackend {
    dir: StoreDir,
    files: FileTable,
    method: SyncMethod,
    ready: Vec<Completion>,
    bell: Arc<Bell>,
}

/// Whether the waker was called since the last wait, and how to wake one that waits now.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl PortableBackend {
    /// Opens the store's directory. `Dsync` is an error where the system has no such write.
    pub(crate) fn open(root: &Path, method: SyncMethod) -> io::Result<PortableBackend> {
        let method = match method {
            SyncMethod::Auto | SyncMethod::Linked => SyncMethod::Linked,
            SyncMethod::Dsync if cfg!(target_os = "linux") => SyncMethod::Dsync,
            SyncMethod::Dsync => {
                let what = "sync method dsync exists on Linux only; use auto or linked";
                return Err(io::Error::new(io::ErrorKind::Unsupported, what));
            }
        };
        let dir = StoreDir::open(root)?;
        let files = FileTable::new(dir.probe_direct());
        Ok(PortableBackend { dir, files, method, ready: Vec::new(), bell: Arc::default() })
    }

    fn write(&self, file: FileId, offset: u64, bytes: &[u8], durability: Durability) -> io::Result<u64> {
        let file = self.files.get(file)?;
        let dsync = durability == Durability::Own && self.method == SyncMethod::Dsync;
        let written = write_once(&file, bytes, offset, dsync)?;
        if written != bytes.len() {
            return Err(fs::short_write(written, bytes.len()));
        }
        if durability != Durability::None && !dsync {
            fs::sync_data(&file)?;
        }
        Ok(0)
    }

    /// Carries an operation without a buffer out.
    fn perform(&mut self, op: Op) -> io::Result<u64> {
        match op {
            Op::Create { path } => self.files.insert(self.dir.create(&path)),
            Op::Open { path } => self.files.insert(self.dir.open_rw(&path)),
            Op::Close { file } => self.files.close(file),
            Op::SyncData { file } => fs::sync_data(&*self.files.get(file)?).map(|()| 0),
            Op::Rename { from, to } => self.dir.rename(&from, &to).map(|()| 0),
            Op::Unlink { path } => self.dir.unlink(&path).map(|()| 0),
            Op::MakeDir { path } => self.dir.make_dir(&path).map(|()| 0),
            Op::SyncDir { path } => self.dir.sync_dir(&path).map(|()| 0),
            Op::Write { .. } => unreachable!("submit keeps the operation that carries a buffer"),
        }
    }
}

/// One write call, repeated only if a signal came before its first byte.
fn write_once(file: &File, bytes: &[u8], offset: u64, dsync: bool) -> io::Result<usize> {
    loop {
        let result = match dsync {
            #[cfg(target_os = "linux")]
            true => fs::write_at_dsync(file, bytes, offset),
            _ => fs::write_at(file, bytes, offset),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => return result,
        }
    }
}

impl Backend for PortableBackend {
    fn submit(&mut self, id: OpId, op: Op) {
        let (outcome, buf) = match op {
            Op::Write { file, offset, buf, len, durability } => {
                let outcome = fs::check_span(offset, len, buf.len())
                    .and_then(|()| self.write(file, offset, &buf[..len], durability));
                (outcome, Some(buf))
            }
            op => (self.perform(op), None),
        };
        self.ready.push(Completion { id, outcome, buf });
    }

    fn poll(&mut self, timeout: Option<Duration>, done: &mut Vec<Completion>) {
        if !self.ready.is_empty() {
            done.append(&mut self.ready);
            return;
        }
        // The flag is all that the mutex guards, so a panic elsewhere cannot have left it half changed.
        let rung = self.bell.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rung = match timeout {
            None => self.bell.changed.wait_while(rung, |rung| !*rung).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.bell.changed.wait_timeout_while(rung, timeout, |rung| !*rung);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        *rung = false;
    }

    fn waker(&self) -> Waker {
        let bell = Arc::clone(&self.bell);
        Arc::new(move || {
            *bell.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
            bell.changed.notify_one();
        })
    }

    fn info(&self) -> BackendInfo {
        BackendInfo { name: "portable", sync_method: self.method, direct: self.files.direct() }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::format::BLOCK_BYTES;
    use crate::io::AlignedBuf;

    #[test]
    fn a_failed_sync_fails_the_write() {
        for method in [SyncMethod::Linked, SyncMethod::Dsync] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let mut backend = PortableBackend::open(dir.path(), method).expect("it runs anywhere");
            // It takes every write and refuses every sync.
            let null = File::options().read(true).write(true).open("/dev/null");
            let file = FileId(backend.files.insert(null).expect("Linux has it"));
            let mut outcome = |op| {
                let mut done = Vec::new();
                backend.submit(OpId(1), op);
                backend.poll(None, &mut done);
                done.remove(0).outcome.map_err(|error| error.raw_os_error())
            };
            let write = |durability| {
                let buf = AlignedBuf::zeroed(BLOCK_BYTES);
                Op::Write { file, offset: 0, buf, len: BLOCK_BYTES, durability }
            };
            assert_eq!(outcome(write(Durability::None)), Ok(0));
            assert_eq!(outcome(write(Durability::File)), Err(Some(libc::EINVAL)));
            assert_eq!(outcome(Op::SyncData { file }), Err(Some(libc::EINVAL)));
            let own = outcome(write(Durability::Own));
            assert_eq!(own.is_ok(), method == SyncMethod::Dsync, "the one has a sync, the other a flag: {own:?}");
        }
    }
}

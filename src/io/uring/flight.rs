//! One operation on its way through the ring: what it owns, the requests it becomes, and the verdict on their results.
//!
//! It only builds requests; pushing them, and the promise that goes with it, is `uring`'s.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue};

use crate::io::fs::{self, FileTable, StoreDir};
use crate::io::{AlignedBuf, Durability, Op, OpId, SyncMethod};

/// The name of a request in the ring: the slab key of its operation, and which half of a chain it is.
pub(super) fn user_data(key: usize, half: usize) -> u64 {
    (key as u64) << 1 | half as u64
}

/// The reverse of [`user_data`]; `None` for the waker's read.
pub(super) fn key_and_half(user_data: u64) -> Option<(usize, usize)> {
    (user_data != super::WAKE).then_some(((user_data >> 1) as usize, (user_data & 1) as usize))
}

pub(super) struct Flight {
    pub(super) id: OpId,
    /// The buffer of a write.
    pub(super) buf: Option<AlignedBuf>,
    /// The kernel took the write without the sync behind it.
    pub(super) split: bool,
    work: Work,
    /// Keeps the descriptor open: of the file, or of the directory that the name lies in.
    file: Rc<File>,
    /// Completions yet to come.
    pending: usize,
    /// Results of the two halves, as the kernel reports them; 0 for a half that does not exist.
    results: [i32; 2],
}

enum Work {
    Write { offset: u64, len: u32, durability: Durability },
    SyncData,
    SyncDir,
    // Not `CString`: its box claims to be the only way to its memory whenever it is moved, and the kernel has another.
    Rename { from: Rc<CStr>, to_dir: File, to: Rc<CStr> },
    Unlink { name: Rc<CStr> },
}

impl Flight {
    /// Checks an operation and gathers what it needs. Gives the buffer back with the error.
    pub(super) fn prepare(
        id: OpId,
        op: Op,
        files: &FileTable,
        dir: &StoreDir,
    ) -> Result<Flight, (io::Error, Option<AlignedBuf>)> {
        let (work, file, buf) = match op {
            Op::Write { file, offset, buf, len, durability } => match span(offset, len, &buf) {
                Ok(len) => (Ok(Work::Write { offset, len, durability }), files.get(file), Some(buf)),
                Err(error) => return Err((error, Some(buf))),
            },
            Op::SyncData { file } => (Ok(Work::SyncData), files.get(file), None),
            Op::SyncDir { path } => (Ok(Work::SyncDir), dir.open_dir(&path).map(Rc::new), None),
            Op::Rename { from, to } => {
                let target = dir.parent(&to).and_then(|(to_dir, to)| Ok((to_dir, c_name(to)?)));
                let source = dir.parent(&from).and_then(|(dir, from)| Ok((Rc::new(dir), c_name(from)?)));
                match (source, target) {
                    (Ok((dir, from)), Ok((to_dir, to))) => (Ok(Work::Rename { from, to_dir, to }), Ok(dir), None),
                    (Err(error), _) | (_, Err(error)) => return Err((error, None)),
                }
            }
            Op::Unlink { path } => match dir.parent(&path).and_then(|(dir, name)| Ok((dir, c_name(name)?))) {
                Ok((dir, name)) => (Ok(Work::Unlink { name }), Ok(Rc::new(dir)), None),
                Err(error) => return Err((error, None)),
            },
            Op::Create { .. } | Op::Open { .. } | Op::Close { .. } | Op::MakeDir { .. } => {
                unreachable!("submit carries these out itself")
            }
        };
        match (work, file) {
            (Ok(work), Ok(file)) => Ok(Flight { id, buf, split: false, work, file, pending: 0, results: [0; 2] }),
            (Err(error), _) | (_, Err(error)) => Err((error, buf)),
        }
    }

    /// The requests for the flight at `key`, in the order in which they must be queued. All pointers lead to memory
    /// that the flight owns on the heap.
    pub(super) fn entries(&mut self, key: usize, method: SyncMethod) -> Vec<squeue::Entry> {
        let fd = Fd(self.file.as_raw_fd());
        let buf = self.buf.as_ref().map_or(std::ptr::null(), |buf| buf.as_ptr());
        let data_sync = || opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build();
        let mut entries = match &self.work {
            Work::Write { offset, len, durability } => {
                let dsync = *durability == Durability::Own && method == SyncMethod::Dsync;
                let rw_flags = if dsync { libc::RWF_DSYNC } else { 0 };
                let write = opcode::Write::new(fd, buf, *len).offset(*offset).rw_flags(rw_flags).build();
                match durability {
                    Durability::None => vec![write],
                    Durability::Own if dsync => vec![write],
                    Durability::Own | Durability::File => vec![write.flags(squeue::Flags::IO_LINK), data_sync()],
                }
            }
            Work::SyncData => vec![data_sync()],
            Work::SyncDir => vec![opcode::Fsync::new(fd).build()],
            Work::Rename { from, to_dir, to } => {
                vec![opcode::RenameAt::new(fd, from.as_ptr(), Fd(to_dir.as_raw_fd()), to.as_ptr()).build()]
            }
            Work::Unlink { name } => vec![opcode::UnlinkAt::new(fd, name.as_ptr()).build()],
        };
        for (half, entry) in entries.iter_mut().enumerate() {
            entry.set_user_data(user_data(key, half));
        }
        self.pending = entries.len();
        self.results = [0; 2];
        entries
    }

    /// Notes a completion; true if it was the last.
    pub(super) fn record(&mut self, half: usize, result: i32) -> bool {
        assert!(self.pending > 0, "the kernel completes each request once");
        self.results[half] = result;
        self.pending -= 1;
        self.pending == 0
    }

    /// The verdict, once every completion is in.
    pub(super) fn outcome(&self) -> io::Result<u64> {
        let [first, sync] = self.results;
        if first < 0 {
            return Err(io::Error::from_raw_os_error(-first));
        }
        match self.work {
            Work::Write { len, .. } => write_outcome(first as u32, len, sync, self.split),
            _ => Ok(0),
        }
    }
}

/// Whether a write, with the sync that belongs to it, is done.
fn write_outcome(written: u32, len: u32, sync: i32, split: bool) -> io::Result<u64> {
    if written != len {
        return Err(fs::short_write(written as usize, len as usize));
    }
    if sync < 0 {
        return Err(io::Error::from_raw_os_error(-sync));
    }
    if split {
        return Err(io::Error::other("the kernel took the write without the sync behind it"));
    }
    Ok(0)
}

fn span(offset: u64, len: usize, buf: &AlignedBuf) -> io::Result<u32> {
    fs::check_span(offset, len, buf.len())?;
    u32::try_from(len).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "more than 4 GiB at once"))
}

fn c_name(name: &str) -> io::Result<Rc<CStr>> {
    Ok(Rc::from(CString::new(name)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_succeeds_only_as_a_whole() {
        assert!(write_outcome(8192, 8192, 0, false).is_ok());
        let short = write_outcome(4096, 8192, 0, false).expect_err("a sync behind a short write proves nothing");
        assert_eq!(short.kind(), io::ErrorKind::WriteZero);
        assert_eq!(short.to_string(), "short write: 4096 of 8192 bytes");
        let sync = write_outcome(8192, 8192, -libc::EIO, false).expect_err("the sync failed");
        assert_eq!(sync.raw_os_error(), Some(libc::EIO));
        assert!(write_outcome(8192, 8192, 0, true).is_err(), "the sync may have run before the write");
    }

    #[test]
    fn a_request_is_named_by_key_and_half() {
        for key in [0, 1, 255, 1 << 40] {
            assert_eq!(key_and_half(user_data(key, 0)), Some((key, 0)));
            assert_eq!(key_and_half(user_data(key, 1)), Some((key, 1)));
        }
        assert_eq!(key_and_half(super::super::WAKE), None);
    }
}

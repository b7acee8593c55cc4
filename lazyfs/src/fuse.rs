//! The volume as a FUSE file system: takes requests apart, and nothing else.
//!
//! Nothing that could be volatile is left in the kernel: names and attributes are valid for no time at all, files are
//! opened with FOPEN_DIRECT_IO, so no byte of theirs is in the page cache (shared memory maps are refused because of
//! it), and the kernel keeps no write back. Each number is used once, so that what the kernel still knows of a file from
//! before a power cut can never be taken for one after it; its handles answer with EIO.
//!
//! How durability arrives, by test (`tests/mount.rs`): `fsync` and `fdatasync` as FSYNC; a write to a file that was
//! opened with O_DSYNC or O_SYNC, and one with RWF_DSYNC or RWF_SYNC, as a WRITE with O_DSYNC among its flags and no
//! FSYNC behind it, because the kernel's path for FOPEN_DIRECT_IO does not come by `generic_write_sync`.
//!
//! Locks (flock, fcntl, open file descriptions) are left to the kernel, which keeps them by itself.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite,
    Request, TimeOrNow, WriteFlags,
};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::ops::{Attributes, New};
use crate::volume::Volume;

/// How long the kernel may believe what it was told.
const TTL: Duration = Duration::ZERO;
/// O_DSYNC, which O_SYNC contains.
const DSYNC: i32 = rustix::fs::OFlags::DSYNC.bits() as i32;

/// An open file or directory.
#[derive(Debug)]
struct Handle {
    ino: u64,
    /// Of a directory: what it held when it was opened, so that a listing goes on where it stopped.
    listing: Vec<(OsString, Attributes)>,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Fuse {
    volume: Arc<Mutex<Volume>>,
    handles: Mutex<(u64, BTreeMap<u64, Handle>)>,
    ended: Sender<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A request that panicked is a bug of this program; the others go on with what it left.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.raw_os_error())
}

fn file_type(kind: FileType) -> fuser::FileType {
    match kind {
        FileType::Directory => fuser::FileType::Directory,
        FileType::Socket => fuser::FileType::Socket,
        _ => fuser::FileType::RegularFile,
    }
}

fn attr(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.ino),
        size: attributes.bytes,
        blocks: attributes.bytes.div_ceil(512),
        atime: attributes.modified,
        mtime: attributes.modified,
        ctime: attributes.modified,
        crtime: SystemTime::UNIX_EPOCH,
        kind: file_type(attributes.kind),
        perm: attributes.mode as u16,
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Fuse {
    /// `ended` is told when the file system is unmounted.
    pub(crate) fn new(volume: Arc<Mutex<Volume>>, ended: Sender<()>) -> Fuse {
        Fuse { volume, handles: Mutex::default(), ended }
    }

    fn volume(&self) -> MutexGuard<'_, Volume> {
        lock(&self.volume)
    }

    fn open_handle(&self, ino: u64, listing: Vec<(OsString, Attributes)>) -> Result<FileHandle, Errno> {
        self.volume().open_handle(ino)?;
        let mut handles = lock(&self.handles);
        handles.0 += 1;
        let number = handles.0;
        handles.1.insert(number, Handle { ino, listing });
        Ok(FileHandle(number))
    }

    fn close_handle(&self, handle: FileHandle) {
        let closed = lock(&self.handles).1.remove(&handle.0);
        if let Some(handle) = closed {
            self.volume().release(handle.ino);
        }
    }

    fn create_new(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        kind: FileType,
        mode: u32,
    ) -> Result<Attributes, Errno> {
        let owner = (req.uid(), req.gid());
        self.volume().create(New { parent: parent.0, name, kind, mode: mode & 0o7777, owner })
    }
}

/// A handle from before a power cut: the disk that it was opened on is gone.
fn of_handle(errno: Errno) -> Errno {
    if errno == Errno::STALE { Errno::IO } else { errno }
}

fn entry(done: Result<Attributes, Errno>, reply: ReplyEntry) {
    match done {
        Ok(attributes) => reply.entry(&TTL, &attr(&attributes), Generation(0)),
        Err(errno) => reply.error(error(errno)),
    }
}

fn attributes(done: Result<Attributes, Errno>, reply: ReplyAttr) {
    match done {
        Ok(attributes) => reply.attr(&TTL, &attr(&attributes)),
        Err(errno) => reply.error(error(errno)),
    }
}

fn empty(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(error(errno)),
    }
}

impl Filesystem for Fuse {
    fn destroy(&mut self) {
        // Nobody listens any more when the program ends by itself.
        self.ended.send(()).ok();
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.volume().lookup(parent.0, name), reply);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        attributes(self.volume().attributes(ino.0), reply);
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut volume = self.volume();
        let mut done = size.map_or(Ok(()), |bytes| volume.truncate(ino.0, bytes));
        if mode.is_some() || uid.is_some() || gid.is_some() {
            done = done.and_then(|()| volume.set_owner(ino.0, mode, (uid, gid)));
        }
        attributes(done.and_then(|()| volume.attributes(ino.0)), reply);
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        match FileType::from_raw_mode(mode) {
            kind @ (FileType::RegularFile | FileType::Socket) => {
                entry(self.create_new(req, parent, name, kind, mode & !umask), reply);
            }
            _ => reply.error(fuser::Errno::EPERM),
        }
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        entry(self.create_new(req, parent, name, FileType::Directory, mode & !umask), reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.volume().unlink(parent.0, name, false), reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.volume().unlink(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let no_replace = flags.contains(RenameFlags::RENAME_NOREPLACE);
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(fuser::Errno::EINVAL);
        }
        empty(self.volume().rename((parent.0, name), (newparent.0, newname), no_replace), reply);
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        entry(self.volume().link(ino.0, newparent.0, newname), reply);
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.open_handle(ino.0, Vec::new()) {
            Ok(handle) => reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let created = self.create_new(req, parent, name, FileType::RegularFile, mode & !umask);
        let opened = created.and_then(|attributes| Ok((attributes, self.open_handle(attributes.ino, Vec::new())?)));
        match opened {
            Ok((attributes, handle)) => {
                reply.created(&TTL, &attr(&attributes), Generation(0), handle, FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut buf = vec![0; size as usize];
        match self.volume().read(ino.0, &mut buf, offset) {
            Ok(read) => reply.data(&buf[..read]),
            Err(errno) => reply.error(error(of_handle(errno))),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.volume().write(ino.0, data, offset, flags.0 & DSYNC != 0) {
            Ok(written) => reply.written(written as u32),
            Err(errno) => reply.error(error(of_handle(errno))),
        }
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        // Closing a file makes nothing durable.
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.close_handle(fh);
        reply.ok();
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        empty(self.volume().sync(ino.0).map_err(of_handle), reply);
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let listed = self.volume().list(ino.0);
        match listed.and_then(|listing| self.open_handle(ino.0, listing)) {
            Ok(handle) => reply.opened(handle, FopenFlags::empty()),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if let Err(errno) = self.volume().has_power() {
            return reply.error(error(errno));
        }
        let handles = lock(&self.handles);
        let listing = handles.1.get(&fh.0).map_or(&[][..], |handle| &handle.listing);
        for (at, (name, attributes)) in listing.iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(attributes.ino), at as u64 + 1, file_type(attributes.kind), name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.close_handle(fh);
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        empty(self.volume().sync_dir(ino.0).map_err(of_handle), reply);
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.volume().space() {
            Ok((total, free)) => reply.statfs(total / 4096, free / 4096, free / 4096, 0, 0, 4096, 255, 4096),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        use rustix::fs::FallocateFlags as Mode;
        let mode = Mode::from_bits_retain(mode as u32);
        let keep = mode.contains(Mode::KEEP_SIZE);
        let rest = mode - Mode::KEEP_SIZE;
        let done = if rest.is_empty() {
            self.volume().allocate(ino.0, offset, length, keep)
        } else if rest == Mode::ZERO_RANGE || rest == Mode::PUNCH_HOLE && keep {
            self.volume().zero(ino.0, offset, length, keep)
        } else {
            Err(Errno::OPNOTSUPP)
        };
        empty(done.map_err(of_handle), reply);
    }
}

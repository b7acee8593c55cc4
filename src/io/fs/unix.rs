//! The store's directory on Unix: every name is resolved from one open directory, so a store that is moved while it is
//! open, or a process that changes its working directory, keeps working on the same files.
//!
//! - No component of a path is followed if it is a symbolic link, and only regular files are opened: each directory on the
//!   way is opened by itself. Only the store's directory as a whole may be reached through a link.
//! - Modes are set after creation, so they do not depend on the umask. The umask can only take bits away, so there is no
//!   moment at which others may look in.
//! - O_DIRECT is switched on after opening, not asked for while creating: a file system that refuses it does so after
//!   it has made the name, and an exclusive creation could then not be tried again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::checked_path;
use crate::io::{DirEntry, Metadata};

const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const DIR_MODE: Mode = Mode::RWXU;

/// The open directory of a store.
pub(crate) struct StoreDir {
    dir: File,
}

impl StoreDir {
    /// Opens the directory; `root` itself may be a symbolic link.
    pub(crate) fn open(root: &Path) -> io::Result<StoreDir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(StoreDir { dir: File::from(rustix::fs::open(root, flags, Mode::empty())?) })
    }

    /// Creates a file that must not exist, for reading and writing.
    pub(crate) fn create(&self, path: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (dir, name) = self.resolve(path)?;
        let file = File::from(rustix::fs::openat(&*dir, name, flags, FILE_MODE)?);
        match rustix::fs::fchmod(&file, FILE_MODE) {
            // A file system without modes (FAT) takes them from its mount options.
            Ok(()) | Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS) => Ok(file),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens a regular file for reading and writing.
    pub(crate) fn open_rw(&self, path: &str) -> io::Result<File> {
        self.open_regular(path, OFlags::RDWR)
    }

    /// Opens a regular file for reading.
    pub(crate) fn open_read(&self, path: &str) -> io::Result<File> {
        // Without NONBLOCK, somebody's pipe under that name would make the reader wait for ever.
        self.open_regular(path, OFlags::RDONLY | OFlags::NONBLOCK)
    }

    fn open_regular(&self, path: &str, access: OFlags) -> io::Result<File> {
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let (dir, name) = self.resolve(path)?;
        let file =
            File::from(rustix::fs::openat(&*dir, name, flags, Mode::empty()).map_err(|e| not_opened(&dir, name, e))?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular(path)) }
    }

    /// Opens a directory of the store, to sync or list it; the empty path is the store's own.
    pub(crate) fn open_dir(&self, path: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (dir, name) = if path.is_empty() { (Parent::Store(&self.dir), ".") } else { self.resolve(path)? };
        let opened = rustix::fs::openat(&*dir, name, flags, Mode::empty());
        Ok(File::from(opened.map_err(|errno| not_opened(&dir, name, errno))?))
    }

    /// As an open directory of its own, the one that a path's last component lies in; and that component.
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    pub(crate) fn parent<'p>(&self, path: &'p str) -> io::Result<(File, &'p str)> {
        Ok(match self.resolve(path)? {
            (Parent::Store(dir), name) => (dir.try_clone()?, name),
            (Parent::Below(dir), name) => (dir, name),
        })
    }

    /// The directory that a path's last component lies in, and that component.
    fn resolve<'p>(&self, path: &'p str) -> io::Result<(Parent<'_>, &'p str)> {
        match checked_path(path)?.rsplit_once('/') {
            Some((dir, name)) => Ok((Parent::Below(self.open_dir(dir)?), name)),
            None => Ok((Parent::Store(&self.dir), path)),
        }
    }

    /// Creates a directory; one that exists is a success.
    pub(crate) fn make_dir(&self, path: &str) -> io::Result<()> {
        let (dir, name) = self.resolve(path)?;
        match rustix::fs::mkdirat(&*dir, name, DIR_MODE) {
            Ok(()) => match rustix::fs::chmodat(&*dir, name, DIR_MODE, AtFlags::empty()) {
                Ok(()) | Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
                Err(errno) => Err(errno.into()),
            },
            Err(Errno::EXIST) => match file_type(&dir, name)? {
                FileType::Directory => Ok(()),
                _ => Err(Errno::EXIST.into()),
            },
            Err(errno) => Err(errno.into()),
        }
    }

    /// Has btrfs write over files that are made in this directory from now on in place, or not. Any other file system is left
    /// as it is.
    #[cfg(target_os = "linux")]
    pub(crate) fn set_in_place(&self, path: &str, is_in_place: bool) -> io::Result<()> {
        const BTRFS: u32 = 0x9123_683E;
        #[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
        if rustix::fs::fstatfs(&self.dir)?.f_type as u32 != BTRFS {
            return Ok(());
        }
        let dir = self.open_dir(path)?;
        let (found, nocow) = (rustix::fs::ioctl_getflags(&dir)?, rustix::fs::IFlags::NOCOW);
        let wanted = if is_in_place { found | nocow } else { found - nocow };
        if wanted == found { Ok(()) } else { Ok(rustix::fs::ioctl_setflags(&dir, wanted)?) }
    }

    /// Makes the names in a directory durable. Never retried.
    pub(crate) fn sync_dir(&self, path: &str) -> io::Result<()> {
        sync_all(&self.open_dir(path)?)
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let ((from_dir, from), (to_dir, to)) = (self.resolve(from)?, self.resolve(to)?);
        Ok(rustix::fs::renameat(&*from_dir, from, &*to_dir, to)?)
    }

    pub(crate) fn unlink(&self, path: &str) -> io::Result<()> {
        let (dir, name) = self.resolve(path)?;
        Ok(rustix::fs::unlinkat(&*dir, name, AtFlags::empty())?)
    }

    /// Names in a directory, sorted.
    pub(crate) fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
        let dir = self.open_dir(path)?;
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let file_type = match entry.file_type() {
                // Some file systems do not say it in the listing. A name that went away meanwhile is not listed.
                FileType::Unknown => match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(errno.into()),
                },
                known => known,
            };
            let is_file = file_type == FileType::RegularFile;
            entries.push(DirEntry { name: name.to_string_lossy().into_owned(), is_file });
        }
        entries.sort();
        Ok(entries)
    }

    /// Bytes free to this process, the part that is reserved for root left out.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::fstatvfs(&self.dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    pub(crate) fn metadata(&self, path: &str) -> io::Result<Metadata> {
        let (dir, name) = self.resolve(path)?;
        let stat = rustix::fs::statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(not_regular(path));
        }
        // Width and sign of these fields differ between systems; neither is ever negative.
        #[allow(clippy::unnecessary_cast)]
        Ok(Metadata { bytes: stat.st_size as u64, links: stat.st_nlink as u64 })
    }

    /// Whether `path` still names this very file.
    pub(crate) fn names(&self, path: &str, file: &File) -> io::Result<bool> {
        let open = rustix::fs::fstat(file)?;
        let (dir, name) = self.resolve(path)?;
        match rustix::fs::statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok((named.st_dev, named.st_ino) == (open.st_dev, open.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Where a name is resolved from.
enum Parent<'a> {
    Store(&'a File),
    Below(File),
}

impl std::ops::Deref for Parent<'_> {
    type Target = File;

    fn deref(&self) -> &File {
        match self {
            Parent::Store(dir) => dir,
            Parent::Below(dir) => dir,
        }
    }
}

fn file_type(dir: &File, name: &str) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode))
}

/// Why a name was not opened: systems disagree on the number for "it is a symbolic link".
fn not_opened(dir: &File, name: &str, errno: Errno) -> io::Error {
    match file_type(dir, name) {
        Ok(FileType::Symlink) => is_link(name),
        _ => errno.into(),
    }
}

/// The error for a symbolic link where a file or directory of the store should be.
pub(crate) fn is_link(name: &str) -> io::Error {
    let what = format!(
        "{name} is a symbolic link, and links inside a store are not followed; put the real thing in its place (the \
         directory of the store as a whole may be a link)"
    );
    io::Error::new(io::ErrorKind::PermissionDenied, what)
}

fn not_regular(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{path} is not a regular file"))
}

/// One `pread`; may be short.
pub(crate) fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(buf, offset)
}

/// One `pwrite`; may be short.
pub(crate) fn write_at(file: &File, buf: &[u8], offset: u64) -> io::Result<usize> {
    file.write_at(buf, offset)
}

/// One write that is durable when it returns; may be short.
#[cfg(target_os = "linux")]
pub(crate) fn write_at_dsync(file: &File, buf: &[u8], offset: u64) -> io::Result<usize> {
    Ok(rustix::io::pwritev2(file, &[io::IoSlice::new(buf)], offset, rustix::io::ReadWriteFlags::DSYNC)?)
}

/// Data sync, tried once. The standard library's would be retried when a signal interrupts it, and a second sync may
/// report success for pages that the first one failed to write.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    #[cfg(target_vendor = "apple")]
    return Ok(rustix::fs::fcntl_fullfsync(file)?);
    #[cfg(not(target_vendor = "apple"))]
    return Ok(rustix::fs::fdatasync(file)?);
}

/// Full sync, tried once; see [`sync_data`].
pub(crate) fn sync_all(file: &File) -> io::Result<()> {
    #[cfg(target_vendor = "apple")]
    return Ok(rustix::fs::fcntl_fullfsync(file)?);
    #[cfg(not(target_vendor = "apple"))]
    return Ok(rustix::fs::fsync(file)?);
}

/// Creates one directory. Only the store's own (`private`) is closed to others whatever the umask.
pub(crate) fn create_dir(path: &Path, private: bool) -> io::Result<()> {
    if !private {
        std::fs::create_dir(path)?;
        let mode = Mode::from_raw_mode(rustix::fs::stat(path)?.st_mode);
        // As `mkdir -p` does: a umask that locks its owner out must not keep us from going on below.
        return if mode.contains(DIR_MODE) { Ok(()) } else { Ok(rustix::fs::chmod(path, mode | DIR_MODE)?) };
    }
    rustix::fs::mkdir(path, DIR_MODE)?;
    match rustix::fs::chmod(path, DIR_MODE) {
        Ok(()) | Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes the file bypass the page cache, if its file system can do that with our alignment.
#[cfg(target_os = "linux")]
pub(crate) fn make_direct(file: &File) -> bool {
    use rustix::fs::StatxFlags;
    if let Ok(stat) = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        && StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::DIOALIGN)
        && !alignment_fits(stat.stx_dio_mem_align, stat.stx_dio_offset_align)
    {
        return false;
    }
    let flags = rustix::fs::fcntl_getfl(file);
    flags.is_ok_and(|flags| rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT).is_ok())
}

/// Takes [`make_direct`] back.
#[cfg(all(target_os = "linux", feature = "cli"))]
pub(crate) fn make_buffered(file: &File) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    Ok(rustix::fs::fcntl_setfl(file, flags - OFlags::DIRECT)?)
}

/// There is nothing to take back.
#[cfg(all(not(target_os = "linux"), feature = "cli"))]
pub(crate) fn make_buffered(_file: &File) -> io::Result<()> {
    Ok(())
}

/// Asks the page cache to forget a range; whether it was asked.
#[cfg(target_os = "linux")]
pub(crate) fn drop_cached(file: &File, offset: u64, len: u64) -> bool {
    let advice = rustix::fs::Advice::DontNeed;
    // A length of 0 would mean the rest of the file.
    let Some(len) = std::num::NonZeroU64::new(len) else { return true };
    rustix::fs::fadvise(file, offset, Some(len), advice).is_ok()
}

/// Only Linux's advice is known to be followed.
#[cfg(not(target_os = "linux"))]
pub(crate) fn drop_cached(_file: &File, _offset: u64, _len: u64) -> bool {
    false
}

/// O_DIRECT is Linux's; elsewhere a data sync does the work alone.
#[cfg(not(target_os = "linux"))]
pub(crate) fn make_direct(_file: &File) -> bool {
    false
}

/// Asks the page cache to forget a file; what is dirty in it stays. Advice, so there is nothing to fail.
#[cfg(target_os = "linux")]
pub(crate) fn forget_cached(file: &File) {
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

/// Asks for more to be read than what is read, or not. Advice, as above.
#[cfg(target_os = "linux")]
pub(crate) fn read_ahead(file: &File, is_wanted: bool) {
    use rustix::fs::Advice;
    let _ = rustix::fs::fadvise(file, 0, None, if is_wanted { Advice::Normal } else { Advice::Random });
}

/// Only Linux's advice is known to be followed.
#[cfg(not(target_os = "linux"))]
pub(crate) fn forget_cached(_file: &File) {}

#[cfg(not(target_os = "linux"))]
pub(crate) fn read_ahead(_file: &File, _is_wanted: bool) {}

/// Whether our blocks meet the alignment that statx reports; 0 says that the file cannot do direct I/O at all.
#[cfg(target_os = "linux")]
fn alignment_fits(mem_align: u32, offset_align: u32) -> bool {
    let fits = |align: u32| align != 0 && (crate::format::BLOCK_BYTES as u32).is_multiple_of(align);
    fits(mem_align) && fits(offset_align)
}

#[cfg(target_os = "linux")]
impl StoreDir {
    /// Whether files made here will bypass the page cache: tried on a file without a name, which leaves nothing behind
    /// even if the power fails. Where the file system has no such files, the answer comes with the first real one.
    pub(crate) fn probe_direct(&self) -> bool {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dir, ".", flags, FILE_MODE).is_ok_and(|fd| make_direct(&File::from(fd)))
    }

    /// Whether the file system is one that is known to honour RWF_DSYNC on direct writes: ext4 (and its elders, which
    /// the ext4 driver serves), XFS, btrfs, F2FS.
    pub(crate) fn honours_dsync(&self) -> bool {
        const KNOWN: [u64; 4] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010];
        // The magic numbers have 32 bits; on some targets the field is signed and wider.
        #[allow(clippy::unnecessary_cast)]
        rustix::fs::fstatfs(&self.dir).is_ok_and(|stat| KNOWN.contains(&(stat.f_type as u64 & 0xFFFF_FFFF)))
    }
}

#[cfg(not(target_os = "linux"))]
impl StoreDir {
    /// See [`make_direct`].
    pub(crate) fn probe_direct(&self) -> bool {
        false
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn direct_io_needs_an_alignment_that_blocks_meet() {
        assert!(alignment_fits(4, 512));
        assert!(alignment_fits(4096, 4096));
        assert!(!alignment_fits(0, 0), "zero means that the file cannot do it");
        assert!(!alignment_fits(512, 16384));
        assert!(!alignment_fits(8192, 512));
    }
}

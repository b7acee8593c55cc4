//! The backing directory: the durable side of everything, in plain files that anybody can look at.
//!
//! - Below the directory lies exactly what a power cut would leave: the durable names, with the durable bytes.
//! - What has no durable name (yet, or any more) lies in the staging directory [`STAGING`]. A file or socket that is known
//!   stays there, under its number, as a hard link, so that its durable names can come and go; a directory lies there as
//!   long as it has no durable name. Nobody sees the staging directory through the mount.
//! - A program that is killed leaves the backing directory as a power cut that loses everything volatile does; the
//!   staging directory is then a left-over and removed by the next mount.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::names::{Change, Ino, Step};

/// Name of the staging directory, in the backing directory.
pub(crate) const STAGING: &str = ".kifa-lazyfs";

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Backing {
    root: PathBuf,
    staging: File,
}

/// A name in the backing directory, and what it stands for.
pub(crate) struct Found {
    pub(crate) name: OsString,
    pub(crate) kind: FileType,
    pub(crate) stat: fs::Metadata,
}

impl Backing {
    /// Takes a directory over; what an earlier program left in staging is removed.
    pub(crate) fn open(root: &Path) -> io::Result<Backing> {
        let root = fs::canonicalize(root)?;
        let staging = root.join(STAGING);
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
        rustix::fs::mkdir(&staging, Mode::RWXU)?;
        Ok(Backing { staging: open_dir(CWD, &staging)?, root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory itself.
    pub(crate) fn open_root(&self) -> io::Result<File> {
        open_dir(CWD, &self.root)
    }

    /// Removes the staging directory: nothing volatile is left.
    pub(crate) fn close(&self) -> io::Result<()> {
        fs::remove_dir_all(self.root.join(STAGING))
    }

    /// The names in a directory, but not the staging directory; those of another kind than files, directories and sockets
    /// are an error, because they could not be shown.
    pub(crate) fn list(&self, dir: &File) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(dir)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." || name == STAGING {
                continue;
            }
            let file = File::from(rustix::fs::openat(
                dir,
                name,
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?);
            let stat = file.metadata()?;
            let kind = FileType::from_raw_mode(stat.mode());
            if !matches!(kind, FileType::RegularFile | FileType::Directory | FileType::Socket) {
                let what = format!("{name:?} in the backing directory is no file, directory or socket; remove it");
                return Err(io::Error::new(io::ErrorKind::Unsupported, what));
            }
            found.push(Found { name: name.to_owned(), kind, stat });
        }
        Ok(found)
    }

    /// Opens a directory that has a durable name.
    pub(crate) fn open_dir(&self, dir: &File, name: &OsStr) -> io::Result<File> {
        open_dir(dir, name)
    }

    /// Gives a file or socket that has a durable name its number in staging.
    pub(crate) fn adopt(&self, dir: &File, name: &OsStr, ino: Ino) -> io::Result<()> {
        Ok(rustix::fs::linkat(dir, name, &self.staging, number(ino), AtFlags::empty())?)
    }

    /// Makes something new in staging.
    pub(crate) fn make(&self, ino: Ino, kind: FileType) -> io::Result<()> {
        let (name, mode) = (number(ino), Mode::RUSR | Mode::WUSR);
        match kind {
            FileType::Directory => rustix::fs::mkdirat(&self.staging, name, Mode::RWXU)?,
            FileType::Socket => rustix::fs::mknodat(&self.staging, name, FileType::Socket, mode, 0)?,
            _ => {
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                drop(rustix::fs::openat(&self.staging, name, flags, mode)?);
            }
        }
        Ok(())
    }

    /// Opens a file by its number, for reading and writing.
    pub(crate) fn open_file(&self, ino: Ino) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.staging, number(ino), flags, Mode::empty())?))
    }

    /// Opens a new directory by its number.
    pub(crate) fn open_new_dir(&self, ino: Ino) -> io::Result<File> {
        open_dir(&self.staging, number(ino))
    }

    /// Sets mode and owner of a directory, or of what has this number in staging; they are durable at once.
    pub(crate) fn set_mode(&self, dir: Option<&File>, ino: Ino, mode: u32, owner: (u32, u32)) -> io::Result<()> {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let (uid, gid) = (rustix::process::Uid::from_raw(owner.0), rustix::process::Gid::from_raw(owner.1));
        match dir {
            Some(dir) => {
                rustix::fs::fchown(dir, Some(uid), Some(gid))?;
                Ok(rustix::fs::fchmod(dir, mode)?)
            }
            None => {
                rustix::fs::chownat(&self.staging, number(ino), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
                Ok(rustix::fs::chmodat(&self.staging, number(ino), mode, AtFlags::empty())?)
            }
        }
    }

    /// Forgets what nothing names any more.
    pub(crate) fn forget(&self, ino: Ino, is_dir: bool) -> io::Result<()> {
        if is_dir {
            return fs::remove_dir_all(self.root.join(STAGING).join(number(ino)));
        }
        Ok(rustix::fs::unlinkat(&self.staging, number(ino), AtFlags::empty())?)
    }

    /// Carries out a change that became durable; `dir` finds the open directory of a number.
    pub(crate) fn carry_out<'a>(&self, step: &Step, dir: &dyn Fn(Ino) -> Option<&'a File>) -> io::Result<()> {
        let at = |ino: Ino| dir(ino).ok_or(Errno::NOENT);
        let put_away = |(holder, name): &(Ino, OsString), ino: Ino| -> io::Result<()> {
            if dir(ino).is_some() {
                return Ok(rustix::fs::renameat(at(*holder)?, name, &self.staging, number(ino))?);
            }
            Ok(rustix::fs::unlinkat(at(*holder)?, name, AtFlags::empty())?)
        };
        match &step.change {
            Change::Link { at: to, ino } => {
                if let Some(replaced) = step.replaced {
                    put_away(to, replaced)?;
                }
                if dir(*ino).is_some() {
                    return Ok(rustix::fs::renameat(&self.staging, number(*ino), at(to.0)?, &to.1)?);
                }
                Ok(rustix::fs::linkat(&self.staging, number(*ino), at(to.0)?, &to.1, AtFlags::empty())?)
            }
            Change::Unlink { at: from, ino } => put_away(from, *ino),
            Change::Rename { from, to, .. } => {
                if let Some(replaced) = step.replaced.filter(|&replaced| dir(replaced).is_some()) {
                    put_away(to, replaced)?;
                }
                Ok(rustix::fs::renameat(at(from.0)?, &from.1, at(to.0)?, &to.1)?)
            }
        }
    }
}

fn number(ino: Ino) -> String {
    ino.0.to_string()
}

fn open_dir(at: impl std::os::fd::AsFd, name: impl rustix::path::Arg) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(at, name, flags, Mode::empty())?))
}

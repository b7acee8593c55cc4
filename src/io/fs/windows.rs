//! The store's directory on Windows: names are joined to its absolute path.
//!
//! - A link (reparse point) under the last component is opened itself instead of being followed, and then refused.
//! - Modes are the access lists that the directory hands down.
//! - There is no way to sync a directory: NTFS journals names on its own, and `sync_dir` does nothing.
//! - The standard library does not tell hard links yet, so every file is reported to have two: whoever asks (before a
//!   file is reused in place) then leaves it alone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::checked_path;
use crate::io::{DirEntry, Metadata};

const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;

/// The directory of a store.
pub(crate) struct StoreDir {
    root: PathBuf,
}

impl StoreDir {
    /// Remembers the directory by its absolute path.
    pub(crate) fn open(root: &Path) -> io::Result<StoreDir> {
        let root = std::path::absolute(root)?;
        if std::fs::metadata(&root)?.is_dir() {
            Ok(StoreDir { root })
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    fn join(&self, path: &str) -> io::Result<PathBuf> {
        Ok(self.root.join(checked_path(path)?))
    }

    fn join_dir(&self, path: &str) -> io::Result<PathBuf> {
        if path.is_empty() { Ok(self.root.clone()) } else { self.join(path) }
    }

    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
        options
    }

    /// Creates a file that must not exist, for reading and writing.
    pub(crate) fn create(&self, path: &str) -> io::Result<File> {
        StoreDir::options().write(true).create_new(true).open(self.join(path)?)
    }

    /// Opens a regular file for reading and writing.
    pub(crate) fn open_rw(&self, path: &str) -> io::Result<File> {
        regular(path, StoreDir::options().write(true).open(self.join(path)?)?)
    }

    /// Opens a regular file for reading.
    pub(crate) fn open_read(&self, path: &str) -> io::Result<File> {
        regular(path, StoreDir::options().open(self.join(path)?)?)
    }

    /// Creates a directory; one that exists is a success.
    pub(crate) fn make_dir(&self, path: &str) -> io::Result<()> {
        let path = self.join(path)?;
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if std::fs::symlink_metadata(&path)?.is_dir() { Ok(()) } else { Err(error) }
            }
            result => result,
        }
    }

    /// Does nothing; see the module's page. A directory that is not there is still an error.
    pub(crate) fn sync_dir(&self, path: &str) -> io::Result<()> {
        std::fs::metadata(self.join_dir(path)?).map(|_| ())
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.join(from)?, self.join(to)?)
    }

    pub(crate) fn unlink(&self, path: &str) -> io::Result<()> {
        std::fs::remove_file(self.join(path)?)
    }

    /// Names in a directory, sorted.
    pub(crate) fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(self.join_dir(path)?)? {
            let entry = entry?;
            let is_file = entry.file_type()?.is_file();
            entries.push(DirEntry { name: entry.file_name().to_string_lossy().into_owned(), is_file });
        }
        entries.sort();
        Ok(entries)
    }

    /// Not told without a call that std does not have.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn metadata(&self, path: &str) -> io::Result<Metadata> {
        let metadata = std::fs::symlink_metadata(self.join(path)?)?;
        if !metadata.is_file() {
            return Err(not_regular(path));
        }
        Ok(Metadata { bytes: metadata.len(), links: 2 })
    }

    /// Whether `path` still names this very file. Not known here; a file that is open is rarely replaced on Windows.
    pub(crate) fn names(&self, path: &str, _file: &File) -> io::Result<bool> {
        std::fs::exists(self.join(path)?)
    }

    /// There is no O_DIRECT here.
    pub(crate) fn probe_direct(&self) -> bool {
        false
    }
}

fn regular(path: &str, file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular(path)) }
}

fn not_regular(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{path} is not a regular file"))
}

/// One read; may be short. At the end of the file Windows reports an error where Unix reports 0.
pub(crate) fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    const ERROR_HANDLE_EOF: i32 = 38;
    match file.seek_read(buf, offset) {
        Err(error) if error.raw_os_error() == Some(ERROR_HANDLE_EOF) => Ok(0),
        result => result,
    }
}

/// One write; may be short.
pub(crate) fn write_at(file: &File, buf: &[u8], offset: u64) -> io::Result<usize> {
    file.seek_write(buf, offset)
}

/// Data sync (FlushFileBuffers), tried once.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// Creates one directory, with the access list its parent hands down.
pub(crate) fn create_dir(path: &Path, _private: bool) -> io::Result<()> {
    std::fs::create_dir(path)
}

/// Only Linux's advice is known to be followed.
pub(crate) fn forget_cached(_file: &File) {}
pub(crate) fn read_ahead(_file: &File, _is_wanted: bool) {}

/// There is no O_DIRECT here.
pub(crate) fn make_direct(_file: &File) -> bool {
    false
}

/// There is nothing to take back.
#[cfg(feature = "cli")]
pub(crate) fn make_buffered(_file: &File) -> io::Result<()> {
    Ok(())
}

/// There is no such advice here.
pub(crate) fn drop_cached(_file: &File, _offset: u64, _len: u64) -> bool {
    false
}

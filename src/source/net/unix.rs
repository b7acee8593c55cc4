//! Unix sockets by path: created for their owner only, at paths of any length, and never in the place of something else.
//!
//! - A new socket has mode 0600 before anybody can connect to it: it listens only after its mode is set.
//! - A socket file that nobody answers on was left by a killed process, and is replaced. One that is answered is in use; what
//!   is not a socket is not touched.
//! - At the end the file is removed, if it is still the one that was made.
//! - The kernel takes 107 bytes of path; a longer one is reached through the descriptor of its directory, on Linux.
//!
//! Proof: the tests below.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// What to do with a socket file that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// Replace it if nobody answers.
    Ask,
    /// Replace it: whoever made it cannot be alive.
    Replace,
}

/// The file of a socket that this process made; removed when dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    dir: OwnedFd,
    name: OsString,
    device: u64,
    inode: u64,
}

/// Listens at `path`.
///
/// # Errors
/// `AddrInUse` where somebody answers there, `AlreadyExists` where something is there that is not a socket; each is a
/// sentence.
pub(super) fn listen(path: &Path, found: Found) -> io::Result<(UnixListener, SocketFile)> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = rustix::fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let address = address(path, &dir, name)?;
    make_way(&dir, name, &address, found)?;

    let socket = socket()?;
    rustix::net::bind(&socket, &address)?;
    let listening = rustix::fs::chmodat(&dir, name, Mode::RUSR | Mode::WUSR, AtFlags::empty())
        .and_then(|()| rustix::net::listen(&socket, BACKLOG))
        .and_then(|()| rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW));
    let stat = match listening {
        Ok(stat) => stat,
        Err(error) => {
            let _ = rustix::fs::unlinkat(&dir, name, AtFlags::empty());
            return Err(error.into());
        }
    };
    #[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
    let (device, inode) = (stat.st_dev as u64, stat.st_ino as u64);
    Ok((UnixListener::from(socket), SocketFile { dir, name: name.to_owned(), device, inode }))
}

fn socket() -> io::Result<OwnedFd> {
    #[cfg(not(target_vendor = "apple"))]
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    #[cfg(target_vendor = "apple")]
    let flags = SocketFlags::empty();
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    #[cfg(target_vendor = "apple")]
    {
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
    }
    Ok(socket)
}

/// The socket's address: its path, or a shorter way to the same file.
fn address(path: &Path, dir: &OwnedFd, name: &OsStr) -> io::Result<SocketAddrUnix> {
    if let Ok(address) = SocketAddrUnix::new(path) {
        return Ok(address);
    }
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "the path is too long for a socket");
    if !cfg!(target_os = "linux") {
        return Err(too_long());
    }
    let mut shorter = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    shorter.push(name);
    SocketAddrUnix::new(&shorter).map_err(|_| too_long())
}

/// Removes a socket file that is in the way, if it may be removed.
fn make_way(dir: &OwnedFd, name: &OsStr, address: &SocketAddrUnix, found: Found) -> io::Result<()> {
    let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        let what = "something is there that is not a socket; remove it, or choose another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    if found == Found::Ask {
        let socket = socket()?;
        match rustix::net::connect(&socket, address) {
            Err(Errno::CONNREFUSED | Errno::NOENT) => {}
            // A full queue of connections is an answer, too.
            Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => {
                let what = "another process listens there; stop it, or choose another path";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
            }
            Err(error) => return Err(error.into()),
        }
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let Ok(stat) = rustix::fs::statat(&self.dir, self.name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) else { return };
        #[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
        let is_ours = (stat.st_dev as u64, stat.st_ino as u64) == (self.device, self.inode);
        if is_ours {
            // Left behind it is found without an answer, and replaced.
            let _ = rustix::fs::unlinkat(&self.dir, self.name.as_bytes(), AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn kind(outcome: io::Result<(UnixListener, SocketFile)>) -> io::ErrorKind {
        outcome.expect_err("it is refused").kind()
    }

    #[test]
    fn it_is_the_owners_alone_and_gone_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (listener, file) = listen(&path, Found::Ask).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        assert_eq!(kind(listen(&path, Found::Ask)), io::ErrorKind::AddrInUse);
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_process_left_is_replaced_and_what_is_not_a_socket_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let (_listener, file) = listen(&path, Found::Ask).unwrap();
        // Another process takes the place: its socket is not ours to remove.
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
        let (listener, file) = listen(&path, Found::Replace).unwrap();
        drop((listener, file));

        fs::write(&path, "precious").unwrap();
        for found in [Found::Ask, Found::Replace] {
            assert_eq!(kind(listen(&path, found)), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
        assert_eq!(kind(listen(&link, Found::Replace)), io::ErrorKind::AlreadyExists);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_path_may_be_longer_than_the_kernel_takes() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(120));
        fs::create_dir(&deep).unwrap();
        let path = deep.join("s");
        let (_listener, _file) = listen(&path, Found::Ask).unwrap();
        assert!(fs::metadata(&path).unwrap().file_type().is_socket());
        assert_eq!(kind(listen(&path, Found::Ask)), io::ErrorKind::AddrInUse);
        assert_eq!(kind(listen(&deep.join("y".repeat(107)), Found::Ask)), io::ErrorKind::InvalidInput);
    }
}

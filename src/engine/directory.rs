//! The directory of a log before anything in it is believed: what it is, whose it is, and the lock.

use std::path::Path;
use std::time::Duration;

use super::within;
use crate::error::{Error, Result};
use crate::io::fs::{RealVfs, create_store_dir};
use crate::io::guard::{check_ownership, close_to_group, refuse_links};
use crate::io::lock::{LOCK_NAME, StoreLock};
use crate::manifest::reserve;
use crate::reactor::open::{Ground, survey};

/// How long an opener waits for a lock that a killed process's last requests may still hold.
const LOCK_WAIT: Duration = Duration::from_secs(2);

pub(super) fn lock(dir: &Path) -> Result<StoreLock> {
    // Before anything in it is read or believed.
    check_ownership(dir, false)?;
    check_links(dir)?;
    let ground = match dir.exists() {
        true => {
            let vfs = RealVfs::open(dir).map_err(|cause| cannot_open(dir, cause))?;
            survey(&vfs).map_err(|cause| within(dir, cause))?
        }
        false => Ground::Empty,
    };
    match ground {
        Ground::Foreign(found) => return Err(Error::NotAStore { dir: dir.to_path_buf(), found }),
        // Also where the directory is there: whoever made it may have been killed before its name was durable.
        Ground::Empty => {
            create_store_dir(dir).map_err(|cause| Error::io("create", dir, cause))?;
            close_to_group(dir)?;
        }
        Ground::Store => check_ownership(dir, true)?,
    }
    StoreLock::acquire(dir, LOCK_WAIT).map_err(|cause| cause.into_error(dir))
}

/// Why a store's directory cannot be opened: because there is none, or for a reason worth telling apart from that.
pub(crate) fn cannot_open(dir: &Path, cause: std::io::Error) -> Error {
    let found = match cause.kind() {
        std::io::ErrorKind::NotFound => "there is no such directory",
        std::io::ErrorKind::NotADirectory => "it is not a directory",
        _ => return Error::io("open", dir, cause),
    };
    Error::NotAStore { dir: dir.to_path_buf(), found: found.to_owned() }
}

/// Refuses symbolic links in the place of files and directories of a store; see [`crate::io::guard`].
pub(crate) fn check_links(dir: &Path) -> Result<()> {
    let (wal, tables) = (crate::wal::DIR, crate::sstable::DIR);
    let is_ours = |name: &str| [LOCK_NAME, wal, tables, reserve::NAME, "quarantine", "kifa.sock"].contains(&name);
    refuse_links(dir, |name| is_ours(name) || name.starts_with("MANIFEST"))?;
    // A link passed over in a listing would read as "there is no such segment", and the newest one would not be missed.
    refuse_links(&dir.join(wal), |name| name.ends_with(".wal"))?;
    refuse_links(&dir.join(tables), |name| name.ends_with(".sst"))
}

//! Who else could change a store: owner and permissions of its directory, and symbolic links in it.
//!
//! - A store is opened for writing only where nobody but its owner (and root, who can do everything anyway) may create, rename
//!   or replace files: else another user could put his own log, or a link to somebody's file, in the place of ours. The
//!   owner must be the effective user or root; neither the group nor others may write. That others may *read* the directory's
//!   names is not our decision: the files in it are 0600.
//! - A directory that becomes a store is closed to its group, not refused: under a umask of 0002 `mkdir` leaves it open.
//! - The directory itself may be a symbolic link, which is how people move a store to a larger disk, and how systemd
//!   presents the state of a dynamic user.
//! - Names of ours that are symbolic links are refused by readers and writers alike, by name and before anything is read. The
//!   configuration is not ours: `kifa.toml` may be a link. Links are not followed later either, see
//!   [`super::fs`]; looking first only gives the better sentence, and covers names that listings would pass over.
//! - Readers may read whatever they have permission for.
//!
//! Outside Unix there is nothing to look at.
//!
//! Proof: `tests/it/permissions.rs`.
// It asks whose directory this is before there is a store to be reached through the seam.
#![allow(clippy::disallowed_methods)]

use std::path::Path;

use crate::error::Result;

#[cfg(unix)]
pub(crate) use unix::{check_ownership, close_to_group, refuse_links};

/// Nothing to look at.
#[cfg(not(unix))]
pub(crate) fn check_ownership(_dir: &Path, _is_store: bool) -> Result<()> {
    Ok(())
}

/// Nothing to close.
#[cfg(not(unix))]
pub(crate) fn close_to_group(_dir: &Path) -> Result<()> {
    Ok(())
}

/// Nothing to look at.
#[cfg(not(unix))]
pub(crate) fn refuse_links(_dir: &Path, _is_ours: impl Fn(&str) -> bool) -> Result<()> {
    Ok(())
}

#[cfg(unix)]
mod unix {
    use std::io;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::{Path, Result};
    use crate::error::Error;
    use crate::io::fs::is_link;

    /// Takes the group's right to write from a directory that becomes a store.
    pub(crate) fn close_to_group(dir: &Path) -> Result<()> {
        let failed = |cause| Error::io("take the group's right to write from", dir, cause);
        let mut permissions = std::fs::metadata(dir).map_err(failed)?.permissions();
        let mode = permissions.mode();
        if mode & 0o020 == 0 {
            return Ok(());
        }
        permissions.set_mode(mode & !0o020);
        std::fs::set_permissions(dir, permissions).map_err(failed)
    }

    /// Refuses a directory that others could change; one that is absent is nobody's. The group is looked at only where there
    /// is a store already.
    pub(crate) fn check_ownership(dir: &Path, is_store: bool) -> Result<()> {
        let failed = |cause| Error::io("look at", dir, cause);
        let metadata = match std::fs::metadata(dir) {
            Ok(metadata) => metadata,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(failed(cause)),
        };
        let refused = |what: String| Err(Error::io("use", dir, io::Error::new(io::ErrorKind::PermissionDenied, what)));
        let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if owner != user && owner != 0 {
            return refused(format!(
                "it belongs to user {owner} and kifa runs as user {user}, so what is stored could be replaced; run kifa as \
                 user {owner}, or: chown -R {user} {}",
                dir.display()
            ));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & if is_store { 0o022 } else { 0o002 } != 0 {
            return refused(format!(
                "others than its owner may write to it (mode {mode:04o}), so what is stored could be replaced; run: chmod \
                 700 {}",
                dir.display()
            ));
        }
        Ok(())
    }

    /// Refuses symbolic links of such names in a directory of the store.
    pub(crate) fn refuse_links(dir: &Path, is_ours: impl Fn(&str) -> bool) -> Result<()> {
        let Ok(entries) = std::fs::read_dir(dir) else {
            // Absent, or not to be read: whoever opens it says so better.
            return Ok(());
        };
        for entry in entries {
            let entry = entry.map_err(|cause| Error::io("list", dir, cause))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_ours(name)) else { continue };
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                return Err(Error::io("use", dir, is_link(name)));
            }
        }
        Ok(())
    }
}

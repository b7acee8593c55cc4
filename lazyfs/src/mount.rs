//! Mounting a volume, and taking it away again without leaving anything behind.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use rustix::mount::UnmountFlags;

use crate::fuse::Fuse;
use crate::volume::Volume;

/// A mounted volume. Dropping it is an orderly shutdown: everything becomes durable, the mount goes, also from under
/// programs that still use it (they see EIO).
#[derive(Debug)]
pub struct Mount {
    point: PathBuf,
    volume: Arc<Mutex<Volume>>,
    session: Option<BackgroundSession>,
    ended: Receiver<()>,
}

impl Mount {
    /// Mounts; needs root and /dev/fuse.
    pub fn new(volume: Volume, point: &Path) -> io::Result<Mount> {
        let volume = Arc::new(Mutex::new(volume));
        let (ends, ended) = channel();
        let mut config = Config::default();
        config.acl = SessionACL::All;
        config.mount_options = vec![
            MountOption::FSName("kifa-lazyfs".to_owned()),
            MountOption::DefaultPermissions,
            MountOption::NoSuid,
            MountOption::NoDev,
            MountOption::NoAtime,
        ];
        let session = fuser::spawn_mount(Fuse::new(Arc::clone(&volume), ends), point, &config)?;
        Ok(Mount { point: std::fs::canonicalize(point)?, volume, session: Some(session), ended })
    }

    /// The volume, between two operations.
    pub fn volume(&self) -> MutexGuard<'_, Volume> {
        self.volume.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A second way to the volume, for whoever takes commands.
    pub fn share(&self) -> Arc<Mutex<Volume>> {
        Arc::clone(&self.volume)
    }

    /// Whether somebody else has unmounted it.
    pub fn has_ended(&self) -> bool {
        self.ended.try_recv().is_ok()
    }

    /// Unmounts and makes everything durable.
    pub fn end(mut self) -> io::Result<()> {
        self.close()
    }

    fn close(&mut self) -> io::Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let closed = self.volume().close();
        // Detached, so that programs which still have files open cannot keep the mount alive.
        let unmounted = rustix::mount::unmount(&self.point, UnmountFlags::DETACH);
        drop(session);
        closed?;
        match unmounted {
            // Somebody else was faster.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
            result => Ok(result?),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            eprintln!("{} was not unmounted in good order: {error}", self.point.display());
        }
    }
}

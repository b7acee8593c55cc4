//! How the thread learns that a file has changed: inotify on Linux, through rustix, which the program has anyway; the crates
//! for it bring threads and channels of their own, and what they add (other systems' interfaces) a look now and then does,
//! too. Everything is looked at once per `ingester.file_rescan` whatever was notified, so a notification that is missed
//! costs time, never a line.
//!
//! - Directories are watched for names that come and go; files for what is written to them, by the open descriptor, so a
//!   rotated file goes on being watched under any name.
//! - Where the system gives no watch (a limit is reached, the file system has none, or the system is another one), looking
//!   must do; that is logged once.
//!
//! Proof: `tests/it/tail.rs`, with and without.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::follow::Tail;
use super::identity::FileId;

/// What has happened since the last call.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Events {
    /// Names came or went, or nobody knows what happened.
    pub(crate) names: bool,
    /// These files were written to.
    pub(crate) files: BTreeSet<FileId>,
}

/// Watches for a set of files and directories.
pub(crate) trait Watching {
    /// Makes the watches those of these directories and files. Returns the files that are watched from now on: what was
    /// written to them before is not notified.
    fn update(&mut self, directories: &BTreeSet<PathBuf>, files: &[&Tail]) -> BTreeSet<FileId>;
    /// Takes the events that have come.
    fn events(&mut self) -> Events;
}

#[cfg(target_os = "linux")]
pub(crate) use linux::Inotify;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::{BTreeMap, BTreeSet};
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
    use std::path::{Path, PathBuf};

    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
    use rustix::io::Errno;
    use tracing::{debug, warn};

    use super::{Events, Watching};
    use crate::source::file::follow::Tail;
    use crate::source::file::identity::FileId;

    /// Bytes of events read at once.
    const EVENT_BYTES: usize = 16 << 10;

    enum Target {
        Directory(PathBuf),
        File(FileId),
    }

    /// See the module's page.
    pub(crate) struct Inotify {
        fd: OwnedFd,
        targets: BTreeMap<i32, Target>,
        /// Each file's watch; `None` where it could not be had and looking must do.
        files: BTreeMap<FileId, Option<i32>>,
        directories: BTreeMap<PathBuf, i32>,
        /// That a watch could not be had was logged.
        is_told: bool,
    }

    impl Inotify {
        pub(crate) fn new() -> io::Result<Inotify> {
            let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let (targets, files, directories) = Default::default();
            Ok(Inotify { fd, targets, files, directories, is_told: false })
        }

        /// Readable when there are events.
        pub(crate) fn fd(&self) -> BorrowedFd<'_> {
            self.fd.as_fd()
        }

        fn add(&mut self, path: &Path, flags: WatchFlags) -> Option<i32> {
            match inotify::add_watch(&self.fd, path, flags) {
                Ok(watch) => Some(watch),
                Err(error) => {
                    self.tell(path, error);
                    None
                }
            }
        }

        fn tell(&mut self, path: &Path, error: Errno) {
            // Gone again, or not to be read: whoever opens it says so.
            let is_ordinary = matches!(error, Errno::NOENT | Errno::ACCESS | Errno::NOTDIR);
            if is_ordinary || std::mem::replace(&mut self.is_told, true) {
                debug!("no watch on {}: {error}", path.display());
                return;
            }
            let remedy = match error {
                Errno::NOSPC => "; raise fs.inotify.max_user_watches to be notified at once",
                _ => "",
            };
            warn!(
                "{} cannot be watched ({error}): it, and whatever else cannot be, is looked at once per \
                 ingester.file_rescan{remedy}",
                path.display()
            );
        }

        fn watch_file(&mut self, tail: &Tail) -> Option<i32> {
            let flags = WatchFlags::MODIFY | WatchFlags::MOVE_SELF | WatchFlags::ATTRIB;
            // By its descriptor it is this file, whatever its name has become.
            let by_fd = PathBuf::from(format!("/proc/self/fd/{}", tail.file().as_raw_fd()));
            let watch = match inotify::add_watch(&self.fd, &by_fd, flags) {
                Ok(watch) => Some(watch),
                Err(Errno::NOENT) => self.add(&tail.path, flags),
                Err(error) => {
                    self.tell(&tail.path, error);
                    None
                }
            };
            if let Some(watch) = watch {
                self.targets.insert(watch, Target::File(tail.id));
            }
            watch
        }

        fn remove(&mut self, watch: i32) {
            if self.targets.remove(&watch).is_some() {
                // It may be gone with its file.
                let _ = inotify::remove_watch(&self.fd, watch);
            }
        }

        fn take(&mut self, watch: i32, flags: ReadFlags, events: &mut Events) {
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                events.names = true;
                events.files.extend(self.files.keys());
                return;
            }
            match self.targets.get(&watch) {
                Some(Target::Directory(path)) => {
                    events.names = true;
                    if flags.contains(ReadFlags::IGNORED) {
                        self.directories.remove(&path.clone());
                        self.targets.remove(&watch);
                    }
                }
                Some(Target::File(id)) => {
                    if flags.contains(ReadFlags::MODIFY) {
                        events.files.insert(*id);
                    }
                    events.names |= flags.intersects(ReadFlags::MOVE_SELF | ReadFlags::ATTRIB);
                }
                // Removed a moment ago.
                None => {}
            }
        }
    }

    impl Watching for Inotify {
        fn update(&mut self, directories: &BTreeSet<PathBuf>, files: &[&Tail]) -> BTreeSet<FileId> {
            let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
            for directory in directories {
                if !self.directories.contains_key(directory)
                    && let Some(watch) = self.add(directory, flags | WatchFlags::ONLYDIR | WatchFlags::DELETE_SELF)
                {
                    self.directories.insert(directory.clone(), watch);
                    self.targets.insert(watch, Target::Directory(directory.clone()));
                }
            }
            let gone: Vec<PathBuf> =
                self.directories.keys().filter(|held| !directories.contains(*held)).cloned().collect();
            for directory in gone {
                if let Some(watch) = self.directories.remove(&directory) {
                    self.remove(watch);
                }
            }
            let ids: BTreeSet<FileId> = files.iter().map(|tail| tail.id).collect();
            let gone: Vec<FileId> = self.files.keys().filter(|held| !ids.contains(held)).copied().collect();
            for watch in gone.iter().filter_map(|id| self.files.remove(id).flatten()).collect::<Vec<_>>() {
                self.remove(watch);
            }
            let mut fresh = BTreeSet::new();
            for tail in files {
                if !self.files.contains_key(&tail.id) {
                    let watch = self.watch_file(tail);
                    self.files.insert(tail.id, watch);
                    fresh.insert(tail.id);
                }
            }
            fresh
        }

        fn events(&mut self) -> Events {
            let mut events = Events::default();
            let mut buf = [MaybeUninit::uninit(); EVENT_BYTES];
            let mut taken = Vec::new();
            let Ok(fd) = self.fd.try_clone() else { return Events { names: true, ..Events::default() } };
            let mut reader = inotify::Reader::new(fd, &mut buf);
            while let Ok(event) = reader.next() {
                taken.push((event.wd(), event.events()));
                if taken.len() >= EVENT_BYTES {
                    // More wait; they are taken next time.
                    break;
                }
            }
            for (watch, flags) in taken {
                self.take(watch, flags, &mut events);
            }
            events
        }
    }
}

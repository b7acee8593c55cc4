//! What the store takes of its disk, and what is left there.
//!
//! Files are listed when somebody asks, at most once in [`FRESH`]. What cannot be looked at is left out: the page shows
//! what it can, and the log itself says what is wrong with its disk.
// Looks at the machine's files and clock, not at the simulated ones.
#![allow(clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a look stands: a store may have thousands of files, and the page be asked for often.
const FRESH: Duration = Duration::from_secs(5);

/// Sizes in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sizes {
    /// Of the store's files.
    pub(super) store: u64,
    /// Of the file system: all of it, and what the daemon may still take.
    pub(super) disk: u64,
    pub(super) free: u64,
}

/// A store's directory, and what was found at the last look.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    seen: Option<(Instant, Sizes)>,
}

impl Store {
    pub(super) fn new(dir: PathBuf) -> Store {
        Store { dir, seen: None }
    }

    /// `None` where the file system does not answer.
    pub(super) fn sizes(&mut self, now: Instant) -> Option<Sizes> {
        if let Some((at, sizes)) = self.seen
            && now.duration_since(at) < FRESH
        {
            return Some(sizes);
        }
        let disk = rustix::fs::statvfs(&self.dir).ok()?;
        let sizes = Sizes {
            store: ["", crate::wal::DIR, crate::sstable::DIR, "quarantine"]
                .iter()
                .map(|dir| bytes_in(&self.dir.join(dir)))
                .sum(),
            disk: disk.f_blocks.saturating_mul(disk.f_frsize),
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
        };
        self.seen = Some((now, sizes));
        Some(sizes)
    }
}

/// Bytes of the files in a directory; of those that are gone meanwhile, nothing.
fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let files = entries.filter_map(|entry| entry.ok()?.metadata().ok()).filter(std::fs::Metadata::is_file);
    files.map(|file| file.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_store_are_counted_and_a_look_stands_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("wal")).unwrap();
        std::fs::write(dir.path().join("wal/1.wal"), [7; 1000]).unwrap();
        std::fs::write(dir.path().join("MANIFEST-1"), [7; 24]).unwrap();
        let mut store = Store::new(dir.path().to_owned());
        let start = Instant::now();
        let first = store.sizes(start).expect("there is a file system");
        assert_eq!(first.store, 1024);
        assert!(first.free <= first.disk && first.disk > 0);
        std::fs::write(dir.path().join("MANIFEST-2"), [7; 76]).unwrap();
        assert_eq!(store.sizes(start).unwrap().store, 1024, "the look stands");
        assert_eq!(store.sizes(start + FRESH).unwrap().store, 1100);
    }

    #[test]
    fn a_directory_that_is_gone_has_no_sizes() {
        assert_eq!(Store::new("/absent/store".into()).sizes(Instant::now()), None);
    }
}

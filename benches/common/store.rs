//! Stores to read from: built once, kept where they are large.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use kifa::bench::load::{pipelined, settle};
use kifa::{Log, Options};

use super::{Bench, remove};

/// Counts up with everything that changes what is stored, so that an old store is not taken for a new one.
const KIND: u32 = 1;

/// The store that the reading cases share.
pub(crate) struct Store {
    pub(crate) dir: PathBuf,
    pub(crate) entries: u64,
}

impl Store {
    /// A store of `entries` entries, all in tables but the last few. A large one is kept in the build directory and found
    /// there again; `cargo clean` removes it.
    pub(crate) fn of(bench: &Bench, entries: u64) -> Store {
        let name = format!("kifa-bench-{KIND}-{entries}");
        let dir = match bench.is_quick {
            true => bench.dir().join(name),
            false => Path::new(env!("CARGO_TARGET_TMPDIR")).join(name),
        };
        if !dir.exists() {
            let unfinished = dir.with_extension("unfinished");
            remove(&unfinished);
            let log = Log::open(&unfinished, Options::default()).expect("the build directory can be written to");
            pipelined(&log, &bench.payloads, entries, 100).expect("the log goes on");
            settle();
            log.close().expect("the log goes on");
            fs::rename(&unfinished, &dir).expect("the build directory can be written to");
            if !bench.is_quick {
                println!("kept for the next run: {}", dir.display());
            }
        }
        Store { dir, entries }
    }

    /// Its tables, by their path in the store.
    pub(crate) fn tables(&self) -> Vec<String> {
        let mut names: Vec<String> = files_in(&self.dir.join("sst"))
            .filter_map(|path| Some(format!("sst/{}", path.file_name()?.to_str()?)))
            .collect();
        names.sort();
        names
    }

    /// Bytes of all its files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files().filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
    }

    /// Takes its files out of the page cache.
    pub(crate) fn chill(&self) {
        self.files().for_each(|path| chill(&path));
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let inside = ["", "sst", "wal"].map(|name| self.dir.join(name));
        inside.into_iter().flat_map(|dir| files_in(&dir).collect::<Vec<_>>())
    }
}

fn files_in(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(dir).expect("the store has this directory");
    entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(|path| path.is_file())
}

/// Copies a store as it is: what a kill at this moment would leave.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the build directory can be written to");
    for entry in fs::read_dir(from).expect("the store is there").filter_map(Result::ok) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("the build directory can be written to");
            File::open(&target).and_then(|file| file.sync_all()).expect("the device works");
        }
    }
}

/// Takes a file out of the page cache, where the system can do that.
pub(crate) fn chill(path: &Path) {
    #[cfg(target_os = "linux")]
    if let Ok(file) = File::open(path) {
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = path;
}

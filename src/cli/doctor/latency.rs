//! How long a sync takes: blocks written and synced one after the other for up to a second, in a file of its own.
// The machine's own clock is what is asked about.
#![allow(clippy::disallowed_methods)]

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Finding, Level, unknown};
use crate::bench::{FLUSH_TOO_FAST, Histogram};
use crate::format::BLOCK_BYTES;
use crate::io::fs::{StoreDir, short_write, sync_data, write_at};

const SUBJECT: &str = "sync latency";
/// Blocks of the file, all written before anything is measured.
const BLOCKS: u64 = 64;
/// Most syncs, and how long they may take together.
const SYNCS_MAX: u64 = 500;
const TIME_MAX: Duration = Duration::from_secs(1);
/// A median, and a worst, beyond which producers will feel it.
const SLOW_MEDIAN: Duration = Duration::from_millis(50);
const SLOW_WORST: Duration = Duration::from_secs(1);

pub(super) fn look(dir: &Path) -> Option<Finding> {
    let scratch = match Scratch::create(dir) {
        Ok(scratch) => scratch,
        // That it cannot be written to is told elsewhere.
        Err(error) if is_refusal(&error) => return None,
        Err(error) => return Some(unknown(SUBJECT, "cannot be measured", &error)),
    };
    Some(match measure(&scratch.file) {
        Ok(latencies) => judge(latencies.quantile(0.5), latencies.quantile(1.0), latencies.count()),
        Err(error) => Finding::new(
            Level::Problem,
            SUBJECT,
            format!("writing and syncing a file failed: {error}"),
            "look at the kernel's log (dmesg) and the disk's health (smartctl -a)",
        ),
    })
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn measure(file: &File) -> io::Result<Histogram> {
    let block = [0x5A; BLOCK_BYTES];
    let write = |number: u64| match write_at(file, &block, number * BLOCK_BYTES as u64)? {
        BLOCK_BYTES => Ok(()),
        written => Err(short_write(written, BLOCK_BYTES)),
    };
    (0..BLOCKS).try_for_each(write)?;
    sync_data(file)?;
    let (mut latencies, begin) = (Histogram::default(), Instant::now());
    while latencies.count() < SYNCS_MAX && begin.elapsed() < TIME_MAX {
        let start = Instant::now();
        write(latencies.count() % BLOCKS)?;
        sync_data(file)?;
        latencies.add(start.elapsed());
    }
    Ok(latencies)
}

fn judge(median: Duration, worst: Duration, count: u64) -> Finding {
    let finding = format!("median {median:.1?}, worst {worst:.1?}, of {count} writes of 4 KiB");
    if median < FLUSH_TOO_FAST {
        return Finding::new(
            Level::Warning,
            SUBJECT,
            format!("{finding}: faster than any medium can write"),
            "make sure that its cache keeps its power, or, in a virtual machine, that the host does not ignore flushes; else \
             nothing survives a power cut there",
        );
    }
    if median > SLOW_MEDIAN || worst > SLOW_WORST {
        return Finding::new(
            Level::Warning,
            SUBJECT,
            finding,
            "one producer waits this long for each confirmation; many at once share a sync; kifa bench tells more",
        );
    }
    Finding::ok(SUBJECT, finding)
}

/// A file that is gone when this is.
struct Scratch {
    file: File,
    /// Its name, where the file system has no files without one.
    path: Option<PathBuf>,
}

impl Scratch {
    fn create(dir: &Path) -> io::Result<Scratch> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{Mode, OFlags, open};
            let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
            if let Ok(file) = open(dir, flags, Mode::RUSR | Mode::WUSR) {
                return Ok(Scratch { file: file.into(), path: None });
            }
        }
        let name = format!("kifa-doctor-{:016x}.tmp", getrandom::u64().map_err(io::Error::other)?);
        let file = StoreDir::open(dir)?.create(&name)?;
        Ok(Scratch { file, path: Some(dir.join(name)) })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path)
        {
            crate::cli::complain(format_args!("cannot remove {}: {error}; remove it by hand", path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_fast_is_as_suspicious_as_too_slow() {
        let level =
            |median_us, worst_us| judge(Duration::from_micros(median_us), Duration::from_micros(worst_us), 9).level;
        assert_eq!((level(14, 100), level(200, 900_000)), (Level::Warning, Level::Ok));
        assert_eq!((level(60_000, 90_000), level(200, 1_100_000)), (Level::Warning, Level::Warning));
        let finding = judge(Duration::from_micros(250), Duration::from_micros(9300), 500).finding;
        assert_eq!(finding, "median 250.0µs, worst 9.3ms, of 500 writes of 4 KiB");
    }

    #[test]
    fn measuring_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        assert!(look(dir.path()).is_some());
        let named = Scratch { file: File::create(dir.path().join("x")).unwrap(), path: Some(dir.path().join("x")) };
        assert!(measure(&named.file).unwrap().count() > 0);
        drop(named);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

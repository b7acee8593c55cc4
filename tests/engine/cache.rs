//! What a log leaves in the page cache.

use std::fs::File;
use std::io::IoSliceMut;
use std::path::Path;

use kifa::Log;
use rustix::fs::{Advice, fadvise};
use rustix::io::{ReadWriteFlags, preadv2};

use crate::helper::*;

/// Pages of a file that are in the page cache, and all its pages; `None` where the file system cannot tell.
fn cached(path: &Path) -> Option<(u64, u64)> {
    let file = File::open(path).expect("it opens");
    // Or one page that is missed would bring its neighbours.
    fadvise(&file, 0, None, Advice::Random).expect("it takes advice");
    let pages = file.metadata().expect("it has a length").len() / 4096;
    let mut cached = 0;
    for page in 0..pages {
        let mut byte = [0];
        match preadv2(&file, &mut [IoSliceMut::new(&mut byte)], page * 4096, ReadWriteFlags::NOWAIT) {
            Ok(_) => cached += 1,
            Err(rustix::io::Errno::AGAIN) => {}
            Err(_) => return None,
        }
    }
    Some((cached, pages))
}

/// Catches a recovery whose memory grows with the segments it reads. That they are read through a part of the cache that is
/// used again and again is also why it keeps up with the device: see docs/performance.md.
#[test]
fn the_segments_that_recovery_read_do_not_stay_in_memory() {
    let dir = temp();
    let (running, killed) = (dir.path().join("running"), dir.path().join("killed"));
    let mut options = options();
    (options.segment_bytes, options.memtable_bytes) = (4 << 20, 16 << 20);
    let log = open(&running, options.clone());
    fill(&log, 0..9000, 1000);
    assert!(log.stats().expect("it answers").wal_segments >= 3, "the test needs two full segments");
    copy_dir(&running, &killed);
    log.close().expect("it closes");
    let full = [1, 2].map(|segment| killed.join(format!("wal/{segment:010}.wal")));
    for path in &full {
        // Only clean pages can be forgotten.
        File::open(path).and_then(|file| file.sync_all()).expect("it is durable");
    }
    let Some(before) = full.iter().map(|path| cached(path)).collect::<Option<Vec<_>>>() else {
        return println!("SKIPPED: this file system does not tell what is cached");
    };
    assert!(before.iter().all(|&(cached, pages)| cached > pages / 2), "{before:?}: the copy is in memory");

    let log = Log::open(&killed, options).expect("it recovers");

    assert_eq!(log.stats().expect("it answers").recovery.entries_replayed, 9000);
    for path in &full {
        let (cached, pages) = cached(path).expect("it told before");
        assert!(cached < pages / 10, "{cached} of {pages} pages of {} stay", path.display());
    }
    log.close().expect("it closes");
}

//! Each option has an effect, and one out of range is refused by name.

use std::time::Duration;

use kifa::{Error, IoBackend, Log, Options, Reader, SyncMethod};

use crate::helper::*;

#[test]
fn segment_size_is_the_length_of_the_files() {
    for segment_bytes in [1 << 20, (1 << 20) + 4096, 3 << 20] {
        let dir = temp();
        let mut options = options();
        options.segment_bytes = segment_bytes;
        let log = open(dir.path(), options);
        fill(&log, 0..2000, 1000);
        wait_until("spares are prepared", Duration::from_secs(20), || log.stats().unwrap().wal_spares == 2);
        let expected = 2_000_000_u64.div_ceil(segment_bytes);
        let live = log.stats().unwrap().wal_segments as u64;
        assert!((expected..=expected + 1).contains(&live), "{live} segments of {segment_bytes}");
        log.close().unwrap();
        for path in files(dir.path(), "wal", ".wal") {
            assert_eq!(path.metadata().unwrap().len(), segment_bytes, "{}", path.display());
        }
    }
}

#[test]
fn a_new_segment_size_takes_effect_in_an_old_store() {
    let dir = temp();
    open(dir.path(), tiny()).append(b"x").unwrap();
    let mut options = tiny();
    options.segment_bytes = 2 << 20;
    let log = open(dir.path(), options);
    fill(&log, 0..10_000, 1000);
    log.close().unwrap();
    let lengths: Vec<u64> =
        files(dir.path(), "wal", ".wal").iter().map(|path| path.metadata().unwrap().len()).collect();
    assert!(lengths.iter().all(|&bytes| bytes == 2 << 20), "{lengths:?}");
}

#[test]
fn a_full_memtable_becomes_a_table() {
    for (memtable_bytes, expected) in [(64 << 10, 8..=20), (512 << 10, 2..=4), (64 << 20, 0..=0)] {
        let dir = temp();
        let mut options = options();
        options.memtable_bytes = memtable_bytes;
        options.compaction_enabled = false;
        let log = open(dir.path(), options);
        for round in 0..100 {
            fill(&log, round * 10..round * 10 + 10, 1500);
        }
        settle(dir.path());
        let tables = log.stats().unwrap().tables;
        assert!(expected.contains(&tables), "{tables} tables with a memtable of {memtable_bytes}");
        assert_eq!(tables == 0, log.stats().unwrap().checkpoint_lsn.0 == 0);
        log.close().unwrap();
        assert_eq!(files(dir.path(), "sst", ".sst").len(), tables);
    }
}

/// Tables after 40 flushes and the merges they bring.
fn tables_after_flushes(change: impl FnOnce(&mut Options)) -> usize {
    let dir = temp();
    let mut options = tiny();
    change(&mut options);
    let log = open(dir.path(), options);
    for round in 0..40 {
        together(&log, round * 80..(round + 1) * 80, 1000);
        let flushed = || log.stats().unwrap().checkpoint_lsn.0 == (round + 1) * 80;
        wait_until("the memtable is flushed", Duration::from_secs(10), flushed);
    }
    settle(dir.path());
    let tables = log.stats().unwrap().tables;
    log.close().unwrap();
    assert_eq!(files(dir.path(), "sst", "").len(), tables, "merged tables are removed");
    assert!(read_all(dir.path()).iter().map(|entry| id_of(&entry.payload)).eq(0..3200));
    tables
}

#[test]
fn compaction_bounds_the_number_of_tables() {
    assert_eq!(tables_after_flushes(|options| options.compaction_enabled = false), 40);
    let eager = tables_after_flushes(|_| {});
    assert!(eager <= 6, "{eager} tables with threshold 2");
    let lazy = tables_after_flushes(|options| options.compaction_threshold = 16);
    assert!((9..=24).contains(&lazy), "{lazy} tables with threshold 16");
    assert_eq!(tables_after_flushes(|options| options.compaction_threshold = 64), 40);
}

#[test]
fn backend_and_sync_method_are_the_ones_asked_for() {
    for (backend, name) in [(IoBackend::Portable, "portable"), (IoBackend::Uring, "io_uring")] {
        for (method, shown) in [(SyncMethod::Linked, "linked"), (SyncMethod::Dsync, "dsync")] {
            if method == SyncMethod::Dsync && !cfg!(target_os = "linux") {
                println!("SKIPPED: RWF_DSYNC exists on Linux only");
                continue;
            }
            let dir = temp();
            let mut options = options();
            (options.io_backend, options.sync_method) = (backend, method);
            let log = match Log::open(dir.path(), options) {
                Ok(log) => log,
                Err(cause) if backend == IoBackend::Uring => {
                    println!("SKIPPED: io_uring: {cause}");
                    continue;
                }
                Err(cause) => panic!("{cause}"),
            };
            log.append(b"x").unwrap();
            let stats = log.stats().unwrap();
            assert_eq!((stats.io_backend, stats.sync_method), (name, method));
            log.close().unwrap();
            let stats = Reader::open(dir.path()).unwrap().stats().unwrap();
            assert_eq!((stats.io_backend, stats.sync_method), (name, shown));
        }
    }
}

#[test]
fn auto_comes_to_something() {
    let dir = temp();
    let log = open(dir.path(), options());
    assert_ne!(log.stats().unwrap().sync_method, SyncMethod::Auto);
    assert!(["io_uring", "portable"].contains(&log.stats().unwrap().io_backend));
}

#[test]
fn an_option_out_of_range_is_refused_by_name_value_and_range() {
    type Change = fn(&mut Options);
    let cases: [(Change, &[&str]); 9] = [
        (|o| o.segment_bytes = 4096, &["segment_bytes", "4096", "1048576", "1073741824"]),
        (|o| o.segment_bytes = 2 << 30, &["segment_bytes", "2147483648", "1048576", "1073741824"]),
        (|o| o.segment_bytes = (1 << 20) + 1, &["segment_bytes", "1048577", "multiple of 4096"]),
        (|o| o.memtable_bytes = 65_535, &["memtable_bytes", "65535", "65536", "1073741824"]),
        (|o| o.memtable_bytes = (1 << 30) + 1, &["memtable_bytes", "1073741825", "65536", "1073741824"]),
        (|o| o.channel_capacity = 0, &["channel_capacity", "0", "1", "65536"]),
        (|o| o.channel_capacity = 65_537, &["channel_capacity", "65537", "1", "65536"]),
        (|o| o.compaction_threshold = 1, &["compaction_threshold", "1", "2", "64"]),
        (|o| o.compaction_threshold = 65, &["compaction_threshold", "65", "2", "64"]),
    ];
    let dir = temp();
    for (change, words) in cases {
        let mut options = options();
        change(&mut options);
        let store = dir.path().join("store");
        let Err(Error::InvalidOption(what)) = Log::open(&store, options) else { panic!("{words:?} was accepted") };
        assert!(words.iter().all(|word| what.contains(word)), "{what}");
        assert!(!store.exists(), "nothing was created");
    }
}

#[test]
fn the_ends_of_every_range_are_accepted() {
    type Change = fn(&mut Options);
    let changes: [Change; 7] = [
        |o| o.segment_bytes = 1 << 20,
        |o| o.memtable_bytes = 65_536,
        |o| o.memtable_bytes = 1 << 30,
        |o| o.channel_capacity = 1,
        |o| o.channel_capacity = 65_536,
        |o| o.compaction_threshold = 2,
        |o| o.compaction_threshold = 64,
    ];
    for change in changes {
        let dir = temp();
        let mut options = options();
        change(&mut options);
        let log = open(dir.path(), options);
        log.append(b"x").unwrap();
        log.close().unwrap();
        assert_eq!(payloads(dir.path()), [b"x"]);
    }
}

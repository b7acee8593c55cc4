//! A store of format version 1, kept in the repository: what today's code must open for as long as it lives.
//!
//! It holds merged tables, an epoch that went on behind a clean close, a gap of normal mode, and an unclean end with a
//! group that nothing proves durable.

use std::fs;
use std::path::{Path, PathBuf};

use kifa::{FlushMode, GapCause, Log, Lsn, Notice, Reader, ScanRange};

use crate::helper::{append, contents, copy_dir, fill, open, options, payload, read_all, settle, temp, tiny};

const BYTES: usize = 100;
const ENTRIES: u64 = 2011;
/// Entries from this id on were written after the gap of 49 LSNs.
const AFTER_GAP: u64 = 2008;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

fn lsn_of(id: u64) -> u64 {
    if id < AFTER_GAP { id + 1 } else { id + 50 }
}

fn assert_holds_everything(dir: &Path, entries: u64) {
    let read = read_all(dir);
    assert_eq!(read.len() as u64, entries);
    for (id, entry) in (0..).zip(read) {
        assert_eq!((entry.lsn, entry.payload), (lsn_of(id), payload(id, BYTES)));
    }
}

#[test]
fn every_entry_of_a_version_1_store_is_read_as_it_was_written() {
    let dir = fixture();
    let before = contents(&dir);
    assert_holds_everything(&dir, ENTRIES);
    let reader = Reader::open(&dir).unwrap();
    let stats = reader.stats().unwrap();
    assert!(stats.tables > 0 && stats.memtable_entries > 0, "{stats:?}");
    let gap = stats.gaps[0];
    assert_eq!((stats.gaps.len(), gap.first, gap.last), (1, Lsn(AFTER_GAP + 1), Lsn(AFTER_GAP + 49)));
    assert_eq!(gap.cause, GapCause::UncleanNormal);
    let mut scan = reader.scan(ScanRange::default()).unwrap();
    while scan.next_entry().unwrap().is_some() {}
    assert!(scan.notices().contains(&Notice::Unconfirmed(Lsn(lsn_of(ENTRIES - 1)))), "{:?}", scan.notices());
    assert_eq!(contents(&dir), before, "reading changes nothing");
}

#[test]
fn a_version_1_store_goes_on() {
    let temp = temp();
    let dir = temp.path().join("store");
    copy_dir(&fixture(), &dir);
    let log = open(&dir, options());
    assert_eq!(log.stats().unwrap().recovery.entries_rewritten, 1);
    append(&log, ENTRIES..ENTRIES + 10, BYTES);
    log.close().unwrap();
    assert_holds_everything(&dir, ENTRIES + 10);
}

/// Makes the fixture anew: `cargo test --test engine -- --ignored make_the_fixture`. Only for a new format version, in a
/// directory of its own.
#[test]
#[ignore = "writes into the repository; run it by hand for a new format version"]
fn make_the_fixture() {
    let temp = temp();
    let (first, second) = (temp.path().join("first"), temp.path().join("second"));
    let log = open(&first, tiny());
    fill(&log, 0..2000, BYTES);
    while log.stats().unwrap().checkpoint_lsn < Lsn(1000) {
        std::thread::yield_now();
    }
    log.close().unwrap();
    let log = Log::open(&first, tiny()).unwrap();
    append(&log, 2000..2005, BYTES);
    log.close().unwrap();
    // A copy of a store in use is what a power cut leaves: nothing is in flight, and nothing says that it was closed.
    let mut normal = tiny();
    normal.flush_mode = FlushMode::Normal;
    let log = Log::open(&first, normal).unwrap();
    append(&log, 2005..AFTER_GAP, BYTES);
    log.sync().unwrap();
    copy_dir(&first, &second);
    drop(log);
    let log = Log::open(&second, tiny()).unwrap();
    append(&log, AFTER_GAP..ENTRIES, BYTES);
    settle(&second);
    let _ = fs::remove_dir_all(fixture());
    fs::create_dir_all(fixture().parent().unwrap()).unwrap();
    copy_dir(&second, &fixture());
    let _ = fs::remove_file(fixture().join("LOCK"));
    drop(log);
}

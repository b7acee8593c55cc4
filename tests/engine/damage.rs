//! Damage on disk is reported with file, place and LSN; nothing is changed; what is still good can be read.

use std::fs;
use std::path::{Path, PathBuf};

use kifa::{Damage, Error, Log, Reader};

use crate::child::Running;
use crate::helper::*;

fn damage(cause: &Error) -> &Damage {
    match cause {
        Error::Corrupt(damage) => damage,
        other => panic!("{other:?}"),
    }
}

/// Opening for writing is refused because of `file`, and changes nothing.
fn assert_refused(store: &Path, file: &str) -> Damage {
    // Whoever had the lock last is noted in it; that note is all that changes.
    fs::write(store.join("LOCK"), format!("{}\n", std::process::id())).unwrap();
    let before = contents(store);
    let refused = Log::open(store, tiny()).expect_err("a damaged store is not written to");
    assert_unchanged(&before, store);
    assert!(refused.to_string().contains(file), "{refused}");
    let found = damage(&refused).clone();
    assert_eq!(found.file, file);
    found
}

/// Reading yields `ids` and one error, about `file`; and changes nothing.
fn assert_readable(store: &Path, file: &str, ids: impl Iterator<Item = u64>) -> Damage {
    let before = contents(store);
    let (found, errors) = read_around_damage(store);
    assert_unchanged(&before, store);
    let errors: Vec<&Damage> = errors.iter().map(damage).collect();
    assert_eq!((errors.len(), &*errors[0].file), (1, file), "{errors:?}");
    let expected: Vec<u64> = ids.collect();
    assert_eq!(found, expected);
    errors[0].clone()
}

fn name(path: &Path, store: &Path) -> String {
    path.strip_prefix(store).unwrap().to_string_lossy().into_owned()
}

const TABLES: u64 = 5;
const PER_TABLE: u64 = 40;
const TOTAL: u64 = TABLES * PER_TABLE + 10;

/// Five tables of forty entries, and ten entries in the log.
fn store_with_tables(dir: &Path) -> (PathBuf, Vec<PathBuf>) {
    let store = dir.join("store");
    let mut options = tiny();
    options.compaction_enabled = false;
    let log = open(&store, options);
    for table in 0..TABLES {
        together(&log, table * PER_TABLE..(table + 1) * PER_TABLE, 4000);
        let flushed = || log.stats().unwrap().checkpoint_lsn.0 == (table + 1) * PER_TABLE;
        wait_until("the memtable is flushed", std::time::Duration::from_secs(10), flushed);
    }
    fill(&log, TABLES * PER_TABLE..TOTAL, 100);
    log.close().unwrap();
    let tables = files(&store, "sst", ".sst");
    assert_eq!(tables.len() as u64, TABLES);
    (store, tables)
}

#[test]
fn a_bad_table_block_hides_only_itself() {
    let dir = temp();
    let (store, tables) = store_with_tables(dir.path());
    let needle = payload(2 * PER_TABLE + 20, 4000);
    let at = find_in(&tables[2], &needle[8..100]).expect("entries that do not compress are stored plain");
    flip(&tables[2], at + 50);
    let before = contents(&store);
    let (found, errors) = read_around_damage(&store);
    assert_unchanged(&before, &store);
    assert_eq!(errors.len(), 1, "{errors:?}");
    let bad = damage(&errors[0]);
    assert_eq!(bad.file, name(&tables[2], &store));
    assert!((4096..=at as u64).contains(&bad.offset), "{bad:?}");
    let missing: Vec<u64> = (0..TOTAL).filter(|id| !found.contains(id)).collect();
    assert!(missing.contains(&(2 * PER_TABLE + 20)) && missing.len() < 20, "{missing:?}");
    assert_eq!(bad.lsn.unwrap().0, missing[0] + 1, "the error names the first LSN that is missing");
    assert!(missing.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(found.len() + missing.len(), TOTAL as usize);
}

/// A merge must not launder bad bytes into a good checksum, nor remove the file they are in.
#[test]
fn compaction_keeps_a_bad_block_bad() {
    let dir = temp();
    let (store, tables) = store_with_tables(dir.path());
    let at = find_in(&tables[2], &payload(2 * PER_TABLE + 20, 4000)[8..100]).unwrap();
    flip(&tables[2], at + 50);
    let bytes = fs::read(&tables[2]).unwrap();
    let log = open(&store, tiny());
    fill(&log, TOTAL..TOTAL + 500, 4000);
    settle(&store);
    log.close().unwrap();
    assert!(fs::read(&tables[2]).unwrap() == bytes, "the damaged file is kept as it is");
    let (found, errors) = read_around_damage(&store);
    assert_eq!((errors.len(), &damage(&errors[0]).file), (1, &name(&tables[2], &store)));
    assert!(!found.contains(&(2 * PER_TABLE + 20)));
    assert!(found.ends_with(&(TOTAL..TOTAL + 500).collect::<Vec<_>>()));
}

#[test]
fn a_table_that_cannot_be_opened_hides_only_itself() {
    let length = |path: &Path| path.metadata().unwrap().len() as usize;
    type Harm = fn(&Path, usize);
    let harms: [(&str, Harm, bool); 6] = [
        ("deleted", |path, _| fs::remove_file(path).unwrap(), true),
        ("truncated", |path, bytes| fs::write(path, &fs::read(path).unwrap()[..bytes - 4096]).unwrap(), true),
        ("empty", |path, _| fs::write(path, b"").unwrap(), true),
        ("header", |path, _| flip(path, 20), false),
        ("index", |path, bytes| flip(path, bytes - 4096 - 1), false),
        ("footer", |path, bytes| flip(path, bytes - 4096 + 20), false),
    ];
    for (what, harm, is_refused) in harms {
        let dir = temp();
        let (store, tables) = store_with_tables(dir.path());
        println!("{what}");
        harm(&tables[2], length(&tables[2]));
        let file = name(&tables[2], &store);
        // Without its header, index or footer, the table's blocks are found one by one.
        let is_lost = ["deleted", "empty"].contains(&what);
        let ids = (0..TOTAL).filter(|id| !is_lost || !(2 * PER_TABLE..3 * PER_TABLE).contains(id));
        let bad = assert_readable(&store, &file, ids);
        if is_refused {
            assert_eq!(bad.lsn.map(|lsn| lsn.0), Some(2 * PER_TABLE + 1), "{what}");
            assert_refused(&store, &file);
        }
    }
}

/// Ten entries, each in a group of its own, closed or killed.
fn store_of_groups(dir: &Path, closed: bool, idle: bool) -> PathBuf {
    let (store, out) = (dir.join("store"), dir.join("out"));
    if closed {
        let log = open(&store, options());
        append(&log, 0..10, 500);
        log.close().unwrap();
        return store;
    }
    let mut child = Running::start("hold", &store, &out, 10);
    child.wait_for(&out, 5);
    if idle {
        std::thread::sleep(std::time::Duration::from_millis(2500));
    }
    child.kill(&store);
    store
}

#[test]
fn a_group_that_was_provably_durable_is_corruption() {
    // Closed or killed; idle before that; the entry that is hit.
    for (closed, idle, id) in
        [(true, false, 2), (true, false, 9), (false, false, 2), (false, true, 9), (false, false, 0)]
    {
        let dir = temp();
        let store = store_of_groups(dir.path(), closed, idle);
        let (path, at) = find(&store, "wal", &payload(id, 500));
        flip(&path, at + 100);
        let file = name(&path, &store);
        let found = assert_refused(&store, &file);
        assert_eq!(found.lsn.map(|lsn| lsn.0), Some(id + 1), "{found:?}");
        assert!(found.offset <= at as u64 && at as u64 - found.offset < 4096, "{found:?}: the entry is at {at}");
        let told = assert_readable(&store, &file, (0..10).filter(|&other| other != id));
        assert_eq!((told.offset, told.lsn), (found.offset, found.lsn));
    }
}

#[test]
fn a_bad_group_header_is_corruption_too() {
    let dir = temp();
    let store = store_of_groups(dir.path(), true, false);
    let (path, at) = find(&store, "wal", &payload(4, 500));
    flip(&path, at / 4096 * 4096 + 20);
    let file = name(&path, &store);
    assert_eq!(assert_refused(&store, &file).lsn.map(|lsn| lsn.0), Some(5));
    assert_readable(&store, &file, 0..10);
}

/// Nothing proves the last group before a kill: it is a tear, and the log goes on in front of it.
#[test]
fn the_last_group_before_a_kill_is_cut() {
    let dir = temp();
    let store = store_of_groups(dir.path(), false, false);
    let (path, at) = find(&store, "wal", &payload(9, 500));
    flip(&path, at + 100);
    let log = open(&store, options());
    let recovery = log.stats().unwrap().recovery;
    assert!(!recovery.clean && recovery.bytes_cut > 0, "{recovery:?}");
    assert_eq!(log.append(&payload(9, 500)).unwrap().0, 10);
    log.close().unwrap();
    assert!(read_all(&store).iter().map(|entry| id_of(&entry.payload)).eq(0..10));
}

fn manifest(store: &Path) -> PathBuf {
    let mut found = files(store, "", "");
    found.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("MANIFEST-"));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_bad_manifest_is_corruption_for_writer_and_reader() {
    let dir = temp();
    let (store, _) = store_with_tables(dir.path());
    let path = manifest(&store);
    let file = name(&path, &store);
    for offset in [0, 8, 13, 20, 33, 41, 70, 113, 200] {
        flip(&path, offset);
        assert_refused(&store, &file);
        let refused = Reader::open(&store).unwrap_err();
        assert_eq!(damage(&refused).file, file, "byte {offset}");
        flip(&path, offset);
    }
    for bytes in [0, 50, 4000] {
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..bytes.min(300)]).unwrap();
        assert_refused(&store, &file);
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(read_all(&store).len() as u64, TOTAL);
}

#[test]
fn a_lost_manifest_is_corruption_not_a_new_store() {
    let dir = temp();
    let (store, _) = store_with_tables(dir.path());
    fs::remove_file(manifest(&store)).unwrap();
    let before = contents(&store);
    for refused in [Log::open(&store, tiny()).unwrap_err(), Reader::open(&store).unwrap_err()] {
        let message = refused.to_string();
        assert!(message.contains("manifest is missing"), "{message}");
        damage(&refused);
    }
    assert_unchanged(&before, &store);
}

/// Segments of 1 MiB that no table has made superfluous, and how many entries begin before each.
fn store_of_segments(dir: &Path) -> (PathBuf, Vec<PathBuf>, Vec<u64>) {
    let store = dir.join("store");
    let mut options = options();
    (options.segment_bytes, options.memtable_bytes) = (1 << 20, 64 << 20);
    let log = open(&store, options);
    let mut firsts = Vec::new();
    for id in 0..150 {
        fill(&log, id..id + 1, 30_000);
        if log.stats().unwrap().wal_segments > firsts.len() {
            firsts.push(id);
        }
    }
    log.close().unwrap();
    let mut segments = files(&store, "wal", ".wal");
    segments.retain(|path| is_active(path));
    assert!(segments.len() >= 4 && segments.len() == firsts.len(), "{segments:?} {firsts:?}");
    (store, segments, firsts)
}

#[test]
fn a_segment_missing_from_the_chain_is_corruption() {
    for lost in [0, 1, 2] {
        let dir = temp();
        let (store, segments, firsts) = store_of_segments(dir.path());
        fs::remove_file(&segments[lost]).unwrap();
        let file = name(&segments[lost], &store);
        assert_refused(&store, &file);
        let is_lost = |id: &u64| (firsts[lost]..firsts[lost + 1]).contains(id);
        assert_readable(&store, &file, (0..150).filter(|id| !is_lost(id)));
    }
}

#[test]
fn a_segment_of_the_chain_that_is_cut_short_or_headless_is_corruption() {
    type Harm = fn(&Path);
    // The groups in a segment without a header are found; what was cut off is gone.
    let harms: [(Harm, bool); 3] = [
        (|path| flip(path, 100), false),
        (|path| fs::write(path, &fs::read(path).unwrap()[..4096]).unwrap(), true),
        (|path| fs::write(path, b"").unwrap(), true),
    ];
    for (harm, is_lost) in harms {
        let dir = temp();
        let (store, segments, firsts) = store_of_segments(dir.path());
        harm(&segments[1]);
        let file = name(&segments[1], &store);
        assert_refused(&store, &file);
        let ids = (0..150).filter(|id| !is_lost || !(firsts[1]..firsts[2]).contains(id));
        assert_readable(&store, &file, ids);
    }
}

/// The chain cannot tell that there was a newer segment; what is left of that one can.
#[test]
fn the_newest_segment_without_its_header_is_corruption() {
    let dir = temp();
    let (store, segments, firsts) = store_of_segments(dir.path());
    let newest = segments.len() - 1;
    flip(&segments[newest], 100);
    let file = name(&segments[newest], &store);
    assert_eq!(assert_refused(&store, &file).lsn.map(|lsn| lsn.0), Some(firsts[newest] + 1));
    assert_readable(&store, &file, 0..150);
}

#[test]
fn a_bad_group_in_the_middle_of_the_chain_is_corruption() {
    let dir = temp();
    let (store, segments, firsts) = store_of_segments(dir.path());
    let id = firsts[2] - 1;
    let (path, at) = find(&store, "wal", &payload(id, 30_000)[..200]);
    assert_eq!(path, segments[1], "the last entry of the second segment");
    flip(&path, at + 10_000);
    let file = name(&path, &store);
    assert_eq!(assert_refused(&store, &file).lsn.map(|lsn| lsn.0), Some(id + 1));
    assert_readable(&store, &file, (0..150).filter(|&other| other != id));
}

/// Nothing in the segments that are left tells of one that is gone behind them; the manifest does.
#[test]
fn the_newest_segment_removed_by_hand_is_missed() {
    let dir = temp();
    let store = dir.path().join("one");
    let log = open(&store, options());
    append(&log, 0..10, 500);
    log.close().unwrap();
    let segment = files(&store, "wal", ".wal").into_iter().find(|path| is_active(path)).unwrap();
    fs::remove_file(&segment).unwrap();
    let file = name(&segment, &store);
    assert_refused(&store, &file);
    assert_readable(&store, &file, 0..0);

    let (store, segments, firsts) = store_of_segments(dir.path());
    let newest = segments.len() - 1;
    fs::remove_file(&segments[newest]).unwrap();
    let file = name(&segments[newest], &store);
    assert_refused(&store, &file);
    let (found, errors) = read_around_damage(&store);
    assert!(errors.iter().any(|cause| damage(cause).file == file), "{errors:?}");
    assert!(found.iter().copied().eq(0..found.len() as u64) && found.len() as u64 <= firsts[newest], "{found:?}");
    // The last groups before it may have been superseded in it; that is told, too.
    assert!(firsts[newest] - found.len() as u64 <= 2, "{} of {}", found.len(), firsts[newest]);
}

//! Files that are not the store's: never touched, and no obstacle.

use std::fs;
use std::path::Path;

use kifa::{Error, Log, Reader};

use crate::helper::*;

/// Appends enough for flushes, merges and segments used again, twice; returns the number of entries.
fn work(store: &Path, first: u64) -> u64 {
    for round in 0..2 {
        let log = open(store, tiny());
        fill(&log, first + round * 4000..first + (round + 1) * 4000, 1000);
        settle(store);
        log.close().unwrap();
    }
    first + 8000
}

fn assert_entries(store: &Path, count: u64) {
    assert!(read_all(store).iter().map(|entry| id_of(&entry.payload)).eq(0..count));
}

#[test]
fn foreign_files_stay_and_do_not_disturb() {
    let dir = temp();
    let (store, other) = (dir.path().join("store"), dir.path().join("other"));
    let count = work(&store, 0);
    work(&other, 500_000);
    let (segment, table) = (files(&other, "wal", ".wal").remove(0), files(&other, "sst", ".sst").remove(0));
    let live = files(&store, "wal", ".wal").into_iter().find(|path| is_active(path)).unwrap();

    let own = contents(&store);
    for sub in ["", "wal", "sst"] {
        fs::write(store.join(sub).join("notes.txt"), b"do not delete").unwrap();
        fs::create_dir(store.join(sub).join("somebody's")).unwrap();
        fs::write(store.join(sub).join("somebody's/file.wal"), b"x").unwrap();
    }
    fs::write(store.join("MANIFEST-old.bak"), b"x").unwrap();
    fs::copy(&live, store.join("wal/copy.wal")).unwrap();
    fs::copy(&segment, store.join("wal/0000000150.wal")).unwrap();
    fs::copy(&segment, store.join("wal/other.wal")).unwrap();
    fs::write(store.join("wal/0000000151.wal"), b"short").unwrap();
    fs::write(store.join("wal/0000000152.wal"), b"").unwrap();
    fs::create_dir(store.join("wal/0000000099.wal")).unwrap();
    fs::copy(&table, store.join("sst/0000009999.sst")).unwrap();
    fs::write(store.join("sst/0000009998.sst"), b"short").unwrap();
    fs::create_dir(store.join("sst/0000000999.sst")).unwrap();
    let mut foreign = contents(&store);
    foreign.retain(|name, _| !own.contains_key(name));
    assert_eq!(foreign.len(), 19);

    assert_entries(&store, count);
    let count = work(&store, count);
    assert_entries(&store, count);
    let after = contents(&store);
    for (name, bytes) in foreign {
        assert!(after.get(&name) == Some(&bytes), "{} was touched", name.display());
    }
}

/// Names that the store would use next are taken: by directories, which no header can tell apart.
#[test]
fn a_directory_under_a_name_of_ours_is_stepped_around() {
    let dir = temp();
    let store = dir.path().join("store");
    let log = open(&store, tiny());
    fill(&log, 0..10, 1000);
    log.close().unwrap();
    for number in 1..30 {
        for path in [format!("wal/{number:010}.wal"), format!("sst/{number:010}.sst")] {
            if !store.join(&path).exists() {
                fs::create_dir(store.join(path)).unwrap();
            }
        }
    }
    let count = work(&store, 10);
    assert_entries(&store, count);
}

/// A symbolic link is not a segment either. Stepping around it would lose the entries of one that stands for the newest
/// segment, so it is refused by name, whatever it leads to.
#[cfg(unix)]
#[test]
fn a_link_under_a_name_of_ours_is_refused_and_left_alone() {
    let dir = temp();
    let store = dir.path().join("store");
    let log = open(&store, tiny());
    fill(&log, 0..10, 1000);
    log.close().unwrap();
    let target = dir.path().join("target");
    fs::write(&target, b"somebody's").unwrap();
    for path in ["wal/0000000099.wal", "sst/0000000099.sst"] {
        let link = store.join(path);
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let before = contents(&store);
        let name = path.rsplit('/').next().unwrap();
        for refused in [Log::open(&store, tiny()).unwrap_err(), Reader::open(&store).unwrap_err()] {
            assert!(refused.to_string().contains(&format!("{name} is a symbolic link")), "{refused}");
        }
        assert_unchanged(&before, &store);
        fs::remove_file(&link).unwrap();
    }
    let newest = files(&store, "wal", ".wal").into_iter().rfind(|path| is_active(path)).unwrap();
    fs::rename(&newest, dir.path().join("newest")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("newest"), &newest).unwrap();
    assert!(Log::open(&store, tiny()).is_err(), "its entries would be lost");
    fs::remove_file(&newest).unwrap();
    fs::rename(dir.path().join("newest"), &newest).unwrap();
    assert_entries(&store, 10);
    assert_eq!(fs::read(&target).unwrap(), b"somebody's");
}

#[test]
fn a_copy_of_a_segment_under_a_name_of_ours_does_no_harm() {
    let dir = temp();
    let store = dir.path().join("store");
    let log = open(&store, options());
    fill(&log, 0..100, 1000);
    log.close().unwrap();
    let live = files(&store, "wal", ".wal").into_iter().find(|path| is_active(path)).unwrap();
    fs::copy(&live, store.join("wal/0000000077.wal")).unwrap();
    assert_entries(&store, 100);
    let log = open(&store, options());
    fill(&log, 100..200, 1000);
    log.close().unwrap();
    assert_entries(&store, 200);
    open(&store, options()).close().unwrap();
    assert_entries(&store, 200);
}

#[test]
fn a_directory_of_somebody_else_is_refused_and_left_alone() {
    let made: [fn(&Path); 5] = [
        |dir| fs::write(dir.join("notes.txt"), b"x").unwrap(),
        |dir| fs::create_dir(dir.join("photos")).unwrap(),
        |dir| fs::write(dir.join("wal"), b"a file, not a directory").unwrap(),
        |dir| fs::write(dir.join("MANIFEST-1"), b"of another program").unwrap(),
        |dir| {
            fs::create_dir(dir.join("wal")).unwrap();
            fs::write(dir.join("wal/000000000000000000000001.wal"), b"of another program").unwrap();
        },
    ];
    for make in made {
        let dir = temp();
        make(dir.path());
        let before = contents(dir.path());
        let refused = Log::open(dir.path(), options()).unwrap_err();
        assert!(matches!(refused, Error::NotAStore { .. } | Error::Corrupt(_)), "{refused:?}");
        let refused = Reader::open(dir.path()).unwrap_err();
        assert!(matches!(refused, Error::NotAStore { .. } | Error::Corrupt(_)), "{refused:?}");
        assert_unchanged(&before, dir.path());
    }
}

#[test]
fn a_directory_that_holds_only_what_a_daemon_expects_becomes_a_store() {
    let dir = temp();
    fs::write(dir.path().join("kifa.toml"), b"").unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    open(dir.path(), options()).append(b"x").unwrap();
    assert_eq!(payloads(dir.path()), [b"x"]);
    assert_eq!(fs::read(dir.path().join("kifa.toml")).unwrap(), b"");
}

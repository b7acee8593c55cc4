//! A store can be copied, moved and renamed; a copy in use never touches the original.

use std::fs;

use crate::helper::*;

#[test]
fn using_a_copy_leaves_the_original_alone() {
    let dir = temp();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let log = open(&a, tiny());
    fill(&log, 0..1000, 1000);
    log.close().unwrap();
    copy_dir(&a, &b);
    let original = contents(&a);

    let log = open(&b, tiny());
    fill(&log, 1000..3000, 1000);
    log.close().unwrap();
    assert_unchanged(&original, &a);

    let copy = contents(&b);
    let log = open(&a, tiny());
    fill(&log, 5000..6000, 1000);
    log.close().unwrap();
    assert_unchanged(&copy, &b);

    let ids = |path| read_all(path).iter().map(|entry| id_of(&entry.payload)).collect::<Vec<_>>();
    assert!(ids(&a).into_iter().eq((0..1000).chain(5000..6000)));
    assert!(ids(&b).into_iter().eq(0..3000));
}

#[test]
fn a_copy_may_be_used_beside_the_original() {
    let dir = temp();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    open(&a, options()).append(&payload(0, 100)).unwrap();
    copy_dir(&a, &b);
    let (log_a, log_b) = (open(&a, options()), open(&b, options()));
    for id in 1..50 {
        log_a.append(&payload(id, 100)).unwrap();
        log_b.append(&payload(1000 + id, 100)).unwrap();
    }
    log_a.close().unwrap();
    log_b.close().unwrap();
    assert!(read_all(&a).iter().map(|entry| id_of(&entry.payload)).eq(0..50));
    assert!(read_all(&b).iter().map(|entry| id_of(&entry.payload)).eq((0..1).chain(1001..1050)));
}

#[test]
fn a_moved_and_renamed_store_opens() {
    let dir = temp();
    let (before, after) = (dir.path().join("before"), dir.path().join("elsewhere/naïve name"));
    let log = open(&before, tiny());
    fill(&log, 0..2000, 500);
    log.close().unwrap();
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    fs::rename(&before, &after).unwrap();
    assert_eq!(read_all(&after).len(), 2000);
    let log = open(&after, tiny());
    fill(&log, 2000..4000, 500);
    log.close().unwrap();
    assert!(read_all(&after).iter().map(|entry| id_of(&entry.payload)).eq(0..4000));
    assert!(!before.exists());
}

/// A backup by hard links must not change when segments are used again.
#[cfg(unix)]
#[test]
fn a_linked_segment_is_never_written_again() {
    let dir = temp();
    let (store, backup) = (dir.path().join("store"), dir.path().join("backup"));
    let log = open(&store, tiny());
    fill(&log, 0..100, 200);
    log.close().unwrap();
    fs::create_dir(&backup).unwrap();
    for path in files(&store, "wal", ".wal").into_iter().filter(|path| is_active(path)) {
        fs::hard_link(&path, backup.join(path.file_name().unwrap())).unwrap();
    }
    let log = open(&store, tiny());
    fill(&log, 100..105, 200);
    log.close().unwrap();
    let before = contents(&backup);
    let log = open(&store, tiny());
    // The segment goes on to its end first, and that is as it should be; what was in it stays.
    fill(&log, 105..10_000, 1000);
    log.close().unwrap();
    for (name, bytes) in before {
        let (before, after) = (bytes.unwrap(), fs::read(backup.join(&name)).unwrap());
        let used = before.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        assert!(before[..used] == after[..used], "{} was used again", name.display());
    }
}

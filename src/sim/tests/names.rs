//! Which names a cut leaves.

use super::super::{Fault, FaultKind, OpClass};
use super::*;

fn rename(from: &str, to: &str) -> Op {
    Op::Rename { from: from.into(), to: to.into() }
}

/// A machine with the durable directories `x` and `y`.
fn with_dirs(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    let mut hand = Hand::new(&disk);
    hand.ok(Op::MakeDir { path: "x".into() });
    hand.ok(Op::MakeDir { path: "y".into() });
    hand.sync_dir("");
    disk
}

/// The files of every machine that may be left, sorted and each once.
fn listings(disk: &SimDisk, names: NameCut) -> Vec<Vec<String>> {
    let mut all: Vec<_> = every_cut(disk, Grain::Block, names).iter().map(SimDisk::files).collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn a_name_is_lost_without_a_directory_sync() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    let file = hand.create("a");
    hand.ok(write(file, 0, b"1", Durability::File));
    hand.ok(Op::SyncData { file });
    assert_eq!(dropped(&disk, "a"), None, "syncing the data does not store the name");
    assert_eq!(kept(&disk, "a"), Some(blocks(b"1")));
    let next = disk.kill(0);
    Hand::new(&next).sync_dir("");
    assert_eq!(dropped(&next, "a"), Some(blocks(b"1")));
}

#[test]
fn an_unlink_may_come_undone_until_its_directory_is_synced() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    hand.durable("a", b"1");
    hand.ok(Op::Unlink { path: "a".into() });
    assert_eq!(disk.read_file("a"), None);
    assert_eq!(listings(&disk, NameCut::Ordered), [vec![], vec!["a".to_owned()]]);
    assert_eq!(dropped(&disk, "a"), Some(blocks(b"1")));
    let next = disk.kill(0);
    Hand::new(&next).sync_dir("");
    assert_eq!(dropped(&next, "a"), None);
}

#[test]
fn a_directory_is_lost_with_all_its_files_until_its_parent_is_synced() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    hand.ok(Op::MakeDir { path: "x".into() });
    hand.ok(Op::MakeDir { path: "x".into() });
    hand.durable("x/a", b"1");
    assert_eq!(dropped(&disk, "x/a"), None);
    assert_eq!(kept(&disk, "x/a"), Some(blocks(b"1")));
    let next = disk.kill(0);
    Hand::new(&next).sync_dir("");
    assert_eq!(dropped(&next, "x/a"), Some(blocks(b"1")));
}

#[test]
fn a_rename_over_a_file_is_atomic() {
    for names in [NameCut::Ordered, NameCut::Any] {
        let disk = SimDisk::new(1);
        let mut hand = Hand::new(&disk);
        hand.durable("a", b"1");
        hand.durable("b", b"2");
        hand.ok(rename("b", "a"));
        let mut found = Vec::new();
        for next in every_cut(&disk, Grain::Block, names) {
            found.push((next.read_file("a").expect("one of the two is there"), next.read_file("b")));
        }
        found.sort();
        assert_eq!(found, [(blocks(b"1"), Some(blocks(b"2"))), (blocks(b"2"), None)]);
    }
}

#[test]
fn a_rename_across_directories_needs_both_synced() {
    for order in [["x", "y"], ["y", "x"]] {
        let disk = with_dirs(1);
        let mut hand = Hand::new(&disk);
        hand.durable("x/a", b"1");
        hand.ok(rename("x/a", "y/b"));
        hand.sync_dir(order[0]);
        let both = [vec!["x/a".to_owned()], vec!["y/b".to_owned()]];
        assert_eq!(listings(&disk, NameCut::Ordered), both);
        assert_eq!(listings(&disk, NameCut::Any).len(), 3, "the harsher mode may leave both names, never none");
        let next = disk.kill(0);
        Hand::new(&next).sync_dir(order[1]);
        assert_eq!(dropped(&next, "y/b"), Some(blocks(b"1")));
        assert_eq!(kept(&next, "x/a"), None);
    }
}

#[test]
fn a_new_file_under_a_moved_name_takes_the_move_along() {
    let disk = with_dirs(1);
    let mut hand = Hand::new(&disk);
    hand.durable("x/a", b"1");
    hand.ok(rename("x/a", "y/b"));
    hand.durable("x/a", b"2");
    let next = disk.cut(CutChoice::DropAll);
    assert_eq!((next.read_file("x/a"), next.read_file("y/b")), (Some(blocks(b"2")), Some(blocks(b"1"))));
}

#[test]
fn an_ordered_cut_keeps_a_prefix_per_directory() {
    let disk = with_dirs(1);
    let mut hand = Hand::new(&disk);
    for path in ["x/1", "x/2", "y/1"] {
        hand.create(path);
    }
    let ordered = listings(&disk, NameCut::Ordered);
    assert_eq!(ordered.len(), 6);
    assert!(ordered.iter().all(|files| !files.contains(&"x/2".into()) || files.contains(&"x/1".into())));
    assert_eq!(listings(&disk, NameCut::Any).len(), 8);
}

#[test]
fn what_follows_a_lost_rename_is_lost_in_both_its_directories() {
    let disk = with_dirs(1);
    let mut hand = Hand::new(&disk);
    hand.durable("x/a", b"1");
    hand.ok(rename("x/a", "y/b"));
    hand.create("x/c");
    hand.create("y/d");
    let ordered = listings(&disk, NameCut::Ordered);
    assert_eq!(ordered.len(), 5);
    let moved = |files: &&Vec<String>| files.contains(&"y/b".into());
    assert_eq!(ordered.iter().filter(moved).count(), 4);
}

#[test]
fn any_change_that_makes_no_sense_alone_is_lost_with_what_it_needs() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    hand.create("a.tmp");
    hand.ok(rename("a.tmp", "a"));
    let all: [Vec<String>; 3] = [vec![], vec!["a".into()], vec!["a.tmp".into()]];
    assert_eq!(listings(&disk, NameCut::Any), all);
}

#[test]
fn after_a_failed_directory_sync_later_ones_succeed_and_lie() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    hand.create("a");
    disk.fail(Fault::nth(OpClass::SyncDir, 1, FaultKind::Eio));
    assert!(hand.run(Op::SyncDir { path: "".into() }).is_err());
    hand.sync_dir("");
    assert_eq!(dropped(&disk, "a"), None);
    assert_eq!(disk.read_file("a"), Some(Vec::new()));
    let rebooted = disk.cut(CutChoice::KeepAll);
    let mut hand = Hand::new(&rebooted);
    hand.create("b");
    hand.sync_dir("");
    assert_eq!(dropped(&rebooted, "b"), Some(Vec::new()), "a boot ends it");
}

#[test]
fn a_directory_sync_covers_a_prefix_of_what_was_not_reported_before_it() {
    let mut seen = Vec::new();
    for seed in 0..64 {
        let disk = SimDisk::new(seed);
        let mut hand = Hand::new(&disk);
        hand.create("0");
        hand.submit(Op::Create { path: "1".into() });
        hand.submit(Op::SyncDir { path: "".into() });
        hand.finish();
        let files = disk.cut(CutChoice::DropAll).files();
        assert_eq!(files[0], "0");
        seen.push(files.len());
    }
    assert!(seen.contains(&1) && seen.contains(&2), "{seen:?}");
}

#[test]
fn names_are_refused_as_a_file_system_would() {
    let disk = with_dirs(1);
    let mut hand = Hand::new(&disk);
    hand.durable("x/a", b"1");
    let mut kind = |op| hand.run(op).unwrap_err().kind();
    assert_eq!(kind(Op::Create { path: "x/a".into() }), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(Op::Create { path: "z/a".into() }), io::ErrorKind::NotFound);
    assert_eq!(kind(Op::Create { path: "x/..".into() }), io::ErrorKind::InvalidInput);
    assert_eq!(kind(Op::Open { path: "x".into() }), io::ErrorKind::IsADirectory);
    assert_eq!(kind(Op::Open { path: "x/b".into() }), io::ErrorKind::NotFound);
    assert_eq!(kind(Op::Unlink { path: "y".into() }), io::ErrorKind::IsADirectory);
    assert_eq!(kind(Op::MakeDir { path: "x/a".into() }), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(rename("x/b", "x/c")), io::ErrorKind::NotFound);
    assert_eq!(kind(Op::SyncDir { path: "x/a".into() }), io::ErrorKind::NotADirectory);
    assert!(disk.vfs().open("x").is_err() && disk.vfs().list("x/a").is_err());
    let names: Vec<(String, bool)> =
        disk.vfs().list("").unwrap().into_iter().map(|entry| (entry.name, entry.is_file)).collect();
    assert_eq!(names, [("x".to_owned(), false), ("y".to_owned(), false)]);
}

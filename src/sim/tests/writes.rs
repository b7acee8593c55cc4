//! Which writes a sync covers, and what a failed one leaves.

use super::super::{Fault, FaultKind, OpClass};
use super::*;

#[test]
fn an_unsynced_write_is_visible_and_lost() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"0");
    hand.ok(write(file, 0, b"1", Durability::None));
    assert_eq!(disk.read_file("a"), Some(blocks(b"1")));
    assert_eq!(dropped(&disk, "a"), Some(blocks(b"0")));
    assert_eq!(kept(&disk, "a"), Some(blocks(b"1")));
}

#[test]
fn a_data_sync_covers_every_write_reported_before_it() {
    let disk = SimDisk::new(2);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"0");
    hand.ok(write(file, 0, b"1", Durability::None));
    hand.ok(write(file, 3, b"4", Durability::None));
    hand.ok(Op::SyncData { file });
    assert_eq!(dropped(&disk, "a"), Some(blocks(b"1\0\x004")));
}

#[test]
fn own_durability_covers_its_write_and_no_other() {
    let disk = SimDisk::new(3);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"0000");
    hand.ok(write(file, 0, b"1", Durability::None));
    hand.ok(write(file, 2, b"3", Durability::Own));
    assert_eq!(dropped(&disk, "a"), Some(blocks(b"0030")));
}

#[test]
fn own_durability_covers_the_length_it_needs() {
    let disk = SimDisk::new(3);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"0");
    hand.ok(write(file, 1, b"1", Durability::None));
    hand.ok(write(file, 2, b"2", Durability::Own));
    hand.ok(write(file, 3, b"3", Durability::None));
    assert_eq!(dropped(&disk, "a"), Some(blocks(b"0\x002")));
}

#[test]
fn file_durability_covers_what_was_reported_before() {
    let disk = SimDisk::new(4);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"0000");
    hand.ok(write(file, 0, b"1", Durability::None));
    hand.ok(write(file, 2, b"3", Durability::File));
    assert_eq!(dropped(&disk, "a"), Some(blocks(b"1030")));
}

#[test]
fn a_sync_may_or_may_not_cover_what_was_not_reported_before_it() {
    let outcomes: Vec<bool> = (0..64)
        .map(|seed| {
            let disk = SimDisk::new(seed);
            let mut hand = Hand::new(&disk);
            let file = hand.durable("a", b"0");
            hand.submit(write(file, 0, b"1", Durability::None));
            hand.submit(Op::SyncData { file });
            assert!(hand.finish().iter().all(|done| done.outcome.is_ok()));
            dropped(&disk, "a") == Some(blocks(b"1"))
        })
        .collect();
    assert!(outcomes.contains(&true) && outcomes.contains(&false), "{outcomes:?}");
}

#[test]
fn a_durable_write_supersedes_the_older_one_under_it() {
    let disk = SimDisk::new(5);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"0");
    hand.ok(write(file, 0, b"1", Durability::None));
    hand.ok(write(file, 0, b"2", Durability::Own));
    for next in every_cut(&disk, Grain::Sector, NameCut::Ordered) {
        assert_eq!(next.read_file("a"), Some(blocks(b"2")));
    }
}

#[test]
fn after_a_failed_sync_later_ones_succeed_and_lie() {
    let disk = SimDisk::new(6);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"000");
    hand.ok(write(file, 0, b"1", Durability::None));
    disk.fail(Fault::nth(OpClass::Sync, 1, FaultKind::Eio));
    assert!(hand.run(Op::SyncData { file }).is_err());
    hand.ok(write(file, 1, b"2", Durability::None));
    hand.ok(Op::SyncData { file });
    assert_eq!(disk.read_file("a"), Some(blocks(b"120")), "readers are none the wiser");
    assert_eq!(dropped(&disk, "a"), Some(blocks(b"020")));
    assert_eq!(kept(&disk, "a"), Some(blocks(b"120")), "it may have reached the medium for all that");

    // A kill does not make it good either; writing it anew does.
    let next = disk.kill(0);
    let mut hand = Hand::new(&next);
    let file = FileId(hand.ok(Op::Open { path: "a".into() }));
    hand.ok(Op::SyncData { file });
    assert_eq!(dropped(&next, "a"), Some(blocks(b"020")));
    let next = disk.kill(0);
    let mut hand = Hand::new(&next);
    let file = FileId(hand.ok(Op::Open { path: "a".into() }));
    hand.ok(write(file, 0, b"1", Durability::Own));
    assert_eq!(dropped(&next, "a"), Some(blocks(b"120")));
}

#[test]
fn a_durable_write_whose_sync_fails_is_written_and_beyond_repair() {
    for durability in [Durability::Own, Durability::File] {
        let disk = SimDisk::new(7);
        let mut hand = Hand::new(&disk);
        let file = hand.durable("a", b"0");
        disk.fail(Fault::nth(OpClass::Sync, 1, FaultKind::Eio));
        assert!(hand.run(write(file, 0, b"1", durability)).is_err());
        hand.ok(Op::SyncData { file });
        assert_eq!(disk.read_file("a"), Some(blocks(b"1")));
        assert_eq!(dropped(&disk, "a"), Some(blocks(b"0")));
    }
}

#[test]
fn an_unfinished_write_may_be_seen_in_part() {
    let seen: Vec<Option<Vec<u8>>> = (0..64)
        .map(|seed| {
            let disk = SimDisk::new(seed);
            let mut hand = Hand::new(&disk);
            let file = hand.durable("a", b"0");
            hand.submit(write(file, 0, b"1", Durability::None));
            let seen = disk.read_file("a");
            assert_eq!(dropped(&disk, "a"), Some(blocks(b"0")));
            seen
        })
        .collect();
    let mixed = |bytes: &Vec<u8>| bytes.contains(&b'0') && bytes.contains(&b'1');
    assert!(seen.contains(&Some(blocks(b"0"))) && seen.iter().flatten().any(mixed));
}

#[test]
fn misaligned_writes_are_refused_as_direct_io_would() {
    let disk = SimDisk::new(8);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"0");
    for (offset, len) in [(1, BLOCK_BYTES), (0, 100), (0, 2 * BLOCK_BYTES)] {
        let buf = AlignedBuf::zeroed(BLOCK_BYTES);
        let err = hand.run(Op::Write { file, offset, buf, len, durability: Durability::None }).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::InvalidInput);
    }
    assert_eq!(disk.read_file("a"), Some(blocks(b"0")));
}

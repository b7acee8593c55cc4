//! Planted faults, limited space, and damage.

use super::super::{Fault, FaultKind, OpClass};
use super::*;

#[test]
fn the_nth_operation_of_a_class_fails() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"0");
    disk.fail(Fault::nth(OpClass::Write, 2, FaultKind::NoSpace));
    disk.fail(Fault::nth(OpClass::Unlink, 1, FaultKind::NoSpace));
    hand.ok(write(file, 0, b"1", Durability::None));
    let err = hand.run(write(file, 0, b"2", Durability::None)).unwrap_err();
    assert_eq!(err.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.read_file("a"), Some(blocks(b"1")));
    hand.ok(write(file, 0, b"3", Durability::None));
    assert!(hand.run(Op::Unlink { path: "a".into() }).is_err());
    assert_eq!(disk.files(), ["a"]);
    hand.ok(Op::Unlink { path: "a".into() });
}

#[test]
fn every_class_can_fail() {
    use OpClass::{Any, Create, Lookup, MakeDir, Mutating, Read, Rename, SyncDir, Unlink};
    type Make = fn() -> Op;
    let ops: [(OpClass, Make); 6] = [
        (Create, || Op::Create { path: "b".into() }),
        (Lookup, || Op::Open { path: "a".into() }),
        (Rename, || Op::Rename { from: "a".into(), to: "b".into() }),
        (Unlink, || Op::Unlink { path: "a".into() }),
        (MakeDir, || Op::MakeDir { path: "d".into() }),
        (SyncDir, || Op::SyncDir { path: String::new() }),
    ];
    for (class, op) in ops {
        for planted in [class, Any, Mutating] {
            let disk = SimDisk::new(1);
            let mut hand = Hand::new(&disk);
            hand.durable("a", b"0");
            disk.fail(Fault::nth(planted, 1, FaultKind::Eio));
            let reading = planted == Mutating && class == Lookup;
            assert_eq!(hand.run(op()).is_err(), !reading, "{class:?} {planted:?}");
        }
    }
    for planted in [Read, Any, Mutating] {
        let disk = SimDisk::new(1);
        Hand::new(&disk).durable("a", b"0");
        let reader = disk.vfs().open("a").unwrap();
        disk.fail(Fault::nth(planted, 1, FaultKind::Eio));
        assert_eq!(reader.read_at(&mut [0], 0).is_err(), planted != Mutating, "{planted:?}");
    }
}

#[test]
fn a_change_of_names_that_fails_may_have_been_done() {
    let done = |seed| {
        let disk = SimDisk::new(seed);
        disk.fail(Fault::nth(OpClass::Create, 1, FaultKind::Eio));
        assert!(Hand::new(&disk).run(Op::Create { path: "a".into() }).is_err());
        disk.files().len()
    };
    let seen: Vec<usize> = (0..16).map(done).collect();
    assert!(seen.contains(&0) && seen.contains(&1));
}

#[test]
fn a_write_error_leaves_any_sectors_written() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"0000");
    disk.fail(Fault::nth(OpClass::Write, 1, FaultKind::Eio));
    assert!(hand.run(write(file, 0, b"1111", Durability::Own)).is_err());
    let bytes = disk.read_file("a").unwrap();
    assert!(bytes.contains(&b'0') && bytes.contains(&b'1'));
    assert_eq!(dropped(&disk, "a"), Some(blocks(b"0000")), "its sync was not done");
}

#[test]
fn a_short_write_is_an_error_whatever_became_of_its_sync() {
    let mut synced = Vec::new();
    for seed in 0..16 {
        let disk = SimDisk::new(seed);
        let mut hand = Hand::new(&disk);
        let file = hand.durable("a", b"0000");
        disk.fail(Fault::nth(OpClass::Write, 1, FaultKind::ShortWrite));
        let err = hand.run(write(file, 0, b"1111", Durability::File)).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::WriteZero);
        let bytes = disk.read_file("a").unwrap();
        assert_ne!(bytes, blocks(b"1111"));
        let lost = dropped(&disk, "a").unwrap() == blocks(b"0000");
        synced.push(!lost && dropped(&disk, "a").unwrap() == bytes);
        assert!(lost || synced[synced.len() - 1]);
    }
    assert!(synced.contains(&true) && synced.contains(&false));
}

#[test]
fn reads_fail_and_flip_one_bit() {
    let disk = SimDisk::new(1);
    Hand::new(&disk).durable("a", b"0");
    let reader = disk.vfs().open("a").unwrap();
    let wrong_bits = |bytes: &[u8]| bytes.iter().map(|byte| (byte ^ b'0').count_ones()).sum::<u32>();
    for (kind, flipped) in [(FaultKind::FlipBit, Some(1)), (FaultKind::Eio, None)] {
        disk.fail(Fault::nth(OpClass::Read, 1, kind));
        let mut bytes = [0; BLOCK_BYTES];
        let read = reader.read_at(&mut bytes, 0);
        assert_eq!(read.ok().map(|_| wrong_bits(&bytes)), flipped);
    }
    assert_eq!(disk.read_file("a"), Some(blocks(b"0")), "the medium is sound");
    disk.fail(Fault::nth(OpClass::Lookup, 1, FaultKind::Eio).and_after());
    let vfs = disk.vfs();
    assert!(vfs.open("a").is_err() && vfs.list("").is_err() && vfs.metadata("a").is_err() && reader.bytes().is_err());
}

#[test]
fn a_fault_looks_at_its_path_only() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    let (a, b) = (hand.create("wal-a"), hand.create("sst-b"));
    disk.fail(Fault::nth(OpClass::Write, 1, FaultKind::Eio).on("sst"));
    hand.ok(write(a, 0, b"1", Durability::None));
    assert!(hand.run(write(b, 0, b"1", Durability::None)).is_err());
}

#[test]
fn space_is_limited_for_new_blocks_only() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    let (a, b) = (hand.create("a"), hand.create("b"));
    disk.set_space_bytes(Some(3 * BLOCK_BYTES as u64));
    hand.ok(write(a, 0, b"11", Durability::None));
    let err = hand.run(write(b, 0, b"22", Durability::None)).unwrap_err();
    assert_eq!(err.kind(), io::ErrorKind::StorageFull);
    hand.ok(write(b, 0, b"2", Durability::None));
    hand.ok(write(a, 0, b"33", Durability::Own));
    assert_eq!(disk.space_used_bytes(), 3 * BLOCK_BYTES as u64);

    hand.ok(Op::Unlink { path: "a".into() });
    assert!(hand.run(write(b, 1, b"2", Durability::None)).is_err(), "an open file keeps its space");
    hand.ok(Op::Close { file: a });
    hand.ok(write(b, 1, b"2", Durability::None));
    assert!(disk.cut(CutChoice::KeepAll).space_used_bytes() <= 3 * BLOCK_BYTES as u64);
}

#[test]
fn a_dead_process_holds_no_space() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    hand.durable("a", b"1");
    hand.ok(Op::Unlink { path: "a".into() });
    assert_eq!(disk.space_used_bytes(), BLOCK_BYTES as u64);
    let next = disk.kill(0);
    assert_eq!(next.space_used_bytes(), 0);
    assert_eq!(dropped(&next, "a"), Some(blocks(b"1")), "though the unlink may come undone");
}

#[test]
fn damage_reaches_the_medium_and_a_copy_is_apart() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    hand.durable("a", b"00");
    disk.write_file("d/e/foreign", b"not ours");
    disk.set_links_outside("a", 1);
    let copy = disk.copy_tree();
    disk.flip_bit("a", 5000, 1);
    disk.overwrite("a", 4095, b"xy");
    assert_eq!(disk.vfs().metadata("a").unwrap().links, 2);
    let next = disk.cut(CutChoice::DropAll);
    let mut damaged = blocks(b"00");
    damaged[5000] ^= 2;
    damaged[4095..4097].copy_from_slice(b"xy");
    assert_eq!(next.read_file("a"), Some(damaged));
    assert_eq!(next.vfs().metadata("a").unwrap().links, 2);
    next.truncate("a", 4097);
    next.overwrite("a", 4098, b"z");
    assert_eq!(next.read_file("a").unwrap()[4095..], *b"xy\0z");
    next.remove("d/e/foreign");
    assert_eq!(next.files(), ["a"]);

    assert_eq!(copy.files(), ["a", "d/e/foreign"]);
    assert_eq!(copy.vfs().metadata("a").unwrap().links, 1);
    let copied = copy.cut(CutChoice::DropAll);
    assert_eq!(copied.read_file("d/e/foreign"), Some(b"not ours".to_vec()));
    assert_eq!(copied.durable_file("a"), Some(blocks(b"00")));
}

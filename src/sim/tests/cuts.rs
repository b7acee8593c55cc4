//! What a power cut and a kill leave of writes, and that a life that is over is over.

use super::super::image::SECTOR_BYTES;
use super::super::{Fault, FaultKind, OpClass};
use super::*;
use crate::io::Env;

#[test]
fn every_subset_of_few_volatile_blocks_is_walked() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"000");
    hand.ok(write(file, 0, b"123", Durability::None));
    let mut found: Vec<Vec<u8>> = every_cut(&disk, Grain::Block, NameCut::Ordered)
        .iter()
        .map(|next| next.read_file("a").unwrap().chunks(BLOCK_BYTES).map(|block| block[0]).collect())
        .collect();
    found.sort();
    let all: [&[u8]; 8] = [b"000", b"003", b"020", b"023", b"100", b"103", b"120", b"123"];
    assert_eq!(found, all);
}

#[test]
fn every_subset_of_few_volatile_sectors_is_walked() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"0");
    hand.ok(write(file, 0, b"1", Durability::None));
    let mut found: Vec<Vec<u8>> =
        every_cut(&disk, Grain::Sector, NameCut::Ordered).iter().map(|next| next.read_file("a").unwrap()).collect();
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 256);
    assert!(
        found.iter().flat_map(|bytes| bytes.chunks(SECTOR_BYTES)).all(|one| one.iter().all(|byte| *byte == one[0]))
    );
}

#[test]
fn a_write_in_flight_may_survive_in_any_part() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"00");
    hand.submit(write(file, 0, b"12", Durability::Own));
    assert_eq!(disk.cut_count(Grain::Block, NameCut::Ordered), Some(4));
    assert_eq!(disk.cut_count(Grain::Sector, NameCut::Ordered), None, "16 sectors are too many");
    assert_eq!(dropped(&disk, "a"), Some(blocks(b"00")));
    assert_eq!(kept(&disk, "a"), Some(blocks(b"12")));
}

#[test]
fn a_change_of_names_in_flight_may_survive() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    hand.durable("a", b"1");
    hand.submit(Op::Rename { from: "a".into(), to: "b".into() });
    assert_eq!(disk.files(), ["a"]);
    assert_eq!(
        every_cut(&disk, Grain::Block, NameCut::Ordered).iter().map(SimDisk::files).collect::<Vec<_>>(),
        [["a"], ["b"]]
    );
}

#[test]
fn of_several_writes_to_a_block_any_or_none_survives() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"0");
    hand.ok(write(file, 0, b"1", Durability::None));
    hand.ok(write(file, 0, b"2", Durability::None));
    let found: Vec<_> =
        every_cut(&disk, Grain::Block, NameCut::Ordered).iter().map(|next| next.read_file("a").unwrap()).collect();
    assert_eq!(found, [blocks(b"0"), blocks(b"1"), blocks(b"2")]);
}

#[test]
fn a_length_may_survive_without_its_bytes_and_bytes_bring_theirs() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"0");
    hand.ok(write(file, 1, b"1", Durability::None));
    let mut found: Vec<_> =
        every_cut(&disk, Grain::Block, NameCut::Ordered).iter().map(|next| next.read_file("a").unwrap()).collect();
    found.sort();
    found.dedup();
    assert_eq!(found, [blocks(b"0"), blocks(b"0\0"), blocks(b"01")]);
}

#[test]
fn many_units_are_sampled_and_each_sample_is_reproducible() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", &[b'0'; 64]);
    hand.ok(write(file, 0, &[b'1'; 64], Durability::None));
    let choices: Vec<CutChoice> = disk.cut_variants(Grain::Sector, NameCut::Ordered, 40).collect();
    assert_eq!(choices.len(), 42);
    let contents = |choice: &CutChoice| disk.cut(*choice).read_file("a").unwrap();
    let found: Vec<_> = choices.iter().map(contents).collect();
    assert_eq!(found, choices.iter().map(contents).collect::<Vec<_>>());
    let torn = |bytes: &&Vec<u8>| bytes.contains(&b'0') && bytes.contains(&b'1');
    assert!(found.iter().filter(torn).count() > 10);
    assert_eq!((found[0].clone(), found[1].clone()), (blocks(&[b'0'; 64]), blocks(&[b'1'; 64])));
}

#[test]
fn a_life_that_is_over_completes_with_errors_and_changes_nothing() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"0");
    let reader = disk.vfs().open("a").unwrap();
    let before = hand.submit(write(file, 0, b"1", Durability::File));
    let next = disk.cut(CutChoice::DropAll);
    let after = hand.submit(write(file, 0, b"2", Durability::File));
    let (mut done, mut later) = (Vec::new(), Vec::new());
    hand.backend.poll(None, &mut done);
    hand.backend.poll(None, &mut later);
    assert!(disk.powered_off() && !next.powered_off());
    assert_eq!(done.iter().map(|done| done.id).collect::<Vec<_>>(), [before, after]);
    assert!(done.iter().all(|done| done.outcome.is_err()) && later.is_empty(), "each fails, once");
    assert!(reader.read_at(&mut [0; 8], 0).is_err() && reader.bytes().is_err());
    assert!(disk.vfs().open("a").is_err() && disk.vfs().list("").is_err() && disk.vfs().metadata("a").is_err());
    drop((hand, reader));
    assert_eq!(next.read_file("a"), Some(blocks(b"0")));
    assert_eq!(kept(&disk, "a"), Some(blocks(b"1")), "the stopped machine can be cut again, another way");
}

#[test]
fn power_off_at_an_operation_stops_it_and_everything_after() {
    let ops = {
        let disk = SimDisk::new(1);
        Hand::new(&disk).durable("a", b"1");
        disk.ops_total()
    };
    assert_eq!(ops, 3, "create, write, directory sync");
    for nth in 1..=ops {
        let disk = SimDisk::new(1);
        disk.power_off_at(nth);
        let mut hand = Hand::new(&disk);
        let mut file = FileId(0);
        for step in 1..=nth {
            assert!(!disk.powered_off());
            let id = hand.submit(match step {
                1 => Op::Create { path: "a".into() },
                2 => write(file, 0, b"1", Durability::Own),
                _ => Op::SyncDir { path: String::new() },
            });
            let done = hand.finish();
            assert_eq!(done.iter().any(|done| done.id == id), step < nth);
            file = done.first().map_or(file, |done| FileId(*done.outcome.as_ref().unwrap()));
        }
        assert!(disk.powered_off());
        assert_eq!(dropped(&disk, "a"), None);
        assert_eq!(kept(&disk, "a"), Some(if nth == 1 { Vec::new() } else { blocks(b"1") }));
    }
}

#[test]
fn a_kill_keeps_what_was_visible_and_keeps_it_volatile() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"00");
    hand.create("b");
    hand.ok(write(file, 0, b"1", Durability::None));
    let next = disk.kill(0);
    assert_eq!(next.files(), ["a", "b"]);
    assert_eq!(next.read_file("a"), Some(blocks(b"10")));
    assert_eq!(dropped(&next, "a"), Some(blocks(b"00")));
    assert_eq!(dropped(&next, "b"), None);
    let next = disk.kill(0);
    let mut hand = Hand::new(&next);
    let file = FileId(hand.ok(Op::Open { path: "a".into() }));
    hand.ok(Op::SyncData { file });
    assert_eq!(dropped(&next, "a"), Some(blocks(b"10")), "a sync by the next process covers it");
}

#[test]
fn a_kill_lets_operations_in_flight_happen_or_not() {
    let disk = SimDisk::new(9);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"0");
    let seen = disk.read_file("a");
    hand.submit(write(file, 0, b"1", Durability::Own));
    let seen_early = disk.read_file("a");
    let mut found: Vec<_> =
        (0..32).map(|seed| disk.kill(seed)).map(|next| (next.read_file("a"), dropped(&next, "a"))).collect();
    found.sort();
    found.dedup();
    let one = Some(blocks(b"1"));
    assert_eq!(found, [(seen_early, seen.clone()), (one.clone(), seen), (one.clone(), one)]);
}

#[test]
fn a_boot_restarts_monotonic_time_and_clears_faults() {
    let disk = SimDisk::new(1);
    disk.env().advance(1_000);
    disk.fail(Fault::nth(OpClass::Any, 1, FaultKind::Eio).and_after());
    let wall_ns = disk.env().wall_ns();
    let (killed, rebooted) = (disk.kill(0), disk.cut(CutChoice::DropAll));
    assert_eq!((killed.env().wall_ns(), killed.env().mono_ns()), (wall_ns, 1_000));
    assert_eq!((rebooted.env().wall_ns(), rebooted.env().mono_ns()), (wall_ns, 0));
    Hand::new(&killed).create("a");
    Hand::new(&rebooted).create("a");
}

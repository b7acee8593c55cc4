//! The queue: order of completions, waiting, waking, counting, and the same trace for the same seed.

use std::time::Duration;

use super::super::OpClass;
use super::*;
use crate::io::Env;

/// A run with choices in it: operations side by side, a reader, a kill, a cut.
fn history(seed: u64) -> (String, u64, Vec<Vec<u8>>) {
    let disk = SimDisk::new(seed);
    let mut hand = Hand::new(&disk);
    let files: Vec<FileId> = ["a", "b", "c"].into_iter().map(|path| hand.create(path)).collect();
    for round in 0..4 {
        for &file in &files {
            hand.submit(write(file, round, b"12", Durability::None));
            hand.submit(Op::SyncData { file });
        }
        hand.backend.poll(None, &mut Vec::new());
        assert!(disk.vfs().metadata("a").is_ok());
    }
    hand.sync_dir("");
    hand.submit(write(files[0], 0, b"3", Durability::Own));
    let killed = disk.kill(1);
    Hand::new(&killed).sync_dir("");
    let choice = CutChoice::Sampled { grain: Grain::Sector, names: NameCut::Any, seed: 5 };
    let next = killed.cut(choice);
    let contents = next.files().iter().map(|path| next.read_file(path).unwrap()).collect();
    (disk.trace_text() + &killed.trace_text() + &next.trace_text(), next.trace_hash(), contents)
}

#[test]
fn the_same_seed_gives_the_same_trace_and_bytes() {
    assert_eq!(history(11), history(11));
    let (text, hash, _) = history(11);
    let (other_text, other_hash, _) = history(12);
    assert_ne!((text, hash), (other_text, other_hash));
}

#[test]
fn operations_side_by_side_complete_in_any_order_each_once() {
    let mut orders = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let disk = SimDisk::new(seed);
        let mut hand = Hand::new(&disk);
        let mut ids: Vec<OpId> = (0..3).map(|n| hand.submit(Op::MakeDir { path: n.to_string() })).collect();
        let mut done = Vec::new();
        hand.backend.poll(None, &mut done);
        assert!(!done.is_empty(), "a poll completes at least one");
        let order: Vec<OpId> = done.into_iter().chain(hand.finish()).map(|done| done.id).collect();
        ids.sort_by_key(|id| order.iter().position(|other| other == id));
        assert_eq!(order, ids);
        orders.insert(order);
    }
    assert_eq!(orders.len(), 6);
}

#[test]
fn a_poll_with_nothing_in_flight_lets_its_timeout_pass_or_returns() {
    let disk = SimDisk::new(1);
    let mut backend = disk.backend();
    let (mut done, env) = (Vec::new(), disk.env());
    let wall_ns = env.wall_ns();
    backend.poll(Some(Duration::from_secs(1)), &mut done);
    backend.poll(None, &mut done);
    assert_eq!((env.mono_ns(), env.wall_ns()), (1_000_000_000, wall_ns + 1_000_000_000));
    backend.waker()();
    backend.poll(Some(Duration::from_secs(1)), &mut done);
    assert_eq!(env.mono_ns(), 1_000_000_000, "a wake ends the wait at once");
    backend.poll(Some(Duration::from_secs(1)), &mut done);
    assert_eq!(env.mono_ns(), 2_000_000_000, "and only one wait");
    assert!(done.is_empty());
}

#[test]
fn a_wake_may_come_before_the_completion() {
    let first_poll = |seed| {
        let disk = SimDisk::new(seed);
        let mut hand = Hand::new(&disk);
        hand.submit(Op::MakeDir { path: "x".into() });
        hand.backend.waker()();
        let mut done = Vec::new();
        hand.backend.poll(None, &mut done);
        done.len()
    };
    let seen: Vec<usize> = (0..16).map(first_poll).collect();
    assert!(seen.contains(&0) && seen.contains(&1));
}

#[test]
fn completions_take_time() {
    let disk = SimDisk::new(1);
    Hand::new(&disk).create("a");
    assert!((20_000..400_000).contains(&disk.env().mono_ns()));
}

#[test]
fn dropping_a_backend_waits_for_its_operations() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"0");
    hand.submit(write(file, 0, b"1", Durability::Own));
    drop(hand);
    assert_eq!(disk.in_flight(), 0);
    assert_eq!(dropped(&disk, "a"), Some(blocks(b"1")));
}

#[test]
fn two_backends_get_their_own_completions() {
    let disk = SimDisk::new(1);
    let (mut one, mut two) = (Hand::new(&disk), Hand::new(&disk));
    one.submit(Op::Create { path: "1".into() });
    two.submit(Op::Create { path: "2".into() });
    let mut done = Vec::new();
    one.backend.poll(None, &mut done);
    assert_eq!((done.len(), disk.in_flight()), (1, 1));
    two.backend.poll(None, &mut done);
    assert_eq!((done.len(), disk.in_flight()), (2, 0));
}

#[test]
fn reads_are_short_at_the_end_only() {
    let disk = SimDisk::new(1);
    Hand::new(&disk).durable("a", b"12");
    let reader = disk.vfs().open("a").unwrap();
    let read = |block: u64| {
        let mut bytes = vec![0; 4 * BLOCK_BYTES];
        let read = reader.read_at(&mut bytes, block * BLOCK_BYTES as u64).unwrap();
        bytes[..read].to_vec()
    };
    assert_eq!((read(0), read(1), read(2), read(9)), (blocks(b"12"), blocks(b"2"), vec![], vec![]));
    let mut bytes = [0; 100];
    assert_eq!((reader.read_at(&mut bytes, 8150).unwrap(), reader.bytes().unwrap()), (42, 8192));
    assert_eq!(bytes[..43], [[b'2'; 42].as_slice(), &[0]].concat());
}

#[test]
fn operations_are_counted_by_class() {
    let disk = SimDisk::new(1);
    let mut hand = Hand::new(&disk);
    let file = hand.durable("a", b"1");
    hand.ok(Op::SyncData { file });
    hand.ok(Op::Close { file });
    disk.vfs().open("a").unwrap().read_at(&mut [0], 0).unwrap();
    let counts = [OpClass::Any, OpClass::Mutating, OpClass::Write, OpClass::Sync, OpClass::Read, OpClass::Lookup];
    assert_eq!(counts.map(|class| disk.ops(class)), [6, 4, 1, 2, 1, 1]);
    assert_eq!((disk.ops_total(), disk.ops(OpClass::Create), disk.ops(OpClass::SyncDir)), (4, 1, 1));
    disk.note("the end");
    assert!(disk.trace_text().ends_with("= the end\n"));
}

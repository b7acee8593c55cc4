//! Two memtables on their way to tables: the second one never gets ahead of the first, and never takes its place.

use super::*;
use crate::options::Compression;
use crate::sim::{Fault, FaultKind, OpClass};

/// Entries of a block each make a memtable of about 36 KiB full, and its table as long.
fn small() -> Options {
    Options { memtable_bytes: 32 << 10, compression: Compression::None, ..cautious() }
}

const ENTRY_BYTES: usize = 3500;
const ROOM_FOR_ONE: u64 = 60 << 10;

/// Appends until this many memtables are frozen, the first of which cannot be flushed for a second.
fn freeze(life: &mut Life, memtables: usize) -> u64 {
    loop {
        let last = life.append_each(1, ENTRY_BYTES);
        if life.core.maintenance.frozen_memtables() == memtables {
            return last;
        }
    }
}

/// Last LSNs of the tables that have their name, in the order of their numbers.
fn named(life: &Life) -> Vec<u64> {
    let vfs = life.disk.vfs();
    let names = vfs.list("sst").expect("the disk lists").into_iter().map(|entry| entry.name);
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".sst")).collect();
    names.sort();
    names.iter().map(|name| name[..10].parse().expect("a table has a number")).collect()
}

/// The first table does not get its name at the first try. The second one is ready by then; with a name before it, or a
/// place in the manifest, it would let the log go that still holds what the first one is made of.
#[test]
fn a_table_waits_for_the_one_before_it() {
    let disk = SimDisk::new(1);
    let mut life = Life::open(&disk, small());
    disk.fail(Fault::nth(OpClass::Rename, 1, FaultKind::NoSpace).on("sst/"));
    let confirmed = freeze(&mut life, 2);
    let mut seen = 0;
    for _ in 0..3000 {
        life.step();
        let tables = life.core.manifest.current().tables.clone();
        let ends: Vec<(u64, u64)> = tables.iter().map(|table| (table.first_lsn.0, table.last_lsn.0)).collect();
        assert!(ends.first().is_none_or(|first| first.0 == 1), "{ends:?}");
        assert!(ends.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{ends:?}");
        let live: Vec<u64> = tables.iter().map(|table| table.id).collect();
        let ahead = named(&life).into_iter().filter(|id| !live.contains(id)).count();
        assert!(ahead <= 1, "a table is named while the one before it is not: {:?} of {live:?}", named(&life));
        seen = seen.max(live.len());
    }
    assert_eq!(seen, 2, "both are flushed");
    assert_survives(life, confirmed, "two tables");
}

/// There is room for one table, and the first one's first try fails. If the second one took the room meanwhile and kept
/// it until its turn, neither would ever be done.
#[test]
fn a_table_does_not_take_the_space_that_the_one_before_it_waits_for() {
    let disk = SimDisk::new(1);
    let mut life = Life::open(&disk, small());
    life.append_each(1, 10);
    life.wait_for_spares();
    disk.fail(Fault::nth(OpClass::Write, 1, FaultKind::NoSpace).on("sst/"));
    let confirmed = freeze(&mut life, 2);
    disk.set_space_bytes(Some(disk.space_used_bytes() + ROOM_FOR_ONE));
    life.run_for(5 * SECOND_NS);
    assert_eq!(life.core.manifest.current().tables.len(), 1, "the first one had room");
    disk.set_space_bytes(None);
    life.run_for(5 * SECOND_NS);
    assert_eq!(life.core.manifest.current().tables.len(), 2);
    assert_survives(life, confirmed, "two tables");
}

/// After a kill under load the log holds three memtables' entries, which are recovered into one. While that one is flushed,
/// another beside it would make five of what is bounded to three, and appends that go on.
#[test]
fn a_memtable_that_was_recovered_counts_for_as_many_as_it_is() {
    let disk = SimDisk::new(1);
    let mut life = Life::open(&disk, small());
    disk.fail(Fault::nth(OpClass::Rename, 1, FaultKind::NoSpace).on("sst/"));
    freeze(&mut life, 2);
    let disk = life.lose_all_but_the_durable();
    let mut life = Life::open(&disk, small());
    disk.fail(Fault::nth(OpClass::Rename, 1, FaultKind::NoSpace).on("sst/"));
    freeze(&mut life, 1);
    while life.core.memtable.bytes() < small().memtable_bytes {
        life.append_each(1, ENTRY_BYTES);
    }
    life.steps(20);
    assert_eq!(life.core.maintenance.frozen_memtables(), 1, "it is as long as two");
    let (seq, confirmed) = life.stage(1, ENTRY_BYTES);
    while !life.is_confirmed(seq) {
        life.step();
    }
    assert_survives(life, confirmed, "when it is flushed, appends go on");
}

/// Entries that are synced one by one take a block each, so segments fill up while the memtable stays small. It is frozen
/// for that once, not with each entry until the flush is done.
#[test]
fn many_segments_freeze_one_memtable() {
    let disk = SimDisk::new(1);
    let mut life = Life::open(&disk, cautious());
    disk.fail(Fault::nth(OpClass::Rename, 1, FaultKind::NoSpace).on("sst/"));
    while life.core.maintenance.frozen_memtables() == 0 {
        life.append_each(1, 10);
    }
    life.append_each(5, 10);
    assert_eq!(life.core.maintenance.frozen_memtables(), 1);
}

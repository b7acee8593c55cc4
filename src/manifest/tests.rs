//! Replacing the manifest on a disk that loses power, and what an open believes.

use std::rc::Rc;
use std::sync::Arc;

use super::*;
use crate::format::manifest::TableMeta;
use crate::format::{Gap, GapCause, StoreId};
use crate::reactor::helper::Inline;
use crate::reactor::open::{Ground, survey};
use crate::sim::{CutChoice, Fault, FaultKind, Grain, NameCut, OpClass, SimDisk};

const STORE: StoreId = StoreId([7; 16]);
const EDITS: u64 = 3;

fn ops_of(disk: &SimDisk) -> Rc<Ops> {
    Ops::new(disk.backend(), Arc::new(disk.env()), Box::new(Inline))
}

/// A disk with the first manifest, durable.
fn born(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.write_file(&path(1), &Manifest::birth(STORE).encode());
    disk
}

/// With the directories of a store, too.
fn born_with_dirs() -> SimDisk {
    let disk = born(1);
    for file in ["wal/passing", "sst/passing"] {
        disk.write_file(file, &[]);
        disk.remove(file);
    }
    disk
}

/// Edits that count up the next table's id; returns the newest generation that was reported durable.
fn edit_until_failure(disk: &SimDisk) -> (u64, Option<Error>) {
    let ops = ops_of(disk);
    let store = ManifestStore::new(Rc::clone(&ops), Manifest::birth(STORE));
    for _ in 0..EDITS {
        if let Err(cause) = ops.block_on(store.edit(|manifest| manifest.next_table_id += 1)) {
            return (store.current().generation, Some(cause));
        }
    }
    (store.current().generation, None)
}

/// The newest manifest on a disk, as an open finds it.
fn newest(disk: &SimDisk) -> Result<Option<Manifest>> {
    let found = find(&*disk.vfs()).expect("the directory can be listed");
    found.generations.last().map_or(Ok(None), |&generation| read(&*disk.vfs(), generation))
}

/// Power fails at every operation of a few edits, and anything may survive that is not durable. Then the newest manifest
/// is valid, and none older than the last that was believed: it names tables whose log was released since.
#[test]
fn at_every_cut_the_newest_manifest_is_valid_and_no_older_than_the_last_one_believed() {
    for seed in 0..4 {
        let whole = born(seed);
        assert_eq!(edit_until_failure(&whole).0, 1 + EDITS);
        for at in 1..=whole.ops(OpClass::Mutating) {
            let disk = born(seed);
            disk.power_off_at(at);
            let believed = edit_until_failure(&disk).0;
            let variants = disk.cut_variants(Grain::Sector, NameCut::Any, 16);
            for cut in [CutChoice::DropAll, CutChoice::KeepAll].into_iter().chain(variants) {
                let shown = format!("seed {seed}, power fails at {at}, {cut}");
                let manifest = newest(&disk.cut(cut)).unwrap_or_else(|cause| panic!("{shown}: {cause}"));
                let manifest = manifest.unwrap_or_else(|| panic!("{shown}: there is no manifest"));
                assert!(manifest.generation >= believed, "{shown}: {} after {believed}", manifest.generation);
                assert_eq!(manifest.next_table_id, manifest.generation, "{shown}");
            }
        }
    }
}

/// A sync that failed once is not done again: the edit fails, and the manifest before it stays in force.
#[test]
fn an_edit_whose_sync_fails_is_not_believed() {
    for class in [OpClass::Sync, OpClass::SyncDir] {
        let disk = born(1);
        disk.fail(Fault::nth(class, 2, FaultKind::Eio));
        let (believed, cause) = edit_until_failure(&disk);
        assert!(matches!(cause, Some(Error::Io { .. })), "{class:?}: {cause:?}");
        assert_eq!((believed, disk.ops(class)), (2, 2), "{class:?}: no third try");
    }
}

/// An older manifest may lie beside the newest. To fall back on it would bring entries back that are gone, and lose
/// those that are in tables it does not name.
#[test]
fn an_invalid_newest_manifest_is_damage_whatever_lies_beside_it() {
    let disk = born_with_dirs();
    let newer = Manifest { generation: 2, ..Manifest::birth(STORE) };
    disk.write_file(&path(2), &newer.encode());
    assert_eq!(newest(&disk).expect("it is valid").map(|manifest| manifest.generation), Some(2));
    disk.flip_bit(&path(2), 100, 3);
    assert!(matches!(newest(&disk), Err(Error::Corrupt(_))));
    let opened = crate::reactor::open::open(&ops_of(&disk), disk.vfs(), Default::default());
    assert!(matches!(opened.err(), Some(Error::Corrupt(_))));
    assert!(disk.read_file(&path(2)).is_some(), "what is damaged is kept");
}

#[test]
fn a_manifest_under_another_name_than_its_own_is_damage() {
    let disk = born(1);
    disk.write_file(&path(9), &Manifest::birth(STORE).encode());
    assert!(matches!(newest(&disk), Err(Error::Corrupt(_))));
}

/// Segments or tables without a manifest are a store that lost it, not an empty directory to begin a new one in.
#[test]
fn no_manifest_beside_data_is_damage() {
    for data in ["wal/0000000001.wal", "sst/0000000001.sst"] {
        let disk = SimDisk::new(1);
        disk.write_file(data, &[0; BLOCK_BYTES]);
        assert!(matches!(survey(&*disk.vfs()), Err(Error::Corrupt(_))), "{data}");
        disk.remove(data);
        assert!(matches!(survey(&*disk.vfs()), Ok(Ground::Empty)), "{data} is gone");
    }
}

fn table(first: u64, last: u64) -> TableMeta {
    TableMeta {
        id: first,
        first_lsn: Lsn(first),
        last_lsn: Lsn(last),
        min_timestamp_ns: 0,
        max_timestamp_ns: 0,
        entry_count: last - first + 1,
        file_bytes: 4096,
        checksum: 0,
    }
}

#[test]
fn floor_tables_and_gaps_must_join_up_to_the_checkpoint() {
    let gap = |first, last| Gap { first: Lsn(first), last: Lsn(last), cause: GapCause::UncleanNormal };
    let joins = |floor, tables: &[(u64, u64)], gaps: &[Gap], checkpoint| {
        check_join(&Manifest {
            floor_lsn: Lsn(floor),
            tables: tables.iter().map(|&(first, last)| table(first, last)).collect(),
            gaps: gaps.to_vec(),
            checkpoint_lsn: Lsn(checkpoint),
            ..Manifest::birth(STORE)
        })
        .is_ok()
    };
    assert!(joins(1, &[], &[], 0));
    assert!(joins(1, &[(1, 5), (6, 9)], &[], 9));
    assert!(joins(6, &[(6, 9)], &[], 9), "what lies below the floor is gone for good");
    assert!(joins(1, &[(1, 5), (55, 60)], &[gap(6, 54)], 60));
    assert!(joins(1, &[(1, 5)], &[gap(6, 54)], 54), "a gap at the end");
    assert!(!joins(1, &[(2, 5)], &[], 5), "the first table is missing");
    assert!(!joins(1, &[(1, 5), (7, 9)], &[], 9), "one in the middle");
    assert!(!joins(1, &[(1, 5)], &[], 9), "the last one");
    assert!(!joins(1, &[(1, 5), (56, 60)], &[gap(6, 54)], 60), "the gap is too short");
}

/// The check is made by every open.
#[test]
fn a_store_whose_tables_do_not_join_is_not_opened() {
    let disk = born_with_dirs();
    let holed = Manifest { generation: 2, checkpoint_lsn: Lsn(5), ..Manifest::birth(STORE) };
    disk.write_file(&path(2), &holed.encode());
    let opened = crate::reactor::open::open(&ops_of(&disk), disk.vfs(), Default::default());
    let cause = opened.err().map(|cause| cause.to_string()).unwrap_or_default();
    assert!(cause.contains("it names no table for LSNs 1 to 5"), "{cause}");
}

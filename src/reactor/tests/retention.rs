//! Retention: what is deleted was asked for, whole tables from the oldest on, and nothing else is missing afterwards.

use super::*;
use crate::format::Lsn;
use crate::format::manifest::Manifest;
use crate::manifest::reserve;
use crate::options::Compression;
use crate::query::Notice;
use crate::reactor::retain::Vacuum;
use crate::retention::Deleted;
use crate::sim::{Fault, FaultKind, OpClass};
use crate::sstable;
use crate::survey::store::How;

const HOUR_NS: u64 = 3600 * SECOND_NS;

/// Tables as long as what is in them.
fn plain() -> Options {
    Options { compression: Compression::None, ..cautious() }
}

/// Appends so many batches of ten entries; returns the last LSN.
fn append_tens(life: &mut Life, batches: usize) -> u64 {
    let mut confirmed = 0;
    for _ in 0..batches {
        let (seq, last) = life.stage(10, 1500);
        while !life.is_confirmed(seq) {
            life.step();
        }
        confirmed = last;
    }
    confirmed
}

/// Without merging, so that there are many tables.
fn unmerged() -> Options {
    Options { compaction_enabled: false, ..plain() }
}

/// A log with a dozen tables, its spares and its reserve.
fn grown(disk: &SimDisk, options: Options) -> (Life, u64) {
    let mut life = Life::open(disk, options);
    let confirmed = append_tens(&mut life, 40);
    life.rest();
    while !life.disk.files().iter().any(|file| file == reserve::NAME) {
        life.step();
    }
    life.run_for(SECOND_NS);
    (life, confirmed)
}

fn vacuum(life: &mut Life, vacuum: Vacuum) -> Deleted {
    match life.ask(Request::Vacuum(vacuum)) {
        Reply::Vacuumed(deleted) => *deleted,
        _ => unreachable!("a vacuum is answered with what it came to"),
    }
}

fn newest_manifest(disk: &SimDisk) -> Manifest {
    let found = crate::manifest::find(&*disk.vfs()).expect("the directory can be listed");
    let newest = *found.generations.last().expect("there is a manifest");
    crate::manifest::read(&*disk.vfs(), newest).expect("it is valid").expect("it is there")
}

fn table_files(disk: &SimDisk) -> usize {
    disk.files().iter().filter(|file| file.starts_with(sstable::DIR)).count()
}

/// Every LSN from the floor to `confirmed` is there, and whoever asks for more is told that it has expired.
fn assert_holds(disk: &SimDisk, floor: u64, confirmed: u64, what: &str) {
    assert_eq!(lsns(disk), (floor..=confirmed).collect::<Vec<_>>(), "{what}");
    let reader = Reader::of(disk.vfs(), false);
    let mut scan = reader.scan(ScanRange::default()).expect("the store is sound");
    while scan.next_entry().expect("the store is sound").is_some() {}
    let told = scan.notices().iter().any(
        |notice| matches!(notice, Notice::Expired { floor_lsn, until_ns } if *floor_lsn == Lsn(floor) && *until_ns > 0),
    );
    assert_eq!(told, floor > 1, "{what}");
    let stats = reader.stats().expect("the store is sound");
    assert_eq!((stats.floor_lsn, stats.expired.entries), (Lsn(floor), floor - 1), "{what}");
    let mut how = How {
        dir: std::path::Path::new("(simulated)"),
        is_writer_alive: &|| false,
        deep: true,
        progress: &mut |_, _| (),
    };
    let survey = crate::survey::store::take(&*disk.vfs(), &mut how).expect("the store can be read");
    assert!(survey.missing.is_empty() && survey.wounds.is_empty(), "{what}: {:?}", survey.missing);
}

#[test]
fn a_vacuum_deletes_the_oldest_tables_and_says_so_to_whoever_asks_for_them() {
    let (mut life, confirmed) = grown(&SimDisk::new(1), unmerged());
    let before = life.core.store_bytes();
    let goal = Vacuum { to_bytes: Some(before - 200_000), ..Vacuum::default() };
    let planned = vacuum(&mut life, Vacuum { dry_run: true, ..goal });
    assert_holds(&life.disk, 1, confirmed, "a dry run changes nothing");
    let deleted = vacuum(&mut life, goal);
    assert_eq!(planned, deleted);
    assert!(deleted.tables > 0 && deleted.bytes >= 200_000 && life.core.store_bytes() + 200_000 <= before);
    assert_eq!(deleted.entries, deleted.floor_lsn.0 - 1);
    assert_eq!(table_files(&life.disk), newest_manifest(&life.disk).tables.len());
    assert_eq!(vacuum(&mut life, goal), Deleted::of(&[], deleted.floor_lsn), "there is nothing more to do");
    let disk = life.lose_all_but_the_durable();
    assert_holds(&disk, deleted.floor_lsn.0, confirmed, "after a cut");
    let mut life = Life::open(&disk, unmerged());
    let confirmed = life.append_each(10, 100);
    assert_holds(&life.lose_all_but_the_durable(), deleted.floor_lsn.0, confirmed, "after another life");
}

#[test]
fn the_newest_table_stays_whatever_is_asked_for() {
    let (mut life, confirmed) = grown(&SimDisk::new(1), unmerged());
    let deleted = vacuum(&mut life, Vacuum { to_bytes: Some(0), not_before_ns: Some(u64::MAX), ..Vacuum::default() });
    let manifest = newest_manifest(&life.disk);
    assert_eq!((manifest.tables.len(), manifest.floor_lsn), (1, deleted.floor_lsn));
    assert_holds(&life.lose_all_but_the_durable(), deleted.floor_lsn.0, confirmed, "after a cut");
}

#[test]
fn by_age_only_what_is_older_goes() {
    let disk = SimDisk::new(1);
    let (mut life, first) = grown(&disk, unmerged());
    life.disk.env().advance(HOUR_NS);
    let bound_ns = life.disk.env().wall_ns();
    let confirmed = append_tens(&mut life, 20);
    life.rest();
    let deleted = vacuum(&mut life, Vacuum { not_before_ns: Some(bound_ns), ..Vacuum::default() });
    assert!(deleted.tables > 0 && deleted.floor_lsn.0 <= first + 1 && deleted.until_ns < bound_ns);
    assert_holds(&life.lose_all_but_the_durable(), deleted.floor_lsn.0, confirmed, "after a cut");
}

/// Not a byte is free, and none becomes free but by the deletion itself, which needs a new manifest for it.
#[test]
fn a_disk_without_a_free_byte_is_freed() {
    let (mut life, confirmed) = grown(&SimDisk::new(1), unmerged());
    life.disk.set_space_bytes(Some(life.disk.space_used_bytes()));
    let deleted = vacuum(&mut life, Vacuum { to_bytes: Some(0), ..Vacuum::default() });
    assert!(deleted.tables > 0);
    // The room that was made is the reserve's again, and the log's.
    life.run_for(3 * SECOND_NS);
    assert!(life.disk.files().iter().any(|file| file == reserve::NAME));
    assert!(newest_manifest(&life.disk).expired.tables > 0);
    let disk = life.lose_all_but_the_durable();
    disk.set_space_bytes(None);
    assert_holds(&disk, deleted.floor_lsn.0, confirmed, "after a cut");
}

/// What an interrupted edit has left in the reserve must not become a part of the next manifest.
#[test]
fn a_reserve_with_other_bytes_in_it_is_as_good() {
    let (mut life, confirmed) = grown(&SimDisk::new(1), unmerged());
    life.disk.write_file(reserve::NAME, &[0x5A; reserve::BYTES]);
    life.disk.set_space_bytes(Some(life.disk.space_used_bytes()));
    let deleted = vacuum(&mut life, Vacuum { to_bytes: Some(0), ..Vacuum::default() });
    let disk = life.lose_all_but_the_durable();
    disk.set_space_bytes(None);
    assert_holds(&disk, deleted.floor_lsn.0, confirmed, "after a cut");
}

/// Power fails at every operation of a vacuum, on a full disk and on one with room. Then either nothing has expired or
/// all of it, and the files that are left over go with the next open.
#[test]
fn at_every_cut_of_a_vacuum_the_store_holds_all_above_its_floor() {
    for is_full in [false, true] {
        let mut floors = std::collections::BTreeSet::new();
        for at in 1..60 {
            let (mut life, confirmed) = grown(&SimDisk::new(7), unmerged());
            if is_full {
                life.disk.set_space_bytes(Some(life.disk.space_used_bytes()));
            }
            life.disk.power_off_at(at);
            let goal = Vacuum { to_bytes: Some(0), ..Vacuum::default() };
            let asked = life.core.shared().request(Request::Vacuum(goal)).expect("the log is open");
            while !life.disk.powered_off() && asked.try_take().is_none() {
                life.step();
            }
            if !life.disk.powered_off() {
                break;
            }
            for keep in [false, true] {
                let disk = life.disk.cut(if keep { CutChoice::KeepAll } else { CutChoice::DropAll });
                let what = format!("full: {is_full}, cut at {at}, everything kept: {keep}");
                disk.set_space_bytes(None);
                let floor = newest_manifest(&disk).floor_lsn.0;
                floors.insert(floor);
                assert_holds(&disk, floor, confirmed, &what);
                drop(Life::open(&disk, unmerged()));
                assert_holds(&disk, floor, confirmed, &what);
                assert_eq!(table_files(&disk), newest_manifest(&disk).tables.len(), "{what}");
            }
        }
        assert_eq!(floors.len(), 2, "before and after: {floors:?}");
    }
}

/// Nothing but the limit makes room here: a log that only waited would wait for ever.
#[test]
fn on_a_full_disk_a_limit_of_free_space_keeps_the_log_going() {
    let options = Options { retention_min_free_bytes: Some(64 << 10), ..unmerged() };
    let (mut life, _) = grown(&SimDisk::new(1), options);
    life.disk.set_space_bytes(Some(life.disk.space_used_bytes()));
    let confirmed = append_tens(&mut life, 40);
    let floor = newest_manifest(&life.disk).floor_lsn.0;
    assert!(floor > 1);
    let disk = life.lose_all_but_the_durable();
    disk.set_space_bytes(None);
    let floor = newest_manifest(&disk).floor_lsn.0.max(floor);
    assert_holds(&disk, floor, confirmed, "after a cut");
}

#[test]
fn a_limit_of_size_keeps_the_store_below_it() {
    let max = 800 << 10;
    let options = Options { retention_max_bytes: Some(max), ..plain() };
    let (mut life, confirmed) = grown(&SimDisk::new(1), options);
    let confirmed = confirmed.max(append_tens(&mut life, 120));
    life.run_for(2 * SECOND_NS);
    assert!(life.core.store_bytes() <= max, "{} bytes", life.core.store_bytes());
    let floor = newest_manifest(&life.disk).floor_lsn.0;
    assert!(floor > 1 && floor < confirmed / 10 * 9, "{floor} of {confirmed}");
    let disk = life.lose_all_but_the_durable();
    assert_holds(&disk, newest_manifest(&disk).floor_lsn.0, confirmed, "after a cut");
}

/// A clock that was wrong for a moment must not delete what is young: age waits for a day without a step.
#[test]
fn age_waits_until_the_clock_is_proven() {
    let options = Options { retention_max_age: Some(Duration::from_secs(3600)), ..unmerged() };
    let (mut life, _) = grown(&SimDisk::new(1), options);
    life.disk.env().step_wall_ns(1_000 * HOUR_NS as i64);
    let floor = |life: &Life| newest_manifest(&life.disk).floor_lsn.0;
    let hours = |life: &mut Life, hours: u64| {
        for _ in 0..hours * 60 {
            life.disk.env().advance(60 * SECOND_NS);
            life.steps(3);
        }
    };
    hours(&mut life, 23);
    assert_eq!(floor(&life), 1, "an hour is missing");
    life.disk.env().step_wall_ns(10 * SECOND_NS as i64);
    hours(&mut life, 23);
    assert_eq!(floor(&life), 1, "there was a step");
    hours(&mut life, 2);
    assert!(floor(&life) > 1);
    assert_eq!(newest_manifest(&life.disk).tables.len(), 1);
}

/// A merge is under way, or waits for space, and its inputs are deleted. It gives up and leaves nothing behind; a merge
/// that went on would bring back what has expired, or wait on for room that it has no use for.
#[test]
fn a_merge_whose_input_is_deleted_gives_up() {
    for waits_for_space in [false, true] {
        let disk = SimDisk::new(3);
        let (life, confirmed) = grown(&disk, unmerged());
        drop(life);
        let mut life = Life::open(&disk, Options { compaction_enabled: true, ..unmerged() });
        if waits_for_space {
            disk.set_space_bytes(Some(disk.space_used_bytes()));
        }
        let is_merging = |life: &Life| life.core.maintenance.is_merging();
        while !is_merging(&life) {
            life.step();
        }
        life.steps(if waits_for_space { 20 } else { 1 });
        assert!(is_merging(&life), "it takes longer than that");
        let deleted = vacuum(&mut life, Vacuum { to_bytes: Some(0), ..Vacuum::default() });
        disk.set_space_bytes(None);
        life.run_for(2 * SECOND_NS);
        assert!(!is_merging(&life), "there is one table, or two");
        let manifest = newest_manifest(&disk);
        assert_eq!(table_files(&disk), manifest.tables.len(), "nothing is left of the merge");
        assert_eq!(manifest.floor_lsn, deleted.floor_lsn);
        assert_holds(&life.lose_all_but_the_durable(), manifest.floor_lsn.0, confirmed, "after a cut");
    }
}

/// The disk refuses to unlink what has expired. The store is sound, and the next open tries again.
#[test]
fn a_table_that_cannot_be_unlinked_is_not_asked_for_any_more() {
    let (mut life, confirmed) = grown(&SimDisk::new(1), unmerged());
    // What fails may have been done all the same: of several, one is left.
    life.disk.fail(Fault::nth(OpClass::Unlink, 1, FaultKind::Eio).on("sst/").and_after());
    let deleted = vacuum(&mut life, Vacuum { to_bytes: Some(0), ..Vacuum::default() });
    let left = table_files(&life.disk);
    let disk = life.lose_power();
    let tables = newest_manifest(&disk).tables.len();
    assert!(left > tables, "one is left");
    assert_holds(&disk, deleted.floor_lsn.0, confirmed, "with leftovers");
    drop(Life::open(&disk, unmerged()));
    assert_eq!(table_files(&disk), tables);
}

/// A reader is in the middle of the store when what lies before it and behind it expires: it goes on above the floor, in
/// both directions, and says what is missing.
#[test]
fn a_reader_beside_goes_on_above_the_floor() {
    for reverse in [false, true] {
        let (mut life, confirmed) = grown(&SimDisk::new(1), unmerged());
        let reader = Reader::of(life.disk.vfs(), true);
        let mut scan = reader.scan(ScanRange { reverse, ..ScanRange::default() }).expect("the store is sound");
        let mut found = Vec::new();
        for _ in 0..3 {
            found.push(scan.next_entry().expect("the store is sound").expect("there is one").lsn.0);
        }
        let floor = vacuum(&mut life, Vacuum { to_bytes: Some(0), ..Vacuum::default() }).floor_lsn.0;
        while let Some(entry) = scan.next_entry().expect("the store is sound") {
            found.push(entry.lsn.0);
        }
        assert!(scan.notices().iter().any(|notice| matches!(notice, Notice::Expired { .. })));
        let is_sorted = found.windows(2).all(|pair| if reverse { pair[0] > pair[1] } else { pair[0] < pair[1] });
        assert!(is_sorted && (floor..=confirmed).all(|lsn| found.contains(&lsn)), "{found:?}");
    }
}

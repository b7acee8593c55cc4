//! Rules of durability that no wrong entry gives away at once: each test here fails when its rule is taken out.

use std::collections::BTreeSet;

use super::*;
use crate::error::Error;
use crate::format::Lsn;
use crate::sim::{Fault, FaultKind, Grain, NameCut, OpClass};

/// Large enough for two groups in flight.
fn large() -> Options {
    Options { segment_bytes: 4 << 20, memtable_bytes: 4 << 20, ..cautious() }
}

const LARGE_ENTRY_BYTES: usize = 300 << 10;

/// Appends until a memtable is frozen and its table not yet written.
fn fill_memtable(life: &mut Life) {
    while life.core.maintenance.frozen_count() == 0 {
        life.append_each(1, 8000);
    }
}

/// Turns until the log fails; it is latched then, as its thread would do it.
fn fail(life: &mut Life, what: &str) -> Error {
    for _ in 0..20_000 {
        if let Err(cause) = life.core.turn() {
            life.core.fail(cause.clone());
            return cause;
        }
        life.ops.poll(life.core.next_wait());
    }
    panic!("{what}: the log goes on");
}

/// A group's write or its sync fails, or the write is short, while the group behind it succeeds. Neither may be confirmed:
/// the second would lie behind a hole. A sync that is tried again succeeds and lies.
#[test]
fn a_group_that_fails_fails_those_behind_it_and_nothing_is_tried_again() {
    let faults =
        [(OpClass::Sync, FaultKind::Eio), (OpClass::Write, FaultKind::Eio), (OpClass::Write, FaultKind::ShortWrite)];
    for (seed, (class, kind)) in (0..24).zip(faults.into_iter().cycle()) {
        let what = format!("seed {seed}, {kind:?} of {class:?}");
        let mut life = Life::open(&SimDisk::new(seed), large());
        let confirmed = life.append_each(1, 10);
        life.rest();
        life.disk.fail(Fault::nth(class, 1, kind));
        let (first, _) = life.stage(1, LARGE_ENTRY_BYTES);
        life.core.turn().expect("nothing is complete yet");
        let (second, _) = life.stage(1, LARGE_ENTRY_BYTES);
        life.core.turn().expect("nothing is complete yet");
        assert_eq!(life.core.in_flight.len(), 2, "{what}");
        let syncs = life.disk.ops(OpClass::Sync);
        fail(&mut life, &what);
        for seq in [first, second] {
            assert!(
                !matches!(life.core.shared().is_confirmed(seq, crate::format::Lsn(u64::MAX)), Ok(true)),
                "{what}: group {seq} is confirmed"
            );
        }
        let mut batch = Batch::new();
        batch.push(b"late").expect("the payload is short");
        assert!(life.core.shared().submit(&batch, false).is_err(), "{what}: more is accepted");
        assert_eq!(life.disk.ops(OpClass::Sync), syncs, "{what}: a sync is tried again");
        assert!(lsns(&life.lose_all_but_the_durable()).len() as u64 >= confirmed, "{what}");
    }
}

/// Completions come in any order. A group confirmed before the one in front of it would lie behind a hole after a cut.
#[test]
fn groups_are_confirmed_in_order_and_a_third_one_waits() {
    for seed in 0..24 {
        let mut life = Life::open(&SimDisk::new(seed), large());
        life.append_each(1, 10);
        life.rest();
        let mut staged = Vec::new();
        for _ in 0..3 {
            staged.push(life.stage(1, LARGE_ENTRY_BYTES).0);
            life.core.turn().expect("the log goes on");
        }
        assert_eq!(life.core.in_flight.len(), 2, "seed {seed}");
        while !life.is_confirmed(staged[2]) {
            life.step();
            let confirmed: Vec<bool> = staged.iter().map(|&seq| life.is_confirmed(seq)).collect();
            assert!(confirmed.is_sorted_by(|before, after| before >= after), "seed {seed}: {confirmed:?}");
            let unconfirmed = confirmed.iter().position(|&one| !one).unwrap_or(3) as u64;
            assert_eq!(life.core.wal.books.released_lsn, Lsn(1 + unconfirmed), "seed {seed}");
        }
    }
}

/// A failure that is not a full disk stops the log in every job: the table, the manifest, the names. A full disk does so
/// in the sync of a directory, of which there is no second try with a new one.
#[test]
fn a_failed_sync_in_the_background_stops_the_log() {
    let faults = [
        Fault::nth(OpClass::Sync, 1, FaultKind::Eio).on("sst/"),
        Fault::nth(OpClass::Sync, 1, FaultKind::Eio).on("MANIFEST"),
        Fault::nth(OpClass::SyncDir, 1, FaultKind::Eio).on("sst"),
        Fault::nth(OpClass::SyncDir, 1, FaultKind::NoSpace).on("sst"),
    ];
    for fault in faults {
        let what = format!("{fault:?}");
        let mut life = Life::open(&SimDisk::new(1), cautious());
        fill_memtable(&mut life);
        life.disk.fail(fault);
        fail(&mut life, &what);
        let confirmed = life.core.wal.books.released_lsn.0;
        assert_survives(life, confirmed, &what);
    }
}

/// The device returns other bytes than were written. The log behind the table must not be released.
#[test]
fn a_table_that_reads_back_wrong_is_not_built_upon() {
    let mut life = Life::open(&SimDisk::new(1), cautious());
    fill_memtable(&mut life);
    life.disk.fail(Fault::nth(OpClass::Read, 1, FaultKind::FlipBit).and_next().on("sst/"));
    let cause = fail(&mut life, "a flipped bit");
    assert!(matches!(cause, Error::Corrupt(_)), "{cause}");
    assert!(life.core.manifest.current().tables.is_empty());
    let confirmed = life.core.wal.books.released_lsn.0;
    assert_survives(life, confirmed, "a table reads back wrong");
}

/// A sector of an old table cannot be read any more when the table is to be merged. The log does not need it; a log that
/// stopped for it would stop again after every restart.
#[test]
fn an_input_of_a_merge_that_cannot_be_read_does_not_stop_the_log() {
    let options = Options { compaction_threshold: 2, ..cautious() };
    let mut unmerged = Vec::new();
    for nth in 1..=12 {
        let mut life = Life::open(&SimDisk::new(1), options.clone());
        while life.core.manifest.current().tables.is_empty() {
            life.append_each(1, 1500);
        }
        let table = life.core.manifest.current().tables[0].id;
        let reads = Fault::nth(OpClass::Read, nth, FaultKind::Eio).and_after();
        life.disk.fail(reads.on(&crate::sstable::path(table)));
        life.append_each(200, 1500);
        if life.core.manifest.current().tables.iter().any(|found| found.id == table) {
            unmerged.push(nth);
        }
    }
    assert!(unmerged.len() > 3, "the blocks were met, behind header, footer and index: {unmerged:?}");
}

/// Power fails, or the process is killed, when the table has its name and no manifest knows it. Its entries are in the
/// log as well; but a file is not removed because a manifest does not name it, only when a manifest supersedes it.
#[test]
fn a_table_that_no_manifest_names_stays_until_it_is_superseded() {
    let mut life = Life::open(&SimDisk::new(1), cautious());
    fill_memtable(&mut life);
    let table = loop {
        life.step();
        let found = life.disk.files().into_iter().find(|path| path.ends_with(".sst"));
        if let Some(path) = found {
            break path;
        }
    };
    assert!(life.core.manifest.current().tables.is_empty(), "the manifest comes later");
    let confirmed = life.core.wal.books.released_lsn.0;
    let disk = life.lose_power();
    let life = Life::open(&disk, cautious());
    assert!(disk.read_file(&table).is_some(), "{table} is gone");
    assert_survives(life, confirmed, "beside an unnamed table");
}

/// A backup links files of the log. A linked file is never written to, whether it is prepared, released or taken by
/// recovery: the backup's bytes would change under it.
#[test]
#[cfg_attr(windows, ignore = "links are not told on this system, and spares are taken for ours")]
fn files_that_somebody_has_linked_are_not_reused() {
    let link_all = |disk: &SimDisk, but: &str| {
        for path in disk.files() {
            if path.ends_with(".wal") && path != but {
                disk.set_links_outside(&path, 1);
            }
        }
    };
    let links = |life: &Life| {
        let path = life.active_path();
        life.disk.vfs().metadata(&path).map(|metadata| (path, metadata.links)).expect("it exists")
    };
    let mut life = Life::open(&SimDisk::new(1), cautious());
    for round in 0..12 {
        life.append_each(1, 10);
        life.wait_for_spares();
        let active = life.active_path();
        link_all(&life.disk, &active);
        while life.active_path() == active {
            life.append_each(1, 8000);
        }
        assert_eq!(links(&life).1, 1, "round {round}: {} is linked", links(&life).0);
        life.disk.set_links_outside(&active, 1);
        life.steps(300);
    }
    life.rest();
    // Nothing proves this one durable: recovery needs a file at once.
    let confirmed = life.append_each(1, 10);
    let active = life.active_path();
    link_all(&life.disk, &active);
    let disk = life.lose_power();
    let mut life = Life::open(&disk, cautious());
    assert_eq!(life.append_each(1, 10), confirmed + 1);
    assert_eq!(links(&life).1, 1, "recovery took {}", links(&life).0);
}

/// The last sale of the evening. Without a watermark behind it, rot in it would look like a write torn by a power cut, and
/// a confirmed entry would go without a word.
#[test]
fn after_a_second_of_idleness_rot_in_the_last_entry_is_damage() {
    for options in [cautious, normal] {
        let mut life = Life::open(&SimDisk::new(1), options());
        life.append_each(1, 10);
        let at = life.core.wal.active.as_ref().map_or(0, |active| active.offset);
        life.append_each(1, 10);
        let confirmed_ns = life.disk.env().mono_ns();
        life.rest();
        assert!(life.disk.env().mono_ns() < confirmed_ns + 2 * SECOND_NS);
        let path = life.active_path();
        let disk = life.lose_all_but_the_durable();
        disk.flip_bit(&path, at + 20, 1);
        assert!(matches!(Life::try_open(&disk, cautious()).err(), Some(Error::Corrupt(_))));
    }
}

/// Confirmed in normal mode, and a second later the power fails.
#[test]
fn what_normal_mode_confirmed_a_second_ago_survives() {
    let mut life = Life::open(&SimDisk::new(1), normal());
    life.append_each(1, 10);
    let began_ns = life.disk.env().mono_ns();
    let confirmed = life.append_each(2, 10);
    assert!(life.core.wal.books.durable_lsn < Lsn(confirmed), "something is at risk");
    while life.core.wal.books.durable_lsn < Lsn(confirmed) {
        assert!(life.disk.env().mono_ns() <= began_ns + SECOND_NS, "it is still at risk after a second");
        life.step();
    }
    assert_eq!(lsns(&life.lose_all_but_the_durable()), (1..=confirmed).collect::<Vec<_>>());
}

/// Whoever is told that the log is in cautious mode may rely on all that was confirmed before.
#[test]
fn leaving_normal_mode_makes_everything_durable_first() {
    let mut life = Life::open(&SimDisk::new(1), normal());
    let confirmed = life.append_each(5, 10);
    assert!(life.core.wal.books.durable_lsn < Lsn(confirmed), "something is at risk");
    life.ask(Request::SetMode(FlushMode::Cautious));
    assert_survives(life, confirmed, "a mode change");
}

/// Files are used again and again. With a salt used before, groups of the file's earlier life could be taken for the log's.
#[test]
fn every_use_of_a_file_and_every_epoch_has_its_own_salt() {
    let mut salts = std::collections::BTreeMap::new();
    let mut disk = SimDisk::new(1);
    for _ in 0..3 {
        let mut life = Life::open(&disk, cautious());
        for _ in 0..30 {
            life.append_each(1, 8000);
            let active = life.core.wal.active.as_ref().expect("the log has entries");
            let user = (active.segment, active.epoch);
            assert_eq!(*salts.entry(active.salt).or_insert(user), user, "one salt, two uses");
        }
        disk = life.lose_power();
    }
    assert!(salts.len() > 6, "{salts:?}");
}

/// The watermark of an idle log says that what lies before it is durable. The clock has jumped, so that it is due together
/// with the sync of normal mode: if it were written first, a cut could keep it and lose what it vouches for.
#[test]
fn a_watermark_is_written_when_it_is_true() {
    for at in 1..=6 {
        let mut life = Life::open(&SimDisk::new(at), normal());
        life.append_each(1, 10);
        life.wait_for_spares();
        let confirmed = life.append_each(2, 10);
        assert!(life.core.wal.books.durable_lsn < Lsn(confirmed), "something is at risk");
        life.disk.env().advance(SECOND_NS + SECOND_NS / 2);
        life.disk.fail(Fault::nth(OpClass::Mutating, at, FaultKind::PowerOff));
        life.steps(20);
        life.disk.power_off();
        for cut in life.disk.cut_variants(Grain::Block, NameCut::Ordered, 32) {
            if let Err(cause) = Life::try_open(&life.disk.cut(cut), normal()) {
                panic!("power fails at {at}, {cut}: {cause}");
            }
        }
    }
}

/// The next group does not fit into the segment while one is in flight. The new segment's header says that all of the old
/// one is durable.
#[test]
fn rotation_waits_for_the_groups_in_flight() {
    let mut waited = 0;
    for seed in 0..12 {
        let mut life = Life::open(&SimDisk::new(seed), large());
        life.append_each(1, 10);
        life.rest();
        let first = life.active_path();
        while life.active_path() == first {
            if life.core.shared().open().is_none() {
                life.stage(1, LARGE_ENTRY_BYTES + seed as usize * 20_000);
            }
            life.core.turn().expect("the log goes on");
            let full = life.core.wal.active.as_ref().is_some_and(|active| !active.fits(LARGE_ENTRY_BYTES as u64));
            waited += u32::from(full && life.core.in_flight.len() == 1 && life.core.shared().open().is_some());
            assert!(life.core.exclusive.is_none() || life.core.in_flight.is_empty(), "seed {seed}: both go on");
            if life.core.shared().open().is_some() {
                life.ops.poll(life.core.next_wait());
            }
        }
    }
    assert!(waited > 0, "no rotation had to wait");
}

/// What is cut off in the middle of a table must not look like one, nor stay: it would cost space for ever.
#[test]
fn an_unfinished_table_has_a_temporary_name_and_is_removed() {
    let tables = |disk: &SimDisk| disk.files().into_iter().filter(|path| path.starts_with("sst/")).collect::<Vec<_>>();
    let mut life = Life::open(&SimDisk::new(1), cautious());
    fill_memtable(&mut life);
    while tables(&life.disk).is_empty() {
        life.step();
    }
    let confirmed = life.core.wal.books.released_lsn.0;
    let disk = life.lose_power();
    assert!(!tables(&disk).is_empty(), "a piece of the table survives");
    let life = Life::open(&disk, cautious());
    assert_eq!(tables(&disk), [""; 0]);
    assert_survives(life, confirmed, "an unfinished table");
}

/// A table that is gone, or was cut short: the log must not go on as if its entries had never been.
#[test]
fn a_table_that_is_missing_or_short_is_damage() {
    let harm: [fn(&SimDisk, &str); 2] = [SimDisk::remove, |disk, path| disk.truncate(path, 4096)];
    for harm in harm {
        let mut life = Life::open(&SimDisk::new(1), cautious());
        while life.core.manifest.current().tables.is_empty() {
            life.append_each(1, 8000);
        }
        // The newest one is looked into for the last timestamp; an older one is not.
        let table = crate::sstable::path(life.core.manifest.current().tables[0].id);
        let disk = life.lose_power();
        harm(&disk, &table);
        assert!(matches!(Life::try_open(&disk, cautious()).err(), Some(Error::Corrupt(_))), "{table}");
    }
}

/// Under load a segment is released soon after it was full, and used again. A log that makes a new one all the same writes
/// up to a tenth more than it has to, onto a card that wears out, and removes as many.
#[test]
fn under_load_segments_go_round_and_at_most_one_is_made() {
    let mut life = Life::open(&SimDisk::new(1), Options { segment_bytes: 256 << 10, ..cautious() });
    life.append_each(1, 10);
    life.wait_for_spares();
    let (mut active, mut made) = (BTreeSet::new(), BTreeSet::new());
    while active.len() < 30 {
        let (seq, _) = life.stage(100, 200);
        while !life.is_confirmed(seq) {
            life.step();
            made.extend(life.disk.files().into_iter().filter(|path| path.ends_with(".wal.tmp")));
        }
        active.insert(life.active_path());
    }
    assert!(made.len() <= 1, "{made:?} were made");
}

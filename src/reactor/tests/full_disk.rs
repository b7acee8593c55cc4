//! A full disk stops no log and costs no entry: appends wait, everything else goes on.

use super::*;
use crate::options::{Compression, OnFull};
use crate::sim::{Fault, FaultKind, OpClass};

/// The disk fills up before the first segment can be prepared. The append waits for space, and is confirmed when there
/// is some; a log that stops instead takes the terminal out of service until somebody restarts it.
#[test]
fn a_log_without_a_segment_waits_for_space() {
    let disk = SimDisk::new(1);
    let mut life = Life::open(&disk, cautious());
    disk.set_space_bytes(Some(disk.space_used_bytes() + 8192));
    let (seq, _) = life.stage(1, 100);
    life.run_for(5 * SECOND_NS);
    assert!(!life.is_confirmed(seq), "there is no room for it");
    disk.set_space_bytes(None);
    life.run_for(5 * SECOND_NS);
    assert!(life.is_confirmed(seq));
}

/// The disk is full, and the power fails again and again, or the process is killed. Each recovery begins a segment; if it
/// could take only fresh space for it, the reserve would be used up after a few, and the store would not open any more:
/// not even reading what it holds would be left.
#[test]
fn recovery_on_a_full_disk_opens_however_often() {
    let ends: [fn(Life) -> SimDisk; 3] =
        [Life::lose_power, Life::lose_all_but_the_durable, |life| life.disk.kill(u64::from(life.turns))];
    for (kind, end) in ends.into_iter().enumerate() {
        let mut life = Life::open(&SimDisk::new(1), cautious());
        let mut confirmed = life.append_each(1, 100);
        life.wait_for_spares();
        life.disk.set_space_bytes(Some(life.disk.space_used_bytes()));
        for round in 0..8 {
            let (seq, last) = life.stage(1, 100);
            let give_up_ns = life.disk.env().mono_ns() + 3 * SECOND_NS;
            while !life.is_confirmed(seq) && life.disk.env().mono_ns() < give_up_ns {
                life.step();
            }
            if life.is_confirmed(seq) {
                confirmed = last;
            }
            let disk = end(life);
            life = Life::try_open(&disk, cautious())
                .unwrap_or_else(|cause| panic!("end {kind}, round {round}: the store must open: {cause}"));
            let found = lsns(&disk).len() as u64;
            assert!(found >= confirmed, "end {kind}, round {round}: {found} entries of {confirmed}");
        }
    }
}

/// Normal mode, the segment is full and no spare can be prepared; a second passes at once (a slow disk). Now the sync of
/// what is at risk and the idle watermark are both due. The watermark has no room; if it kept the sync from being done,
/// the entries would stay at risk, and the reactor would turn without ever waiting.
#[test]
fn a_watermark_without_room_does_not_keep_the_sync_from_being_done() {
    let disk = SimDisk::new(1);
    let mut life = Life::open(&disk, normal());
    life.append_each(1, 10);
    disk.set_space_bytes(Some(disk.space_used_bytes()));
    life.fill_segment();
    // The one that is left is kept for recovery.
    life.core.wal.spares.truncate(1);
    let stats = life.stats();
    assert!(stats.durable_lsn < stats.confirmed_lsn, "entries are at risk: {stats:?}");
    disk.env().advance(SECOND_NS + SECOND_NS / 10);
    let mut zero_waits = 0;
    for _ in 0..1000 {
        life.core.turn().expect("the log goes on");
        let wait = life.core.next_wait();
        zero_waits += u32::from(wait.is_some_and(|wait| wait.is_zero()));
        life.ops.poll(wait);
    }
    assert!(zero_waits < 100, "the reactor is busy with nothing: {zero_waits} of 1000 turns did not wait");
    assert_eq!(life.stats().durable_lsn, stats.confirmed_lsn);
}

/// As above, but what waits for the spare is a change of mode. What is at risk must be synced within a second of its
/// time all the same: on a full disk the request may wait for days.
#[test]
fn a_mode_change_that_waits_for_space_does_not_keep_the_sync_from_being_done() {
    let disk = SimDisk::new(1);
    let mut life = Life::open(&disk, normal());
    life.append_each(1, 10);
    disk.set_space_bytes(Some(disk.space_used_bytes()));
    life.fill_segment();
    // The one that is left is kept for recovery.
    life.core.wal.spares.truncate(1);
    let stats = life.stats();
    assert!(stats.durable_lsn < stats.confirmed_lsn, "entries are at risk: {stats:?}");
    let asked = life.core.shared().request(Request::SetMode(FlushMode::Cautious)).expect("the log is open");
    life.run_for(SECOND_NS);
    assert!(asked.try_take().is_none(), "there is no room for the declaration");
    let disk = life.lose_all_but_the_durable();
    assert_eq!(lsns(&disk), (1..=stats.confirmed_lsn.0).collect::<Vec<_>>());
}

/// A merge is durable in the manifest, and the disk is so full that it refuses to remove an input. Run again, the merge
/// would look for inputs that the manifest names no more, and panic.
#[test]
fn a_merge_whose_inputs_cannot_be_removed_is_done() {
    // Removals under the name of a table come before it is written, too.
    for nth in 1..=12 {
        let disk = SimDisk::new(1);
        let mut life = Life::open(&disk, Options { compaction_threshold: 2, ..cautious() });
        disk.fail(Fault::nth(OpClass::Unlink, nth, FaultKind::NoSpace).on("sst/"));
        let confirmed = life.append_each(200, 1500);
        life.steps(1000);
        assert!(disk.ops(OpClass::Unlink) > nth, "the fault was met");
        assert_survives(life, confirmed, &format!("removal {nth}"));
    }
}

/// A flush releases the first segment, and the disk is so full that it refuses what is to become of it: `class`. With
/// `room_bytes` left, no spare can be prepared.
fn refuse_recycling(class: OpClass, room_bytes: Option<u64>) {
    let disk = SimDisk::new(1);
    let mut life = Life::open(&disk, Options { memtable_bytes: 32 << 10, ..cautious() });
    life.append_each(1, 1500);
    life.wait_for_spares();
    disk.set_space_bytes(room_bytes.map(|room| disk.space_used_bytes() + room));
    let first = life.active_path();
    let touched = if class == OpClass::Rename { format!("{first} wal/") } else { first };
    disk.fail(Fault::nth(class, 1, FaultKind::NoSpace).on(&touched));
    life.append_each(25, 1500);
    life.run_for(SECOND_NS);
    disk.set_space_bytes(None);
    let confirmed = life.append_each(100, 1500);
    life.run_for(SECOND_NS);
    assert_survives(life, confirmed, &format!("{class:?}"));
}

/// With spares enough a released segment is removed. That it stays costs space; a log that stops for it costs entries.
#[test]
fn a_released_segment_that_cannot_be_removed_does_not_stop_the_log() {
    refuse_recycling(OpClass::Unlink, None);
}

/// There is room for a table and none for a spare, so the released segment is to become one. It cannot be renamed; the log
/// goes on with what it has, and waits for space if it must.
#[test]
fn a_released_segment_that_cannot_be_renamed_does_not_stop_the_log() {
    refuse_recycling(OpClass::Rename, Some(40 << 10));
}

fn refusing() -> Options {
    Options { on_full: OnFull::Refuse, compression: Compression::None, ..cautious() }
}

/// The disk is full, and appends are to be refused. Everything that was accepted before that is said is stored without
/// more space: nobody waits. When there is space, appends are accepted again by themselves.
#[test]
fn what_is_accepted_before_refusing_is_stored_without_space_and_appending_resumes() {
    let disk = SimDisk::new(1);
    let mut life = Life::open(&disk, refusing());
    let mut confirmed = life.append_each(10, 100);
    for round in 0..10 {
        life.wait_for_spares();
        life.run_for(SECOND_NS);
        disk.set_space_bytes(Some(disk.space_used_bytes()));
        let mut refused = false;
        for _ in 0..2000 {
            refused = life.core.shared().is_refusing();
            if refused {
                break;
            }
            confirmed = life.append_each(1, 1500);
        }
        assert!(refused, "round {round}: it is full");
        life.run_for(3 * SECOND_NS);
        assert!(life.core.shared().is_refusing(), "round {round}: it still is");
        assert_eq!(lsns_beside(&life), (1..=confirmed).collect::<Vec<_>>(), "round {round}: queries work");
        if round % 3 == 2 {
            let cut = life.lose_all_but_the_durable();
            life = Life::open(&cut, refusing());
            cut.set_space_bytes(None);
            return_to_work(&mut life);
            let next = life.append_each(1, 100);
            assert_survives(life, next, "after a cut");
            return;
        }
        disk.set_space_bytes(None);
        return_to_work(&mut life);
    }
}

/// A process that begins on a full disk knows it before it accepts anything: nobody who is accepted waits for space.
#[test]
fn a_log_that_is_opened_on_a_full_disk_refuses_or_stores_from_the_first_append_on() {
    let mut life = Life::open(&SimDisk::new(1), refusing());
    let mut confirmed = life.append_each(5, 100);
    life.wait_for_spares();
    life.disk.set_space_bytes(Some(life.disk.space_used_bytes()));
    let mut refused = 0;
    for round in 0..12 {
        let disk = if round % 2 == 0 { life.disk.kill(round) } else { life.lose_power() };
        life = Life::open(&disk, refusing());
        for _ in 0..3 {
            if life.core.shared().is_refusing() {
                refused += 1;
                break;
            }
            let (seq, last) = life.stage(1, 3000);
            let give_up_ns = disk.env().mono_ns() + 3 * SECOND_NS;
            while !life.is_confirmed(seq) {
                assert!(disk.env().mono_ns() < give_up_ns, "round {round}: it was accepted, and waits");
                life.step();
            }
            confirmed = last;
        }
    }
    assert!(refused > 0, "there is no room for so many");
    life.disk.set_space_bytes(None);
    return_to_work(&mut life);
    confirmed = confirmed.max(life.append_each(1, 100));
    assert_survives(life, confirmed, "with space again");
}

fn return_to_work(life: &mut Life) {
    life.run_for(3 * SECOND_NS);
    assert!(!life.core.shared().is_refusing(), "there is space again");
}

/// What a reader beside the writer finds.
fn lsns_beside(life: &Life) -> Vec<u64> {
    let reader = Reader::of(life.disk.vfs(), true);
    let mut scan = reader.scan(ScanRange::default()).expect("the store is sound");
    let mut lsns = Vec::new();
    while let Some(entry) = scan.next_entry().expect("the store is sound") {
        lsns.push(entry.lsn.0);
    }
    lsns
}

/// Unless it is asked for, nothing is refused.
#[test]
fn by_default_appends_wait() {
    let disk = SimDisk::new(1);
    let mut life = Life::open(&disk, cautious());
    life.append_each(1, 100);
    life.wait_for_spares();
    disk.set_space_bytes(Some(disk.space_used_bytes()));
    life.fill_segment();
    life.run_for(3 * SECOND_NS);
    assert!(!life.core.shared().is_refusing());
}

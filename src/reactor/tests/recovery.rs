//! What a life may build on what the last one left, and what it must report.

use super::*;
use crate::error::Error;
use crate::sim::{Fault, FaultKind, Grain, NameCut, OpClass};

/// Three entries; the log rests; the process is killed while the idle watermark is written, which is so visible and
/// volatile. Recovery must not put the end of the log behind it: when a power cut takes it, the log would have a hole
/// before a recorded end, and the store would not open.
#[test]
fn nothing_links_behind_a_watermark_that_may_be_volatile() {
    for seed in 0..8 {
        let disk = SimDisk::new(seed);
        let mut life = Life::open(&disk, cautious());
        life.append_each(3, 100);
        disk.fail(Fault::nth(OpClass::Write, 1, FaultKind::PowerOff).on(&life.active_path()));
        life.steps(1000);
        assert!(disk.powered_off(), "the watermark is written");
        assert_can_be_built_upon(&disk.kill(seed), &format!("seed {seed}"));
    }
}

/// A power cut leaves a group that nothing proves; recovery writes it anew, syncs, and writes the header last. Its
/// `nth` sync in the log fails by `kind`; `None` if it has fewer.
fn fail_recovery(seed: u64, nth: u64, kind: FaultKind) -> Option<SimDisk> {
    let mut life = Life::open(&SimDisk::new(seed), cautious());
    life.append_each(3, 100);
    life.wait_for_spares();
    life.append_each(3, 100);
    let disk = life.lose_power();
    disk.fail(Fault::nth(OpClass::Sync, nth, kind).on("wal/"));
    Life::try_open(&disk, cautious()).is_err().then_some(disk)
}

/// The machines that recovery leaves if one of its syncs fails, the header's among them.
fn failed_recoveries(seed: u64, kind: FaultKind) -> Vec<SimDisk> {
    let failed: Vec<SimDisk> = (1..).map_while(|nth| fail_recovery(seed, nth, kind)).collect();
    assert!(failed.len() > 1, "the groups are synced, and then the header");
    failed
}

/// The sync of recovery's new header fails: the header is visible, and not durable. The process starts again, finds the
/// header and links its own segment to it. Without writing it again, durably, a power cut makes that link lead nowhere:
/// "the segment is missing".
#[test]
fn a_header_whose_sync_failed_is_written_again_before_it_is_linked_to() {
    for seed in 0..6 {
        for (nth, disk) in (1..).zip(failed_recoveries(seed, FaultKind::Eio)) {
            assert_can_be_built_upon(&disk.kill(seed), &format!("seed {seed}, sync {nth}"));
        }
    }
}

/// As above, but the process is killed while the header is in flight.
#[test]
fn a_header_that_was_in_flight_is_written_again_before_it_is_linked_to() {
    for seed in 0..4 {
        for (nth, disk) in (1..).zip(failed_recoveries(seed, FaultKind::PowerOff)) {
            for kill in 0..4 {
                assert_can_be_built_upon(&disk.kill(kill), &format!("seed {seed}, sync {nth}, kill {kill}"));
            }
        }
    }
}

/// Killed between the rename of a prepared segment and the sync of its directory. The next life sees the name and puts
/// confirmed entries into the file; a power cut takes the name, and the entries with it.
#[test]
fn the_name_of_a_segment_is_durable_before_entries_go_into_it() {
    for seed in 0..4 {
        let disk = SimDisk::new(seed);
        let mut life = Life::open(&disk, cautious());
        disk.fail(Fault::nth(OpClass::SyncDir, 1, FaultKind::PowerOff).on("wal"));
        life.stage(1, 100);
        life.steps(1000);
        assert!(disk.powered_off(), "the directory is synced");
        assert_can_be_built_upon(&disk.kill(seed), &format!("seed {seed}"));
    }
}

/// Killed between the rename of the first manifest and the sync of the directory. The next life sees a store and
/// confirms entries; a power cut takes the manifest, and what is left is a log without a store.
#[test]
fn the_name_of_the_first_manifest_is_durable_before_the_store_takes_entries() {
    for seed in 0..4 {
        let disk = SimDisk::new(seed);
        disk.fail(Fault::nth(OpClass::SyncDir, 2, FaultKind::PowerOff));
        assert!(Life::try_open(&disk, cautious()).is_err(), "the power fails at birth");
        let next = disk.kill(seed);
        assert!(next.files().contains(&"MANIFEST-0000000001".to_owned()), "its name is seen");
        assert_can_be_built_upon(&next, &format!("seed {seed}"));
    }
}

/// A flush ends with the rename of a new manifest; killed before the directory is synced. The next life believes it and
/// reuses the segments that it released. A power cut brings the old manifest back, which needs them: confirmed entries
/// are gone.
#[test]
fn the_name_of_a_manifest_is_durable_before_what_it_released_is_used() {
    let mut hits = 0;
    for seed in 0..4 {
        let disk = SimDisk::new(seed);
        let mut life = Life::open(&disk, cautious());
        disk.fail(Fault::nth(OpClass::Rename, 1, FaultKind::PowerOff).on("MANIFEST"));
        while life.append(1500).is_some() {}
        // The rename was in flight: in some worlds it was done.
        let renamed = (0..6).map(|kill| disk.kill(kill)).find(|next| next.read_file("MANIFEST-0000000002").is_some());
        let Some(next) = renamed else { continue };
        hits += 1;
        // Fewer entries than another flush takes, but a rotation into what was released.
        let mut life = Life::open(&next, cautious());
        let confirmed = life.append_each(30, 1500);
        life.steps(300);
        assert_survives(life, confirmed, &format!("seed {seed}"));
    }
    assert!(hits > 0, "no kill fell behind the rename");
}

/// Normal mode, power cut: the new segment's header carries a gap. Two groups are written behind it, both in flight; the
/// power fails, and of the first a part survives, of the second all of it. That is a torn tail, nothing of it was
/// confirmed; taken for a hole behind the gap it would be damage, and the store would not open.
#[test]
fn a_torn_first_group_behind_a_gap_is_a_torn_tail() {
    let large = |flush_mode| Options { segment_bytes: 1 << 20, memtable_bytes: 1 << 20, ..options(flush_mode) };
    for seed in 0..4 {
        let mut life = Life::open(&SimDisk::new(seed), large(FlushMode::Normal));
        life.append_each(5, 100);
        let disk = life.lose_power();
        let mut life = Life::open(&disk, large(FlushMode::Cautious));
        for in_flight in 1..=2 {
            life.stage(1, 300 << 10);
            loop {
                life.core.turn().expect("the log goes on");
                if life.core.in_flight.len() == in_flight {
                    break;
                }
                assert_eq!(in_flight, 1, "the second one goes out beside the first");
                life.ops.poll(life.core.next_wait());
            }
        }
        disk.power_off();
        for choice in disk.cut_variants(Grain::Block, NameCut::Ordered, 10) {
            if let Err(cause) = Life::try_open(&disk.cut(choice), large(FlushMode::Cautious)) {
                panic!("seed {seed}, {choice}: {cause}");
            }
        }
    }
}

/// Five confirmed entries, closed; no table yet, so the one segment is all there is. A bit of its header rots. Taken for
/// a torn write it would be an empty log: the entries were lost without a word, and their LSNs given again.
#[test]
fn a_rotten_header_of_the_only_segment_is_reported() {
    let disk = SimDisk::new(1);
    let mut life = Life::open(&disk, cautious());
    life.append_each(5, 100);
    let path = life.active_path();
    life.close();
    disk.flip_bit(&path, 60, 1);
    match Life::try_open(&disk, cautious()) {
        Err(Error::Corrupt(damage)) => assert_eq!(damage.file, path),
        Err(other) => panic!("it is damage, not: {other}"),
        Ok(life) => panic!("the next entry would be LSN {}", life.core.shared().open_first_lsn()),
    }
}

//! Where a log ends, and what is damage.

use super::*;
use crate::format::{ClockStep, GapCause};
use crate::sim::{Fault, FaultKind, OpClass};
use crate::wal::replay::{Extent, Tail};

#[test]
fn groups_follow_each_other_up_to_the_end() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    segment.group(3, durable(2));
    let (lsns, replay) = replay_of(&[&segment]);
    assert_eq!(lsns, [1, 2, 3, 4, 5]);
    assert_eq!((replay.next_lsn, replay.durable_lsn, replay.tail), (Lsn(6), Lsn(2), Tail::Open));
    assert_eq!((replay.end, replay.last_timestamp_ns), (segment.end(), 1005));
}

#[test]
fn a_group_that_fails_with_nothing_behind_it_is_a_torn_tail() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let last = segment.group(3, durable(2));
    segment.bytes[last as usize + 200] ^= 1;
    let (lsns, replay) = replay_of(&[&segment]);
    assert_eq!(lsns, [1, 2]);
    assert!(matches!(replay.tail, Tail::Torn { bytes } if bytes == BLOCK_BYTES as u64), "{:?}", replay.tail);
}

#[test]
fn nothing_behind_a_hole_is_replayed_while_nothing_proves_the_hole_durable() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let hole = segment.group(1, durable(2));
    segment.group(1, durable(2));
    segment.damage(hole);
    let (lsns, replay) = replay_of(&[&segment]);
    assert_eq!(lsns, [1, 2]);
    assert!(matches!(replay.tail, Tail::Torn { bytes } if bytes == 2 * BLOCK_BYTES as u64), "{:?}", replay.tail);
}

#[test]
fn a_later_watermark_turns_a_hole_into_damage() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let hole = segment.group(1, durable(2));
    segment.group(1, durable(2));
    segment.group(1, durable(3));
    segment.damage(hole);
    let damage = damage_of(&[&segment]);
    assert_eq!((damage.file.as_str(), damage.offset, damage.lsn), ("wal/0000000001.wal", hole, Some(Lsn(3))));
}

#[test]
fn the_marker_of_a_clean_close_turns_a_hole_into_damage_even_one_without_entries() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let hole = segment.group(0, durable(2));
    segment.group(0, marker(2));
    segment.damage(hole);
    assert_eq!(damage_of(&[&segment]).offset, hole);
}

#[test]
fn what_a_table_holds_was_durable() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let hole = segment.group(2, durable(2));
    segment.damage(hole);
    let manifest = Manifest { checkpoint_lsn: Lsn(3), ..Manifest::birth(STORE) };
    assert_eq!(damage_on(&disk_of(&[&segment]), &manifest).lsn, Some(Lsn(3)));
}

#[test]
fn a_failure_before_a_recorded_end_is_damage() {
    let mut old = first_segment();
    old.group(2, durable(0));
    let hole = old.group(2, durable(2));
    let new = Segment::new(2, 1, old.end(), 0, None);
    old.damage(hole);
    let damage = damage_of(&[&old, &new]);
    assert_eq!((damage.file.as_str(), damage.offset), ("wal/0000000001.wal", hole));
}

#[test]
fn a_segment_missing_from_the_chain_is_damage() {
    let mut old = first_segment();
    old.group(2, durable(0));
    let new = Segment::new(2, 1, old.end(), 2, None);
    assert_eq!(damage_of(&[&new]).file, "wal/0000000001.wal");
    let manifest = Manifest { checkpoint_lsn: Lsn(2), first_segment: 2, ..Manifest::birth(STORE) };
    let (lsns, _) = replayed(&disk_of(&[&new]), &manifest).expect("a released segment is not missed");
    assert!(lsns.is_empty());
    let damage = damage_on(&SimDisk::new(1), &manifest);
    assert_eq!((damage.file.as_str(), damage.lsn), ("wal/0000000002.wal", Some(Lsn(3))));
}

#[test]
fn what_lies_behind_a_recorded_end_is_dead() {
    let mut old = first_segment();
    old.group(2, durable(0));
    let end = old.end();
    old.group(2, durable(2));
    let mut new = Segment::new(2, 2, end, 2, None);
    new.group(1, durable(2));
    let (lsns, replay) = replay_of(&[&old, &new]);
    assert_eq!(lsns, [1, 2, 3]);
    assert_eq!(replay.segments, 2);
}

#[test]
fn a_header_lost_with_groups_behind_it_is_damage() {
    let mut old = first_segment();
    old.group(2, durable(0));
    let mut new = Segment::new(2, 1, old.end(), 2, None);
    new.group(1, durable(2));
    new.bytes[100] ^= 1;
    let damage = damage_of(&[&old, &new]);
    assert_eq!((damage.file.as_str(), damage.lsn), ("wal/0000000002.wal", Some(Lsn(3))));
}

#[test]
fn a_header_lost_while_recovery_wrote_is_a_torn_write() {
    let mut old = first_segment();
    old.group(2, durable(0));
    let end = old.end();
    old.group(1, durable(2));
    // Recovery copies the group that nothing proves, and its header, written last, did not arrive whole.
    let mut new = Segment::new(2, 2, end, 3, None);
    new.group(1, durable(2));
    new.bytes[100] ^= 1;
    assert_eq!(replay_of(&[&old, &new]).0, [1, 2, 3]);
}

#[test]
fn groups_of_an_earlier_use_of_the_file_are_not_ours() {
    let mut old = Segment::new(1, 1, LogEnd::default(), 0, None);
    old.group(2, durable(0));
    let behind = old.group(3, durable(2));
    let mut new = Segment::new(1, 2, LogEnd::default(), 0, None);
    new.group(2, durable(0));
    // The second group of the earlier use still lies behind the first one of this use, and would follow it.
    let stale = old.bytes[behind as usize..][..BLOCK_BYTES].to_vec();
    new.bytes[behind as usize..][..BLOCK_BYTES].copy_from_slice(&stale);
    let (lsns, replay) = replay_of(&[&new]);
    assert_eq!((lsns, replay.tail), (vec![1, 2], Tail::Open));
}

#[test]
fn an_epoch_goes_on_behind_a_clean_close_and_survives_the_loss_of_its_marker() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let end = segment.end();
    let marker_offset = segment.group(0, marker(2));
    segment.begin_epoch(end);
    segment.group(2, durable(2));
    segment.group(1, durable(4));
    let (lsns, replay) = replay_of(&[&segment]);
    assert_eq!((lsns, replay.epoch_max, replay.tail), (vec![1, 2, 3, 4, 5], 2, Tail::Open));
    segment.bytes[marker_offset as usize..][..BLOCK_BYTES].fill(0);
    assert_eq!(replay_of(&[&segment]).0, [1, 2, 3, 4, 5]);
}

/// Rotated, closed before the next entry, and killed before the marker was durable: it is the first group of its segment.
#[test]
fn an_epoch_survives_the_loss_of_the_marker_in_a_segment_without_entries() {
    let mut first = first_segment();
    first.group(2, durable(0));
    let mut second = Segment::new(2, 1, first.end(), 2, None);
    let end = second.end();
    let marker_offset = second.group(0, marker(2));
    second.begin_epoch(end);
    second.group(1, durable(2));
    second.bytes[marker_offset as usize..][..BLOCK_BYTES].fill(0);
    assert_eq!(replay_of(&[&first, &second]).0, [1, 2, 3]);
}

/// Killed while it closed, a log may go on behind a marker that is seen and not durable. What is lost with it is the
/// group that was first behind the gap.
#[test]
fn the_marker_of_a_clean_close_may_be_lost_behind_a_gap_too() {
    let mut old = first_segment();
    let before = old.end();
    old.group(2, durable(0));
    let gap = Gap { first: Lsn(3), last: Lsn(51), cause: GapCause::UncleanNormal };
    let mut segment = Segment::new(2, 2, before, 2, Some(gap));
    segment.next = Lsn(1);
    segment.group(2, durable(0));
    segment.next = gap.last.next();
    let end = segment.end();
    let marker_offset = segment.group(0, marker(51));
    segment.begin_epoch(end);
    segment.group(2, durable(51));
    segment.group(1, durable(53));
    assert_eq!(replay_of(&[&old, &segment]).0, [1, 2, 52, 53, 54]);
    segment.bytes[marker_offset as usize..][..BLOCK_BYTES].fill(0);
    let (lsns, replay) = replay_of(&[&old, &segment]);
    assert_eq!((lsns, replay.gaps), (vec![1, 2, 52, 53, 54], vec![gap]));
}

#[test]
fn an_epoch_that_links_to_another_end_is_not_followed() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let end = segment.end();
    segment.group(0, marker(2));
    segment.begin_epoch(LogEnd { last_lsn: Lsn(1), ..end });
    segment.group(2, durable(2));
    let (lsns, replay) = replay_of(&[&segment]);
    assert_eq!(lsns, [1, 2]);
    assert!(matches!(replay.tail, Tail::Torn { .. }), "it was ours, and it was cut: {:?}", replay.tail);
}

#[test]
fn a_clean_close_is_the_end() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let end = segment.end();
    segment.group(0, marker(2));
    let (_, replay) = replay_of(&[&segment]);
    assert_eq!((replay.tail, replay.end, replay.durable_lsn), (Tail::Clean, end, Lsn(2)));
}

#[test]
fn a_gap_carried_by_a_header_is_where_the_numbers_reach_it() {
    let mut old = first_segment();
    old.group(2, durable(0));
    let gap = Gap { first: Lsn(3), last: Lsn(51), cause: GapCause::UncleanNormal };
    let mut new = Segment::new(2, 2, old.end(), 2, Some(gap));
    let (_, replay) = replay_of(&[&old, &new]);
    assert_eq!((replay.next_lsn, replay.gaps.as_slice()), (Lsn(52), [gap].as_slice()));
    new.group(1, durable(51));
    let (lsns, replay) = replay_of(&[&old, &new]);
    assert_eq!((lsns, replay.gaps), (vec![1, 2, 52], vec![gap]));
}

#[test]
fn normal_at_the_end_is_what_the_last_group_of_the_epoch_says() {
    let normal = Says { mode: FlushMode::Normal, ..durable(0) };
    let mut segment = first_segment();
    segment.group(2, normal);
    assert!(replay_of(&[&segment]).1.normal_at_end);
    let mut other = Segment::new(2, 1, segment.end(), 2, None);
    assert!(replay_of(&[&segment, &other]).1.normal_at_end, "rotation within the epoch changes nothing");
    other.group(1, durable(2));
    assert!(!replay_of(&[&segment, &other]).1.normal_at_end);
    let next_epoch = Segment::new(2, 2, segment.end(), 2, None);
    assert!(!replay_of(&[&segment, &next_epoch]).1.normal_at_end, "an epoch without a group confirmed nothing");
    segment.group(0, marker(2));
    assert!(!replay_of(&[&segment]).1.normal_at_end);
}

#[test]
fn an_io_error_is_an_error_and_not_the_end_of_the_log() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let disk = disk_of(&[&segment]);
    disk.fail(Fault::nth(OpClass::Read, 2, FaultKind::Eio));
    let outcome = replayed(&disk, &Manifest::birth(STORE));
    assert!(matches!(outcome, Err(Error::Io { .. })), "{outcome:?}");
}

#[test]
fn entries_between_the_tables_and_the_first_segment_are_missed() {
    let mut segment = Segment::new(4, 3, LogEnd { segment: 3, salt: 9, offset: 8192, last_lsn: Lsn(10) }, 10, None);
    segment.group(1, durable(10));
    let manifest = Manifest { first_segment: 4, checkpoint_lsn: Lsn(8), ..Manifest::birth(STORE) };
    assert_eq!(damage_on(&disk_of(&[&segment]), &manifest).lsn, Some(Lsn(9)));
    let manifest = Manifest { checkpoint_lsn: Lsn(10), ..manifest };
    assert_eq!(replayed(&disk_of(&[&segment]), &manifest).expect("they join").0, [11]);
}

#[test]
fn a_segment_cut_short_from_outside_is_damage() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let disk = disk_of(&[&segment]);
    disk.truncate(&segment.active.path, 2 * BLOCK_BYTES as u64);
    assert_eq!(damage_on(&disk, &Manifest::birth(STORE)).offset, 2 * BLOCK_BYTES as u64);
}

#[test]
fn a_copy_of_a_segment_beside_it_is_a_stranger() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let disk = disk_of(&[&segment]);
    disk.write_file("wal/0000000077.wal", &segment.bytes);
    assert_eq!(replayed(&disk, &Manifest::birth(STORE)).expect("the right name counts").0, [1, 2]);
    disk.remove(&segment.active.path);
    disk.write_file("wal/0000000078.wal", &segment.bytes);
    assert!(damage_on(&disk, &Manifest::birth(STORE)).what.contains("claims to be segment 1"));
}

#[test]
fn a_segment_of_another_store_is_ignored() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let disk = disk_of(&[&segment]);
    let mut foreign = Segment::new(2, 9, segment.end(), 2, None);
    let mut sector = SegmentHeader::decode(&foreign.bytes).expect("it is valid");
    sector.store = StoreId([9; 16]);
    sector.encode(&mut foreign.bytes);
    foreign.save(&disk);
    assert_eq!(replayed(&disk, &Manifest::birth(STORE)).expect("it is not ours").0, [1, 2]);
}

#[test]
fn clock_steps_of_the_manifest_come_first_and_none_twice() {
    let step = ClockStep { lsn: Lsn(1), from_ns: 5, to_ns: 9 };
    let manifest = Manifest { clock_steps: vec![step], ..Manifest::birth(STORE) };
    let mut segment = first_segment();
    segment.group(2, durable(0));
    assert_eq!(replayed(&disk_of(&[&segment]), &manifest).expect("it is sound").1.clock_steps, [step]);
}

/// Normal mode, killed; recovery skips LSNs 6 to 54; the log rotates; then the memtable with entries 1 to 5 is flushed, and
/// the segment whose header carried the gap is released.
#[test]
fn a_gap_that_only_the_manifest_knows_any_more_is_no_hole() {
    let gap = Gap { first: Lsn(6), last: Lsn(54), cause: GapCause::UncleanNormal };
    let before = LogEnd { segment: 2, salt: 1002, offset: 8192, last_lsn: Lsn(54) };
    let mut segment = Segment::new(3, 2, before, 54, None);
    segment.group(2, durable(54));
    let disk = disk_of(&[&segment]);
    let known = Manifest { checkpoint_lsn: Lsn(5), first_segment: 3, gaps: vec![gap], ..Manifest::birth(STORE) };
    let (lsns, replay) = replayed(&disk, &known).expect("the log is sound");
    assert_eq!((lsns, replay.next_lsn), (vec![55, 56], Lsn(57)));

    let shorter = Gap { last: Lsn(53), ..gap };
    let damage = damage_on(&disk, &Manifest { gaps: vec![shorter], ..known.clone() });
    assert_eq!(damage.lsn, Some(Lsn(54)), "an LSN outside every gap is missing");
    let damage = damage_on(&disk, &Manifest { gaps: Vec::new(), ..known });
    assert_eq!(damage.lsn, Some(Lsn(6)));
}

#[test]
fn a_segment_before_a_missing_one_is_replayed_up_to_the_hole() {
    let mut first = first_segment();
    first.group(2, durable(0));
    let mut second = Segment::new(2, 1, first.end(), 2, None);
    second.group(2, durable(2));
    let mut third = Segment::new(3, 1, second.end(), 4, None);
    third.group(2, durable(4));
    let disk = disk_of(&[&first, &third]);
    let manifest = Manifest::birth(STORE);
    let files = WalFiles::scan(&*disk.vfs(), STORE, manifest.first_segment).expect("it can be listed");
    let mut seen = 0;
    let outcome = replay(&files, &manifest, Extent::Whole, &mut |group| {
        seen += group.group.entries().count();
        Ok(())
    });
    assert!(matches!(outcome, Err(Error::Corrupt(damage)) if damage.file == "wal/0000000002.wal"));
    assert_eq!(seen, 2, "what lies before the hole is still good, what lies behind it is out of reach");
}

const BRIEF: Extent = Extent::Brief { to_ns: u64::MAX };

#[test]
fn who_reads_briefly_passes_by_what_is_in_tables_and_checks_what_is_not() {
    let mut segment = first_segment();
    let in_tables = segment.group(3, durable(0));
    let split = segment.group(3, durable(3));
    let behind = segment.group(3, durable(6));
    let manifest = Manifest { checkpoint_lsn: Lsn(4), ..Manifest::birth(STORE) };
    let read = |segment: &Segment, extent| {
        let replayed = replayed_by(&disk_of(&[segment]), &manifest, extent);
        replayed.map(|(lsns, replay)| (lsns, replay.next_lsn, replay.durable_lsn, replay.tail))
    };
    let body = |offset: u64| (offset + 150) as usize;
    let found = (vec![4, 5, 6, 7, 8, 9], Lsn(10), Lsn(6), Tail::Open);
    assert_eq!(read(&segment, BRIEF).expect("the log is sound"), found);

    segment.bytes[body(in_tables)] ^= 1;
    assert_eq!(read(&segment, BRIEF).expect("its entries are in a table"), found);
    assert!(matches!(read(&segment, Extent::Whole), Err(Error::Corrupt(_))));

    segment.bytes[body(split)] ^= 1;
    assert!(matches!(read(&segment, BRIEF), Err(Error::Corrupt(_))), "some of its entries are in no table");
    segment.bytes[body(split)] ^= 1;
    segment.bytes[body(behind)] ^= 1;
    assert!(matches!(read(&segment, BRIEF), Ok((_, Lsn(7), ..))), "nothing proves the last one durable");
}

/// What lies behind the time that is asked for is not read, unless it may be where the log ends: what is behind a torn group
/// would come back to life, for this reader alone.
#[test]
fn who_asks_up_to_a_time_passes_by_what_is_later_and_proven() {
    let mut segment = first_segment();
    segment.group(3, durable(0));
    let later = segment.group(3, durable(3));
    let last_proven = segment.group(3, durable(6));
    let unproven = segment.group(3, durable(9));
    segment.group(3, durable(9));
    let read = |segment: &Segment, to_ns| {
        let replayed = replayed_by(&disk_of(&[segment]), &Manifest::birth(STORE), Extent::Brief { to_ns });
        replayed.map(|(lsns, replay)| (lsns, replay.next_lsn, replay.durable_lsn))
    };
    let mut body = |offset: u64| segment.bytes[offset as usize + 150] ^= 1;
    body(later);
    body(last_proven);
    assert_eq!(read(&segment, 1003).expect("sound"), (vec![1, 2, 3, 10, 11, 12, 13, 14, 15], Lsn(16), Lsn(9)));
    assert!(matches!(read(&segment, 1004), Err(Error::Corrupt(_))), "its first entry is asked for");
    segment.bytes[unproven as usize + 150] ^= 1;
    assert_eq!(read(&segment, 1003).expect("a torn tail"), (vec![1, 2, 3], Lsn(10), Lsn(6)));
}

/// The marker of a clean close proves, too. What is dead stays dead.
#[test]
fn who_asks_up_to_a_time_reads_what_begins_an_epoch_and_nothing_dead() {
    let mut first = first_segment();
    first.group(2, durable(0));
    let closed = first.end();
    first.group(0, marker(2));
    first.begin_epoch(closed);
    let in_second_epoch = first.group(2, durable(2));
    let end = first.end();
    // Dead: the next segment begins in front of it.
    first.group(9, durable(4));
    let mut second = Segment::new(2, 3, end, 2, None);
    second.group(1, durable(4));
    let read = |first: &Segment, second: &Segment| {
        let brief = Extent::Brief { to_ns: 1000 };
        let replayed = replayed_by(&disk_of(&[first, second]), &Manifest::birth(STORE), brief);
        replayed.map(|(lsns, replay)| (lsns, replay.next_lsn))
    };
    // The group that begins an epoch has a record, and is read.
    assert_eq!(read(&first, &second).expect("it is sound"), (vec![3, 4, 5], Lsn(6)));
    first.bytes[in_second_epoch as usize + 150] ^= 1;
    assert!(matches!(read(&first, &second), Err(Error::Corrupt(_))));
}

/// The proof may lie in a later segment.
#[test]
fn headers_prove_across_segments() {
    let mut first = first_segment();
    let passed = first.group(2, durable(0));
    let mut second = Segment::new(2, 1, first.end(), 0, None);
    second.group(1, durable(2));
    first.bytes[passed as usize + 150] ^= 1;
    let read = |extent| replayed_by(&disk_of(&[&first, &second]), &Manifest::birth(STORE), extent);
    let (lsns, replay) = read(Extent::Brief { to_ns: 1000 }).expect("what is damaged is not asked for");
    assert_eq!((lsns, replay.next_lsn, replay.durable_lsn), (vec![3], Lsn(4), Lsn(2)));
    assert!(matches!(read(BRIEF), Err(Error::Corrupt(_))));
}

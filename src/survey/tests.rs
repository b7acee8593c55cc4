//! What of a damaged log is taken, on logs built by hand. Each test states what would come back, or be lost, without the
//! rule it guards.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::log::{LogSurvey, Part, survey};
use super::pieces::{path, place};
use super::tolerant::{Tolerant, Unreadable};
use super::{Kind, Wound};
use crate::error::Error;
use crate::format::entry;
use crate::format::manifest::Manifest;
use crate::format::record::LogEnd;
use crate::format::{BLOCK_BYTES, Gap, GapCause, Lsn};
use crate::io::Vfs;
use crate::sim::{Fault, FaultKind, OpClass, SimDisk};
use crate::wal::files::WalFiles;
use crate::wal::reader::{Window, read_group};
use crate::wal::replay::Extent;
use crate::wal::tests::{STORE, Segment, disk_of, durable, marker};

const BLOCK: u64 = BLOCK_BYTES as u64;

fn first_segment() -> Segment {
    Segment::new(1, 1, LogEnd::default(), 0, None)
}

/// Surveys the log of a store without tables; returns the LSNs that can be read, with their place, and what was found.
fn surveyed(vfs: &dyn Vfs) -> (Vec<(u64, String, u64)>, LogSurvey) {
    surveyed_up_to(vfs, 0)
}

/// The manifest knows of segment `newest`.
fn surveyed_up_to(vfs: &dyn Vfs, newest: u64) -> (Vec<(u64, String, u64)>, LogSurvey) {
    let manifest = Manifest { newest_segment: newest, ..Manifest::birth(STORE) };
    let files = WalFiles::scan(vfs, STORE, 1).expect("it can be listed");
    let found = survey(&files, &manifest, Extent::Whole).expect("damage is no error");
    let mut read = Vec::new();
    let mut window = Window::default();
    let check = |lsn: Lsn, payload: &[u8]| assert_eq!(payload, format!("entry {lsn}").as_bytes());
    for part in &found.parts {
        match part {
            Part::Group(group) => {
                let place = place(&files, STORE, group.file, group.segment, group.offset);
                let group = read_group(&mut window, &place).expect("no I/O error").expect("it was good");
                for entry in group.entries() {
                    check(entry.lsn, entry.payload);
                    read.push((entry.lsn.0, place.path.to_owned(), place.offset));
                }
            }
            Part::Entry(lone) => {
                let place = place(&files, STORE, lone.file, 0, lone.seed.offset);
                let bytes = window.get(place.path, place.file, lone.seed.offset, lone.bytes).expect("no I/O error");
                let entry = entry::decode(bytes, lone.seed).expect("it was good");
                check(entry.lsn, entry.payload);
                read.push((entry.lsn.0, path(&files, lone.file).to_owned(), lone.seed.offset));
            }
        }
    }
    assert!(read.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, each once: {read:?}");
    (read, found)
}

fn lsns(read: &[(u64, String, u64)]) -> Vec<u64> {
    read.iter().map(|(lsn, ..)| *lsn).collect()
}

fn of(segments: &[&Segment]) -> (Vec<u64>, LogSurvey) {
    let (read, found) = surveyed(&*disk_of(segments).vfs());
    (lsns(&read), found)
}

fn only(found: &LogSurvey) -> &Wound {
    assert_eq!(found.wounds.len(), 1, "{:?}", found.wounds);
    &found.wounds[0]
}

/// Inverts a byte of the payload of entry `lsn`.
fn damage_entry(segment: &mut Segment, lsn: u64) {
    let needle = format!("entry {lsn}KEND");
    let bytes = &mut segment.bytes;
    let at = bytes.windows(needle.len()).position(|window| window == needle.as_bytes()).expect("it is there");
    bytes[at] ^= 0xFF;
}

#[test]
fn a_sound_log_has_no_wounds_and_a_torn_tail_is_none() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let torn = segment.group(2, durable(0));
    segment.group(2, durable(2));
    segment.damage(torn);
    let (read, found) = of(&[&segment]);
    assert_eq!((read, found.wounds.len(), found.next_lsn), (vec![1, 2], 0, Lsn(3)));
}

#[test]
fn behind_a_bad_group_that_was_durable_the_log_goes_on() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let bad = segment.group(3, durable(2));
    segment.group(2, durable(5));
    segment.group(1, durable(7));
    // The header, and with it the length: nothing of the group is whole, and each of its entries is.
    segment.damage(bad);
    let (read, found) = of(&[&segment]);
    assert_eq!(read, [1, 2, 3, 4, 5, 6, 7, 8]);
    let wound = only(&found);
    assert_eq!((wound.offset, wound.end, wound.lsns, wound.saved), (bad, Some(bad + BLOCK), Some((Lsn(3), Lsn(5))), 3));
    damage_entry(&mut segment, 4);
    let (read, found) = of(&[&segment]);
    assert_eq!((read, only(&found).saved), (vec![1, 2, 3, 5, 6, 7, 8], 2));
}

#[test]
fn a_tail_behind_damage_is_still_decided_as_a_tail() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let bad = segment.group(1, durable(2));
    segment.group(1, durable(3));
    let torn = segment.group(1, durable(3));
    segment.group(1, durable(3));
    segment.damage(bad);
    segment.damage(torn);
    let (read, found) = of(&[&segment]);
    assert_eq!(read, [1, 2, 3, 4], "what lies behind the torn group is dead");
    assert_eq!((only(&found).offset, found.next_lsn, found.lost_bytes), (bad, Lsn(5), None));
}

#[test]
fn what_lies_behind_a_recorded_end_stays_dead() {
    let mut old = first_segment();
    let bad = old.group(1, durable(0));
    old.group(2, durable(0));
    let end = old.end();
    let dead = old.group(3, durable(0));
    let mut new = Segment::new(2, 2, end, 3, None);
    new.group(2, durable(3));
    old.damage(bad);
    damage_entry(&mut old, 1);
    let (read, _) = surveyed(&*disk_of(&[&old, &new]).vfs());
    assert_eq!(lsns(&read), [2, 3, 4, 5]);
    assert!(read.iter().all(|(_, path, offset)| path != "wal/0000000001.wal" || *offset < dead), "{read:?}");
}

#[test]
fn damage_up_to_the_recorded_end_does_not_reach_behind_it() {
    let mut old = first_segment();
    old.group(2, durable(0));
    let bad = old.group(2, durable(2));
    let end = old.end();
    old.group(2, durable(2));
    let mut new = Segment::new(2, 2, end, 4, None);
    new.group(1, durable(4));
    old.damage(bad);
    damage_entry(&mut old, 3);
    damage_entry(&mut old, 4);
    let (read, found) = of(&[&old, &new]);
    assert_eq!((read, only(&found).end, only(&found).lsns), (vec![1, 2, 5], Some(end.offset), Some((Lsn(3), Lsn(4)))));
}

/// The header of the missing segment would have told where the log before it ends.
#[test]
fn what_a_missing_segment_may_have_superseded_is_left_out() {
    let mut first = first_segment();
    first.group(2, durable(0));
    first.group(1, durable(2));
    let mut second = Segment::new(2, 2, first.end(), 3, None);
    second.group(2, durable(3));
    let mut third = Segment::new(3, 3, second.end(), 5, None);
    third.group(1, durable(5));
    let (read, found) = of(&[&first, &third]);
    assert_eq!(read, [1, 2, 6], "nothing of its own epoch proves LSN 3");
    let kinds: Vec<Kind> = found.wounds.iter().map(|wound| wound.kind).collect();
    assert_eq!(kinds, [Kind::Doubtful, Kind::SegmentMissing]);
    assert_eq!(found.wounds[1].lsns, Some((Lsn(4), Lsn(5))));

    // A later segment of the same epoch proves all of it: nothing was cut off in between.
    let mut second = Segment::new(2, 1, first.end(), 3, None);
    second.group(2, durable(3));
    let mut third = Segment::new(3, 1, second.end(), 5, None);
    third.group(1, durable(5));
    let (read, found) = of(&[&first, &third]);
    assert_eq!((read, only(&found).lsns), (vec![1, 2, 3, 6], Some((Lsn(4), Lsn(5)))));
}

#[test]
fn a_segment_without_its_header_is_taken_by_its_first_group() {
    let mut first = first_segment();
    first.group(2, durable(0));
    // Idle, and so proven: what is not, recovery writes anew.
    first.group(0, durable(2));
    let end = first.end();
    let mut second = Segment::new(2, 2, end, 2, None);
    second.group(2, durable(2));
    let mut third = Segment::new(3, 2, second.end(), 4, None);
    third.group(1, durable(4));
    second.bytes[100] ^= 1;
    for segments in [&[&first, &second][..], &[&first, &second, &third]] {
        let (read, found) = of(segments);
        assert_eq!(read, [1, 2, 3, 4, 5][..2 * segments.len().min(2) + segments.len() - 2], "{:?}", found.wounds);
        assert_eq!(only(&found).kind, Kind::SegmentHeader);
    }
}

/// A card that lost its first blocks: header and first group are gone, the others tell what the file is.
#[test]
fn a_segment_without_its_beginning_is_taken_by_its_other_groups() {
    let mut first = first_segment();
    first.group(2, durable(0));
    first.group(0, durable(2));
    let mut second = Segment::new(2, 1, first.end(), 2, None);
    second.group(2, durable(2));
    second.group(2, durable(4));
    second.group(1, durable(6));
    let mut third = Segment::new(3, 1, second.end(), 7, None);
    third.group(1, durable(7));
    second.bytes[..4176].fill(0);
    for (segments, last) in [(&[&first, &second][..], 7), (&[&first, &second, &third], 8)] {
        let (read, found) = of(segments);
        let expected: Vec<u64> = (1..=last).collect();
        let saved: u64 = found.wounds.iter().map(|wound| wound.saved).sum();
        assert_eq!((read, saved), (expected, 2), "{:?}", found.wounds);
    }
    second.bytes[..5000].fill(0);
    let (read, found) = of(&[&first, &second, &third]);
    assert_eq!(read, [1, 2, 5, 6, 7, 8]);
    assert_eq!(found.wounds.last().and_then(|wound| wound.lsns), Some((Lsn(3), Lsn(4))));
}

#[test]
fn an_epoch_that_goes_on_in_the_same_segment_is_reached_over_damage() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let end = segment.end();
    let bad = segment.group(0, marker(2));
    segment.begin_epoch(end);
    let start = segment.group(2, durable(2));
    segment.group(1, durable(4));
    segment.damage(bad);
    segment.damage(start);
    let (read, found) = of(&[&segment]);
    assert_eq!(read, [1, 2, 3, 4, 5], "the salt of the new epoch is told by its other groups");
    assert_eq!((only(&found).lsns, only(&found).saved), (Some((Lsn(3), Lsn(4))), 2));
}

/// A log that rotated, was closed before it had another entry, and went on behind a marker that a power cut took then.
#[test]
fn a_lost_marker_in_a_segment_without_entries_hides_nothing_beside_damage() {
    let mut first = first_segment();
    let bad = first.group(2, durable(0));
    let mut second = Segment::new(2, 1, first.end(), 2, None);
    let closed = second.end();
    let lost = second.group(0, marker(2));
    second.begin_epoch(closed);
    second.group(1, durable(2));
    second.bytes[lost as usize..][..BLOCK_BYTES].fill(0);
    assert_eq!(of(&[&first, &second]).0, [1, 2, 3], "as replay takes it");
    first.damage(bad);
    let (read, found) = of(&[&first, &second]);
    assert_eq!(read, [1, 2, 3]);
    assert_eq!((only(&found).file.as_str(), only(&found).saved), (first.path(), 2));
}

#[test]
fn a_lost_marker_behind_a_gap_hides_nothing_beside_damage() {
    let gap = Gap { first: Lsn(3), last: Lsn(51), cause: GapCause::UncleanNormal };
    let mut first = first_segment();
    let bad = first.group(2, durable(0));
    let mut second = Segment::new(2, 2, first.end(), 2, Some(gap));
    let closed = second.end();
    let lost = second.group(0, marker(51));
    second.begin_epoch(closed);
    second.group(1, durable(51));
    second.bytes[lost as usize..][..BLOCK_BYTES].fill(0);
    assert_eq!(of(&[&first, &second]).0, [1, 2, 52], "as replay takes it");
    first.damage(bad);
    let (read, found) = of(&[&first, &second]);
    assert_eq!((read, &found.gaps), (vec![1, 2, 52], &vec![gap]));
    assert_eq!(only(&found).file, first.path());
}

#[test]
fn an_unreadable_range_is_damage_and_never_the_end_of_the_log() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let disk = disk_of(&[&segment]);
    disk.fail(Fault::nth(OpClass::Read, 2, FaultKind::Eio).and_after());
    let unreadable = Unreadable::default();
    let vfs = disk.vfs();
    let tolerant = Tolerant::new(&*vfs, unreadable.clone());
    let manifest = Manifest::birth(STORE);
    let files = WalFiles::scan(&tolerant, STORE, 1).expect("it can be listed");
    let mut wounds = survey(&files, &manifest, Extent::Whole).expect("damage is no error").wounds;
    unreadable.explain(&mut wounds);
    assert!(!wounds.is_empty());
    assert!(wounds.iter().all(|wound| wound.what.contains("the device cannot read it")), "{wounds:?}");
    let outcome = survey(&WalFiles::scan(&*vfs, STORE, 1).unwrap_or_default(), &manifest, Extent::Whole);
    assert!(!matches!(outcome, Err(Error::Corrupt(_))));
}

/// Three epochs over four segments: rotation, a clean close and a new epoch behind it, an unclean end.
fn long_log() -> (Vec<Segment>, Vec<LogEnd>) {
    let mut first = first_segment();
    first.group(3, durable(0));
    first.group(2, durable(3));
    let mut second = Segment::new(2, 1, first.end(), 5, None);
    second.group(2, durable(5));
    let closed = second.end();
    second.group(0, marker(7));
    second.begin_epoch(closed);
    second.group(3, durable(7));
    second.group(1, durable(10));
    let end = second.end();
    second.group(4, durable(10));
    let mut third = Segment::new(3, 3, end, 11, None);
    third.group(2, durable(11));
    third.group(2, durable(13));
    let mut fourth = Segment::new(4, 3, third.end(), 15, None);
    fourth.group(2, durable(15));
    fourth.group(0, marker(17));
    let ends = vec![first.end(), end, third.end()];
    (vec![first, second, third, fourth], ends)
}

fn save(disk: &SimDisk, segment: &Segment) {
    disk.write_file(&segment.active.path, &segment.bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(4), failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    /// Whatever is damaged: what is returned is what was written, in order, nothing dead, and a hole is always told.
    #[test]
    fn damage_anywhere_brings_nothing_back_and_hides_nothing(
        hits in prop::collection::vec((0..4_usize, 0..28_672_usize, prop_oneof![Just(1_usize), 1..9000_usize]), 1..5),
        lost in prop::option::weighted(0.2, 0..4_usize),
    ) {
        let (mut segments, ends) = long_log();
        let sound = of(&segments.iter().collect::<Vec<_>>());
        prop_assert_eq!(&sound.0, &(1..=17).collect::<Vec<u64>>());
        for (segment, offset, len) in hits {
            let bytes = &mut segments[segment].bytes;
            let end = (offset + len).min(bytes.len());
            bytes[offset..end].iter_mut().for_each(|byte| *byte ^= 0x5A);
        }
        let disk = SimDisk::new(1);
        let kept = segments.iter().enumerate().filter(|(index, _)| Some(*index) != lost);
        kept.for_each(|(_, segment)| save(&disk, segment));
        let (read, found) = surveyed_up_to(&*disk.vfs(), 4);
        for (lsn, path, offset) in &read {
            prop_assert!((1..=17).contains(lsn));
            // A segment whose header is lost and whose groups all lie below the log's end is what an unfinished recovery
            // leaves: then replay takes the originals, which are the same.
            for end in ends.iter().filter(|_| found.replay.is_none()) {
                prop_assert!(*path != crate::wal::path(end.segment) || *offset < end.offset, "dead: {} {}", path, offset);
            }
        }
        let next = found.next_lsn.0;
        let holes = (1..next).any(|lsn| !read.iter().any(|(found, ..)| *found == lsn));
        prop_assert!(!holes || !found.wounds.is_empty());
        prop_assert_eq!(found.wounds.is_empty(), found.replay.is_some());
    }
}

/// The numbers of dead groups may join with those of a segment that lies two further on.
#[test]
fn a_lost_header_behind_a_missing_segment_does_not_bring_dead_groups_back() {
    let (mut segments, ends) = long_log();
    segments[3].bytes[0] ^= 0x5A;
    let (read, _) = surveyed(&*disk_of(&[&segments[0], &segments[1], &segments[3]]).vfs());
    assert_eq!(lsns(&read), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 17]);
    assert!(read.iter().all(|(_, path, offset)| path != "wal/0000000002.wal" || *offset < ends[1].offset));
}

//! What a new life does with the end of the last one.

use super::*;
use crate::format::GapCause;
use crate::wal::recovery::{Plan, Recovered, plan, read};

fn recovered(segments: &[&Segment]) -> Recovered {
    let disk = disk_of(segments);
    let manifest = Manifest::birth(STORE);
    let files = WalFiles::scan(&*disk.vfs(), STORE, 1).expect("the files are sound");
    read(&files, &manifest, 1 << 16).expect("the log is sound")
}

fn unproven(recovered: &Recovered) -> Vec<(u64, u32)> {
    recovered.unproven.iter().map(|group| (group.first_lsn.0, group.entry_count)).collect()
}

#[test]
fn only_what_nothing_proves_durable_is_written_anew() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let end = segment.end();
    segment.group(3, durable(2));
    segment.group(1, durable(2));
    let recovered = recovered(&[&segment]);
    assert_eq!(unproven(&recovered), [(3, 3), (6, 1)]);
    let (plan, next) = plan(&recovered);
    let expected = Plan::NewSegment { prev_end: end, gap: None, takes_over: None, at_once: true };
    assert_eq!((plan, next), (expected, Lsn(7)));
    assert_eq!(recovered.memtable.range(), Some((Lsn(1), Lsn(6))));
}

#[test]
fn the_header_of_the_next_segment_proves_what_lies_before_it() {
    let mut old = first_segment();
    old.group(2, durable(0));
    let new = Segment::new(2, 1, old.end(), 2, None);
    assert!(unproven(&recovered(&[&old, &new])).is_empty());
}

#[test]
fn a_clean_close_goes_on_in_the_same_segment() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let end = segment.end();
    segment.group(0, marker(2));
    let (plan, next) = plan(&recovered(&[&segment]));
    let Plan::Continue { newest, prev_end } = plan else { panic!("{plan:?}") };
    assert_eq!((prev_end, newest.offset, next), (end, segment.active.offset, Lsn(3)));
}

#[test]
fn never_behind_a_cut() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let end = segment.end();
    segment.group(0, marker(2));
    segment.begin_epoch(end);
    let torn = segment.group(1, durable(2));
    segment.bytes[torn as usize + 150] ^= 1;
    let (plan, next) = plan(&recovered(&[&segment]));
    assert!(matches!(plan, Plan::NewSegment { prev_end, .. } if prev_end == end), "{plan:?}");
    assert_eq!(next, Lsn(3));
}

#[test]
fn normal_mode_leaves_a_gap_of_what_may_have_been_confirmed() {
    let mut segment = first_segment();
    segment.group(2, Says { mode: FlushMode::Normal, ..durable(0) });
    let (plan, next) = plan(&recovered(&[&segment]));
    let gap = Gap { first: Lsn(3), last: Lsn(51), cause: GapCause::UncleanNormal };
    assert!(matches!(plan, Plan::NewSegment { gap: Some(found), at_once: true, .. } if found == gap), "{plan:?}");
    assert_eq!(next, Lsn(52));
}

#[test]
fn an_epoch_without_a_group_is_superseded_with_its_links_and_its_gap() {
    let mut old = first_segment();
    old.group(2, Says { mode: FlushMode::Normal, ..durable(0) });
    let gap = Gap { first: Lsn(3), last: Lsn(51), cause: GapCause::UncleanNormal };
    let new = Segment::new(2, 2, old.end(), 2, Some(gap));
    let (plan, next) = plan(&recovered(&[&old, &new]));
    let Plan::NewSegment { prev_end, gap: carried, takes_over, at_once } = plan else { panic!("{plan:?}") };
    // The process that wrote the header may have been killed before it was durable, and a reader has been told of the gap.
    assert_eq!((prev_end, carried, at_once), (old.end(), Some(gap), true));
    assert_eq!(takes_over.map(|newest| newest.segment), Some(2));
    assert_eq!(next, Lsn(52));
}

#[test]
fn an_unproven_epoch_start_is_cut_before_its_link() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let end = segment.end();
    segment.group(0, marker(2));
    segment.begin_epoch(end);
    segment.group(1, durable(2));
    let recovered = recovered(&[&segment]);
    assert_eq!(unproven(&recovered), [(3, 1)]);
    let (plan, _) = plan(&recovered);
    // The old epoch's run ends there: its salt, and before the marker.
    assert!(matches!(plan, Plan::NewSegment { prev_end, .. } if prev_end == end), "{plan:?}");
}

#[test]
fn entries_that_tables_hold_are_not_replayed_into_memory() {
    let mut segment = first_segment();
    segment.group(5, durable(0));
    segment.group(1, durable(5));
    let disk = disk_of(&[&segment]);
    let manifest = Manifest { checkpoint_lsn: Lsn(3), ..Manifest::birth(STORE) };
    let files = WalFiles::scan(&*disk.vfs(), STORE, 1).expect("the files are sound");
    let recovered = read(&files, &manifest, 1 << 16).expect("the log is sound");
    assert_eq!((recovered.memtable.range(), recovered.memtable.count()), (Some((Lsn(4), Lsn(6))), 3));
}

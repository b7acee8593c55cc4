//! What a reader returns, on stores built by hand.

use super::*;
use crate::format::manifest::Manifest;
use crate::format::record::LogEnd;
use crate::format::{GapCause, Lsn};
use crate::sim::SimDisk;
use crate::wal::tests::{STORE, Segment, disk_of, durable, first_segment, marker};

/// A store whose log is these segments.
fn store(segments: &[&Segment], manifest: &Manifest) -> SimDisk {
    let disk = disk_of(segments);
    disk.write_file("MANIFEST-0000000001", &manifest.encode());
    disk
}

fn birth() -> Manifest {
    Manifest::birth(STORE)
}

/// LSNs of the range, `Err` where something cannot be read.
fn scan(reader: &Reader, range: ScanRange) -> (Vec<Result<u64, String>>, Vec<Notice>) {
    let mut scan = reader.scan(range).expect("the store can be read");
    let mut found = Vec::new();
    loop {
        match scan.next_entry() {
            Ok(Some(entry)) => {
                assert_eq!(entry.payload, format!("entry {}", entry.lsn).as_bytes());
                found.push(Ok(entry.lsn.0));
            }
            Ok(None) => return (found, scan.notices()),
            Err(cause) => found.push(Err(cause.to_string())),
        }
    }
}

fn lsns(reader: &Reader, range: ScanRange) -> Vec<u64> {
    scan(reader, range).0.into_iter().map(|found| found.expect("it can be read")).collect()
}

#[test]
fn beside_a_writer_only_what_is_proven_durable_counts() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    segment.group(2, durable(2));
    let disk = store(&[&segment], &birth());
    assert_eq!(lsns(&Reader::of(disk.vfs(), true), ScanRange::default()), [1, 2]);
    let (found, notices) = scan(&Reader::of(disk.vfs(), false), ScanRange::default());
    assert_eq!(found, [Ok(1), Ok(2), Ok(3), Ok(4)]);
    assert_eq!(notices, [Notice::Unconfirmed(Lsn(3))]);
    assert_eq!(Reader::of(disk.vfs(), true).stats().expect("it is sound").entries, 2);
}

#[test]
fn a_writer_vouches_for_what_validates_and_for_nothing_else() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    segment.group(2, durable(2));
    let hole = segment.group(1, durable(2));
    segment.group(1, durable(4));
    let read = |segment: &Segment, vouched: Option<u64>| {
        let writer = Writer::new(|| true, move || vouched.map(Lsn));
        scan(&Reader::beside(store(&[segment], &birth()).vfs(), writer), ScanRange::default())
    };
    let some = |lsns: &[u64]| lsns.iter().map(|&lsn| Ok(lsn)).collect::<Vec<_>>();
    assert_eq!(read(&segment, None).0, some(&[1, 2, 3, 4]), "the last group proves the first two");
    assert_eq!(read(&segment, Some(0)).0, some(&[1, 2, 3, 4]), "what is proven needs no word");
    assert_eq!(read(&segment, Some(5)), (some(&[1, 2, 3, 4, 5]), vec![]));
    assert_eq!(read(&segment, Some(u64::MAX)), (some(&[1, 2, 3, 4, 5, 6]), vec![]), "no more than there is");
    segment.damage(hole);
    for vouched in [5, 6, u64::MAX] {
        assert_eq!(read(&segment, Some(vouched)).0, some(&[1, 2, 3, 4]), "nothing behind a hole");
    }
}

#[test]
fn a_writer_is_not_asked_where_there_is_none() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let writer = Writer::new(|| false, || panic!("nobody is there to ask"));
    let (found, notices) = scan(&Reader::beside(store(&[&segment], &birth()).vfs(), writer), ScanRange::default());
    assert_eq!((found, notices), (vec![Ok(1), Ok(2)], vec![Notice::Unconfirmed(Lsn(1))]));
}

#[test]
fn a_cleanly_closed_log_is_all_proven() {
    let mut segment = first_segment();
    segment.group(4, durable(0));
    segment.group(0, marker(4));
    let disk = store(&[&segment], &birth());
    for writer_alive in [false, true] {
        let (found, notices) = scan(&Reader::of(disk.vfs(), writer_alive), ScanRange::default());
        assert_eq!((found.len(), notices.len()), (4, 0));
    }
}

#[test]
fn ranges_by_number_and_time_in_both_directions() {
    let mut segment = first_segment();
    for group in 0..5 {
        segment.group(2, durable(2 * group));
    }
    segment.group(0, marker(10));
    let reader = Reader::of(store(&[&segment], &birth()).vfs(), false);
    let range = ScanRange { from_lsn: Lsn(3), to_lsn: Lsn(7), ..ScanRange::default() };
    assert_eq!(lsns(&reader, range), [3, 4, 5, 6, 7]);
    assert_eq!(lsns(&reader, ScanRange { reverse: true, ..range }), [7, 6, 5, 4, 3]);
    // Entry n has timestamp 1000 + n.
    let range = ScanRange { from_ns: 1004, to_ns: 1005, ..ScanRange::default() };
    assert_eq!(lsns(&reader, range), [4, 5]);
    assert_eq!(lsns(&reader, ScanRange { from_ns: 1011, ..ScanRange::default() }), [0; 0]);
}

/// What a reader passes by must not matter: it gets what it would get from all that there is, whatever the clock did.
#[test]
fn a_range_of_time_is_what_a_full_scan_has_of_it() {
    let mut first = first_segment();
    first.group(3, durable(0));
    first.group(3, durable(3));
    // Back, inside a group: what follows is of 1001 to 1009.
    first.step_clock(8, 1001);
    first.group(4, durable(6));
    first.group(6, durable(10));
    let mut second = Segment::new(2, 1, first.end(), 16, None);
    second.step_clock(17, 5000);
    second.group(2, durable(16));
    second.step_clock(20, 1003);
    second.group(3, durable(18));
    second.group(2, durable(21));
    let reader = Reader::of(store(&[&first, &second], &birth()).vfs(), false);
    let mut all = Vec::new();
    let mut scan = reader.scan(ScanRange::default()).expect("it can be read");
    while let Some(entry) = scan.next_entry().expect("it is sound") {
        all.push((entry.lsn.0, entry.timestamp_ns));
    }
    assert_eq!(all.len(), 23);
    let times = [0, 1000, 1001, 1002, 1003, 1004, 1006, 1007, 1009, 4999, 5000, 5001, u64::MAX];
    for (from_ns, to_ns) in times.into_iter().flat_map(|from_ns| times.map(|to_ns| (from_ns, to_ns))) {
        let inside = |&&(_, at_ns): &&(u64, u64)| (from_ns..=to_ns).contains(&at_ns);
        let mut expected: Vec<u64> = all.iter().filter(inside).map(|&(lsn, _)| lsn).collect();
        let range = ScanRange { from_ns, to_ns, ..ScanRange::default() };
        assert_eq!(lsns(&reader, range), expected, "{from_ns}..={to_ns}");
        expected.reverse();
        assert_eq!(lsns(&reader, ScanRange { reverse: true, ..range }), expected, "{from_ns}..={to_ns}");
    }
}

#[test]
fn damage_is_reported_where_its_turn_comes() {
    let mut segment = first_segment();
    segment.group(2, durable(0));
    let hole = segment.group(1, durable(2));
    segment.group(1, durable(3));
    segment.damage(hole);
    let reader = Reader::of(store(&[&segment], &birth()).vfs(), false);
    let (found, _) = scan(&reader, ScanRange::default());
    assert_eq!(found.len(), 5, "{found:?}");
    // Only the group's header is hit: its entry is there all the same, and so is what lies behind it.
    assert_eq!((&found[..2], &found[3..]), (&[Ok(1), Ok(2)][..], &[Ok(3), Ok(4)][..]));
    assert!(found[2].as_ref().is_err_and(|what| what.contains("wal/0000000001.wal") && what.contains("LSN 3")));
    let (found, _) = scan(&reader, ScanRange { reverse: true, ..ScanRange::default() });
    assert!(found[2].is_err() && found[..2] == [Ok(4), Ok(3)] && found[3..] == [Ok(2), Ok(1)], "{found:?}");
    let below = ScanRange { to_lsn: Lsn(2), ..ScanRange::default() };
    assert_eq!(lsns(&reader, below), [1, 2], "what was asked for is not damaged");
    assert!(reader.stats().is_err());
}

#[test]
fn gaps_steps_and_expiry_inside_the_range_are_told() {
    let gap = Gap { first: Lsn(3), last: Lsn(51), cause: GapCause::UncleanNormal };
    let step = ClockStep { lsn: Lsn(2), from_ns: 500, to_ns: 1002 };
    let mut old = first_segment();
    old.group(2, durable(0));
    let mut new = Segment::new(2, 2, old.end(), 2, Some(gap));
    new.group(1, durable(51));
    new.group(0, marker(52));
    let manifest = Manifest { clock_steps: vec![step], ..birth() };
    let reader = Reader::of(store(&[&old, &new], &manifest).vfs(), false);
    let (found, notices) = scan(&reader, ScanRange::default());
    assert_eq!(found, [Ok(1), Ok(2), Ok(52)]);
    assert_eq!(notices, [Notice::Gap(gap), Notice::ClockStepped(step)]);
    let behind = ScanRange { from_lsn: Lsn(52), ..ScanRange::default() };
    assert_eq!(scan(&reader, behind).1, []);
    let later = ScanRange { from_ns: 1003, ..ScanRange::default() };
    assert_eq!(scan(&reader, later).1, [Notice::Gap(gap)]);

    let end = LogEnd { segment: 3, salt: 1, offset: 4096, last_lsn: Lsn(10) };
    let mut segment = Segment::new(4, 1, end, 10, None);
    segment.group(1, durable(10));
    segment.group(0, marker(11));
    let manifest = Manifest { floor_lsn: Lsn(11), checkpoint_lsn: Lsn(10), first_segment: 4, ..birth() };
    let reader = Reader::of(store(&[&segment], &manifest).vfs(), false);
    assert_eq!(
        scan(&reader, ScanRange::default()),
        (vec![Ok(11)], vec![Notice::Expired { floor_lsn: Lsn(11), until_ns: 0 }])
    );
}

//! Many entries through the smallest memtable and segments, while tables are flushed and merged behind them.

use kifa::{FlushMode, Reader, ScanRange};

use crate::helper::*;

#[test]
fn sixty_thousand_entries_of_4000_bytes() {
    through_tiny_parts(60_000, 4000, FlushMode::Cautious);
}

#[test]
fn a_million_entries_of_200_bytes() {
    through_tiny_parts(1_000_000, 200, FlushMode::Cautious);
}

#[test]
fn fifty_thousand_entries_of_200_bytes_in_normal_mode() {
    through_tiny_parts(50_000, 200, FlushMode::Normal);
}

fn through_tiny_parts(count: u64, bytes: usize, mode: FlushMode) {
    let dir = temp();
    let mut options = tiny();
    options.flush_mode = mode;
    let log = open(dir.path(), options.clone());
    fill(&log, 0..count, bytes);
    let stats = log.stats().unwrap();
    assert!(stats.tables > 0 && stats.checkpoint_lsn.0 > 0, "tables were flushed meanwhile: {stats:?}");
    assert_eq!(stats.confirmed_lsn.0, count);
    log.close().unwrap();
    check(dir.path(), count, bytes);
    let log = open(dir.path(), options);
    assert!(log.stats().unwrap().recovery.clean);
    let stats = Reader::open(dir.path()).unwrap().stats().unwrap();
    assert_eq!((stats.entries, stats.gaps.len()), (count, 0));
    log.close().unwrap();
    check(dir.path(), count, bytes);
}

/// All there, in order, and the same backward and by random ranges of LSN and time.
fn check(dir: &std::path::Path, count: u64, bytes: usize) {
    let reader = Reader::open(dir).unwrap();
    let mut times = Vec::with_capacity(count as usize);
    let mut scan = reader.scan(ScanRange::default()).unwrap();
    while let Some(entry) = scan.next_entry().unwrap() {
        let id = times.len() as u64;
        assert_eq!(entry.lsn.0, id + 1);
        assert!(entry.payload == payload(id, bytes), "LSN {}", entry.lsn);
        times.push(entry.timestamp_ns);
    }
    assert_eq!(times.len() as u64, count);
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "timestamps rise strictly");

    let mut backward = ScanRange::default();
    backward.reverse = true;
    let mut scan = reader.scan(backward).unwrap();
    let mut left = count;
    while let Some(entry) = scan.next_entry().unwrap() {
        assert_eq!((entry.lsn.0, id_of(entry.payload), entry.payload.len()), (left, left - 1, bytes));
        left -= 1;
    }
    assert_eq!(left, 0);

    let mut random = Random(count ^ bytes as u64);
    for _ in 0..20 {
        let from = random.below(count) + 1;
        let to = (from + random.below(2000)).min(count);
        let expected: Vec<u64> = (from..=to).collect();
        let mut by_lsn = lsns(from, to);
        let mut by_time = ScanRange::default();
        (by_time.from_ns, by_time.to_ns) = (times[from as usize - 1], times[to as usize - 1]);
        for reverse in [false, true] {
            (by_lsn.reverse, by_time.reverse) = (reverse, reverse);
            for range in [by_lsn, by_time] {
                let mut found: Vec<u64> = Vec::new();
                let mut scan = reader.scan(range).unwrap();
                while let Some(entry) = scan.next_entry().unwrap() {
                    assert_eq!(id_of(entry.payload) + 1, entry.lsn.0);
                    found.push(entry.lsn.0);
                }
                if reverse {
                    found.reverse();
                }
                assert_eq!(found, expected, "{range:?}");
            }
        }
    }
}

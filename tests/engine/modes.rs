//! Flush modes: what each promises, how many syncs it costs, and switching between them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kifa::{Batch, FlushMode, Log, Lsn, Reader};

use crate::helper::*;

const MODES: [FlushMode; 3] = [FlushMode::Normal, FlushMode::Cautious, FlushMode::Emergency];

#[test]
fn switching_all_ways_under_load() {
    let dir = temp();
    let log = open(dir.path(), tiny());
    let stop = AtomicBool::new(false);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (log, stop, next) = (&log, &stop, &next);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    log.append(&payload(next.fetch_add(1, Ordering::Relaxed), 300)).unwrap();
                }
            });
        }
        for round in 0..10 {
            for (from, to) in MODES.iter().flat_map(|from| MODES.map(|to| (*from, to))) {
                for mode in [from, to] {
                    log.set_flush_mode(mode).unwrap();
                    assert_eq!(log.flush_mode(), mode, "round {round}");
                    check_promise(&log, mode);
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let entries = next.into_inner();
    assert!(entries > 100, "only {entries} entries: that was no load");
    log.close().unwrap();
    let found = read_all(dir.path());
    assert_eq!(found.len() as u64, entries);
    let mut ids: Vec<u64> = found.iter().map(|entry| id_of(&entry.payload)).collect();
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(0..entries), "each entry once");
    assert!(found.iter().zip(1..).all(|(entry, lsn)| entry.lsn == lsn), "no gaps");
}

fn check_promise(log: &Log, mode: FlushMode) {
    let stats = log.stats().unwrap();
    let at_risk = stats.confirmed_lsn.0 - stats.durable_lsn.0;
    assert_eq!(stats.flush_mode, mode);
    assert!(at_risk <= if mode == FlushMode::Normal { 49 } else { 0 }, "{at_risk} entries at risk in {mode:?}");
}

/// Appends until some entry is confirmed ahead of durable; returns the number of entries.
fn put_at_risk(log: &Log) -> u64 {
    let mut entries = 0;
    wait_until("normal mode confirms ahead of durable", Duration::from_secs(10), || {
        append(log, entries..entries + 1, 100);
        entries += 1;
        let stats = log.stats().unwrap();
        stats.durable_lsn < stats.confirmed_lsn
    });
    entries
}

/// Entries that arrive between the decision not to sync and the write count, too.
#[test]
fn many_producers_in_normal_mode_never_put_more_than_49_entries_at_risk() {
    let dir = temp();
    let log = open(dir.path(), in_mode(FlushMode::Normal));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (log, begin) = (&log, &begin);
            scope.spawn(move || {
                let mut batch = Batch::new();
                batch.push(&payload(thread, 20)).unwrap();
                while begin.elapsed() < Duration::from_secs(2) {
                    // A handful at a time: groups stay near the limit, and others arrive while it is looked at.
                    let tickets: Vec<_> = (0..6).map(|_| log.submit(&batch).unwrap()).collect();
                    for ticket in tickets {
                        ticket.wait().unwrap();
                    }
                }
            });
        }
        while begin.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(50));
            check_promise(&log, FlushMode::Normal);
        }
    });
    log.close().unwrap();
}

#[test]
fn leaving_normal_mode_makes_everything_durable() {
    for mode in [FlushMode::Cautious, FlushMode::Emergency] {
        let dir = temp();
        let log = open(dir.path(), in_mode(FlushMode::Normal));
        let entries = put_at_risk(&log);
        log.set_flush_mode(mode).unwrap();
        assert_eq!(log.stats().unwrap().durable_lsn, Lsn(entries));
    }
}

#[test]
fn sync_makes_everything_durable_in_normal_mode() {
    let dir = temp();
    let log = open(dir.path(), in_mode(FlushMode::Normal));
    log.sync().unwrap();
    let entries = put_at_risk(&log);
    log.sync().unwrap();
    assert_eq!(log.stats().unwrap().durable_lsn, Lsn(entries));
}

/// Syncs per run of `appends` single appends, and the seconds it took (the clock adds a sync now and then).
fn syncs(mode: FlushMode, appends: u64) -> (u64, u64) {
    let dir = temp();
    let log = open(dir.path(), in_mode(mode));
    let begin = Instant::now();
    append(&log, 0..appends, 200);
    (log.stats().unwrap().syncs, begin.elapsed().as_secs())
}

#[test]
fn normal_mode_syncs_once_in_25_to_50_entries_and_the_others_each_time() {
    let (normal, seconds) = syncs(FlushMode::Normal, 2000);
    assert!((40..=82 + 2 * seconds).contains(&normal), "{normal} syncs for 2000 entries in {seconds} s");
    for mode in [FlushMode::Cautious, FlushMode::Emergency] {
        let (found, seconds) = syncs(mode, 100);
        assert!((100..=100 + seconds).contains(&found), "{found} syncs for 100 entries in {mode:?}");
    }
}

#[test]
fn an_idle_second_makes_normal_entries_durable_without_any_call() {
    let dir = temp();
    let log = open(dir.path(), in_mode(FlushMode::Normal));
    append(&log, 0..5, 200);
    // Beside a writer a reader returns only what is provably durable, so it sees the tick without asking the log.
    let begin = Instant::now();
    wait_until("the entries are durable", Duration::from_secs(4), || read_all(dir.path()).len() == 5);
    assert!(begin.elapsed() < Duration::from_millis(2500), "{:?}", begin.elapsed());
    let stats = log.stats().unwrap();
    assert_eq!((stats.confirmed_lsn, stats.durable_lsn), (Lsn(5), Lsn(5)));
    assert!(stats.syncs <= 3, "idle costs a sync or two, not {}", stats.syncs);
}

#[test]
fn the_mode_is_told_to_readers() {
    for mode in MODES {
        let dir = temp();
        let log = open(dir.path(), in_mode(mode));
        log.append(b"x").unwrap();
        assert_eq!((log.flush_mode(), log.stats().unwrap().flush_mode), (mode, mode));
        log.close().unwrap();
        assert_eq!(Reader::open(dir.path()).unwrap().stats().unwrap().flush_mode, mode);
    }
}

#[test]
fn emergency_mode_pauses_compaction_and_flushes_go_on() {
    let dir = temp();
    let mut options = tiny();
    options.flush_mode = FlushMode::Emergency;
    let log = open(dir.path(), options);
    let mut before = 0;
    for round in 0..20 {
        fill(&log, round * 300..(round + 1) * 300, 500);
        let tables = log.stats().unwrap().tables;
        assert!(tables >= before, "tables were merged: {before} became {tables}");
        before = tables;
    }
    assert!(before >= 10, "flushes go on: {before} tables");
    log.set_flush_mode(FlushMode::Cautious).unwrap();
    wait_until("compaction is resumed", Duration::from_secs(20), || log.stats().unwrap().tables < before / 2);
    log.close().unwrap();
    assert!(read_all(dir.path()).iter().map(|entry| id_of(&entry.payload)).eq(0..6000));
}

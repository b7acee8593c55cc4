//! What is handed over is what is stored: every byte, in order, once.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kifa::{Batch, ENTRY_PAYLOAD_BYTES_MAX, Error, Log, Lsn, Reader};

use crate::helper::*;

fn odd_payloads() -> Vec<Vec<u8>> {
    vec![
        Vec::new(),
        vec![0],
        vec![b'\n'],
        (0..=255).collect(),
        vec![0xFF; 5000],
        "naïve, дом, 猫, \u{1F408}".as_bytes().to_vec(),
        b"\xC3\x28 is not UTF-8".to_vec(),
        payload(7, 4096),
        payload(8, ENTRY_PAYLOAD_BYTES_MAX - 1),
        payload(9, ENTRY_PAYLOAD_BYTES_MAX),
    ]
}

#[test]
fn bytes_come_back_as_they_were_given() {
    for options in [options(), tiny()] {
        let dir = temp();
        let log = open(dir.path(), options.clone());
        let entries = odd_payloads();
        for (index, entry) in entries.iter().enumerate() {
            assert_eq!(log.append(entry).unwrap(), Lsn(index as u64 + 1));
        }
        log.close().unwrap();
        assert!(payloads(dir.path()) == entries);
        let log = open(dir.path(), options);
        assert!(payloads(dir.path()) == entries, "opening changes nothing");
        assert_eq!(log.append(b"one more").unwrap(), Lsn(entries.len() as u64 + 1));
        log.close().unwrap();
        let after = read_all(dir.path());
        assert_eq!(after.len(), entries.len() + 1);
        assert!(after.windows(2).all(|pair| pair[0].lsn + 1 == pair[1].lsn && pair[0].ns < pair[1].ns));
    }
}

#[test]
fn an_entry_over_the_limit_is_refused_and_nothing_is_stored() {
    let dir = temp();
    let log = open(dir.path(), options());
    log.append(b"before").unwrap();
    let refused = log.append(&vec![0; ENTRY_PAYLOAD_BYTES_MAX + 1]).unwrap_err();
    assert!(
        matches!(refused, Error::TooLarge { bytes, max } if bytes == max + 1 && max == ENTRY_PAYLOAD_BYTES_MAX),
        "{refused:?}"
    );
    let mut batch = Batch::new();
    batch.push(b"in the batch").unwrap();
    let bytes = batch.bytes();
    assert!(matches!(batch.push(&vec![0; ENTRY_PAYLOAD_BYTES_MAX + 1]), Err(Error::TooLarge { .. })));
    assert_eq!((batch.len(), batch.bytes()), (1, bytes), "the batch stays as it was");
    log.submit(&batch).unwrap().wait().unwrap();
    assert_eq!(log.append(b"after").unwrap(), Lsn(3));
    log.close().unwrap();
    assert_eq!(payloads(dir.path()), [&b"before"[..], b"in the batch", b"after"]);
}

#[test]
fn an_empty_batch_is_refused() {
    let dir = temp();
    let log = open(dir.path(), options());
    assert!(matches!(log.submit(&Batch::new()), Err(Error::InvalidOption(_))));
    assert_eq!(log.append(b"x").unwrap(), Lsn(1), "it took no LSN");
}

#[test]
fn a_batch_is_taken_up_to_its_limit_whatever_the_segment() {
    for options in [options(), tiny()] {
        let dir = temp();
        let log = open(dir.path(), options);
        let mut batch = Batch::new();
        let mut ids = 0;
        while batch.fits(1000) {
            batch.push(&payload(ids, 1000)).unwrap();
            ids += 1;
        }
        assert!(matches!(batch.push(&payload(ids, 1000)), Err(Error::TooLarge { max: Batch::BYTES_MAX, .. })));
        assert_eq!(batch.len() as u64, ids);
        for round in 0..3 {
            let range = log.submit(&batch).unwrap().wait().unwrap();
            assert_eq!((range.first, range.last), (Lsn(round * ids + 1), Lsn((round + 1) * ids)));
        }
        log.close().unwrap();
        let found = read_all(dir.path());
        assert_eq!(found.len() as u64, 3 * ids);
        for (index, entry) in found.iter().enumerate() {
            let id = index as u64 % ids;
            assert!((entry.lsn, &entry.payload) == (index as u64 + 1, &payload(id, 1000)), "LSN {}", entry.lsn);
        }
    }
}

#[test]
fn sixty_four_threads_append_at_once() {
    let dir = temp();
    let log = open(dir.path(), options());
    let told = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for thread in 0..64_u64 {
            let (log, told) = (&log, &told);
            scope.spawn(move || {
                let mut last = Lsn::ZERO;
                for index in 0..50 {
                    let id = thread << 32 | index;
                    let lsn = log.append(&payload(id, 100 + thread as usize)).unwrap();
                    assert!(lsn > last, "a thread's own entries are in its order");
                    last = lsn;
                    assert!(told.lock().unwrap().insert(lsn.0, id).is_none(), "LSN {lsn} was given twice");
                }
            });
        }
    });
    let stats = log.stats().unwrap();
    assert_eq!((stats.entries, stats.confirmed_lsn, stats.durable_lsn), (3200, Lsn(3200), Lsn(3200)));
    assert!(stats.groups < 3200, "group commit: {} groups", stats.groups);
    log.close().unwrap();
    let found = read_all(dir.path());
    assert_eq!(found.len(), 3200);
    for (entry, (lsn, id)) in found.iter().zip(told.into_inner().unwrap()) {
        assert_eq!(entry.lsn, lsn);
        assert!(entry.payload == payload(id, 100 + (id >> 32) as usize), "LSN {lsn}");
    }
}

#[test]
fn tickets_resolve_in_order() {
    let dir = temp();
    let log = open(dir.path(), tiny());
    let mut batch = Batch::new();
    batch.push(&payload(1, 2000)).unwrap();
    batch.push(&payload(2, 2000)).unwrap();
    let tickets: Vec<_> = (0..500).map(|_| log.submit(&batch).unwrap()).collect();
    loop {
        // From the back: a ticket found done proves all before it done, whatever resolves meanwhile.
        let done = tickets.iter().rposition(|ticket| ticket.is_done());
        if let Some(done) = done {
            assert!(tickets[..done].iter().all(|ticket| ticket.is_done()), "{done} is done before an earlier one");
        }
        if done == Some(tickets.len() - 1) {
            break;
        }
    }
    for (index, ticket) in tickets.iter().enumerate() {
        let range = ticket.wait().unwrap();
        assert_eq!((range.first.0, range.last.0), (2 * index as u64 + 1, 2 * index as u64 + 2));
    }
}

/// How many of 200 submissions returned before the one in front was confirmed.
fn unconfirmed_in_front(capacity: usize) -> usize {
    let dir = temp();
    let mut options = options();
    options.channel_capacity = capacity;
    let log = open(dir.path(), options);
    let mut batch = Batch::new();
    batch.push(&payload(1, 100)).unwrap();
    let mut ahead = 0;
    let mut before = log.submit(&batch).unwrap();
    for _ in 0..200 {
        let ticket = log.submit(&batch).unwrap();
        ahead += usize::from(!before.is_done());
        before = ticket;
    }
    ahead
}

#[test]
fn a_full_channel_makes_producers_wait() {
    assert_eq!(unconfirmed_in_front(1), 0, "with room for one batch, the next waits until it is confirmed");
    assert!(unconfirmed_in_front(64) > 0, "with more room it does not");
}

#[test]
fn dropping_a_log_closes_it() {
    let dir = temp();
    let log = open(dir.path(), options());
    let mut batch = Batch::new();
    batch.push(b"never waited for").unwrap();
    let ticket = log.submit(&batch).unwrap();
    drop(log);
    assert!(ticket.is_done());
    assert_eq!(ticket.wait().unwrap().first, Lsn(1));
    assert_eq!(payloads(dir.path()), [b"never waited for"]);
    let log = open(dir.path(), options());
    assert!(log.stats().unwrap().recovery.clean);
    assert_eq!(log.stats().unwrap().recovery.entries_replayed, 1);
}

#[test]
fn closing_and_opening_goes_on_where_it_was() {
    let dir = temp();
    for round in 0..100 {
        let log = open(dir.path(), tiny());
        assert!(log.stats().unwrap().recovery.clean, "round {round}");
        assert_eq!(log.append(&payload(round, 50)).unwrap(), Lsn(round + 1));
        log.close().unwrap();
    }
    let found = read_all(dir.path());
    assert_eq!(found.len(), 100);
    assert!(found.iter().zip(0..).all(|(entry, id)| entry.payload == payload(id, 50) && entry.lsn == id + 1));
    assert!(files(dir.path(), "wal", "").len() <= 5, "{:?}", files(dir.path(), "wal", ""));
    assert!(Reader::open(dir.path()).unwrap().stats().unwrap().gaps.is_empty());
}

#[test]
fn opening_a_thousand_times_costs_no_space() {
    let dir = temp();
    for entries in [0, 10] {
        let log = open(dir.path(), options());
        fill(&log, 0..entries, 100);
        log.close().unwrap();
        open(dir.path(), options()).close().unwrap();
        let before = contents(dir.path());
        let begin = Instant::now();
        for _ in 0..500 {
            drop(open(dir.path(), options()));
        }
        assert_unchanged(&before, dir.path());
        assert!(begin.elapsed() < Duration::from_secs(60));
        assert_eq!(payloads(dir.path()).len() as u64, entries);
    }
}

#[test]
fn a_log_can_be_shared_between_threads() {
    fn shareable<T: Send + Sync>() {}
    shareable::<Log>();
    shareable::<kifa::Ticket>();
    shareable::<Reader>();
}

//! How fast is a full scan of compressed tables that are not cached, and how much is read for a small range of a big
//! store?
//!
//! Cold means: the files were taken out of the page cache, which the device's own figure (the same tables, read past the
//! page cache) shares with the scan. That the scan really read from the device is shown by the bytes it read.

use std::time::{Duration, Instant};

use kifa::bench::{ProcessIo, median, read_bandwidth, turns};
use kifa::{Lsn, Reader, ScanRange};

use crate::common::store::Store;
use crate::common::{Bench, bytes_per_second, ceiling, floor};

/// Entries of the shared store.
pub(crate) fn store_entries(bench: &Bench) -> u64 {
    bench.pick(400_000, 50_000_000)
}

/// Entries of a full scan: the targets are stated for so many.
pub(crate) fn scan_entries(bench: &Bench) -> u64 {
    store_entries(bench).min(10_000_000)
}

pub(crate) fn run(bench: &mut Bench) {
    if bench.wants_any(&["scan", "range-100"]) {
        let store = Store::of(bench, store_entries(bench));
        if bench.wants("scan") {
            scan(bench, &store);
        }
        if bench.wants("range-100") {
            range_query(bench, &store);
        }
    }
}

fn scan(bench: &mut Bench, store: &Store) {
    let tables = store.tables();
    let slice = Duration::from_millis(bench.pick(200, 2000));
    let mut raw = || {
        let rate = read_bandwidth(&store.dir, &tables, slice).expect("the device works");
        Ok::<_, kifa::Error>(rate.per_second())
    };
    let entries = scan_entries(bench);
    let mut read_share = Vec::new();
    let mut rates = Vec::new();
    let mut subject = || {
        store.chill();
        let before = ProcessIo::now();
        let begin = Instant::now();
        let mut range = ScanRange::default();
        range.to_lsn = Lsn(entries);
        let (count, payload_bytes) = count(store, range)?;
        let seconds = begin.elapsed().as_secs_f64();
        assert_eq!(count, entries, "the scan returns every entry");
        read_share.push((ProcessIo::now().read - before.read) as f64 / payload_bytes as f64);
        rates.push(count as f64 / seconds);
        Ok(payload_bytes as f64 / seconds)
    };
    let measured = turns(bench.pick(2, 5), &mut raw, &mut [&mut subject]).expect("the store can be read");
    let more = format!(
        "; {:.2} M entries/s; read from the device: {:.2} per payload byte",
        median(&mut rates) / 1e6,
        median(&mut read_share)
    );
    bench.report_ratios("scan", "read-BW", floor(0.5, 1.0), &measured, &more, bytes_per_second);
}

/// Entries and payload bytes of a range.
fn count(store: &Store, range: ScanRange) -> kifa::Result<(u64, u64)> {
    let reader = Reader::open(&store.dir)?;
    let mut scan = reader.scan(range)?;
    let (mut entries, mut bytes) = (0, 0);
    while let Some(entry) = scan.next_entry()? {
        entries += 1;
        bytes += entry.payload.len() as u64;
    }
    Ok((entries, bytes))
}

/// Opens the store and reads 100 entries by their time, nothing cached, at places spread over the store.
fn range_query(bench: &mut Bench, store: &Store) {
    let places = bench.pick(5, 25);
    let (mut times_ms, mut shares) = (Vec::new(), Vec::new());
    for place in 0..places {
        let first = 1 + (store.entries - 100) / places * place;
        let range = times_of(store, first, first + 99).expect("the store can be read");
        store.chill();
        let before = ProcessIo::now();
        let begin = Instant::now();
        let (entries, _) = count(store, range).expect("the store can be read");
        times_ms.push(begin.elapsed().as_secs_f64() * 1e3);
        assert_eq!(entries, 100);
        shares.push((ProcessIo::now().read - before.read) as f64 / store.bytes() as f64 * 100.0);
    }
    let worst = times_ms.iter().copied().fold(0.0, f64::max);
    let note = format!("time range of 100 entries of {}, cold; worst {worst:.1} ms", store.entries);
    bench.report("range-100", "ms", ceiling(10.0, 3.0), &[median(&mut times_ms)], note);
    let note = format!("of {:.1} GB", store.bytes() as f64 / 1e9);
    // The share of a small store says nothing about a big one: its target is for the full run.
    let target = if bench.is_quick { None } else { ceiling(0.1, 0.1) };
    bench.report("range-100-read", "%", target, &[median(&mut shares)], note);
}

/// The time range of two entries and what lies between them.
fn times_of(store: &Store, first: u64, last: u64) -> kifa::Result<ScanRange> {
    let reader = Reader::open(&store.dir)?;
    let mut range = ScanRange::default();
    (range.from_lsn, range.to_lsn) = (Lsn(first), Lsn(last));
    let mut scan = reader.scan(range)?;
    let mut by_time = ScanRange::default();
    let mut is_first = true;
    while let Some(entry) = scan.next_entry()? {
        if std::mem::take(&mut is_first) {
            by_time.from_ns = entry.timestamp_ns;
        }
        by_time.to_ns = entry.timestamp_ns;
    }
    Ok(by_time)
}

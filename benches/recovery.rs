//! How long does it take to open a store that was killed with a full set of segments, against reading those segments at
//! the device's bandwidth? And a big one that was closed cleanly: does it cost more than a small one?
//!
//! The killed store is a copy of a running one at rest: byte for byte what a kill would leave.

use std::path::Path;
use std::time::{Duration, Instant};

use kifa::bench::load::{Blocking, settle};
use kifa::bench::{Histogram, median, read_bandwidth, turns};
use kifa::{FlushMode, Log};

use crate::common::store::{Store, chill, copy};
use crate::common::{BACKENDS, Bench, bytes_per_second, floor, options, remove};
use crate::read::store_entries;

/// Live segments at which a flush begins whatever the memtable holds.
const SEGMENTS_FULL: usize = 4;

pub(crate) fn run(bench: &mut Bench) {
    if bench.wants("recovery") {
        recovery(bench);
    }
    if bench.wants("open-clean") {
        open_clean(bench);
    }
}

fn recovery(bench: &mut Bench) {
    let image = bench.subdir("killed");
    kill_full(bench, &image);
    let segments: Vec<String> = list(&image.join("wal")).into_iter().map(|name| format!("wal/{name}")).collect();
    let slice = Duration::from_millis(bench.pick(100, 500));
    let mut raw = || {
        let rate = read_bandwidth(&image, &segments, slice).expect("the device works");
        Ok::<_, kifa::Error>(rate.per_second())
    };
    let mut times_ms = [Vec::new(), Vec::new()];
    let mut replayed = 0;
    let mut wal_bytes = 0;
    let [first_times, second_times] = &mut times_ms;
    let mut reopen = |at: usize, times: &mut Vec<f64>| {
        let dir = bench.subdir("recovered");
        copy(&image, &dir);
        for name in list(&dir.join("wal")) {
            chill(&dir.join("wal").join(name));
        }
        let begin = Instant::now();
        let log = Log::open(&dir, options(BACKENDS[at].1, FlushMode::Cautious))?;
        let seconds = begin.elapsed().as_secs_f64();
        let recovery = log.stats()?.recovery;
        assert!(!recovery.clean, "the image is of a running log");
        replayed = recovery.entries_replayed;
        times.push(seconds * 1e3);
        log.close()?;
        remove(&dir);
        // A group of one entry is a block of 4 KiB.
        wal_bytes = replayed * 4096;
        Ok(wal_bytes as f64 / seconds)
    };
    let reopen = std::cell::RefCell::new(&mut reopen);
    let mut first = || (reopen.borrow_mut())(0, first_times);
    let mut second = || (reopen.borrow_mut())(1, second_times);
    let measured = turns(bench.pick(2, 7), &mut raw, &mut [&mut first, &mut second]).expect("it recovers");
    let more = format!(
        "; {:.0} and {:.0} ms for {replayed} entries in {} MB of segments",
        median(&mut times_ms[0]),
        median(&mut times_ms[1]),
        wal_bytes / 1_000_000
    );
    bench.report_ratios("recovery", "read-BW", floor(0.5, 0.5), &measured, &more, bytes_per_second);
    remove(&image);
}

/// Fills a log with entries that were confirmed one by one, until its next segment would make it flush, and copies it.
fn kill_full(bench: &Bench, image: &Path) {
    let dir = bench.subdir("filled");
    let log = Log::open(&dir, options(kifa::IoBackend::Auto, FlushMode::Cautious)).expect("it opens");
    let producer = Blocking { producers: 1, batch: 1 };
    let segments = bench.pick(1, SEGMENTS_FULL);
    let append = |count: u64| {
        producer.count(&log, &bench.payloads, count, &mut Histogram::default()).expect("the log goes on");
        log.stats().expect("the log goes on")
    };
    while append(200).wal_segments < segments {}
    // The last one is filled, too, but for a few blocks.
    let blocks = (16 << 20) / 4096 - 400;
    append(blocks);
    settle();
    copy(&dir, image);
    log.close().expect("the log goes on");
    remove(&dir);
}

fn list(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("the store has this directory");
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".wal"))
        .collect();
    names.sort();
    names
}

/// Opening and closing a big store that was closed cleanly, beside one with a single entry.
fn open_clean(bench: &mut Bench) {
    let store = Store::of(bench, store_entries(bench));
    let small = bench.subdir("small");
    let log = Log::open(&small, kifa::Options::default()).expect("it opens");
    log.append(bench.payloads.get(0)).expect("it is confirmed");
    log.close().expect("the log goes on");
    let open = |dir: &Path| {
        let begin = Instant::now();
        let log = Log::open(dir, kifa::Options::default()).expect("it opens");
        let ms = begin.elapsed().as_secs_f64() * 1e3;
        log.close().expect("the log goes on");
        ms
    };
    let (mut big_ms, mut small_ms) = (Vec::new(), Vec::new());
    for _ in 0..bench.pick(3, 15) {
        store.chill();
        big_ms.push(open(&store.dir));
        small_ms.push(open(&small));
    }
    let (big, small) = (median(&mut big_ms), median(&mut small_ms));
    let note = format!("{} entries, cold, closed cleanly; a store of one entry takes {small:.1} ms", store.entries);
    bench.report("open-clean", "ms", None, &[big], note);
}

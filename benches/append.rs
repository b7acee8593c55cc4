//! What does a confirmed append cost, by mode and number of producers, and what do pipelined appends reach?
//!
//! One blocking producer is criterion's, and the thread that writes the raw blocks: each sample appends as often as criterion
//! asks, and writes as many raw blocks on both sides of that, so that the ratio is of the same moment. Many producers and
//! pipelined appends are slices of time in turns with raw ones. Rotation, segment preparation and table flushes go on within
//! the engine's slices and samples: those of batches hold many, those of single appends, which fill a memtable in five, their
//! share.

use std::cell::RefCell;
use std::time::Duration;

use criterion::{SamplingMode, Throughput};
use kifa::bench::load::{Blocking, pipelined, rest, settle};
use kifa::bench::{Histogram, Measured, ProcessIo, Raw, median, turns};
use kifa::{FlushMode, Log};

use crate::common::{
    BACKENDS, Bench, Target, bytes_per_second, ceiling, floor, latencies, options, per_second, remove,
};

/// A case of blocking producers.
struct Case {
    name: &'static str,
    mode: FlushMode,
    load: Blocking,
    target: Option<Target>,
}

fn cases() -> [Case; 9] {
    use FlushMode::{Cautious, Normal};
    let case = |name, mode, producers, batch, target| Case { name, mode, load: Blocking { producers, batch }, target };
    [
        case("cautious-1", Cautious, 1, 1, floor(0.70, 0.95)),
        case("cautious-1x50", Cautious, 1, 50, floor(35.0, 45.0)),
        case("normal-1", Normal, 1, 1, floor(15.0, 28.0)),
        case("cautious-2", Cautious, 2, 1, floor(1.0, 1.5)),
        case("cautious-8", Cautious, 8, 1, floor(4.0, 5.0)),
        case("cautious-64", Cautious, 64, 1, floor(16.0, 25.0)),
        case("normal-2", Normal, 2, 1, None),
        case("normal-8", Normal, 8, 1, None),
        case("normal-64", Normal, 64, 1, None),
    ]
}

pub(crate) fn run(bench: &mut Bench) {
    if cases().iter().any(|case| bench.wants(case.name)) {
        let dirs = BACKENDS.map(|(name, _)| bench.subdir(&format!("append-{name}")));
        let open = |at: usize| {
            let options = options(BACKENDS[at].1, FlushMode::Cautious);
            Log::open(&dirs[at], options).expect("the backend can be had and the directory written to")
        };
        let logs = [open(0), open(1)];
        settle();
        for case in cases() {
            if bench.wants(case.name) {
                logs.iter().for_each(|log| log.set_flush_mode(case.mode).expect("the log goes on"));
                match case.load.producers {
                    1 => one_producer(bench, &case, &logs),
                    _ => many_producers(bench, &case, &logs),
                }
            }
        }
        for log in logs {
            log.close().expect("the log goes on");
        }
        dirs.iter().for_each(|dir| remove(dir));
    }
    for (name, batch, target) in [("pipelined", 100, floor(0.15, 0.40)), ("pipelined-singly", 1, None)] {
        if bench.wants(name) {
            pipeline(bench, name, batch, target);
        }
    }
}

/// Latency, by criterion: its samples, and the raw device on both sides of each.
fn one_producer(bench: &mut Bench, case: &Case, logs: &[Log; 2]) {
    let mut criterion = bench.criterion();
    let mut group = criterion.benchmark_group(case.name);
    group.throughput(Throughput::Elements(case.load.batch as u64));
    if !bench.is_quick {
        group.sampling_mode(SamplingMode::Flat).sample_size(12).measurement_time(Duration::from_secs(8));
    }
    let mut measured = Vec::new();
    let mut texts = Vec::new();
    for ((backend, _), log) in BACKENDS.iter().zip(logs) {
        settle();
        let raw = RefCell::new(bench.raw_blocks());
        let (mut own, mut raw_latencies) = (Histogram::default(), Histogram::default());
        let (mut values, mut raws, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        group.bench_function(*backend, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut sample = || {
                    let blocks = raw.borrow_mut().count_blocks(iterations.div_ceil(2), &mut raw_latencies);
                    blocks.expect("the device works").per_second()
                };
                let before = sample();
                let rate = case.load.count(log, &bench.payloads, iterations, &mut own).expect("the log goes on");
                settle();
                let around = (before + sample()) / 2.0;
                values.push(rate.per_second());
                raws.push(around);
                ratios.push(rate.per_second() / around);
                rate.elapsed
            });
        });
        let (value, raw) = (median(&mut values), median(&mut raws));
        measured.push(Measured { value, raw, ratio: median(&mut ratios) });
        texts.push(format!("{backend} {}, raw {}", latencies(&own), latencies(&raw_latencies)));
    }
    group.finish();
    let more = format!("; {}", texts.join("; "));
    bench.report_ratios(case.name, "R", case.target, &measured, &more, per_second);
}

/// Throughput, in slices of time.
fn many_producers(bench: &mut Bench, case: &Case, logs: &[Log; 2]) {
    let milliseconds = Duration::from_millis;
    let (raw_slice, slice) = bench.pick((milliseconds(60), milliseconds(200)), (milliseconds(300), milliseconds(1000)));
    let mut raw_file = bench.raw_blocks();
    let mut own = [Histogram::default(), Histogram::default()];
    let [own_a, own_b] = &mut own;
    let mut raw = || Ok::<_, kifa::Error>(blocks(&mut raw_file, raw_slice));
    let drive = |log: &Log, latencies: &mut Histogram| {
        let rate = case.load.run(log, &bench.payloads, slice, latencies)?;
        settle();
        Ok(rate.per_second())
    };
    let mut first = || drive(&logs[0], own_a);
    let mut second = || drive(&logs[1], own_b);
    let measured = turns(bench.pick(2, 7), &mut raw, &mut [&mut first, &mut second]).expect("the logs go on");
    let more = format!("; io_uring {}; portable {}", latencies(&own[0]), latencies(&own[1]));
    bench.report_ratios(case.name, "R", case.target, &measured, &more, per_second);
}

fn blocks(raw: &mut Raw, slice: Duration) -> f64 {
    raw.blocks(slice, &mut Histogram::default()).expect("the device works").per_second()
}

/// Payload bytes per second of one producer that does not wait, in batches, and what reaches the device for them.
fn pipeline(bench: &mut Bench, name: &str, batch: usize, target: Option<Target>) {
    let entries = bench.pick(200_000, 10_000_000);
    let payload_bytes = entries as f64 * bench.payloads.payload_bytes() as f64;
    let mut raw_file = bench.raw("raw-stream", bench.pick(64 << 20, 256 << 20));
    let slice = Duration::from_millis(bench.pick(200, 1000));
    let mut raw = || Ok::<_, kifa::Error>(raw_file.stream(slice).expect("the device works").per_second());
    let mut amplifications = [Vec::new(), Vec::new()];
    let [first_bytes, second_bytes] = &mut amplifications;
    let drive = |at: usize, amplification: &mut Vec<f64>| {
        let dir = bench.subdir("pipelined");
        let log = Log::open(&dir, options(BACKENDS[at].1, FlushMode::Cautious))?;
        settle();
        let before = ProcessIo::now();
        let rate = pipelined(&log, &bench.payloads, entries, batch)?;
        assert!(rest(), "the log merges without end");
        amplification.push((ProcessIo::now().written - before.written) as f64 / payload_bytes);
        log.close()?;
        remove(&dir);
        Ok(rate.per_second() * bench.payloads.payload_bytes() as f64)
    };
    let mut first = || drive(0, first_bytes);
    let mut second = || drive(1, second_bytes);
    let measured = turns(bench.pick(1, 3), &mut raw, &mut [&mut first, &mut second]).expect("the logs go on");
    bench.report_ratios(name, "BW", target, &measured, &format!("; batches of {batch}"), bytes_per_second);
    if batch > 1 {
        let written: Vec<f64> = amplifications.iter_mut().map(|values| median(values)).collect();
        let note = "bytes written per payload byte, by /proc/self/io, at rest".to_owned();
        bench.report("written-per-byte", "x", ceiling(2.0, 1.5), &written, note);
    }
}

//! How fast does a flush build its table? The processor's work alone: encoding, compression, checksums.

use criterion::Throughput;
use kifa::bench::{PAYLOAD_BYTES, build_table};

use crate::common::Bench;

/// Entries of a memtable of 4 MiB.
const ENTRIES: u64 = 17_000;

pub(crate) fn run(bench: &mut Bench) {
    if !bench.wants("table-build") {
        return;
    }
    let mut criterion = bench.criterion();
    let mut group = criterion.benchmark_group("table-build");
    let payload_bytes = ENTRIES * PAYLOAD_BYTES as u64;
    group.throughput(Throughput::Bytes(payload_bytes));
    let mut best = f64::MAX;
    group.bench_function("lz4", |bencher| {
        bencher.iter_custom(|iterations| {
            let begin = std::time::Instant::now();
            for _ in 0..iterations {
                std::hint::black_box(build_table(&bench.payloads, ENTRIES));
            }
            let elapsed = begin.elapsed();
            best = best.min(elapsed.as_secs_f64() / iterations as f64);
            elapsed
        });
    });
    group.finish();
    let ratio = payload_bytes as f64 / build_table(&bench.payloads, ENTRIES) as f64;
    let note = format!("payload bytes, best sample; tables are {ratio:.2} times smaller than their payloads");
    bench.report("table-build", "MB/s", None, &[payload_bytes as f64 / best / 1e6], note);
}

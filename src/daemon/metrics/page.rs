//! The numbers as Prometheus text, format 0.0.4. Names, kinds and meanings are a promise: dashboards and alerts are made of
//! them. `docs/metrics.md` lists them, and a test compares the two.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::store::Store;
use crate::engine::Log;
use crate::format::FlushMode;
use crate::reactor::gauges::{SYNC_CLASSES_US, SyncTimes};
use crate::reactor::stats::LogStats;
use crate::source::counters::{Board, Totals};

/// Sources that have lines of their own; of the others only the sums are shown. A pattern may name thousands of files.
const SOURCES_MAX: usize = 500;
/// The name under which the others are summed up.
const OTHERS: &str = "(others)";

/// What does not change while the log is open, and what was found at the last look.
pub(super) struct Page {
    io_backend: &'static str,
    sync_method: String,
    direct_io: bool,
    started: Instant,
    store: Store,
}

impl Page {
    pub(super) fn new(stats: &LogStats, dir: PathBuf, now: Instant) -> Page {
        Page {
            io_backend: stats.io_backend,
            sync_method: stats.sync_method.to_string(),
            direct_io: stats.direct_io,
            started: now,
            store: Store::new(dir),
        }
    }

    /// The page as of now.
    pub(super) fn text(&mut self, log: &Log, board: &Board, now: Instant) -> String {
        let mut families = self.build();
        families.extend(work(log));
        families.extend(state(log));
        families.extend(sources(&by_name(board.each())));
        if let Some(sizes) = self.store.sizes(now) {
            families.extend([
                gauge("kifa_store_bytes", "Bytes of the store's files.", sizes.store as f64),
                gauge("kifa_disk_bytes", "Size of the file system that the store is on, in bytes.", sizes.disk as f64),
                gauge("kifa_disk_free_bytes", "Bytes that the daemon may still take there.", sizes.free as f64),
            ]);
        }
        let uptime = now.duration_since(self.started).as_secs_f64();
        families.push(gauge("kifa_uptime_seconds", "Time since the daemon was ready.", uptime));
        TextEncoder::new().encode_to_string(&families).expect("every family has a name and a value")
    }

    fn build(&self) -> Vec<MetricFamily> {
        let version = labelled(1.0, &[("version", env!("CARGO_PKG_VERSION"))]);
        let direct = if self.direct_io { "true" } else { "false" };
        let io = [("backend", self.io_backend), ("sync_method", &self.sync_method), ("direct", direct)];
        vec![
            family("kifa_build_info", "The version of kifa.", MetricType::GAUGE, vec![version]),
            family("kifa_io_info", "How writes reach the device.", MetricType::GAUGE, vec![labelled(1.0, &io)]),
        ]
    }
}

/// What the log has done.
fn work(log: &Log) -> Vec<MetricFamily> {
    let numbers = log.gauges().numbers();
    vec![
        counter("kifa_appended_entries_total", "Entries stored and confirmed.", numbers.entries),
        counter("kifa_appended_bytes_total", "Bytes of their payloads.", numbers.payload_bytes),
        counter("kifa_groups_total", "Groups of entries written with one write.", numbers.groups),
        counter(
            "kifa_wal_written_bytes_total",
            "Bytes written to the log, headers and padding included.",
            numbers.wal_bytes,
        ),
        counter("kifa_syncs_total", "Data syncs of the log, those carried by writes included.", numbers.syncs),
        sync_times(&log.gauges().sync_times()),
    ]
}

/// Where the log stands.
fn state(log: &Log) -> Vec<MetricFamily> {
    let (numbers, load) = (log.gauges().numbers(), log.load());
    let in_force = log.flush_mode();
    let modes = [FlushMode::Normal, FlushMode::Cautious, FlushMode::Emergency]
        .map(|mode| labelled(f64::from(u8::from(mode == in_force)), &[("mode", &mode.to_string())]));
    let flag = |is_set: bool| f64::from(u8::from(is_set));
    vec![
        family("kifa_flush_mode", "1 for the flush mode in force.", MetricType::GAUGE, modes.into()),
        gauge("kifa_failed", "1 when the log has stopped after a failed write or sync.", flag(log.failure().is_some())),
        gauge("kifa_waiting_for_space", "1 while the disk is full.", flag(log.waits_for_space())),
        gauge("kifa_queue_batches", "Batches handed over and not confirmed.", load.batches as f64),
        gauge("kifa_queue_batches_max", "How many there may be before a source waits.", load.batches_max as f64),
        gauge("kifa_waiting_sources", "Sources that wait for room.", load.producers_waiting as f64),
        gauge(
            "kifa_oldest_unconfirmed_seconds",
            "How long the oldest entry has waited for its confirmation; 0: none waits.",
            load.oldest_unconfirmed_ns as f64 / 1e9,
        ),
        gauge(
            "kifa_entries_at_risk",
            "Entries that are confirmed and not durable; only in flush mode normal.",
            numbers.at_risk_entries as f64,
        ),
        gauge("kifa_confirmed_lsn", "The newest confirmed LSN.", log.confirmed_lsn().0 as f64),
        gauge("kifa_durable_lsn", "The newest durable LSN.", log.durable_lsn().0 as f64),
        gauge("kifa_checkpoint_lsn", "The newest LSN in a table.", numbers.checkpoint_lsn as f64),
        gauge("kifa_floor_lsn", "The oldest LSN that retention has not deleted.", numbers.floor_lsn as f64),
        counter("kifa_expired_entries_total", "Entries deleted by retention.", numbers.expired_entries),
        counter("kifa_expired_bytes_total", "Bytes of the tables they were in.", numbers.expired_bytes),
        gauge("kifa_memtable_entries", "Entries that are not in a table yet.", numbers.memtable_entries as f64),
        gauge("kifa_tables", "Tables.", numbers.tables as f64),
        gauge("kifa_wal_segments", "Segments of the log in use.", numbers.wal_segments as f64),
        gauge("kifa_wal_spare_segments", "Segments prepared for use.", numbers.wal_spares as f64),
    ]
}

type CountOf = fn(&Totals) -> u64;

/// One entry for each name, in the order of the sources: files of a pattern may share one, and two lines with the same labels
/// would make the whole page worthless.
fn by_name(each: Vec<(String, Totals)>) -> Vec<(String, Totals)> {
    let mut places = HashMap::new();
    let mut sums: Vec<(String, Totals)> = Vec::new();
    for (name, totals) in each {
        let at = *places.entry(name.clone()).or_insert(sums.len());
        match sums.get_mut(at) {
            Some((_, sum)) => *sum += totals,
            None => sums.push((name, totals)),
        }
    }
    sums
}

fn sources(each: &[(String, Totals)]) -> Vec<MetricFamily> {
    let counts: [(&str, &str, CountOf); 4] = [
        ("kifa_source_accepted_entries_total", "Entries taken from a source.", |totals| {
            totals.stored + totals.unconfirmed
        }),
        ("kifa_source_confirmed_entries_total", "Entries of a source that were confirmed.", |totals| totals.stored),
        ("kifa_source_refused_total", "Pieces of a source's input that were refused.", |totals| totals.refused),
        ("kifa_source_dropped_entries_total", "Entries lost before they could be taken.", |totals| totals.dropped),
    ];
    // A family without a value is none.
    if each.is_empty() {
        return Vec::new();
    }
    let shown = each.len().min(SOURCES_MAX);
    let family_of = |(name, help, count): (&str, &str, CountOf)| {
        let mut values: Vec<(&str, u64)> =
            each[..shown].iter().map(|(name, totals)| (name.as_str(), count(totals))).collect();
        if shown < each.len() {
            values.push((OTHERS, each[shown..].iter().map(|(_, totals)| count(totals)).sum()));
        }
        let metric = |(source, value): (&str, u64)| {
            let mut metric = Metric::from_label(vec![label("source", source)]);
            metric.set_counter(counted(value));
            metric
        };
        family(name, help, MetricType::COUNTER, values.into_iter().map(metric).collect())
    };
    counts.into_iter().map(family_of).collect()
}

fn sync_times(times: &SyncTimes) -> MetricFamily {
    let mut seen = 0;
    // The encoder adds the last class, which has no end.
    let ends = SYNC_CLASSES_US.iter().map(|&us| us as f64 / 1e6);
    let buckets: Vec<Bucket> = ends
        .zip(times.counts)
        .map(|(end, count)| {
            seen += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(end);
            bucket.set_cumulative_count(seen);
            bucket
        })
        .collect();
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(times.counts.iter().sum());
    histogram.set_sample_sum(times.sum_us as f64 / 1e6);
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    let help = "Time from handing a group to the device until it was durable.";
    family("kifa_sync_duration_seconds", help, MetricType::HISTOGRAM, vec![metric])
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

fn labelled(value: f64, labels: &[(&str, &str)]) -> Metric {
    let mut metric = Metric::from_label(labels.iter().map(|(name, value)| label(name, value)).collect());
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

fn gauge(name: &str, help: &str, value: f64) -> MetricFamily {
    family(name, help, MetricType::GAUGE, vec![labelled(value, &[])])
}

fn counted(value: u64) -> Counter {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    counter
}

fn counter(name: &str, help: &str, value: u64) -> MetricFamily {
    let mut metric = Metric::default();
    metric.set_counter(counted(value));
    family(name, help, MetricType::COUNTER, vec![metric])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_to_show_is_summed_up_and_names_cannot_break_a_line() {
        let each: Vec<_> = (0..SOURCES_MAX as u64 + 3)
            .map(|at| (format!("file:/a\"b\\{at}"), Totals { stored: 1, unconfirmed: 1, ..Totals::default() }))
            .collect();
        let text = TextEncoder::new().encode_to_string(&sources(&each)).unwrap();
        assert!(text.contains("kifa_source_accepted_entries_total{source=\"file:/a\\\"b\\\\0\"} 2\n"), "{text}");
        assert!(text.contains("kifa_source_confirmed_entries_total{source=\"(others)\"} 3\n"));
        assert_eq!(text.lines().filter(|line| line.starts_with("kifa_source_refused_total")).count(), SOURCES_MAX + 1);
        assert!(sources(&[]).is_empty());
    }

    #[test]
    fn sources_that_share_a_name_share_a_line() {
        let one = Totals { stored: 1, refused: 2, dropped: 3, ..Totals::default() };
        let each = [("pos", one), ("stdin", one), ("pos", one)].map(|(name, totals)| (name.to_owned(), totals));
        let sums = by_name(each.into());
        assert_eq!(
            sums.iter().map(|(name, totals)| (name.as_str(), totals.dropped)).collect::<Vec<_>>(),
            [("pos", 6), ("stdin", 3)]
        );
    }

    #[test]
    fn classes_of_the_histogram_add_up() {
        let mut times = SyncTimes { counts: [0; SYNC_CLASSES_US.len() + 1], sum_us: 1_500_000 };
        (times.counts[0], times.counts[16]) = (2, 1);
        let text = TextEncoder::new().encode_to_string(&[sync_times(&times)]).unwrap();
        for line in
            ["_bucket{le=\"0.0001\"} 2", "_bucket{le=\"10\"} 2", "_bucket{le=\"+Inf\"} 3", "_sum 1.5", "_count 3"]
        {
            assert!(text.contains(&format!("kifa_sync_duration_seconds{line}\n")), "{line}: {text}");
        }
    }
}

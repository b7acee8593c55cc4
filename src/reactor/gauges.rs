//! Numbers that the reactor tells without being asked: whoever looks gets them at once, also while the reactor hangs.
//!
//! - The reactor alone writes, at the end of each turn, and never waits for a reader.
//! - Each number is that of a turn; two of them may be of different turns.
//!
//! [`LogStats`](super::stats::LogStats) is for who wants numbers that belong together, and can wait for them.
//!
//! Proof: `tests/it/metrics.rs`.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper ends of the classes of sync latencies, in microseconds. Behind them there is a last one without an end.
pub(crate) const SYNC_CLASSES_US: [u64; 16] = [
    100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

const NUMBERS: usize = 15;

/// What the log has done since it was opened, and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Numbers {
    /// Groups, entries and their payload bytes that were confirmed.
    pub(crate) groups: u64,
    pub(crate) entries: u64,
    pub(crate) payload_bytes: u64,
    /// Written to segments, with headers and padding.
    pub(crate) wal_bytes: u64,
    pub(crate) syncs: u64,
    pub(crate) checkpoint_lsn: u64,
    pub(crate) memtable_entries: u64,
    /// Smallest LSN that retention has not deleted; entries and bytes of tables that it has, in the life of the store.
    pub(crate) floor_lsn: u64,
    pub(crate) expired_entries: u64,
    pub(crate) expired_bytes: u64,
    pub(crate) tables: u64,
    pub(crate) wal_segments: u64,
    pub(crate) wal_spares: u64,
    /// Confirmed and not durable.
    pub(crate) at_risk_entries: u64,
    /// When the oldest unconfirmed group in flight was begun, in monotonic nanoseconds; 0: there is none.
    pub(crate) unconfirmed_since_ns: u64,
}

impl Numbers {
    fn to_array(self) -> [u64; NUMBERS] {
        [
            self.groups,
            self.entries,
            self.payload_bytes,
            self.wal_bytes,
            self.syncs,
            self.checkpoint_lsn,
            self.memtable_entries,
            self.floor_lsn,
            self.expired_entries,
            self.expired_bytes,
            self.tables,
            self.wal_segments,
            self.wal_spares,
            self.at_risk_entries,
            self.unconfirmed_since_ns,
        ]
    }

    #[cfg(any(test, all(feature = "cli", unix)))]
    fn from_array(array: [u64; NUMBERS]) -> Numbers {
        let [
            groups,
            entries,
            payload_bytes,
            wal_bytes,
            syncs,
            checkpoint_lsn,
            memtable_entries,
            floor_lsn,
            expired_entries,
            expired_bytes,
            tables,
            wal_segments,
            wal_spares,
            at_risk_entries,
            unconfirmed_since_ns,
        ] = array;
        Numbers {
            groups,
            entries,
            payload_bytes,
            wal_bytes,
            syncs,
            checkpoint_lsn,
            memtable_entries,
            floor_lsn,
            expired_entries,
            expired_bytes,
            tables,
            wal_segments,
            wal_spares,
            at_risk_entries,
            unconfirmed_since_ns,
        }
    }
}

/// How long syncs took: counts by class, and the sum.
#[cfg(any(test, all(feature = "cli", unix)))]
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SyncTimes {
    /// Of each of [`SYNC_CLASSES_US`], and of what took longer.
    pub(crate) counts: [u64; SYNC_CLASSES_US.len() + 1],
    pub(crate) sum_us: u64,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    numbers: [AtomicU64; NUMBERS],
    sync_counts: [AtomicU64; SYNC_CLASSES_US.len() + 1],
    sync_sum_us: AtomicU64,
}

impl Gauges {
    /// For the reactor: how things stand.
    pub(super) fn set(&self, numbers: Numbers) {
        for (slot, number) in self.numbers.iter().zip(numbers.to_array()) {
            slot.store(number, Ordering::Relaxed);
        }
    }

    /// For the reactor: a write was durable this long after it was handed over.
    pub(super) fn synced(&self, ns: u64) {
        let us = ns / 1000;
        let class = SYNC_CLASSES_US.partition_point(|&end| end < us);
        self.sync_counts[class].fetch_add(1, Ordering::Relaxed);
        self.sync_sum_us.fetch_add(us, Ordering::Relaxed);
    }

    #[cfg(any(test, all(feature = "cli", unix)))]
    pub(crate) fn numbers(&self) -> Numbers {
        Numbers::from_array(std::array::from_fn(|at| self.numbers[at].load(Ordering::Relaxed)))
    }

    #[cfg(any(test, all(feature = "cli", unix)))]
    pub(crate) fn sync_times(&self) -> SyncTimes {
        SyncTimes {
            counts: std::array::from_fn(|at| self.sync_counts[at].load(Ordering::Relaxed)),
            sum_us: self.sync_sum_us.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_each_in_its_place() {
        let gauges = Gauges::default();
        let numbers = Numbers::from_array(std::array::from_fn(|at| at as u64 + 1));
        gauges.set(numbers);
        assert_eq!(gauges.numbers(), numbers);
        assert_eq!((numbers.groups, numbers.syncs, numbers.unconfirmed_since_ns), (1, 5, 15));
    }

    #[test]
    fn a_time_belongs_to_the_first_class_that_does_not_end_before_it() {
        let gauges = Gauges::default();
        for us in [0, 100, 101, 10_000_000, 10_000_001] {
            gauges.synced(us * 1000);
        }
        let times = gauges.sync_times();
        assert_eq!((times.counts[0], times.counts[1]), (2, 1));
        assert_eq!((times.counts[15], times.counts[16]), (1, 1));
        assert_eq!(times.sum_us, 20_000_202);
    }
}

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

/// One list of numbers, as they are told and as they are kept.
macro_rules! numbers {
    ($($(#[$doc:meta])* $number:ident,)*) => {
        /// What the log has done since it was opened, and where it stands.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub(crate) struct Numbers {
            $($(#[$doc])* pub(crate) $number: u64,)*
        }

        #[derive(Debug, Default)]
        struct Slots {
            $($number: AtomicU64,)*
        }

        impl Slots {
            fn store(&self, numbers: Numbers) {
                $(self.$number.store(numbers.$number, Ordering::Relaxed);)*
            }

            #[cfg(any(test, all(feature = "cli", unix)))]
            fn load(&self) -> Numbers {
                Numbers { $($number: self.$number.load(Ordering::Relaxed),)* }
            }
        }
    };
}

numbers! {
    /// Groups, entries and their payload bytes that were confirmed.
    groups,
    entries,
    payload_bytes,
    /// Written to segments, with headers and padding.
    wal_bytes,
    syncs,
    checkpoint_lsn,
    memtable_entries,
    /// Smallest LSN that retention has not deleted; entries and bytes of tables that it has, in the life of the store.
    floor_lsn,
    expired_entries,
    expired_bytes,
    tables,
    wal_segments,
    wal_spares,
    /// Confirmed and not durable.
    at_risk_entries,
    /// When the oldest unconfirmed group in flight was begun, in monotonic nanoseconds; 0: there is none.
    unconfirmed_since_ns,
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
    numbers: Slots,
    sync_counts: [AtomicU64; SYNC_CLASSES_US.len() + 1],
    sync_sum_us: AtomicU64,
}

impl Gauges {
    /// For the reactor: how things stand.
    pub(super) fn set(&self, numbers: Numbers) {
        self.numbers.store(numbers);
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
        self.numbers.load()
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
        let numbers = Numbers { groups: 1, syncs: 5, unconfirmed_since_ns: 15, ..Numbers::default() };
        gauges.set(numbers);
        assert_eq!(gauges.numbers(), numbers);
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

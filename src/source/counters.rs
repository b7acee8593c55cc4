//! What each source has done, counted where it happens and read by whoever shows it (the end of a run, `stats`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const LOCK: &str = "nothing panics while it holds this lock";

/// Counters of one source since the daemon started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) name: String,
    /// Entries taken from the producer.
    pub(crate) accepted: AtomicU64,
    /// Entries confirmed.
    pub(crate) stored: AtomicU64,
    /// Pieces of input that were refused, each reported when it was met.
    pub(crate) refused: AtomicU64,
    /// Those of them that were refused because the disk is full.
    pub(crate) refused_full: AtomicU64,
    /// Entries that are known to be lost before they could be taken: datagrams, lines truncated away.
    pub(crate) dropped: AtomicU64,
}

impl Counters {
    pub(crate) fn accept(&self, entries: u64) {
        self.accepted.fetch_add(entries, Ordering::Relaxed);
    }

    pub(crate) fn store(&self, entries: u64) {
        self.stored.fetch_add(entries, Ordering::Relaxed);
    }

    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A piece of input is refused because the disk is full.
    pub(crate) fn refuse_full(&self) {
        self.refuse();
        self.refused_full.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(unix)]
    pub(crate) fn drop_entries(&self, entries: u64) {
        self.dropped.fetch_add(entries, Ordering::Relaxed);
    }

    pub(crate) fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stored = read(&self.stored);
        Totals {
            stored,
            unconfirmed: read(&self.accepted).saturating_sub(stored),
            refused: read(&self.refused),
            refused_full: read(&self.refused_full),
            dropped: read(&self.dropped),
        }
    }
}

/// What became of a source's input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Totals {
    /// Entries confirmed.
    pub(crate) stored: u64,
    /// Entries taken and not confirmed: on their way, or, behind an error, perhaps not stored.
    pub(crate) unconfirmed: u64,
    /// Pieces of input that were refused.
    pub(crate) refused: u64,
    /// Those of them that were refused because the disk is full.
    pub(crate) refused_full: u64,
    /// Entries lost before they could be taken.
    pub(crate) dropped: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        self.stored += other.stored;
        self.unconfirmed += other.unconfirmed;
        self.refused += other.refused;
        self.refused_full += other.refused_full;
        self.dropped += other.dropped;
    }
}

/// The counters of all sources of a daemon.
#[derive(Debug, Default)]
pub(crate) struct Board {
    sources: Mutex<Vec<Arc<Counters>>>,
}

impl Board {
    /// Counters for a source, under its name.
    pub(crate) fn add(&self, name: &str) -> Arc<Counters> {
        let counters = Arc::new(Counters { name: name.to_owned(), ..Counters::default() });
        self.sources.lock().expect(LOCK).push(Arc::clone(&counters));
        counters
    }

    /// Name and totals of each source, in the order they were added.
    pub(crate) fn each(&self) -> Vec<(String, Totals)> {
        let sources = self.sources.lock().expect(LOCK);
        sources.iter().map(|counters| (counters.name.clone(), counters.totals())).collect()
    }

    /// The sum of all.
    pub(crate) fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        self.each().into_iter().for_each(|(_, totals)| sum += totals);
        sum
    }
}

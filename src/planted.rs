//! Bugs that are planted on purpose, to see the crash campaign catch each: what catches nothing is no test.
//!
//! - A bug is chosen at run time, for the calling thread only, in tests and builds with the feature `sim`. In every other
//!   build [`planted`] is a constant `false` and nothing of a bug is compiled.
//! - A site asks `planted(Bug::X)` and does the wrong thing in as few lines as show it. The sites are all that is meant to
//!   be found by searching for `planted(`.
//! - The simulator runs the whole log on one thread, so a bug of one test never reaches another.
//!
//! Proof: `sim::tests::teeth` runs the campaign with each.

/// One bug. Its name on the command line is [`Bug::name`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bug {
    /// Data syncs, and the sync of a durable write, are left out.
    NoDataSync,
    /// Directory syncs are left out.
    NoDirectorySync,
    /// A group is written without its sync, its producers are told "yes", and then the file is synced.
    ConfirmBeforeSync,
    /// Every run of a segment has the same salt.
    NoSalt,
    /// An error while a segment is read is taken for the end of the file.
    ReadErrorEndsLog,
    /// A data sync that failed is tried once more.
    RetriedSync,
    /// The durable LSN of later groups is not held against a group that fails its checks.
    WatermarkIgnored,
    /// Replay goes on with the next group behind one that fails its checks.
    TailKept,
    /// Retention removes its tables before the manifest that names them no more is durable.
    ExpiredUnlinkedEarly,
    /// A merge removes its inputs before the manifest that names its output is durable.
    MergedUnlinkedEarly,
    /// The log behind a flushed memtable is released while the manifest that names the table is being written.
    LogReleasedEarly,
    /// The manifest names a table before it names the tables of the memtables before it.
    TableOvertakes,
}

#[cfg(not(any(test, feature = "sim")))]
#[inline(always)]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(any(test, feature = "sim"))]
pub(crate) use chosen::{chosen, plant, planted};

#[cfg(any(test, feature = "sim"))]
mod chosen {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this thread's log has the bug.
    pub(crate) fn planted(bug: Bug) -> bool {
        BUG.get() == Some(bug)
    }

    /// The bug of this thread's logs.
    pub(crate) fn chosen() -> Option<Bug> {
        BUG.get()
    }

    /// Gives the logs of this thread the bug, or none.
    pub(crate) fn plant(bug: Option<Bug>) {
        BUG.set(bug);
    }

    impl Bug {
        /// All of them.
        pub(crate) const ALL: [Bug; 12] = [
            Bug::NoDataSync,
            Bug::NoDirectorySync,
            Bug::ConfirmBeforeSync,
            Bug::NoSalt,
            Bug::ReadErrorEndsLog,
            Bug::RetriedSync,
            Bug::WatermarkIgnored,
            Bug::TailKept,
            Bug::ExpiredUnlinkedEarly,
            Bug::MergedUnlinkedEarly,
            Bug::LogReleasedEarly,
            Bug::TableOvertakes,
        ];

        /// What it is called on the command line.
        pub(crate) fn name(self) -> &'static str {
            match self {
                Bug::NoDataSync => "no-data-sync",
                Bug::NoDirectorySync => "no-directory-sync",
                Bug::ConfirmBeforeSync => "confirm-before-sync",
                Bug::NoSalt => "no-salt",
                Bug::ReadErrorEndsLog => "read-error-ends-log",
                Bug::RetriedSync => "retried-sync",
                Bug::WatermarkIgnored => "watermark-ignored",
                Bug::TailKept => "tail-kept",
                Bug::ExpiredUnlinkedEarly => "expired-unlinked-early",
                Bug::MergedUnlinkedEarly => "merged-unlinked-early",
                Bug::LogReleasedEarly => "log-released-early",
                Bug::TableOvertakes => "table-overtakes",
            }
        }
    }
}

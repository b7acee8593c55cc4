//! Counters of a running log.

use crate::format::{FlushMode, Lsn};
use crate::io::{BackendInfo, SyncMethod};

/// What a running log has done since it was opened, and where it stands.
///
/// ```
/// # let temporary = tempfile::tempdir()?;
/// # let dir = temporary.path().join("till-1");
/// # use kifa::{Log, Options};
/// let log = Log::open(&dir, Options::default())?;
/// log.append(b"TXN-001")?;
/// let stats = log.stats()?;
/// assert!(stats.checkpoint_lsn <= stats.durable_lsn && stats.durable_lsn <= stats.confirmed_lsn);
/// assert_eq!((stats.memtable_entries, stats.tables), (1, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LogStats {
    /// Flush mode in force.
    pub flush_mode: FlushMode,
    /// Last confirmed LSN.
    pub confirmed_lsn: Lsn,
    /// Everything up to this LSN is durable.
    pub durable_lsn: Lsn,
    /// Every entry up to this LSN is in a table.
    pub checkpoint_lsn: Lsn,
    /// Smallest LSN that was not deleted by retention; 1 while nothing was.
    pub floor_lsn: Lsn,
    /// Entries that are not in a table yet.
    pub memtable_entries: u64,
    /// Sorted tables.
    pub tables: usize,
    /// Live write-ahead-log segments.
    pub wal_segments: usize,
    /// Prepared spare segments.
    pub wal_spares: usize,
    /// Groups written since open.
    pub groups: u64,
    /// Entries confirmed since open.
    pub entries: u64,
    /// Bytes written to the write-ahead log since open.
    pub wal_bytes: u64,
    /// Data syncs of the write-ahead log since open, those carried by writes included.
    pub syncs: u64,
    /// `io_uring` or `portable`.
    pub io_backend: &'static str,
    /// What `auto` came to.
    pub sync_method: SyncMethod,
    /// Whether writes bypass the page cache.
    pub direct_io: bool,
    /// What recovery found when the log was opened.
    pub recovery: RecoveryStats,
}

/// What recovery found and did.
///
/// ```
/// # let temporary = tempfile::tempdir()?;
/// # let dir = temporary.path().join("till-1");
/// # use kifa::{Log, Options};
/// let log = Log::open(&dir, Options::default())?;
/// let recovery = log.stats()?.recovery;
/// assert!(recovery.clean, "a new store");
/// assert_eq!((recovery.entries_replayed, recovery.bytes_cut), (0, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RecoveryStats {
    /// The log had been closed cleanly (or was new).
    pub clean: bool,
    /// Entries replayed from the write-ahead log.
    pub entries_replayed: u64,
    /// First and last LSN of these.
    pub replayed: Option<(Lsn, Lsn)>,
    /// Bytes of a torn tail that were cut.
    pub bytes_cut: u64,
    /// Entries that nothing proved durable and that were written anew.
    pub entries_rewritten: u64,
    /// How long recovery took, in microseconds.
    pub duration_us: u64,
}

/// Counters the reactor keeps.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) groups: u64,
    pub(crate) entries: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) wal_bytes: u64,
    pub(crate) syncs: u64,
}

/// The numbers that segment headers carry for `stats`; see [`crate::format::segment`].
pub(crate) fn written_by(info: &BackendInfo) -> crate::format::segment::WrittenBy {
    crate::format::segment::WrittenBy {
        io_backend: match info.name {
            "io_uring" => 1,
            "portable" => 2,
            _ => 3,
        },
        sync_method: if info.sync_method == SyncMethod::Dsync { 2 } else { 1 },
        direct: info.direct,
    }
}

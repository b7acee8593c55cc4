//! Options of a log, with the limits that bound its memory, checked against each other at open.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::table::Codec;
use crate::format::{ENTRY_PAYLOAD_BYTES_MAX, FlushMode};
use crate::io::SyncMethod;
use crate::retention::Limits;

/// Which backend does the I/O.
///
/// ```
/// let mut options = kifa::Options::default();
/// options.io_backend = kifa::IoBackend::Portable; // what macOS and Windows have
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IoBackend {
    /// io_uring where the kernel allows it, else the portable one.
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// `pwrite` and data sync.
    Portable,
}

/// How the blocks of tables are compressed. What does not get smaller is stored as it is. A store may hold any mixture: the
/// option is for what is written from now on, and merging brings older blocks to it.
///
/// ```
/// assert_eq!(kifa::Options::default().compression, kifa::Compression::Lz4);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4: cheapest to write and to read.
    #[default]
    Lz4,
    /// Zstandard, level 1: half the space of LZ4 for JSON, at about twice its cost.
    Zstd,
}

/// Which processors the threads of a log run on.
///
/// The threads that build and merge tables never get one that the thread that opened the log was not allowed. Where appends
/// wait for a table, the next piece of work on it may run on any of those.
///
/// One producer that waits for each confirmation is best placed on the reactor's processor, and the reactor on the one that
/// takes the disk's interrupts (/proc/interrupts):
///
/// ```
/// use kifa::{CpuAffinity, Options};
///
/// let mut options = Options::default();
/// assert_eq!(options.cpu_affinity, CpuAffinity::Auto);
/// options.cpu_affinity = CpuAffinity::Reactor(1); // and the producer pins itself to 1, behind Log::open
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum CpuAffinity {
    /// Threads that build and merge tables keep off the processor that takes the disk's interrupts, where the disk has one
    /// queue, one processor takes most of them, and the system tells (Linux: /sys). All others run where the system puts them.
    #[default]
    Auto,
    /// All run where the system puts them.
    Off,
    /// The reactor runs on this processor, counted from 0, and those threads on the others. Linux only: elsewhere, and
    /// where the process may not run on it, the log is not opened ([`Error::InvalidOption`]).
    Reactor(usize),
}

/// What becomes of appends while the disk is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum OnFull {
    /// They wait for space, as they wait for room: nothing is lost, and producers stand still.
    #[default]
    Wait,
    /// They are refused with [`Error::Full`] until there is space again. What was accepted before waits for it.
    Refuse,
}

/// How a [`Log`](crate::Log) is opened. `Options::default()` is right for a payment terminal.
///
/// Memory of an open log is bounded by `3 * memtable_bytes + 3 * 2 MiB` (group buffers) plus about 6 MiB; until what a kill
/// under load has left in the log is in a table, by one `memtable_bytes` more.
///
/// ```
/// use kifa::{Compression, FlushMode, IoBackend, Options, SyncMethod};
///
/// let mut options = Options::default();
/// assert_eq!(options.flush_mode, FlushMode::Cautious);
/// assert_eq!((options.io_backend, options.sync_method), (IoBackend::Auto, SyncMethod::Auto));
/// options.memtable_bytes = 1 << 20; // a small machine
/// options.compression = Compression::Zstd; // with a small card
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Options {
    /// When entries are synced. Default: cautious.
    pub flush_mode: FlushMode,
    /// Length of a write-ahead-log segment: 1 to 1024 MiB, a multiple of 4 KiB. Default: 16 MiB.
    pub segment_bytes: u64,
    /// Bytes of entries kept in memory before they are written to a table: 64 KiB to 1 GiB. Default: 4 MiB.
    pub memtable_bytes: usize,
    /// Batches that may be handed over and not yet confirmed: 1 to 65,536. Default: 1024. A producer beyond it waits.
    pub channel_capacity: usize,
    /// Neighbouring tables of similar size that are merged into one: 2 to 64. Default: 8.
    pub compaction_threshold: usize,
    /// Whether tables are merged in the background. Default: yes.
    pub compaction_enabled: bool,
    /// How the blocks of tables are compressed. Default: LZ4.
    pub compression: Compression,
    /// Tables whose newest entry is older than this are deleted. Default: never.
    ///
    /// Not before the wall clock has kept pace with the monotonic one for a day: a wrong clock must not delete anything.
    pub retention_max_age: Option<Duration>,
    /// The oldest tables are deleted while the store has more bytes than this. Default: no limit.
    pub retention_max_bytes: Option<u64>,
    /// The oldest tables are deleted while the file system has fewer bytes free than this. Default: no limit.
    pub retention_min_free_bytes: Option<u64>,
    /// What becomes of appends while the disk is full. Default: they wait.
    pub on_full: OnFull,
    /// Which backend does the I/O. Default: auto.
    pub io_backend: IoBackend,
    /// How a durable write reaches the device. Default: auto.
    pub sync_method: SyncMethod,
    /// Which processors the log's threads run on. Default: auto.
    pub cpu_affinity: CpuAffinity,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            flush_mode: FlushMode::default(),
            segment_bytes: 16 << 20,
            memtable_bytes: 4 << 20,
            channel_capacity: 1024,
            compaction_threshold: 8,
            compaction_enabled: true,
            compression: Compression::default(),
            retention_max_age: None,
            retention_max_bytes: None,
            retention_min_free_bytes: None,
            on_full: OnFull::default(),
            io_backend: IoBackend::default(),
            sync_method: SyncMethod::default(),
            cpu_affinity: CpuAffinity::default(),
        }
    }
}

impl Compression {
    pub(crate) fn codec(self) -> Codec {
        match self {
            Compression::None => Codec::None,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
        }
    }
}

impl Options {
    /// When tables are deleted by themselves.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_age: self.retention_max_age,
            max_bytes: self.retention_max_bytes,
            min_free_bytes: self.retention_min_free_bytes,
        }
    }

    /// Checks every option against its range.
    pub(crate) fn validate(&self) -> Result<()> {
        let range = |name: &str, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            Err(Error::InvalidOption(format!("{name} is {value}; it must be {min} to {max}")))
        };
        range("segment_bytes", self.segment_bytes, ENTRY_PAYLOAD_BYTES_MAX as u64, 1 << 30)?;
        if !self.segment_bytes.is_multiple_of(4096) {
            let value = self.segment_bytes;
            return Err(Error::InvalidOption(format!("segment_bytes is {value}; it must be a multiple of 4096")));
        }
        range("memtable_bytes", self.memtable_bytes as u64, 64 << 10, 1 << 30)?;
        range("channel_capacity", self.channel_capacity as u64, 1, 65_536)?;
        range("compaction_threshold", self.compaction_threshold as u64, 2, 64)
    }
}

//! Reading a store: any process, any time, without the lock; creates and changes nothing.
//!
//! A reader takes a look ([`view`]) at the manifest and at the log behind its checkpoint, and returns entries from tables
//! and log in order ([`scan`]). Beside a running writer it returns what is provably durable, and what the writer vouches
//! for ([`vouch`]): the last group or two of a busy log, and of a quiet one for up to a second, may be durable and not yet
//! proven by anything on disk. A writer without a socket (an embedding program) is not asked.
//!
//! `follow` goes on where a look ended, for the command line.
//!
//! Not here: output formats, waiting (`cli`).
//!
//! Proof: `tests`, `engine`'s tests (a reader beside a writer), and `tests/it`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::format::entry::Entry;
use crate::format::manifest::Expired;
use crate::format::{ClockStep, FlushMode, Gap, Lsn};
use crate::io::Vfs;
use crate::io::fs::RealVfs;

#[cfg(feature = "cli")]
mod follow;
mod scan;
mod stats;
#[cfg(test)]
mod tests;
mod view;
mod vouch;

#[cfg(feature = "cli")]
pub(crate) use follow::Follow;
pub use scan::Scan;
use view::Lost;
pub(crate) use view::View;
use vouch::Writer;

/// A store open for reading. Each scan sees the store as it is when the scan begins.
///
/// ```
/// # let temporary = tempfile::tempdir()?;
/// # let dir = temporary.path().join("till-1");
/// use kifa::{Log, Options, Reader, ScanRange};
///
/// let log = Log::open(&dir, Options::default())?;
/// log.append(b"TXN-001")?;
/// log.append(b"TXN-002")?;
/// log.close()?;
///
/// let reader = Reader::open(&dir)?;
/// let mut scan = reader.scan(ScanRange::default())?;
/// let mut payloads = Vec::new();
/// while let Some(entry) = scan.next_entry()? {
///     payloads.push(entry.payload.to_vec());
/// }
/// assert_eq!(payloads, [b"TXN-001", b"TXN-002"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reader {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    writer: Writer,
    lost: Lost,
}

impl Reader {
    /// Opens the store in `dir`. Creates nothing and takes no lock.
    ///
    /// ```
    /// # let temporary = tempfile::tempdir()?;
    /// # let dir = temporary.path().join("till-1");
    /// assert!(matches!(kifa::Reader::open(&dir), Err(kifa::Error::NotAStore { .. })), "there is no such directory");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotAStore`](crate::Error::NotAStore); [`Error::Io`](crate::Error::Io) where the directory cannot be read.
    pub fn open(dir: impl AsRef<Path>) -> Result<Reader> {
        Reader::open_by(dir.as_ref(), Lost::Refused)
    }

    /// As [`Reader::open`], and reads what the files hold where the manifest is lost, damaged or old: each scan ends with
    /// an error that says so.
    #[cfg(feature = "cli")]
    pub(crate) fn open_what_is_left(dir: impl AsRef<Path>) -> Result<Reader> {
        Reader::open_by(dir.as_ref(), Lost::Rebuilt)
    }

    fn open_by(dir: &Path, lost: Lost) -> Result<Reader> {
        let dir = dir.to_path_buf();
        let vfs = Arc::new(RealVfs::open(&dir).map_err(|cause| crate::engine::cannot_open(&dir, cause))?);
        crate::engine::check_links(&dir)?;
        view::check_is_store(&*vfs, &dir, lost)?;
        let writer = Writer::of_store(&dir);
        Ok(Reader { vfs, dir, writer, lost })
    }

    /// A reader of a simulated store.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn of(vfs: Arc<dyn Vfs>, writer_alive: bool) -> Reader {
        Reader::beside(vfs, Writer::new(move || writer_alive, || None))
    }

    /// A reader of a simulated store beside this writer.
    #[cfg(any(test, feature = "sim"))]
    fn beside(vfs: Arc<dyn Vfs>, writer: Writer) -> Reader {
        Reader { vfs, dir: PathBuf::from("(simulated)"), writer, lost: Lost::Refused }
    }

    /// Entries of `range`, each once, in order.
    ///
    /// # Errors
    /// As [`Reader::open`]. Damage is reported by the scan, when it gets there.
    pub fn scan(&self, range: ScanRange) -> Result<Scan<'_>> {
        Ok(Scan::new(self, range, self.view_up_to(range.to_ns)?))
    }

    /// What the store holds, as found on disk now.
    ///
    /// ```
    /// # let temporary = tempfile::tempdir()?;
    /// # let dir = temporary.path().join("till-1");
    /// # use kifa::{Log, Options, Reader};
    /// # let log = Log::open(&dir, Options::default())?;
    /// # log.append(b"TXN-001")?;
    /// # log.close()?;
    /// let stats = Reader::open(&dir)?.stats()?;
    /// assert_eq!(stats.entries, 1);
    /// assert!(stats.gaps.is_empty() && !stats.writer_alive);
    /// println!("{} bytes on disk, in {} segments and {} tables", stats.disk_bytes, stats.wal_segments, stats.tables);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Reader::open`], and [`Error::Corrupt`](crate::Error::Corrupt) where the log behind the tables is damaged.
    pub fn stats(&self) -> Result<StoreStats> {
        stats::gather(&*self.vfs, self.view()?)
    }

    /// A look at the store, with everything that a scan begins with.
    pub(crate) fn view(&self) -> Result<View> {
        self.view_up_to(u64::MAX)
    }

    /// As [`Reader::view`], for who asks for nothing later than `to_ns`.
    fn view_up_to(&self, to_ns: u64) -> Result<View> {
        View::take(&*self.vfs, &self.dir, &self.writer, self.lost, to_ns)
            .map_err(|cause| crate::engine::within(&self.dir, cause))
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// What a scan returns: entries inside all the bounds (inclusive), in ascending or descending order of LSN.
///
/// ```
/// # let temporary = tempfile::tempdir()?;
/// # let dir = temporary.path().join("till-1");
/// # use kifa::{Log, Options, Reader};
/// # let log = Log::open(&dir, Options::default())?;
/// # for number in 1..=5 {
/// #     log.append(format!("TXN-{number:03}").as_bytes())?;
/// # }
/// # log.close()?;
/// use kifa::{Lsn, ScanRange};
///
/// let mut range = ScanRange::default();
/// range.from_lsn = Lsn(4);
/// range.reverse = true;
/// let reader = Reader::open(&dir)?;
/// let mut scan = reader.scan(range)?;
/// assert_eq!(scan.next_entry()?.expect("the newest").payload, b"TXN-005");
/// assert_eq!(scan.next_entry()?.expect("the one before").payload, b"TXN-004");
/// assert!(scan.next_entry()?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ScanRange {
    /// Smallest LSN.
    pub from_lsn: Lsn,
    /// Largest LSN.
    pub to_lsn: Lsn,
    /// Smallest timestamp, nanoseconds since the Unix epoch.
    pub from_ns: u64,
    /// Largest timestamp, nanoseconds since the Unix epoch.
    pub to_ns: u64,
    /// Descending.
    pub reverse: bool,
}

impl Default for ScanRange {
    fn default() -> ScanRange {
        ScanRange { from_lsn: Lsn::ZERO, to_lsn: Lsn(u64::MAX), from_ns: 0, to_ns: u64::MAX, reverse: false }
    }
}

/// An entry read back; the payload is borrowed from the scan.
///
/// ```
/// # let temporary = tempfile::tempdir()?;
/// # let dir = temporary.path().join("till-1");
/// # use kifa::{Log, Options, Reader, ScanRange};
/// # let log = Log::open(&dir, Options::default())?;
/// # log.append(b"TXN-001")?;
/// # log.close()?;
/// # let reader = Reader::open(&dir)?;
/// # let mut scan = reader.scan(ScanRange::default())?;
/// let entry = scan.next_entry()?.expect("there is one");
/// assert_eq!((entry.lsn.0, entry.source, entry.payload), (1, 0, &b"TXN-001"[..]));
/// let at = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(entry.timestamp_ns);
/// assert!(at <= std::time::SystemTime::now());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryRef<'a> {
    /// Identity and order.
    pub lsn: Lsn,
    /// Nanoseconds since the Unix epoch.
    pub timestamp_ns: u64,
    /// Number of the source it came from; [`Scan::source_name`] tells its name. 0 is none: the library's own entries.
    pub source: u16,
    /// The producer's bytes.
    pub payload: &'a [u8],
}

impl<'a> From<Entry<'a>> for EntryRef<'a> {
    fn from(entry: Entry<'a>) -> EntryRef<'a> {
        let Entry { lsn, timestamp_ns, source, payload } = entry;
        EntryRef { lsn, timestamp_ns, source, payload }
    }
}

/// Something about a scan's result that its user should know.
///
/// ```
/// # let temporary = tempfile::tempdir()?;
/// # let dir = temporary.path().join("till-1");
/// # use kifa::{Log, Options, Reader, ScanRange};
/// # Log::open(&dir, Options::default())?.close()?;
/// # let reader = Reader::open(&dir)?;
/// use kifa::Notice;
///
/// for notice in reader.scan(ScanRange::default())?.notices() {
///     match notice {
///         Notice::Gap(gap) => println!("LSNs {} to {} are missing: {:?}", gap.first, gap.last, gap.cause),
///         Notice::ClockStepped(step) => println!("the clock was set at LSN {}", step.lsn),
///         other => println!("{other:?}"),
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// Entries from this LSN on were found on disk but not proven durable; the next start of the log decides.
    Unconfirmed(Lsn),
    /// The wall clock stepped inside the range: times before and after do not compare.
    ClockStepped(ClockStep),
    /// The range touches LSNs that were lost or skipped.
    Gap(Gap),
    /// Retention has deleted entries of the range.
    Expired {
        /// Smallest LSN that was not deleted.
        floor_lsn: Lsn,
        /// Time of the newest entry that was deleted, nanoseconds since the Unix epoch; 0 where that is not known.
        until_ns: u64,
    },
}

/// What a store holds.
///
/// ```
/// # let temporary = tempfile::tempdir()?;
/// # let dir = temporary.path().join("till-1");
/// # use kifa::{Log, Options, Reader};
/// # let log = Log::open(&dir, Options::default())?;
/// # log.append(b"TXN-001")?;
/// # log.close()?;
/// let stats = Reader::open(&dir)?.stats()?;
/// let (first, last) = stats.lsns.expect("it holds an entry");
/// assert_eq!((first.0, last.0, stats.entries), (1, 1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// Entries that a full scan returns.
    pub entries: u64,
    /// Sorted tables.
    pub tables: usize,
    /// Every entry up to this LSN is in a table.
    pub checkpoint_lsn: Lsn,
    /// Entries in the write-ahead log that are not in a table yet.
    pub memtable_entries: u64,
    /// Smallest and largest LSN.
    pub lsns: Option<(Lsn, Lsn)>,
    /// Smallest and largest timestamp, nanoseconds since the Unix epoch.
    pub timestamps_ns: Option<(u64, u64)>,
    /// Flush mode last in force.
    pub flush_mode: FlushMode,
    /// Live write-ahead-log segments, prepared spares not counted.
    pub wal_segments: usize,
    /// Prepared spare segments.
    pub wal_spares: usize,
    /// Bytes of all of the store's files.
    pub disk_bytes: u64,
    /// Backend last used: `io_uring` or `portable`.
    pub io_backend: &'static str,
    /// Sync method last used: `linked` or `dsync`.
    pub sync_method: &'static str,
    /// Whether writes bypass the page cache.
    pub direct_io: bool,
    /// Smallest LSN that was not deleted by retention; 1 while nothing was.
    pub floor_lsn: Lsn,
    /// What retention has deleted.
    pub expired: Expired,
    /// Lost or skipped LSNs.
    pub gaps: Vec<Gap>,
    /// Recorded clock steps.
    pub clock_steps: Vec<ClockStep>,
    /// Whether a writer has the store open now.
    pub writer_alive: bool,
}

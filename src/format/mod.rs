//! Every byte on disk: pure functions between bytes and structs, no I/O.
//!
//! | file | record |
//! |---|---|
//! | [`segment`] | the header sector of a write-ahead-log segment |
//! | [`group`] | the header of a group, the unit of write, sync and replay |
//! | [`entry`] | one entry inside a group |
//! | [`record`] | what rides in a group beside entries: epoch starts, checkpoints, clock steps |
//! | [`table`] | header, block, index and footer of a sorted table |
//! | [`facts`] | what tables and manifest share: gaps, checkpoints, clock steps |
//! | [`manifest`] | the live set of tables and segments |
//!
//! Rules that hold for all of them:
//! - Integers are little-endian and of fixed width; the layout table in each file is the only description.
//! - Magic and version (where there is one) sit at a fixed place; a version above ours is refused by name.
//! - Every length read from disk is checked against a ceiling before it is believed, and believed only after its CRC.
//! - Checksums are CRC-32 (IEEE 802.3, reflected polynomial 0xEDB88320), as in zlib and `crc32fast`.
//! - Decoders never panic and never allocate more than a ceiling named here, whatever the bytes.
//! - Every record has one encoding: what a decoder accepts, its encoder gives back byte for byte. Reserved bytes are
//!   zero, flags are 0 or 1, and an encoder panics rather than write what its decoder would refuse.
//! - The checksum is looked at before the version, so a version above ours must keep both where they are.
//!
//! Proof: `tests`, for each file: golden bytes (labelled by field), property round trips, the rejection of every
//! truncation and every single bit flip, and of fields out of range behind a checksum that fits; `tests/fixtures/v1`, a
//! store of version 1 that today's code must open.

pub(crate) mod bytes;
pub(crate) mod entry;
pub(crate) mod facts;
pub(crate) mod group;
pub(crate) mod manifest;
pub(crate) mod record;
pub(crate) mod segment;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use std::fmt;

/// Unit of alignment of every group, header and table section, in bytes.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// Longest payload of an entry, in bytes.
///
/// ```
/// assert_eq!(kifa::ENTRY_PAYLOAD_BYTES_MAX, 1_048_576);
/// ```
pub const ENTRY_PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Longest body of a group (entries and records, without header and padding) that a decoder believes.
pub(crate) const GROUP_BODY_BYTES_MAX: usize = 64 << 20;
/// Longest segment file that a decoder believes, in bytes.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Largest LSN, segment number, epoch, generation or table id that a decoder believes: half of what fits, so that
/// nobody who adds a count, a gap or one to such a number has to fear an overflow.
pub(crate) const NUMBER_MAX: u64 = u64::MAX >> 1;
/// Format version written and understood by this build.
pub(crate) const VERSION: u32 = 1;

const _: () = assert!((2 * BLOCK_BYTES + GROUP_BODY_BYTES_MAX) as u64 <= SEGMENT_BYTES_MAX);

/// Rounds up to a multiple of [`BLOCK_BYTES`].
pub(crate) const fn block_ceil(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES as u64) * BLOCK_BYTES as u64
}

/// Log sequence number: identity and order of an entry. The first entry of a store is 1; 0 means "none".
///
/// ```
/// use kifa::Lsn;
///
/// assert!(Lsn::ZERO < Lsn(1));
/// assert_eq!(Lsn(42).to_string(), "42");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// "No entry": smaller than every entry's LSN.
    pub const ZERO: Lsn = Lsn(0);

    /// The LSN after this one.
    pub(crate) fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }

    /// The LSN before this one; [`Lsn::ZERO`] stays.
    pub(crate) fn prev(self) -> Lsn {
        Lsn(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of a store, drawn at random at its birth and carried by each of its files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub(crate) struct StoreId(pub(crate) [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How entries are synced; see the crate documentation for what each mode promises.
///
/// ```
/// use kifa::FlushMode;
///
/// assert_eq!(FlushMode::default(), FlushMode::Cautious);
/// assert_eq!(FlushMode::Emergency.to_string(), "emergency");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[repr(u8)]
pub enum FlushMode {
    /// Confirmed entries may be at most 49 ahead of durable, none for longer than a second.
    Normal = 1,
    /// Confirmed implies durable.
    #[default]
    Cautious = 2,
    /// Confirmed implies durable, and compaction is paused.
    Emergency = 3,
}

impl FlushMode {
    /// Decodes the on-disk number.
    pub(crate) fn from_u8(value: u8) -> Option<FlushMode> {
        match value {
            1 => Some(FlushMode::Normal),
            2 => Some(FlushMode::Cautious),
            3 => Some(FlushMode::Emergency),
            _ => None,
        }
    }
}

/// As it is written in the configuration: `normal`, `cautious`, `emergency`.
impl std::fmt::Display for FlushMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            FlushMode::Normal => "normal",
            FlushMode::Cautious => "cautious",
            FlushMode::Emergency => "emergency",
        })
    }
}

/// Why LSNs were skipped.
///
/// ```
/// use kifa::GapCause;
///
/// let sentence = |cause| match cause {
///     GapCause::UncleanNormal => "the power went in normal mode",
///     GapCause::Damage => "an operator has accepted the loss",
///     _ => "a cause that a later version knows",
/// };
/// assert_eq!(sentence(GapCause::Damage), "an operator has accepted the loss");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum GapCause {
    /// An unclean end while normal mode held: up to 49 confirmed entries may have been lost.
    UncleanNormal = 1,
    /// The operator accepted the loss of a damaged range.
    Damage = 2,
}

impl GapCause {
    /// Decodes the on-disk number.
    pub(crate) fn from_u8(value: u8) -> Option<GapCause> {
        match value {
            1 => Some(GapCause::UncleanNormal),
            2 => Some(GapCause::Damage),
            _ => None,
        }
    }
}

/// A range of LSNs that no entry has, with its cause. Both ends belong to the gap.
///
/// ```
/// use kifa::{Gap, GapCause, Lsn};
///
/// let gap = Gap { first: Lsn(101), last: Lsn(150), cause: GapCause::UncleanNormal };
/// assert_eq!(gap.last.0 - gap.first.0 + 1, 50, "LSNs that were skipped; at most 49 of them were confirmed");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Gap {
    /// First missing LSN.
    pub first: Lsn,
    /// Last missing LSN.
    pub last: Lsn,
    /// Why it is missing.
    pub cause: GapCause,
}

/// A wall-clock step of more than a second, followed and recorded rather than smeared.
///
/// ```
/// use kifa::{ClockStep, Lsn};
///
/// let step = ClockStep { lsn: Lsn(12), from_ns: 3_000_000_000, to_ns: 1_769_884_200_000_000_000 };
/// assert!(step.to_ns > step.from_ns, "a clock that started in 1970 was set at entry 12");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct ClockStep {
    /// First entry that carries the new time.
    pub lsn: Lsn,
    /// Where the clock would have been, nanoseconds since the Unix epoch.
    pub from_ns: u64,
    /// Where it was found, nanoseconds since the Unix epoch.
    pub to_ns: u64,
}

/// Why bytes are not a valid record. Carries no I/O; callers add file and offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FormatError {
    /// Fewer bytes than the record says it has.
    Truncated,
    /// The magic number is another one.
    Magic,
    /// Written by a newer format version (the number found).
    Version(u32),
    /// The named checksum does not match.
    Checksum(&'static str),
    /// The named field has a value outside its range.
    Field(&'static str),
    /// Compressed in a way that this build does not know (the codec's number).
    Codec(u8),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormatError::Truncated => f.write_str("it ends too early"),
            FormatError::Magic => f.write_str("it does not start with the expected magic number"),
            FormatError::Version(found) => {
                write!(f, "it has format version {found}; this kifa understands up to {VERSION}")
            }
            FormatError::Checksum(what) => write!(f, "the checksum of its {what} does not match"),
            FormatError::Codec(2) => f.write_str("it is compressed with zstd (codec 2), which this kifa cannot read"),
            FormatError::Codec(found) => {
                write!(f, "it is compressed with codec {found}, which this kifa does not know")
            }
            FormatError::Field(what) => write!(f, "its field \"{what}\" is out of range"),
        }
    }
}

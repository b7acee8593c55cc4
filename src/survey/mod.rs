//! What of a store can be read, and what cannot: every file, every range, good or damaged. One reading layer for `kifa
//! verify`, `kifa recover`, and for queries on a damaged store.
//!
//! | file | what |
//! |---|---|
//! | [`log`] | the log behind the checkpoint, also behind damage |
//! | [`pieces`] | which segments make up a damaged log |
//! | [`tolerant`] | files whose device cannot read parts of them |
//! | `tables` | the tables, block by block |
//! | `rebuild` | a manifest from the files, where it is lost |
//! | `strangers` | files that are not the store's, and leftovers |
//! | `store` | all of it together |
//!
//! Invariants:
//! - It reads, and changes nothing; no lock is needed. What it calls good was checked on this reading.
//! - Damage is never passed over: each hole is a [`Wound`] with file, offset and, where anything tells them, LSNs.
//! - What recovery would not replay (dead groups, torn tails) is not brought back. See [`log`].
//!
//! Not here: what to do about it (`recover`), how it is told (`cli`).
//!
//! Proof: `tests`, `tests/engine/damage.rs`, `tests/it/verify.rs`, `tests/it/bad_input.rs`.

pub(crate) mod log;
pub(crate) mod pieces;
#[cfg(feature = "cli")]
pub(crate) mod rebuild;
#[cfg(feature = "cli")]
pub(crate) mod store;
#[cfg(feature = "cli")]
pub(crate) mod strangers;
#[cfg(feature = "cli")]
pub(crate) mod tables;
#[cfg(test)]
mod tests;
pub(crate) mod tolerant;

use crate::error::{Damage, Error};
use crate::format::Lsn;

/// What kind of thing is damaged.
#[cfg_attr(
    not(feature = "cli"),
    allow(dead_code, reason = "the library reads; looking at everything is for the program")
)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The newest manifest is invalid or missing.
    Manifest,
    /// Floor, tables, gaps and log do not join.
    Join,
    TableMissing,
    /// Header, index or footer of a table.
    TableEdge,
    /// One block of a table.
    Block,
    SegmentMissing,
    SegmentHeader,
    SegmentShort,
    /// A range of groups.
    Group,
    /// Good groups that may have been superseded.
    Doubtful,
    /// Something else about the log.
    Log,
    /// The device does not give the bytes back, and nothing else is known of them.
    Unreadable,
    /// Bad on the first reading, good on the second.
    Unstable,
}

/// One damaged place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wound {
    pub(crate) kind: Kind,
    /// Relative to the store's directory.
    pub(crate) file: String,
    pub(crate) offset: u64,
    /// Behind the damaged bytes, where that is known.
    pub(crate) end: Option<u64>,
    /// First and last LSN of what lay there, where that is known.
    pub(crate) lsns: Option<(Lsn, Lsn)>,
    /// Entries that were found good in between.
    pub(crate) saved: u64,
    /// What is wrong, as the end of a sentence that starts with the file.
    pub(crate) what: String,
}

impl Wound {
    /// Of damage that the engine found.
    pub(crate) fn of(kind: Kind, damage: &Damage) -> Wound {
        Wound {
            kind,
            file: damage.file.clone(),
            offset: damage.offset,
            end: None,
            lsns: damage.lsn.map(|lsn| (lsn, lsn)),
            saved: 0,
            what: damage.what.clone(),
        }
    }

    /// The public error.
    pub(crate) fn to_error(&self) -> Error {
        let what = match self.lsns {
            Some((first, last)) if self.saved > 0 => {
                format!("{}; of LSNs {first} to {last} {} can be read", self.what, self.saved)
            }
            Some((first, last)) if first < last => format!("{}; LSNs {first} to {last} cannot be read", self.what),
            _ => self.what.clone(),
        };
        Error::corrupt(&self.file, self.offset, self.lsns.map(|lsns| lsns.0), what)
    }

    /// Whether the two places touch.
    fn covers(&self, file: &str, offset: u64, end: u64) -> bool {
        self.file == file && self.offset < end && self.end.is_none_or(|own| offset < own)
    }
}

//! Sorted tables: what a full memtable becomes, and what compaction merges. The bytes are [`crate::format::table`]'s.
//!
//! | file | owns |
//! |---|---|
//! | [`builder`] | entries (or whole blocks) in, bytes of the file out, in order |
//! | [`chunk`] | those bytes, in chunks whose memory is used again |
//! | [`reader`] | an open table: its index and facts, one block at a time, the full check |
//! | [`codec`] | compression of a block's entries |
//! | [`index`] | which blocks a range of LSNs and times touches |
//! | [`salvage`] | good blocks in a file whose index is lost |
//!
//! Invariants:
//! - A table is written once, front to back, and never changed; its entries rise strictly by LSN.
//! - Nothing is returned from a block before its CRC, its place in the index, and each field in it were checked.
//! - Damage and a failed read are different errors: [`TableError::Damaged`] says where and what, [`TableError::Io`] keeps
//!   the cause. Bytes of any kind never panic, and nothing is allocated before it was held against a ceiling and the file.
//! - Memory: the builder holds one open block, what was not taken from it yet, and 56 bytes per block; an open table holds
//!   56 bytes per block and its facts; a reader holds one block (at most about 4 MiB, usually 140 KiB) in a [`BlockBuf`].
//!   A million entries of 200 bytes are about 3,400 blocks, so 0.2 MB of index; in the worst case, entries above 32 KiB,
//!   each has a block of its own: 56 MB per million entries, below a fifth of a percent of their bytes.
//!
//! Not here: I/O other than reads through [`crate::io::ReadAt`]; which tables are live (the manifest); which to merge
//! ([`crate::compaction`]).
//!
//! Proof: `tests` beside this page (round trips, every truncation, every bit flip, forged blocks), the golden bytes of
//! the format.

mod builder;
mod chunk;
mod codec;
mod index;
mod reader;
mod salvage;
#[cfg(test)]
pub(crate) mod tests;

use std::{fmt, io};

pub(crate) use builder::TableBuilder;
#[cfg(test)]
pub(crate) use chunk::CHUNK_BYTES;
pub(crate) use chunk::{Chunk, ChunkPool};
pub(crate) use reader::{BlockBuf, Table};

use crate::error::Error;
use crate::format::Lsn;
use crate::io::{ReadAt, Vfs};
use crate::wal::files::QUARANTINED;

/// The directory of the tables, inside the store.
pub(crate) const DIR: &str = "sst";

/// The path of a table's file.
pub(crate) fn path(id: u64) -> String {
    format!("{DIR}/{id:010}.sst")
}

/// Opens a table's file, also where `kifa recover --accept` was cut off when it had marked it as damaged. Its path, too.
pub(crate) fn open_file(vfs: &dyn Vfs, id: u64) -> io::Result<(String, Box<dyn ReadAt>)> {
    let path = path(id);
    match vfs.open(&path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            let marked = format!("{path}{QUARANTINED}");
            vfs.open(&marked).map(|file| (marked, file)).map_err(|_| cause)
        }
        opened => opened.map(|file| (path, file)),
    }
}

/// Why a table, or a part of it, cannot be read.
#[derive(Debug)]
pub(crate) enum TableError {
    /// Reading failed; says nothing about the bytes.
    Io(io::Error),
    /// The bytes are not what was written.
    Damaged {
        /// Where in the file the damaged part starts, in bytes.
        offset: u64,
        /// The first LSN that cannot be read because of it, where that is known.
        lsn: Option<Lsn>,
        /// What is wrong, as the end of a sentence that starts with the file.
        what: String,
    },
}

impl TableError {
    /// Names the LSNs that cannot be read because of it.
    pub(crate) fn about(self, first: Lsn, last: Lsn) -> TableError {
        self.with(&format!("; LSNs {first} to {last} cannot be read"))
    }

    /// Goes on with the sentence.
    pub(crate) fn with(self, more: &str) -> TableError {
        match self {
            TableError::Damaged { offset, lsn, what } => TableError::Damaged { offset, lsn, what: what + more },
            TableError::Io(cause) => TableError::Io(io::Error::new(cause.kind(), format!("{cause}{more}"))),
        }
    }

    /// The public error, for the table of this file name.
    pub(crate) fn into_error(self, file: &str) -> Error {
        match self {
            TableError::Io(cause) => Error::io("read", file, cause),
            TableError::Damaged { offset, lsn, what } => Error::corrupt(file, offset, lsn, what),
        }
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableError::Io(cause) => write!(f, "it cannot be read: {cause}"),
            TableError::Damaged { offset, what, .. } => write!(f, "it is damaged at offset {offset}: {what}"),
        }
    }
}

//! Entries that are confirmed and not in a table yet.
//!
//! Entries lie as they did in their group, one after the other in LSN order, in one allocation: adding a group is one
//! copy, and whoever builds the table walks it from front to back. Nothing is ever searched here, so there is no index.
//! Bounded by its owner, which freezes it at `memtable_bytes` and holds at most one frozen one beside it.

use crate::format::Lsn;
use crate::format::entry::{self, Entry};

/// See the module's page.
#[derive(Default)]
pub(crate) struct MemTable {
    bytes: Vec<u8>,
    count: u64,
    range: Option<(Lsn, Lsn)>,
}

impl MemTable {
    /// An empty table that takes `bytes` without growing.
    pub(crate) fn with_capacity(bytes: usize) -> MemTable {
        MemTable { bytes: Vec::with_capacity(bytes), ..MemTable::default() }
    }

    /// Adds `count` staged entries, `first` to `last`, behind those it has.
    pub(crate) fn push_entries(&mut self, entries: &[u8], count: u64, first: Lsn, last: Lsn) {
        if count == 0 {
            return;
        }
        assert!(self.range.is_none_or(|(_, newest)| newest < first), "entries come in LSN order");
        self.bytes.extend_from_slice(entries);
        self.count += count;
        self.range = Some((self.range.map_or(first, |(oldest, _)| oldest), last));
    }

    /// Bytes the entries take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Number of entries.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// First and last LSN.
    pub(crate) fn range(&self) -> Option<(Lsn, Lsn)> {
        self.range
    }

    /// The entry at byte position `at`, with the position of the one behind it.
    pub(crate) fn entry_at(&self, at: usize) -> Option<(Entry<'_>, usize)> {
        let rest = self.bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let entry = entry::decode_trusted(rest);
        let next = at + entry.encoded_bytes();
        Some((entry, next))
    }
}

//! Entries that are confirmed and not in a table yet.
//!
//! Entries lie as they did in their group, one after the other in LSN order, in chunks of one size: adding a group is a copy
//! or two, nothing is ever moved, and what one table gives back to the allocator is what the next one asks for. (One large
//! piece of memory for each table made the process hold two of them more than it used.) Whoever builds a table walks it
//! from front to back. Nothing is ever searched here but the chunk of a position, so there is no index of entries.
//! Bounded by its owner, which freezes it at `memtable_bytes` and holds at most one frozen one beside it.
//!
//! Proof: the tests below, and `engine`'s.

use crate::format::Lsn;
use crate::format::entry::{self, Entry};

/// See the module's page.
#[derive(Default)]
pub(crate) struct MemTable {
    chunks: Vec<Chunk>,
    bytes: usize,
    count: u64,
    range: Option<(Lsn, Lsn)>,
}

/// Whole entries, never more than it was made for.
struct Chunk {
    /// Position of its first byte among those of the table.
    start: usize,
    bytes: Vec<u8>,
}

/// Length of a chunk, unless one entry alone is longer.
const CHUNK_BYTES: usize = 256 << 10;

impl MemTable {
    /// An empty table for about `bytes`; the memory itself is taken as entries come.
    pub(crate) fn with_capacity(bytes: usize) -> MemTable {
        MemTable { chunks: Vec::with_capacity(bytes / CHUNK_BYTES + 1), ..MemTable::default() }
    }

    /// Adds `count` staged entries, `first` to `last`, behind those it has.
    pub(crate) fn push_entries(&mut self, entries: &[u8], count: u64, first: Lsn, last: Lsn) {
        if count == 0 {
            return;
        }
        assert!(self.range.is_none_or(|(_, newest)| newest < first), "entries come in LSN order");
        let mut rest = entries;
        while !rest.is_empty() {
            let room = self.chunks.last().map_or(0, |chunk| chunk.bytes.capacity() - chunk.bytes.len());
            let (fitting, behind) = rest.split_at(whole_entries(rest, room));
            if fitting.is_empty() {
                let bytes = Vec::with_capacity(CHUNK_BYTES.max(entry::decode_trusted(rest).encoded_bytes()));
                self.chunks.push(Chunk { start: self.bytes, bytes });
                continue;
            }
            let chunk = self.chunks.last_mut().expect("it has room");
            chunk.bytes.extend_from_slice(fitting);
            self.bytes += fitting.len();
            rest = behind;
        }
        self.count += count;
        self.range = Some((self.range.map_or(first, |(oldest, _)| oldest), last));
    }

    /// Bytes the entries take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
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
        let behind = self.chunks.partition_point(|chunk| chunk.start <= at);
        let chunk = &self.chunks[behind.checked_sub(1)?];
        let rest = chunk.bytes.get(at - chunk.start..).filter(|rest| !rest.is_empty())?;
        let entry = entry::decode_trusted(rest);
        let next = at + entry.encoded_bytes();
        Some((entry, next))
    }
}

/// Bytes of the entries at the front of `entries` that fit whole into `room`.
fn whole_entries(entries: &[u8], room: usize) -> usize {
    if entries.len() <= room {
        return entries.len();
    }
    let mut end = 0;
    loop {
        let next = end + entry::decode_trusted(&entries[end..]).encoded_bytes();
        if next > room {
            return end;
        }
        end = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Staged entries of these lengths, from this LSN on.
    fn staged(first: u64, payloads: &[usize]) -> Vec<u8> {
        let mut out = Vec::new();
        for (lsn, &bytes) in (first..).zip(payloads) {
            let payload = vec![lsn as u8; bytes];
            let entry = Entry { lsn: Lsn(lsn), timestamp_ns: lsn, source: 0, payload: &payload };
            let at = out.len();
            out.resize(at + entry.encoded_bytes(), 0);
            entry::stage(&mut out[at..], &entry, 0);
        }
        out
    }

    #[test]
    fn entries_come_back_whole_and_in_order_wherever_a_chunk_ends() {
        let groups: [&[usize]; 6] = [
            &[0],
            &[100_000; 7],
            &[CHUNK_BYTES + 1, 3],
            &[CHUNK_BYTES - entry::OVERHEAD_BYTES],
            &[1 << 20],
            &[7; 9000],
        ];
        let (mut table, mut next, mut expected) = (MemTable::with_capacity(4 << 20), 1, Vec::new());
        for payloads in groups {
            let bytes = staged(next, payloads);
            let count = payloads.len() as u64;
            let before = table.bytes();
            table.push_entries(&bytes, count, Lsn(next), Lsn(next + count - 1));
            assert_eq!(table.bytes(), before + bytes.len());
            expected.extend_from_slice(payloads);
            next += count;
        }
        let mut at = 0;
        for (lsn, bytes) in (1..).zip(&expected) {
            let (entry, behind) = table.entry_at(at).expect("there is one more");
            assert_eq!((entry.lsn, entry.payload.len()), (Lsn(lsn), *bytes));
            assert!(entry.payload.iter().all(|&byte| byte == lsn as u8));
            at = behind;
        }
        assert!(table.entry_at(at).is_none());
        assert_eq!((table.count(), table.range()), (expected.len() as u64, Some((Lsn(1), Lsn(next - 1)))));
        assert!(MemTable::default().entry_at(0).is_none());
    }
}

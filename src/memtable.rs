//! Entries that are confirmed and not in a table yet.
//!
//! Entries lie as they did in their group, one after the other in LSN order, in chunks of one size, a sixteenth of what a
//! table holds: adding a group is a copy or two, nothing is ever moved, and a table takes over the chunks of one that is not
//! needed any more. (Giving them back and asking for them again costs a twentieth of the speed under full load. One large
//! piece of memory for each table made the process hold two of them more than it used.) Whoever builds a table walks it from
//! front to back. Nothing is ever searched here but the chunk of a position, so there is no index of entries. A chunk that is
//! full never changes any more, and may be looked at from another thread while entries are added behind it.
//! Bounded by its owner, which freezes it at `memtable_bytes` and holds at most two frozen ones beside it.
//!
//! Proof: the tests below, and `engine`'s.

use std::sync::Arc;

use crate::format::Lsn;
use crate::format::entry::{self, Entry};

/// See the module's page.
#[derive(Default)]
pub(crate) struct MemTable {
    /// Length of a chunk, unless one entry alone is longer.
    chunk_bytes: usize,
    /// Memory for chunks to come, empty.
    spare: Vec<Vec<u8>>,
    full: Vec<Arc<Chunk>>,
    open: Chunk,
    bytes: usize,
    count: u64,
    range: Option<(Lsn, Lsn)>,
}

/// Whole entries, never more than it was made for.
#[derive(Default)]
pub(crate) struct Chunk {
    /// Position of its first byte among those of the table.
    start: usize,
    bytes: Vec<u8>,
}

impl Chunk {
    /// Position behind its last byte.
    pub(crate) fn end(&self) -> usize {
        self.start + self.bytes.len()
    }

    /// Its entries, in LSN order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut at = self.start;
        std::iter::from_fn(move || {
            let (entry, next) = self.entry_at(at)?;
            at = next;
            Some(entry)
        })
    }

    fn entry_at(&self, at: usize) -> Option<(Entry<'_>, usize)> {
        let rest = self.bytes.get(at - self.start..).filter(|rest| !rest.is_empty())?;
        let entry = entry::decode_trusted(rest);
        let next = at + entry.encoded_bytes();
        Some((entry, next))
    }
}

/// Chunks of a table that is full.
const CHUNKS: usize = 16;
/// Chunks of the table before that are used again: it may have held a group more.
const CHUNKS_KEPT: usize = CHUNKS + 5;
const CHUNK_BYTES_MIN: usize = 1 << 10;
const CHUNK_BYTES_MAX: usize = 256 << 10;

impl MemTable {
    /// An empty table for about `bytes`; the memory itself is taken as entries come.
    pub(crate) fn with_capacity(bytes: usize) -> MemTable {
        let chunk_bytes = (bytes / CHUNKS).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        MemTable { chunk_bytes, ..MemTable::default() }
    }

    /// The same, in the memory of a table that is not needed any more.
    pub(crate) fn in_place_of(old: MemTable, bytes: usize) -> MemTable {
        let mut table = MemTable::with_capacity(bytes);
        let full = old.full.into_iter().filter_map(Arc::into_inner);
        let chunks = full.chain([old.open]).map(|chunk| chunk.bytes).chain(old.spare);
        table.spare = chunks.filter(|bytes| bytes.capacity() == table.chunk_bytes).take(CHUNKS_KEPT).collect();
        table.spare.iter_mut().for_each(Vec::clear);
        table
    }

    /// Adds `count` staged entries, `first` to `last`, behind those it has.
    pub(crate) fn push_entries(&mut self, entries: &[u8], count: u64, first: Lsn, last: Lsn) {
        if count == 0 {
            return;
        }
        assert!(self.range.is_none_or(|(_, newest)| newest < first), "entries come in LSN order");
        let mut rest = entries;
        while !rest.is_empty() {
            let room = self.open.bytes.capacity() - self.open.bytes.len();
            // Looked at where it was copied to: there it is near the processor.
            let start = self.open.bytes.len();
            self.open.bytes.extend_from_slice(&rest[..rest.len().min(room)]);
            let fitting = whole_entries(&self.open.bytes[start..]);
            self.open.bytes.truncate(start + fitting);
            if fitting == 0 {
                let bytes = self.new_chunk(entry::decode_trusted(rest).encoded_bytes());
                let full = std::mem::replace(&mut self.open, Chunk { start: self.bytes, bytes });
                if !full.bytes.is_empty() {
                    self.full.push(Arc::new(full));
                }
                continue;
            }
            self.bytes += fitting;
            rest = &rest[fitting..];
        }
        self.count += count;
        self.range = Some((self.range.map_or(first, |(oldest, _)| oldest), last));
    }

    /// Memory for a chunk with room for this many bytes at least.
    fn new_chunk(&mut self, bytes: usize) -> Vec<u8> {
        let spare = if bytes <= self.chunk_bytes { self.spare.pop() } else { None };
        spare.unwrap_or_else(|| Vec::with_capacity(self.chunk_bytes.max(bytes)))
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
        if at >= self.open.start {
            return self.open.entry_at(at);
        }
        let behind = self.full.partition_point(|chunk| chunk.start <= at);
        self.full[behind.checked_sub(1)?].entry_at(at)
    }

    /// The full chunk that begins at byte position `at`, if there is one.
    pub(crate) fn full_chunk(&self, at: usize) -> Option<Arc<Chunk>> {
        let chunk = self.full.binary_search_by_key(&at, |chunk| chunk.start).ok()?;
        Some(Arc::clone(&self.full[chunk]))
    }
}

/// Bytes of the whole entries at the front of `bytes`, the last of which may be cut off.
fn whole_entries(bytes: &[u8]) -> usize {
    let mut end = 0;
    while bytes.len() - end >= entry::OVERHEAD_BYTES {
        let next = end + entry::staged_bytes(&bytes[end..]);
        if next > bytes.len() {
            break;
        }
        end = next;
    }
    end
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
        let fresh = fill_and_check(MemTable::with_capacity(4 << 20));
        // Catches bytes of the table before.
        let again = fill_and_check(MemTable::in_place_of(fresh, 4 << 20));
        assert!(again.spare.is_empty(), "as much memory as it had was enough");
        assert!(MemTable::default().entry_at(0).is_none());
    }

    #[test]
    fn a_table_takes_over_chunks_of_its_own_size_and_no_more_than_it_needs() {
        let full = |bytes| {
            let mut table = MemTable::with_capacity(bytes);
            (1..=40).for_each(|lsn| table.push_entries(&staged(lsn, &[200 << 10]), 1, Lsn(lsn), Lsn(lsn)));
            table
        };
        assert_eq!(MemTable::in_place_of(full(4 << 20), 4 << 20).spare.len(), CHUNKS_KEPT);
        assert_eq!(MemTable::in_place_of(full(4 << 20), 1 << 20).spare.len(), 0, "they have another size");
        let held = full(4 << 20);
        let chunk = held.full_chunk(0).expect("it is full");
        assert_eq!(MemTable::in_place_of(held, 4 << 20).spare.len(), CHUNKS_KEPT);
        assert_eq!(chunk.entries().count(), 1, "what somebody looks at is left alone");
    }

    fn fill_and_check(mut table: MemTable) -> MemTable {
        let groups: [&[usize]; 6] = [
            &[0],
            &[100_000; 7],
            &[CHUNK_BYTES_MAX + 1, 3],
            &[CHUNK_BYTES_MAX - entry::OVERHEAD_BYTES],
            &[1 << 20],
            &[7; 9000],
        ];
        let (mut next, mut expected) = (1, Vec::new());
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
        let (mut at, mut lsns) = (0, 1..);
        while let Some(chunk) = table.full_chunk(at) {
            assert!(chunk.entries().all(|entry| lsns.next() == Some(entry.lsn.0)));
            at = chunk.end();
        }
        let (open, _) = table.entry_at(at).expect("the chunk behind the full ones is open");
        assert_eq!(lsns.next(), Some(open.lsn.0), "the full ones are all that lies before it");
        assert_eq!((table.count(), table.range()), (expected.len() as u64, Some((Lsn(1), Lsn(next - 1)))));
        table
    }
}

//! A table's bytes on their way to the device: chunks of one size, in memory that is used again.
//!
//! Invariants:
//! - Every chunk but the last of a table is full, and all are whole blocks: they are written by O_DIRECT, each behind the one
//!   before.
//! - What a chunk held before is never seen: it ends where what was written to it ends.
//! - Memory: a pool keeps at most [`KEPT`] chunks, and none once its owner clears it.
//!
//! Proof: the tests of [`super`], which build tables in chunks that are full of junk.

use std::mem::{replace, take};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::format::BLOCK_BYTES;
use crate::io::AlignedBuf;

/// Length of a chunk: large enough for a device, small enough for a merge to give way in between.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that a pool keeps: what is packed ahead, and two of the flush before it.
const KEPT: usize = 8;

/// Whole blocks of a table.
pub(crate) struct Chunk {
    buf: AlignedBuf,
    len: usize,
}

impl Chunk {
    /// The memory, and how much of it counts.
    pub(crate) fn into_parts(self) -> (AlignedBuf, usize) {
        (self.buf, self.len)
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buf[..self.len]
    }
}

/// Memory of chunks that were written, for those to come: asking for new pages and giving them back was a third of the system
/// time under full load.
#[derive(Default)]
pub(crate) struct ChunkPool(Mutex<Vec<AlignedBuf>>);

impl ChunkPool {
    fn take(&self) -> AlignedBuf {
        self.kept().pop().unwrap_or_else(|| AlignedBuf::zeroed(CHUNK_BYTES))
    }

    /// Keeps the memory of a chunk that is not needed any more.
    pub(crate) fn give(&self, buf: AlignedBuf) {
        let mut kept = self.kept();
        if kept.len() < KEPT {
            kept.push(buf);
        }
    }

    /// Lets go of what is kept.
    pub(crate) fn clear(&self) {
        *self.kept() = Vec::new();
    }

    #[cfg(test)]
    pub(super) fn kept_count(&self) -> usize {
        self.kept().len()
    }

    fn kept(&self) -> MutexGuard<'_, Vec<AlignedBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of a table, cut into chunks.
pub(super) struct Chunks {
    pool: Arc<ChunkPool>,
    full: Vec<Chunk>,
    open: AlignedBuf,
    open_bytes: usize,
}

impl Chunks {
    pub(super) fn new(pool: Arc<ChunkPool>) -> Chunks {
        let open = pool.take();
        Chunks { pool, full: Vec::new(), open, open_bytes: 0 }
    }

    /// Bytes that were not taken.
    pub(super) fn bytes(&self) -> usize {
        self.full.len() * CHUNK_BYTES + self.open_bytes
    }

    pub(super) fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = &mut self.open[self.open_bytes..];
            let (fitting, behind) = bytes.split_at(bytes.len().min(room.len()));
            room[..fitting.len()].copy_from_slice(fitting);
            self.open_bytes += fitting.len();
            bytes = behind;
            if self.open_bytes == CHUNK_BYTES {
                let buf = replace(&mut self.open, self.pool.take());
                self.full.push(Chunk { buf, len: replace(&mut self.open_bytes, 0) });
            }
        }
    }

    /// Takes what is full, if anything is.
    pub(super) fn take(&mut self) -> Option<Vec<Chunk>> {
        (!self.full.is_empty()).then(|| take(&mut self.full))
    }

    /// Takes everything.
    ///
    /// # Panics
    /// If it does not end with a whole block.
    pub(super) fn finish(mut self) -> Vec<Chunk> {
        assert!(self.open_bytes.is_multiple_of(BLOCK_BYTES), "a table is whole blocks");
        match self.open_bytes {
            0 => self.pool.give(self.open),
            len => self.full.push(Chunk { buf: self.open, len }),
        }
        self.full
    }
}

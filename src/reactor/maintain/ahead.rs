//! Packing the next memtable while the one before it is on its way to a table.
//!
//! A flush is bounded by the one processor that packs its memtable, and by the device. Where appends are about to fill the
//! next memtable meanwhile, they would wait for it. So a thread of its own packs what that one has in full chunks, whether it
//! is open yet or frozen, for the table that it becomes. Where appends are slower, nothing is packed ahead: it would only take
//! processors from them.
//!
//! Invariants:
//! - Nothing is written ahead, and nothing of it is known outside memory: a file is begun when its memtable is frozen, and
//!   all of that is durable. Where a flush begins anew for want of space, it packs everything anew.
//! - What is packed is the front of the first memtable whose flush has not begun, whole chunks, so the table has the bytes
//!   that it had otherwise.
//! - Memory: [`AHEAD_BYTES_MAX`], and what one chunk more becomes.
//!
//! Proof: the tests of `engine` under load and the crash campaign in `sim`, whose tables are all checked against what was
//! appended.

use std::rc::Rc;
use std::sync::Arc;

use crate::format::StoreId;
use crate::format::table::Codec;
use crate::reactor::Core;
use crate::reactor::helper::Lane;
use crate::sstable::{ChunkPool, TableBuilder};

/// A memtable that is full to one part in this many is packed ahead.
const BEGIN_SHARE: usize = 4;
/// Bytes that may be packed ahead: nearly all of a table of 4 MiB.
const AHEAD_BYTES_MAX: usize = 1536 << 10;

/// The front of a memtable, packed.
pub(super) struct Ahead {
    pub(super) builder: TableBuilder,
    /// Position in the memtable of what is not packed yet.
    pub(super) at: usize,
}

impl Ahead {
    /// With nothing packed yet, for table `id`.
    pub(super) fn begin(store: StoreId, id: u64, codec: Codec, pool: &Arc<ChunkPool>) -> Ahead {
        Ahead { builder: TableBuilder::new(store, id, codec, Arc::clone(pool)), at: 0 }
    }
}

impl Core {
    /// Packs the next chunk, if there is one, and flushes under way that appends are catching up with.
    pub(super) fn start_packing(&mut self) {
        let maintenance = &mut self.maintenance;
        if maintenance.frozen.is_empty() || maintenance.packing.is_some() {
            return;
        }
        let waiting = maintenance.frozen.iter().find(|frozen| !frozen.has_begun());
        let next = waiting.map_or(&self.memtable, |frozen| &*frozen.memtable);
        if next.bytes() < self.options.memtable_bytes / BEGIN_SHARE {
            return;
        }
        let (at, finished_bytes) =
            maintenance.ahead.as_ref().map_or((0, 0), |ahead| (ahead.at, ahead.builder.finished_bytes()));
        let Some(chunk) = next.full_chunk(at).filter(|_| finished_bytes < AHEAD_BYTES_MAX) else { return };
        let mut ahead = maintenance.ahead.take().unwrap_or_else(|| {
            let id = maintenance.next_table_id();
            maintenance.ahead_table_id = Some(id);
            Ahead::begin(self.wal.store, id, self.options.compression.codec(), &self.ops.chunks)
        });
        let ops = Rc::clone(&self.ops);
        self.maintenance.packing = Some(Box::pin(async move {
            let packed = ops.offload(Lane::Ahead, move || {
                chunk.entries().for_each(|entry| ahead.builder.push(&entry));
                ahead.at = chunk.end();
                ahead
            });
            Ok(packed.await)
        }));
    }
}

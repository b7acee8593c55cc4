//! Measuring: the raw device and the whole engine, in turns, so that each number has its yardstick from the same moment.
//!
//! Shared by `kifa bench`, which runs it on a user's device, and by `benches/`, which run it on the developer's: both must
//! mean the same by "raw", or their ratios could not be compared. It is public for `benches/` only and promises nothing
//! to anybody else.
//!
//! | file | what |
//! |---|---|
//! | `raw` | the bare device: single durable blocks, sequential writing and reading |
//! | `load` | producers that drive a [`Log`](crate::Log) |
//! | `turns` | raw and engine slices in turns, and the ratio of neighbours |
//! | `histogram` | latencies in bounded memory |
//! | `payload` | entries like a till's |
//! | `place` | which device, file system and kernel this is, and what this process has read and written |
//!
//! - **R** is [`Raw::blocks`]: one thread, 4 KiB `pwrite` and data sync, on a fully written file, O_DIRECT where the file
//!   system has it; blocks per second.
//! - **BW** is [`Raw::stream`]: the same with 1 MiB at a time; bytes per second.
//! - A ratio is the median over all engine slices of slice ÷ mean of the raw slices around it: noise that lasts longer than
//!   a slice strikes both and cancels out.
//! - What a slice leaves behind for the background (a table being built, a segment being filled) is waited for before the
//!   next raw slice begins ([`load::settle`]), and not charged to either. Within a slice everything is.
//!
//! Proof: the tests of `turns`, `histogram` and `place`, and `tests/it/bench.rs`.
// It measures the real machine.
#![allow(clippy::disallowed_methods)]

mod histogram;
pub mod load;
mod payload;
mod place;
mod raw;
mod turns;

pub use histogram::Histogram;
pub use payload::Payloads;
pub(crate) use place::{Mount, available_bytes};
pub use place::{Place, ProcessIo};
pub use raw::{Raw, read_bandwidth};
pub use turns::{Measured, Rate, Slice, median, turns};

use std::sync::Arc;

use crate::format::Lsn;
use crate::format::StoreId;
use crate::format::entry::Entry;
use crate::format::table::{Codec, TableFacts};
use crate::sstable::{Chunk, ChunkPool, TableBuilder};

/// A flush that is faster than this comes from a cache that keeps its power, or did not happen.
pub(crate) const FLUSH_TOO_FAST: std::time::Duration = std::time::Duration::from_micros(15);

/// Bytes of the entries that the targets are stated for.
pub const PAYLOAD_BYTES: usize = 200;

/// Builds a table of `entries` entries in memory, as a flush does on its thread; returns the length of its file.
pub fn build_table(payloads: &Payloads, entries: u64) -> u64 {
    let pool = Arc::new(ChunkPool::default());
    let mut builder = TableBuilder::new(StoreId([7; 16]), 1, Codec::Lz4, Arc::clone(&pool));
    let mut bytes = 0;
    let mut write = |chunks: Vec<Chunk>| {
        for chunk in chunks {
            bytes += chunk.len() as u64;
            pool.give(chunk.into_parts().0);
        }
    };
    for number in 1..=entries {
        let payload = payloads.get(number as usize);
        builder.push(&Entry { lsn: Lsn(number), timestamp_ns: number, source: 0, payload });
        write(builder.take_chunks().unwrap_or_default());
    }
    write(builder.finish(&TableFacts::default()).0);
    bytes
}

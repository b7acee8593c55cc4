//! What goes on behind the appends: freezing and flushing the memtable, merging tables, preparing and recycling segments.
//!
//! Invariants:
//! - A table is written under a temporary name, synced, read back and verified, renamed, its directory synced; then the
//!   manifest names it; and only when that is durable is what it was made of released. A power cut between any two of these
//!   steps costs a file that nobody names.
//! - A full disk stops no job for good: it starts anew every second, with new files, until there is room. Any other
//!   failure latches the log. A table that cannot be read back is never built upon.
//!
//! Proof: `engine`'s tests, and the crash campaign in `sim`.

mod ahead;
mod flush;
mod merge;
mod spares;
mod write;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::error::Result;
use crate::memtable::MemTable;
use crate::reactor::Core;
use crate::reactor::retain::Retention;
use crate::wal::files::Reusable;
use ahead::Ahead;
use flush::Frozen;
use merge::Merged;
pub(super) use merge::unlink_tables;
#[cfg(feature = "cli")]
pub(crate) use write::{Source, write_table};

pub(super) type Job<T> = Pin<Box<dyn Future<Output = Result<T>>>>;

/// Jobs under way.
#[derive(Default)]
pub(super) struct Maintenance {
    /// Oldest first.
    frozen: VecDeque<Frozen>,
    /// What was flushed last, for its memory.
    flushed: Option<MemTable>,
    /// What is packed of the first memtable that is not being flushed, unless `packing` has it, and the number of its table.
    ahead: Option<Ahead>,
    packing: Option<Job<Ahead>>,
    ahead_table_id: Option<u64>,
    merge: Option<Job<Merged>>,
    prepare: Option<Job<Reusable>>,
    recycle: Option<Job<Option<Reusable>>>,
    released: VecDeque<Reusable>,
    next_table_id: u64,
    merge_is_due: bool,
    /// A merge found a damaged or unreadable table; it is not tried again.
    merge_is_off: bool,
    /// The disk was full when the log was opened, and there has been no room for a group since.
    pub(super) began_without_space: bool,
    reserve: Option<Job<()>>,
    /// The reserve is there.
    has_reserve: bool,
    pub(super) retention: Retention,
}

impl Maintenance {
    pub(super) fn new(next_table_id: u64, released: VecDeque<Reusable>, has_reserve: bool) -> Maintenance {
        Maintenance { next_table_id, released, has_reserve, merge_is_due: true, ..Maintenance::default() }
    }

    pub(super) fn frozen_count(&self) -> u64 {
        self.frozen.iter().map(|frozen| frozen.memtable.count()).sum()
    }

    #[cfg(test)]
    pub(super) fn frozen_memtables(&self) -> usize {
        self.frozen.len()
    }

    #[cfg(all(test, feature = "cli"))]
    pub(super) fn is_merging(&self) -> bool {
        self.merge.is_some()
    }

    fn next_table_id(&mut self) -> u64 {
        self.next_table_id += 1;
        self.next_table_id - 1
    }
}

pub(super) fn poll_job<T>(job: &mut Option<Job<T>>) -> Result<Option<T>> {
    let Some(running) = job else { return Ok(None) };
    let Poll::Ready(outcome) = running.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        return Ok(None);
    };
    *job = None;
    outcome.map(Some)
}

impl Core {
    /// Appends wait: the memtable is full, and those before it are still being flushed.
    pub(super) fn is_stalled(&self) -> bool {
        self.is_behind() && self.memtable.bytes() >= self.options.memtable_bytes
    }

    pub(super) fn poll_maintenance(&mut self) -> Result<()> {
        self.poll_flushes()?;
        if let Some(ahead) = poll_job(&mut self.maintenance.packing)? {
            self.maintenance.ahead = Some(ahead);
        }
        if let Some(merged) = poll_job(&mut self.maintenance.merge)? {
            if merged == Merged::Damaged {
                self.maintenance.merge_is_off = true;
            } else {
                self.maintenance.merge_is_due = true;
                self.maintenance.retention.look_soon();
            }
            self.let_go_of_chunks();
        }
        if let Some(spare) = poll_job(&mut self.maintenance.prepare)? {
            self.add_spare(spare);
        }
        if let Some(Some(spare)) = poll_job(&mut self.maintenance.recycle)? {
            self.add_spare(spare);
        }
        if poll_job(&mut self.maintenance.reserve)?.is_some() {
            self.maintenance.has_reserve = true;
            self.ops.lacks_reserve.set(false);
        }
        self.poll_retention()
    }

    /// Gives the memory of chunks back when nobody is about to need it.
    fn let_go_of_chunks(&self) {
        let maintenance = &self.maintenance;
        if maintenance.frozen.is_empty() && maintenance.merge.is_none() && maintenance.packing.is_none() {
            self.ops.chunks.clear();
        }
    }

    pub(super) fn start_maintenance(&mut self) {
        self.freeze();
        self.start_flush();
        self.start_packing();
        self.start_merge();
        self.start_recycle();
        self.start_prepare();
        self.start_reserve();
        self.start_retention();
    }
}

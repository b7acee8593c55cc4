//! Freezing the memtable, and its way to a table.
//!
//! Invariants:
//! - Only durable entries are frozen.
//! - The log behind a memtable is released when the manifest that names its table is durable, and not before.
//! - At most [`FROZEN_MAX`] memtables are frozen, and one that is as long as these alone. While the next one is full, no group is submitted: appends wait.
//! - The second one is packed, written, synced and verified while the first one's table goes the rest of its way: processors
//!   and the device are both busy. It gets its name, and its place in the manifest, only behind that one, or the log would be
//!   released that still holds what the first one is made of.
//! - Where somebody waits for space, the second one gives back what it has taken, and waits for its turn.
//!
//! Proof: `tests/flushes.rs` of the reactor, `engine`'s tests, and the crash campaign in `sim`, which catches a table that
//! overtakes.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::ahead::Ahead;
use super::write::{Purpose, Source, write_wanted};
use super::{Job, poll_job};
use crate::compaction::Step;
use crate::error::Result;
use crate::format::manifest::TableMeta;
use crate::format::table::TableFacts;
use crate::manifest::ManifestStore;
use crate::memtable::MemTable;
use crate::planted::{Bug, planted};
use crate::reactor::Core;
use crate::reactor::ops::Ops;
use crate::reactor::space::{reserve_first, until_space};
use crate::sstable::TableBuilder;
use crate::wal::files::Reusable;

/// Most memtables on their way to a table.
const FROZEN_MAX: usize = 2;
/// Live segments that make a flush worth while whatever the memtable holds: a terminal that loses power every hour must
/// not fill its card with segments of one entry each.
const LIVE_SEGMENTS_MAX: usize = 4;
/// Most clock steps that are remembered: the newest.
const CLOCK_STEPS_MAX: usize = 4096;

/// A frozen memtable with what was true at its last entry.
pub(super) struct Frozen {
    pub(super) memtable: Arc<MemTable>,
    facts: TableFacts,
    /// The active segment then: everything before it is released with this table.
    first_segment: u64,
    /// Its way to a table, once that has begun.
    flush: Option<Job<()>>,
    progress: Rc<Progress>,
}

impl Frozen {
    pub(super) fn has_begun(&self) -> bool {
        self.flush.is_some()
    }
}

/// How far a flush has come, and may go.
#[derive(Default)]
pub(super) struct Progress {
    /// The whole table is packed: the next one may begin.
    pub(super) is_packed: Cell<bool>,
    /// The tables before it are in the manifest.
    is_first: Cell<bool>,
}

impl Progress {
    /// Of a table that nothing comes before.
    #[cfg(feature = "cli")]
    pub(super) fn of_first() -> Progress {
        Progress { is_first: Cell::new(true), ..Progress::default() }
    }

    /// Whether it may go on: while somebody waits for space only the first one, or the others would take it away.
    pub(super) fn may_go_on(&self, ops: &Ops) -> bool {
        self.is_first.get() || ops.waiting_for_space.get() == 0
    }

    /// Resolves when the tables before it are in the manifest.
    pub(super) async fn turn(&self) {
        poll_fn(|_| if self.is_first.get() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// The same, with `true`; or `false` as soon as it may not go on.
    pub(super) async fn turn_or_retreat(&self, ops: &Ops) -> bool {
        if planted(Bug::TableOvertakes) {
            return true;
        }
        poll_fn(|_| match self.is_first.get() {
            false if self.may_go_on(ops) => Poll::Pending,
            is_first => Poll::Ready(is_first),
        })
        .await
    }
}

impl Core {
    /// As much is frozen as may be. What was recovered counts for as many memtables as it is: after a kill under load it is
    /// all that there were.
    pub(in crate::reactor) fn is_behind(&self) -> bool {
        let frozen = &self.maintenance.frozen;
        let bytes: usize = frozen.iter().map(|frozen| frozen.memtable.bytes()).sum();
        frozen.len() == FROZEN_MAX || bytes >= FROZEN_MAX * self.options.memtable_bytes
    }

    /// Polls the flushes under way, oldest first.
    pub(super) fn poll_flushes(&mut self) -> Result<()> {
        while let Some(first) = self.maintenance.frozen.front_mut() {
            first.progress.is_first.set(true);
            let first_segment = first.first_segment;
            let is_done = poll_job(&mut first.flush)?.is_some();
            if is_done || (planted(Bug::LogReleasedEarly) && self.manifest.is_editing()) {
                self.release_segments(first_segment);
            }
            if !is_done {
                break;
            }
            let flushed = self.maintenance.frozen.pop_front().expect("it was looked at");
            self.maintenance.flushed = Arc::into_inner(flushed.memtable);
            self.maintenance.merge_is_due = true;
            self.maintenance.retention.look_soon();
            self.let_go_of_chunks();
        }
        for waiting in self.maintenance.frozen.iter_mut().skip(1) {
            poll_job(&mut waiting.flush)?;
        }
        Ok(())
    }

    fn release_segments(&mut self, first_segment: u64) {
        let released = self.wal.live.iter().take_while(|live| live.segment < first_segment).count();
        for live in self.wal.live.drain(..released) {
            self.maintenance.released.push_back(Reusable { path: live.path, bytes: live.bytes });
        }
    }

    /// Freezes a memtable that is large, or that keeps too many segments alive; only when all of it is durable.
    pub(super) fn freeze(&mut self) {
        let segments = self.options.memtable_bytes as u64 / self.options.segment_bytes;
        let full = self.memtable.bytes() >= self.options.memtable_bytes
            || (self.maintenance.frozen.is_empty() && self.wal.live.len() > LIVE_SEGMENTS_MAX + 2 * segments as usize);
        if !full || self.is_behind() || self.memtable.count() == 0 {
            return;
        }
        if self.wal.books.durable_lsn < self.wal.books.released_lsn {
            self.wal.books.demand_sync();
            return;
        }
        let Some(active) = &self.wal.active else { return };
        let flushed = self.maintenance.flushed.take().unwrap_or_default();
        let next = MemTable::in_place_of(flushed, self.options.memtable_bytes);
        let memtable = std::mem::replace(&mut self.memtable, next);
        let excess = self.clock_steps.len().saturating_sub(CLOCK_STEPS_MAX);
        self.clock_steps.drain(..excess);
        let facts = TableFacts {
            gaps: self.gaps.clone(),
            checkpoints: self.checkpoints.clone(),
            clock_steps: self.clock_steps.clone(),
            replaces: Vec::new(),
            floor_lsn: self.manifest.current().floor_lsn,
        };
        let first_segment = active.segment;
        self.maintenance.frozen.push_back(Frozen {
            memtable: Arc::new(memtable),
            facts,
            first_segment,
            flush: None,
            progress: Rc::default(),
        });
    }

    pub(super) fn start_flush(&mut self) {
        let frozen = &self.maintenance.frozen;
        let Some(next) = frozen.iter().position(|frozen| !frozen.has_begun()) else { return };
        if next > 0 && !frozen[next - 1].progress.is_packed.get() {
            return;
        }
        let (memtable, progress) = (Arc::clone(&frozen[next].memtable), Rc::clone(&frozen[next].progress));
        let (facts, first_segment) = (frozen[next].facts.clone(), frozen[next].first_segment);
        // Packed so far of this memtable: none behind it has been packed since.
        let (mut ahead, packing) = (self.maintenance.ahead.take(), self.maintenance.packing.take());
        let id = self.maintenance.ahead_table_id.take().unwrap_or_else(|| self.maintenance.next_table_id());
        let (store, codec) = (self.wal.store, self.options.compression.codec());
        let (ops, vfs, manifest) = (Rc::clone(&self.ops), Arc::clone(&self.vfs), Rc::clone(&self.manifest));
        self.maintenance.frozen[next].flush = Some(Box::pin(async move {
            if let Some(packing) = packing {
                ahead = Some(packing.await?);
            }
            let write = async || loop {
                reserve_first(&ops).await;
                let begun = ahead.take().unwrap_or_else(|| Ahead::begin(store, id, codec, &ops.chunks));
                let source = Flush::start(&memtable, begun, &facts);
                match write_wanted(&ops, &vfs, store, id, source, Purpose::Flush(&progress)).await? {
                    Some(meta) => return add(&manifest, meta, &facts, first_segment).await,
                    None => progress.turn().await,
                }
            };
            until_space(&ops, write).await
        }));
    }
}

/// Builds a table from a memtable, chunk by chunk.
struct Flush {
    memtable: Arc<MemTable>,
    at: usize,
    builder: Option<TableBuilder>,
    facts: TableFacts,
}

impl Flush {
    fn start(memtable: &Arc<MemTable>, begun: Ahead, facts: &TableFacts) -> Source {
        let Ahead { builder, at } = begun;
        let mut flush = Flush { memtable: Arc::clone(memtable), at, builder: Some(builder), facts: facts.clone() };
        Box::new(move || Ok(flush.step()))
    }

    fn step(&mut self) -> Step {
        let builder = self.builder.as_mut().expect("there is no step behind the last one");
        loop {
            if let Some(chunks) = builder.take_chunks() {
                return Step::Chunks(chunks);
            }
            let Some((entry, next)) = self.memtable.entry_at(self.at) else { break };
            builder.push(&entry);
            self.at = next;
        }
        let (rest, meta) = self.builder.take().expect("as above").finish(&self.facts);
        Step::Done(rest, meta)
    }
}

/// Has the manifest name the table of a memtable, and begin the log behind it.
async fn add(manifest: &ManifestStore, meta: TableMeta, facts: &TableFacts, first_segment: u64) -> Result<()> {
    let edit = manifest.edit(|manifest| {
        manifest.checkpoint_lsn = meta.last_lsn;
        manifest.first_segment = first_segment;
        manifest.newest_segment = manifest.newest_segment.max(first_segment);
        manifest.next_table_id = manifest.next_table_id.max(meta.id + 1);
        manifest.gaps.clone_from(&facts.gaps);
        manifest.checkpoints.clone_from(&facts.checkpoints);
        manifest.clock_steps.clone_from(&facts.clock_steps);
        manifest.tables.push(meta);
    });
    edit.await
}

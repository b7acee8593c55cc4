//! What goes on behind the appends: freezing and flushing the memtable, merging tables, preparing and recycling segments.
//!
//! Invariants:
//! - Only durable entries are frozen. A table is written under a temporary name, synced, read back and verified, renamed,
//!   its directory synced; then the manifest names it; and only when that is durable is the log behind it released.
//!   A power cut between any two of these steps costs a file that nobody names.
//! - At most one memtable is frozen. While the next one is full, no group is submitted: appends wait.
//! - A full disk stops no job for good: it starts anew every second, with new files, until there is room. Any other
//!   failure latches the log. A table that cannot be read back is never built upon.
//!
//! Proof: `engine`'s tests, and the crash campaign in `sim`.

mod ahead;
mod merge;
mod spares;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::compaction::Step;
use crate::error::{Error, Result};
use crate::format::manifest::TableMeta;
use crate::format::table::TableFacts;
use crate::format::{FlushMode, StoreId};
use crate::io::once::ReadOnce;
use crate::io::{Durability, Vfs};
use crate::manifest::ManifestStore;
use crate::memtable::MemTable;
use crate::planted::{Bug, planted};
use crate::reactor::Core;
use crate::reactor::helper::Lane;
use crate::reactor::ops::{Ops, both};
use crate::reactor::retain::Retention;
use crate::reactor::space::{reserve_first, until_space};
use crate::sstable::{BlockBuf, Chunk, DIR, Table, TableBuilder, path};
use crate::wal::files::Reusable;
use ahead::Ahead;
pub(super) use merge::unlink_tables;
use merge::{Merged, Pace};

/// Live segments that make a flush worth while whatever the memtable holds: a terminal that loses power every hour must
/// not fill its card with segments of one entry each.
const LIVE_SEGMENTS_MAX: usize = 4;
/// Most clock steps that are remembered: the newest.
const CLOCK_STEPS_MAX: usize = 4096;
/// How often a merge that emergency mode has paused looks whether it ended.
const PAUSE: Duration = Duration::from_secs(1);
const MERGE_PACE: Duration = Duration::from_millis(2);

pub(super) type Job<T> = Pin<Box<dyn Future<Output = Result<T>>>>;

/// A frozen memtable with what was true at its last entry.
struct Frozen {
    memtable: Arc<MemTable>,
    facts: TableFacts,
    /// The active segment then: everything before it is released with this table.
    first_segment: u64,
}

/// Jobs under way.
#[derive(Default)]
pub(super) struct Maintenance {
    frozen: Option<Frozen>,
    /// What was flushed last, for its memory.
    flushed: Option<MemTable>,
    flush: Option<Job<()>>,
    /// What is packed of the open memtable, unless `packing` has it, and the number of the table that it is packed for.
    ahead: Option<Ahead>,
    packing: Option<Job<Ahead>>,
    open_table_id: Option<u64>,
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
        self.frozen.as_ref().map_or(0, |frozen| frozen.memtable.count())
    }

    /// A frozen memtable is on its way to a table.
    pub(super) fn is_flushing(&self) -> bool {
        self.frozen.is_some()
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
    /// Appends wait: the memtable is full and the one before it is still being flushed.
    pub(super) fn is_stalled(&self) -> bool {
        self.maintenance.frozen.is_some() && self.memtable.bytes() >= self.options.memtable_bytes
    }

    pub(super) fn poll_maintenance(&mut self) -> Result<()> {
        if let Some(frozen) = &self.maintenance.frozen
            && planted(Bug::LogReleasedEarly)
            && self.manifest.is_editing()
        {
            self.release_segments(frozen.first_segment);
        }
        if poll_job(&mut self.maintenance.flush)?.is_some() {
            let frozen = self.maintenance.frozen.take().expect("a flush has a frozen memtable");
            self.release_segments(frozen.first_segment);
            self.maintenance.flushed = Arc::into_inner(frozen.memtable);
            self.maintenance.merge_is_due = true;
            self.maintenance.retention.look_soon();
            self.let_go_of_chunks();
        }
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
        if maintenance.frozen.is_none() && maintenance.merge.is_none() && maintenance.packing.is_none() {
            self.ops.chunks.clear();
        }
    }

    fn release_segments(&mut self, first_segment: u64) {
        let released = self.wal.live.iter().take_while(|live| live.segment < first_segment).count();
        for live in self.wal.live.drain(..released) {
            self.maintenance.released.push_back(Reusable { path: live.path, bytes: live.bytes });
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

    /// Freezes a memtable that is large, or that keeps too many segments alive; only when all of it is durable.
    fn freeze(&mut self) {
        let segments = self.options.memtable_bytes as u64 / self.options.segment_bytes;
        let full = self.memtable.bytes() >= self.options.memtable_bytes
            || self.wal.live.len() > LIVE_SEGMENTS_MAX + 2 * segments as usize;
        if !full || self.maintenance.frozen.is_some() || self.memtable.count() == 0 {
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
        self.maintenance.frozen = Some(Frozen { memtable: Arc::new(memtable), facts, first_segment });
    }

    fn start_flush(&mut self) {
        if self.maintenance.flush.is_some() {
            return;
        }
        let Some(frozen) = &self.maintenance.frozen else { return };
        let (memtable, facts, first_segment) =
            (Arc::clone(&frozen.memtable), frozen.facts.clone(), frozen.first_segment);
        // Packed so far of the memtable that is frozen now: none has been packed since.
        let (mut ahead, packing) = (self.maintenance.ahead.take(), self.maintenance.packing.take());
        let id = self.maintenance.open_table_id.take().unwrap_or_else(|| self.maintenance.next_table_id());
        let (store, codec) = (self.wal.store, self.options.compression.codec());
        let (ops, vfs, manifest) = (Rc::clone(&self.ops), Arc::clone(&self.vfs), Rc::clone(&self.manifest));
        self.maintenance.flush = Some(Box::pin(async move {
            if let Some(packing) = packing {
                ahead = Some(packing.await?);
            }
            until_space(&ops, async || {
                reserve_first(&ops).await;
                let begun = ahead.take().unwrap_or_else(|| Ahead::begin(store, id, codec, &ops.chunks));
                let source = Flush::start(&memtable, begun, &facts);
                flush(&ops, &vfs, &manifest, store, (id, source), &facts, first_segment).await
            })
            .await
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
            let chunks = builder.take_chunks();
            if !chunks.is_empty() {
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

/// Yields a table's bytes; runs on one of the lanes.
pub(crate) type Source = Box<dyn FnMut() -> Result<Step> + Send>;

async fn flush(
    ops: &Rc<Ops>,
    vfs: &Arc<dyn Vfs>,
    manifest: &ManifestStore,
    store: StoreId,
    (id, source): (u64, Source),
    facts: &TableFacts,
    first_segment: u64,
) -> Result<()> {
    let meta = write_table(ops, vfs, store, id, source).await?;
    manifest
        .edit(|manifest| {
            manifest.checkpoint_lsn = meta.last_lsn;
            manifest.first_segment = first_segment;
            manifest.newest_segment = manifest.newest_segment.max(first_segment);
            manifest.next_table_id = manifest.next_table_id.max(id + 1);
            manifest.gaps.clone_from(&facts.gaps);
            manifest.checkpoints.clone_from(&facts.checkpoints);
            manifest.clock_steps.clone_from(&facts.clock_steps);
            manifest.tables.push(meta);
        })
        .await
}

/// Writes what `source` yields as table `id`, durably, and verifies it by reading it back.
pub(crate) async fn write_table(
    ops: &Rc<Ops>,
    vfs: &Arc<dyn Vfs>,
    store: StoreId,
    id: u64,
    source: Source,
) -> Result<TableMeta> {
    let written = write_wanted(ops, vfs, store, id, source, None).await?;
    Ok(written.expect("what is not paced is always wanted"))
}

/// As [`write_table`]. `paced` gives way to appends
/// and pauses while its log is in emergency mode; `None`: it is not wanted any more, and nothing is left of it.
async fn write_wanted(
    ops: &Rc<Ops>,
    vfs: &Arc<dyn Vfs>,
    store: StoreId,
    id: u64,
    source: Source,
    paced: Option<&Pace<'_>>,
) -> Result<Option<TableMeta>> {
    let final_path = path(id);
    let temporary = format!("{final_path}.tmp");
    ops.unlink(&temporary).await?;
    let file = ops.create(&temporary).await?;
    let is_merge = paced.is_some();
    let lane = if is_merge { Lane::Background } else { Lane::Foreground };
    let written = write_steps(ops, (file, &temporary), (lane, source), paced).await;
    ops.close(file).await;
    let written = async {
        let Some(meta) = written? else { return Ok(None) };
        let (expected, opener, shown) = (meta.clone(), Arc::clone(vfs), temporary.clone());
        ops.offload(lane, move || {
            // What a flush wrote is asked for soon, by readers and by a merge; what a merge wrote is mostly old.
            let once = ReadOnce(&*opener);
            let table = open_table(if is_merge { &once } else { &*opener }, &shown, &expected, store)?;
            table.verify_stored(&mut BlockBuf::default()).map_err(|cause| cause.into_error(&shown))
        })
        .await?;
        ops.rename(&temporary, &final_path).await?;
        ops.sync_dir(DIR).await?;
        Ok(Some(meta))
    };
    let outcome = written.await;
    if !matches!(outcome, Ok(Some(_))) {
        let _ = ops.unlink(&temporary).await;
    }
    outcome
}

/// Chunks are written while the next ones are made.
async fn write_steps(
    ops: &Rc<Ops>,
    (file, path): (crate::io::FileId, &str),
    (lane, mut source): (Lane, Source),
    paced: Option<&Pace<'_>>,
) -> Result<Option<TableMeta>> {
    let mut offset = 0;
    let mut made: Vec<Chunk> = Vec::new();
    loop {
        let is_wanted = || paced.is_none_or(|pace| (pace.is_wanted)());
        while is_wanted() && paced.is_some_and(|pace| pace.shared.mode() == FlushMode::Emergency) {
            ops.sleep(PAUSE).await;
        }
        if !is_wanted() {
            return Ok(None);
        }
        let making = ops.offload(lane, move || {
            let step = source();
            (step, source)
        });
        let writing = write_all((ops, file, path), &mut offset, std::mem::take(&mut made));
        let ((step, returned), written) = both(making, writing).await;
        written?;
        source = returned;
        match step? {
            Step::Chunks(chunks) => made = chunks,
            Step::Done(rest, meta) => {
                write_all((ops, file, path), &mut offset, rest).await?;
                ops.sync_data((file, path)).await?;
                return Ok(Some(meta));
            }
        }
        if paced.is_some() {
            ops.sleep(MERGE_PACE).await;
        }
    }
}

/// Writes chunks behind what was written, and keeps their memory.
async fn write_all(
    (ops, file, path): (&Rc<Ops>, crate::io::FileId, &str),
    offset: &mut u64,
    chunks: Vec<Chunk>,
) -> Result<()> {
    for chunk in chunks {
        let (buf, len) = chunk.into_parts();
        let buf = ops.write((file, path), *offset, buf, len, Durability::None).await?;
        ops.chunks.give(buf);
        *offset += len as u64;
    }
    Ok(())
}

fn open_table(vfs: &dyn Vfs, path: &str, meta: &TableMeta, store: StoreId) -> Result<Table> {
    let file = vfs.open(path).map_err(|cause| Error::io("open", path, cause))?;
    Table::open(file, Some(meta), store).map_err(|cause| cause.into_error(path))
}

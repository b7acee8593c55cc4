//! Writing a table's file, whoever yields it: under a temporary name, synced, read back and verified, renamed, its directory
//! synced. What the manifest then says of it is the caller's.
//!
//! Proof: `engine`'s tests, and the crash campaign in `sim`.

use std::mem::take;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::flush::Progress;
use super::merge::Pace;
use crate::compaction::Step;
use crate::error::{Error, Result};
use crate::format::manifest::TableMeta;
use crate::format::{FlushMode, StoreId};
use crate::io::once::ReadOnce;
use crate::io::{Durability, FileId, Vfs};
use crate::reactor::helper::Lane;
use crate::reactor::ops::{Ops, both};
use crate::sstable::{BlockBuf, Chunk, DIR, Table, path};

/// How often a merge that emergency mode has paused looks whether it ended.
const PAUSE: Duration = Duration::from_secs(1);
const MERGE_PACE: Duration = Duration::from_millis(2);

/// Yields a table's bytes; runs on one of the lanes.
pub(crate) type Source = Box<dyn FnMut() -> Result<Step> + Send>;

/// What a table is written for.
#[derive(Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// A memtable, or what goes from the log into another store. The tables before it get their names first.
    Flush(&'a Progress),
    /// A merge: gives way to appends, and pauses while its log is in emergency mode.
    Merge(&'a Pace<'a>),
}

impl Purpose<'_> {
    fn is_wanted(self, ops: &Ops) -> bool {
        match self {
            Purpose::Flush(progress) => progress.may_go_on(ops),
            Purpose::Merge(pace) => (pace.is_wanted)(),
        }
    }

    fn pauses(self) -> bool {
        matches!(self, Purpose::Merge(pace) if pace.shared.mode() == FlushMode::Emergency)
    }
}

/// As [`write_wanted`], for a table that nothing comes before.
#[cfg(feature = "cli")]
pub(crate) async fn write_table(
    ops: &Rc<Ops>,
    vfs: &Arc<dyn Vfs>,
    store: StoreId,
    id: u64,
    source: Source,
) -> Result<TableMeta> {
    let written = write_wanted(ops, vfs, store, id, source, Purpose::Flush(&Progress::of_first())).await?;
    Ok(written.expect("the first table is always wanted"))
}

/// Writes what `source` yields as table `id`, durably, and verifies it by reading it back. `None`: it is not wanted any
/// more, or not now, and nothing is left of it.
pub(super) async fn write_wanted(
    ops: &Rc<Ops>,
    vfs: &Arc<dyn Vfs>,
    store: StoreId,
    id: u64,
    source: Source,
    purpose: Purpose<'_>,
) -> Result<Option<TableMeta>> {
    let final_path = path(id);
    let temporary = format!("{final_path}.tmp");
    ops.unlink(&temporary).await?;
    let file = ops.create(&temporary).await?;
    let is_merge = matches!(purpose, Purpose::Merge(_));
    let lane = if is_merge { Lane::Background } else { Lane::Foreground };
    let written = write_steps(ops, (file, &temporary), (lane, source), purpose).await;
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
        if let Purpose::Flush(progress) = purpose
            && !progress.turn_or_retreat(ops).await
        {
            return Ok(None);
        }
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
    (file, path): (FileId, &str),
    (lane, mut source): (Lane, Source),
    purpose: Purpose<'_>,
) -> Result<Option<TableMeta>> {
    let mut offset = 0;
    let mut made: Vec<Chunk> = Vec::new();
    loop {
        while purpose.is_wanted(ops) && purpose.pauses() {
            ops.sleep(PAUSE).await;
        }
        if !purpose.is_wanted(ops) {
            return Ok(None);
        }
        let making = ops.offload(lane, move || {
            let step = source();
            (step, source)
        });
        let writing = write_all((ops, file, path), &mut offset, take(&mut made));
        let ((step, returned), written) = both(making, writing).await;
        written?;
        source = returned;
        match step? {
            Step::Chunks(chunks) => made = chunks,
            Step::Done(rest, meta) => {
                if let Purpose::Flush(progress) = purpose {
                    progress.is_packed.set(true);
                }
                write_all((ops, file, path), &mut offset, rest).await?;
                ops.sync_data((file, path)).await?;
                return Ok(Some(meta));
            }
        }
        if matches!(purpose, Purpose::Merge(_)) {
            ops.sleep(MERGE_PACE).await;
        }
    }
}

/// Writes chunks behind what was written, and keeps their memory.
async fn write_all((ops, file, path): (&Rc<Ops>, FileId, &str), offset: &mut u64, chunks: Vec<Chunk>) -> Result<()> {
    for chunk in chunks {
        let (buf, len) = chunk.into_parts();
        let buf = ops.write((file, path), *offset, buf, len, Durability::None).await?;
        ops.chunks.give(buf);
        *offset += len as u64;
    }
    Ok(())
}

pub(super) fn open_table(vfs: &dyn Vfs, path: &str, meta: &TableMeta, store: StoreId) -> Result<Table> {
    let file = vfs.open(path).map_err(|cause| Error::io("open", path, cause))?;
    Table::open(file, Some(meta), store).map_err(|cause| cause.into_error(path))
}

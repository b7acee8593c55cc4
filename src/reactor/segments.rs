//! Preparing, activating and recycling segment files.
//!
//! A segment is written with zeros and synced before it is used, in the background and paced, so that appends pay neither
//! for allocation nor for unwritten extents: until there are [`SPARES_WANTED`]. One of them is for recovery: rotation takes a
//! spare only if another is left. Of released segments [`SPARES_KEPT`] are kept.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::error::Result;
use crate::format::record::LogEnd;
use crate::format::segment::{SegmentHeader, WrittenBy};
use crate::format::{BLOCK_BYTES, FlushMode, Gap, Lsn, StoreId};
use crate::io::{AlignedBuf, Durability, Vfs};
use crate::planted::{Bug, planted};
use crate::reactor::ops::Ops;
use crate::wal::files::Reusable;
use crate::wal::writer::Active;
use crate::wal::{self, DIR};

/// Spares below which one is prepared.
pub(crate) const SPARES_WANTED: usize = 2;
/// Spares above which a released segment is removed. It is more, or a log under load would remove one segment and prepare
/// another all the time: between a rotation and the release of what was rotated there is one less, and while two memtables
/// are on their way to tables, another one.
pub(crate) const SPARES_KEPT: usize = 4;
/// Zeros are written this much at a time, with a pause of [`PACE`] between two writes.
const CHUNK_BYTES: usize = 64 << 10;
const PACE: Duration = Duration::from_millis(1);

/// Makes a segment file that carries a spare header. `urgent` takes the pauses out.
pub(crate) async fn prepare(
    ops: &Rc<Ops>,
    store: StoreId,
    number: u64,
    segment_bytes: u64,
    urgent: &Cell<bool>,
) -> Result<Reusable> {
    let path = wal::path(number);
    let temporary = format!("{path}.tmp");
    ops.unlink(&temporary).await?;
    let file = ops.create(&temporary).await?;
    let filled = async {
        let mut buf = AlignedBuf::zeroed(CHUNK_BYTES);
        SegmentHeader::spare(store, segment_bytes).encode(&mut buf);
        let mut offset = 0;
        while offset < segment_bytes {
            let len = (segment_bytes - offset).min(CHUNK_BYTES as u64) as usize;
            buf = ops.write((file, &temporary), offset, buf, len, Durability::None).await?;
            if offset == 0 {
                buf[..BLOCK_BYTES].fill(0);
            }
            offset += len as u64;
            if !urgent.get() {
                ops.sleep(PACE).await;
            }
        }
        ops.sync_data((file, &temporary)).await
    };
    let filled = filled.await;
    ops.close(file).await;
    if filled.is_err() {
        // Gives the space back on a full disk; what stays is removed at the next open.
        let _ = ops.unlink(&temporary).await;
    }
    filled?;
    ops.rename(&temporary, &path).await?;
    ops.sync_dir(DIR).await?;
    Ok(Reusable { path, bytes: segment_bytes })
}

/// The salt of a new run of groups: no other run of the store has it.
pub(crate) fn new_salt(ops: &Ops) -> u64 {
    if planted(Bug::NoSalt) { 0 } else { ops.env.random_u64() }
}

/// What a new segment's header says.
#[derive(Clone, Debug)]
pub(crate) struct Birth {
    pub(crate) store: StoreId,
    pub(crate) segment: u64,
    pub(crate) epoch: u64,
    pub(crate) salt: u64,
    pub(crate) manifest_generation: u64,
    pub(crate) durable_lsn: Lsn,
    pub(crate) prev_end: LogEnd,
    pub(crate) gap: Option<Gap>,
    pub(crate) flush_mode: FlushMode,
    pub(crate) written_by: WrittenBy,
}

/// Opens `file` as the segment that `birth` describes, without making it valid yet.
pub(crate) async fn open(ops: &Rc<Ops>, file: &Reusable, birth: &Birth) -> Result<Active> {
    Ok(Active {
        file: ops.open(&file.path).await?,
        path: file.path.clone(),
        segment: birth.segment,
        salt: birth.salt,
        epoch: birth.epoch,
        offset: BLOCK_BYTES as u64,
        segment_bytes: file.bytes,
        epoch_start: None,
    })
}

/// Makes the segment valid: its header is durable when this returns.
pub(crate) async fn write_header(ops: &Rc<Ops>, active: &Active, birth: &Birth) -> Result<()> {
    let header = SegmentHeader {
        store: birth.store,
        segment: birth.segment,
        epoch: birth.epoch,
        first_lsn: birth.prev_end.last_lsn.next(),
        salt: birth.salt,
        manifest_generation: birth.manifest_generation,
        segment_bytes: active.segment_bytes,
        durable_lsn: birth.durable_lsn,
        prev_end: birth.prev_end,
        gap: birth.gap,
        spare: false,
        flush_mode: birth.flush_mode,
        written_by: birth.written_by,
    };
    let mut block = AlignedBuf::zeroed(BLOCK_BYTES);
    header.encode(&mut block);
    ops.write((active.file, &active.path), 0, block, BLOCK_BYTES, Durability::Own).await?;
    Ok(())
}

/// Turns a released segment into a spare named `number`, or removes it: if there are spares enough, if its length is not
/// the recorded one, or if somebody else has linked it (a backup), whose bytes must not change. The manifest that released it must be durable.
pub(crate) async fn recycle(
    ops: &Rc<Ops>,
    vfs: &dyn Vfs,
    released: &Reusable,
    number: Option<u64>,
) -> Result<Option<Reusable>> {
    let metadata = vfs.metadata(&released.path);
    let is_fit = metadata.is_ok_and(|metadata| metadata.links == 1 && metadata.bytes == released.bytes);
    let Some(number) = number.filter(|_| is_fit) else {
        ops.unlink(&released.path).await?;
        return Ok(None);
    };
    let path = wal::path(number);
    ops.rename(&released.path, &path).await?;
    Ok(Some(Reusable { path, bytes: released.bytes }))
}

//! From a directory to a running log: birth, manifest, replay, recovery.
//!
//! Every crash point in here costs nothing. Birth is the rename of the first manifest; before it there is no store, and
//! the pieces are made anew. Recovery writes into files that nothing refers to until their header is valid, and changes
//! nothing in place (see [`crate::wal::recovery`]).
//!
//! Proof: the crash campaign in `sim` cuts in here, too.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::entry;
use crate::format::group::HEADER_BYTES;
use crate::format::manifest::Manifest;
use crate::format::record::{LogEnd, Record};
use crate::format::{BLOCK_BYTES, FlushMode, Gap, Lsn, StoreId};
use crate::io::once::ReadOnce;
use crate::io::{AlignedBuf, Durability, Vfs};
use crate::manifest::{self, ManifestStore, reserve};
use crate::options::Options;
use crate::reactor::maintain::Maintenance;
use crate::reactor::ops::Ops;
use crate::reactor::segments::{self, Birth};
use crate::reactor::stage::{GROUP_BUFFER_BYTES, Shared, Start};
use crate::reactor::stats::{RecoveryStats, written_by};
use crate::reactor::{Core, LiveSegment, NextBirth, Wal};
use crate::sstable::{self, BlockBuf, Table};
use crate::wal::DIR;
use crate::wal::files::{Reusable, Segment, WalFiles, name_number};
use crate::wal::recovery::{Plan, Recovered, Unproven, plan, read};
use crate::wal::replay::{Newest, Tail};
use crate::wal::writer::{Active, Books, Draft, seal};

/// What else may lie in a directory that becomes a store, besides the unfinished pieces of an earlier birth.
const TOLERATED: [&str; 5] = ["kifa.toml", "lost+found", "LOCK", "kifa.sock", reserve::NAME];

/// Whether the directory is a store, or may become one. Looks only.
pub(crate) enum Ground {
    Store,
    Empty,
    /// Neither: what was found.
    Foreign(String),
}

/// Looks at the directory without changing anything.
pub(crate) fn survey(vfs: &dyn Vfs) -> Result<Ground> {
    let found = manifest::find(vfs).map_err(|cause| Error::io("list", ".", cause))?;
    if !found.generations.is_empty() {
        return Ok(Ground::Store);
    }
    for entry in vfs.list("").map_err(|cause| Error::io("list", ".", cause))? {
        let ours = TOLERATED.contains(&entry.name.as_str())
            || [DIR, sstable::DIR].contains(&entry.name.as_str()) && !entry.is_file
            || found.temporary.contains(&entry.name);
        if !ours {
            return Ok(Ground::Foreign(format!("it holds \"{}\" and no manifest", entry.name)));
        }
    }
    for (dir, suffix) in [(DIR, ".wal"), (sstable::DIR, ".sst")] {
        if let Some(name) = list(vfs, dir)?.into_iter().find(|name| name.ends_with(suffix)) {
            let what = "it is here, and the manifest is missing; put MANIFEST-* back from a copy of the store";
            return Err(Error::corrupt(&format!("{dir}/{name}"), 0, None, what));
        }
    }
    Ok(Ground::Empty)
}

fn list(vfs: &dyn Vfs, dir: &str) -> Result<Vec<String>> {
    match vfs.list(dir) {
        Ok(entries) => Ok(entries.into_iter().filter(|entry| entry.is_file).map(|entry| entry.name).collect()),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(cause) => Err(Error::io("list", dir, cause)),
    }
}

/// Opens the store behind `vfs` and `ops`, making it if there is none. The caller holds the lock.
pub(crate) fn open(ops: &Rc<Ops>, vfs: Arc<dyn Vfs>, options: Options) -> Result<Core> {
    let started_ns = ops.env.mono_ns();
    if matches!(survey(&*vfs)?, Ground::Empty) {
        ops.block_on(give_birth(ops))?;
    } else {
        ops.block_on(settle_names(ops))?;
    }
    let found = manifest::find(&*vfs).map_err(|cause| Error::io("list", ".", cause))?;
    let newest = found.generations.last().copied().unwrap_or(1);
    let manifest = manifest::read(&*vfs, newest)?
        .ok_or_else(|| Error::io("open", "the manifest", io::ErrorKind::NotFound.into()))?;
    manifest::check_join(&manifest)?;
    check_tables(&*vfs, &manifest)?;
    let files = WalFiles::scan(&ReadOnce(&*vfs), manifest.store, manifest.first_segment)?;
    let recovered = read(&files, &manifest, options.memtable_bytes)?;
    let last_timestamp_ns = match recovered.replay.last_timestamp_ns {
        0 => last_table_timestamp(&*vfs, &manifest)?,
        last => last,
    };
    // Nothing was changed so far, and nothing from here on finds damage.
    ops.block_on(manifest::tidy(ops, &found, manifest.generation))?;
    ops.block_on(tidy(ops, &*vfs, &files, &manifest))?;
    let next_table_id = next_table_id(&*vfs, &manifest)?;
    let mut opening = Opening { ops, vfs, options, manifest, files, last_timestamp_ns, started_ns };
    let (plan, next_lsn) = plan(&recovered);
    let begun = opening.begin_epoch(&recovered, plan, next_lsn)?;
    opening.into_core(recovered, begun, next_lsn, next_table_id)
}

async fn give_birth(ops: &Rc<Ops>) -> Result<()> {
    ops.make_dir(DIR).await?;
    ops.make_dir(sstable::DIR).await?;
    ops.sync_dir("").await?;
    let mut id = [0; 16];
    id[..8].copy_from_slice(&ops.env.random_u64().to_le_bytes());
    id[8..].copy_from_slice(&ops.env.random_u64().to_le_bytes());
    manifest::write(ops, &Manifest::birth(StoreId(id))).await
}

/// A killed process may have left names that are seen and not durable. What is built on them must not outlive them.
async fn settle_names(ops: &Rc<Ops>) -> Result<()> {
    for dir in [sstable::DIR, DIR, ""] {
        ops.sync_dir(dir).await?;
    }
    Ok(())
}

/// Every table that the manifest names is there, at its length.
fn check_tables(vfs: &dyn Vfs, manifest: &Manifest) -> Result<()> {
    for table in &manifest.tables {
        let path = sstable::path(table.id);
        match vfs.metadata(&path) {
            Ok(metadata) if metadata.bytes == table.file_bytes => {}
            Ok(metadata) => {
                let what = format!("it is {} bytes long, and the manifest says {}", metadata.bytes, table.file_bytes);
                return Err(Error::corrupt(&path, 0, Some(table.first_lsn), what));
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Err(Error::corrupt(
                    &path,
                    0,
                    Some(table.first_lsn),
                    "the manifest names it, and it is missing",
                ));
            }
            Err(cause) => return Err(Error::io("look at", path, cause)),
        }
    }
    Ok(())
}

/// Removes what jobs left unfinished under temporary names, and tables of this store that are superseded: each of their
/// entries is in a table that the manifest names, or below its floor.
async fn tidy(ops: &Rc<Ops>, vfs: &dyn Vfs, files: &WalFiles, manifest: &Manifest) -> Result<()> {
    for path in &files.temporary {
        ops.unlink(path).await?;
    }
    for name in list(vfs, sstable::DIR)? {
        let path = format!("{}/{name}", sstable::DIR);
        if name_number(&name, ".sst.tmp").is_some() {
            ops.unlink(&path).await?;
        } else if let Some(id) = name_number(&name, ".sst")
            && !manifest.tables.iter().any(|table| table.id == id)
            && is_superseded(vfs, &path, manifest)
        {
            ops.unlink(&path).await?;
        }
    }
    Ok(())
}

/// From the floor to the checkpoint the manifest's tables have every entry ([`manifest::check_join`]), and below the floor
/// everything has expired.
fn is_superseded(vfs: &dyn Vfs, path: &str, manifest: &Manifest) -> bool {
    let Ok(file) = vfs.open(path) else { return false };
    Table::open(file, None, manifest.store).is_ok_and(|table| table.meta().last_lsn <= manifest.checkpoint_lsn)
}

/// Above every number in use, named by the manifest or not, by a file or something else: a rename must never replace it.
pub(crate) fn next_table_id(vfs: &dyn Vfs, manifest: &Manifest) -> Result<u64> {
    let entries = match vfs.list(sstable::DIR) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Vec::new(),
        entries => entries.map_err(|cause| Error::io("list", sstable::DIR, cause))?,
    };
    let numbers = entries.iter().filter_map(|entry| name_number(entry.name.trim_end_matches(".tmp"), ".sst"));
    Ok(manifest.next_table_id.max(numbers.max().unwrap_or(0) + 1))
}

/// The state of the log when the new epoch can take entries.
struct Begun {
    active: Option<Active>,
    next_birth: NextBirth,
    epoch: u64,
}

struct Opening<'a> {
    ops: &'a Rc<Ops>,
    vfs: Arc<dyn Vfs>,
    options: Options,
    manifest: Manifest,
    files: WalFiles,
    last_timestamp_ns: u64,
    started_ns: u64,
}

impl Opening<'_> {
    fn begin_epoch(&mut self, recovered: &Recovered, plan: Plan, next_lsn: Lsn) -> Result<Begun> {
        let epoch = recovered.replay.epoch_max + 1;
        match plan {
            Plan::Continue { newest, prev_end } => {
                let active = self.ops.block_on(continue_segment(self.ops, &newest, prev_end, epoch))?;
                let next_birth = NextBirth { prev_end, gap: None, takes_over: None };
                Ok(Begun { active: Some(active), next_birth, epoch })
            }
            Plan::NewSegment { prev_end, gap, takes_over, at_once } => {
                if takes_over.is_none()
                    && let Some(newest) = &recovered.replay.newest
                {
                    self.ops.block_on(settle_header(self.ops, &self.files.live[&newest.segment]))?;
                }
                let takes_over = takes_over
                    .map(|newest| (newest.segment, Reusable { path: newest.path, bytes: newest.segment_bytes }));
                let next_birth = NextBirth { prev_end, gap, takes_over };
                if !at_once {
                    return Ok(Begun { active: None, next_birth, epoch });
                }
                let active = self.write_anew(recovered, &next_birth, epoch)?;
                let next_birth = NextBirth { takes_over: None, ..next_birth };
                tracing::info!("the new epoch begins in {}, at LSN {next_lsn}", active.path);
                Ok(Begun { active: Some(active), next_birth, epoch })
            }
        }
    }

    /// The new epoch's first segment: the groups that nothing proves durable, a sync, and only then its header.
    fn write_anew(&mut self, recovered: &Recovered, next: &NextBirth, epoch: u64) -> Result<Active> {
        let released = self.manifest.first_segment - 1;
        let newest = self.files.live.last_key_value().map_or(released, |(&number, _)| number);
        let (segment, file) = match next.takes_over.clone() {
            Some((segment, file)) => (segment, Some(file)),
            None => self.take_file(newest),
        };
        let birth = Birth {
            store: self.manifest.store,
            segment,
            epoch,
            salt: segments::new_salt(self.ops),
            manifest_generation: self.manifest.generation,
            durable_lsn: recovered.replay.next_lsn.prev(),
            prev_end: next.prev_end,
            gap: next.gap,
            flush_mode: FlushMode::Cautious,
            written_by: written_by(&self.ops.info()),
        };
        let (ops, segment_bytes) = (self.ops, self.options.segment_bytes);
        ops.block_on(async {
            let file = match file {
                Some(file) => file,
                None => segments::prepare(ops, birth.store, segment, segment_bytes, &Cell::new(true)).await?,
            };
            let mut active = segments::open(ops, &file, &birth).await?;
            for group in recovered.unproven.iter().filter(|group| group.has_content()) {
                write_group(ops, birth.store, &mut active, group, recovered.replay.durable_lsn).await?;
            }
            ops.sync_data((active.file, &active.path)).await?;
            segments::write_header(ops, &active, &birth).await?;
            Ok(active)
        })
    }

    /// A spare, or a released segment that nobody else has linked, with the number it gets.
    fn take_file(&mut self, newest: u64) -> (u64, Option<Reusable>) {
        let is_fit = |file: &Reusable| {
            let metadata = self.vfs.metadata(&file.path);
            metadata.is_ok_and(|metadata| metadata.links == 1 && metadata.bytes >= file.bytes)
        };
        let spare = match self.files.spares.iter().position(is_fit) {
            Some(at) => Some(self.files.spares.remove(at)),
            None => self.files.released.iter().position(is_fit).map(|at| self.files.released.remove(at)),
        };
        let number = spare
            .as_ref()
            .and_then(|spare| name_number(spare.path.rsplit('/').next().unwrap_or_default(), ".wal"))
            .filter(|&number| number > newest);
        let number = number.unwrap_or_else(|| {
            self.files.number_max += 1;
            self.files.number_max
        });
        (number, spare)
    }

    fn into_core(self, recovered: Recovered, begun: Begun, next_lsn: Lsn, next_table_id: u64) -> Result<Core> {
        let Opening { ops, vfs, options, manifest, files, last_timestamp_ns, started_ns } = self;
        let replay = &recovered.replay;
        let start =
            Start { next_lsn, last_timestamp_ns, mode: options.flush_mode, batches_max: options.channel_capacity };
        let shared = Arc::new(Shared::new(&start, Arc::clone(&ops.env), ops.waker()));
        let recovery = recovery_stats(&recovered, ops.env.mono_ns() - started_ns);
        let wal = Wal {
            store: manifest.store,
            epoch: begun.epoch,
            live: live_segments(&files, &recovered, begun.active.as_ref()),
            next_birth: begun.next_birth,
            books: Books::new(next_lsn.prev()),
            spares: files.spares.into_iter().collect(),
            number_max: files.number_max,
            written_by: written_by(&ops.info()),
            epoch_has_groups: begun.active.is_some() && recovered.unproven.iter().any(Unproven::has_content),
            active: begun.active,
        };
        let gaps = merge_gaps(&manifest.gaps, &replay.gaps, wal.next_birth.gap);
        let released: VecDeque<Reusable> = files.released.into_iter().collect();
        let has_reserve = vfs.metadata(reserve::NAME).is_ok_and(|metadata| metadata.bytes == reserve::BYTES as u64);
        let mut core = Core {
            ops: Rc::clone(ops),
            vfs,
            shared,
            in_flight: VecDeque::new(),
            buffers: (0..2).map(|_| AlignedBuf::zeroed(GROUP_BUFFER_BYTES)).collect(),
            barrier: None,
            exclusive: None,
            memtable: recovered.memtable,
            manifest: Rc::new(ManifestStore::new(Rc::clone(ops), manifest)),
            maintenance: Maintenance::new(next_table_id, released, has_reserve),
            checkpoints: replay.checkpoints.clone(),
            clock_steps: replay.clock_steps.clone(),
            gaps,
            counters: Default::default(),
            recovery,
            released_seq: 0,
            urgent: Rc::new(Cell::new(false)),
            blocked: false,
            closed: false,
            options,
            wal,
        };
        core.limit_next_group(core.wal.active.as_ref().map_or(u64::MAX, Active::bytes_left));
        core.look_for_room()?;
        core.publish();
        Ok(core)
    }
}

/// Writes the header of the segment that the log ended in anew, as it is. Recovery writes a header last of all; if it was
/// killed then, the header is seen and perhaps not durable, and the next segment links to it.
async fn settle_header(ops: &Rc<Ops>, newest: &Segment) -> Result<()> {
    let file = ops.open(&newest.path).await?;
    let mut block = AlignedBuf::zeroed(BLOCK_BYTES);
    newest.header.encode(&mut block);
    let written = ops.write((file, &newest.path), 0, block, BLOCK_BYTES, Durability::Own).await;
    ops.close(file).await;
    written.map(drop)
}

async fn continue_segment(ops: &Rc<Ops>, newest: &Newest, prev_end: LogEnd, epoch: u64) -> Result<Active> {
    Ok(Active {
        file: ops.open(&newest.path).await?,
        path: newest.path.clone(),
        segment: newest.segment,
        salt: segments::new_salt(ops),
        epoch,
        offset: newest.offset,
        segment_bytes: newest.segment_bytes,
        epoch_start: Some(Record::EpochStart { prev_end, prev_epoch: newest.epoch }),
    })
}

async fn write_group(
    ops: &Rc<Ops>,
    store: StoreId,
    active: &mut Active,
    group: &Unproven,
    durable_lsn: Lsn,
) -> Result<()> {
    let draft = Draft {
        first_lsn: group.first_lsn,
        entry_count: group.entry_count,
        entries_bytes: group.entries.len(),
        records: &group.records,
        flush_mode: FlushMode::Cautious,
        durable_lsn,
        clean_close: false,
    };
    let mut buf = AlignedBuf::zeroed(draft.padded_bytes(None) as usize);
    buf[HEADER_BYTES..HEADER_BYTES + group.entries.len()].copy_from_slice(&group.entries);
    let mut at = HEADER_BYTES;
    for _ in 0..group.entry_count {
        at += entry::unseal(&mut buf[at..]);
    }
    let offset = active.offset;
    let len = seal(&mut buf, store, active, &draft);
    ops.write((active.file, &active.path), offset, buf, len, Durability::None).await?;
    Ok(())
}

/// The last entry's timestamp, for a log whose entries are all in tables.
fn last_table_timestamp(vfs: &dyn Vfs, manifest: &Manifest) -> Result<u64> {
    let Some(meta) = manifest.tables.last() else { return Ok(0) };
    let path = sstable::path(meta.id);
    let file = vfs.open(&path).map_err(|cause| Error::io("open", &path, cause))?;
    let mut block = BlockBuf::default();
    let table = Table::open(file, Some(meta), manifest.store).map_err(|cause| cause.into_error(&path))?;
    table.read_block(table.block_count() - 1, &mut block).map_err(|cause| cause.into_error(&path))?;
    Ok(block.entries().next_back().map_or(0, |entry| entry.timestamp_ns))
}

fn live_segments(files: &WalFiles, recovered: &Recovered, active: Option<&Active>) -> Vec<LiveSegment> {
    let mut live: Vec<LiveSegment> = recovered
        .segments
        .iter()
        .map(|(segment, path, last_lsn)| LiveSegment {
            segment: *segment,
            path: path.clone(),
            last_lsn: *last_lsn,
            bytes: files.live[segment].header.segment_bytes,
        })
        .collect();
    if let Some(active) = active.filter(|active| live.last().is_none_or(|last| last.segment < active.segment)) {
        live.push(LiveSegment {
            segment: active.segment,
            path: active.path.clone(),
            last_lsn: recovered.replay.next_lsn.prev(),
            bytes: active.segment_bytes,
        });
    }
    live
}

fn recovery_stats(recovered: &Recovered, duration_ns: u64) -> RecoveryStats {
    let stats = RecoveryStats {
        clean: recovered.replay.tail == Tail::Clean,
        entries_replayed: recovered.memtable.count(),
        replayed: recovered.memtable.range(),
        bytes_cut: match recovered.replay.tail {
            Tail::Torn { bytes } => bytes,
            Tail::Clean | Tail::Open => 0,
        },
        entries_rewritten: recovered.unproven.iter().map(|group| u64::from(group.entry_count)).sum(),
        duration_us: duration_ns / 1000,
    };
    if !stats.clean {
        let (first, last) = stats.replayed.unwrap_or_default();
        tracing::warn!(
            "recovered after an unclean end: {} entries replayed (LSN {first} to {last}), {} written anew, {} bytes of a \
             torn tail cut, in {} us",
            stats.entries_replayed,
            stats.entries_rewritten,
            stats.bytes_cut,
            stats.duration_us
        );
    }
    stats
}

/// The manifest's gaps and those of the log behind it, each once; neighbours with one cause become one.
pub(crate) fn merge_gaps(known: &[Gap], replayed: &[Gap], new: Option<Gap>) -> Vec<Gap> {
    let all: BTreeMap<Lsn, Gap> =
        known.iter().chain(replayed).copied().chain(new).map(|gap| (gap.first, gap)).collect();
    let mut merged: Vec<Gap> = Vec::new();
    for gap in all.into_values() {
        match merged.last_mut() {
            Some(last) if gap.first <= last.last.next() && gap.cause == last.cause => {
                last.last = last.last.max(gap.last)
            }
            Some(last) if gap.first <= last.last => {}
            _ => merged.push(gap),
        }
    }
    merged
}

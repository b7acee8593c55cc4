//! `kifa recover --accept`: the store goes on in place, without what is lost; the damaged files lie in `quarantine/`.
//!
//! # Steps
//! Each is durable before the next begins. The power may fail between any two, and inside each.
//!
//! 1. What is good in damaged tables, and the whole log if it is damaged, is written to new tables, which nobody names.
//! 2. The damaged files are renamed in place, with `.quarantine` behind their name. Every reader knows them under that name
//!    as well, and the store is as damaged as before: no daemon opens it.
//! 3. The new manifest: it names the new tables, records the gaps, and begins the log anew. **From here on the store is
//!    accepted.**
//! 4. The renamed files are moved to `quarantine/`.
//!
//! Cut before 3, a second run begins at 1 again; cut behind it, a second run does 4, and a daemon may come before it: it
//! leaves files with that name alone. Tables that a run was cut off behind are never named, and are removed by the next
//! daemon once it can prove that their entries are in others.
//!
//! Proof: `tests`, cut at every operation.

use std::rc::Rc;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::io::{AlignedBuf, Durability, Vfs};
use crate::reactor::open::next_table_id;
use crate::reactor::ops::Ops;
use crate::recover::copy::Sink;
use crate::recover::{Plan, is_lasting};
use crate::survey::store::StoreSurvey;
use crate::survey::strangers::QUARANTINE;
use crate::{manifest, sstable, wal};

/// What a damaged file's name ends in until it lies in `quarantine/`.
const MARK: &str = crate::wal::files::QUARANTINED;

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Accepted {
    /// Names inside `quarantine/`.
    pub(crate) quarantined: Vec<String>,
    pub(crate) tables_written: usize,
    /// There was damage, and the manifest that accepts it is durable.
    pub(crate) is_accepted: bool,
}

/// The damaged files that are there, relative to the store.
pub(crate) fn damaged_files(survey: &StoreSurvey, vfs: &dyn Vfs) -> Vec<String> {
    let in_store = |file: &&str| file.starts_with(wal::DIR) || file.starts_with(sstable::DIR);
    let wounded = survey.wounds.iter().filter(|wound| is_lasting(wound)).map(|wound| wound.file.as_str());
    let mut files: Vec<String> =
        wounded.filter(in_store).filter(|file| vfs.metadata(file).is_ok()).map(str::to_owned).collect();
    files.sort_unstable();
    files.dedup();
    files
}

/// Accepts the damage. The caller holds the lock; `vfs` reads the store that `ops` writes.
pub(crate) fn accept(ops: &Rc<Ops>, vfs: &Arc<dyn Vfs>, survey: StoreSurvey, plan: &Plan) -> Result<Accepted> {
    let mut accepted = Accepted::default();
    if survey.wounds.iter().any(is_lasting) {
        let damaged = damaged_files(&survey, &**vfs);
        let bad_manifests = bad_manifests(&**vfs, survey.rebuilt)?;
        // Names that a killed process has left are seen and perhaps not durable.
        for dir in [sstable::DIR, wal::DIR, ""] {
            ops.block_on(ops.sync_dir(dir))?;
        }
        let manifest = write_tables(ops, vfs, survey, plan, &mut accepted)?;
        ops.block_on(mark(ops, &damaged))?;
        for path in &bad_manifests {
            accepted.quarantined.push(ops.block_on(keep_copy(ops, &**vfs, path))?);
        }
        ops.block_on(manifest::write(ops, &manifest))?;
        accepted.is_accepted = true;
    }
    accepted.quarantined.extend(move_marked(ops, &**vfs)?);
    Ok(accepted)
}

/// Step 1; returns the manifest of step 3.
fn write_tables(
    ops: &Rc<Ops>,
    vfs: &Arc<dyn Vfs>,
    survey: StoreSurvey,
    plan: &Plan,
    accepted: &mut Accepted,
) -> Result<Manifest> {
    let source = survey.manifest;
    let sink = Sink { ops, vfs, store: source.store };
    let log_is_damaged = survey.log.replay.is_none() || survey.log.lost_bytes.is_some();
    let mut next_id = next_table_id(&**vfs, &source)?;
    let newest = survey.files.live.keys().next_back().copied().unwrap_or(0);
    let mut manifest = Manifest {
        generation: source.generation + 1,
        newest_segment: source.newest_segment.max(newest),
        tables: Vec::new(),
        gaps: plan.gaps.clone(),
        ..source.clone()
    };
    for table in &survey.tables {
        let is_whole = !table.1.wounds.iter().any(is_lasting);
        let copied = match is_whole {
            true => Some(table.0.clone()),
            false => sink.copy_table(&**vfs, &source, table, next_id, true, plan)?,
        };
        if !is_whole && copied.is_some() {
            accepted.tables_written += 1;
            next_id += 1;
        }
        manifest.tables.extend(copied);
    }
    if log_is_damaged {
        let first_segment = survey.files.number_max.max(survey.log.segment_max).max(source.newest_segment) + 1;
        let copied = sink.copy_log(survey.files, &source, survey.log.parts, next_id, plan)?;
        if copied.is_some() {
            accepted.tables_written += 1;
            next_id += 1;
        }
        manifest.tables.extend(copied);
        manifest.checkpoint_lsn = plan.last_lsn;
        manifest.gaps = plan.all_gaps();
        manifest.first_segment = first_segment;
        manifest.newest_segment = first_segment - 1;
        manifest.checkpoints.clone_from(&plan.checkpoints);
        manifest.clock_steps.clone_from(&plan.clock_steps);
    }
    manifest.next_table_id = next_id;
    Ok(manifest)
}

/// Step 2.
async fn mark(ops: &Rc<Ops>, damaged: &[String]) -> Result<()> {
    for path in damaged.iter().filter(|path| !path.ends_with(MARK)) {
        ops.rename(path, &format!("{path}{MARK}")).await?;
    }
    for dir in [sstable::DIR, wal::DIR] {
        ops.sync_dir(dir).await?;
    }
    Ok(())
}

/// Step 4, also for what an earlier run has left.
fn move_marked(ops: &Rc<Ops>, vfs: &dyn Vfs) -> Result<Vec<String>> {
    let mut moved = Vec::new();
    for dir in [sstable::DIR, wal::DIR] {
        let entries = vfs.list(dir).map_err(|cause| Error::io("list", dir, cause))?;
        for name in entries.into_iter().filter(|entry| entry.is_file).map(|entry| entry.name) {
            let Some(own) = name.strip_suffix(MARK) else { continue };
            ops.block_on(make_quarantine(ops))?;
            let kept = free_name(vfs, own)?;
            ops.block_on(ops.rename(&format!("{dir}/{name}"), &format!("{QUARANTINE}/{kept}")))?;
            moved.push(kept);
        }
    }
    if !moved.is_empty() {
        // The new names first: a file must not be durable under none.
        for dir in [QUARANTINE, sstable::DIR, wal::DIR] {
            ops.block_on(ops.sync_dir(dir))?;
        }
    }
    Ok(moved)
}

async fn make_quarantine(ops: &Rc<Ops>) -> Result<()> {
    ops.make_dir(QUARANTINE).await?;
    ops.sync_dir("").await
}

/// A name that nothing in `quarantine/` has.
fn free_name(vfs: &dyn Vfs, name: &str) -> Result<String> {
    let taken = vfs.list(QUARANTINE).map_err(|cause| Error::io("list", QUARANTINE, cause))?;
    let mut free = name.to_owned();
    let mut number = 0;
    while taken.iter().any(|entry| entry.name == free) {
        number += 1;
        free = format!("{name}.{number}");
    }
    Ok(free)
}

/// Manifests that cannot be read, and that the new one will supersede.
fn bad_manifests(vfs: &dyn Vfs, rebuilt: bool) -> Result<Vec<String>> {
    if !rebuilt {
        return Ok(Vec::new());
    }
    let found = manifest::find(vfs).map_err(|cause| Error::io("list", ".", cause))?;
    let is_bad = |generation: &&u64| manifest::read(vfs, **generation).is_err();
    Ok(found.generations.iter().filter(is_bad).map(|&generation| manifest::path(generation)).collect())
}

/// A damaged manifest is copied, not moved: without it an older one would be the newest.
async fn keep_copy(ops: &Rc<Ops>, vfs: &dyn Vfs, path: &str) -> Result<String> {
    make_quarantine(ops).await?;
    // Padded with zeros to whole blocks; what the device cannot read is not there.
    let bytes = manifest::read_bytes(vfs, path, false).ok().flatten().unwrap_or_default();
    let name = free_name(vfs, path)?;
    let kept = format!("{QUARANTINE}/{name}");
    let file = ops.create(&kept).await?;
    let buf = AlignedBuf::from_bytes(&bytes);
    let len = buf.len();
    let written = async {
        ops.write((file, &kept), 0, buf, len, Durability::None).await?;
        ops.sync_data((file, &kept)).await
    };
    let written = written.await;
    ops.close(file).await;
    written?;
    ops.sync_dir(QUARANTINE).await?;
    Ok(name)
}

/// Whether an earlier run was cut off behind its manifest: the store is sound, and files wait to be moved.
pub(crate) fn is_unfinished(vfs: &dyn Vfs) -> bool {
    [sstable::DIR, wal::DIR].iter().any(|dir| {
        vfs.list(dir).is_ok_and(|entries| entries.iter().any(|entry| entry.is_file && entry.name.ends_with(MARK)))
    })
}

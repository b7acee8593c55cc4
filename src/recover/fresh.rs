//! `kifa recover --to NEW`: everything good into a store of its own, which appears completely or not at all.
//!
//! The store is made under a temporary name beside its final one, synced, and renamed. It gets an id of its own, so that no
//! file of one store can be taken for a file of the other; LSNs, timestamps, source numbers, positions, gaps and clock
//! steps are those of the source. Its log is empty: the first daemon begins the next segment behind the last LSN.
// The new store's directory is made and renamed as a whole; its files go through the seam.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::StoreId;
use crate::format::manifest::Manifest;
use crate::io::fs::{RealEnv, StoreDir, create_store_dir};
use crate::io::{Env as _, Vfs};
use crate::reactor::ops::Ops;
use crate::recover::copy::Sink;
use crate::recover::{Plan, open_dir};
use crate::survey::store::StoreSurvey;
use crate::{manifest, sstable, wal};

/// Number of the segment that the log begins with; the one before it stands for the source's.
pub(crate) const FIRST_SEGMENT: u64 = 2;

/// Where the new store goes.
pub(crate) struct Target {
    path: PathBuf,
    temporary: PathBuf,
    parent: PathBuf,
}

impl Target {
    /// Looks only. `maker` is what makes the store, as `recover`. An error is a sentence that says what to do.
    pub(crate) fn check(path: &Path, source: &Path, maker: &str) -> Result<Target, String> {
        let shown = path.display();
        match fs::symlink_metadata(path) {
            Ok(_) => return Err(format!("{shown} exists already; name a directory that does not")),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(format!("cannot look at {shown}: {cause}")),
        }
        let Some(name) = path.file_name() else { return Err(format!("{shown} names no directory")) };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parent = fs::canonicalize(parent).map_err(|cause| format!("cannot use {}: {cause}", parent.display()))?;
        if fs::canonicalize(source).is_ok_and(|source| parent.starts_with(source)) {
            return Err(format!("{shown} lies inside the store; choose a place outside"));
        }
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".kifa-{maker}.tmp"));
        let temporary = parent.join(hidden);
        if fs::symlink_metadata(&temporary).is_ok() {
            let left = temporary.display();
            return Err(format!("{left} is left from a kifa {maker} that was interrupted; remove it and try again"));
        }
        Ok(Target { path: parent.join(name), temporary, parent })
    }
}

/// Copies what is good. The source is read only.
pub(crate) fn copy_to(survey: StoreSurvey, plan: &Plan, from: &dyn Vfs, target: &Target) -> Result<()> {
    let built = build(survey, plan, from, &target.temporary);
    if built.is_err() {
        target.discard();
        return built;
    }
    target.publish()
}

impl Target {
    /// The directory in which the store is made.
    pub(crate) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Removes what was made so far. Nothing in it is anybody's but this process's.
    pub(crate) fn discard(&self) {
        let _ = fs::remove_dir_all(&self.temporary);
    }

    /// Gives the finished store, all of it durable, its name.
    pub(crate) fn publish(&self) -> Result<()> {
        let failed = |op| move |cause| Error::io(op, &self.path, cause);
        fs::rename(&self.temporary, &self.path).map_err(failed("create"))?;
        StoreDir::open(&self.parent).and_then(|parent| parent.sync_dir("")).map_err(failed("sync the name of"))
    }
}

/// Makes the directory of a new store with its folders, durably, and opens it.
pub(crate) fn make_empty_store(dir: &Path) -> Result<(Rc<Ops>, Arc<dyn Vfs>)> {
    create_store_dir(dir).map_err(|cause| Error::io("create", dir, cause))?;
    let (ops, vfs) = open_dir(dir)?;
    let made = async {
        ops.make_dir(wal::DIR).await?;
        ops.make_dir(sstable::DIR).await?;
        ops.sync_dir("").await
    };
    ops.block_on(made).map_err(|cause| crate::engine::within(dir, cause))?;
    Ok((ops, vfs))
}

fn build(survey: StoreSurvey, plan: &Plan, from: &dyn Vfs, dir: &Path) -> Result<()> {
    let within = |cause| crate::engine::within(dir, cause);
    let (ops, vfs) = make_empty_store(dir)?;
    let mut id = [0; 16];
    id[..8].copy_from_slice(&RealEnv.random_u64().to_le_bytes());
    id[8..].copy_from_slice(&RealEnv.random_u64().to_le_bytes());
    let sink = Sink { ops: &ops, vfs: &vfs, store: StoreId(id) };
    let mut manifest = Manifest {
        checkpoint_lsn: plan.last_lsn,
        first_segment: FIRST_SEGMENT,
        newest_segment: FIRST_SEGMENT - 1,
        floor_lsn: plan.floor_lsn,
        gaps: plan.all_gaps(),
        checkpoints: plan.checkpoints.clone(),
        clock_steps: plan.clock_steps.clone(),
        ..Manifest::birth(sink.store)
    };
    for table in &survey.tables {
        let copied = sink.copy_table(from, &survey.manifest, table, manifest.next_table_id, false, plan);
        manifest.add(copied.map_err(within)?);
    }
    let parts = survey.log.parts;
    let copied = sink.copy_log(survey.files, &survey.manifest, parts, manifest.next_table_id, plan);
    manifest.add(copied.map_err(within)?);
    ops.block_on(manifest::write(&ops, &manifest)).map_err(within)
}

impl Manifest {
    /// Takes a table that was written under the next id.
    pub(crate) fn add(&mut self, table: Option<crate::format::manifest::TableMeta>) {
        if let Some(table) = table {
            self.next_table_id = table.id + 1;
            self.tables.push(table);
        }
    }
}

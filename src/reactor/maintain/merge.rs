//! Merging neighbouring tables: which, and by which steps the merged one takes their place.
//!
//! Invariants:
//! - The inputs are unlinked when the manifest that names the merged table instead is durable, and not before.
//! - A merge changes nothing if retention has deleted one of its inputs meanwhile, or if one is damaged or unreadable.
//! - It gives way to appends, and waits while the log is in emergency mode.
//!
//! Proof: `engine`'s tests, `tests/retention.rs` of the reactor, and the crash campaign in `sim`.

use std::rc::Rc;
use std::sync::Arc;

use super::write::{Purpose, Source, open_table, write_wanted};
use crate::compaction::{MergeJob, Policy, merged_facts, pick};
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, TableMeta};
use crate::format::table::{Codec, TableFacts};
use crate::format::{FlushMode, StoreId};
use crate::io::Vfs;
use crate::io::once::ReadOnce;
use crate::manifest::ManifestStore;
use crate::planted::{Bug, planted};
use crate::reactor::Core;
use crate::reactor::helper::Lane;
use crate::reactor::ops::Ops;
use crate::reactor::space::{reserve_first, until_space};
use crate::reactor::stage::Shared;
use crate::sstable::{Table, path};

impl Core {
    pub(super) fn start_merge(&mut self) {
        let maintenance = &self.maintenance;
        let wanted = self.options.compaction_enabled && maintenance.merge_is_due && !maintenance.merge_is_off;
        if !wanted || maintenance.merge.is_some() || self.shared.mode() == FlushMode::Emergency {
            return;
        }
        self.maintenance.merge_is_due = false;
        let tables = self.manifest.current().tables.clone();
        let limits = self.options.limits();
        // A table that is long enough for retention counts as full.
        let length = |table: &TableMeta| if limits.is_long(table) { u64::MAX } else { table.file_bytes };
        let lengths: Vec<u64> = tables.iter().map(length).collect();
        let table_bytes_max = limits.table_bytes_max(Policy::TABLE_BYTES_MAX);
        let policy = Policy { threshold: self.options.compaction_threshold, table_bytes_max };
        let Some(run) = pick(&lengths, &policy) else { return };
        let inputs = tables[run].to_vec();
        let id = self.maintenance.next_table_id();
        let (store, codec) = (self.wal.store, self.options.compression.codec());
        let (ops, vfs, manifest) = (Rc::clone(&self.ops), Arc::clone(&self.vfs), Rc::clone(&self.manifest));
        let shared = Arc::clone(&self.shared);
        self.maintenance.merge = Some(Box::pin(async move {
            until_space(&ops, async || {
                reserve_first(&ops).await;
                merge(&ops, &vfs, &manifest, &shared, store, (id, codec), &inputs).await
            })
            .await
        }));
    }
}

/// Merges `inputs` into table `id`.
async fn merge(
    ops: &Rc<Ops>,
    vfs: &Arc<dyn Vfs>,
    manifest: &ManifestStore,
    shared: &Arc<Shared>,
    store: StoreId,
    (id, codec): (u64, Codec),
    inputs: &[TableMeta],
) -> Result<Merged> {
    let is_input = |table: &TableMeta| inputs.iter().any(|input| input.id == table.id);
    let are_live = |manifest: &Manifest| manifest.tables.iter().filter(|table| is_input(table)).count() == inputs.len();
    let is_wanted = || are_live(&manifest.current());
    if !is_wanted() {
        return Ok(Merged::GivenUp);
    }
    let (metas, opener) = (inputs.to_vec(), Arc::clone(vfs));
    let opened = ops.offload(Lane::Background, move || -> Result<(Vec<Table>, TableFacts)> {
        let tables: Vec<Table> = metas
            .iter()
            .map(|meta| open_table(&ReadOnce(&*opener), &path(meta.id), meta, store))
            .collect::<Result<_>>()?;
        let facts = merged_facts(&tables);
        Ok((tables, facts))
    });
    let damaged = |cause: &Error| {
        if !is_wanted() {
            return Ok(Merged::GivenUp);
        }
        tracing::error!("{cause}; tables are not merged any more until the log is reopened");
        Ok(Merged::Damaged)
    };
    let (tables, facts) = match opened.await {
        Ok(opened) => opened,
        Err(cause) => return damaged(&cause),
    };
    let mut job = MergeJob::new(tables, id, codec, facts, Arc::clone(&ops.chunks));
    let source: Source = Box::new(move || job.step().map_err(|error| error.cause.into_error(&path(error.table))));
    let pace = Pace { shared, is_wanted: &is_wanted };
    let meta = match write_wanted(ops, vfs, store, id, source, Purpose::Merge(&pace)).await {
        Ok(Some(meta)) => meta,
        Ok(None) => return Ok(Merged::GivenUp),
        // What is read is the inputs, and the merged table, upon which nothing is built then.
        Err(cause @ (Error::Corrupt(_) | Error::Io { op: "read", .. })) => return damaged(&cause),
        Err(cause) => return Err(cause),
    };
    if planted(Bug::MergedUnlinkedEarly) {
        unlink_tables(ops, inputs).await;
    }
    let edited = manifest.try_edit(|manifest| {
        let Some(at) = manifest.tables.iter().position(is_input).filter(|_| are_live(manifest)) else { return false };
        manifest.tables.retain(|table| !is_input(table));
        manifest.tables.insert(at, meta);
        manifest.next_table_id = manifest.next_table_id.max(id + 1);
        true
    });
    if !edited.await? {
        // The next open removes it if it stays: nothing names it, and what is in it is in the inputs or has expired.
        let _ = ops.unlink(&path(id)).await;
        return Ok(Merged::GivenUp);
    }
    unlink_tables(ops, inputs).await;
    Ok(Merged::Done)
}

/// Removes tables that the durable manifest names no more. One that stays does no harm: the next open removes it.
pub(in crate::reactor) async fn unlink_tables(ops: &Rc<Ops>, tables: &[TableMeta]) {
    for table in tables {
        let _ = ops.unlink(&path(table.id)).await;
    }
}

/// How a merge ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Merged {
    Done,
    /// An input was deleted by retention meanwhile; nothing was changed.
    GivenUp,
    /// An input is damaged or unreadable; nothing was changed.
    Damaged,
}

/// What a merge gives way to.
pub(super) struct Pace<'a> {
    pub(super) shared: &'a Shared,
    pub(super) is_wanted: &'a dyn Fn() -> bool,
}

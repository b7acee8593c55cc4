//! Deleting the oldest tables: by the limits that are configured, or because an operator asks for it.
//!
//! Invariants:
//! - The manifest names a table no more, durably, and only then is its file unlinked. A power cut before that edit costs
//!   nothing; one behind it leaves files whose entries all lie below the recorded floor, and the next open removes them.
//! - The floor is recorded in the same edit: whoever asks for what is gone is told that it has expired.
//! - A reader that has a table open reads it to its end; one that comes too late finds a newer manifest, and goes on by it.
//! - A merge whose input is deleted meanwhile gives up: it looks at the manifest before each piece of work and in its edit.
//! - It goes on while the disk is full (the manifest has its reserve) and in emergency mode.
//! - What another program does with the freed space must not cost more tables than the limit asks for: where deleting has
//!   not made room, retention waits for [`PATIENCE`] before it deletes for free space again.
//!
//! Not here: which tables ([`crate::retention`]).
//!
//! Proof: `tests::retention`, and the crash campaign in `sim`.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::error::Result;
use crate::format::Lsn;
use crate::format::manifest::TableMeta;
use crate::manifest::{ManifestStore, reserve};
use crate::planted::{Bug, planted};
use crate::reactor::Core;
use crate::reactor::maintain::{Job, poll_job, unlink_tables};
use crate::reactor::ops::Ops;
use crate::reactor::space::until_space;
use crate::reactor::stage::{Pending, Reply, Request};
use crate::retention::{ClockProof, Deleted, Goal, Limits, count};

/// How often the limits are looked at while nothing happens.
const LOOK: Duration = Duration::from_secs(60);
/// The same while a job waits for space.
const LOOK_WITHOUT_SPACE: Duration = Duration::from_secs(1);
/// How long to wait when deleting has not made room.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an operator asks for: by hand, once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Vacuum {
    /// Tables whose newest entry is older than this, in nanoseconds since the Unix epoch.
    pub(crate) not_before_ns: Option<u64>,
    /// As much as makes the store no longer than this, in bytes.
    pub(crate) to_bytes: Option<u64>,
    /// Only tell what would be deleted.
    pub(crate) dry_run: bool,
}

/// Retention's part of the maintenance.
#[derive(Default)]
pub(super) struct Retention {
    job: Option<Job<Deleted>>,
    /// Whom to answer when it is done.
    asked_by: Option<Pending>,
    /// What operators asked for, in turn.
    asked: VecDeque<(Vacuum, Pending)>,
    clock: ClockProof,
    /// When to look again, in monotonic nanoseconds.
    look_at_ns: u64,
    /// The limits are not looked at for free space before this, in monotonic nanoseconds.
    patient_until_ns: u64,
    /// Bytes that the file system had free before the deletion under way, where that was for free space.
    free_before: Option<u64>,
    /// It was said that free space cannot be told.
    has_complained: bool,
}

impl Retention {
    /// The store has grown: look now.
    pub(super) fn look_soon(&mut self) {
        self.look_at_ns = 0;
    }

    pub(super) fn ask(&mut self, vacuum: Vacuum, pending: Pending) {
        self.asked.push_back((vacuum, pending));
    }
}

impl Core {
    /// Bytes of the store's files but the manifest.
    pub(super) fn store_bytes(&self) -> u64 {
        let tables: u64 = self.manifest.current().tables.iter().map(|table| table.file_bytes).sum();
        let live: u64 = self.wal.live.iter().map(|live| live.bytes).sum();
        let spares: u64 = self.wal.spares.iter().map(|spare| spare.bytes).sum();
        tables + live + spares
    }

    pub(super) fn poll_retention(&mut self) -> Result<()> {
        let Some(deleted) = poll_job(&mut self.maintenance.retention.job)? else { return Ok(()) };
        if deleted.tables > 0 {
            tracing::info!(
                "retention: {} tables with {} entries ({} bytes) deleted; the oldest LSN is {} now",
                deleted.tables,
                deleted.entries,
                deleted.bytes,
                deleted.floor_lsn
            );
        }
        let (now_ns, free) = (self.now_ns(), self.vfs.free_bytes().unwrap_or(0));
        let retention = &mut self.maintenance.retention;
        if let Some(before) = retention.free_before.take()
            && free.saturating_sub(before) < deleted.bytes / 2
        {
            tracing::warn!(
                "retention: deleting {} bytes has not made as much room; something else takes or holds it",
                deleted.bytes
            );
            retention.patient_until_ns = now_ns + PATIENCE.as_nanos() as u64;
        }
        retention.look_soon();
        if let Some(pending) = retention.asked_by.take() {
            pending.answer(Ok(Reply::Vacuumed(Box::new(deleted))));
        }
        Ok(())
    }

    /// Takes the request at the barrier over; it needs nobody to wait for it.
    pub(super) fn take_vacuum(&mut self) {
        let Some(pending) = self.barrier.take() else { return };
        if let Request::Vacuum(vacuum) = pending.request {
            self.maintenance.retention.ask(vacuum, pending);
        }
    }

    pub(super) fn start_retention(&mut self) {
        while self.maintenance.retention.job.is_none() {
            let Some((vacuum, pending)) = self.maintenance.retention.asked.pop_front() else { break };
            self.start_vacuum(&vacuum, pending);
        }
        let limits = self.options.limits();
        if limits.is_off() || self.maintenance.retention.job.is_some() {
            return;
        }
        let (now_ns, had_no_space_ns) = (self.now_ns(), self.ops.no_space_ns.get());
        let waits_for_space =
            had_no_space_ns != 0 && now_ns - had_no_space_ns.min(now_ns) < 2 * LOOK_WITHOUT_SPACE.as_nanos() as u64;
        let every = if waits_for_space { LOOK_WITHOUT_SPACE } else { LOOK }.as_nanos() as u64;
        let retention = &mut self.maintenance.retention;
        if now_ns < retention.look_at_ns.min(now_ns.saturating_add(every)) {
            return;
        }
        retention.look_at_ns = now_ns + every;
        self.ops.wake_at(retention.look_at_ns);
        self.look(&limits, now_ns);
    }

    /// Looks whether a limit is passed, and begins to delete what is beyond it.
    fn look(&mut self, limits: &Limits, now_ns: u64) {
        let wall_ns = self.ops.env.wall_ns();
        let is_proven = self.maintenance.retention.clock.observe(wall_ns, now_ns);
        let free = limits.min_free_bytes.and_then(|_| self.free_bytes());
        let is_patient = now_ns < self.maintenance.retention.patient_until_ns;
        // Room for the reserve, where it is gone, on top of what is to be left to others.
        let reserve_bytes = if self.ops.lacks_reserve.get() { reserve::BYTES as u64 } else { 0 };
        let missing = match (limits.min_free_bytes, free) {
            (Some(wanted), Some(free)) if !is_patient => (wanted + reserve_bytes).saturating_sub(free),
            _ => 0,
        };
        let excess = limits.max_bytes.map_or(0, |max| self.store_bytes().saturating_sub(max));
        let goal = Goal {
            not_before_ns: limits.max_age.filter(|_| is_proven).map(|age| before(wall_ns, age)),
            bytes_to_free: missing.max(excess),
        };
        let tables = &self.manifest.current().tables;
        let Some(last) = tables[..count(tables, &goal)].last().map(|table| table.last_lsn) else { return };
        self.maintenance.retention.free_before = free.filter(|_| missing > 0);
        self.maintenance.retention.job = Some(self.deletion(last));
    }

    /// Free bytes of the file system, where it tells.
    fn free_bytes(&mut self) -> Option<u64> {
        let free = self.vfs.free_bytes();
        if let Err(cause) = &free
            && !std::mem::replace(&mut self.maintenance.retention.has_complained, true)
        {
            tracing::warn!("retention: the file system does not tell its free space ({cause}): min_free has no effect");
        }
        free.ok()
    }

    fn start_vacuum(&mut self, vacuum: &Vacuum, pending: Pending) {
        let goal = Goal {
            not_before_ns: vacuum.not_before_ns,
            bytes_to_free: vacuum.to_bytes.map_or(0, |to| self.store_bytes().saturating_sub(to)),
        };
        let manifest = self.manifest.current();
        let oldest: &[TableMeta] = &manifest.tables[..count(&manifest.tables, &goal)];
        match oldest.last().map(|table| table.last_lsn) {
            Some(last) if !vacuum.dry_run => {
                drop(manifest);
                self.maintenance.retention.asked_by = Some(pending);
                self.maintenance.retention.job = Some(self.deletion(last));
            }
            _ => pending.answer(Ok(Reply::Vacuumed(Box::new(Deleted::of(oldest, manifest.floor_lsn))))),
        }
    }

    fn deletion(&self, last: Lsn) -> Job<Deleted> {
        let (ops, manifest) = (Rc::clone(&self.ops), Rc::clone(&self.manifest));
        Box::pin(async move { until_space(&ops, async || delete(&ops, &manifest, last).await).await })
    }
}

/// The wall time so long ago.
fn before(wall_ns: u64, age: Duration) -> u64 {
    wall_ns.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX))
}

/// Deletes the tables that lie up to `last` whole: the manifest first, then the files. A merge may have moved the borders
/// meanwhile.
async fn delete(ops: &Rc<Ops>, manifest: &ManifestStore, last: Lsn) -> Result<Deleted> {
    let (mut gone, now_ns) = (Vec::new(), ops.env.wall_ns());
    if planted(Bug::ExpiredUnlinkedEarly) {
        let tables = manifest.current().tables.clone();
        let below = tables[..tables.len().saturating_sub(1)].partition_point(|table| table.last_lsn <= last);
        unlink_tables(ops, &tables[..below]).await;
    }
    let edited = manifest.try_edit(|manifest| {
        let droppable = manifest.tables.len().saturating_sub(1);
        let below = manifest.tables[..droppable].iter().take_while(|table| table.last_lsn <= last).count();
        gone = manifest.tables.drain(..below).collect();
        manifest.floor_lsn = Deleted::of(&gone, manifest.floor_lsn).floor_lsn;
        manifest.expired.add(&gone, now_ns);
        below > 0
    });
    edited.await?;
    unlink_tables(ops, &gone).await;
    Ok(Deleted::of(&gone, manifest.current().floor_lsn))
}

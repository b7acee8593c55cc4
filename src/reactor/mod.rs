//! The one thread that submits storage I/O: stage → group → write and sync → confirm → memtable → table.
//!
//! [`Core`] is a state machine: [`Core::turn`] takes completions in and submits what can be submitted, and never waits.
//! In production a thread calls it in a loop ([`run`]); the simulator calls it itself, so both run the same code.
//!
//! | file | what |
//! |---|---|
//! | `stage` | where producers meet the reactor |
//! | `commit` | when a group is submitted, and with which sync (pure) |
//! | `groups` | submitting groups, releasing them in order |
//! | `exclusive` | what needs the log to itself: rotation, sync, mode change, idle watermark, close |
//! | `maintain` | memtable freeze, table flush, compaction, spare segments |
//! | `retain` | deleting the oldest tables |
//! | `segments` | segment files |
//! | `space` | waiting for a full disk |
//! | `open` | recovery, up to the first turn |
//! | `ops` | operations as futures |
//! | `helper` | the threads that build and read back tables |
//! | `watch` | who is woken when the log has moved |
//! | `gauges` | numbers for whoever looks from outside |
//!
//! Invariants:
//! - Groups are released in LSN order; a failure of one fails everything behind it.
//! - Any failed or short write to the log and any failed sync latches the log: [`Core::turn`] returns the error once,
//!   every waiter gets it, nothing more is accepted.
//! - An exclusive section runs while no group is in flight, and none is submitted while it runs.
//! - Memory: three group buffers, two memtables, and what one flush and one compaction hold.
//!
//! Proof: `engine`'s tests over both backends, and the crash campaign in `sim`.

pub(crate) mod clock;
pub(crate) mod commit;
mod exclusive;
pub(crate) mod gauges;
mod groups;
pub(crate) mod helper;
pub(crate) mod maintain;
pub(crate) mod open;
pub(crate) mod ops;
pub(crate) mod retain;
pub(crate) mod segments;
pub(crate) mod space;
pub(crate) mod stage;
pub(crate) mod stats;
#[cfg(test)]
mod tests;
pub(crate) mod watch;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::segment::WrittenBy;
use crate::format::{ClockStep, FlushMode, Gap, Lsn, StoreId};
use crate::io::{AlignedBuf, Vfs};
use crate::manifest::ManifestStore;
use crate::memtable::MemTable;
use crate::options::{OnFull, Options};
use exclusive::Exclusive;
use gauges::Numbers;
use groups::InFlight;
use maintain::Maintenance;
use ops::Ops;
use stage::{Pending, Shared};
use stats::{Counters, LogStats, RecoveryStats};

use crate::format::record::LogEnd;
use crate::wal::files::Reusable;
use crate::wal::writer::{AT_RISK_ENTRIES_MAX, Active, Books};

/// How long a log may be idle before its watermark is written, and how long an entry may stay unsynced in normal mode.
pub(crate) const IDLE: Duration = Duration::from_secs(1);
/// The sync of normal mode starts this long after the oldest unsynced entry, so that it is done within [`IDLE`].
const OVERDUE: Duration = Duration::from_millis(900);

/// A live segment: number, path, and the last LSN in it.
#[derive(Clone, Debug)]
pub(crate) struct LiveSegment {
    pub(crate) segment: u64,
    pub(crate) path: String,
    pub(crate) last_lsn: Lsn,
    pub(crate) bytes: u64,
}

/// Where the next segment's header links to, while there is no active segment.
#[derive(Clone, Debug)]
pub(crate) struct NextBirth {
    pub(crate) prev_end: LogEnd,
    pub(crate) gap: Option<Gap>,
    /// A segment without a group that is taken over: its number and file.
    pub(crate) takes_over: Option<(u64, Reusable)>,
}

/// The write-ahead log as the reactor sees it.
pub(crate) struct Wal {
    pub(crate) store: StoreId,
    pub(crate) epoch: u64,
    pub(crate) active: Option<Active>,
    pub(crate) next_birth: NextBirth,
    pub(crate) books: Books,
    pub(crate) live: Vec<LiveSegment>,
    pub(crate) spares: VecDeque<Reusable>,
    pub(crate) number_max: u64,
    pub(crate) written_by: WrittenBy,
    /// Groups were written in this epoch.
    pub(crate) epoch_has_groups: bool,
}

impl Wal {
    pub(crate) fn next_number(&mut self) -> u64 {
        self.number_max += 1;
        self.number_max
    }
}

/// See the module's page.
pub(crate) struct Core {
    ops: Rc<Ops>,
    vfs: Arc<dyn Vfs>,
    shared: Arc<Shared>,
    options: Options,
    wal: Wal,
    in_flight: VecDeque<InFlight>,
    buffers: Vec<AlignedBuf>,
    /// A request that waits for the groups in flight; none is submitted meanwhile.
    barrier: Option<Pending>,
    exclusive: Option<Exclusive>,
    memtable: MemTable,
    manifest: Rc<ManifestStore>,
    maintenance: Maintenance,
    /// As of the last released group.
    checkpoints: BTreeMap<Vec<u8>, Vec<u8>>,
    clock_steps: Vec<ClockStep>,
    gaps: Vec<Gap>,
    counters: Counters,
    recovery: RecoveryStats,
    released_seq: u64,
    /// Takes the pauses out of the segment preparation that appends wait for.
    urgent: Rc<Cell<bool>>,
    /// The open group waits for something else than company: a completion or a job will bring it.
    blocked: bool,
    closed: bool,
}

impl Core {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Whether the log was closed: there is nothing left to do.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Positions of sources, as of the last released group.
    pub(crate) fn checkpoints(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.checkpoints
    }

    /// Takes completions in and submits what can be submitted. An error latches the log.
    pub(crate) fn turn(&mut self) -> Result<()> {
        self.ops.expire_timers();
        self.release_groups()?;
        self.poll_exclusive()?;
        self.poll_maintenance()?;
        self.schedule();
        self.poll_exclusive()?;
        self.start_maintenance();
        self.poll_maintenance()?;
        self.publish();
        self.shared.note_no_space(self.ops.no_space_ns.get());
        self.tell_numbers();
        Ok(())
    }

    /// Leaves the numbers for whoever looks; also before the first turn.
    pub(crate) fn tell_numbers(&self) {
        self.shared.gauges.set(self.numbers());
    }

    /// Tells how far the log has come. Called before a group is released: whoever is told "confirmed" finds it durable.
    fn publish(&self) {
        let books = &self.wal.books;
        self.shared.publish(books.released_lsn, books.durable_lsn);
        self.shared.set_refusing(self.options.on_full == OnFull::Refuse && self.is_full());
        match self.may_confirm_ahead() {
            true => self.shared.grant(Lsn(books.durable_lsn.0 + AT_RISK_ENTRIES_MAX)),
            false => self.shared.end_grant(),
        }
    }

    /// Whether entries may be confirmed when they are staged, before they are written. In normal mode, once that is
    /// declared durably; and only while the open group can be written at once: a full disk, a segment that is about to end,
    /// or a request would leave what is confirmed at risk for longer than a second.
    fn may_confirm_ahead(&self) -> bool {
        self.shared.mode() == FlushMode::Normal
            && self.wal.books.normal_declared
            && self.exclusive.is_none()
            && self.barrier.is_none()
            && !self.is_stalled()
            && self.has_reserve()
            && self.wal.active.as_ref().is_some_and(|active| self.is_worth_filling(active.bytes_left()))
    }

    /// Whether what comes next would have to wait for space on the disk. Said while there is still room for a group, so that
    /// what is accepted until then is stored.
    fn is_full(&self) -> bool {
        if self.ops.waiting_for_space.get() == 0 && !self.maintenance.began_without_space {
            return false;
        }
        let room = stage::GROUP_BUFFER_BYTES.min(self.options.memtable_bytes / 4);
        let memtable_ends = self.is_behind() && self.memtable.bytes() + room >= self.options.memtable_bytes;
        memtable_ends || !self.has_room()
    }

    /// Whether the next group can be written to files that are there, and one is left for recovery.
    pub(super) fn has_room(&self) -> bool {
        let room = stage::GROUP_BUFFER_BYTES.min(self.options.segment_bytes as usize / 4) as u64;
        let begins = match &self.wal.active {
            Some(active) => active.bytes_left() < room,
            None => self.wal.next_birth.takes_over.is_none(),
        };
        self.wal.spares.len() > usize::from(begins)
    }

    /// A log that is to refuse appends on a full disk must know that it is full before it accepts the first one.
    fn look_for_room(&mut self) -> Result<()> {
        while self.options.on_full == OnFull::Refuse && !self.has_room() {
            let (ops, number) = (Rc::clone(&self.ops), self.wal.next_number());
            let urgent = Cell::new(true);
            let prepared = segments::prepare(&ops, self.wal.store, number, self.options.segment_bytes, &urgent);
            match ops.block_on(prepared) {
                Ok(spare) => self.wal.spares.push_back(spare),
                Err(cause) if space::is_no_space(&cause) => {
                    self.maintenance.began_without_space = true;
                    self.shared.set_refusing(true);
                    return Ok(());
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok(())
    }

    /// Latches the log: everybody is told.
    pub(crate) fn fail(&mut self, cause: Error) {
        tracing::error!("{cause}; the log stops: nothing confirmed is lost, restart it to recover");
        if let Some(pending) = self.barrier.take() {
            pending.answer(Err(Error::Stopped(Arc::new(cause.clone()))));
        }
        let exclusive = self.exclusive.take();
        if let Some(pending) = exclusive.and_then(|exclusive| exclusive.asked_by) {
            pending.answer(Err(Error::Stopped(Arc::new(cause.clone()))));
        }
        self.shared.fail(cause);
    }

    fn now_ns(&self) -> u64 {
        self.ops.env.mono_ns()
    }

    /// Requests first, then what the clock demands, then groups.
    fn schedule(&mut self) {
        self.blocked = false;
        loop {
            if self.exclusive.is_some() {
                return;
            }
            if self.barrier.is_none() {
                self.barrier = self.shared.take_request(self.released_seq);
            }
            if self.barrier.is_some() && self.in_flight.is_empty() {
                let waits_for_spare = !self.start_request();
                if waits_for_spare && !self.start_overdue_sync() {
                    return;
                }
                continue;
            }
            if self.barrier.is_some() {
                return;
            }
            if self.start_timed() {
                self.blocked = true;
                return;
            }
            if !self.submit_group() {
                return;
            }
        }
    }

    /// How long [`Core::turn`] need not be called unless a completion or the waker comes; `None` is for ever.
    pub(crate) fn next_wait(&self) -> Option<Duration> {
        let busy = self.exclusive.is_some() || self.barrier.is_some();
        let wake_at = match self.in_flight.len() {
            _ if busy || self.blocked => usize::MAX,
            0 => 0,
            1 => stage::OVERLAP_BYTES_MIN,
            _ => usize::MAX,
        };
        if !self.shared.prepare_wait(wake_at, self.released_seq) && !busy {
            return Some(Duration::ZERO);
        }
        let timed = match (self.exclusive.is_some() || !self.in_flight.is_empty(), self.barrier.is_some()) {
            (true, _) => None,
            (false, true) => self.overdue_deadline(),
            (false, false) => self.next_deadline(),
        };
        let deadline = timed.into_iter().chain(self.ops.next_timer()).min();
        deadline.map(|deadline| self.ops.until(deadline))
    }

    fn numbers(&self) -> Numbers {
        let manifest = self.manifest.current();
        let is_confirmed =
            |group: &&InFlight| matches!(self.shared.is_confirmed(group.seq, group.last_lsn()), Ok(true));
        Numbers {
            groups: self.counters.groups,
            entries: self.counters.entries,
            payload_bytes: self.counters.payload_bytes,
            wal_bytes: self.counters.wal_bytes,
            syncs: self.counters.syncs,
            checkpoint_lsn: manifest.checkpoint_lsn.0,
            memtable_entries: self.memtable.count() + self.maintenance.frozen_count(),
            floor_lsn: manifest.floor_lsn.0,
            expired_entries: manifest.expired.entries,
            expired_bytes: manifest.expired.bytes,
            tables: manifest.tables.len() as u64,
            wal_segments: self.wal.live.len() as u64,
            wal_spares: self.wal.spares.len() as u64,
            at_risk_entries: self.wal.books.at_risk_entries,
            unconfirmed_since_ns: self
                .in_flight
                .iter()
                .find(|group| !is_confirmed(group))
                .map_or(0, |group| group.since_ns),
        }
    }

    fn stats(&self) -> LogStats {
        let info = self.ops.info();
        let manifest = self.manifest.current();
        LogStats {
            flush_mode: self.shared.mode(),
            confirmed_lsn: self.shared.confirmed_lsn(),
            durable_lsn: self.wal.books.durable_lsn,
            checkpoint_lsn: manifest.checkpoint_lsn,
            floor_lsn: manifest.floor_lsn,
            memtable_entries: self.memtable.count() + self.maintenance.frozen_count(),
            tables: manifest.tables.len(),
            wal_segments: self.wal.live.len(),
            wal_spares: self.wal.spares.len(),
            groups: self.counters.groups,
            entries: self.counters.entries,
            wal_bytes: self.counters.wal_bytes,
            syncs: self.counters.syncs,
            io_backend: info.name,
            sync_method: info.sync_method,
            direct_io: info.direct,
            recovery: self.recovery,
        }
    }
}

/// The reactor thread: turns until the log is closed or has failed.
pub(crate) fn run(mut core: Core) {
    loop {
        if let Err(cause) = core.turn() {
            core.fail(cause);
            return;
        }
        if core.is_closed() {
            return;
        }
        let timeout = core.next_wait();
        core.ops.poll(timeout);
    }
}

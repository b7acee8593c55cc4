//! What needs the log to itself: rotation, sync, mode change, the idle watermark, close.
//!
//! Each runs while no group is in flight, as one future over operations; none of them touches the core before it is
//! done. Crash points are between any two operations of each:
//!
//! - **Rotation**: [data sync of the old segment, in normal mode] → header of the new one, durable. The old segment is
//!   durable before the header that ends it can be read. A header without a group is an empty segment.
//! - **Sync**: data sync of the active segment.
//! - **Mode change**: an empty group that names the new mode, with a sync that covers the file. If it survives a cut
//!   without the entries before it, it lies behind a hole and is dead, so it cannot promise anything for them.
//! - **Idle watermark**: [data sync] → an empty group that carries the durable LSN, durable itself. The watermark is
//!   true when it is submitted.
//! - **Close**: [the manifest learns of the newest segment] → [data sync] → the marker. In two steps, because a marker that survived without the entries before it
//!   would prove them durable, and be taken for corruption.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::error::Result;
use crate::format::{FlushMode, Lsn};
use crate::io::{AlignedBuf, Durability};
use crate::reactor::ops::Ops;
use crate::reactor::segments::{self, Birth};
use crate::reactor::space::{is_full, until_space};
use crate::reactor::stage::{Pending, Reply, Request};
use crate::reactor::{Core, IDLE, OVERDUE};
use crate::wal::files::{Reusable, name_number};
use crate::wal::writer::{Active, Draft, seal};

type Step = Pin<Box<dyn Future<Output = Result<Option<Active>>>>>;

/// A section under way.
pub(super) struct Exclusive {
    kind: Kind,
    step: Step,
    /// Whom to answer when it is done.
    pub(super) asked_by: Option<Pending>,
}

/// What changes when the section is done.
enum Kind {
    /// Everything written is durable.
    Synced,
    /// The new segment is active; everything written is durable, and its header says so.
    Rotated,
    /// As `Synced`, and a durable empty group tells this watermark and this mode.
    Declared { watermark_lsn: Lsn, mode: FlushMode },
    /// As `Synced`, and the marker is durable.
    Closed,
}

impl Core {
    fn start_exclusive(
        &mut self,
        kind: Kind,
        asked_by: Option<Pending>,
        step: impl Future<Output = Result<Option<Active>>> + 'static,
    ) {
        assert!(self.in_flight.is_empty() && self.exclusive.is_none(), "an exclusive section is alone");
        self.exclusive = Some(Exclusive { kind, step: Box::pin(step), asked_by });
    }

    pub(super) fn poll_exclusive(&mut self) -> Result<()> {
        let Some(exclusive) = &mut self.exclusive else { return Ok(()) };
        let Poll::Ready(outcome) = exclusive.step.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            return Ok(());
        };
        let activated = outcome?;
        let Exclusive { kind, asked_by, .. } = self.exclusive.take().expect("it was polled just now");
        self.wal.books.synced();
        // Whoever asked may look at the durable LSN as soon as he is answered.
        self.shared.publish(self.wal.books.released_lsn, self.wal.books.durable_lsn);
        match kind {
            Kind::Synced => self.counters.syncs += 1,
            Kind::Rotated => {
                self.wal.active = activated;
                self.wal.books.watermark_lsn = self.wal.books.durable_lsn;
                self.note_segment(self.wal.books.released_lsn);
                let left = self.wal.active.as_ref().map_or(u64::MAX, Active::bytes_left);
                self.limit_next_group(left);
            }
            Kind::Declared { watermark_lsn, mode } => {
                self.wal.books.watermark_lsn = watermark_lsn;
                self.wal.books.normal_declared = mode == FlushMode::Normal;
                self.shared.set_mode(mode);
                self.counters.syncs += 1;
                self.note_segment(self.wal.books.released_lsn);
            }
            Kind::Closed => self.closed = true,
        }
        if let Some(pending) = asked_by {
            pending.answer(Ok(Reply::Done));
        }
        Ok(())
    }

    /// Carries the request at the barrier out, or begins to; nothing is in flight. `false`: it waits for a spare segment.
    pub(super) fn start_request(&mut self) -> bool {
        let Some(pending) = &self.barrier else { return true };
        match pending.request {
            Request::Stats => {
                let stats = Box::new(self.stats());
                self.answer_barrier(Reply::Stats(stats));
            }
            Request::Sync if self.wal.books.at_risk_entries == 0 => self.answer_barrier(Reply::Done),
            Request::Sync => {
                let asked_by = self.barrier.take();
                self.start_sync(asked_by);
            }
            Request::Vacuum(_) => self.take_vacuum(),
            Request::SetMode(mode) if mode == self.shared.mode() => self.answer_barrier(Reply::Done),
            Request::SetMode(mode) => return self.start_declaration(mode),
            Request::Close => self.start_close(),
        }
        true
    }

    fn answer_barrier(&mut self, reply: Reply) {
        if let Some(pending) = self.barrier.take() {
            pending.answer(Ok(reply));
        }
    }

    fn start_sync(&mut self, asked_by: Option<Pending>) {
        let ops = Rc::clone(&self.ops);
        let target = self.active_target();
        self.start_exclusive(Kind::Synced, asked_by, async move {
            if let Some((file, path)) = target {
                ops.sync_data((file, &path)).await?;
            }
            Ok(None)
        });
    }

    fn active_target(&self) -> Option<(crate::io::FileId, String)> {
        self.wal.active.as_ref().map(|active| (active.file, active.path.clone()))
    }

    /// A mode that nothing on disk contradicts needs no declaration: this epoch has said nothing yet.
    fn start_declaration(&mut self, mode: FlushMode) -> bool {
        if !self.wal.epoch_has_groups {
            self.shared.set_mode(mode);
            self.answer_barrier(Reply::Done);
            return true;
        }
        if !self.empty_group_fits() {
            // The barrier stays: the declaration follows in the next segment.
            return self.start_rotation();
        }
        let asked_by = self.barrier.take();
        let watermark_lsn = self.wal.books.durable_lsn;
        let step = self.empty_group(mode, watermark_lsn, false, Durability::File, false);
        self.start_exclusive(Kind::Declared { watermark_lsn, mode }, asked_by, step);
        true
    }

    fn start_close(&mut self) {
        let asked_by = self.barrier.take();
        if !self.wal.epoch_has_groups {
            self.closed = true;
            if let Some(pending) = asked_by {
                pending.answer(Ok(Reply::Done));
            }
            return;
        }
        let at_risk = self.wal.books.at_risk_entries > 0;
        let step = self.empty_group(self.shared.mode(), self.wal.books.released_lsn, true, Durability::Own, at_risk);
        let newest = self.wal.active.as_ref().map_or(0, |active| active.segment);
        let manifest = Rc::clone(&self.manifest);
        self.start_exclusive(Kind::Closed, asked_by, async move {
            if manifest.current().newest_segment < newest {
                match manifest.edit(|manifest| manifest.newest_segment = newest).await {
                    // A full disk keeps nobody from closing; what is not told only cannot be missed.
                    Err(cause) if is_full(&cause) => {}
                    edited => edited?,
                }
            }
            step.await
        });
    }

    fn empty_group_fits(&self) -> bool {
        let draft = Draft::empty(Lsn(1), Lsn::ZERO, FlushMode::Cautious);
        self.wal.active.as_ref().is_some_and(|active| active.fits(draft.padded_bytes(active.epoch_start.as_ref())))
    }

    /// Writes a group without entries at the next place, after a data sync if `sync_first`.
    fn empty_group(
        &mut self,
        mode: FlushMode,
        durable_lsn: Lsn,
        clean_close: bool,
        durability: Durability,
        sync_first: bool,
    ) -> impl Future<Output = Result<Option<Active>>> + 'static {
        let active = self.wal.active.as_mut().expect("an epoch with groups has an active segment");
        let next_lsn = self.shared.open_first_lsn();
        let draft = Draft { clean_close, ..Draft::empty(next_lsn, durable_lsn, mode) };
        let mut buf = AlignedBuf::zeroed(1);
        let (file, path, offset) = (active.file, active.path.clone(), active.offset);
        let len = seal(&mut buf, self.wal.store, active, &draft);
        let ops: Rc<Ops> = Rc::clone(&self.ops);
        async move {
            if sync_first {
                ops.sync_data((file, &path)).await?;
            }
            ops.write((file, &path), offset, buf, len, durability).await?;
            Ok(None)
        }
    }

    /// What the clock demands: the sync of normal mode, the watermark of an idle log. Returns whether the log must be
    /// left alone for it.
    pub(super) fn start_timed(&mut self) -> bool {
        let now_ns = self.now_ns();
        if self.next_deadline().is_none_or(|deadline| now_ns < deadline) {
            return false;
        }
        if !self.in_flight.is_empty() {
            return true;
        }
        let books = &self.wal.books;
        let idle = self.is_idle_watermark_due(now_ns);
        if idle && self.empty_group_fits() {
            let (mode, sync_first) = (self.shared.mode(), books.at_risk_entries > 0);
            let watermark_lsn = books.released_lsn;
            let step = self.empty_group(mode, watermark_lsn, false, Durability::Own, sync_first);
            self.start_exclusive(Kind::Declared { watermark_lsn, mode }, None, step);
            return true;
        }
        self.start_overdue_sync() || (idle && self.start_rotation())
    }

    /// Starts the sync of normal mode if it is due. Nothing is in flight.
    pub(super) fn start_overdue_sync(&mut self) -> bool {
        let is_due = self.overdue_deadline().is_some_and(|deadline| deadline <= self.now_ns());
        if is_due {
            self.start_sync(None);
        }
        is_due
    }

    /// When the oldest entry at risk must be synced, in monotonic nanoseconds.
    pub(super) fn overdue_deadline(&self) -> Option<u64> {
        self.wal.books.at_risk_since_ns.map(|since| since + OVERDUE.as_nanos() as u64)
    }

    fn is_idle_watermark_due(&self, now_ns: u64) -> bool {
        let books = &self.wal.books;
        books.watermark_lsn < books.released_lsn
            && self.wal.active.is_some()
            && now_ns >= books.last_group_ns + IDLE.as_nanos() as u64
            && self.shared.open().is_none()
    }

    /// When [`Core::start_timed`] has something to do, in monotonic nanoseconds.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let books = &self.wal.books;
        let idle = (books.watermark_lsn < books.released_lsn && self.wal.active.is_some() && self.can_rotate_or_fits())
            .then_some(books.last_group_ns + IDLE.as_nanos() as u64);
        self.overdue_deadline().into_iter().chain(idle.filter(|_| self.shared.open().is_none())).min()
    }

    fn can_rotate_or_fits(&self) -> bool {
        self.empty_group_fits() || self.has_file_for_rotation()
    }

    /// One prepared file is kept for recovery, unless the log has no segment at all yet.
    fn has_file_for_rotation(&self) -> bool {
        self.wal.active.is_none() || self.wal.spares.len() > 1
    }

    /// Begins a new segment: the next of this epoch, or the first. `false`: there is no prepared file yet.
    pub(super) fn start_rotation(&mut self) -> bool {
        self.discard_linked_spares();
        if !self.has_file_for_rotation() {
            self.urgent.set(true);
            return false;
        }
        let (segment, file) = match self.wal.next_birth.takes_over.take() {
            Some((segment, file)) => (segment, Some(file)),
            None => self.take_spare(),
        };
        let books = &self.wal.books;
        let (prev_end, gap) = match &self.wal.active {
            Some(active) => (active.end(books.released_lsn), None),
            None => (self.wal.next_birth.prev_end, self.wal.next_birth.gap),
        };
        let birth = Birth {
            store: self.wal.store,
            segment,
            epoch: self.wal.epoch,
            salt: segments::new_salt(&self.ops),
            manifest_generation: self.manifest.current().generation,
            durable_lsn: books.released_lsn,
            prev_end,
            gap,
            flush_mode: if books.normal_declared { FlushMode::Normal } else { FlushMode::Cautious },
            written_by: self.wal.written_by,
        };
        let sync_first = self.active_target().filter(|_| books.at_risk_entries > 0);
        let old = self.active_target();
        let ops = Rc::clone(&self.ops);
        let segment_bytes = self.options.segment_bytes;
        let urgent = Rc::clone(&self.urgent);
        self.start_exclusive(Kind::Rotated, None, async move {
            if let Some((file, path)) = sync_first {
                ops.sync_data((file, &path)).await?;
            }
            urgent.set(true);
            let file = match file {
                Some(file) => file,
                None => {
                    let prepare = async || segments::prepare(&ops, birth.store, segment, segment_bytes, &urgent).await;
                    until_space(&ops, prepare).await?
                }
            };
            urgent.set(false);
            let active = segments::open(&ops, &file, &birth).await?;
            segments::write_header(&ops, &active, &birth).await?;
            if let Some((file, _)) = old {
                ops.close(file).await;
            }
            Ok(Some(active))
        });
        true
    }

    /// The spare with the lowest name, and the number of the segment it becomes: the one in its name where that rises.
    fn take_spare(&mut self) -> (u64, Option<Reusable>) {
        let released = self.manifest.current().first_segment - 1;
        let newest = self.wal.live.last().map_or(released, |live| live.segment);
        let Some(spare) = self.wal.spares.pop_front() else { return (self.wal.next_number(), None) };
        let name = spare.path.rsplit('/').next().unwrap_or_default();
        let number = name_number(name, ".wal").filter(|&number| number > newest);
        (number.unwrap_or_else(|| self.wal.next_number()), Some(spare))
    }
}

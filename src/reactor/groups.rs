//! Submitting groups and releasing them, in order.

use std::io;

use crate::error::{Error, Result};
use crate::format::entry::OVERHEAD_BYTES;
use crate::format::facts;
use crate::format::group::HEADER_BYTES;
use crate::format::record::Record;
use crate::format::{FlushMode, Lsn};
use crate::io::{AlignedBuf, Durability, Op};
use crate::planted::{Bug, planted};
use crate::reactor::commit::{View, decide};
use crate::reactor::ops::OpFuture;
use crate::reactor::stage::{GROUP_BUFFER_BYTES, OVERLAP_BYTES_MIN, OpenGroup, StagedGroup};
use crate::reactor::{Core, LiveSegment};
use crate::wal::writer::{Active, Draft, seal};

/// A group handed to the backend.
pub(super) struct InFlight {
    future: OpFuture,
    path: String,
    pub(super) seq: u64,
    batches: usize,
    /// When its first batch was staged, and when it was handed over.
    pub(super) since_ns: u64,
    submitted_ns: u64,
    first_lsn: Lsn,
    entry_count: u32,
    entries_bytes: usize,
    records: Vec<Record>,
    durability: Durability,
    mode: FlushMode,
    /// The watermark that it carries.
    durable_lsn: Lsn,
    padded_bytes: u64,
}

impl InFlight {
    /// Of its last entry, or of the one before it where it has none.
    pub(super) fn last_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + u64::from(self.entry_count) - 1)
    }
}

/// Smallest room for a group in a segment that is worth filling before rotation; in a small segment, a quarter of it.
const REMAINDER_BYTES_MIN: u64 = 64 << 10;

impl Core {
    /// Submits the open group if the policy says so and there is a place for it; starts a rotation if that is what it
    /// takes. Returns whether it is worth calling again.
    pub(super) fn submit_group(&mut self) -> bool {
        let Some(open) = self.shared.open() else { return false };
        self.blocked = true;
        // What is confirmed is not held back: it would be at risk for as long as the tables have no room.
        if self.is_stalled() && !open.has_confirmed {
            self.ops.hurry();
            return false;
        }
        let unsynced = || self.in_flight.iter().filter(|group| group.durability == Durability::None);
        let mode = self.shared.mode();
        let view = View {
            mode,
            in_flight: self.in_flight.len(),
            open_bytes: open.bytes,
            open_entries: open.entries,
            at_risk_entries: self.wal.books.at_risk_entries + unsynced().map(|g| u64::from(g.entry_count)).sum::<u64>(),
            at_risk_bytes: self.wal.books.at_risk_bytes + unsynced().map(|group| group.padded_bytes).sum::<u64>(),
            normal_declared: self.wal.books.normal_declared,
        };
        let Some(durability) = decide(&view) else {
            self.blocked = open.bytes >= OVERLAP_BYTES_MIN;
            return false;
        };
        let fits = |bytes: usize| {
            let draft = Draft { entries_bytes: bytes, ..Draft::empty(Lsn(1), Lsn::ZERO, mode) };
            let fits = |active: &Active| active.fits(draft.padded_bytes(active.epoch_start.as_ref()));
            self.wal.active.as_ref().is_some_and(fits)
        };
        if !fits(open.bytes) {
            // A rotation that began goes on at once in the caller's loop.
            return self.in_flight.is_empty() && self.start_rotation();
        }
        if !self.has_reserve() {
            self.urgent.set(true);
            return false;
        }
        let Some(spare) = self.buffers.pop() else { return false };
        // What arrived since the group was looked at may need a sync, or the next segment.
        let is_right = |open: OpenGroup| {
            let view = View { open_bytes: open.bytes, open_entries: open.entries, ..view };
            decide(&view) == Some(durability) && fits(open.bytes)
        };
        let group = match self.shared.take_group(spare, is_right) {
            Ok(group) => group,
            Err(spare) => {
                self.buffers.push(spare);
                return true;
            }
        };
        self.write_group(group, durability, mode);
        self.blocked = false;
        true
    }

    fn write_group(&mut self, group: StagedGroup, durability: Durability, mode: FlushMode) {
        let StagedGroup { seq, mut buf, entries_bytes, entry_count, first_lsn, records, batches, since_ns } = group;
        let active = self.wal.active.as_mut().expect("the caller found a place in it");
        let durable_lsn = self.wal.books.durable_lsn;
        let draft = Draft {
            first_lsn,
            entry_count,
            entries_bytes,
            records: &records,
            flush_mode: mode,
            durable_lsn,
            clean_close: false,
        };
        let offset = active.offset;
        let len = seal(&mut buf, self.wal.store, active, &draft);
        let left = active.bytes_left();
        let (file, path) = (active.file, active.path.clone());
        let first = if planted(Bug::ConfirmBeforeSync) { Durability::None } else { durability };
        let submitted_ns = self.now_ns();
        let future = self.ops.submit(Op::Write { file, offset, buf, len, durability: first });
        self.wal.epoch_has_groups = true;
        self.limit_next_group(left);
        self.in_flight.push_back(InFlight {
            future,
            path,
            seq,
            batches,
            since_ns,
            submitted_ns,
            first_lsn,
            entry_count,
            entries_bytes,
            records,
            durability,
            mode,
            durable_lsn,
            padded_bytes: len as u64,
        });
    }

    /// Keeps the open group from outgrowing what is left of the segment, and small segments from being one group each.
    pub(super) fn limit_next_group(&self, bytes_left: u64) {
        let left = if self.is_worth_filling(bytes_left) { bytes_left } else { u64::MAX };
        let limit = left.min(self.options.segment_bytes / 4).min(GROUP_BUFFER_BYTES as u64);
        self.shared.limit_group((limit as usize).saturating_sub(HEADER_BYTES));
    }

    /// Whether the next group is kept to what is left of the segment, rather than begin another one.
    pub(super) fn is_worth_filling(&self, bytes_left: u64) -> bool {
        bytes_left >= REMAINDER_BYTES_MIN.min(self.options.segment_bytes / 4)
    }

    /// Releases the groups that are complete, in order, and keeps the books.
    pub(super) fn release_groups(&mut self) -> Result<()> {
        while let Some(group) = self.in_flight.front_mut() {
            let Some((outcome, buf)) = group.future.try_take() else { return Ok(()) };
            let group = self.in_flight.pop_front().expect("there is a front");
            outcome.map_err(|cause| write_failed(&group.path, cause))?;
            self.release_group(group, buf.expect("a write hands its buffer back"));
        }
        Ok(())
    }

    fn release_group(&mut self, group: InFlight, buf: AlignedBuf) {
        let now_ns = self.now_ns();
        let last_lsn = group.last_lsn();
        let books = &mut self.wal.books;
        books.released_lsn = last_lsn;
        books.last_group_ns = now_ns;
        match group.durability {
            Durability::None => books.unsynced(u64::from(group.entry_count), group.padded_bytes, group.since_ns),
            Durability::Own | Durability::File => {
                books.synced();
                books.normal_declared = group.mode == FlushMode::Normal;
                books.watermark_lsn = group.durable_lsn;
                self.counters.syncs += 1;
                self.shared.gauges.synced(now_ns.saturating_sub(group.submitted_ns));
            }
        }
        assert!(books.durable_lsn <= books.released_lsn);
        assert!(
            group.mode == FlushMode::Normal || books.durable_lsn == books.released_lsn,
            "confirmed implies durable"
        );
        self.publish();
        self.shared.release(group.seq, group.batches);
        if planted(Bug::ConfirmBeforeSync)
            && group.durability != Durability::None
            && let Some(active) = &self.wal.active
        {
            drop(self.ops.submit(Op::SyncData { file: active.file }));
        }
        self.released_seq = group.seq;
        self.counters.groups += 1;
        self.counters.entries += u64::from(group.entry_count);
        self.counters.payload_bytes += (group.entries_bytes - group.entry_count as usize * OVERHEAD_BYTES) as u64;
        self.counters.wal_bytes += group.padded_bytes;
        self.note_segment(last_lsn);
        let entries = &buf[HEADER_BYTES..HEADER_BYTES + group.entries_bytes];
        self.memtable.push_entries(entries, u64::from(group.entry_count), group.first_lsn, last_lsn);
        for record in group.records {
            match record {
                Record::Checkpoint { key, value } => facts::apply(&mut self.checkpoints, key, value),
                Record::ClockStep(step) => self.clock_steps.push(step),
                Record::EpochStart { .. } => {}
            }
        }
        if buf.len() == GROUP_BUFFER_BYTES {
            self.buffers.push(buf);
        } else {
            self.buffers.push(AlignedBuf::zeroed(GROUP_BUFFER_BYTES));
        }
    }

    /// Remembers how far the active segment reaches.
    pub(super) fn note_segment(&mut self, last_lsn: Lsn) {
        let active = self.wal.active.as_ref().expect("something was written to it");
        match self.wal.live.last_mut() {
            Some(last) if last.segment == active.segment => last.last_lsn = last_lsn,
            _ => self.wal.live.push(LiveSegment {
                segment: active.segment,
                path: active.path.clone(),
                last_lsn,
                bytes: active.segment_bytes,
            }),
        }
    }
}

/// The error of a group's write or sync.
pub(super) fn write_failed(path: &str, cause: io::Error) -> Error {
    Error::io("write durably to", path, cause)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::batch::Batch;
    use crate::reactor::stage::{Shared, Start};
    use crate::sim::SimDisk;

    #[test]
    fn a_group_that_grew_since_it_was_looked_at_is_looked_at_again() {
        let start = Start { next_lsn: Lsn(1), last_timestamp_ns: 0, mode: FlushMode::Normal, batches_max: 9 };
        let shared = Shared::new(&start, Arc::new(SimDisk::new(1).env()), Arc::new(|| {}));
        let mut batch = Batch::new();
        batch.push(b"an entry").expect("it fits");
        shared.submit(&batch, true).expect("it is accepted");
        let seen = shared.open().expect("there is an entry");
        shared.submit(&batch, true).expect("it is accepted");

        let as_seen = |open: OpenGroup| open == seen;
        let spare =
            shared.take_group(AlignedBuf::zeroed(GROUP_BUFFER_BYTES), as_seen).err().expect("it has two by now");
        let group = shared.take_group(spare, |open| open.entries == 2).expect("it has two");
        assert_eq!((group.seq, group.entry_count, group.first_lsn), (1, 2, Lsn(1)));
        assert!(shared.open().is_none(), "nothing is left of it");
    }
}

//! The open group: what producers lay down, in LSN order, until the reactor takes it away.
//!
//! Its owner holds the lock while it calls anything here.
//!
//! Proof: the tests of `engine` and of `reactor`.

use std::collections::VecDeque;

use super::{GROUP_BUFFER_BYTES, Pending, Start};
use crate::batch::{Batch, LsnRange};
use crate::format::Lsn;
use crate::format::group::HEADER_BYTES;
use crate::format::record::Record;
use crate::io::AlignedBuf;
use crate::reactor::clock::Stamper;

pub(super) struct Stage {
    pub(super) buf: AlignedBuf,
    pub(super) entries_bytes: usize,
    pub(super) entry_count: u32,
    pub(super) records: Vec<Record>,
    pub(super) records_bytes: usize,
    pub(super) batches: usize,
    pub(super) seq: u64,
    pub(super) since_ns: u64,
    pub(super) first_lsn: Lsn,
    pub(super) next_lsn: Lsn,
    pub(super) stamper: Stamper,
    /// Most bytes of entries and records of the open group, unless one batch alone needs more.
    pub(super) body_bytes_max: usize,
    /// Batches staged and not released.
    pub(super) batches_outstanding: usize,
    pub(super) requests: VecDeque<Pending>,
    pub(super) closing: bool,
    /// The reactor sleeps, and wants to be woken when the open group has this many bytes, or by a request.
    pub(super) wake_at: Option<usize>,
    /// Producers waiting for room.
    pub(super) waiting: usize,
}

impl Stage {
    pub(super) fn new(start: &Start) -> Stage {
        Stage {
            buf: AlignedBuf::zeroed(GROUP_BUFFER_BYTES),
            entries_bytes: 0,
            entry_count: 0,
            records: Vec::new(),
            records_bytes: 0,
            batches: 0,
            seq: 1,
            since_ns: 0,
            first_lsn: start.next_lsn,
            next_lsn: start.next_lsn,
            stamper: Stamper::new(start.last_timestamp_ns),
            body_bytes_max: GROUP_BUFFER_BYTES - HEADER_BYTES,
            batches_outstanding: 0,
            requests: VecDeque::new(),
            closing: false,
            wake_at: None,
            waiting: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entry_count == 0 && self.records.is_empty()
    }

    pub(super) fn body_bytes(&self) -> usize {
        self.entries_bytes + self.records_bytes
    }

    pub(super) fn has_room(&self, batch: &Batch) -> bool {
        self.is_empty() || self.is_within_limit(batch)
    }

    pub(super) fn is_within_limit(&self, batch: &Batch) -> bool {
        // A clock step may come with any batch.
        let slack = Record::ClockStep(Default::default()).encoded_bytes();
        self.body_bytes() + batch.staged_bytes() + slack <= self.body_bytes_max
    }

    pub(super) fn push(&mut self, batch: &Batch, wall_ns: u64, mono_ns: u64) -> LsnRange {
        let count = batch.len() as u64;
        let first = self.next_lsn;
        if self.is_empty() {
            self.since_ns = mono_ns;
        }
        let (timestamp_ns, step) = self.stamper.stamp(count, first, wall_ns, mono_ns);
        let at = HEADER_BYTES + self.entries_bytes;
        batch.stage(&mut self.buf[at..], first, timestamp_ns);
        self.entries_bytes += batch.bytes();
        self.entry_count += batch.len() as u32;
        for record in step.map(Record::ClockStep).into_iter().chain(batch.staged_records(first)) {
            self.records_bytes += record.encoded_bytes();
            self.records.push(record);
        }
        self.batches += 1;
        self.batches_outstanding += 1;
        self.next_lsn = Lsn(first.0 + count);
        LsnRange { first, last: self.next_lsn.prev() }
    }
}

//! Binds a staged group to its place in the log, and keeps the books on what is durable.
//!
//! # What a sync covers
//! `durable_lsn` and the count of entries at risk move by one rule alone. A sync covers the writes whose completion was
//! seen before its chain was submitted, plus the write it is linked to:
//! - a group with [`Durability::Own`](crate::io::Durability::Own) covers itself; it makes everything up to it durable only because groups are
//!   released in order, each durable by itself;
//! - a group with [`Durability::File`](crate::io::Durability::File), and a data sync, are submitted only while no other write to the log is in flight,
//!   and cover all that is written.
//!
//! In normal mode at most [`AT_RISK_ENTRIES_MAX`] entries are confirmed ahead of durable, and at most
//! [`AT_RISK_BYTES_MAX`] bytes, which bounds what recovery has to write anew.
//!
//! Proof: `tests` of `reactor::commit`, and the crash campaign in `sim`.

use crate::format::entry::{self, Seed};
use crate::format::group::{GroupHeader, HEADER_BYTES};
use crate::format::record::{LogEnd, Record};
use crate::format::{BLOCK_BYTES, FlushMode, Lsn, StoreId, block_ceil};
use crate::io::{AlignedBuf, FileId};

/// Most entries that normal mode confirms ahead of durable.
pub(crate) const AT_RISK_ENTRIES_MAX: u64 = 49;
/// Most bytes of groups that normal mode leaves unsynced.
pub(crate) const AT_RISK_BYTES_MAX: u64 = 1 << 20;

/// The segment being written, and where its next group goes.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    pub(crate) file: FileId,
    pub(crate) path: String,
    pub(crate) segment: u64,
    pub(crate) salt: u64,
    pub(crate) epoch: u64,
    pub(crate) offset: u64,
    /// Length of the prepared file. A group that does not fit into an empty segment extends it.
    pub(crate) segment_bytes: u64,
    /// Rides in the first group of an epoch that goes on in the same segment.
    pub(crate) epoch_start: Option<Record>,
}

impl Active {
    /// Whether a group of `padded_bytes` belongs into this segment. The last block is kept for the marker of a clean
    /// close; a group that does not fit into an empty segment extends it.
    pub(crate) fn fits(&self, padded_bytes: u64) -> bool {
        self.offset + padded_bytes <= self.segment_bytes - BLOCK_BYTES as u64 || self.offset == BLOCK_BYTES as u64
    }

    /// Bytes left for groups.
    pub(crate) fn bytes_left(&self) -> u64 {
        (self.segment_bytes - BLOCK_BYTES as u64).saturating_sub(self.offset)
    }

    /// Where the log ends now: what the next segment's header links to.
    pub(crate) fn end(&self, last_lsn: Lsn) -> LogEnd {
        match self.epoch_start {
            Some(Record::EpochStart { prev_end, .. }) => prev_end,
            _ => LogEnd { segment: self.segment, salt: self.salt, offset: self.offset, last_lsn },
        }
    }
}

/// What a group says, apart from its place.
pub(crate) struct Draft<'a> {
    pub(crate) first_lsn: Lsn,
    pub(crate) entry_count: u32,
    pub(crate) entries_bytes: usize,
    pub(crate) records: &'a [Record],
    pub(crate) flush_mode: FlushMode,
    pub(crate) durable_lsn: Lsn,
    pub(crate) clean_close: bool,
}

impl<'a> Draft<'a> {
    /// A group without entries: a marker, a watermark, a declaration.
    pub(crate) fn empty(next_lsn: Lsn, durable_lsn: Lsn, flush_mode: FlushMode) -> Draft<'a> {
        Draft {
            first_lsn: next_lsn,
            entry_count: 0,
            entries_bytes: 0,
            records: &[],
            flush_mode,
            durable_lsn,
            clean_close: false,
        }
    }

    /// Bytes the group takes in the file.
    pub(crate) fn padded_bytes(&self, epoch_start: Option<&Record>) -> u64 {
        let records: usize = epoch_start.into_iter().chain(self.records).map(Record::encoded_bytes).sum();
        block_ceil((HEADER_BYTES + self.entries_bytes + records) as u64)
    }
}

/// Completes the group in `buf`, whose staged entries lie behind the header, for the next place of `active`, and moves
/// that place on; returns the padded length. Grows `buf` if the records need it.
pub(crate) fn seal(buf: &mut AlignedBuf, store: StoreId, active: &mut Active, draft: &Draft<'_>) -> usize {
    let epoch_start = active.epoch_start.take();
    let padded_bytes = draft.padded_bytes(epoch_start.as_ref()) as usize;
    if padded_bytes > buf.len() {
        let mut larger = AlignedBuf::zeroed(padded_bytes);
        larger[..buf.len()].copy_from_slice(buf);
        *buf = larger;
    }
    let seed = |at: usize| Seed { salt: active.salt, offset: active.offset + at as u64 };
    let mut at = HEADER_BYTES;
    for _ in 0..draft.entry_count {
        at += entry::seal(&mut buf[at..], seed(at));
    }
    assert_eq!(at, HEADER_BYTES + draft.entries_bytes, "the staged entries fill their space");
    let mut record_count = 0;
    for record in epoch_start.iter().chain(draft.records) {
        at += record.encode(&mut buf[at..], seed(at));
        record_count += 1;
    }
    buf[at..padded_bytes].fill(0);
    let header = GroupHeader {
        salt: active.salt,
        segment: active.segment,
        offset: active.offset,
        epoch: active.epoch,
        first_lsn: draft.first_lsn,
        durable_lsn: draft.durable_lsn,
        entry_count: draft.entry_count,
        record_count,
        entries_bytes: draft.entries_bytes as u32,
        records_bytes: (at - HEADER_BYTES - draft.entries_bytes) as u32,
        flush_mode: draft.flush_mode,
        clean_close: draft.clean_close,
        epoch_start: epoch_start.is_some(),
    };
    header.encode(store, buf);
    active.offset += padded_bytes as u64;
    padded_bytes
}

/// What is written, durable and at risk; see the module's page.
#[derive(Clone, Debug)]
pub(crate) struct Books {
    /// Last LSN of the groups that were released.
    pub(crate) released_lsn: Lsn,
    pub(crate) durable_lsn: Lsn,
    /// Highest durable LSN that something durable on disk tells of.
    pub(crate) watermark_lsn: Lsn,
    /// Entries written and not durable.
    pub(crate) at_risk_entries: u64,
    pub(crate) at_risk_bytes: u64,
    /// When the oldest of them was released, monotonic nanoseconds.
    pub(crate) at_risk_since_ns: Option<u64>,
    /// A durable group of this epoch says `normal`, and no later one says otherwise.
    pub(crate) normal_declared: bool,
    /// When the last group with entries was released, monotonic nanoseconds.
    pub(crate) last_group_ns: u64,
}

impl Books {
    /// Everything up to `lsn` is durable, and something on disk says so.
    pub(crate) fn new(lsn: Lsn) -> Books {
        Books {
            released_lsn: lsn,
            durable_lsn: lsn,
            watermark_lsn: lsn,
            at_risk_entries: 0,
            at_risk_bytes: 0,
            at_risk_since_ns: None,
            normal_declared: false,
            last_group_ns: 0,
        }
    }

    /// Everything written is durable.
    pub(crate) fn synced(&mut self) {
        self.durable_lsn = self.released_lsn;
        (self.at_risk_entries, self.at_risk_bytes, self.at_risk_since_ns) = (0, 0, None);
    }

    /// What is at risk is to be synced now rather than within its second.
    pub(crate) fn demand_sync(&mut self) {
        self.at_risk_since_ns = self.at_risk_since_ns.map(|_| 0);
    }

    /// A write was released without a sync.
    pub(crate) fn unsynced(&mut self, entries: u64, bytes: u64, now_ns: u64) {
        self.at_risk_entries += entries;
        self.at_risk_bytes += bytes;
        self.at_risk_since_ns.get_or_insert(now_ns);
        assert!(
            self.at_risk_entries <= AT_RISK_ENTRIES_MAX,
            "normal mode confirms at most 49 entries ahead of durable"
        );
    }
}

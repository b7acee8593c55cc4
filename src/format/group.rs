//! The header of a group: the unit of write, of sync and of replay.
//!
//! A group starts on a block boundary, is padded with zeros to one, and holds entries followed by records
//! ([`super::record`]); either may be absent. The padding is nobody's data: no checksum covers it, no reader looks at it.
//!
//! | offset | size | field | rule |
//! |---|---|---|---|
//! | 0 | 4 | magic | `KGRP` |
//! | 4 | 4 | header CRC | over store id and bytes 8..[`HEADER_BYTES`] |
//! | 8 | 8 | salt | of the run it belongs to |
//! | 16 | 8 | segment number | of the file it lies in; 1 to [`NUMBER_MAX`](super::NUMBER_MAX) |
//! | 24 | 8 | offset | its own, in bytes from the start of the file; a multiple of [`BLOCK_BYTES`], not 0; the padded group ends within [`SEGMENT_BYTES_MAX`] |
//! | 32 | 8 | epoch | 1 to [`NUMBER_MAX`](super::NUMBER_MAX) |
//! | 40 | 8 | first LSN | of its first entry; of the next entry to come where it holds none; 1 to [`NUMBER_MAX`](super::NUMBER_MAX) |
//! | 48 | 8 | durable LSN | the highest LSN known durable when this group was submitted; below the first LSN |
//! | 56 | 4 | entry count | |
//! | 60 | 4 | record count | |
//! | 64 | 4 | entries length | bytes of all entries; what so many entries can take |
//! | 68 | 4 | records length | bytes of all records; what so many records can take; at most [`GROUP_BODY_BYTES_MAX`] with the entries |
//! | 72 | 1 | flush mode | in force when it was submitted: 1 normal, 2 cautious, 3 emergency |
//! | 73 | 1 | flags | bit 0 clean close, bit 1 epoch start; the others 0 |
//! | 74 | 6 | reserved | 0 |
//!
//! A group is valid if and only if its header CRC and fields hold, salt, segment number and offset are those of the
//! place it was found in, and each of its entries and records is valid, with LSNs that rise by one from the first.
//! A **run** is a maximal sequence of groups of one epoch in one segment; it has one salt. The group's header alone is
//! enough to prove what it says of others (its durable LSN): the CRC covers it.

use super::bytes::{Get, Put, check_number, crc32};
use super::{
    BLOCK_BYTES, ENTRY_PAYLOAD_BYTES_MAX, FlushMode, FormatError, GROUP_BODY_BYTES_MAX, Lsn, SEGMENT_BYTES_MAX,
    StoreId, block_ceil, entry, record,
};

const MAGIC: [u8; 4] = *b"KGRP";
/// Bytes of an encoded header.
pub(crate) const HEADER_BYTES: usize = 80;
const FLAG_CLEAN_CLOSE: u8 = 1;
const FLAG_EPOCH_START: u8 = 2;

/// See the layout table of this module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GroupHeader {
    pub(crate) salt: u64,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) epoch: u64,
    pub(crate) first_lsn: Lsn,
    pub(crate) durable_lsn: Lsn,
    pub(crate) entry_count: u32,
    pub(crate) record_count: u32,
    pub(crate) entries_bytes: u32,
    pub(crate) records_bytes: u32,
    pub(crate) flush_mode: FlushMode,
    pub(crate) clean_close: bool,
    pub(crate) epoch_start: bool,
}

impl GroupHeader {
    /// Bytes of header and body, without padding.
    pub(crate) fn unpadded_bytes(&self) -> usize {
        HEADER_BYTES + self.entries_bytes as usize + self.records_bytes as usize
    }

    /// Bytes the group takes in the file.
    pub(crate) fn padded_bytes(&self) -> u64 {
        block_ceil(self.unpadded_bytes() as u64)
    }

    /// LSN of the last entry; the one before `first_lsn` where it holds none.
    pub(crate) fn last_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + u64::from(self.entry_count) - 1)
    }

    /// Whether every field obeys its rule, alone and beside the others.
    fn check(&self) -> Result<(), FormatError> {
        check_number(self.segment, 1, "segment number")?;
        check_number(self.epoch, 1, "epoch")?;
        check_number(self.first_lsn.0, 1, "first LSN")?;
        if self.durable_lsn >= self.first_lsn {
            return Err(FormatError::Field("durable LSN"));
        }
        let fits = |count: u32, bytes: u32, each_min: usize, each_max: usize| {
            let count = u64::from(count);
            (count * each_min as u64..=count * each_max as u64).contains(&u64::from(bytes))
        };
        let entry_bytes_max = entry::OVERHEAD_BYTES + ENTRY_PAYLOAD_BYTES_MAX;
        if !fits(self.entry_count, self.entries_bytes, entry::OVERHEAD_BYTES, entry_bytes_max) {
            return Err(FormatError::Field("entries length"));
        }
        let record_bytes_max = record::HEADER_BYTES + record::BODY_BYTES_MAX;
        if !fits(self.record_count, self.records_bytes, record::HEADER_BYTES, record_bytes_max) {
            return Err(FormatError::Field("records length"));
        }
        if u64::from(self.entries_bytes) + u64::from(self.records_bytes) > GROUP_BODY_BYTES_MAX as u64 {
            return Err(FormatError::Field("body length"));
        }
        let aligned = self.offset != 0 && self.offset.is_multiple_of(BLOCK_BYTES as u64);
        if !aligned || self.offset > SEGMENT_BYTES_MAX - self.padded_bytes() {
            return Err(FormatError::Field("offset"));
        }
        Ok(())
    }

    /// Writes the header to the first [`HEADER_BYTES`] bytes of `out`.
    ///
    /// # Panics
    /// If a field breaks its rule: a group that recovery would refuse must never be confirmed.
    pub(crate) fn encode(&self, store: StoreId, out: &mut [u8]) {
        assert_eq!(self.check(), Ok(()));
        let out = &mut out[..HEADER_BYTES];
        out.fill(0);
        let flags = u8::from(self.clean_close) * FLAG_CLEAN_CLOSE + u8::from(self.epoch_start) * FLAG_EPOCH_START;
        Put::new(out)
            .bytes(&MAGIC)
            .u32(0)
            .u64(self.salt)
            .u64(self.segment)
            .u64(self.offset)
            .u64(self.epoch)
            .u64(self.first_lsn.0)
            .u64(self.durable_lsn.0)
            .u32(self.entry_count)
            .u32(self.record_count)
            .u32(self.entries_bytes)
            .u32(self.records_bytes)
            .u8(self.flush_mode as u8)
            .u8(flags);
        let crc = crc32(&[&store.0, &out[8..]]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Decodes and checks a header; whether it belongs where it was found is the caller's to compare.
    pub(crate) fn decode(bytes: &[u8], store: StoreId) -> Result<GroupHeader, FormatError> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(FormatError::Truncated)?;
        let mut get = Get(bytes);
        if get.array::<4>()? != MAGIC {
            return Err(FormatError::Magic);
        }
        if get.u32()? != crc32(&[&store.0, &bytes[8..]]) {
            return Err(FormatError::Checksum("group header"));
        }
        let mut header = GroupHeader {
            salt: get.u64()?,
            segment: get.u64()?,
            offset: get.u64()?,
            epoch: get.u64()?,
            first_lsn: Lsn(get.u64()?),
            durable_lsn: Lsn(get.u64()?),
            entry_count: get.u32()?,
            record_count: get.u32()?,
            entries_bytes: get.u32()?,
            records_bytes: get.u32()?,
            flush_mode: FlushMode::from_u8(get.u8()?).ok_or(FormatError::Field("flush mode"))?,
            clean_close: false,
            epoch_start: false,
        };
        let flags = get.u8()?;
        header.clean_close = flags & FLAG_CLEAN_CLOSE != 0;
        header.epoch_start = flags & FLAG_EPOCH_START != 0;
        if flags & !(FLAG_CLEAN_CLOSE | FLAG_EPOCH_START) != 0 || get.array::<6>()? != [0; 6] {
            return Err(FormatError::Field("flags"));
        }
        header.check().map(|()| header)
    }
}

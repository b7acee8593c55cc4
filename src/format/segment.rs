//! The header of a write-ahead-log segment: the first 512-byte sector of the file, in a block of its own.
//!
//! One sector, because a sector is the unit that devices write whole: the header is always either the old one or the
//! new one. The rest of the block is zero and nobody reads it; groups start at [`BLOCK_BYTES`].
//!
//! | offset | size | field | rule |
//! |---|---|---|---|
//! | 0 | 8 | magic | `KIFASEG` and a zero |
//! | 8 | 4 | version | 1 |
//! | 12 | 4 | CRC | over bytes 0..12 and 16..512 |
//! | 16 | 16 | store id | |
//! | 32 | 8 | segment number | 1 to [`NUMBER_MAX`](super::NUMBER_MAX); 0 in a spare |
//! | 40 | 8 | epoch | 1 to [`NUMBER_MAX`](super::NUMBER_MAX); 0 in a spare |
//! | 48 | 8 | first LSN | the LSN its first entry has or would have: 1 to [`NUMBER_MAX`](super::NUMBER_MAX); may be 0 in a spare |
//! | 56 | 8 | salt | of its first run |
//! | 64 | 8 | manifest generation | at the time; at most [`NUMBER_MAX`](super::NUMBER_MAX) |
//! | 72 | 8 | segment length | of the file, in bytes: whole blocks, at least two, at most [`SEGMENT_BYTES_MAX`] |
//! | 80 | 8 | durable LSN | everything up to it was durable when this header was written; at most [`NUMBER_MAX`](super::NUMBER_MAX) |
//! | 88 | 32 | end of the log before it | [`LogEnd`] |
//! | 120 | 8 | gap first | 0: no gap |
//! | 128 | 8 | gap last | from gap first to [`NUMBER_MAX`](super::NUMBER_MAX); 0 without a gap |
//! | 136 | 1 | gap cause | 1 unclean end in normal mode, 2 accepted damage; 0 without a gap |
//! | 137 | 1 | kind | 1 spare (prepared, never used), 2 active |
//! | 138 | 1 | flush mode | normal: this epoch has declared it, and entries may be confirmed ahead of durable; else cautious |
//! | 139 | 1 | I/O backend | 1 io_uring, 2 portable, 3 simulated, 0 not said; for `stats` |
//! | 140 | 1 | sync method | 1 linked, 2 dsync, 0 not said; for `stats` |
//! | 141 | 1 | direct I/O | 0 or 1; for `stats` |
//! | 142 | 370 | reserved | 0 |
//!
//! A header is valid if and only if magic, version, CRC and all fields hold. A prepared file carries a spare header, so
//! that it can be proven this store's own; the header of the first group's write replaces it.

use super::bytes::{Get, Put, check_number, crc32};
use super::record::LogEnd;
use super::{BLOCK_BYTES, FlushMode, FormatError, Gap, GapCause, Lsn, SEGMENT_BYTES_MAX, StoreId, VERSION};

const MAGIC: [u8; 8] = *b"KIFASEG\0";
const RESERVED_BYTES: usize = 370;
/// Bytes of an encoded header: one sector.
pub(crate) const HEADER_BYTES: usize = 512;

/// What did the writing, for `stats` only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct WrittenBy {
    pub(crate) io_backend: u8,
    pub(crate) sync_method: u8,
    pub(crate) direct: bool,
}

/// See the layout table of this module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) store: StoreId,
    pub(crate) segment: u64,
    pub(crate) epoch: u64,
    pub(crate) first_lsn: Lsn,
    pub(crate) salt: u64,
    pub(crate) manifest_generation: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) durable_lsn: Lsn,
    pub(crate) prev_end: LogEnd,
    pub(crate) gap: Option<Gap>,
    /// Prepared and never used; number, epoch and LSNs mean nothing.
    pub(crate) spare: bool,
    pub(crate) flush_mode: FlushMode,
    pub(crate) written_by: WrittenBy,
}

impl SegmentHeader {
    /// The header of a prepared file that has not been used.
    pub(crate) fn spare(store: StoreId, segment_bytes: u64) -> SegmentHeader {
        SegmentHeader {
            store,
            segment: 0,
            epoch: 0,
            first_lsn: Lsn::ZERO,
            salt: 0,
            manifest_generation: 0,
            segment_bytes,
            durable_lsn: Lsn::ZERO,
            prev_end: LogEnd::default(),
            gap: None,
            spare: true,
            flush_mode: FlushMode::Cautious,
            written_by: WrittenBy::default(),
        }
    }

    /// Whether every field obeys its rule, alone and beside the others.
    fn check(&self) -> Result<(), FormatError> {
        if self.spare {
            if self.segment != 0 || self.epoch != 0 {
                return Err(FormatError::Field("segment number or epoch of a spare"));
            }
        } else {
            check_number(self.segment, 1, "segment number")?;
            check_number(self.epoch, 1, "epoch")?;
        }
        check_number(self.first_lsn.0, if self.spare { 0 } else { 1 }, "first LSN")?;
        check_number(self.manifest_generation, 0, "manifest generation")?;
        let blocks = BLOCK_BYTES as u64;
        if !self.segment_bytes.is_multiple_of(blocks) || !(2 * blocks..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes)
        {
            return Err(FormatError::Field("segment length"));
        }
        check_number(self.durable_lsn.0, 0, "durable LSN")?;
        self.prev_end.check()?;
        if let Some(gap) = self.gap {
            check_number(gap.first.0, 1, "gap")?;
            check_number(gap.last.0, gap.first.0, "gap")?;
        }
        if self.written_by.io_backend > 3 || self.written_by.sync_method > 2 {
            return Err(FormatError::Field("I/O backend or sync method"));
        }
        Ok(())
    }

    /// Writes the header to the first [`HEADER_BYTES`] bytes of `out`.
    ///
    /// # Panics
    /// If a field breaks its rule: a segment that recovery would refuse must never be written to.
    pub(crate) fn encode(&self, out: &mut [u8]) {
        assert_eq!(self.check(), Ok(()));
        let out = &mut out[..HEADER_BYTES];
        out.fill(0);
        let mut put = Put::new(out);
        put.bytes(&MAGIC)
            .u32(VERSION)
            .u32(0)
            .bytes(&self.store.0)
            .u64(self.segment)
            .u64(self.epoch)
            .u64(self.first_lsn.0)
            .u64(self.salt)
            .u64(self.manifest_generation)
            .u64(self.segment_bytes)
            .u64(self.durable_lsn.0);
        self.prev_end.encode(&mut put);
        match self.gap {
            Some(gap) => put.u64(gap.first.0).u64(gap.last.0).u8(gap.cause as u8),
            None => put.u64(0).u64(0).u8(0),
        };
        put.u8(if self.spare { 1 } else { 2 })
            .u8(self.flush_mode as u8)
            .u8(self.written_by.io_backend)
            .u8(self.written_by.sync_method)
            .u8(u8::from(self.written_by.direct));
        let crc = crc32(&[&out[..12], &out[16..]]);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
    }

    /// Decodes and checks a header.
    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, FormatError> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(FormatError::Truncated)?;
        let mut get = Get(bytes);
        if get.array::<8>()? != MAGIC {
            return Err(FormatError::Magic);
        }
        let version = get.u32()?;
        if get.u32()? != crc32(&[&bytes[..12], &bytes[16..]]) {
            return Err(FormatError::Checksum("segment header"));
        }
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        let mut header = SegmentHeader {
            store: StoreId(get.array()?),
            segment: get.u64()?,
            epoch: get.u64()?,
            first_lsn: Lsn(get.u64()?),
            salt: get.u64()?,
            manifest_generation: get.u64()?,
            segment_bytes: get.u64()?,
            durable_lsn: Lsn(get.u64()?),
            prev_end: LogEnd::decode(&mut get)?,
            gap: None,
            spare: false,
            flush_mode: FlushMode::Cautious,
            written_by: WrittenBy::default(),
        };
        let (first, last, cause) = (get.u64()?, get.u64()?, get.u8()?);
        if (first, last, cause) != (0, 0, 0) {
            let cause = GapCause::from_u8(cause).ok_or(FormatError::Field("gap cause"))?;
            header.gap = Some(Gap { first: Lsn(first), last: Lsn(last), cause });
        }
        header.spare = match get.u8()? {
            1 => true,
            2 => false,
            _ => return Err(FormatError::Field("kind")),
        };
        header.flush_mode = FlushMode::from_u8(get.u8()?).ok_or(FormatError::Field("flush mode"))?;
        header.written_by.io_backend = get.u8()?;
        header.written_by.sync_method = get.u8()?;
        header.written_by.direct = match get.u8()? {
            0 => false,
            1 => true,
            _ => return Err(FormatError::Field("direct I/O")),
        };
        if get.array::<RESERVED_BYTES>()? != [0; RESERVED_BYTES] {
            return Err(FormatError::Field("reserved"));
        }
        header.check().map(|()| header)
    }
}

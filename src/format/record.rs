//! What rides in a group beside entries, without taking an LSN.
//!
//! | offset | size | field | rule |
//! |---|---|---|---|
//! | 0 | 2 | kind | 1 epoch start, 2 checkpoint, 3 clock step |
//! | 2 | 2 | reserved | 0 |
//! | 4 | 4 | body length | at most [`BODY_BYTES_MAX`] |
//! | 8 | 4 | CRC | over seed (salt, offset in the file), bytes 0..8 and the body |
//! | 12 | n | body | by kind, below |
//!
//! | kind | body |
//! |---|---|
//! | epoch start | the [`LogEnd`] of the log before it (32 bytes), epoch it replaces (8, at most [`NUMBER_MAX`](super::NUMBER_MAX)) |
//! | checkpoint | key length (2), key, value: an opaque pair, at most [`CHECKPOINT_KEY_BYTES_MAX`] and [`CHECKPOINT_VALUE_BYTES_MAX`] long; the last value of a key counts, an empty one removes the key |
//! | clock step | LSN (8, 1 to [`NUMBER_MAX`](super::NUMBER_MAX)), from (8), to (8), both nanoseconds since the Unix epoch |
//!
//! | offset in [`LogEnd`] | size | field | rule |
//! |---|---|---|---|
//! | 0 | 8 | segment number | 0 where no log came before; then everything is 0 |
//! | 8 | 8 | salt | of the run |
//! | 16 | 8 | offset | a multiple of [`BLOCK_BYTES`], not 0, at most [`SEGMENT_BYTES_MAX`] |
//! | 24 | 8 | last LSN | up to there; 0 where there is none |
//!
//! A record is valid if and only if its length is at most the ceiling, the CRC holds, and kind and body obey their rules
//! with nothing left over. Length and body share one CRC, so the length is used under its ceiling to find what the CRC
//! covers, and believed only when it holds.

use super::bytes::{Get, Put, check_number, crc32};
use super::entry::Seed;
use super::{BLOCK_BYTES, ClockStep, FormatError, Lsn, SEGMENT_BYTES_MAX};

/// Bytes in front of the body.
pub(crate) const HEADER_BYTES: usize = 12;
/// Longest key of a checkpoint, in bytes.
pub(crate) const CHECKPOINT_KEY_BYTES_MAX: usize = 4096 + 64;
/// Longest value of a checkpoint, in bytes.
pub(crate) const CHECKPOINT_VALUE_BYTES_MAX: usize = 1024;
/// Longest body of a record, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 2 + CHECKPOINT_KEY_BYTES_MAX + CHECKPOINT_VALUE_BYTES_MAX;

/// Where a log ends: what lies behind this point of that run is dead. All zero where no log came before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LogEnd {
    /// Segment number.
    pub(crate) segment: u64,
    /// Salt of the run.
    pub(crate) salt: u64,
    /// Offset in the file just behind the last group that counts.
    pub(crate) offset: u64,
    /// Last LSN up to there.
    pub(crate) last_lsn: Lsn,
}

impl LogEnd {
    /// Bytes of an encoded end.
    pub(crate) const BYTES: usize = 32;

    pub(crate) fn encode(&self, put: &mut Put<'_>) {
        put.u64(self.segment).u64(self.salt).u64(self.offset).u64(self.last_lsn.0);
    }

    /// Reads an end; whether it obeys its rules is [`LogEnd::check`]'s to say.
    pub(crate) fn decode(get: &mut Get<'_>) -> Result<LogEnd, FormatError> {
        Ok(LogEnd { segment: get.u64()?, salt: get.u64()?, offset: get.u64()?, last_lsn: Lsn(get.u64()?) })
    }

    /// Whether every field obeys its rule.
    pub(crate) fn check(&self) -> Result<(), FormatError> {
        if *self == LogEnd::default() {
            return Ok(());
        }
        check_number(self.segment, 1, "end of the log before it")?;
        check_number(self.last_lsn.0, 0, "end of the log before it")?;
        let blocks = BLOCK_BYTES as u64;
        if !self.offset.is_multiple_of(blocks) || !(blocks..=SEGMENT_BYTES_MAX).contains(&self.offset) {
            return Err(FormatError::Field("end of the log before it"));
        }
        Ok(())
    }
}

/// See the tables of this module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Record {
    /// The first record of an epoch that goes on in the same segment after a clean close.
    EpochStart { prev_end: LogEnd, prev_epoch: u64 },
    /// A key's new value, durable together with the entries of its group.
    Checkpoint { key: Vec<u8>, value: Vec<u8> },
    /// The wall clock stepped.
    ClockStep(ClockStep),
}

impl Record {
    fn kind(&self) -> u16 {
        match self {
            Record::EpochStart { .. } => 1,
            Record::Checkpoint { .. } => 2,
            Record::ClockStep(_) => 3,
        }
    }

    fn body_bytes(&self) -> usize {
        match self {
            Record::EpochStart { .. } => LogEnd::BYTES + 8,
            Record::Checkpoint { key, value } => 2 + key.len() + value.len(),
            Record::ClockStep(_) => 24,
        }
    }

    /// Whether every field obeys its rule.
    fn check(&self) -> Result<(), FormatError> {
        match self {
            Record::EpochStart { prev_end, prev_epoch } => {
                prev_end.check()?;
                check_number(*prev_epoch, 0, "epoch")
            }
            Record::Checkpoint { key, value } => {
                if key.len() > CHECKPOINT_KEY_BYTES_MAX || value.len() > CHECKPOINT_VALUE_BYTES_MAX {
                    return Err(FormatError::Field("checkpoint length"));
                }
                Ok(())
            }
            Record::ClockStep(step) => check_number(step.lsn.0, 1, "LSN"),
        }
    }

    /// Bytes of the encoded record.
    pub(crate) fn encoded_bytes(&self) -> usize {
        HEADER_BYTES + self.body_bytes()
    }

    /// Writes the record to the start of `out`, bound to its position; returns the bytes used.
    ///
    /// # Panics
    /// If a field breaks its rule: a record that recovery would refuse takes its whole group with it.
    pub(crate) fn encode(&self, out: &mut [u8], seed: Seed) -> usize {
        assert_eq!(self.check(), Ok(()));
        let len = self.encoded_bytes();
        let out = &mut out[..len];
        let mut put = Put::new(out);
        put.u16(self.kind()).u16(0).u32(self.body_bytes() as u32).u32(0);
        match self {
            Record::EpochStart { prev_end, prev_epoch } => {
                prev_end.encode(&mut put);
                put.u64(*prev_epoch);
            }
            Record::Checkpoint { key, value } => {
                put.u16(key.len() as u16).bytes(key).bytes(value);
            }
            Record::ClockStep(step) => {
                put.u64(step.lsn.0).u64(step.from_ns).u64(step.to_ns);
            }
        }
        let crc = crc32(&[&seed.bytes(), &out[..8], &out[HEADER_BYTES..]]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        len
    }

    /// Decodes and checks the record at the start of `bytes`; returns it with its length in bytes.
    pub(crate) fn decode(bytes: &[u8], seed: Seed) -> Result<(Record, usize), FormatError> {
        let mut get = Get(bytes);
        let kind = get.u16()?;
        let reserved = get.u16()?;
        let body_bytes = get.u32()? as usize;
        let crc = get.u32()?;
        if body_bytes > BODY_BYTES_MAX {
            return Err(FormatError::Field("record length"));
        }
        let body = get.bytes(body_bytes)?;
        if crc != crc32(&[&seed.bytes(), &bytes[..8], body]) {
            return Err(FormatError::Checksum("record"));
        }
        if reserved != 0 {
            return Err(FormatError::Field("reserved"));
        }
        let mut body = Get(body);
        let record = match kind {
            1 => Record::EpochStart { prev_end: LogEnd::decode(&mut body)?, prev_epoch: body.u64()? },
            2 => {
                let key_bytes = usize::from(body.u16()?);
                let key = body.bytes(key_bytes)?.to_vec();
                let value = std::mem::take(&mut body.0).to_vec();
                Record::Checkpoint { key, value }
            }
            3 => Record::ClockStep(ClockStep { lsn: Lsn(body.u64()?), from_ns: body.u64()?, to_ns: body.u64()? }),
            _ => return Err(FormatError::Field("record kind")),
        };
        if !body.0.is_empty() {
            return Err(FormatError::Field("record length"));
        }
        record.check()?;
        Ok((record, HEADER_BYTES + body_bytes))
    }
}

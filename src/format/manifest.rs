//! The manifest: the live set of tables and segments, in one file that is replaced whole.
//!
//! | offset | size | field | rule |
//! |---|---|---|---|
//! | 0 | 8 | magic | `KIFAMAN` and a zero |
//! | 8 | 4 | version | 1 |
//! | 12 | 4 | CRC | over bytes 0..12 and 16..end |
//! | 16 | 16 | store id | |
//! | 32 | 8 | generation | rises by one with each manifest; 1 to [`NUMBER_MAX`](super::NUMBER_MAX) |
//! | 40 | 8 | body length | bytes that follow the first 64, without padding; at most [`BODY_BYTES_MAX`] |
//! | 48 | 8 | newest segment | known to exist when this was written: the log does not end before it; smaller than the first live one: the log behind the tables was empty, and the next segment begins it; 0: not said; at most [`NUMBER_MAX`](super::NUMBER_MAX) |
//! | 56 | 8 | reserved | 0 |
//! | 64 | 8 | checkpoint LSN | every entry up to it is in a table (or expired), no later one is; at most [`NUMBER_MAX`](super::NUMBER_MAX) |
//! | 72 | 8 | first live segment | segments with smaller numbers are released; 1 to [`NUMBER_MAX`](super::NUMBER_MAX) |
//! | 80 | 8 | retention floor | smallest LSN that was not deleted; 1 at birth; 1 to [`NUMBER_MAX`](super::NUMBER_MAX) |
//! | 88 | 8 | next table id | larger than every table's; 1 to [`NUMBER_MAX`](super::NUMBER_MAX) |
//! | 96 | 16 | counts | of tables, gaps, checkpoints, clock steps (4 each) |
//! | 112 | | tables, gaps, checkpoints, clock steps | in this order, as below |
//! | behind them | 40 or 0 | [`Expired`] | present if and only if the retention floor was ever raised |
//!
//! | item | layout |
//! |---|---|
//! | table | [`TableMeta`]: id (8), first LSN (8), last LSN (8), smallest and largest timestamp (8 + 8), entries (8), file length (8), table checksum (4), reserved (4) |
//! | gap, checkpoint, clock step | as in [`super::facts`]; positions as of the checkpoint LSN |
//! | expired | [`Expired`]: tables (8), entries (8), bytes (8), largest timestamp of the newest of these tables (8), when that was deleted (8); tables and entries at least 1, and no more tables than entries |
//!
//! A manifest is valid if and only if magic, version, length, CRC, every field and every item hold and nothing but zeros
//! to the end of the file, which is a whole number of blocks, follows the last item. A table has an id of its own, from 1 to the next table id less one, at
//! least one entry, no more entries than its LSN range has room for, and timestamps in order. No LSN is larger than
//! [`NUMBER_MAX`](super::NUMBER_MAX). Tables are sorted by LSN and do not overlap. The encoded manifest is padded with
//! zeros to a block; `body length` tells where it ends.

use std::collections::BTreeSet;

use super::bytes::{Get, Put, check_number, crc32};
use super::facts::{self, Checkpoints, Counts};
use super::{ClockStep, FormatError, Gap, Lsn, StoreId, VERSION, block_ceil};

const MAGIC: [u8; 8] = *b"KIFAMAN\0";
const HEAD_BYTES: usize = 64;
const FIXED_BODY_BYTES: usize = 48;
/// Longest body that a decoder believes.
pub(crate) const BODY_BYTES_MAX: usize = 256 << 20;

/// What is known of a table without opening it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TableMeta {
    pub(crate) id: u64,
    pub(crate) first_lsn: Lsn,
    pub(crate) last_lsn: Lsn,
    pub(crate) min_timestamp_ns: u64,
    pub(crate) max_timestamp_ns: u64,
    pub(crate) entry_count: u64,
    pub(crate) file_bytes: u64,
    /// The table checksum in its footer: see [`super::table`].
    pub(crate) checksum: u32,
}

impl TableMeta {
    const BYTES: usize = 64;

    fn encode(&self, put: &mut Put<'_>) {
        put.u64(self.id)
            .u64(self.first_lsn.0)
            .u64(self.last_lsn.0)
            .u64(self.min_timestamp_ns)
            .u64(self.max_timestamp_ns)
            .u64(self.entry_count)
            .u64(self.file_bytes)
            .u32(self.checksum)
            .u32(0);
    }

    fn decode(get: &mut Get<'_>) -> Result<TableMeta, FormatError> {
        let meta = TableMeta {
            id: get.u64()?,
            first_lsn: Lsn(get.u64()?),
            last_lsn: Lsn(get.u64()?),
            min_timestamp_ns: get.u64()?,
            max_timestamp_ns: get.u64()?,
            entry_count: get.u64()?,
            file_bytes: get.u64()?,
            checksum: get.u32()?,
        };
        if get.u32()? != 0 {
            return Err(FormatError::Field("reserved"));
        }
        meta.check().map(|()| meta)
    }

    /// Whether every field obeys its rule, alone and beside the others.
    fn check(&self) -> Result<(), FormatError> {
        check_number(self.id, 1, "table id")?;
        check_number(self.first_lsn.0, 1, "table LSN range")?;
        check_number(self.last_lsn.0, self.first_lsn.0, "table LSN range")?;
        if !(1..=self.last_lsn.0 - self.first_lsn.0 + 1).contains(&self.entry_count) {
            return Err(FormatError::Field("table entry count"));
        }
        if self.min_timestamp_ns > self.max_timestamp_ns {
            return Err(FormatError::Field("table timestamps"));
        }
        Ok(())
    }
}

/// What retention has deleted in the life of a store: all of it lay below the floor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Expired {
    /// Sorted tables.
    pub tables: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Largest timestamp in the newest of these tables, nanoseconds since the Unix epoch: the time of the floor.
    pub until_ns: u64,
    /// When retention last deleted something, nanoseconds since the Unix epoch by the wall clock.
    pub at_ns: u64,
}

impl Expired {
    const BYTES: usize = 40;

    /// Counts these tables, which are deleted now, oldest first.
    pub(crate) fn add(&mut self, tables: &[TableMeta], now_ns: u64) {
        for table in tables {
            self.tables = self.tables.saturating_add(1);
            self.entries = self.entries.saturating_add(table.entry_count);
            self.bytes = self.bytes.saturating_add(table.file_bytes);
            self.until_ns = table.max_timestamp_ns;
            self.at_ns = now_ns;
        }
    }

    fn encode(&self, put: &mut Put<'_>) {
        put.u64(self.tables).u64(self.entries).u64(self.bytes).u64(self.until_ns).u64(self.at_ns);
    }

    fn decode(get: &mut Get<'_>) -> Result<Expired, FormatError> {
        let expired = Expired {
            tables: get.u64()?,
            entries: get.u64()?,
            bytes: get.u64()?,
            until_ns: get.u64()?,
            at_ns: get.u64()?,
        };
        if expired.tables == 0 {
            return Err(FormatError::Field("expired"));
        }
        expired.check().map(|()| expired)
    }

    fn check(&self) -> Result<(), FormatError> {
        let is_none = *self == Expired::default();
        match is_none || (1..=self.entries).contains(&self.tables) {
            true => Ok(()),
            false => Err(FormatError::Field("expired")),
        }
    }
}

/// See the layout table of this module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Manifest {
    pub(crate) store: StoreId,
    pub(crate) generation: u64,
    pub(crate) checkpoint_lsn: Lsn,
    pub(crate) first_segment: u64,
    /// See the layout table.
    pub(crate) newest_segment: u64,
    pub(crate) floor_lsn: Lsn,
    pub(crate) next_table_id: u64,
    pub(crate) tables: Vec<TableMeta>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) clock_steps: Vec<ClockStep>,
    pub(crate) expired: Expired,
}

impl Manifest {
    /// The first manifest of a store: its birth.
    pub(crate) fn birth(store: StoreId) -> Manifest {
        Manifest {
            store,
            generation: 1,
            checkpoint_lsn: Lsn::ZERO,
            first_segment: 1,
            newest_segment: 0,
            floor_lsn: Lsn(1),
            next_table_id: 1,
            tables: Vec::new(),
            gaps: Vec::new(),
            checkpoints: Checkpoints::new(),
            clock_steps: Vec::new(),
            expired: Expired::default(),
        }
    }

    fn body_bytes(&self) -> usize {
        FIXED_BODY_BYTES
            + self.tables.len() * TableMeta::BYTES
            + facts::encoded_bytes(&self.gaps, &self.checkpoints, &self.clock_steps)
            + if self.expired.tables > 0 { Expired::BYTES } else { 0 }
    }

    /// Whether every field obeys its rule, alone and beside the others.
    fn check(&self) -> Result<(), FormatError> {
        check_number(self.generation, 1, "generation")?;
        check_number(self.checkpoint_lsn.0, 0, "checkpoint LSN")?;
        check_number(self.first_segment, 1, "first live segment")?;
        check_number(self.newest_segment, 0, "newest segment")?;
        check_number(self.floor_lsn.0, 1, "retention floor")?;
        check_number(self.next_table_id, 1, "next table id")?;
        self.tables.iter().try_for_each(TableMeta::check)?;
        self.expired.check()?;
        if !self.tables.windows(2).all(|pair| pair[0].last_lsn < pair[1].first_lsn) {
            return Err(FormatError::Field("table order"));
        }
        if self.tables.last().is_some_and(|table| table.last_lsn > self.checkpoint_lsn) {
            return Err(FormatError::Field("checkpoint LSN"));
        }
        // An id given twice would put one table's file in the place of another's.
        let ids: BTreeSet<u64> = self.tables.iter().map(|table| table.id).collect();
        if ids.len() < self.tables.len() || ids.last().is_some_and(|&id| id >= self.next_table_id) {
            return Err(FormatError::Field("table id"));
        }
        Ok(())
    }

    /// Encodes to a whole number of blocks.
    ///
    /// # Panics
    /// If a field or item breaks its rule: a store whose newest manifest is refused does not open.
    pub(crate) fn encode(&self) -> Vec<u8> {
        assert_eq!(self.check(), Ok(()));
        assert!(self.body_bytes() <= BODY_BYTES_MAX);
        let used = HEAD_BYTES + self.body_bytes();
        let mut out = vec![0; block_ceil(used as u64) as usize];
        let mut put = Put::new(&mut out);
        put.bytes(&MAGIC)
            .u32(VERSION)
            .u32(0)
            .bytes(&self.store.0)
            .u64(self.generation)
            .u64(self.body_bytes() as u64)
            .u64(self.newest_segment)
            .u64(0)
            .u64(self.checkpoint_lsn.0)
            .u64(self.first_segment)
            .u64(self.floor_lsn.0)
            .u64(self.next_table_id)
            .u32(self.tables.len() as u32);
        Counts::of(&self.gaps, &self.checkpoints, &self.clock_steps).encode(&mut put);
        for table in &self.tables {
            table.encode(&mut put);
        }
        facts::encode(&mut put, &self.gaps, &self.checkpoints, &self.clock_steps);
        if self.expired.tables > 0 {
            self.expired.encode(&mut put);
        }
        assert_eq!(put.len(), used);
        let crc = crc32(&[&out[..12], &out[16..used]]);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Decodes and checks a manifest: its whole blocks, with nothing but zeros behind them.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Manifest, FormatError> {
        let mut get = Get(bytes);
        if get.array::<8>()? != MAGIC {
            return Err(FormatError::Magic);
        }
        let version = get.u32()?;
        let crc = get.u32()?;
        let store = StoreId(get.array()?);
        let generation = get.u64()?;
        let body_bytes = get.u64()?;
        let newest_segment = get.u64()?;
        let reserved = get.array::<8>()?;
        if body_bytes > BODY_BYTES_MAX as u64 || body_bytes < FIXED_BODY_BYTES as u64 {
            return Err(FormatError::Field("body length"));
        }
        let used = bytes.get(..HEAD_BYTES + body_bytes as usize).ok_or(FormatError::Truncated)?;
        if crc != crc32(&[&used[..12], &used[16..]]) {
            return Err(FormatError::Checksum("manifest"));
        }
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        if reserved != [0; 8] {
            return Err(FormatError::Field("reserved"));
        }
        if (bytes.len() as u64) < block_ceil(used.len() as u64) {
            return Err(FormatError::Truncated);
        }
        if bytes[used.len()..].iter().any(|&byte| byte != 0) {
            return Err(FormatError::Field("padding"));
        }
        let head = Manifest { generation, newest_segment, ..Manifest::birth(store) };
        head.decode_body(&mut Get(&used[HEAD_BYTES..]))
    }

    /// Reads what follows the head, `self`.
    fn decode_body(self, get: &mut Get<'_>) -> Result<Manifest, FormatError> {
        let mut manifest = Manifest {
            checkpoint_lsn: Lsn(get.u64()?),
            first_segment: get.u64()?,
            floor_lsn: Lsn(get.u64()?),
            next_table_id: get.u64()?,
            ..self
        };
        let (tables, counts) = (get.u32()?, Counts::decode(get)?);
        for _ in 0..tables {
            manifest.tables.push(TableMeta::decode(get)?);
        }
        (manifest.gaps, manifest.checkpoints, manifest.clock_steps) = facts::decode(get, counts)?;
        if get.0.len() == Expired::BYTES {
            manifest.expired = Expired::decode(get)?;
        }
        if !get.0.is_empty() {
            return Err(FormatError::Field("body length"));
        }
        manifest.check().map(|()| manifest)
    }
}

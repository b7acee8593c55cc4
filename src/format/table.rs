//! A sorted table: header block, data blocks, meta section (index and facts), footer block. Immutable once named.
//!
//! ```text
//! | header, 4 KiB | data block | data block | … | meta section, padded with zeros to a block | footer, 4 KiB |
//! ```
//!
//! No byte lies between the parts: each data block starts where the one before it ends, the meta section starts where
//! the last one ends, and the footer is the file's last block. So every byte of the file is under a checksum.
//!
//! **Header** (first block, zero-padded): magic `KIFATAB` and a zero (8), version (4), CRC over bytes 0..12 and 16..4096
//! (4), store id (16), table id (8).
//!
//! **Data block**, anywhere behind the header, unaligned:
//!
//! | offset | size | field | rule |
//! |---|---|---|---|
//! | 0 | 4 | magic | `KBLK` |
//! | 4 | 4 | CRC | over store id and bytes 8..end of the stored data |
//! | 8 | 1 | codec | 0 plain, 1 lz4 (one raw LZ4 block), 2 reserved for zstd (one frame) |
//! | 9 | 3 | reserved | 0 |
//! | 12 | 4 | entry count | at least 1 |
//! | 16 | 4 | raw length | of the entries, at most [`BLOCK_RAW_BYTES_MAX`] |
//! | 20 | 4 | stored length | of what follows the header: the raw length where plain, less than it otherwise |
//! | 24 | 8 | first LSN | not 0 |
//! | 32 | 8 | last LSN | entries rise strictly; LSNs missing in between are in the gap list |
//! | 40 | 8 | smallest timestamp | of its entries, exactly |
//! | 48 | 8 | largest timestamp | of its entries, exactly |
//! | 56 | n | stored data | the entries, through the codec |
//!
//! The CRC names the store but not the table or the place, so that compaction can copy a block as it is; the index
//! binds it to both.
//!
//! **Entry in a block** (before the codec): LSN minus the block's first LSN (4), source number (2), reserved (2, zero),
//! timestamp (8), payload length (4), payload. Its checks are the block's.
//!
//! **Meta section**: one 64-byte index entry per block in LSN order — offset (8), block length with header (4), entry
//! count (4), first LSN (8), last LSN (8), smallest and largest timestamp (8 + 8), the block's CRC (4), reserved (12,
//! zero) — then the facts that rebuilding a lost manifest needs, as of the table's last LSN: gaps, checkpoints and clock
//! steps laid out as in [`super::facts`], then the ids of the tables this one replaces (8 each).
//!
//! **Footer** (last block of the file, zero-padded):
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `KIFAEND` and a zero |
//! | 8 | 4 | version |
//! | 12 | 4 | table checksum: CRC over bytes 0..12 and 16..4096 of the footer |
//! | 16 | 16 | store id |
//! | 32 | 8 | table id |
//! | 40 | 8 | meta offset |
//! | 48 | 8 | meta length, without padding; at most [`META_BYTES_MAX`] |
//! | 56 | 20 | counts of: blocks, gaps, checkpoints, clock steps, replaced tables (4 each) |
//! | 76 | 4 | CRC over the header block and the meta section with its padding |
//! | 80 | 8 + 8 | first and last LSN |
//! | 96 | 8 + 8 | smallest and largest timestamp |
//! | 112 | 8 | entry count |
//! | 120 | 8 | retention floor |
//! | 128 | 8 | payload bytes |
//!
//! The table checksum covers the footer, by it header and meta section, and by the CRCs in the index every block: the
//! manifest's copy of these four bytes names the whole content of the file.
//!
//! A table is valid if and only if header and footer are, both name the same store and table, the checksums hold, the
//! index is ordered, fills the room between header and meta section and adds up to the footer's ranges and counts, and
//! each block is valid, is what its index entry says, and has the payload bytes that the footer adds up.

mod block;

pub(crate) use block::{
    BLOCK_HEADER_BYTES, BLOCK_RAW_BYTES_MAX, BlockHeader, Codec, ENTRY_HEAD_BYTES, EntryHead, Span, encode_entry,
    scan_entries,
};

use super::bytes::{Get, Put, crc32};
use super::facts::{self, Checkpoints, Counts};
use super::manifest::TableMeta;
use super::{BLOCK_BYTES, ClockStep, FormatError, Gap, Lsn, StoreId, VERSION, block_ceil};

const HEADER_MAGIC: [u8; 8] = *b"KIFATAB\0";
const FOOTER_MAGIC: [u8; 8] = *b"KIFAEND\0";
/// Longest meta section that a decoder believes.
pub(crate) const META_BYTES_MAX: u64 = 256 << 20;
const INDEX_ENTRY_BYTES: usize = 64;
const REPLACED_BYTES: usize = 8;

/// Where a data block lies and what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IndexEntry {
    pub(crate) offset: u64,
    /// With its header.
    pub(crate) block_bytes: u32,
    pub(crate) crc: u32,
    pub(crate) span: Span,
}

impl IndexEntry {
    /// Where the next part of the file starts.
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.block_bytes)
    }

    fn encode(&self, put: &mut Put<'_>) {
        put.u64(self.offset).u32(self.block_bytes).u32(self.span.entry_count as u32);
        self.span.encode_ranges(put);
        put.u32(self.crc).bytes(&[0; 12]);
    }

    /// Decodes an entry of which the block must start at `offset`.
    fn decode(get: &mut Get<'_>, offset: u64) -> Result<IndexEntry, FormatError> {
        if get.u64()? != offset {
            return Err(FormatError::Field("block offset"));
        }
        let (block_bytes, entry_count) = (get.u32()?, u64::from(get.u32()?));
        if !(BLOCK_HEADER_BYTES..=BLOCK_HEADER_BYTES + BLOCK_RAW_BYTES_MAX).contains(&(block_bytes as usize)) {
            return Err(FormatError::Field("block length"));
        }
        let span = Span::decode_ranges(get, entry_count)?;
        span.check()?;
        let crc = get.u32()?;
        if get.array::<12>()? != [0; 12] {
            return Err(FormatError::Field("reserved"));
        }
        Ok(IndexEntry { offset, block_bytes, crc, span })
    }
}

/// What a table carries beside its entries, as of its last LSN, so that a lost manifest can be rebuilt.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct TableFacts {
    pub(crate) gaps: Vec<Gap>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) clock_steps: Vec<ClockStep>,
    /// Tables whose entries this one holds; empty where it came from a memtable.
    pub(crate) replaces: Vec<u64>,
    /// Smallest LSN that retention had not deleted.
    pub(crate) floor_lsn: Lsn,
}

/// The header block of a table.
pub(crate) fn encode_header(store: StoreId, table_id: u64) -> Vec<u8> {
    let mut out = vec![0; BLOCK_BYTES];
    Put::new(&mut out).bytes(&HEADER_MAGIC).u32(VERSION).u32(0).bytes(&store.0).u64(table_id);
    seal_edge(&mut out);
    out
}

/// Decodes and checks a table's header block: store and table id.
pub(crate) fn decode_header(block: &[u8]) -> Result<(StoreId, u64), FormatError> {
    let (mut get, _) = open_edge(block, HEADER_MAGIC, "table header")?;
    Ok((StoreId(get.array()?), get.u64()?))
}

/// The checksum that header and footer have alike: at offset 12, over the rest of the block. Returns it.
fn seal_edge(block: &mut [u8]) -> u32 {
    let crc = crc32(&[&block[..12], &block[16..]]);
    block[12..16].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Checks what header and footer have alike; yields what follows, and the checksum.
fn open_edge<'a>(block: &'a [u8], magic: [u8; 8], what: &'static str) -> Result<(Get<'a>, u32), FormatError> {
    let block = block.get(..BLOCK_BYTES).ok_or(FormatError::Truncated)?;
    let mut get = Get(block);
    if get.array::<8>()? != magic {
        return Err(FormatError::Magic);
    }
    let (version, crc) = (get.u32()?, get.u32()?);
    if crc != crc32(&[&block[..12], &block[16..]]) {
        return Err(FormatError::Checksum(what));
    }
    if version != VERSION {
        return Err(FormatError::Version(version));
    }
    Ok((get, crc))
}

/// The last block of a table; see the module's table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Footer {
    pub(crate) store: StoreId,
    pub(crate) table_id: u64,
    pub(crate) meta_offset: u64,
    pub(crate) meta_bytes: u64,
    pub(crate) block_count: u32,
    pub(crate) counts: Counts,
    pub(crate) replaced_count: u32,
    /// Over header block and meta section; see [`sections_crc`].
    pub(crate) sections_crc: u32,
    pub(crate) span: Span,
    pub(crate) floor_lsn: Lsn,
    pub(crate) payload_bytes: u64,
}

impl Footer {
    /// Length of the file that this footer ends.
    pub(crate) fn file_bytes(&self) -> u64 {
        block_ceil(self.meta_offset + self.meta_bytes) + BLOCK_BYTES as u64
    }

    /// What the manifest says of the table.
    pub(crate) fn table_meta(&self, checksum: u32) -> TableMeta {
        TableMeta {
            id: self.table_id,
            first_lsn: self.span.first_lsn,
            last_lsn: self.span.last_lsn,
            min_timestamp_ns: self.span.min_timestamp_ns,
            max_timestamp_ns: self.span.max_timestamp_ns,
            entry_count: self.span.entry_count,
            file_bytes: self.file_bytes(),
            checksum,
        }
    }

    /// The footer block, and the table checksum in it.
    pub(crate) fn encode(&self) -> (Vec<u8>, u32) {
        let mut out = vec![0; BLOCK_BYTES];
        let mut put = Put::new(&mut out);
        put.bytes(&FOOTER_MAGIC)
            .u32(VERSION)
            .u32(0)
            .bytes(&self.store.0)
            .u64(self.table_id)
            .u64(self.meta_offset)
            .u64(self.meta_bytes)
            .u32(self.block_count);
        self.counts.encode(&mut put);
        put.u32(self.replaced_count).u32(self.sections_crc);
        self.span.encode_ranges(&mut put);
        put.u64(self.span.entry_count).u64(self.floor_lsn.0).u64(self.payload_bytes);
        let checksum = seal_edge(&mut out);
        (out, checksum)
    }

    /// Decodes and checks the last block of a file of `file_bytes`; yields the table checksum, too.
    pub(crate) fn decode(block: &[u8], file_bytes: u64) -> Result<(Footer, u32), FormatError> {
        let (mut get, checksum) = open_edge(block, FOOTER_MAGIC, "table footer")?;
        let (store, table_id) = (StoreId(get.array()?), get.u64()?);
        let (meta_offset, meta_bytes, block_count) = (get.u64()?, get.u64()?, get.u32()?);
        let (counts, replaced_count) = (Counts::decode(&mut get)?, get.u32()?);
        let sections_crc = get.u32()?;
        let ranges = Span::decode_ranges(&mut get, 0)?;
        let span = Span { entry_count: get.u64()?, ..ranges };
        let (floor_lsn, payload_bytes) = (Lsn(get.u64()?), get.u64()?);
        span.check()?;
        let footer = Footer {
            store,
            table_id,
            meta_offset,
            meta_bytes,
            block_count,
            counts,
            replaced_count,
            sections_crc,
            span,
            floor_lsn,
            payload_bytes,
        };
        if block_count == 0 || u64::from(block_count) * INDEX_ENTRY_BYTES as u64 > meta_bytes {
            return Err(FormatError::Field("block count"));
        }
        let inside = (BLOCK_BYTES as u64..file_bytes).contains(&meta_offset) && meta_bytes <= META_BYTES_MAX;
        if !inside || footer.file_bytes() != file_bytes {
            return Err(FormatError::Field("meta offset and length"));
        }
        Ok((footer, checksum))
    }
}

/// The checksum that binds header block and padded meta section to the footer.
pub(crate) fn sections_crc(header: &[u8], meta: &[u8]) -> u32 {
    crc32(&[header, meta])
}

/// Bytes of the meta section, without padding.
pub(crate) fn meta_bytes(block_count: usize, facts: &TableFacts) -> usize {
    block_count * INDEX_ENTRY_BYTES
        + facts::encoded_bytes(&facts.gaps, &facts.checkpoints, &facts.clock_steps)
        + facts.replaces.len() * REPLACED_BYTES
}

/// Writes the meta section to the start of `out`.
pub(crate) fn encode_meta(out: &mut [u8], index: &[IndexEntry], facts: &TableFacts) {
    let mut put = Put::new(out);
    for block in index {
        block.encode(&mut put);
    }
    facts::encode(&mut put, &facts.gaps, &facts.checkpoints, &facts.clock_steps);
    for id in &facts.replaces {
        put.u64(*id);
    }
    assert_eq!(put.len(), meta_bytes(index.len(), facts));
}

/// Decodes the meta section of which `footer` tells; `bytes` is what lies between the last block and the footer.
pub(crate) fn decode_meta(bytes: &[u8], footer: &Footer) -> Result<(Vec<IndexEntry>, TableFacts), FormatError> {
    let mut get = Get(bytes.get(..footer.meta_bytes as usize).ok_or(FormatError::Truncated)?);
    let mut index: Vec<IndexEntry> = Vec::with_capacity(footer.block_count as usize);
    let mut total: Option<Span> = None;
    for _ in 0..footer.block_count {
        let offset = index.last().map_or(BLOCK_BYTES as u64, IndexEntry::end);
        let block = IndexEntry::decode(&mut get, offset)?;
        total = Some(match total {
            None => block.span,
            Some(before) if before.last_lsn < block.span.first_lsn => before.join(block.span),
            Some(_) => return Err(FormatError::Field("block order")),
        });
        index.push(block);
    }
    if index.last().map(IndexEntry::end) != Some(footer.meta_offset) {
        return Err(FormatError::Field("block length"));
    }
    if total != Some(footer.span) {
        return Err(FormatError::Field("entry count, LSN range or time range of the table"));
    }
    let (gaps, checkpoints, clock_steps) = facts::decode(&mut get, footer.counts)?;
    let mut replaces = Vec::new();
    for _ in 0..footer.replaced_count {
        replaces.push(get.u64()?);
    }
    if !get.0.is_empty() {
        return Err(FormatError::Field("meta length"));
    }
    Ok((index, TableFacts { gaps, checkpoints, clock_steps, replaces, floor_lsn: footer.floor_lsn }))
}

#[cfg(test)]
mod tests;

//! Finds the good data blocks in a table whose header, index or footer is damaged.
//!
//! Blocks follow each other without a byte in between, so from a good block the next one is known; behind a bad one the
//! magic number is searched for. What is taken has its CRC, which names the store, and rises by LSN: bytes of a payload
//! that look like a block would have to know the store's id.

use std::ops::RangeInclusive;

use super::TableError;
use crate::format::table::{BLOCK_HEADER_BYTES, BLOCK_RAW_BYTES_MAX, BlockHeader, IndexEntry};
use crate::format::{BLOCK_BYTES, Lsn, StoreId};
use crate::io::ReadAt;

const MAGIC: &[u8] = b"KBLK";
/// Where a block's header tells the length of what follows it.
const STORED_BYTES_AT: usize = 20;
/// Bytes searched at once.
const CHUNK_BYTES: usize = 256 << 10;

/// The good blocks of a file, in order, with LSNs inside `range`. An error is a failed read.
pub(super) fn find_blocks(
    file: &dyn ReadAt,
    file_bytes: u64,
    store: StoreId,
    range: RangeInclusive<Lsn>,
) -> Result<Vec<IndexEntry>, TableError> {
    let mut index: Vec<IndexEntry> = Vec::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = BLOCK_BYTES as u64;
    while offset + (BLOCK_HEADER_BYTES as u64) <= file_bytes {
        if let Some(block) = block_at(file, file_bytes, offset, store)?
            && is_next(&index, &block, &range)
        {
            offset = block.end();
            index.push(block);
            continue;
        }
        offset += 1;
        let filled = read(file, &mut chunk, offset)?;
        let at = chunk[..filled].windows(MAGIC.len()).position(|window| window == MAGIC);
        // The magic may lie across the end of the chunk.
        offset += at.unwrap_or(filled.saturating_sub(MAGIC.len() - 1)) as u64;
    }
    Ok(index)
}

fn is_next(index: &[IndexEntry], block: &IndexEntry, range: &RangeInclusive<Lsn>) -> bool {
    let rises = index.last().is_none_or(|last| last.span.last_lsn < block.span.first_lsn);
    rises && range.contains(&block.span.first_lsn) && range.contains(&block.span.last_lsn)
}

fn block_at(file: &dyn ReadAt, file_bytes: u64, offset: u64, store: StoreId) -> Result<Option<IndexEntry>, TableError> {
    let mut header = [0; BLOCK_HEADER_BYTES];
    if read(file, &mut header, offset)? < header.len() {
        return Ok(None);
    }
    let stored = header[STORED_BYTES_AT..STORED_BYTES_AT + 4].try_into().expect("four bytes");
    let stored_bytes = u32::from_le_bytes(stored) as usize;
    let block_bytes = BLOCK_HEADER_BYTES + stored_bytes.min(BLOCK_RAW_BYTES_MAX);
    if stored_bytes > BLOCK_RAW_BYTES_MAX || offset + block_bytes as u64 > file_bytes {
        return Ok(None);
    }
    let mut block = vec![0; block_bytes];
    if read(file, &mut block, offset)? < block_bytes {
        return Ok(None);
    }
    let decoded = BlockHeader::decode(&block, store).ok();
    Ok(decoded.map(|(header, crc)| IndexEntry { offset, block_bytes: block_bytes as u32, crc, span: header.span }))
}

/// Fills `buf` as far as the file goes.
fn read(file: &dyn ReadAt, buf: &mut [u8], offset: u64) -> Result<usize, TableError> {
    let mut filled = 0;
    while filled < buf.len() {
        match file.read_at(&mut buf[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(TableError::Io(cause)),
        }
    }
    Ok(filled)
}

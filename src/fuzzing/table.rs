//! Tables: a block alone, and the file as a reader opens it.

use super::{Bytes, STORE, get_u32, get_u64, put_u32};
use crate::format::bytes::crc32;
use crate::format::table::{
    self as layout, BLOCK_HEADER_BYTES, BlockHeader, Codec, Footer, IndexEntry, TableFacts, encode_entry, scan_entries,
};
use crate::format::{BLOCK_BYTES, Lsn, StoreId, block_ceil};
use crate::sstable::{BlockBuf, Table};

/// A data block, to the end of the bytes.
pub fn table_block(data: &[u8]) {
    check_block(data);
    let mut sealed = data.to_vec();
    if sealed.len() >= BLOCK_HEADER_BYTES {
        put_u32(&mut sealed, 20, (data.len() - BLOCK_HEADER_BYTES) as u32);
        let crc = crc32(&[&STORE.0, &sealed[8..]]);
        put_u32(&mut sealed, 4, crc);
    }
    check_block(&sealed);
}

fn check_block(bytes: &[u8]) {
    let Ok((header, crc)) = BlockHeader::decode(bytes, STORE) else { return };
    let mut again = bytes.to_vec();
    assert_eq!(header.seal(&mut again, STORE), crc);
    assert_eq!(again, bytes);
    let raw = &bytes[BLOCK_HEADER_BYTES..];
    let mut heads = Vec::new();
    // What is compressed is the other target's.
    if header.codec != Codec::None || scan_entries(raw, &header.span, &mut heads).is_err() {
        return;
    }
    assert_eq!(heads.len() as u64, header.span.entry_count);
    let mut again = Vec::new();
    for head in &heads {
        encode_entry(&mut again, header.span.first_lsn, &head.entry(raw));
    }
    assert_eq!(again, raw);
}

/// A table's file, filled up with zeros to whole blocks.
pub fn table(data: &[u8]) {
    let mut file = data.to_vec();
    file.resize(block_ceil(data.len() as u64).max(2 * BLOCK_BYTES as u64) as usize, 0);
    check_table(&file);
    seal_table(&mut file);
    check_table(&file);
}

/// The store that the header names.
fn store_of(file: &[u8]) -> StoreId {
    StoreId(file[16..32].try_into().expect("sixteen bytes are sixteen"))
}

/// Makes the checksums fit, from the inside out: blocks, index, header and index together, header, footer.
fn seal_table(file: &mut [u8]) {
    let store = store_of(file);
    let footer_at = file.len() - BLOCK_BYTES;
    let crc = crc32(&[&file[..12], &file[16..BLOCK_BYTES]]);
    put_u32(file, 12, crc);
    let meta_at = usize::try_from(get_u64(file, footer_at + 40)).unwrap_or(usize::MAX);
    if (BLOCK_BYTES..=footer_at).contains(&meta_at) {
        for at in (meta_at..footer_at.saturating_sub(63)).step_by(64).take(get_u32(file, footer_at + 56) as usize) {
            let offset = usize::try_from(get_u64(file, at)).unwrap_or(usize::MAX);
            let end = offset.saturating_add(get_u32(file, at + 8) as usize);
            if offset >= BLOCK_BYTES && end <= meta_at && end - offset >= BLOCK_HEADER_BYTES {
                let crc = crc32(&[&store.0, &file[offset + 8..end]]);
                put_u32(file, offset + 4, crc);
                put_u32(file, at + 48, crc);
            }
        }
        let crc = layout::sections_crc(&file[..BLOCK_BYTES], &file[meta_at..footer_at]);
        put_u32(file, footer_at + 76, crc);
    }
    let footer = &file[footer_at..];
    let crc = crc32(&[&footer[..12], &footer[16..]]);
    put_u32(file, footer_at + 12, crc);
}

fn check_table(file: &[u8]) {
    check_sections(file);
    let Ok(table) = Table::open(Box::new(Bytes(file.to_vec())), None, store_of(file)) else { return };
    let mut buf = BlockBuf::default();
    let (mut entries, mut last, mut is_whole) = (0, Lsn::ZERO, true);
    for block in 0..table.block_count() {
        if table.read_block(block, &mut buf).is_err() {
            assert_eq!(buf.len(), 0, "nothing is left of a block that was refused");
            is_whole = false;
            continue;
        }
        for entry in buf.entries() {
            assert!(entry.lsn > last);
            last = entry.lsn;
            entries += 1;
        }
    }
    assert!(!is_whole || (entries, last) == (table.meta().entry_count, table.meta().last_lsn));
    assert!(is_whole || table.verify(&mut buf).is_err());
}

/// What header, index and footer decode to is what they are encoded from.
fn check_sections(file: &[u8]) {
    if let Ok((store, id)) = layout::decode_header(&file[..BLOCK_BYTES]) {
        // What lies behind the fields is not looked at; only its checksum is.
        assert_eq!(layout::encode_header(store, id)[16..40], file[16..40]);
    }
    let footer_at = file.len() - BLOCK_BYTES;
    let Ok((footer, _)) = Footer::decode(&file[footer_at..], file.len() as u64) else { return };
    assert_eq!(footer.encode().0[16..136], file[footer_at + 16..][..120]);
    let meta = &file[footer.meta_offset as usize..footer_at];
    let Ok((index, facts)): Result<(Vec<IndexEntry>, TableFacts), _> = layout::decode_meta(meta, &footer) else {
        return;
    };
    let mut again = vec![0; layout::meta_bytes(index.len(), &facts)];
    layout::encode_meta(&mut again, &index, &facts);
    assert_eq!(again, meta[..again.len()]);
}

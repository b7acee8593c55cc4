use super::block::decode_entry;
use super::*;
use crate::format::entry::Entry;
use crate::format::{ENTRY_PAYLOAD_BYTES_MAX, GapCause};

const STORE: StoreId = StoreId(*b"store-of-a-till!");

/// Takes the fields off `bytes` one by one and compares each; what is left must be zero.
#[track_caller]
fn assert_fields(bytes: &[u8], fields: &[(&str, &[u8])]) {
    let mut get = Get(bytes);
    for (field, expected) in fields {
        assert_eq!(get.bytes(expected.len()), Ok(*expected), "{field}");
    }
    assert!(get.0.iter().all(|&byte| byte == 0), "the rest is padding");
}

const ENTRIES: [Entry<'static>; 2] = [
    Entry { lsn: Lsn(7), timestamp_ns: 0x0201, source: 3, payload: b"ok" },
    Entry { lsn: Lsn(9), timestamp_ns: 0x0101, source: 4, payload: b"" },
];

fn block() -> (BlockHeader, Vec<u8>, u32) {
    let mut bytes = vec![0; BLOCK_HEADER_BYTES];
    ENTRIES.iter().for_each(|entry| encode_entry(&mut bytes, Lsn(7), entry));
    let span = Span::of(&ENTRIES[0]).join(Span::of(&ENTRIES[1]));
    let header = BlockHeader { codec: Codec::None, raw_bytes: bytes.len() - BLOCK_HEADER_BYTES, span };
    let crc = header.seal(&mut bytes, STORE);
    (header, bytes, crc)
}

fn facts() -> TableFacts {
    TableFacts {
        gaps: vec![Gap { first: Lsn(8), last: Lsn(8), cause: GapCause::UncleanNormal }],
        checkpoints: Checkpoints::from([(b"k".to_vec(), b"v".to_vec())]),
        clock_steps: vec![ClockStep { lsn: Lsn(9), from_ns: 2, to_ns: 1 }],
        replaces: vec![5],
        floor_lsn: Lsn(1),
    }
}

/// Header, block, meta section and footer of a table of one block.
fn parts() -> (Vec<u8>, Vec<u8>, Vec<u8>, Footer) {
    let header = encode_header(STORE, 0x11);
    let (block_header, block, crc) = block();
    let index =
        [IndexEntry { offset: BLOCK_BYTES as u64, block_bytes: block.len() as u32, crc, span: block_header.span }];
    let meta_offset = (header.len() + block.len()) as u64;
    let meta_bytes = meta_bytes(1, &facts()) as u64;
    let mut meta = vec![0; (block_ceil(meta_offset + meta_bytes) - meta_offset) as usize];
    encode_meta(&mut meta, &index, &facts());
    let footer = Footer {
        store: STORE,
        table_id: 0x11,
        meta_offset,
        meta_bytes,
        block_count: 1,
        counts: Counts::of(&facts().gaps, &facts().checkpoints, &facts().clock_steps),
        replaced_count: 1,
        sections_crc: sections_crc(&header, &meta),
        span: block_header.span,
        floor_lsn: Lsn(1),
        payload_bytes: 2,
    };
    (header, block, meta, footer)
}

#[test]
fn golden_header() {
    let expected: &[(&str, &[u8])] = &[
        ("magic", b"KIFATAB\0"),
        ("version", &[1, 0, 0, 0]),
        ("CRC", &[0x48, 0xC5, 0x13, 0xE7]),
        ("store id", b"store-of-a-till!"),
        ("table id", &[0x11, 0, 0, 0, 0, 0, 0, 0]),
    ];
    let bytes = encode_header(STORE, 0x11);
    assert_fields(&bytes, expected);
    assert_eq!(bytes.len(), BLOCK_BYTES);
    assert_eq!(decode_header(&bytes), Ok((STORE, 0x11)));
}

#[test]
fn golden_block() {
    let expected: &[(&str, &[u8])] = &[
        ("magic", b"KBLK"),
        ("CRC", &[0xE9, 0xCE, 0x72, 0xE6]),
        ("codec", &[0]),
        ("reserved", &[0; 3]),
        ("entry count", &[2, 0, 0, 0]),
        ("raw length", &[42, 0, 0, 0]),
        ("stored length", &[42, 0, 0, 0]),
        ("first LSN", &[7, 0, 0, 0, 0, 0, 0, 0]),
        ("last LSN", &[9, 0, 0, 0, 0, 0, 0, 0]),
        ("smallest timestamp", &[1, 1, 0, 0, 0, 0, 0, 0]),
        ("largest timestamp", &[1, 2, 0, 0, 0, 0, 0, 0]),
        ("entry 0: LSN delta", &[0; 4]),
        ("entry 0: source", &[3, 0]),
        ("entry 0: reserved", &[0, 0]),
        ("entry 0: timestamp", &[1, 2, 0, 0, 0, 0, 0, 0]),
        ("entry 0: payload length", &[2, 0, 0, 0]),
        ("entry 0: payload", b"ok"),
        ("entry 1: LSN delta", &[2, 0, 0, 0]),
        ("entry 1: source", &[4, 0]),
        ("entry 1: reserved", &[0, 0]),
        ("entry 1: timestamp", &[1, 1, 0, 0, 0, 0, 0, 0]),
        ("entry 1: payload length", &[0; 4]),
    ];
    let (header, bytes, crc) = block();
    assert_fields(&bytes, expected);
    assert_eq!(bytes.len(), 56 + 42);
    assert_eq!(BlockHeader::decode(&bytes, STORE), Ok((header, crc)));
    assert_eq!(header.payload_bytes(), 2);
    let raw = &bytes[BLOCK_HEADER_BYTES..];
    let mut heads = Vec::new();
    for _ in 0..2 {
        assert_eq!(scan_entries(raw, &header.span, &mut heads), Ok(()), "also when the list was used before");
        assert_eq!(heads.iter().map(|head| head.entry(raw)).collect::<Vec<_>>(), ENTRIES);
    }
}

#[test]
fn golden_meta_section() {
    let expected: &[(&str, &[u8])] = &[
        ("block offset", &[0, 0x10, 0, 0, 0, 0, 0, 0]),
        ("block length", &[98, 0, 0, 0]),
        ("entry count", &[2, 0, 0, 0]),
        ("first LSN", &[7, 0, 0, 0, 0, 0, 0, 0]),
        ("last LSN", &[9, 0, 0, 0, 0, 0, 0, 0]),
        ("smallest timestamp", &[1, 1, 0, 0, 0, 0, 0, 0]),
        ("largest timestamp", &[1, 2, 0, 0, 0, 0, 0, 0]),
        ("block CRC", &[0xE9, 0xCE, 0x72, 0xE6]),
        ("reserved", &[0; 12]),
        ("gap first", &[8, 0, 0, 0, 0, 0, 0, 0]),
        ("gap last", &[8, 0, 0, 0, 0, 0, 0, 0]),
        ("gap cause", &[1]),
        ("checkpoint key length", &[1, 0]),
        ("checkpoint value length", &[1, 0]),
        ("checkpoint key", b"k"),
        ("checkpoint value", b"v"),
        ("clock step LSN", &[9, 0, 0, 0, 0, 0, 0, 0]),
        ("clock step from", &[2, 0, 0, 0, 0, 0, 0, 0]),
        ("clock step to", &[1, 0, 0, 0, 0, 0, 0, 0]),
        ("replaced table", &[5, 0, 0, 0, 0, 0, 0, 0]),
    ];
    let (_, _, meta, footer) = parts();
    assert_fields(&meta, expected);
    let (index, decoded) = decode_meta(&meta, &footer).expect("the section is good");
    assert_eq!((index.len(), index[0].end()), (1, footer.meta_offset));
    assert_eq!(decoded, facts());
    for len in 0..footer.meta_bytes as usize {
        assert_eq!(decode_meta(&meta[..len], &footer), Err(FormatError::Truncated));
    }
}

#[test]
fn blocks_that_overlap_or_are_out_of_order_are_refused() {
    let span = |first: u64, last: u64| {
        let (entry_count, min_timestamp_ns, max_timestamp_ns) = (2, 1, 1);
        Span { entry_count, first_lsn: Lsn(first), last_lsn: Lsn(last), min_timestamp_ns, max_timestamp_ns }
    };
    let decode = |first: Span, second: Span| {
        let at = |offset, span| IndexEntry { offset, block_bytes: 100, crc: 0, span };
        let index = [at(4096, first), at(4196, second)];
        let mut meta = vec![0; meta_bytes(2, &TableFacts::default())];
        encode_meta(&mut meta, &index, &TableFacts::default());
        let footer = Footer {
            meta_offset: 4296,
            meta_bytes: meta.len() as u64,
            block_count: 2,
            counts: Counts::default(),
            replaced_count: 0,
            span: first.join(second),
            ..parts().3
        };
        decode_meta(&meta, &footer).map(|(index, _)| index.len())
    };
    assert_eq!(decode(span(1, 4), span(5, 6)), Ok(2));
    assert_eq!(decode(span(1, 4), span(4, 6)), Err(FormatError::Field("block order")));
    assert_eq!(decode(span(5, 6), span(1, 4)), Err(FormatError::Field("block order")));
}

#[test]
fn golden_footer() {
    let expected: &[(&str, &[u8])] = &[
        ("magic", b"KIFAEND\0"),
        ("version", &[1, 0, 0, 0]),
        ("table checksum", &[0x9A, 0x95, 0x18, 0xE8]),
        ("store id", b"store-of-a-till!"),
        ("table id", &[0x11, 0, 0, 0, 0, 0, 0, 0]),
        ("meta offset", &[0x62, 0x10, 0, 0, 0, 0, 0, 0]),
        ("meta length", &[119, 0, 0, 0, 0, 0, 0, 0]),
        ("blocks", &[1, 0, 0, 0]),
        ("gaps", &[1, 0, 0, 0]),
        ("checkpoints", &[1, 0, 0, 0]),
        ("clock steps", &[1, 0, 0, 0]),
        ("replaced tables", &[1, 0, 0, 0]),
        ("CRC of header and meta section", &[0x40, 0xCB, 0x24, 0x34]),
        ("first LSN", &[7, 0, 0, 0, 0, 0, 0, 0]),
        ("last LSN", &[9, 0, 0, 0, 0, 0, 0, 0]),
        ("smallest timestamp", &[1, 1, 0, 0, 0, 0, 0, 0]),
        ("largest timestamp", &[1, 2, 0, 0, 0, 0, 0, 0]),
        ("entry count", &[2, 0, 0, 0, 0, 0, 0, 0]),
        ("retention floor", &[1, 0, 0, 0, 0, 0, 0, 0]),
        ("payload bytes", &[2, 0, 0, 0, 0, 0, 0, 0]),
    ];
    let (_, _, _, footer) = parts();
    let (bytes, checksum) = footer.encode();
    assert_fields(&bytes, expected);
    assert_eq!(footer.file_bytes(), 3 * BLOCK_BYTES as u64);
    assert_eq!(Footer::decode(&bytes, footer.file_bytes()), Ok((footer.clone(), checksum)));
    assert!(Footer::decode(&bytes, footer.file_bytes() + BLOCK_BYTES as u64).is_err(), "in a file of another length");
}

/// Every truncation and every flipped bit of a good record is refused.
#[track_caller]
fn assert_fragile<T>(good: &[u8], decode: impl Fn(&[u8]) -> Result<T, FormatError>) {
    assert!(decode(good).is_ok());
    for len in 0..good.len() {
        assert!(decode(&good[..len]).is_err(), "cut to {len} bytes");
    }
    let mut bytes = good.to_vec();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bytes).is_err(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_is_refused() {
    let (header, block, _, footer) = parts();
    assert_fragile(&header, decode_header);
    assert_fragile(&block, |bytes| BlockHeader::decode(bytes, STORE));
    assert_fragile(&footer.encode().0, |bytes| Footer::decode(bytes, footer.file_bytes()));
}

#[test]
fn a_newer_version_is_refused_by_its_number() {
    let mut header = encode_header(STORE, 1);
    header[8] = 2;
    seal_edge(&mut header);
    assert_eq!(decode_header(&header), Err(FormatError::Version(2)));
}

#[test]
fn a_block_of_another_store_is_refused() {
    let (_, bytes, _) = block();
    assert_eq!(BlockHeader::decode(&bytes, StoreId([0; 16])), Err(FormatError::Checksum("data block")));
}

#[test]
fn header_fields_of_a_block_are_checked_even_when_the_checksum_is_right() {
    let with = |at: usize, field: &[u8]| {
        let (_, mut bytes, _) = block();
        bytes[at..at + field.len()].copy_from_slice(field);
        let crc = crc32(&[&STORE.0, &bytes[8..]]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        BlockHeader::decode(&bytes, STORE).expect_err("the field is wrong")
    };
    assert_eq!(with(8, &[3]), FormatError::Codec(3));
    assert_eq!(with(8, &[77]), FormatError::Codec(77));
    assert_eq!(with(8, &[1]), FormatError::Field("stored length"), "compressed to the same length");
    assert_eq!(with(9, &[1]), FormatError::Field("reserved"));
    assert_eq!(with(12, &[0]), FormatError::Field("entry count"));
    assert_eq!(with(12, &[4]), FormatError::Field("entry count"), "more than LSNs");
    assert_eq!(with(12, &[3]), FormatError::Field("raw length"), "more than fit");
    assert_eq!(with(16, &(BLOCK_RAW_BYTES_MAX as u32 + 1).to_le_bytes()), FormatError::Field("raw length"));
    assert_eq!(with(16, &[43]), FormatError::Field("stored length"), "plain, and shorter");
    assert_eq!(with(20, &[43]), FormatError::Field("stored length"), "more than the block has");
    assert_eq!(with(24, &[0]), FormatError::Field("LSN range"));
    assert_eq!(with(24, &[10]), FormatError::Field("LSN range"));
    assert_eq!(with(41, &[3]), FormatError::Field("time range"));
}

#[test]
fn the_largest_entry_fits_into_a_block_and_a_larger_one_is_refused() {
    let payload = vec![0; ENTRY_PAYLOAD_BYTES_MAX];
    let entry = Entry { payload: &payload, ..ENTRIES[0] };
    let mut raw = Vec::new();
    encode_entry(&mut raw, Lsn(7), &entry);
    assert!(raw.len() <= BLOCK_RAW_BYTES_MAX);
    assert_eq!(decode_entry(&mut Get(&raw), Lsn(7)), Ok(entry));
    raw[16] = 1;
    raw.push(0);
    assert_eq!(decode_entry(&mut Get(&raw), Lsn(7)), Err(FormatError::Field("payload length")));
}
